package tune

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/measure"
	"quire/tritonclient"
	"quire/tritonclient/metrics"
	"quire/tritonclient/tritontest"
)

// remote is the model of a server, with nothing between.
type remote struct{ client *tritonclient.Client }

const side = 4 // of its pages, in pixels

func (remote) Info() orchestrator.ModelInfo { return orchestrator.ModelInfo{Name: "layout"} }

func (remote) Input() orchestrator.Input {
	return orchestrator.Input{Width: side, Height: side, MaxBatch: 64, Instances: 1}
}

// infer asks about n pages.
func infer(ctx context.Context, client *tritonclient.Client, n int, pages []byte) error {
	_, err := client.Infer(ctx, &tritonclient.InferRequest{Model: "layout", Inputs: []tritonclient.Input{
		{Name: "pages", Datatype: "UINT8", Shape: []int64{int64(n), side, side, 3}, Raw: pages},
	}})
	return err
}

func (m remote) Infer(ctx context.Context, s *orchestrator.Slab, first int, frames []orchestrator.Frame) ([]orchestrator.Verdict, error) {
	var pages []byte
	for i := range frames {
		pages = append(pages, s.Page(first+i)...)
	}
	err := infer(ctx, m.client, len(frames), pages)
	switch tritonclient.KindOf(err) {
	case tritonclient.Unavailable, tritonclient.ModelNotReady:
		return nil, &orchestrator.ModelError{Action: orchestrator.ActionWait, Message: err.Error(), Err: err}
	}
	if err != nil {
		return nil, &orchestrator.ModelError{Action: orchestrator.ActionBisect, Message: err.Error(), Err: err}
	}
	return make([]orchestrator.Verdict, len(frames)), nil
}

func (m remote) WaitReady(ctx context.Context) error {
	return m.client.WaitModelReady(ctx, "layout", "", nil)
}
func (remote) Refresh(context.Context) error { return nil }
func (remote) Release(*orchestrator.Slab)    {}

// bench is a bench on a scripted server, and what it logs.
func bench(t *testing.T) (*tritontest.Server, *Live, *bytes.Buffer) {
	t.Helper()
	server, client := fake(t, tritontest.Config{Models: []tritontest.Model{tritontest.Layout(side, side, 4)}})
	s := take(t, client)
	var log bytes.Buffer
	return server, NewLive(LiveConfig{
		Client: client, Server: s, Model: remote{client}, Sample: &Sample{pages: [][]byte{make([]byte, side*side*3)}},
		Window: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil)),
	}), &log
}

var onTheFake = Settings{MaxBatch: 4, Instances: 1, Batch: 4, MaxAge: time.Second, InFlight: 2}

// TestWindowsThrownAway: what somebody else does to the server in the middle of
// a window makes it worth nothing, and the next one counts.
func TestWindowsThrownAway(t *testing.T) {
	const request, lastLook = "ModelInfer 10", "ModelStatistics 3"
	for name, c := range map[string]struct {
		at      string // which call
		happens func(t *testing.T, s *tritontest.Server, l *Live) tritontest.Fault
		says    string
	}{
		"another client": {request, func(t *testing.T, _ *tritontest.Server, l *Live) tritontest.Fault {
			if err := infer(t.Context(), l.cfg.Client, 1, make([]byte, side*side*3)); err != nil {
				t.Error(err)
			}
			return tritontest.Fault{}
		}, "1 requests of other clients"},
		"the counters begin anew": {lastLook, func(t *testing.T, s *tritontest.Server, l *Live) tritontest.Fault {
			config, err := l.cfg.Client.ModelConfig(t.Context(), "layout", "")
			if err != nil {
				t.Error(err)
			}
			again := tritontest.Layout(side, side, 4)
			again.Config = config
			s.SetModel(again)
			return tritontest.Fault{}
		}, "counters began anew"},
		"the model is not ready": {request, func(*testing.T, *tritontest.Server, *Live) tritontest.Fault {
			return tritontest.Reloading("layout")
		}, "the model was not ready"},
		"the server stops": {request, func(*testing.T, *tritontest.Server, *Live) tritontest.Fault {
			return tritontest.Stopping()
		}, "the server went away"},
	} {
		t.Run(name, func(t *testing.T) {
			server, live, log := bench(t)
			var once sync.Once
			server.Script(func(call *tritontest.Call) (fault tritontest.Fault) {
				if fmt.Sprint(call.Method, " ", call.Index) == c.at {
					once.Do(func() { fault = c.happens(t, server, live) })
				}
				return fault
			})
			w, err := live.Measure(t.Context(), onTheFake, Load{Kind: Saturated})
			if err != nil || w.PagesPerSecond <= 0 || len(w.Executed) == 0 {
				t.Errorf("%+v, %v", w, err)
			}
			if n := strings.Count(log.String(), "thrown away"); n != 1 || !strings.Contains(log.String(), c.says) {
				t.Errorf("it says\n%s", log)
			}
		})
	}
}

// TestCrashes: settings under which the server goes away each time cannot be
// served; so can those that fail requests, at once.
func TestCrashes(t *testing.T) {
	for name, c := range map[string]struct {
		fault tritontest.Fault
		tries int
	}{
		"the server goes away": {tritontest.Stopping(), 2},
		"out of memory":        {tritontest.BackendError("out of memory"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			server, live, log := bench(t)
			server.Script(func(call *tritontest.Call) tritontest.Fault {
				if call.Method == "ModelInfer" {
					return c.fault
				}
				return tritontest.Fault{}
			})
			_, err := live.Measure(t.Context(), onTheFake, Load{Kind: Saturated})
			if no, ok := errors.AsType[*Infeasible](err); !ok || no.Reason == "" || strings.Count(log.String(), "thrown away") != c.tries {
				t.Errorf("%v\n%s", err, log)
			}
		})
	}
}

// TestOthersAllTheTime: windows that are never ours alone end the search.
func TestOthersAllTheTime(t *testing.T) {
	server, live, log := bench(t)
	server.Script(func(call *tritontest.Call) tritontest.Fault {
		if call.Method == "ModelStatistics" {
			// Each look finds one request more.
			go func() {
				_ = infer(context.WithoutCancel(t.Context()), live.cfg.Client, 1, make([]byte, side*side*3))
			}()
		}
		return tritontest.Fault{}
	})
	_, err := live.Measure(t.Context(), onTheFake, Load{Kind: Saturated})
	if err == nil || !strings.Contains(err.Error(), "nothing else to do") || strings.Count(log.String(), "thrown away") != tries {
		t.Errorf("%v\n%s", err, log)
	}
}

// TestCurve: a curve ends where batches fail, and where they gain nothing.
func TestCurve(t *testing.T) {
	server, live, _ := bench(t)
	server.Script(func(call *tritontest.Call) tritontest.Fault {
		if call.Method == "ModelInfer" && call.Batch > 8 {
			return tritontest.BackendError("CUDA out of memory")
		}
		return tritontest.Fault{}
	})
	curve, err := live.Curve(t.Context(), []int{1, 2, 3, 4, 6, 8, 12, 16})
	if err != nil || len(curve.Points) < 3 || curve.Stopped == "" {
		t.Fatalf("%+v, %v", curve, err)
	}
	for i, p := range curve.Points {
		if p.Size > 8 || p.Compute <= 0 || i > 0 && p.Size <= curve.Points[i-1].Size {
			t.Errorf("%+v", curve)
		}
	}
}

// TestWatchGPU: the warm-up does not count, the mean is of the busiest GPU and
// the memory of all; a short window has one look at its end.
func TestWatchGPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		read := func(context.Context) (metrics.Metrics, error) {
			busy := 0.5
			if time.Since(began) < time.Second {
				busy = 0
			}
			return metrics.Metrics{GPUs: []metrics.GPU{{Utilization: busy, MemoryUsed: 3}, {Utilization: busy / 2, MemoryUsed: int64(time.Since(began) / time.Second)}}}, nil
		}
		got := watchGPU(t.Context(), read, time.Second, func() { time.Sleep(4*time.Second + time.Millisecond) })
		if got.utilization != 0.5 || got.memory != 7 || got.looks != 7 {
			t.Errorf("%+v", got)
		}
		if got = watchGPU(t.Context(), read, time.Second, func() {}); got.utilization != 0.5 || got.looks != 1 {
			t.Errorf("a short window: %+v", got)
		}
		none := func(context.Context) (metrics.Metrics, error) { return metrics.Metrics{}, errors.New("refused") }
		for _, read := range []func(context.Context) (metrics.Metrics, error){nil, none} {
			if got = watchGPU(t.Context(), read, 0, func() {}); got.utilization >= 0 || got.memory >= 0 {
				t.Errorf("of nothing: %+v", got)
			}
		}
	})
}

// TestHeat: a machine that was slowed down, or that other guests used, says so.
func TestHeat(t *testing.T) {
	second := func(busy, idle, stolen time.Duration) measure.Machine {
		return measure.Machine{Busy: busy * time.Second, Idle: idle * time.Second, Stolen: stolen * time.Second}
	}
	before := heat{throttled: 3, machine: second(100, 100, 50)}
	for _, c := range []struct {
		now  heat
		says string
	}{
		{heat{throttled: 3, machine: second(190, 100, 59)}, ""},
		{heat{throttled: 3, machine: second(190, 100, 61)}, "other guests"},
		{heat{throttled: 5, machine: second(110, 100, 50)}, "slowed down to cool 2 times"},
	} {
		if got := c.now.since(before); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%+v: %q, want %q", c.now, got, c.says)
		}
	}
	if now := readHeat(); now.machine.Busy <= 0 || now.since(now) != "" {
		t.Errorf("this machine: %+v", now)
	}
}
