package tritonclient

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

func TestByteSize(t *testing.T) {
	for _, test := range []struct {
		datatype string
		shape    []int64
		size     int64
		fixed    bool
		ok       bool
	}{
		{"FP32", []int64{2, 300, 4}, 9600, true, true},
		{"UINT8", nil, 1, true, true},
		{"BF16", []int64{0, 1 << 62}, 0, true, true},
		{"BYTES", []int64{3}, 0, false, true},
		{"FP32", []int64{-1}, 0, false, false},
		{"FP32", []int64{0, -1}, 0, false, false},
		{"FP32", []int64{1 << 40, 1 << 40}, 0, false, false},
		{"FP64", []int64{math.MaxInt64}, 0, false, false},
		{"", []int64{1}, 0, false, false},
	} {
		size, fixed, err := byteSize(test.datatype, test.shape)
		if (err == nil) != test.ok || test.ok && (size != test.size || fixed != test.fixed) {
			t.Errorf("byteSize(%s, %v) = %d, %v, %v", test.datatype, test.shape, size, fixed, err)
		}
	}
}

// FuzzDecodeResponse feeds the decoder whatever parses as an answer. What it
// lets through must be what it promises.
func FuzzDecodeResponse(f *testing.F) {
	add := func(res *inferencepb.ModelInferResponse) {
		data, err := proto.Marshal(res)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	out := func(name, datatype string, shape ...int64) *inferencepb.ModelInferResponse_InferOutputTensor {
		return &inferencepb.ModelInferResponse_InferOutputTensor{Name: name, Datatype: datatype, Shape: shape}
	}
	add(&inferencepb.ModelInferResponse{})
	add(&inferencepb.ModelInferResponse{
		ModelName: "layout", ModelVersion: "1", Id: "7",
		Outputs:           []*inferencepb.ModelInferResponse_InferOutputTensor{out("boxes", "FP32", 2, 1, 4), out("labels", "INT32", 2, 1)},
		RawOutputContents: [][]byte{make([]byte, 32), make([]byte, 8)},
	})
	add(&inferencepb.ModelInferResponse{
		Id:                "7",
		Outputs:           []*inferencepb.ModelInferResponse_InferOutputTensor{out("boxes", "FP32", 2, -1, 4), out("s", "BYTES", 1)},
		RawOutputContents: [][]byte{make([]byte, 32), []byte("\x01\x00\x00\x00x")},
	})
	add(&inferencepb.ModelInferResponse{
		Outputs:           []*inferencepb.ModelInferResponse_InferOutputTensor{out("boxes", "FP32", 1<<40, 1<<40)},
		RawOutputContents: [][]byte{nil},
	})
	c := &Client{target: "fuzz"}
	req := &InferRequest{Model: "layout", ID: "7", Outputs: []Output{{Name: "boxes", Datatype: "FP32", Shape: []int64{2, -1, 4}}}}
	f.Fuzz(func(t *testing.T, data []byte) {
		message := &inferencepb.ModelInferResponse{}
		if proto.Unmarshal(data, message) != nil {
			return
		}
		res, err := c.decodeResponse(req, message)
		if err != nil {
			if KindOf(err) != BadResponse {
				t.Fatalf("%v is %s", err, KindOf(err))
			}
			return
		}
		if res.Model != "layout" {
			t.Fatalf("let through an answer of %q", res.Model)
		}
		boxes := res.Outputs["boxes"]
		if len(boxes.Shape) != 3 || boxes.Shape[0] != 2 || boxes.Shape[2] != 4 || res.ID != "7" {
			t.Fatalf("let through %v for %q", boxes, res.ID)
		}
		if boxes.Datatype != "FP32" || int64(len(boxes.Raw)) != 4*8*boxes.Shape[1] {
			t.Fatalf("%d bytes for %s %v", len(boxes.Raw), boxes.Datatype, boxes.Shape)
		}
		for _, tensor := range res.Outputs {
			if size, fixed, err := byteSize(tensor.Datatype, tensor.Shape); err != nil || fixed && size != int64(len(tensor.Raw)) {
				t.Fatalf("let through %d bytes of %s %v", len(tensor.Raw), tensor.Datatype, tensor.Shape)
			}
		}
	})
}
