package tritonclient

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"unsafe"

	"google.golang.org/protobuf/proto"

	"quire/tritonclient/inferencepb"
)

func TestViewIsTheSameMemory(t *testing.T) {
	backing := make([]uint64, 3) // aligned for every T
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&backing[0])), 24)
	want := []float32{1.5, -2, float32(math.Inf(1)), 0, 3e-9}
	for i, v := range want {
		binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
	}
	tensor := &Tensor{Name: "t", Datatype: "FP32", Raw: raw[:20]}
	got, err := tensor.Float32s()
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v, want %v", got, err, want)
	}
	if littleEndian && unsafe.Pointer(&got[0]) != unsafe.Pointer(&raw[0]) {
		t.Error("an aligned tensor was copied")
	}
	if allocs := testing.AllocsPerRun(10, func() { _, _ = tensor.Float32s() }); littleEndian && allocs != 0 {
		t.Errorf("%v allocations for a view", allocs)
	}

	// One byte further it is misaligned: the same values, other memory.
	shifted := make([]byte, 21)
	copy(shifted[1:], raw[:20])
	tensor.Raw = shifted[1:]
	if got, err = tensor.Float32s(); err != nil || !slices.Equal(got, want) {
		t.Errorf("misaligned: %v, %v, want %v", got, err, want)
	}

	ints := &Tensor{Name: "i", Datatype: "INT32", Raw: binary.LittleEndian.AppendUint32(nil, 0xfffffffe)}
	if got, err := ints.Int32s(); err != nil || !slices.Equal(got, []int32{-2}) {
		t.Errorf("%v, %v, want [-2]", got, err)
	}
	if got, err := View[uint8](&Tensor{Datatype: "UINT8", Raw: []byte{1, 2}}); err != nil || !slices.Equal(got, []uint8{1, 2}) {
		t.Errorf("%v, %v, want [1 2]", got, err)
	}
	if got, err := View[float64](&Tensor{Datatype: "FP64", Raw: []byte{}}); err != nil || len(got) != 0 || got == nil {
		t.Errorf("empty: %v, %v", got, err)
	}
}

func TestViewRefuses(t *testing.T) {
	if _, err := (&Tensor{Datatype: "INT32", Raw: make([]byte, 4)}).Float32s(); err == nil {
		t.Error("INT32 as float32")
	}
	if _, err := (&Tensor{Datatype: "FP32", Raw: make([]byte, 5)}).Float32s(); err == nil {
		t.Error("5 bytes as float32")
	}
}

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
		values, err := boxes.Float32s()
		if err != nil || int64(len(values)) != 8*boxes.Shape[1] {
			t.Fatalf("%d values for %v, %v", len(values), boxes.Shape, err)
		}
		for _, tensor := range res.Outputs {
			if size, fixed, err := byteSize(tensor.Datatype, tensor.Shape); err != nil || fixed && size != int64(len(tensor.Raw)) {
				t.Fatalf("let through %d bytes of %s %v", len(tensor.Raw), tensor.Datatype, tensor.Shape)
			}
		}
	})
}
