package measure

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"quire/orchestrator"
)

// Rendering is a set of render workers with nothing behind them: what they draw
// is thrown away. It is used by one goroutine at a time.
type Rendering struct {
	workers []orchestrator.RenderWorker
}

// NewRendering starts as many workers as asked for, which draw pages as the
// model wants them.
func NewRendering(ctx context.Context, renderer orchestrator.Renderer, in orchestrator.Input, workers int) (*Rendering, error) {
	r := &Rendering{}
	for range workers {
		w, err := renderer.NewWorker(ctx, in.Width, in.Height)
		if err != nil {
			r.Close()
			return nil, err
		}
		r.workers = append(r.workers, w)
	}
	return r, nil
}

// Close ends the workers.
func (r *Rendering) Close() {
	for _, w := range r.workers {
		_ = w.Close()
	}
	r.workers = nil
}

// Drawn is what came of drawing for a while.
type Drawn struct {
	// Pages were drawn; Failed is how many more could not be.
	Pages, Failed int
	Elapsed       time.Duration
}

// piece is how many pages of a document one worker takes at a time, as in a run.
const piece = 16

// Draw draws all pages of all documents, so many times over, on all workers.
// each, if set, gets the pixels of every page, which it must not keep, from
// several goroutines at once; page counts from 1. The error is ctx's or one of
// this machine: a page or a document that fails is only counted.
func (r *Rendering) Draw(ctx context.Context, documents []Document, times int, each func(d Document, page int, pixels []byte)) (Drawn, error) {
	type task struct {
		doc      Document
		from, to int
	}
	var tasks []task
	for _, d := range documents {
		for from := 1; from <= d.Pages; from += piece {
			tasks = append(tasks, task{d, from, min(from+piece, d.Pages+1)})
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, drawn, failed atomic.Int64
	var workers sync.WaitGroup
	start := time.Now()
	for _, w := range r.workers {
		workers.Go(func() {
			open := "" // also at the second time round a document is opened anew
			for {
				i := int(next.Add(1)) - 1
				if i >= times*len(tasks) || ctx.Err() != nil {
					return
				}
				t := tasks[i%len(tasks)]
				if name := fmt.Sprintf("%d/%s", i/len(tasks), t.doc.Path); name != open {
					open = ""
					if _, err := w.Open(ctx, t.doc.Document); err != nil {
						if !pageFailed(err) {
							cancel(err)
							return
						}
						failed.Add(int64(t.to - t.from))
						continue
					}
					open = name
				}
				for page := t.from; page < t.to; page++ {
					if page+1 < t.to {
						w.Ahead(page + 1)
					}
					pixels, _, err := w.Draw(ctx, page)
					switch {
					case err == nil:
						drawn.Add(1)
						if each != nil {
							each(t.doc, page, pixels)
						}
					case pageFailed(err):
						failed.Add(1)
					default:
						cancel(err)
						return
					}
				}
			}
		})
	}
	workers.Wait()
	return Drawn{Pages: int(drawn.Load()), Failed: int(failed.Load()), Elapsed: time.Since(start)}, context.Cause(ctx)
}
