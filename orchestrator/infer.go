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
	all := part{d: d, ctx: b.Context, slab: b.Resource, doing: doing, pages: b.Items, attempts: d.cfg.Attempts}
	all.infer()
	// Whatever happened, nobody waits for a batch that is over.
	for _, p := range b.Items {
		p.cancel()
	}
}

// part is pages of a batch that are asked for together: all of them, or those of
// a half, down to one page.
type part struct {
	d     *Detector
	ctx   context.Context
	slab  *Slab
	doing *doing
	first int // place in the slab of the first of pages
	pages []*page

	attempts int  // that count, at most
	agreed   bool // two endpoints have failed a batch with these pages in it

	waited  patience
	outages int       // since something else came of these pages
	tried   int       // attempts that counted
	died    int       // times that a server did with these pages alone in flight
	failed  *endpoint // did so last: another one is asked next, if there is one
	fault   string    // what it said, unless it was busy or away
}

// infer gives each of the pages its result.
func (p *part) infer() {
	p.waited.limit = p.d.cfg.ServerWait
	for p.ctx.Err() == nil && anyLive(p.pages) {
		// A reload may have lowered it; 0 while there is no endpoint.
		if most := p.d.fleet.maxBatch(); most > 0 && len(p.pages) > most {
			p.halve()
			return
		}
		suspect := suspected(p.pages)
		e, err := p.ask(wanted{alone: suspect, avoid: p.failed})
		if e != nil && len(p.pages) == 1 && p.pages[0].live() && p.ctx.Err() == nil && bisects(err) {
			// Triton merges requests: the culprit may be another request's page.
			// It counts only when this page failed with nothing beside it, and
			// when the model does not fail everything; of another endpoint, if
			// there is one.
			p.doing.meets(err.Error())
			p.d.fleet.doubt(e, err.Error())
			p.failed, p.fault = e, err.Error()
			e, err = p.ask(wanted{alone: true, avoid: p.failed, sure: true})
		}
		if err == nil {
			if p.fault != "" && e != p.failed {
				p.d.fleet.strike(p.failed, p.fault)
			}
			return
		}
		if p.ctx.Err() != nil || err == errNobodyWaits {
			return
		}
		if away, ok := err.(*ServerError); ok {
			p.giveUp(CategoryUnavailable, away)
			return
		}
		if !p.react(e, asModelError(err), suspect) {
			return
		}
	}
}

// halve asks for each half of the pages.
func (p *part) halve() {
	half := func(first int, pages []*page) {
		h := part{d: p.d, ctx: p.ctx, slab: p.slab, doing: p.doing, first: first, pages: pages, attempts: p.attempts, agreed: p.agreed}
		h.infer()
	}
	mid := len(p.pages) / 2
	half(p.first, p.pages[:mid])
	half(p.first+mid, p.pages[mid:])
}

// react does what a failed request asks for, and tells whether to ask again.
func (p *part) react(e *endpoint, err *ModelError, suspect bool) (again bool) {
	p.doing.meets(err.Message)
	p.d.log.Debug("a batch failed", "server", e.Name, "pages", len(p.pages), "action", err.Action.String(), "err", err)
	other := p.fault != "" && e != p.failed // than the one that failed before
	p.failed, p.fault = e, ""
	if err.Action != ActionWait {
		p.outages = 0
	}
	switch err.Action {
	case ActionShrink:
		p.failed = nil // it rests anyhow, and no longer than that
		p.d.fleet.full(e)
		return p.pause(fmt.Sprintf("the server's queue was full for %v: %s", p.waited.limit, err.Message), err)
	case ActionWait:
		return p.away(e, err, suspect)
	case ActionRefresh:
		if err := p.d.refresh(p.ctx, e); err != nil {
			p.giveUp(CategoryServer, err)
			return false
		}
		return p.pause(err.Message, err)
	case ActionStop:
		if !p.d.fleet.refuse(e, err.Message) {
			p.giveUp(CategoryServer, &ServerError{Message: err.Message, Err: err})
			return false
		}
		return true
	case ActionBisect:
		return p.bisect(e, err, other)
	}
	return p.retry(e, err)
}

// pause rests before the next try; when that has gone on for too long, it gives up
// with the message.
func (p *part) pause(message string, err error) (again bool) {
	if !p.waited.pause(p.ctx) {
		p.giveUp(CategoryUnavailable, &ServerError{Message: message, Err: err})
		return false
	}
	return true
}

// away waits for a server that is not there, and looks for the page that may be why.
func (p *part) away(e *endpoint, err *ModelError, suspect bool) (again bool) {
	if err.Lost {
		for _, x := range p.pages {
			x.lost++
		}
		if suspect {
			p.died++
		}
		if x := p.pages[0]; p.died == convict && len(p.pages) == 1 {
			p.d.log.Warn("a page kills the server", "page", x.ref.String(), "times", x.lost, "reason", err.Message)
			x.fail(StageInfer, CategoryCrash, fmt.Sprintf("the server died %d times with this page, %d of them with it alone: %s", x.lost, p.died, err.Message), err)
			return false
		}
	}
	p.d.fleet.away(e, err.Message)
	began := time.Now()
	if err := p.d.fleet.await(p.ctx); err != nil {
		p.giveUp(CategoryUnavailable, err)
		return false
	}
	if p.outages++; p.outages > 1 { // it comes back and fails the next request
		p.waited.rested += time.Since(began)
	}
	if !err.Lost || !suspected(p.pages) {
		return p.pause(fmt.Sprintf("the server says that it is ready and fails every request for %v: %s", p.waited.limit, err.Message), err)
	}
	if !suspect {
		p.d.log.Warn("the server died again with these pages; looking for the one that does it", "from", p.pages[0].ref.String(), "pages", len(p.pages))
	}
	p.d.scatter(p.ctx, p.died > 0)
	if len(p.pages) > 1 {
		p.halve()
		return false
	}
	return true
}

// bisect looks for the page that fails the others; other tells that two servers
// say so.
func (p *part) bisect(e *endpoint, err *ModelError, other bool) (again bool) {
	if len(p.pages) == 1 {
		p.pages[0].fail(StageInfer, CategoryServer, "the server failed this page: "+err.Message, err)
		return false
	}
	if !p.agreed && !other && p.d.fleet.doubt(e, err.Message) {
		p.fault = err.Message
		return true // it may be the server: what does another say?
	}
	p.agreed = p.agreed || other
	p.halve()
	return false
}

// retry uses an attempt up; when none is left, each half has one more.
func (p *part) retry(e *endpoint, err *ModelError) (again bool) {
	p.d.fleet.doubt(e, err.Message)
	p.fault = err.Message
	for _, x := range p.pages {
		x.tries++
	}
	p.tried++
	if p.tried < p.attempts {
		p.waited.rest(p.ctx)
		return true
	}
	if len(p.pages) > 1 {
		p.attempts = 1
		p.halve()
		return false
	}
	category := CategoryServer
	if errors.Is(err, context.DeadlineExceeded) {
		category = CategoryTimeout
	}
	p.pages[0].fail(StageInfer, category, fmt.Sprintf("no answer in %d attempts: %s", p.pages[0].tries, err.Message), err)
	return false
}

// giveUp ends pages that no server will answer: single calls get the error,
// runs are stopped with it and keep what is finished.
func (p *part) giveUp(category Category, err error) {
	for _, x := range p.pages {
		if x.run != nil {
			x.run.abort(err)
			x.cancel()
			continue
		}
		x.fail(StageInfer, category, err.Error(), err)
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
func (p *part) ask(w wanted) (*endpoint, error) {
	d := p.d
	e, err := d.fleet.acquire(p.ctx, len(p.pages), w)
	if err != nil {
		return nil, err
	}
	if !anyLive(p.pages) {
		d.fleet.settle(e, len(p.pages), w, false)
		return e, errNobodyWaits
	}
	verdicts, err := p.askAt(e)
	if w.sure && p.ctx.Err() == nil && bisects(err) {
		if d.well(p.ctx, e) {
			verdicts, err = p.askAt(e) // until now a blank page may have failed as well
		} else {
			err = &ModelError{Action: ActionWait, Message: "the server fails a blank page too: " + err.Error(), Err: err}
		}
	}
	d.fleet.settle(e, len(p.pages), w, err == nil)
	if err != nil {
		return e, err
	}
	for i, v := range verdicts {
		if v.Err != nil {
			x := *v.Err
			p.pages[i].end(PageResult{Status: StatusFailed, Err: &x})
			continue
		}
		p.pages[i].end(PageResult{Status: StatusDone, Regions: v.Regions})
	}
	return e, nil
}

// askAt is the request itself.
func (p *part) askAt(e *endpoint) ([]Verdict, error) {
	d := p.d
	frames := make([]Frame, len(p.pages))
	for i, x := range p.pages {
		frames[i] = x.frame
	}
	limited, cancel := context.WithTimeout(p.ctx, d.cfg.InferTimeout)
	defer cancel()
	start := time.Now()
	verdicts, err := e.Model.Infer(limited, p.slab, p.first, frames)
	if err != nil {
		if a := asModelError(err).Action; p.ctx.Err() == nil && a >= 0 && int(a) < len(d.failed) {
			d.failed[a].Add(1)
		}
		return nil, err
	}
	d.took.Store(int64(time.Since(start)))
	if len(verdicts) != len(p.pages) {
		return nil, &ModelError{Action: ActionStop, Message: fmt.Sprintf("the model gave %d answers for %d pages", len(verdicts), len(p.pages))}
	}
	return verdicts, nil
}

// patience is the wait between tries of one batch: doubling with jitter from
// 20 ms to 2 s, until limit has gone by in such waits; a negative limit never ends.
// What else takes time is not counted: requests, since a server that is slow is not
// away; waiting for a permit; and a time in which no server works, which has that
// limit for itself, unless one follows the other.
type patience struct {
	limit, rested, last time.Duration
}

// pause rests, and tells whether there is patience left.
func (p *patience) pause(ctx context.Context) bool {
	if p.limit > 0 && p.rested > p.limit {
		return false
	}
	p.rest(ctx)
	return true
}

// rest is the wait alone, where the number of tries is what has a limit.
func (p *patience) rest(ctx context.Context) {
	p.last = min(max(2*p.last, 20*time.Millisecond), 2*time.Second)
	d := p.last/2 + rand.N(p.last/2)
	p.rested += d
	pause(ctx, d)
}
