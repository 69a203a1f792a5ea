package orchestrator

import (
	"sync/atomic"
	"time"

	"quire/orchestrator/internal/batch"
)

// counts is Counts that any goroutine may add to.
type counts struct{ done, partial, failed, skipped, cancelled atomic.Int64 }

func (c *counts) add(s Status, n int64) {
	switch s {
	case StatusDone:
		c.done.Add(n)
	case StatusPartial:
		c.partial.Add(n)
	case StatusFailed:
		c.failed.Add(n)
	case StatusSkipped:
		c.skipped.Add(n)
	default:
		c.cancelled.Add(n)
	}
}

func (c *counts) now() Counts {
	return Counts{Done: c.done.Load(), Partial: c.partial.Load(), Failed: c.failed.Load(), Skipped: c.skipped.Load(), Cancelled: c.cancelled.Load()}
}

func add(c *Counts, s Status, n int64) {
	switch s {
	case StatusDone:
		c.Done += n
	case StatusPartial:
		c.Partial += n
	case StatusFailed:
		c.Failed += n
	case StatusSkipped:
		c.Skipped += n
	default:
		c.Cancelled += n
	}
}

// Stats is a snapshot of a Detector.
type Stats struct {
	// Admitted is how many pages of Detect and DetectBatch hold a place in the
	// queue, QueueLimit how many can; Queued is how many of them no worker has
	// taken yet.
	Admitted, QueueLimit, Queued int
	// Filling is how many pages the open batch has, Stalled how many drawn
	// pages wait for a place in one.
	Filling, Stalled int
	// InFlight is how many batches are under way, Window how many may be, at all
	// endpoints together.
	InFlight, Window int
	// Sealed counts batches by what sealed them: "size", "age", "idle",
	// "close". Sizes[n] counts those of n pages.
	Sealed map[string]int64
	Sizes  []int64
	// Endpoints are the servers, in the order in which they came.
	Endpoints []EndpointStats
	// Failed counts the requests that were not answered by what was done about
	// it, the words of Action. Of "bisect", "refresh", "retry", "shrink" and
	// "wait" each is a request that was sent again, or in parts.
	Failed map[string]int64
	// Pages counts all pages that ended.
	Pages Counts
	// Waiting says why everything waits for the server, since when; empty when
	// nothing does. Waited is how long it has in all, this time too.
	Waiting      string
	WaitingSince time.Time
	Waited       time.Duration
	// Stall says what everything waits for when no page has ended for
	// Config.StallAfter, since when; empty while pages end.
	Stall      string
	StallSince time.Time
}

// EndpointStats is a snapshot of one endpoint.
type EndpointStats struct {
	Name  string
	State EndpointState
	// Reason says why it is not up, since when; empty while it is.
	Reason string
	Since  time.Time
	// InFlight is how many requests are at it, Window how many may be.
	InFlight, Window int
	// Pages is how many pages it has answered.
	Pages int64
}

// Stats returns at once, whatever the server does.
func (d *Detector) Stats() Stats {
	b := d.batches.Stats()
	s := Stats{
		Admitted: len(d.admission), QueueLimit: cap(d.admission), Queued: d.work.detectsWaiting(),
		Filling: b.Open, Stalled: b.Waiting, InFlight: b.InFlight, Window: b.Window,
		Sealed: map[string]int64{}, Sizes: b.Sizes, Failed: map[string]int64{}, Pages: d.counts.now(),
	}
	for reason, n := range b.Sealed {
		s.Sealed[batch.Reason(reason).String()] = n
	}
	s.Endpoints = d.fleet.stats()
	for a := ActionShrink; a <= ActionStop; a++ {
		s.Failed[a.String()] = d.failed[a].Load()
	}
	s.Waiting, s.WaitingSince, s.Waited = d.fleet.waits()
	if stall := d.stalled.Load(); stall != nil {
		s.Stall, s.StallSince = stall.reason, stall.since
	}
	return s
}
