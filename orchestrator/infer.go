package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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
	d.infer(b, doing, 0, b.Items, d.cfg.Attempts, false)
	// Whatever happened, nobody waits for a batch that is over.
	for _, p := range b.Items {
		p.cancel()
	}
}

// infer gives each of the pages, which lie in the slab from place first on, its
// result, with at most the given number of attempts that count. agreed tells that
// two endpoints have failed a batch with these pages in it.
func (d *Detector) infer(b *batch.Batch[*Slab, *page], doing *doing, first int, pages []*page, attempts int, agreed bool) {
	ctx := b.Context
	halves := func(attempts int) {
		mid := len(pages) / 2
		d.infer(b, doing, first, pages[:mid], attempts, agreed)
		d.infer(b, doing, first+mid, pages[mid:], attempts, agreed)
	}
	waited := patience{limit: d.cfg.ServerWait}
	died := 0            // times that a server did with these pages alone in flight
	var failed *endpoint // did so last: another one is asked next, if there is one
	fault := ""          // what it said, unless it was busy or away
	for attempt := 1; ; {
		if ctx.Err() != nil || !anyLive(pages) {
			return
		}
		// A reload may have lowered it; 0 while there is no endpoint.
		if most := d.fleet.maxBatch(); most > 0 && len(pages) > most {
			halves(attempts)
			return
		}
		suspect := suspected(pages)
		e, err := d.ask(ctx, b.Resource, first, pages, wanted{alone: suspect, avoid: failed}, &waited)
		if len(pages) == 1 && pages[0].live() && ctx.Err() == nil && bisects(err) {
			// Triton merges requests: the culprit may be another request's page.
			// It counts only when this page failed with nothing beside it, and
			// when the model does not fail everything; of another endpoint, if
			// there is one.
			doing.meets(err.Error())
			d.fleet.doubt(e, err.Error())
			failed, fault = e, err.Error()
			e, err = d.ask(ctx, b.Resource, first, pages, wanted{alone: true, avoid: failed, sure: true}, &waited)
		}
		if err == nil {
			if fault != "" && e != failed {
				d.fleet.strike(failed, fault)
			}
			return
		}
		if ctx.Err() != nil || err == errNobodyWaits {
			return
		}
		if away, ok := err.(*ServerError); ok {
			d.giveUp(pages, CategoryUnavailable, away)
			return
		}
		me := asModelError(err)
		doing.meets(me.Message)
		d.log.Debug("a batch failed", "server", e.Name, "pages", len(pages), "action", me.Action.String(), "err", err)
		other := fault != "" && e != failed // than the one that failed before
		failed, fault = e, ""
		switch me.Action {
		case ActionShrink:
			d.fleet.full(e)
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
			d.fleet.away(e, me.Message)
			if err := d.fleet.await(ctx); err != nil {
				d.giveUp(pages, CategoryUnavailable, err)
				return
			}
			switch {
			case me.Lost && suspected(pages):
				if !suspect {
					d.log.Warn("the server died again with these pages; looking for the one that does it", "from", pages[0].ref.String(), "pages", len(pages))
				}
				d.scatter(ctx, died > 0)
				if len(pages) > 1 {
					halves(attempts)
					return
				}
			case !waited.pause(ctx):
				d.giveUp(pages, CategoryUnavailable, &ServerError{Message: fmt.Sprintf("the server says that it is ready and fails every request for %v: %s", waited.limit, me.Message), Err: err})
				return
			}
		case ActionRefresh:
			if err := d.refresh(ctx, e); err != nil {
				d.giveUp(pages, CategoryServer, err)
				return
			}
			if !waited.pause(ctx) {
				d.giveUp(pages, CategoryUnavailable, &ServerError{Message: me.Message, Err: err})
				return
			}
		case ActionStop:
			if !d.fleet.refuse(e, me.Message) {
				d.giveUp(pages, CategoryServer, &ServerError{Message: me.Message, Err: err})
				return
			}
		case ActionBisect:
			if len(pages) == 1 {
				pages[0].fail(StageInfer, CategoryServer, "the server failed this page: "+me.Message, err)
				return
			}
			if !agreed && !other && d.fleet.doubt(e, me.Message) {
				fault = me.Message
				continue // it may be the server: what does another say?
			}
			agreed = agreed || other
			halves(attempts)
			return
		default: // ActionRetry
			d.fleet.doubt(e, me.Message)
			fault = me.Message
			for _, p := range pages {
				p.tries++
			}
			if attempt < attempts {
				attempt++
				waited.rest(ctx)
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
			pages[0].fail(StageInfer, category, fmt.Sprintf("no answer in %d attempts: %s", pages[0].tries, me.Message), err)
			return
		}
	}
}

// anyLive tells whether anybody waits for one of the pages.
func anyLive(pages []*page) bool { return slices.ContainsFunc(pages, (*page).live) }

// errNobodyWaits is of a request that was not made: all of its pages ended before
// there was a permit for it.
var errNobodyWaits = errors.New("nobody waits for these pages any more")

// bisects tells whether err asks for a smaller batch.
func bisects(err error) bool {
	me, ok := errors.AsType[*ModelError](err)
	return ok && me.Action == ActionBisect
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
// who do it are seldom at the server together; much longer before a page that was
// alone at one death is asked again, since another would find it guilty.
func (d *Detector) scatter(ctx context.Context, accused bool) {
	most := min(max(20*time.Duration(d.took.Load()), time.Second), 20*time.Second)
	if accused {
		most = min(8*most, 40*time.Second)
	}
	pause(ctx, rand.N(most))
}

// well reports whether the endpoint answers at all.
func (d *Detector) well(ctx context.Context, e *endpoint) bool {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.InferTimeout)
	defer cancel()
	return e.Model.WaitReady(ctx) == nil
}

// asModelError is err as a *ModelError; what is none is worth another try.
func asModelError(err error) *ModelError {
	if me, ok := errors.AsType[*ModelError](err); ok {
		return me
	}
	return &ModelError{Action: ActionRetry, Message: err.Error(), Err: err}
}

// ask makes one request and ends the pages if it is answered; it tells which
// endpoint was asked. While none works it waits; that this takes too long is a
// *ServerError, and that nobody waits for the pages then is errNobodyWaits.
func (d *Detector) ask(ctx context.Context, s *Slab, first int, pages []*page, w wanted, waited *patience) (*endpoint, error) {
	e, err := d.fleet.acquire(ctx, len(pages), w)
	if err != nil {
		return nil, err
	}
	if !anyLive(pages) {
		d.fleet.settle(e, len(pages), w, false)
		return e, errNobodyWaits
	}
	start := time.Now()
	verdicts, err := d.askAt(ctx, e, s, first, pages)
	waited.excuse(time.Since(start))
	if w.sure && ctx.Err() == nil && bisects(err) && !d.well(ctx, e) {
		err = &ModelError{Action: ActionWait, Message: "the server fails a blank page too: " + err.Error(), Err: err}
	}
	d.fleet.settle(e, len(pages), w, err == nil)
	if err != nil {
		return e, err
	}
	for i, v := range verdicts {
		if v.Err != nil {
			x := *v.Err
			pages[i].end(PageResult{Status: StatusFailed, Err: &x})
			continue
		}
		pages[i].end(PageResult{Status: StatusDone, Regions: v.Regions})
	}
	return e, nil
}

// askAt is the request itself.
func (d *Detector) askAt(ctx context.Context, e *endpoint, s *Slab, first int, pages []*page) ([]Verdict, error) {
	frames := make([]Frame, len(pages))
	for i, p := range pages {
		frames[i] = p.frame
	}
	limited, cancel := context.WithTimeout(ctx, d.cfg.InferTimeout)
	defer cancel()
	start := time.Now()
	verdicts, err := e.Model.Infer(limited, s, first, frames)
	if err != nil {
		if a := asModelError(err).Action; ctx.Err() == nil && a >= 0 && int(a) < len(d.failed) {
			d.failed[a].Add(1)
		}
		return nil, err
	}
	d.took.Store(int64(time.Since(start)))
	if len(verdicts) != len(pages) {
		return nil, &ModelError{Action: ActionStop, Message: fmt.Sprintf("the model gave %d answers for %d pages", len(verdicts), len(pages))}
	}
	return verdicts, nil
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
// 20 ms to 2 s, until limit has gone by in all; a negative limit never ends. The
// time that requests take is not counted: a server that is slow is not away.
type patience struct {
	limit time.Duration
	since time.Time
	last  time.Duration
}

// excuse leaves d, which has just gone by, out of what is counted.
func (p *patience) excuse(d time.Duration) {
	if !p.since.IsZero() {
		p.since = p.since.Add(d)
	}
}

// pause rests, and tells whether there is patience left.
func (p *patience) pause(ctx context.Context) bool {
	if p.since.IsZero() {
		p.since = time.Now()
	} else if p.limit > 0 && time.Since(p.since) > p.limit {
		return false
	}
	p.rest(ctx)
	return true
}

// rest is the wait alone, where the number of tries is what has a limit.
func (p *patience) rest(ctx context.Context) {
	p.last = min(max(2*p.last, 20*time.Millisecond), 2*time.Second)
	pause(ctx, p.last/2+rand.N(p.last/2))
}
