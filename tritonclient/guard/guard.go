// Package guard starts child processes that cannot outlive this one.
//
// The calling program starts a second copy of itself, the guard, and asks it to
// start everything else. When the guard's pipe to the program closes, for
// whatever reason, SIGKILL included, the guard ends every process it started
// and unlinks the run's shared-memory objects.
package guard
