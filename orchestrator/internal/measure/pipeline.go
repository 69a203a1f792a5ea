package measure

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"quire/orchestrator"
)

// Repeat yields documents so many times over, each time under other names.
func Repeat(documents []Document, times int) orchestrator.Source {
	return repeated{documents, times}
}

type repeated struct {
	documents []Document
	times     int
}

func (r repeated) Documents(ctx context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		for i := range r.times {
			for _, d := range r.documents {
				doc := d.Document
				doc.Path = fmt.Sprintf("%06d/%s", i, d.Path)
				if ctx.Err() != nil || !yield(doc) {
					return
				}
			}
		}
	}
}

// Counter is a sink that keeps nothing but counts. The zero value is ready.
type Counter struct {
	Documents, Pages, Failed, Regions int64
	// FirstError is that of the first page or document that failed.
	FirstError error
}

// Begin counts nothing.
func (c *Counter) Begin(context.Context, orchestrator.Document) (orchestrator.Past, error) {
	return orchestrator.Past{}, nil
}

// Opened counts nothing.
func (c *Counter) Opened(context.Context, orchestrator.Document, int) error { return nil }

// Page counts a page.
func (c *Counter) Page(_ context.Context, p orchestrator.PageResult) error {
	c.Regions += int64(len(p.Regions))
	if p.Err == nil {
		c.Pages++
		return nil
	}
	return c.fail(p.Err)
}

// End counts a document.
func (c *Counter) End(_ context.Context, d orchestrator.DocumentResult, stands func(error)) error {
	c.Documents++
	if d.Err != nil {
		_ = c.fail(d.Err)
	}
	stands(nil)
	return nil
}

func (c *Counter) fail(err *orchestrator.PageError) error {
	c.Failed++
	if c.FirstError == nil {
		c.FirstError = err
	}
	return nil
}

// Flow is how a detector's pages moved, looked at many times while they did.
type Flow struct {
	// Looks is how often was looked.
	Looks int
	// Full is in how many of them as many requests were at the server as may
	// be, Idle in how many there was none, and Stalled in how many a drawn page
	// waited for a place in a batch.
	Full, Idle, Stalled int
	// InFlight and Filling are sums over the looks: of requests at the server,
	// and of pages in the open batch.
	InFlight, Filling int
}

// Add is both together.
func (f Flow) Add(g Flow) Flow {
	return Flow{
		Looks: f.Looks + g.Looks, Full: f.Full + g.Full, Idle: f.Idle + g.Idle, Stalled: f.Stalled + g.Stalled,
		InFlight: f.InFlight + g.InFlight, Filling: f.Filling + g.Filling,
	}
}

// lookEvery is often enough to see in a window of seconds which stage waits.
// Every 20 ms would wake quire more often than the pages of a model on the CPU
// do, and be measured with it.
const lookEvery = 100 * time.Millisecond

// Watch looks at a detector until stop is called, which returns what it saw.
func Watch(d *orchestrator.Detector) (stop func() Flow) {
	var f Flow
	end := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for {
			select {
			case <-end:
				return
			case <-t.C:
			}
			s := d.Stats()
			f.Looks++
			f.InFlight += s.InFlight
			f.Filling += s.Filling
			if s.InFlight >= s.Window {
				f.Full++
			}
			if s.InFlight == 0 {
				f.Idle++
			}
			if s.Stalled > 0 {
				f.Stalled++
			}
		}
	})
	return func() Flow {
		close(end)
		watcher.Wait()
		return f
	}
}
