package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
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
	d.infer(b, 0, b.Items, d.cfg.Attempts)
	// Whatever happened, nobody waits for a batch that is over.
	for _, p := range b.Items {
		p.cancel()
	}
}

// infer gives each of the pages, which lie in the slab from place first on, its
// result, with at most the given number of attempts that count.
func (d *Detector) infer(b *batch.Batch[*Slab, *page], first int, pages []*page, attempts int) {
	ctx := b.Context
	halves := func(attempts int) {
		mid := len(pages) / 2
		d.infer(b, first, pages[:mid], attempts)
		d.infer(b, first+mid, pages[mid:], attempts)
	}
	waited := patience{limit: d.cfg.ServerWait}
	for attempt := 1; ; {
		if ctx.Err() != nil {
			return
		}
		if len(pages) > d.model.Input().MaxBatch { // a reload may have lowered it
			halves(attempts)
			return
		}
		err := d.ask(ctx, b.Resource, first, pages)
		if err == nil {
			d.window.grow()
			return
		}
		if ctx.Err() != nil {
			return
		}
		var me *ModelError
		if !errors.As(err, &me) {
			me = &ModelError{Action: ActionRetry, Message: err.Error(), Err: err}
		}
		d.log.Debug("a batch failed", "pages", len(pages), "action", me.Action.String(), "err", err)
		switch me.Action {
		case ActionShrink:
			d.window.shrink()
			if !waited.pause(ctx) {
				d.giveUp(pages, CategoryUnavailable, &ServerError{Message: fmt.Sprintf("the server's queue was full for %v: %s", waited.limit, me.Message), Err: err})
				return
			}
		case ActionWait:
			if err := d.server.wait(ctx, me.Message); err != nil {
				d.giveUp(pages, CategoryUnavailable, err)
				return
			}
			if !waited.pause(ctx) {
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
			if len(pages) > 1 {
				halves(attempts)
				return
			}
			// Triton merges requests: the culprit may be another request's page.
			// It counts only when this page failed with nothing beside it.
			b.Alone(func() { err = d.ask(ctx, b.Resource, first, pages) })
			if err == nil || ctx.Err() != nil {
				return
			}
			if !errors.As(err, &me) || me.Action == ActionBisect || attempt >= attempts {
				pages[0].fail(StageInfer, CategoryServer, "the server failed this page: "+me.Message, err)
				return
			}
			attempt++
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

// ask makes one request and ends the pages if it is answered.
func (d *Detector) ask(ctx context.Context, s *Slab, first int, pages []*page) error {
	frames := make([]Frame, len(pages))
	for i, p := range pages {
		frames[i] = p.frame
	}
	ctx, cancel := context.WithTimeout(ctx, d.cfg.InferTimeout)
	defer cancel()
	verdicts, err := d.model.Infer(ctx, s, first, frames)
	if err != nil {
		return err
	}
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

// window is the number of batches in flight: halved when the server's queue is
// full, one more after every full window of answers (additive increase,
// multiplicative decrease, as TCP has it).
type window struct {
	mu       sync.Mutex
	size     int
	max      int
	answered int
	halved   time.Time
	set      func(int)
}

func (w *window) grow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size == w.max {
		return
	}
	if w.answered++; w.answered >= w.size {
		w.answered = 0
		w.size++
		w.set(w.size)
	}
}

// reset begins anew with another limit.
func (w *window) reset(limit int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.size, w.max, w.answered = limit, limit, 0
}

func (w *window) shrink() {
	w.mu.Lock()
	defer w.mu.Unlock()
	// All requests of a window meet the same full queue; that is one event.
	if time.Since(w.halved) < 100*time.Millisecond {
		return
	}
	w.halved, w.answered = time.Now(), 0
	w.size = max(1, w.size/2)
	w.set(w.size)
}

// serverWait lets one batch poll a server that is away, and the others wait for
// what it finds.
type serverWait struct {
	model Model
	limit time.Duration
	log   *slog.Logger
	ctx   context.Context
	polls sync.WaitGroup

	mu     sync.Mutex
	ended  chan struct{} // nil when nobody polls
	since  time.Time
	reason string
	err    error
}

func (s *serverWait) wait(ctx context.Context, reason string) error {
	s.mu.Lock()
	if s.ended == nil {
		s.ended = make(chan struct{})
		s.since, s.reason = time.Now(), reason
		ended := s.ended
		// The log may block; nobody who asks for statistics waits for it.
		s.polls.Go(func() {
			s.log.Warn("waiting for the server", "reason", reason)
			s.poll(s.ctx, ended)
		})
	}
	ended := s.ended
	s.mu.Unlock()
	select {
	case <-ended:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *serverWait) poll(ctx context.Context, ended chan struct{}) {
	if s.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.limit)
		defer cancel()
	}
	err := s.model.WaitReady(ctx)
	s.mu.Lock()
	away := time.Since(s.since).Round(time.Millisecond)
	s.err = nil
	if err != nil {
		s.err = &ServerError{Message: fmt.Sprintf("the server was away for %v (%s): start it and run the same command again", s.limit, s.reason), Err: err}
		var me *ModelError
		if errors.As(err, &me) {
			s.err = &ServerError{Message: me.Message, Err: err}
		}
	}
	s.ended, s.reason, s.since = nil, "", time.Time{}
	close(ended)
	s.mu.Unlock()
	if err == nil {
		s.log.Warn("the server is back", "after", away)
	}
}

// waiting tells since when and why everything waits for the server.
func (s *serverWait) waiting() (reason string, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason, s.since
}
