package tritontest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quire/tritonclient"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/tritontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const side = 16

func start(t *testing.T, config tritontest.Config) (*tritontest.Server, *tritonclient.Client) {
	t.Helper()
	config.Models = []tritontest.Model{tritontest.Layout(side, side, 4)}
	s := tritontest.Start(t, config)
	c, err := tritonclient.New(s.Addr(), tritonclient.Config{Dial: s.Dial, MaxBackoff: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return s, c
}

func infer(ctx context.Context, c *tritonclient.Client, n int) (*tritonclient.InferResponse, error) {
	return c.Infer(ctx, &tritonclient.InferRequest{Model: "layout", Inputs: []tritonclient.Input{{
		Name: "pages", Datatype: "UINT8", Shape: []int64{int64(n), side, side, 3}, Raw: bytes.Repeat([]byte{255}, n*side*side*3),
	}}})
}

// float is an element of an output.
func float(r *tritonclient.InferResponse, output string, n int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(r.Outputs[output].Raw[4*n:]))
}

// each runs a test on TCP and in memory.
func each(t *testing.T, test func(t *testing.T, config tritontest.Config)) {
	t.Run("tcp", func(t *testing.T) { test(t, tritontest.Config{}) })
	t.Run("memory", func(t *testing.T) { test(t, tritontest.Config{InMemory: true}) })
}

func TestHoldAndRelease(t *testing.T) {
	each(t, func(t *testing.T, config tritontest.Config) {
		ctx := t.Context()
		s, c := start(t, config)
		release := make(chan struct{})
		s.Script(func(*tritontest.Call) tritontest.Fault { return tritontest.Fault{Hold: release} })
		var calls sync.WaitGroup
		results := make(chan error, 3)
		for n := range 3 {
			calls.Go(func() { _, err := infer(ctx, c, n+1); results <- err })
		}
		if err := s.WaitCalls(ctx, "ModelInfer", 3); err != nil {
			t.Fatal(err)
		}
		if n := s.InFlight("ModelInfer"); n != 3 || len(results) != 0 {
			t.Errorf("%d in flight, %d ended, want 3 and 0", n, len(results))
		}
		// A call whose client leaves does not hold up the others.
		short, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := infer(short, c, 1); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(release)
		calls.Wait()
		close(results)
		for err := range results {
			if err != nil {
				t.Error(err)
			}
		}
		if err := s.WaitIdle(ctx, "ModelInfer"); err != nil {
			t.Error(err)
		}
		batches := s.Batches()[:3]
		slices.Sort(batches)
		if !slices.Equal(batches, []int{1, 2, 3}) {
			t.Errorf("batches %v", batches)
		}
	})
}

func TestStopAndRestart(t *testing.T) {
	each(t, func(t *testing.T, config tritontest.Config) {
		ctx := t.Context()
		s, c := start(t, config)
		addr := s.Addr()
		for range 3 {
			if err := c.WaitModelReady(ctx, "layout", "", nil); err != nil {
				t.Fatal(err)
			}
			// A call that would hang for ever does not keep Stop waiting.
			s.Script(func(*tritontest.Call) tritontest.Fault { return tritontest.Fault{Hang: true} })
			seen := len(s.Batches())
			result := make(chan error, 1)
			go func() { _, err := infer(ctx, c, 1); result <- err }()
			if err := s.WaitCalls(ctx, "ModelInfer", seen+1); err != nil {
				t.Fatal(err)
			}
			s.Stop()
			s.Stop()
			if err := <-result; !errors.Is(err, tritonclient.Unavailable) {
				t.Errorf("the call in flight ended with %v", err)
			}
			if _, err := c.ServerLive(ctx); !errors.Is(err, tritonclient.Unavailable) {
				t.Errorf("a stopped server answers with %v", err)
			}
			s.Script(nil)
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
			if s.Addr() != addr {
				t.Errorf("it moved from %s to %s", addr, s.Addr())
			}
		}
	})
}

func TestReload(t *testing.T) {
	ctx := t.Context()
	s, c := start(t, tritontest.Config{})
	if _, err := infer(ctx, c, 4); err != nil {
		t.Fatal(err)
	}
	s.SetModel(tritontest.Layout(side, side, 2))
	if _, err := infer(ctx, c, 4); !errors.Is(err, tritonclient.InvalidArgument) {
		t.Errorf("batch 4 of a model reloaded with 2: %v", err)
	}
	s.SetModel(tritontest.Layout(side+1, side, 4))
	if _, err := infer(ctx, c, 1); !errors.Is(err, tritonclient.InvalidArgument) {
		t.Errorf("the old shape after a reload: %v", err)
	}
	stats, err := c.Statistics(ctx, "layout", "")
	if err != nil || stats.Inferences != 0 {
		t.Errorf("counters survived a reload: %+v, %v", stats, err)
	}
}

// TestEditsHitTheirOutput covers the faults that the client lets through.
func TestEditsHitTheirOutput(t *testing.T) {
	s, c := start(t, tritontest.Config{})
	for _, test := range []struct {
		name  string
		fault tritontest.Fault
		check func(*tritonclient.InferResponse) bool
	}{
		{"NaN", tritontest.NaN("scores", 2), func(r *tritonclient.InferResponse) bool {
			return math.IsNaN(float64(float(r, "scores", 2))) && float(r, "scores", 1) == 0
		}},
		{"Float", tritontest.Float("boxes", 5, -7), func(r *tritonclient.InferResponse) bool {
			return float(r, "boxes", 5) == -7
		}},
		{"Int", tritontest.Int("labels", 0, 99), func(r *tritonclient.InferResponse) bool {
			return binary.LittleEndian.Uint32(r.Outputs["labels"].Raw) == 99
		}},
		{"Edit", tritontest.Fault{Edit: func(r *inferencepb.ModelInferResponse) { r.ModelVersion = "8" }}, func(r *tritonclient.InferResponse) bool {
			return r.Version == "8"
		}},
	} {
		s.Script(func(*tritontest.Call) tritontest.Fault { return test.fault })
		res, err := infer(t.Context(), c, 1)
		if err != nil || !test.check(res) {
			t.Errorf("%s did not arrive: %v, %v", test.name, res, err)
		}
	}
}

func TestDelayEndsWithItsClient(t *testing.T) {
	s, c := start(t, tritontest.Config{})
	s.Script(func(*tritontest.Call) tritontest.Fault { return tritontest.Fault{Delay: time.Hour} })
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { _, err := infer(ctx, c, 1); result <- err }()
	if err := s.WaitCalls(ctx, "ModelInfer", 1); err != nil {
		t.Fatal(err)
	}
	if s.Calls("ModelInfer")[0].Deadline.IsZero() {
		t.Error("the call came without a deadline")
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.WaitIdle(t.Context(), "ModelInfer"); err != nil {
		t.Error(err)
	}
}
