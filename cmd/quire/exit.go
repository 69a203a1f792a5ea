package main

import (
	"errors"
	"syscall"

	"github.com/urfave/cli/v2"

	"quire/orchestrator"
)

// The exit codes. 2 is left to Go's own panic.
const (
	exitDone        = 0
	exitFailed      = 1
	exitSomeFailed  = 3
	exitServer      = 4
	exitUsage       = 5
	exitInterrupted = 130
)

// exitCodesHelp ends the help of the program and of each command.
const exitCodesHelp = `EXIT CODES:
   0    all done
   1    failed
   3    finished, and some pages or documents failed, or all;
        of verify: answers differ by more than the tolerance;
        of plan: a run would not get through whole
   4    the server is not ready, or its model does not fit
   5    wrong usage, or no PDF found
   130  interrupted; of run: the results that stand are whole
`

// usageError is the user's mistake.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// serverError is a server that is not there or not usable.
type serverError struct{ error }

func (e serverError) Unwrap() error { return e.error }

// quietError ends the program with a code and has been told already.
type quietError struct{ code int }

func (e quietError) Error() string { return "" }

// interruption is orchestrator.ErrInterrupted with what there is to say besides.
type interruption struct{ text string }

func (e interruption) Error() string { return "interrupted: " + e.text }

func (e interruption) Unwrap() error { return orchestrator.ErrInterrupted }

// lastWords is what a command that was interrupted ends with.
func lastWords(command string, err error) string {
	if told, ok := errors.AsType[interruption](err); ok {
		return told.Error()
	}
	if command == "run" {
		return "interrupted: the results that stand are whole; run the same command again for the rest"
	}
	return "interrupted"
}

// moreFiles is what helps when too many files are open; empty for other errors.
func moreFiles(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return "raise the limit on open files: ulimit -n 4096 (a container: --ulimit nofile=4096)"
	case errors.Is(err, syscall.ENFILE):
		return "raise the machine's limit on open files: sysctl -w fs.file-max=1000000"
	}
	return ""
}

// exitCode is the one place that turns errors into exit codes.
func exitCode(err error) int {
	var (
		usage  usageError
		server serverError
		away   *orchestrator.ServerError
	)
	// Help for what is not there, of urfave/cli itself, comes as it is. Further
	// in, anything may have an exit code: a python3 that does not work, for one.
	_, topic := err.(cli.ExitCoder)
	if quiet, ok := err.(quietError); ok {
		return quiet.code
	}
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, orchestrator.ErrInterrupted):
		return exitInterrupted
	case orchestrator.TooManyOpenFiles(err): // whatever was to be opened
		return exitFailed
	case topic, errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &server), errors.As(err, &away):
		return exitServer
	}
	return exitFailed
}
