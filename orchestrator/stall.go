package orchestrator

import (
	"fmt"
	"sync"
	"time"
)

// stage is what somebody is at, the last on a page's way first: what stands there
// holds up everything before it.
type stage int

const (
	writing stage = iota
	asking
	drawing
	opening
	starting
	stages
)

// doings is who is at what. It is a few entries long: one for each worker, each
// batch in flight and each run.
type doings struct {
	mu sync.Mutex
	m  map[*doing]struct{}
}

// doing is one thing that somebody is at.
type doing struct {
	all   *doings
	stage stage
	since time.Time
	ref   PageRef // the page or document; of a batch the first page; of a start none
	pages int     // of a batch

	trouble string // of a batch: why it was asked again; guarded by all.mu
}

// begin notes that something begins; end must follow.
func (d *doings) begin(s stage, ref PageRef, pages int) *doing {
	x := &doing{all: d, stage: s, since: time.Now(), ref: ref, pages: pages}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil {
		d.m = map[*doing]struct{}{}
	}
	d.m[x] = struct{}{}
	return x
}

func (x *doing) end() {
	x.all.mu.Lock()
	defer x.all.mu.Unlock()
	delete(x.all.m, x)
}

func (x *doing) meets(trouble string) {
	x.all.mu.Lock()
	defer x.all.mu.Unlock()
	x.trouble = trouble
}

// furthest says what stands furthest on the way, and for how long; empty when
// nothing does.
func (d *doings) furthest(now time.Time) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var oldest [stages]*doing
	var count [stages]int
	trouble := ""
	for x := range d.m {
		count[x.stage]++
		if o := oldest[x.stage]; o == nil || x.since.Before(o.since) {
			oldest[x.stage] = x
		}
		if x.trouble != "" {
			trouble = x.trouble
		}
	}
	for s, x := range oldest {
		if x == nil {
			continue
		}
		took := now.Sub(x.since).Round(time.Second)
		switch stage(s) {
		case writing:
			return fmt.Sprintf("a result to be written, of %s, for %v", x.ref.Path, took)
		case asking:
			text := fmt.Sprintf("the server to answer %d requests, the oldest, from %s on, for %v", count[s], x.ref, took)
			if trouble != "" {
				text += "; last trouble: " + trouble
			}
			return text
		case drawing:
			return fmt.Sprintf("a page to be drawn, %s, for %v", x.ref, took)
		case opening:
			return fmt.Sprintf("a document to be opened, %s, for %v", x.ref.Path, took)
		case starting:
			return fmt.Sprintf("a render worker to start, for %v", took)
		}
	}
	return ""
}

// stall is what everything waits for.
type stall struct {
	reason string
	since  time.Time
}

// stallAgain is how often a stall that goes on is said again.
const stallAgain = 10 * time.Minute

// watchStall says what everything waits for when nothing has moved for
// StallAfter though there is something to do.
func (d *Detector) watchStall() {
	t := time.NewTicker(max(d.cfg.StallAfter/12, time.Millisecond))
	defer t.Stop()
	var moved int64
	var said time.Time
	since := time.Now()
	for {
		select {
		case <-t.C:
		case <-d.ctx.Done():
			return
		}
		now := time.Now()
		n, busy := d.moved()
		if n != moved || !busy {
			if s := d.stalled.Swap(nil); s != nil {
				d.log.Warn("it goes on", "after", now.Sub(s.since).Round(time.Second))
			}
			moved, since, said = n, now, time.Time{}
			continue
		}
		if now.Sub(since) < d.cfg.StallAfter {
			continue
		}
		s := &stall{reason: d.holdup(now), since: since}
		d.stalled.Store(s)
		if said.IsZero() || now.Sub(said) >= stallAgain {
			said = now
			d.log.Warn("no page has ended for a while", "since", now.Sub(since).Round(time.Second), "waiting_for", s.reason)
		}
	}
}

// moved counts what has happened, and tells whether there is anything to do.
func (d *Detector) moved() (n int64, busy bool) {
	n, busy = d.counts.now().Ended(), len(d.admission) > 0
	d.runsMu.Lock()
	defer d.runsMu.Unlock()
	for r := range d.runs {
		p := r.progress.Now()
		n, busy = n+p.Listed+p.Opened+p.Documents.Ended(), true
	}
	return n, busy
}

// holdup says what everything waits for.
func (d *Detector) holdup(now time.Time) string {
	if reason, since, _ := d.fleet.waits(); reason != "" {
		return fmt.Sprintf("the server to come back, for %v: %s", now.Sub(since).Round(time.Second), reason)
	}
	if reason := d.doings.furthest(now); reason != "" {
		return reason
	}
	return "the next document to be listed, or the disk to take the results"
}
