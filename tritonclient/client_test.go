package tritonclient_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"quire/tritonclient"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/tritontest"
)

const height, width = 32, 24

// start gives a fake server with a small layout model and a client of it.
func start(t *testing.T, server tritontest.Config, config tritonclient.Config) (*tritontest.Server, *tritonclient.Client) {
	t.Helper()
	if server.Models == nil {
		server.Models = []tritontest.Model{tritontest.Layout(height, width, 8)}
	}
	s := tritontest.Start(t, server)
	return s, connect(t, s, config)
}

func connect(t *testing.T, s *tritontest.Server, config tritonclient.Config) *tritonclient.Client {
	t.Helper()
	if config.Dial == nil {
		config.Dial = s.Dial
	}
	c, err := tritonclient.New(s.Addr(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// pages makes n pages, page i with a black dot of 1×1 pixels at column i, row 2i.
func pages(n int) []byte {
	all := bytes.Repeat([]byte{255}, n*height*width*3)
	for i := range n {
		all[i*height*width*3+(2*i*width+i)*3] = 0
	}
	return all
}

func request(n int) *tritonclient.InferRequest {
	return &tritonclient.InferRequest{
		Model: "layout",
		Inputs: []tritonclient.Input{
			{Name: "pages", Datatype: "UINT8", Shape: []int64{int64(n), height, width, 3}, Raw: pages(n)},
		},
		Outputs: []tritonclient.Output{
			{Name: "boxes", Datatype: "FP32", Shape: []int64{int64(n), -1, 4}},
			{Name: "scores", Datatype: "FP32", Shape: []int64{int64(n), -1}},
			{Name: "labels", Datatype: "INT32", Shape: []int64{int64(n), -1}},
		},
	}
}

// values are the elements of an output.
func values[T float32 | int32](t *testing.T, res *tritonclient.InferResponse, output string) []T {
	t.Helper()
	raw := res.Outputs[output].Raw
	all := make([]T, len(raw)/4)
	if n, err := binary.Decode(raw, binary.LittleEndian, all); err != nil || n != len(raw) {
		t.Fatalf("%d of %d bytes of %s, %v", n, len(raw), output, err)
	}
	return all
}

// checkPages fails the test unless res is the fake model's answer for pages(n).
func checkPages(t *testing.T, res *tritonclient.InferResponse, n int) {
	t.Helper()
	boxes, scores, labels := values[float32](t, res, "boxes"), values[float32](t, res, "scores"), values[int32](t, res, "labels")
	for i := range n {
		x, y := float32(i), float32(2*i)
		if got, want := boxes[i*tritontest.Candidates*4:][:4], []float32{x, y, x + 1, y + 1}; !slices.Equal(got, want) {
			t.Errorf("page %d: box %v, want %v", i, got, want)
		}
		if scores[i*tritontest.Candidates] != 0.9 || labels[i*tritontest.Candidates] != 1 {
			t.Errorf("page %d: score %v label %v, want 0.9 and 1", i, scores[i*tritontest.Candidates], labels[i*tritontest.Candidates])
		}
	}
}

func wantKind(t *testing.T, err error, want tritonclient.Kind) {
	t.Helper()
	if err == nil || !errors.Is(err, want) {
		t.Errorf("error %v, want one of kind %s", err, want)
	}
	if _, ok := errors.AsType[*tritonclient.Error](err); !ok {
		t.Errorf("%T is no *tritonclient.Error", err)
	}
}

func TestHealthAndMetadata(t *testing.T) {
	ctx := t.Context()
	s, c := start(t, tritontest.Config{}, tritonclient.Config{})

	if live, err := c.ServerLive(ctx); err != nil || !live {
		t.Errorf("ServerLive: %v, %v", live, err)
	}
	if ready, err := c.ServerReady(ctx); err != nil || !ready {
		t.Errorf("ServerReady: %v, %v", ready, err)
	}
	if ready, err := c.ModelReady(ctx, "layout", ""); err != nil || !ready {
		t.Errorf("ModelReady: %v, %v", ready, err)
	}
	if ready, err := c.ModelReady(ctx, "nope", ""); err != nil || ready {
		t.Errorf("ModelReady of an unknown model: %v, %v", ready, err)
	}
	meta, err := c.ServerMetadata(ctx)
	if err != nil || meta.GetVersion() != "2.51.0" {
		t.Errorf("ServerMetadata: %v, %v", meta, err)
	}
	model, err := c.ModelMetadata(ctx, "layout", "1")
	if err != nil || !slices.Equal(model.GetInputs()[0].GetShape(), []int64{-1, height, width, 3}) {
		t.Errorf("ModelMetadata: %v, %v", model, err)
	}
	config, err := c.ModelConfig(ctx, "layout", "")
	if err != nil || config.GetMaxBatchSize() != 8 || config.GetParameters()["quire.color_order"].GetStringValue() != "RGB" {
		t.Errorf("ModelConfig: %v, %v", config, err)
	}
	_, err = c.ModelConfig(ctx, "nope", "")
	wantKind(t, err, tritonclient.ModelNotReady)
	_, err = c.ModelMetadata(ctx, "layout", "7")
	wantKind(t, err, tritonclient.ModelNotReady)
	_, err = c.Statistics(ctx, "nope", "")
	wantKind(t, err, tritonclient.ModelNotReady)

	s.SetReady("layout", false)
	if ready, err := c.ModelReady(ctx, "layout", ""); err != nil || ready {
		t.Errorf("ModelReady of an unloaded model: %v, %v", ready, err)
	}
	_, err = c.Infer(ctx, request(1))
	wantKind(t, err, tritonclient.ModelNotReady)
}

func TestInferAndStatistics(t *testing.T) {
	ctx := t.Context()
	s, c := start(t, tritontest.Config{}, tritonclient.Config{})
	for _, n := range []int{1, 8, 3, 8} {
		req := request(n)
		req.ID = fmt.Sprint("batch of ", n)
		res, err := c.Infer(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		if res.ID != req.ID || res.Model != "layout" || res.Version != "1" {
			t.Errorf("answer is from %s/%s for %q", res.Model, res.Version, res.ID)
		}
		checkPages(t, res, n)
	}
	if got := s.Batches(); !slices.Equal(got, []int{1, 8, 3, 8}) {
		t.Errorf("batches %v", got)
	}
	stats, err := c.Statistics(ctx, "layout", "")
	if err != nil {
		t.Fatal(err)
	}
	// Sizes 1, 3, 8.
	if stats.Model != "layout" || stats.Version != "1" || stats.Inferences != 20 || stats.Executions != 4 || stats.Success.Count != 4 ||
		len(stats.Batches) != 3 || stats.Batches[2].Size != 8 || stats.Batches[2].ComputeInfer.Count != 2 {
		t.Errorf("Statistics: %+v", stats)
	}

	// No outputs named: all of them, unchecked.
	req := request(2)
	req.Outputs = nil
	res, err := c.Infer(ctx, req)
	if err != nil || len(res.Outputs) != 3 {
		t.Fatalf("%d outputs, %v", len(res.Outputs), err)
	}
	// One named: that one.
	req.Outputs = []tritonclient.Output{{Name: "scores"}}
	res, err = c.Infer(ctx, req)
	if err != nil || len(res.Outputs) != 1 || res.Outputs["scores"] == nil {
		t.Fatalf("outputs %v, %v", res.Outputs, err)
	}
}

func TestRepository(t *testing.T) {
	ctx := t.Context()
	s, c := start(t, tritontest.Config{}, tritonclient.Config{})

	index, err := c.RepositoryIndex(ctx, false)
	if err != nil || len(index) != 1 || index[0].GetState() != "READY" {
		t.Errorf("RepositoryIndex: %v, %v", index, err)
	}
	config, err := c.ModelConfig(ctx, "layout", "")
	if err != nil {
		t.Fatal(err)
	}
	config.MaxBatchSize = 2
	override, err := protojson.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.LoadModel(ctx, "layout", override); err != nil {
		t.Fatal(err)
	}
	if config, err = c.ModelConfig(ctx, "layout", ""); err != nil || config.GetMaxBatchSize() != 2 {
		t.Errorf("after a load with override: max_batch_size %d, %v", config.GetMaxBatchSize(), err)
	}
	_, err = c.Infer(ctx, request(3))
	wantKind(t, err, tritonclient.InvalidArgument)
	if err := c.UnloadModel(ctx, "layout"); err != nil {
		t.Error(err)
	}
	if index, err := c.RepositoryIndex(ctx, true); err != nil || len(index) != 0 {
		t.Errorf("ready models after unload: %v, %v", index, err)
	}
	if err := c.LoadModel(ctx, "layout", nil); err != nil {
		t.Error(err)
	}
	wantKind(t, c.LoadModel(ctx, "nope", nil), tritonclient.LoadFailed)
	wantKind(t, c.LoadModel(ctx, "layout", []byte(`{"max_batch_size": "many"}`)), tritonclient.LoadFailed)
	wantKind(t, c.LoadModel(ctx, "layout", []byte(`{`)), tritonclient.InvalidArgument)
	wantKind(t, c.LoadModel(ctx, "", nil), tritonclient.InvalidArgument)
	wantKind(t, c.UnloadModel(ctx, ""), tritonclient.InvalidArgument)
	for _, call := range append(s.Calls("RepositoryModelLoad"), s.Calls("RepositoryModelUnload")...) {
		if call.Model == "" {
			t.Error("a call without a model reached the server")
		}
	}

	_, c = start(t, tritontest.Config{NoModelControl: true}, tritonclient.Config{})
	wantKind(t, c.LoadModel(ctx, "layout", nil), tritonclient.ModelControlDisabled)
	wantKind(t, c.UnloadModel(ctx, "layout"), tritonclient.ModelControlDisabled)
}

// sharedMemory makes a shared-memory object with these bytes and gives its key.
func sharedMemory(t *testing.T, data []byte) string {
	t.Helper()
	name := fmt.Sprintf("quire-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	path := filepath.Join("/dev/shm", name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	return "/" + name
}

func TestSharedMemory(t *testing.T) {
	ctx := t.Context()
	s, c := start(t, tritontest.Config{}, tritonclient.Config{})
	// The pages begin on the second memory page, 64 bytes in.
	const at = 64
	system := os.Getpagesize()
	data := append(make([]byte, system+at), pages(4)...)
	region := tritonclient.Region{Name: "quire-test-1", Key: sharedMemory(t, data), Offset: uint64(system), ByteSize: uint64(len(data) - system)}
	if err := c.SystemSharedMemoryRegister(ctx, region); err != nil {
		t.Fatal(err)
	}
	wantKind(t, c.SystemSharedMemoryRegister(ctx, region), tritonclient.RegionExists)
	regions, err := c.SystemSharedMemoryStatus(ctx, "")
	if err != nil || !reflect.DeepEqual(regions, []tritonclient.Region{region}) {
		t.Errorf("status %v, %v, want %v", regions, err, region)
	}

	req := request(4)
	req.Inputs[0].Raw = nil
	req.Inputs[0].Region = &tritonclient.SharedMemoryRef{Region: region.Name, Offset: at, ByteSize: 4 * height * width * 3}
	res, err := c.Infer(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	checkPages(t, res, 4)
	if calls := s.Calls("ModelInfer"); calls[0].Bytes != 0 || calls[0].Region != region.Name {
		t.Errorf("the message carried %d bytes and region %q", calls[0].Bytes, calls[0].Region)
	}

	req.Inputs[0].Region.Offset = 1 << 20
	_, err = c.Infer(ctx, req)
	wantKind(t, err, tritonclient.InvalidArgument)
	req.Inputs[0].Region.Offset = at

	// A server that was restarted has forgotten the region.
	s.Stop()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	c.Reconnect()
	if err := c.WaitModelReady(ctx, "layout", "", nil); err != nil {
		t.Fatal(err)
	}
	_, err = c.Infer(ctx, req)
	wantKind(t, err, tritonclient.UnknownRegion)
	if err := c.SystemSharedMemoryRegister(ctx, region); err != nil {
		t.Fatal(err)
	}
	if res, err = c.Infer(ctx, req); err != nil {
		t.Fatal(err)
	}
	checkPages(t, res, 4)

	wantKind(t, c.SystemSharedMemoryUnregister(ctx, ""), tritonclient.InvalidArgument)
	if got := s.Regions(); !slices.Equal(got, []string{region.Name}) {
		t.Errorf("regions %v after an unregister without a name", got)
	}
	for range 2 { // the second is of an unknown region, which is no error
		if err := c.SystemSharedMemoryUnregister(ctx, region.Name); err != nil {
			t.Error(err)
		}
	}
	_, err = c.SystemSharedMemoryStatus(ctx, region.Name)
	wantKind(t, err, tritonclient.UnknownRegion)

	bad := region
	bad.Key = "/quire-test-not-there"
	wantKind(t, c.SystemSharedMemoryRegister(ctx, bad), tritonclient.RegionRefused)
	bad = region
	bad.ByteSize *= 2
	wantKind(t, c.SystemSharedMemoryRegister(ctx, bad), tritonclient.RegionRefused)
	for _, bad := range []tritonclient.Region{
		{Key: "/k", ByteSize: 1}, {Name: "n", ByteSize: 1}, {Name: "n", Key: "/k"}, {Name: "n", Key: "/k", ByteSize: 1, Offset: 5},
	} {
		wantKind(t, c.SystemSharedMemoryRegister(ctx, bad), tritonclient.InvalidArgument)
	}

	_, c = start(t, tritontest.Config{NoSharedMemory: true}, tritonclient.Config{})
	wantKind(t, c.SystemSharedMemoryRegister(ctx, region), tritonclient.SharedMemoryDisabled)
	wantKind(t, c.SystemSharedMemoryUnregister(ctx, region.Name), tritonclient.SharedMemoryDisabled)
}

func TestHeaders(t *testing.T) {
	ctx := t.Context()
	s, c := start(t, tritontest.Config{RestrictedKey: "secret", RestrictedValue: "abc"}, tritonclient.Config{
		Headers: map[string]string{"triton-grpc-protocol-secret": "abc", "Authorization": "Bearer xyz"},
	})
	if _, err := c.Infer(ctx, request(1)); err != nil {
		t.Error(err)
	}
	// The raw stub sends them too.
	if _, err := c.Raw().LogSettings(ctx, &inferencepb.LogSettingsRequest{}); err == nil {
		t.Error("the fake has no LogSettings, yet there is an answer")
	}
	for _, method := range []string{"ModelInfer", "LogSettings"} {
		calls := s.Calls(method)
		if len(calls) != 1 {
			t.Fatalf("%d calls of %s", len(calls), method)
		}
		h := calls[0].Header
		if !slices.Equal(h.Get("authorization"), []string{"Bearer xyz"}) || !slices.Equal(h.Get("triton-grpc-protocol-secret"), []string{"abc"}) {
			t.Errorf("%s came with headers %v", method, h)
		}
		if ua := h.Get("user-agent"); len(ua) != 1 || !strings.HasPrefix(ua[0], "quire ") {
			t.Errorf("%s came from %q", method, ua)
		}
	}
	_, err := connect(t, s, tritonclient.Config{}).Infer(ctx, request(1))
	wantKind(t, err, tritonclient.Restricted)
	if strings.Contains(err.Error(), "abc") {
		t.Errorf("the error tells the secret: %v", err)
	}
	// Waiting does not mend it.
	err = connect(t, s, tritonclient.Config{}).WaitModelReady(ctx, "layout", "", nil)
	wantKind(t, err, tritonclient.Restricted)
}

func TestDeadlines(t *testing.T) {
	s, c := start(t, tritontest.Config{}, tritonclient.Config{
		CallTimeout: 50 * time.Millisecond, InferTimeout: 60 * time.Millisecond, LoadTimeout: 70 * time.Millisecond,
	})
	s.Script(func(*tritontest.Call) tritontest.Fault { return tritontest.Fault{Hang: true} })
	background := context.Background()
	for name, call := range map[string]func(ctx context.Context) error{
		"ServerLive":      func(ctx context.Context) error { _, err := c.ServerLive(ctx); return err },
		"ServerReady":     func(ctx context.Context) error { _, err := c.ServerReady(ctx); return err },
		"ModelReady":      func(ctx context.Context) error { _, err := c.ModelReady(ctx, "layout", ""); return err },
		"ServerMetadata":  func(ctx context.Context) error { _, err := c.ServerMetadata(ctx); return err },
		"ModelMetadata":   func(ctx context.Context) error { _, err := c.ModelMetadata(ctx, "layout", ""); return err },
		"ModelConfig":     func(ctx context.Context) error { _, err := c.ModelConfig(ctx, "layout", ""); return err },
		"Statistics":      func(ctx context.Context) error { _, err := c.Statistics(ctx, "layout", ""); return err },
		"RepositoryIndex": func(ctx context.Context) error { _, err := c.RepositoryIndex(ctx, true); return err },
		"LoadModel":       func(ctx context.Context) error { return c.LoadModel(ctx, "layout", nil) },
		"UnloadModel":     func(ctx context.Context) error { return c.UnloadModel(ctx, "layout") },
		"Register": func(ctx context.Context) error {
			return c.SystemSharedMemoryRegister(ctx, tritonclient.Region{Name: "n", Key: "/k", ByteSize: 1})
		},
		"Unregister": func(ctx context.Context) error { return c.SystemSharedMemoryUnregister(ctx, "n") },
		"Status":     func(ctx context.Context) error { _, err := c.SystemSharedMemoryStatus(ctx, ""); return err },
		"Infer":      func(ctx context.Context) error { _, err := c.Infer(ctx, request(1)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			// The client's own bound: the context has none.
			err := call(background)
			wantKind(t, err, tritonclient.Deadline)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no context.DeadlineExceeded", err)
			}
			// The caller leaves.
			ctx, cancel := context.WithCancel(background)
			cancel()
			err = call(ctx)
			wantKind(t, err, tritonclient.Canceled)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v is no context.Canceled", err)
			}
		})
	}
	if err := s.WaitIdle(t.Context(), "ModelInfer"); err != nil {
		t.Errorf("the server was not told that the clients left: %v", err)
	}
}

func TestCancelInMidCall(t *testing.T) {
	s, c := start(t, tritontest.Config{}, tritonclient.Config{})
	s.Script(func(*tritontest.Call) tritontest.Fault { return tritontest.Fault{Hang: true} })
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the user pressed Ctrl-C")
	go func() {
		if err := s.WaitCalls(ctx, "ModelInfer", 1); err == nil {
			cancel(cause)
		}
	}()
	_, err := c.Infer(ctx, request(1))
	wantKind(t, err, tritonclient.Canceled)
	if !errors.Is(err, cause) {
		t.Errorf("%v does not hold the cause", err)
	}
	if err := s.WaitIdle(t.Context(), "ModelInfer"); err != nil {
		t.Fatal(err)
	}
}

func TestServerGoesAway(t *testing.T) {
	ctx := t.Context()
	s, c := start(t, tritontest.Config{}, tritonclient.Config{MaxBackoff: 200 * time.Millisecond})

	// In mid-call: cut off, and stopped.
	for name, end := range map[string]func(){"cut": s.Disconnect, "stop": s.Stop} {
		s.Script(func(call *tritontest.Call) tritontest.Fault {
			return tritontest.Fault{Hang: call.Method == "ModelInfer"}
		})
		seen := len(s.Calls("ModelInfer"))
		result := make(chan error, 1)
		go func() { _, err := c.Infer(ctx, request(2)); result <- err }()
		if err := s.WaitCalls(ctx, "ModelInfer", seen+1); err != nil {
			t.Fatal(err)
		}
		end()
		wantKind(t, <-result, tritonclient.Unavailable)
		s.Script(nil)
		if name == "stop" {
			_, err := c.ServerReady(ctx)
			wantKind(t, err, tritonclient.Unavailable)
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.WaitModelReady(ctx, "layout", "", nil); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		res, err := c.Infer(ctx, request(2))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkPages(t, res, 2)
	}
}

func TestWaitModelReady(t *testing.T) {
	s, c := start(t, tritontest.Config{}, tritonclient.Config{})
	s.SetReady("layout", false)
	var reasons []error
	err := c.WaitModelReady(t.Context(), "layout", "", func(err error) {
		reasons = append(reasons, err)
		if len(reasons) == 2 {
			s.SetReady("layout", true)
		}
	})
	if err != nil || len(reasons) != 2 {
		t.Errorf("%v after %d reasons to wait, want nil after 2", err, len(reasons))
	}
	wantKind(t, reasons[0], tritonclient.ModelNotReady)

	ctx, cancel := context.WithCancel(t.Context())
	s.SetReady("layout", false)
	err = c.WaitModelReady(ctx, "layout", "", func(error) { cancel() })
	wantKind(t, err, tritonclient.Canceled)
	if !errors.Is(err, tritonclient.ModelNotReady) {
		t.Errorf("%v does not hold the last reason to wait", err)
	}

	s.Stop()
	ctx, cancel = context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	err = c.WaitModelReady(ctx, "layout", "", nil)
	wantKind(t, err, tritonclient.Deadline)
}
