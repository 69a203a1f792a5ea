package tritontest

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"quire/tritonclient/inferencepb"
)

// Fault is what goes wrong with a call; the zero value is nothing. What is set
// happens in the order of the fields.
type Fault struct {
	// Delay is how long the call waits first, unless its client leaves.
	Delay time.Duration
	// Hold makes the call wait until it is closed, or its client leaves.
	Hold <-chan struct{}
	// Hang makes the call wait until its client leaves.
	Hang bool
	// Disconnect cuts all connections.
	Disconnect bool
	// Err is the answer.
	Err error
	// Edit changes a ModelInfer's answer. See [MissingOutput] and the others.
	Edit func(*inferencepb.ModelInferResponse)
}

// Fail is the fault of an answer with a code and a text.
func Fail(code codes.Code, format string, args ...any) Fault {
	return Fault{Err: status.Errorf(code, format, args...)}
}

// QueueFull is Triton's answer when max_queue_size is reached.
func QueueFull() Fault {
	return Fail(codes.Unavailable, "[request id: <id_unknown>] Exceeds maximum queue size")
}

// QueueTimeout is Triton's answer when a request waited too long.
func QueueTimeout() Fault { return Fail(codes.Unavailable, "Request timeout expired") }

// Stopping is Triton's answer while it is on its way down.
func Stopping() Fault {
	return Fail(codes.Unavailable, "Server is stopping, scheduler for model has stopped accepting new inference requests")
}

// Reloading is Triton's answer for a version that is not there now.
func Reloading(model string) Fault {
	return Fail(codes.Unavailable, "Request for model '%s' version 1 is not at ready state", model)
}

// Restricted is Triton's answer to a call of a protocol that
// --grpc-restricted-protocol keeps for those who send its header.
func Restricted() Fault {
	return Fail(codes.Unavailable, "This protocol is restricted, expecting header 'triton-grpc-protocol-admin'")
}

// BackendError is the answer of a model that fails.
func BackendError(text string) Fault { return Fail(codes.Internal, "%s", text) }

// wait does the waiting part of f.
func (f Fault) wait(ctx context.Context) error {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-ctx.Done():
		}
	}
	if f.Hold != nil {
		select {
		case <-f.Hold:
		case <-ctx.Done():
		}
	}
	if f.Hang {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return nil
}

// edit is the fault of one output edited; i is its place in the answer.
func edit(output string, change func(r *inferencepb.ModelInferResponse, i int)) Fault {
	return Fault{Edit: func(r *inferencepb.ModelInferResponse) {
		for i, out := range r.Outputs {
			if out.Name == output {
				change(r, i)
				return
			}
		}
		panic(fmt.Sprintf("tritontest: the answer has no output %q to spoil", output))
	}}
}

// MissingOutput leaves an output out.
func MissingOutput(output string) Fault {
	return edit(output, func(r *inferencepb.ModelInferResponse, i int) {
		r.Outputs = slices.Delete(r.Outputs, i, i+1)
		r.RawOutputContents = slices.Delete(r.RawOutputContents, i, i+1)
	})
}

// DoubledOutput gives an output twice.
func DoubledOutput(output string) Fault {
	return edit(output, func(r *inferencepb.ModelInferResponse, i int) {
		r.Outputs = append(r.Outputs, r.Outputs[i])
		r.RawOutputContents = append(r.RawOutputContents, r.RawOutputContents[i])
	})
}

// ForRequest gives the answer another request's ID.
func ForRequest(id string) Fault {
	return Fault{Edit: func(r *inferencepb.ModelInferResponse) { r.Id = id }}
}

// FromModel says that another model answered.
func FromModel(name, version string) Fault {
	return Fault{Edit: func(r *inferencepb.ModelInferResponse) { r.ModelName, r.ModelVersion = name, version }}
}

// WrongShape gives an output another shape, and bytes to match.
func WrongShape(output string, shape ...int64) Fault {
	return edit(output, func(r *inferencepb.ModelInferResponse, i int) {
		// All types of the contract have four bytes.
		size := int64(4)
		for _, d := range shape {
			size *= d
		}
		r.Outputs[i].Shape = shape
		r.RawOutputContents[i] = make([]byte, size)
	})
}

// WrongDatatype gives an output another type without changing its bytes.
func WrongDatatype(output, datatype string) Fault {
	return edit(output, func(r *inferencepb.ModelInferResponse, i int) { r.Outputs[i].Datatype = datatype })
}

// Truncated cuts bytes off an output's end.
func Truncated(output string, bytes int) Fault {
	return edit(output, func(r *inferencepb.ModelInferResponse, i int) {
		raw := r.RawOutputContents[i]
		r.RawOutputContents[i] = raw[:max(0, len(raw)-bytes)]
	})
}

// NaN puts a NaN into element n of an FP32 output.
func NaN(output string, n int) Fault { return Float(output, n, float32(math.NaN())) }

// Float puts a value into element n of an FP32 output.
func Float(output string, n int, value float32) Fault {
	return edit(output, func(r *inferencepb.ModelInferResponse, i int) {
		binary.LittleEndian.PutUint32(r.RawOutputContents[i][4*n:], math.Float32bits(value))
	})
}

// Int puts a value into element n of an INT32 output.
func Int(output string, n int, value int32) Fault {
	return edit(output, func(r *inferencepb.ModelInferResponse, i int) {
		binary.LittleEndian.PutUint32(r.RawOutputContents[i][4*n:], uint32(value))
	})
}
