package embedded

import (
	"fmt"
	"strings"
)

// SetupError is something that the machine lacks for the embedded server. Its
// text is one line.
type SetupError struct {
	// Thing is what was looked at: a program, a library, a directory.
	Thing string
	// Reason says what is wrong with it.
	Reason string
	// Remedy is what to do about it, a command where there is one.
	Remedy string
	// Err is the cause; may be nil.
	Err error
}

func (e *SetupError) Error() string {
	return oneLine(fmt.Sprintf("embedded Triton: %s: %s; %s", e.Thing, e.Reason, e.Remedy))
}

func (e *SetupError) Unwrap() error { return e.Err }

// Somebody else's server needs nothing of all this: wayOut ends every remedy, and
// otherServer is the remedy where there is no other.
const (
	otherServer = "use a running server with --triton ADDR"
	wayOut      = "or " + otherServer
)

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
