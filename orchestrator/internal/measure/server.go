package measure

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/slab"
)

// ServerConfig sizes a [Serving].
type ServerConfig struct {
	Model orchestrator.Model
	// Pages are drawn pages as the model's Input wants them, at least one. They
	// are copied.
	Pages [][]byte
	// Batch is how many pages a request has, InFlight how many requests are under
	// way at once.
	Batch, InFlight int
	// SharedMemoryPrefix starts the names of the slabs. Empty: pages travel
	// inside the requests.
	SharedMemoryPrefix string
}

// Serving is a load for the server alone: batches of pages that were drawn
// before. It is used by one goroutine at a time.
type Serving struct {
	model  orchestrator.Model
	pool   *slab.Pool
	slabs  []*slab.Slab         // one for each request under way
	frames []orchestrator.Frame // of a request
}

// NewServing fills a slab with pages for each request in flight. Which page
// stands where does not matter, so each slab has others as far as there are
// enough.
func NewServing(cfg ServerConfig) (*Serving, error) {
	if len(cfg.Pages) == 0 {
		return nil, errors.New("measure: no page to ask the server about")
	}
	pool, err := Slabs(cfg.Model, cfg.InFlight, cfg.Batch, cfg.SharedMemoryPrefix)
	if err != nil {
		return nil, err
	}
	s := &Serving{model: cfg.Model, pool: pool, frames: Frames(cfg.Model.Input(), cfg.Batch)}
	next := 0
	for range cfg.InFlight {
		sl, err := pool.Get()
		if err != nil {
			s.Close()
			return nil, err
		}
		s.slabs = append(s.slabs, sl)
		for i := range sl.Pages {
			copy(sl.Page(i), cfg.Pages[next%len(cfg.Pages)])
			next++
		}
	}
	return s, nil
}

// Slabs makes page buffers for a model, in shared memory where it takes that and
// prefix, which starts their names, is not empty.
func Slabs(model orchestrator.Model, slabs, pages int, prefix string) (*slab.Pool, error) {
	in := model.Input()
	if !in.SharedMemory {
		prefix = ""
	}
	return slab.New(slab.Config{Slabs: slabs, Pages: pages, PageBytes: in.PageBytes(), Prefix: prefix, Release: model.Release})
}

// Frames are coordinates of the input's own pixels, for so many pages.
func Frames(in orchestrator.Input, pages int) []orchestrator.Frame {
	return slices.Repeat([]orchestrator.Frame{{Width: float64(in.Width), Height: float64(in.Height)}}, pages)
}

// Close frees the slabs. It is idempotent.
func (s *Serving) Close() {
	for _, sl := range s.slabs {
		s.pool.Put(sl)
	}
	s.slabs = nil
	s.pool.Close()
}

// Answered is what came of asking for a while.
type Answered struct {
	// Pages were answered, in Requests requests.
	Pages, Requests int
	Elapsed         time.Duration
	// Latencies are the times of those requests, as the caller saw them.
	Latencies Latencies
	// Failed is how many pages failed besides, all of a request that did, and Err
	// the first reason.
	Failed int
	Err    error
}

// FailurePause keeps a server that refuses at once from being asked without end.
const FailurePause = 20 * time.Millisecond

// Ask keeps the requests under way until the time is up, at least one round of
// them, and returns when the last is answered. No request that failed is made
// again. Its error is ctx's; what the server says is in the answer.
func (s *Serving) Ask(ctx context.Context, window time.Duration) (Answered, error) {
	var mu sync.Mutex
	var a Answered
	var askers sync.WaitGroup
	start := time.Now()
	for _, sl := range s.slabs {
		askers.Go(func() {
			for once := true; (once || time.Since(start) < window) && ctx.Err() == nil; once = false {
				began := time.Now()
				verdicts, err := s.model.Infer(ctx, sl, 0, s.frames)
				took := time.Since(began)
				mu.Lock()
				if err == nil {
					a.Requests++
					a.Latencies = append(a.Latencies, took)
				} else {
					a.fail(len(s.frames), err)
				}
				for _, v := range verdicts {
					if v.Err == nil {
						a.Pages++
					} else {
						a.fail(1, v.Err)
					}
				}
				mu.Unlock()
				if err != nil {
					Pause(ctx, FailurePause)
				}
			}
		})
	}
	askers.Wait()
	a.Elapsed = time.Since(start)
	return a, context.Cause(ctx)
}

// Pause waits, and tells whether ctx goes on.
func Pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *Answered) fail(pages int, err error) {
	a.Failed += pages
	if a.Err == nil {
		a.Err = err
	}
}
