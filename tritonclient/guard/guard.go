// Package guard starts child processes that cannot outlive this one.
//
// The calling program starts a second copy of itself, the guard, and asks it to
// start everything else. When the guard's pipe to the program closes, for
// whatever reason, SIGKILL included, the guard ends every process it started
// and unlinks the run's shared-memory objects. When the guard itself is killed,
// the kernel ends its children and the program does the rest.
//
// A program that uses the package calls [Main] first thing in main, and so does
// each TestMain of a package that does:
//
//	func main() {
//		guard.Main()
//		…
//	}
package guard

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrLost is the error of a guard that ended without being asked to.
var ErrLost = errors.New("guard: the guard process ended unexpectedly; its children were ended with it")

// ErrClosed is returned by Spawn after Close; ErrLost is when the guard is lost.
var ErrClosed = errors.New("guard: closed")

// Config is how a guard is started. The zero value is good.
type Config struct {
	// Name begins the names of the run's shared-memory objects. Default
	// "quire". It holds letters and digits only.
	Name string
	// Stderr is the guard's standard error, which only a crash of the guard
	// itself would use. Default os.Stderr.
	Stderr *os.File
}

// Command is a process to start.
type Command struct {
	// Path is the program; it is not searched for on PATH.
	Path string
	// Args are the arguments, Args[0] included. Default: just Path.
	Args []string
	// Env is the whole environment. Default: that of this program.
	Env []string
	// Dir is the working directory. Default: the one this program had when it
	// started the guard.
	Dir string
	// Files become descriptors 0, 1, 2, 3 and so on of the process; nil entries
	// and missing ones among the first three are /dev/null. They are put into
	// blocking mode, as os/exec does, and still belong to the caller, who may
	// close them once Spawn has returned. At most 128.
	Files []*os.File
	// Nice is added to the niceness of this program.
	Nice int
	// Rlimits are set on the process right after it was started and hold when
	// Spawn returns; where a lower hard limit holds already, that stays. Core files are
	// always switched off.
	Rlimits []Rlimit
}

// Rlimit is one resource limit; see setrlimit(2).
type Rlimit struct {
	// Resource is an RLIMIT_ constant of golang.org/x/sys/unix.
	Resource int
	// Cur and Max are the soft and the hard limit, in the resource's own unit.
	Cur, Max uint64
}

// State is how a process ended.
type State struct {
	// Code is the exit code, or -1 when a signal ended the process.
	Code int
	// Signal is what ended the process, or 0. It is SIGKILL when the process
	// was ended because the guard was lost.
	Signal syscall.Signal
}

// Success tells whether the process exited with code 0.
func (s State) Success() bool { return s.Code == 0 && s.Signal == 0 }

func (s State) String() string {
	if s.Signal != 0 {
		return fmt.Sprintf("ended by signal %d (%s)", int(s.Signal), s.Signal)
	}
	return fmt.Sprintf("exit code %d", s.Code)
}

// envGuard holds the descriptor number of the guard's end of the connection;
// its presence turns a program into a guard.
const envGuard = "QUIRE_GUARD_FD"

const maxFiles = 128
