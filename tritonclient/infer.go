package tritonclient

import (
	"cmp"
	"context"
	"math"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"quire/tritonclient/inferencepb"
)

// InferRequest is one inference.
type InferRequest struct {
	// Model names the model; Version "" lets the server choose.
	Model, Version string
	// ID comes back in the response and in the server's log; may be empty.
	ID string
	// Inputs are the model's inputs. Their memory is borrowed until Infer
	// returns.
	Inputs []Input
	// Outputs are the outputs wanted, and what they must look like; empty means
	// all, unchecked.
	Outputs []Output
}

// Input is one input tensor: its elements are in Raw or in Region, never both.
type Input struct {
	Name string
	// Datatype is Triton's word: "UINT8", "FP32", …
	Datatype string
	// Shape includes the batch dimension.
	Shape []int64
	// Raw is the elements, row-major, little-endian, without padding.
	Raw []byte
	// Region says where in registered shared memory the elements are.
	Region *SharedMemoryRef
}

// SharedMemoryRef is a part of a registered [Region]. The server reads it while it
// works on the request, and may go on doing so after a call that was cancelled;
// what it then makes of bytes that changed is thrown away.
type SharedMemoryRef struct {
	// Region is the region's name.
	Region string
	// Offset is from the region's begin, ByteSize exactly the tensor's size;
	// both in bytes.
	Offset, ByteSize uint64
}

// Output is an output that is wanted.
type Output struct {
	Name string
	// Datatype is what it must be; empty: anything.
	Datatype string
	// Shape is what it must be, -1 for a dimension that is free; nil: anything.
	Shape []int64
	// Classes, when positive, asks for the largest so many elements instead of
	// the tensor, as BYTES "value:index:label", where label is that line of the
	// model's label_filename, and missing beyond its end (the classification
	// extension).
	Classes int
}

// InferResponse is an answer. It owns its memory.
type InferResponse struct {
	Model, Version, ID string
	// Outputs are the tensors by name. Every output that was asked for is
	// there, and every tensor of fixed-size elements has exactly the bytes that
	// its shape says.
	Outputs map[string]*Tensor
}

// Infer runs one inference and returns when the answer is there, or ctx,
// Config.InferTimeout or the server ends it. The inputs' memory may be used again, or
// unmapped, as soon as it has returned, however it ended; to be sure of that it
// may return a fraction of a second after ctx has ended, and break the
// connection when the server has stopped reading.
//
// An answer that lacks an output, or has one of another type, shape or size than
// asked for, is an error of kind BadResponse. Values are not looked at.
func (c *Client) Infer(ctx context.Context, req *InferRequest) (*InferResponse, error) {
	message, err := c.encodeRequest(req)
	if err != nil {
		return nil, err
	}
	res, err := call(ctx, c, "ModelInfer", req.Model, c.config.InferTimeout, c.attended, message)
	if err != nil {
		return nil, err
	}
	return c.decodeResponse(req, res)
}

// modelInfer is the RPC, with large tensors sent from where they lie.
func (c *Client) modelInfer(ctx context.Context, message *inferencepb.ModelInferRequest, _ ...grpc.CallOption) (*inferencepb.ModelInferResponse, error) {
	borrowed := borrow(message)
	if borrowed == nil {
		return c.stub.ModelInfer(ctx, message)
	}
	res := &inferencepb.ModelInferResponse{}
	var p peer.Peer
	err := c.conn.Invoke(ctx, inferencepb.GRPCInferenceService_ModelInfer_FullMethodName, borrowed, res,
		grpc.StaticMethod(), grpc.ForceCodecV2(c.codec), grpc.Peer(&p))
	borrowed.settle(&p)
	if err != nil {
		return nil, err
	}
	return res, nil
}

// encodeRequest checks req and makes its message. The message refers to the
// inputs' memory, it does not copy it.
func (c *Client) encodeRequest(req *InferRequest) (*inferencepb.ModelInferRequest, error) {
	bad := func(format string, args ...any) (*inferencepb.ModelInferRequest, error) {
		return nil, c.badRequest("ModelInfer", req.Model, format, args...)
	}
	if req.Model == "" {
		return bad("no model named")
	}
	for _, s := range []string{req.Model, req.Version, req.ID} {
		// File names end up in IDs, and not all of them are UTF-8; grpc-go
		// would report it as a fault of the server's.
		if !utf8.ValidString(s) {
			return bad("%q is not UTF-8", s)
		}
	}
	m := &inferencepb.ModelInferRequest{ModelName: req.Model, ModelVersion: req.Version, Id: req.ID}
	for i := range req.Inputs {
		in := &req.Inputs[i]
		size, fixed, err := byteSize(in.Datatype, in.Shape)
		if err != nil {
			return bad("input %q: %v", in.Name, err)
		}
		tensor := &inferencepb.ModelInferRequest_InferInputTensor{Name: in.Name, Datatype: in.Datatype, Shape: in.Shape}
		switch {
		case in.Region != nil && in.Raw != nil:
			return bad("input %q has bytes and a region; it must be one of them", in.Name)
		case in.Region != nil:
			if fixed && in.Region.ByteSize != uint64(size) {
				return bad("input %q: region %q gives %d bytes, %s %v takes %d", in.Name, in.Region.Region, in.Region.ByteSize, in.Datatype, in.Shape, size)
			}
			if in.Region.Region == "" || in.Region.Offset > math.MaxInt64 || in.Region.ByteSize > math.MaxInt64 {
				return bad("input %q: region %q, offset %d, %d bytes cannot be", in.Name, in.Region.Region, in.Region.Offset, in.Region.ByteSize)
			}
			tensor.Parameters = map[string]*inferencepb.InferParameter{
				"shared_memory_region":    stringParameter(in.Region.Region),
				"shared_memory_byte_size": intParameter(int64(in.Region.ByteSize)),
			}
			if in.Region.Offset != 0 {
				tensor.Parameters["shared_memory_offset"] = intParameter(int64(in.Region.Offset))
			}
		default:
			if fixed && int64(len(in.Raw)) != size {
				return bad("input %q has %d bytes, %s %v takes %d", in.Name, len(in.Raw), in.Datatype, in.Shape, size)
			}
			// One entry for each input that is not in shared memory, in order.
			m.RawInputContents = append(m.RawInputContents, in.Raw)
		}
		m.Inputs = append(m.Inputs, tensor)
	}
	for _, out := range req.Outputs {
		wanted := &inferencepb.ModelInferRequest_InferRequestedOutputTensor{Name: out.Name}
		if out.Classes > 0 {
			wanted.Parameters = map[string]*inferencepb.InferParameter{"classification": intParameter(int64(out.Classes))}
		}
		m.Outputs = append(m.Outputs, wanted)
	}
	return m, nil
}

func stringParameter(s string) *inferencepb.InferParameter {
	return &inferencepb.InferParameter{ParameterChoice: &inferencepb.InferParameter_StringParam{StringParam: s}}
}

func intParameter(i int64) *inferencepb.InferParameter {
	return &inferencepb.InferParameter{ParameterChoice: &inferencepb.InferParameter_Int64Param{Int64Param: i}}
}

// decodeResponse checks an answer against what was asked and against itself.
func (c *Client) decodeResponse(req *InferRequest, res *inferencepb.ModelInferResponse) (*InferResponse, error) {
	bad := func(format string, args ...any) (*InferResponse, error) {
		return nil, c.badResponse("ModelInfer", req.Model, format, args...)
	}
	if raw, outputs := len(res.GetRawOutputContents()), len(res.GetOutputs()); raw != outputs {
		return bad("it announces %d outputs and carries %d", outputs, raw)
	}
	answer := &InferResponse{
		Model:   cmp.Or(res.GetModelName(), req.Model),
		Version: res.GetModelVersion(),
		ID:      res.GetId(),
		Outputs: make(map[string]*Tensor, len(res.GetOutputs())),
	}
	if req.ID != "" && answer.ID != req.ID {
		return bad("it is for request %.40q, not %q", answer.ID, req.ID)
	}
	if answer.Model != req.Model || req.Version != "" && answer.Version != req.Version {
		return bad("it is from model %.40q version %.40q, not %q version %q", answer.Model, answer.Version, req.Model, req.Version)
	}
	for i, out := range res.GetOutputs() {
		if out.GetContents() != nil {
			return bad("output %q is not raw bytes", out.GetName())
		}
		t := &Tensor{Name: out.GetName(), Datatype: out.GetDatatype(), Shape: out.GetShape(), Raw: res.GetRawOutputContents()[i]}
		size, fixed, err := byteSize(t.Datatype, t.Shape)
		if err != nil {
			return bad("output %q: %v", t.Name, err)
		}
		if fixed && int64(len(t.Raw)) != size {
			return bad("output %q has %d bytes, %s %v takes %d", t.Name, len(t.Raw), t.Datatype, t.Shape, size)
		}
		if answer.Outputs[t.Name] != nil {
			return bad("output %q is there twice", t.Name)
		}
		answer.Outputs[t.Name] = t
	}
	for _, want := range req.Outputs {
		t := answer.Outputs[want.Name]
		if t == nil {
			return bad("output %q is missing", want.Name)
		}
		if want.Datatype != "" && t.Datatype != want.Datatype {
			return bad("output %q is %s, wanted %s", t.Name, t.Datatype, want.Datatype)
		}
		if want.Shape != nil && !shapeFits(t.Shape, want.Shape) {
			return bad("output %q is %v, wanted %v", t.Name, t.Shape, want.Shape)
		}
	}
	return answer, nil
}

// shapeFits reports whether got is want, where -1 stands for any size.
func shapeFits(got, want []int64) bool {
	if len(got) != len(want) {
		return false
	}
	for i, d := range want {
		if d != -1 && got[i] != d {
			return false
		}
	}
	return true
}
