package measure

import (
	"context"
	"errors"
	"fmt"
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
	// Batch and InFlight are the most that Ask will be asked for.
	Batch, InFlight int
	// SharedMemoryPrefix starts the names of the slabs. Empty: pages travel
	// inside the requests.
	SharedMemoryPrefix string
}

// Serving is a load for the server alone: batches of pages that were drawn
// before. It is used by one goroutine at a time.
type Serving struct {
	model orchestrator.Model
	pool  *slab.Pool
	slabs []*slab.Slab
}

// NewServing fills a slab with pages for each request in flight. Which page
// stands where does not matter, so each slab has others as far as there are
// enough.
func NewServing(cfg ServerConfig) (*Serving, error) {
	in := cfg.Model.Input()
	if len(cfg.Pages) == 0 {
		return nil, errors.New("measure: no page to ask the server about")
	}
	prefix := cfg.SharedMemoryPrefix
	if !in.SharedMemory {
		prefix = ""
	}
	pool, err := slab.New(slab.Config{Slabs: cfg.InFlight, Pages: cfg.Batch, PageBytes: in.PageBytes(), Prefix: prefix, Release: cfg.Model.Release})
	if err != nil {
		return nil, err
	}
	s := &Serving{model: cfg.Model, pool: pool}
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

// PagesPerSecond is the rate of the answers.
func (a Answered) PagesPerSecond() float64 { return float64(a.Pages) / a.Elapsed.Seconds() }

// failurePause keeps a server that refuses at once from being asked without end.
const failurePause = 20 * time.Millisecond

// Ask keeps so many requests of so many pages under way until the time is up, at
// least one round of them, and returns when the last is answered. No request
// that failed is made again.
// Its error is ctx's; what the server says is in the answer.
func (s *Serving) Ask(ctx context.Context, batch, inFlight int, window time.Duration) (Answered, error) {
	if batch < 1 || inFlight < 1 || inFlight > len(s.slabs) || batch > s.slabs[0].Pages {
		return Answered{}, fmt.Errorf("measure: %d requests of %d pages were not planned for", inFlight, batch)
	}
	in := s.model.Input()
	frames := slices.Repeat([]orchestrator.Frame{{Width: float64(in.Width), Height: float64(in.Height)}}, batch)
	var mu sync.Mutex
	var a Answered
	var askers sync.WaitGroup
	start := time.Now()
	for _, sl := range s.slabs[:inFlight] {
		askers.Go(func() {
			for first, once := 0, true; (once || time.Since(start) < window) && ctx.Err() == nil; once = false {
				began := time.Now()
				verdicts, err := s.model.Infer(ctx, sl, first, frames)
				took := time.Since(began)
				mu.Lock()
				if err == nil {
					a.Requests++
					a.Latencies = append(a.Latencies, took)
				} else {
					a.fail(batch, err)
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
					select {
					case <-time.After(failurePause):
					case <-ctx.Done():
					}
				}
				if first += batch; first+batch > sl.Pages {
					first = 0
				}
			}
		})
	}
	askers.Wait()
	a.Elapsed = time.Since(start)
	return a, context.Cause(ctx)
}

func (a *Answered) fail(pages int, err error) {
	a.Failed += pages
	if a.Err == nil {
		a.Err = err
	}
}
