package tritonclient_test

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"quire/tritonclient"
	"quire/tritonclient/tritontest"
)

// TestKindsOnTheWire sends every fault over a real connection.
func TestKindsOnTheWire(t *testing.T) {
	ctx := t.Context()
	s, c := start(t, tritontest.Config{InMemory: true}, tritonclient.Config{})
	var fault tritontest.Fault
	s.Script(func(*tritontest.Call) tritontest.Fault { return fault })
	for _, test := range []struct {
		name  string
		fault tritontest.Fault
		want  tritonclient.Kind
		says  string
	}{
		{"queue full", tritontest.QueueFull(), tritonclient.QueueFull, "queue is full"},
		{"queue timeout", tritontest.QueueTimeout(), tritonclient.QueueTimeout, "in the server's queue"},
		{"stopping", tritontest.Stopping(), tritonclient.Unavailable, "Server is stopping"},
		{"reloading", tritontest.Reloading("layout"), tritonclient.ModelNotReady, "not at ready state"},
		{"backend error", tritontest.BackendError("page is\npoisoned"), tritonclient.Internal, "page is poisoned"},
		{"cancelled by the server", tritontest.Fail(codes.Canceled, "CANCELLED"), tritonclient.Unavailable, ""},
		{"huge text", tritontest.BackendError(strings.Repeat("x", 3000)), tritonclient.Internal, "x…"},
		{"missing output", tritontest.MissingOutput("scores"), tritonclient.BadResponse, `"scores" is missing`},
		{"output twice", tritontest.DoubledOutput("boxes"), tritonclient.BadResponse, "twice"},
		{"other shape", tritontest.WrongShape("boxes", 2, 300, 5), tritonclient.BadResponse, "[2 300 5], wanted [2 -1 4]"},
		{"other batch", tritontest.WrongShape("scores", 1, 300), tritonclient.BadResponse, "[1 300], wanted [2 -1]"},
		{"fewer dimensions", tritontest.WrongShape("labels", 600), tritonclient.BadResponse, "[600], wanted [2 -1]"},
		{"other type", tritontest.WrongDatatype("labels", "FP32"), tritonclient.BadResponse, "is FP32, wanted INT32"},
		{"unknown type", tritontest.WrongDatatype("labels", "FP7"), tritonclient.BadResponse, "FP7"},
		{"other size of type", tritontest.WrongDatatype("labels", "INT64"), tritonclient.BadResponse, "2400 bytes"},
		{"truncated", tritontest.Truncated("boxes", 1), tritonclient.BadResponse, "9599 bytes"},
		{"cut off", tritontest.Fault{Disconnect: true, Hang: false, Err: nil}, tritonclient.Unavailable, ""},
	} {
		fault = test.fault
		_, err := c.Infer(ctx, request(2))
		if err == nil {
			t.Errorf("%s: no error", test.name)
			continue
		}
		wantKind(t, err, test.want)
		if !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v does not say %q", test.name, err, test.says)
		}
		if !strings.HasPrefix(err.Error(), "triton at "+s.Addr()+": ModelInfer of layout: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q is not a line that names server, call and model", test.name, err)
		}
		fault = tritontest.Fault{}
		if err := c.WaitModelReady(ctx, "layout", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	// Values are none of the client's business.
	fault = tritontest.NaN("scores", 3)
	if _, err := c.Infer(ctx, request(2)); err != nil {
		t.Error(err)
	}
}

func TestRequestsThatCannotBe(t *testing.T) {
	s, c := start(t, tritontest.Config{}, tritonclient.Config{})
	ref := func(region string, offset, size uint64) *tritonclient.SharedMemoryRef {
		return &tritonclient.SharedMemoryRef{Region: region, Offset: offset, ByteSize: size}
	}
	size := uint64(height * width * 3)
	for name, spoil := range map[string]func(r *tritonclient.InferRequest){
		"no model":          func(r *tritonclient.InferRequest) { r.Model = "" },
		"an ID not UTF-8":   func(r *tritonclient.InferRequest) { r.ID = "a\xff.pdf" },
		"too few bytes":     func(r *tritonclient.InferRequest) { r.Inputs[0].Raw = r.Inputs[0].Raw[1:] },
		"unknown type":      func(r *tritonclient.InferRequest) { r.Inputs[0].Datatype = "PIXEL" },
		"negative size":     func(r *tritonclient.InferRequest) { r.Inputs[0].Shape[0] = -1 },
		"size overflow":     func(r *tritonclient.InferRequest) { r.Inputs[0].Shape = []int64{1 << 31, 1 << 31, 1 << 31} },
		"bytes and region":  func(r *tritonclient.InferRequest) { r.Inputs[0].Region = ref("n", 0, size) },
		"region's size":     func(r *tritonclient.InferRequest) { r.Inputs[0].Raw, r.Inputs[0].Region = nil, ref("n", 0, size+1) },
		"region's name":     func(r *tritonclient.InferRequest) { r.Inputs[0].Raw, r.Inputs[0].Region = nil, ref("", 0, size) },
		"region's offset":   func(r *tritonclient.InferRequest) { r.Inputs[0].Raw, r.Inputs[0].Region = nil, ref("n", 1<<63, size) },
		"no bytes at all":   func(r *tritonclient.InferRequest) { r.Inputs[0].Raw = nil },
		"a zero dimension,": func(r *tritonclient.InferRequest) { r.Inputs[0].Shape[1] = 0 },
	} {
		req := request(1)
		spoil(req)
		_, err := c.Infer(t.Context(), req)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		wantKind(t, err, tritonclient.InvalidArgument)
	}
	if n := len(s.Calls("")); n != 0 {
		t.Errorf("%d of them were sent", n)
	}
}

// TestLargeMessages goes beyond gRPC's default of 4 MiB both ways.
func TestLargeMessages(t *testing.T) {
	const h, w, n = 800, 608, 8 // 11.7 MB out
	big := tritontest.Layout(h, w, n)
	big.Infer = func(pages []byte, n int) []tritontest.Output {
		return []tritontest.Output{{Name: "boxes", Datatype: "UINT8", Shape: []int64{int64(len(pages))}, Raw: bytes.Clone(pages)}}
	}
	_, c := start(t, tritontest.Config{Models: []tritontest.Model{big}}, tritonclient.Config{})
	req := &tritonclient.InferRequest{Model: "layout", Inputs: []tritonclient.Input{
		{Name: "pages", Datatype: "UINT8", Shape: []int64{n, h, w, 3}, Raw: make([]byte, n*h*w*3)},
	}}
	for i := range req.Inputs[0].Raw {
		req.Inputs[0].Raw[i] = byte(i ^ i>>9)
	}
	res, err := c.Infer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(res.Outputs["boxes"].Raw, req.Inputs[0].Raw) {
		t.Error("the bytes changed on the way")
	}

	_, c = start(t, tritontest.Config{Models: []tritontest.Model{big}}, tritonclient.Config{MaxReceiveBytes: 1 << 20})
	_, err = c.Infer(t.Context(), req)
	wantKind(t, err, tritonclient.TooLarge)
}

// TestManyCallers has them share a client, with faults among them.
func TestManyCallers(t *testing.T) {
	s, c := start(t, tritontest.Config{}, tritonclient.Config{})
	s.Script(func(call *tritontest.Call) tritontest.Fault {
		if call.Index%5 == 4 {
			return tritontest.QueueFull()
		}
		return tritontest.Fault{}
	})
	const callers, each = 16, 20
	var wg sync.WaitGroup
	full := make(chan int, callers)
	for range callers {
		wg.Go(func() {
			mine := 0
			for i := range each {
				n := 1 + i%8
				res, err := c.Infer(t.Context(), request(n))
				if err != nil {
					wantKind(t, err, tritonclient.QueueFull)
					mine++
					continue
				}
				checkPages(t, res, n)
			}
			full <- mine
		})
	}
	wg.Wait()
	close(full)
	sum := 0
	for n := range full {
		sum += n
	}
	if want := callers * each / 5; sum != want {
		t.Errorf("%d calls met a full queue, want %d", sum, want)
	}
}

// TestInputsAreTheCallersAgain overwrites the input as soon as Infer is back,
// with calls that end in every way; the race detector and the answers tell
// whether something still reads it.
func TestInputsAreTheCallersAgain(t *testing.T) {
	const h, w = 800, 608
	s, c := start(t, tritontest.Config{Models: []tritontest.Model{tritontest.Layout(h, w, 4)}}, tritonclient.Config{})
	s.Script(func(call *tritontest.Call) tritontest.Fault {
		round, err := strconv.Atoi(call.ID)
		if err != nil {
			t.Errorf("call %q: %v", call.ID, err)
		}
		switch round % 4 {
		case 1:
			return tritontest.Fault{Hang: true}
		case 2:
			return tritontest.Fault{Disconnect: true}
		case 3:
			return tritontest.BackendError("no")
		}
		return tritontest.Fault{}
	})
	slab := make([]byte, 4*h*w*3)
	ended := map[tritonclient.Kind]int{}
	for round := range 40 {
		for i := range slab {
			slab[i] = 255
		}
		slab[round*3] = 0
		ctx, cancel := context.WithCancel(t.Context())
		if round%4 != 0 {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), time.Duration(round%7)*5*time.Millisecond+time.Millisecond)
		}
		res, err := c.Infer(ctx, &tritonclient.InferRequest{Model: "layout", ID: strconv.Itoa(round), Inputs: []tritonclient.Input{
			{Name: "pages", Datatype: "UINT8", Shape: []int64{4, h, w, 3}, Raw: slab},
		}})
		cancel()
		clear(slab) // ink everywhere, for whoever reads it now
		if err != nil {
			ended[tritonclient.KindOf(err)]++
			continue
		}
		ended[tritonclient.Other]++
		boxes, err := res.Outputs["boxes"].Float32s()
		if err != nil {
			t.Fatal(err)
		}
		if x := float32(round); boxes[0] != x || boxes[2] != x+1 || boxes[4*tritontest.Candidates] != 0 {
			t.Fatalf("round %d: the server saw %v", round, boxes[:4])
		}
	}
	if ended[tritonclient.Other] == 0 || ended[tritonclient.Deadline] == 0 {
		t.Errorf("calls ended %v; some should have succeeded and some been cut short", ended)
	}
}
