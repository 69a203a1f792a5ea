package tritonclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kind says what a failed call means for the caller. Kinds are stable: new ones
// may come, none changes its meaning.
//
// A Kind is an error, so that errors.Is(err, tritonclient.QueueFull) asks for
// the kind of a wrapped *[Error].
type Kind int

// The kinds of failure.
const (
	// Other is anything that no other kind describes.
	Other Kind = iota
	// QueueFull: the model's queue, or a proxy's quota, takes no more now. Send
	// less at once and try again; nothing is wrong with the request.
	QueueFull
	// QueueTimeout: the request waited in the server's queue longer than the
	// queue policy allows. Try again.
	QueueTimeout
	// Unavailable: the server cannot be reached, or is starting, draining or
	// stopping, or the connection broke in mid-call. Wait for it, try again.
	Unavailable
	// ModelNotReady: the server is there and the model is not: unknown, not
	// loaded, or being reloaded. Wait for ModelReady, read the config again.
	ModelNotReady
	// Restricted: the server refuses this client for good: a header,
	// credential or certificate is missing or wrong.
	Restricted
	// ModelControlDisabled: the server does not run with explicit model
	// control, so models cannot be loaded or unloaded by clients.
	ModelControlDisabled
	// UnknownRegion: a shared-memory region is not registered, most likely
	// because the server was restarted. Register it and try again.
	UnknownRegion
	// RegionExists: a shared-memory region of that name is registered already.
	RegionExists
	// RegionRefused: the server cannot map the shared-memory object: it runs on
	// another host, in another container or as another user, or the object is
	// smaller than was said. Send tensors in the message.
	RegionRefused
	// SharedMemoryDisabled: the server takes no shared memory from clients.
	// Send tensors in the message.
	SharedMemoryDisabled
	// Deadline: no answer in time; whether the server did the work is unknown.
	Deadline
	// Canceled: the caller's own context was cancelled.
	Canceled
	// InvalidArgument: the request does not fit the model (name, shape, type,
	// batch size) or the API. The same request will fail again.
	InvalidArgument
	// Internal: the model or its backend failed on the request, or on another
	// one that the server had merged with it.
	Internal
	// LoadFailed: the model does not load with the configuration it has. A copy
	// that was loaded before is still serving.
	LoadFailed
	// TooLarge: a message is larger than a side is willing to take.
	TooLarge
	// BadResponse: the server answered, with something that is not usable.
	BadResponse
)

// kinds are their stable names, and their meaning in people's words, with the
// remedy where there is one.
var kinds = [...]struct{ name, phrase string }{
	Other:                {"other", "failed"},
	QueueFull:            {"queue_full", "the server's queue is full"},
	QueueTimeout:         {"queue_timeout", "waited too long in the server's queue"},
	Unavailable:          {"unavailable", "the server is not available"},
	ModelNotReady:        {"model_not_ready", "the model is not ready"},
	Restricted:           {"restricted", "the server refuses this client; check headers and certificates"},
	ModelControlDisabled: {"model_control_disabled", "models cannot be loaded or unloaded; start the server with --model-control-mode=explicit"},
	UnknownRegion:        {"unknown_region", "the shared-memory region is not registered"},
	RegionExists:         {"region_exists", "the shared-memory region is registered already"},
	RegionRefused:        {"region_refused", "the server cannot use the shared memory; is it on this host, in this container, as this user?"},
	SharedMemoryDisabled: {"shared_memory_disabled", "the server takes no shared memory; start it with --allow-client-shm=true, or send tensors in the message"},
	Deadline:             {"deadline", "no answer in time"},
	Canceled:             {"canceled", "cancelled"},
	InvalidArgument:      {"invalid_argument", "the server refuses the request"},
	Internal:             {"internal", "the server failed"},
	LoadFailed:           {"load_failed", "the model does not load"},
	TooLarge:             {"too_large", "the message is too large"},
	BadResponse:          {"bad_response", "the server's answer is not usable"},
}

// String is the kind's stable name, for logs, metrics and results.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kinds) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return kinds[k].name
}

func (k Kind) Error() string { return k.String() }

func (k Kind) phrase() string {
	if k < 0 || int(k) >= len(kinds) {
		k = Other
	}
	return kinds[k].phrase
}

// KindOf gives the kind of err, and Other when no *[Error] is in it.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Other
}

// Error is a failed call.
//
// errors.Is finds its Kind; for [Deadline] and [Canceled] the context package's
// errors as well, and the cause of a cancelled context. errors.As finds the
// gRPC status error.
type Error struct {
	Kind Kind
	// Code is what the server or the transport answered; for an answer that is
	// not usable it is OK.
	Code codes.Code
	// Message is the server's or the transport's text, made one line.
	Message string
	// Op is the RPC, such as "ModelInfer".
	Op string
	// Model is the model the call was about; may be empty.
	Model string
	// Target is the server as the client was told it.
	Target string
	// Lost is set when the server had the request and the connection broke
	// under it, or the model's process died: the request may be what did it.
	Lost bool
	// Err is the cause; may be nil.
	Err error

	// ctxErr is the context's error when the caller's context or the call's
	// own timeout ended it.
	ctxErr error
}

// Error is one line: the server, the call, what happened, the server's words.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("triton")
	if e.Target != "" {
		b.WriteString(" at " + e.Target)
	}
	b.WriteString(": ")
	if e.Op != "" {
		b.WriteString(e.Op)
		if e.Model != "" {
			b.WriteString(" of " + e.Model)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.reason())
	return b.String()
}

// reason is the line without server and call.
func (e *Error) reason() string {
	if e.Message == "" {
		return e.Kind.phrase()
	}
	return e.Kind.phrase() + " (" + e.Message + ")"
}

// Is reports whether target is this error's Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// Unwrap gives the causes.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.ctxErr != nil {
		errs = append(errs, e.ctxErr)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// fail makes the *Error of a failed RPC. callerCtx is the context the caller
// gave, without the call's own timeout.
func (c *Client) fail(callerCtx context.Context, op, model string, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	e := &Error{
		Code:    st.Code(),
		Message: oneLine(st.Message()),
		Op:      op,
		Model:   model,
		Target:  c.target,
		Err:     err,
	}
	switch {
	case callerCtx.Err() == context.Canceled:
		// The caller left. What the RPC says by then is an accident of timing:
		// CANCELLED mostly, but also UNAVAILABLE or the answer to a lost race.
		e.Kind, e.ctxErr = Canceled, callerCtx.Err()
		if cause := context.Cause(callerCtx); cause != e.ctxErr {
			e.Err = errors.Join(cause, err)
		}
	case callerCtx.Err() == context.DeadlineExceeded, st.Code() == codes.DeadlineExceeded:
		// The caller's deadline, the call's own timeout, or the server's view of
		// either, which can arrive a moment before ours. There is one clock and
		// one meaning.
		e.Kind, e.ctxErr = Deadline, context.DeadlineExceeded
	default:
		e.Kind = classify(op, st.Code(), st.Message())
		e.Lost = lost(e.Kind, st.Message())
	}
	if hint := hint(st.Message()); hint != "" {
		e.Message += "; " + hint
	}
	return e
}

// maxMessage bounds a server's text; a backend may send a whole stack trace.
const maxMessage = 400

// oneLine makes a server's text fit for one line of a terminal: no control
// characters, no runs of blanks, bounded, and without the wrappers that grpc-go
// and Triton put around it.
func oneLine(text string) string {
	// Only the head is looked at: error texts have been seen with megabytes.
	const head = 4 * maxMessage
	if len(text) > head {
		text = text[:head]
	}
	text = strings.ToValidUTF8(text, "?")
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	// Triton: "[request id: <id_unknown>] text".
	if rest, ok := strings.CutPrefix(text, "[request id: "); ok {
		if _, after, ok := strings.Cut(rest, "] "); ok {
			text = after
		}
	}
	// grpc-go: connection error: desc = "transport: Error while dialing: text".
	if rest, ok := strings.CutPrefix(text, `connection error: desc = "`); ok {
		text = strings.TrimSuffix(rest, `"`)
	}
	text = strings.TrimPrefix(text, "transport: ")
	text = strings.TrimPrefix(text, "Error while dialing: ")
	if len(text) > maxMessage {
		cut := maxMessage
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "…"
	}
	return text
}

// hint is what a transport's text most likely means, for the mistakes that
// everybody makes once; empty when there is nothing to add.
func hint(text string) string {
	switch {
	case strings.Contains(text, "looked like an HTTP/1.1 header"):
		return "this looks like Triton's HTTP port; its gRPC port is 8001 by default"
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return "the server speaks without TLS"
	case hungUp(text), strings.Contains(text, "tls: certificate required"):
		return "does it want TLS (--tls), or a certificate of yours (--tls-cert)?"
	}
	return ""
}

// hungUp says whether a server ended a connection before its first word. How that
// reads in grpc-go depends on how far the client's own first words had come, and on
// whether the kernel says so by the end of the stream or by a reset: the server
// closes a stream of which it has not read everything.
func hungUp(text string) bool {
	return strings.Contains(text, "error reading server preface: EOF") ||
		strings.Contains(text, "error reading server preface: read ") && strings.Contains(text, "connection reset by peer") ||
		strings.Contains(text, "transport: failed to write ") ||
		strings.HasPrefix(text, "write tcp ")
}
