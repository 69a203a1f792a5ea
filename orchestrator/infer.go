package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"quire/orchestrator/internal/batch"
)

// ServerError ends a run because of the server: it stayed away too long, or its
// model does not fit.
type ServerError struct {
	Message string
	Err     error
}

func (e *ServerError) Error() string { return e.Message }
func (e *ServerError) Unwrap() error { return e.Err }

// runBatch is the goroutine of one batch in flight.
func (d *Detector) runBatch(b *batch.Batch[*Slab, *page]) {
	defer d.slabs.Put(b.Resource)
	doing := d.doings.begin(asking, b.Items[0].ref, len(b.Items))
	defer doing.end()
	d.infer(b, doing, 0, b.Items, d.cfg.Attempts)
	// Whatever happened, nobody waits for a batch that is over.
	for _, p := range b.Items {
		p.cancel()
	}
}

// infer gives each of the pages, which lie in the slab from place first on, its
// result, with at most the given number of attempts that count.
func (d *Detector) infer(b *batch.Batch[*Slab, *page], doing *doing, first int, pages []*page, attempts int) {
	ctx := b.Context
	halves := func(attempts int) {
		mid := len(pages) / 2
		d.infer(b, doing, first, pages[:mid], attempts)
		d.infer(b, doing, first+mid, pages[mid:], attempts)
	}
	waited := patience{limit: d.cfg.ServerWait}
	died := 0 // times that the server did with these pages alone in flight
	for attempt := 1; ; {
		if ctx.Err() != nil {
			return
		}
		if len(pages) > d.model.Input().MaxBatch { // a reload may have lowered it
			halves(attempts)
			return
		}
		var err error
		ask := func() { err = d.ask(ctx, b.Resource, first, pages) }
		suspect := suspected(pages)
		if suspect {
			b.Alone(ask)
		} else {
			ask()
		}
		if err == nil {
			d.window.grow()
			return
		}
		if ctx.Err() != nil {
			return
		}
		if away, ok := err.(*ServerError); ok {
			d.giveUp(pages, CategoryUnavailable, away)
			return
		}
		me := asModelError(err)
		doing.meets(me.Message)
		d.log.Debug("a batch failed", "pages", len(pages), "action", me.Action.String(), "err", err)
		if me.Action == ActionBisect && len(pages) == 1 {
			// Triton merges requests: the culprit may be another request's page.
			// It counts only when this page failed with nothing beside it, and
			// when the model does not fail everything.
			b.Alone(func() {
				if ask(); err != nil && ctx.Err() == nil && asModelError(err).Action == ActionBisect && !d.well(ctx) {
					err = &ModelError{Action: ActionWait, Message: "the server fails a blank page too: " + asModelError(err).Message, Err: err}
				}
			})
			if err == nil || ctx.Err() != nil {
				return
			}
			if me = asModelError(err); me.Action == ActionBisect {
				pages[0].fail(StageInfer, CategoryServer, "the server failed this page: "+me.Message, err)
				return
			}
		}
		switch me.Action {
		case ActionShrink:
			d.window.shrink()
			if !waited.pause(ctx) {
				d.giveUp(pages, CategoryUnavailable, &ServerError{Message: fmt.Sprintf("the server's queue was full for %v: %s", waited.limit, me.Message), Err: err})
				return
			}
		case ActionWait:
			if me.Lost {
				for _, p := range pages {
					p.lost++
				}
				if suspect {
					died++
				}
				if died == convict && len(pages) == 1 {
					d.log.Warn("a page kills the server", "page", pages[0].ref.String(), "times", pages[0].lost, "reason", me.Message)
					pages[0].fail(StageInfer, CategoryCrash, fmt.Sprintf("the server died %d times with this page, %d of them with it alone: %s", pages[0].lost, died, me.Message), err)
					return
				}
			}
			if err := d.server.wait(ctx, me.Message); err != nil {
				d.giveUp(pages, CategoryUnavailable, err)
				return
			}
			switch {
			case me.Lost && suspected(pages):
				if !suspect {
					d.log.Warn("the server died again with these pages; looking for the one that does it", "from", pages[0].ref.String(), "pages", len(pages))
				}
				d.scatter(ctx)
				if len(pages) > 1 {
					halves(attempts)
					return
				}
			case !waited.pause(ctx):
				d.giveUp(pages, CategoryUnavailable, &ServerError{Message: fmt.Sprintf("the server says that it is ready and fails every request for %v: %s", waited.limit, me.Message), Err: err})
				return
			}
		case ActionRefresh:
			if err := d.refresh(ctx); err != nil {
				d.giveUp(pages, CategoryServer, err)
				return
			}
			if !waited.pause(ctx) {
				d.giveUp(pages, CategoryUnavailable, &ServerError{Message: me.Message, Err: err})
				return
			}
		case ActionStop:
			d.giveUp(pages, CategoryServer, &ServerError{Message: me.Message, Err: err})
			return
		case ActionBisect:
			halves(attempts)
			return
		default: // ActionRetry
			if attempt < attempts {
				attempt++
				if !waited.pause(ctx) {
					attempt = attempts
				}
				continue
			}
			if len(pages) > 1 {
				halves(1)
				return
			}
			category := CategoryServer
			if errors.Is(err, context.DeadlineExceeded) {
				category = CategoryTimeout
			}
			pages[0].fail(StageInfer, category, fmt.Sprintf("no answer in %d attempts: %s", attempts, me.Message), err)
			return
		}
	}
}

// A page that kills the server takes every request with it that is there at the
// same time, also other clients'. The pages that were in flight at two deaths are
// suspects: they are asked again in halves, with nothing else of ours at the
// server, down to the page that it dies of. Other clients look for the page too,
// and come back at the same moment as we do, when the server does; so each waits
// a random time first, and a page is only found guilty by two deaths that it was
// alone at.
const (
	suspicion = 2
	convict   = 2
)

// suspected reports whether the server has died with these pages too often for
// chance.
func suspected(pages []*page) bool { return pages[0].lost >= suspicion }

// scatter waits a random time that is long beside a request, so that two clients
// who do it are seldom at the server together.
func (d *Detector) scatter(ctx context.Context) {
	most := min(max(20*time.Duration(d.took.Load()), time.Second), 20*time.Second)
	t := time.NewTimer(rand.N(most))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// well reports whether the model answers at all.
func (d *Detector) well(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.InferTimeout)
	defer cancel()
	return d.model.WaitReady(ctx) == nil
}

// asModelError is err as a *ModelError; what is none is worth another try.
func asModelError(err error) *ModelError {
	if me, ok := errors.AsType[*ModelError](err); ok {
		return me
	}
	return &ModelError{Action: ActionRetry, Message: err.Error(), Err: err}
}

// ask makes one request and ends the pages if it is answered. While the server
// is known to be away it waits first; that it is away too long is met by
// whoever found out.
func (d *Detector) ask(ctx context.Context, s *Slab, first int, pages []*page) error {
	if err := d.server.pass(ctx); err != nil {
		return err
	}
	frames := make([]Frame, len(pages))
	for i, p := range pages {
		frames[i] = p.frame
	}
	limited, cancel := context.WithTimeout(ctx, d.cfg.InferTimeout)
	defer cancel()
	start := time.Now()
	verdicts, err := d.model.Infer(limited, s, first, frames)
	if err != nil {
		if a := asModelError(err).Action; ctx.Err() == nil && a >= 0 && int(a) < len(d.failed) {
			d.failed[a].Add(1)
		}
		return err
	}
	d.took.Store(int64(time.Since(start)))
	if len(verdicts) != len(pages) {
		return &ModelError{Action: ActionStop, Message: fmt.Sprintf("the model gave %d answers for %d pages", len(verdicts), len(pages))}
	}
	for i, v := range verdicts {
		if v.Err != nil {
			e := *v.Err
			pages[i].end(PageResult{Status: StatusFailed, Err: &e})
			continue
		}
		pages[i].end(PageResult{Status: StatusDone, Regions: v.Regions})
	}
	return nil
}

// giveUp ends pages that no server will answer: single calls get the error,
// runs are stopped with it and keep what is finished.
func (d *Detector) giveUp(pages []*page, category Category, err error) {
	for _, p := range pages {
		if p.run != nil {
			p.run.abort(err)
			p.cancel()
			continue
		}
		p.fail(StageInfer, category, err.Error(), err)
	}
}

// patience is the wait between tries of one batch: doubling with jitter from
// 20 ms to 2 s, until limit has gone by in all; a negative limit never ends.
type patience struct {
	limit time.Duration
	since time.Time
	last  time.Duration
}

// pause waits, and tells whether there is patience left.
func (p *patience) pause(ctx context.Context) bool {
	if p.since.IsZero() {
		p.since = time.Now()
	} else if p.limit > 0 && time.Since(p.since) > p.limit {
		return false
	}
	p.last = min(max(2*p.last, 20*time.Millisecond), 2*time.Second)
	t := time.NewTimer(p.last/2 + rand.N(p.last/2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return true
}
