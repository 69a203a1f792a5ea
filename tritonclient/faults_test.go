package tritonclient_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
		{"another request's answer", tritontest.ForRequest("8"), tritonclient.BadResponse, `for request "8", not "7"`},
		{"another model's answer", tritontest.FromModel("other", "1"), tritonclient.BadResponse, `from model "other"`},
		{"another version's answer", tritontest.FromModel("layout", "2"), tritonclient.BadResponse, `version "2"`},
		{"truncated", tritontest.Truncated("boxes", 1), tritonclient.BadResponse, "9599 bytes"},
		{"cut off", tritontest.Fault{Disconnect: true, Hang: false, Err: nil}, tritonclient.Unavailable, ""},
	} {
		fault = test.fault
		req := request(2)
		req.ID, req.Version = "7", "1"
		_, err := c.Infer(ctx, req)
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

// mapped gives memory that is gone after unmap: a read of it then is a SIGSEGV,
// which ends the test binary.
func mapped(t *testing.T, size int) (data []byte, unmap func()) {
	t.Helper()
	data, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	return data, func() {
		if err := unix.Munmap(data); err != nil {
			t.Error(err)
		}
	}
}

// TestInputsAreTheCallersAgain takes the input's memory away as soon as Infer is
// back, with calls that end in every way.
func TestInputsAreTheCallersAgain(t *testing.T) {
	const h, w = 800, 608
	ctx := t.Context()
	s, c := start(t, tritontest.Config{Models: []tritontest.Model{tritontest.Layout(h, w, 4)}}, tritonclient.Config{MaxBackoff: 100 * time.Millisecond})
	s.Script(func(call *tritontest.Call) tritontest.Fault {
		if call.Method != "ModelInfer" {
			return tritontest.Fault{}
		}
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
	ended := map[string]int{}
	for round := range 60 {
		if err := c.WaitModelReady(ctx, "layout", "", nil); err != nil {
			t.Fatal(err)
		}
		slab, unmap := mapped(t, 4*h*w*3)
		copy(slab, bytes.Repeat([]byte{255}, len(slab)))
		slab[round*3] = 0
		// From cut off before the first byte to late in the answer.
		limit := time.Duration(round%8*round%8)*time.Millisecond + 100*time.Microsecond
		if round%4 != 1 && round%3 == 0 {
			limit = time.Minute
		}
		infer, cancel := context.WithTimeout(ctx, limit)
		res, err := c.Infer(infer, &tritonclient.InferRequest{Model: "layout", ID: strconv.Itoa(round), Inputs: []tritonclient.Input{
			{Name: "pages", Datatype: "UINT8", Shape: []int64{4, h, w, 3}, Raw: slab},
		}})
		cancel()
		unmap()
		if err != nil {
			ended[tritonclient.KindOf(err).String()]++
			continue
		}
		ended["done"]++
		boxes := values[float32](t, res, "boxes")
		if x := float32(round); boxes[0] != x || boxes[2] != x+1 || boxes[4*tritontest.Candidates] != 0 {
			t.Fatalf("round %d: the server saw %v", round, boxes[:4])
		}
	}
	for _, want := range []string{"done", tritonclient.Deadline.String(), tritonclient.Unavailable.String(), tritonclient.Internal.String()} {
		if ended[want] == 0 {
			t.Errorf("calls ended %v; none %s", ended, want)
		}
	}
}

// stuckConn is a connection whose writes block, once stuck is closed, until it
// is closed itself: a server that stopped reading, with every buffer on the way
// full.
type stuckConn struct {
	net.Conn
	stuck     <-chan struct{}
	blocked   func()
	closeOnce sync.Once
	closed    chan struct{}
}

func (c *stuckConn) Write(p []byte) (int, error) {
	select {
	case <-c.stuck:
		c.blocked()
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Write(p)
	}
}

func (c *stuckConn) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestServerThatStoppedReading has a call cancelled while gRPC is blocked in the
// middle of its tensor. The memory must be the caller's all the same, soon, and
// the client usable.
func TestServerThatStoppedReading(t *testing.T) {
	const h, w = 800, 608
	ctx := t.Context()
	stuck, blocked := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var dials atomic.Int32
	s := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{tritontest.Layout(h, w, 4)}})
	c := connect(t, s, tritonclient.Config{MaxBackoff: 100 * time.Millisecond, Dial: func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := s.Dial(ctx, address)
		if err != nil || dials.Add(1) > 1 {
			return conn, err
		}
		return &stuckConn{Conn: conn, stuck: stuck, blocked: func() { once.Do(func() { close(blocked) }) }, closed: make(chan struct{})}, nil
	}})
	if err := c.WaitModelReady(ctx, "layout", "", nil); err != nil {
		t.Fatal(err)
	}
	close(stuck)
	slab, unmap := mapped(t, 4*h*w*3)
	req := &tritonclient.InferRequest{Model: "layout", Inputs: []tritonclient.Input{
		{Name: "pages", Datatype: "UINT8", Shape: []int64{4, h, w, 3}, Raw: slab},
	}}
	infer, cancel := context.WithCancel(ctx)
	go func() { <-blocked; cancel() }()
	_, err := c.Infer(infer, req)
	unmap()
	wantKind(t, err, tritonclient.Canceled)

	if err := c.WaitModelReady(ctx, "layout", "", nil); err != nil {
		t.Fatal(err)
	}
	req.Inputs[0].Raw = make([]byte, 4*h*w*3)
	if _, err := c.Infer(ctx, req); err != nil {
		t.Error(err)
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d connections, want the stuck one and another", n)
	}
}

// BenchmarkInfer sends pages in the message to a server that does nothing with
// them.
func BenchmarkInfer(b *testing.B) {
	const h, w = 800, 608
	for _, n := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("pages=%d", n), func(b *testing.B) {
			model := tritontest.Layout(h, w, n)
			model.Infer = func([]byte, int) []tritontest.Output { return nil }
			s := tritontest.Start(b, tritontest.Config{Models: []tritontest.Model{model}})
			c, err := tritonclient.New(s.Addr(), tritonclient.Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			slab := make([]byte, n*h*w*3)
			b.SetBytes(int64(len(slab)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Infer(b.Context(), &tritonclient.InferRequest{Model: "layout", Inputs: []tritonclient.Input{
					{Name: "pages", Datatype: "UINT8", Shape: []int64{int64(n), h, w, 3}, Raw: slab},
				}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
