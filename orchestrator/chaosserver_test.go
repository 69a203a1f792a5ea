package orchestrator

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// fault is what a server does for a while.
type fault int

const (
	fine     fault = iota
	slowly         // takes ten times as long
	full           // its queue is full
	down           // it dies, and is away
	sick           // fails every request, a blank page too
	flaky          // fails requests by chance, and no blank page
	hangs          // answers nothing
	stops          // has another model
	nonsense       // gives too few answers
)

// spell is a time in which a server has a fault; faultless is when none has any more.
type spell struct {
	from, to time.Duration
	what     fault
}

// server is a fake model with faults.
type server struct {
	*fakeModel
	w       *world
	took    time.Duration
	spells  []spell
	reloads map[time.Duration]int // largest batch from then on
	left    atomic.Bool

	life  chan struct{} // closed when it dies
	back  time.Time     // from a death that a page was to blame for
	lost  map[seenPage]int
	alone int // requests with pages that it has died with too often
}

func (w *world) server(faults ...fault) *server {
	m := &server{fakeModel: newFakeModel(), w: w, took: time.Millisecond + w.span(100*time.Millisecond),
		reloads: map[time.Duration]int{}, life: make(chan struct{}), lost: map[seenPage]int{}}
	m.in.MaxBatch, m.in.Instances, m.in.SharedMemory = 1+w.n(8), 1+w.n(2), w.one(4)
	m.reloads[0] = m.in.MaxBatch
	for range w.n(3) {
		m.reloads[w.span(8*time.Second)] = pick(w, 1+w.n(8), 1+w.n(8), 1<<50) // of which there is no memory for the last
	}
	m.fakeModel.ask, m.ready, m.refresh = m.answer, m.waits, m.reads
	for at := time.Duration(0); len(faults) > 0 && at < faultless-12*time.Second && !w.one(6); {
		from := at + 5*time.Second/2 + w.span(3*time.Second) // longer than the longest pause of a batch
		at = from + w.span(6*time.Second)
		s := spell{from, at, pick(w, faults...)}
		m.spells = append(m.spells, s)
		if s.what == down {
			time.AfterFunc(s.from-w.now(), func() { m.die(0) })
		}
	}
	return m
}

func (m *server) die(away time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.life)
	m.life, m.back = make(chan struct{}), time.Now().Add(away)
}

// state is what fault it has now, and for how long.
func (m *server) state() (fault, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if wait := time.Until(m.back); wait > 0 {
		return down, wait
	}
	now := m.w.now()
	for _, s := range m.spells {
		if s.from <= now && now < s.to {
			return s.what, s.to - now
		}
	}
	return fine, 0
}

// served is its largest batch now.
func (m *server) served() int {
	latest := time.Duration(0)
	for from := range m.reloads {
		if from <= m.w.now() {
			latest = max(latest, from)
		}
	}
	return m.reloads[latest]
}

func (m *server) used(how string) {
	if m.left.Load() {
		m.w.t.Errorf("a server that has left is %s", how)
	}
}

func (m *server) Release(*Slab) { m.used("told of a slab") }

func (m *server) reads(in *Input) error { // with mu held
	m.used("read")
	for _, s := range m.spells {
		if now := m.w.now(); s.what == stops && s.from <= now && now < s.to {
			return &ModelError{Action: ActionStop, Message: "another model"}
		}
	}
	in.MaxBatch = m.served()
	return nil
}

func (m *server) waits(ctx context.Context) error {
	for {
		m.used("waited for")
		what, wait := m.state()
		switch what {
		case stops:
			return &ModelError{Action: ActionStop, Message: "another model"}
		case down, sick, hangs:
		default:
			return slow(time.Millisecond)(ctx, nil)
		}
		if err := slow(wait)(ctx, nil); err != nil {
			return err
		}
	}
}

// Infer looks also at its end whether the pages are those that it began with.
func (m *server) Infer(ctx context.Context, s *Slab, first int, frames []Frame) ([]Verdict, error) {
	m.used("asked")
	defer m.used("asked still")
	pages := s.Bytes[first*s.PageBytes : (first+len(frames))*s.PageBytes]
	before := slices.Clone(pages)
	verdicts, err := m.fakeModel.Infer(ctx, s, first, frames)
	if !bytes.Equal(before, pages) {
		m.w.t.Error("pages were written over while they were asked for")
	}
	for i := range verdicts {
		if m.w.trait(seen(s.Page(first+i))) == faulty {
			verdicts[i] = Verdict{Err: &PageError{Stage: StageInfer, Category: CategoryBadOutput, Message: "not usable"}}
		}
	}
	if what, _ := m.state(); what == nonsense && err == nil {
		return verdicts[1:], nil
	}
	return verdicts, err
}

func (m *server) answer(ctx context.Context, pages []seenPage) error {
	what, _ := m.state()
	m.mu.Lock()
	life, served := m.life, m.served()
	if slices.ContainsFunc(pages, func(p seenPage) bool { return m.lost[p] >= suspicion }) {
		m.alone++
		defer func() { m.mu.Lock(); m.alone--; m.mu.Unlock() }()
	}
	if most := m.w.d.asked.inFlight(m.in); m.running > most || m.alone > 0 && m.running > 1 {
		m.w.t.Errorf("%d requests at once, may be %d, of %d suspects", m.running, most, m.alone)
	}
	m.mu.Unlock()
	has := func(what trait) bool {
		return slices.ContainsFunc(pages, func(p seenPage) bool { return m.w.trait(p) == what })
	}
	took := m.took
	switch {
	case what == slowly:
		took *= 10
	case what == full:
		return &ModelError{Action: ActionShrink, Message: "queue full"}
	case what == down:
		return &ModelError{Action: ActionWait, Message: "refused"}
	case what == hangs:
		return never(ctx, nil)
	case what == stops:
		return &ModelError{Action: pick(m.w, ActionStop, ActionRefresh), Message: "another model"}
	case len(pages) > served:
		return &ModelError{Action: ActionRefresh, Message: "batch too large"}
	}
	if has(deadly) {
		m.w.dead.Add(1)
		time.AfterFunc(took/2, func() { m.die(time.Second) })
	}
	select {
	case <-life:
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range pages {
			m.lost[p]++
		}
		return &ModelError{Action: ActionWait, Lost: true, Message: "EOF"}
	case <-time.After(took):
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case what == flaky && m.w.one(2):
		return &ModelError{Action: pick(m.w, ActionRetry, ActionBisect), Message: "flaky"}
	case what == sick || has(poisonous):
		return &ModelError{Action: ActionBisect, Message: "INTERNAL"}
	}
	return nil
}
