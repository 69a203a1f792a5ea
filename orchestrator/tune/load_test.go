package tune

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/measure"
)

// sleeper is a model that takes a while for a batch, one after the other.
type sleeper struct {
	perBatch, perPage time.Duration
	device            chan struct{}
	err               error
	sizes             chan int
}

func newSleeper(perBatch, perPage time.Duration) *sleeper {
	return &sleeper{perBatch: perBatch, perPage: perPage, device: make(chan struct{}, 1), sizes: make(chan int, 10000)}
}

func (s *sleeper) Info() orchestrator.ModelInfo { return orchestrator.ModelInfo{Name: "layout"} }

func (s *sleeper) Input() orchestrator.Input {
	return orchestrator.Input{Width: 4, Height: 4, MaxBatch: 64, Instances: 1}
}

func (s *sleeper) Infer(ctx context.Context, _ *orchestrator.Slab, _ int, frames []orchestrator.Frame) ([]orchestrator.Verdict, error) {
	if s.err != nil {
		return nil, s.err
	}
	s.device <- struct{}{}
	time.Sleep(s.perBatch + time.Duration(len(frames))*s.perPage)
	<-s.device
	s.sizes <- len(frames)
	return make([]orchestrator.Verdict, len(frames)), nil
}

func (*sleeper) WaitReady(context.Context) error { return nil }
func (*sleeper) Refresh(context.Context) error   { return nil }
func (*sleeper) Release(*orchestrator.Slab)      {}

var onePage = [][]byte{make([]byte, 48)}

// TestSaturatedLoad: full batches as fast as the model takes them, and the time
// of a page is the requests before it.
func TestSaturatedLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := newSleeper(6*time.Millisecond, time.Millisecond)
		l := loader{model: model, pages: onePage}
		r, err := l.run(t.Context(), Settings{MaxBatch: 4, Instances: 1, Batch: 4, MaxAge: time.Second, InFlight: 2}, 0, time.Second, 5*time.Second)
		if err != nil || r.failed != 0 {
			t.Fatal(err, r.err)
		}
		// 4 pages every 10 ms; the clock moves in whole batches.
		if got := r.rate(); got != 400 {
			t.Errorf("%v pages/s, want 400", got)
		}
		// A page finds two requests before its own, and the batch that it is in
		// was open for as long as one of them ran.
		if p := r.latencies.Percentile(99); p != 30*time.Millisecond {
			t.Errorf("p99 %v, want 30 ms", p)
		}
		if len(r.latencies) < 1990 || r.requests*4 < len(r.latencies) {
			t.Errorf("%d pages in %d requests", len(r.latencies), r.requests)
		}
	})
}

// TestOpenLoad: pages come at their rate whatever the model does; where it does
// not keep up, they wait, and that shows.
func TestOpenLoad(t *testing.T) {
	for _, c := range []struct {
		rate, least, most float64
		slow              bool
	}{{rate: 100, least: 90, most: 110}, {rate: 800, least: 399, most: 401, slow: true}} {
		synctest.Test(t, func(t *testing.T) {
			l := loader{model: newSleeper(6*time.Millisecond, time.Millisecond), pages: onePage}
			r, err := l.run(t.Context(), Settings{MaxBatch: 4, Instances: 1, Batch: 4, MaxAge: 5 * time.Millisecond, InFlight: 2}, c.rate, time.Second, 10*time.Second)
			if err != nil || r.failed != 0 {
				t.Fatal(err, r.err)
			}
			if got := r.rate(); got < c.least || got > c.most {
				t.Errorf("%v a second asked: %v", c.rate, got)
			}
			if p := r.latencies.Percentile(50); c.slow != (p > time.Second) {
				t.Errorf("%v a second asked: half of the pages take %v", c.rate, p)
			}
		})
	}
}

// TestAge: without waiting, a page that comes alone goes alone.
func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := newSleeper(time.Millisecond, 0)
		l := loader{model: model, pages: onePage}
		for _, c := range []struct {
			age     time.Duration
			largest bool
		}{{0, false}, {time.Second, true}} {
			if _, err := l.run(t.Context(), Settings{MaxBatch: 8, Instances: 1, Batch: 8, MaxAge: c.age, InFlight: 2}, 20, 0, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			full, single := 0, 0
			for range len(model.sizes) {
				switch <-model.sizes {
				case 8:
					full++
				case 1:
					single++
				}
			}
			if c.largest != (full > single) {
				t.Errorf("age %v: %d full, %d single", c.age, full, single)
			}
		}
	})
}

// TestLoadFails: what the server refuses is counted, and a load that is called
// off ends.
func TestLoadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := newSleeper(time.Millisecond, 0)
		model.err = errors.New("no")
		l := loader{model: model, pages: onePage}
		r, err := l.run(t.Context(), Settings{MaxBatch: 4, Instances: 1, Batch: 4, MaxAge: time.Second, InFlight: 2}, 0, 0, time.Second)
		// Two at a time, with a pause after each.
		if want := 2 * int(time.Second/measure.FailurePause); err != nil || r.failed < want || r.failed > want+5 || !errors.Is(r.err, model.err) || r.rate() != 0 {
			t.Errorf("%d failed, %v, %v", r.failed, r.err, err)
		}

		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		l.model = newSleeper(time.Millisecond, 0)
		if _, err := l.run(ctx, Settings{MaxBatch: 4, Instances: 1, Batch: 4, InFlight: 2}, 50, 0, time.Hour); !errors.Is(err, gone) {
			t.Errorf("%v", err)
		}
	})
}
