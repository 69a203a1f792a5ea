package tune

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Bench measures a server. Its methods are called from one goroutine. An error
// ends the search, unless it is an [Infeasible].
type Bench interface {
	// Curve has the server execute batches of each of the sizes, which rise,
	// and tells how long they took. It stops at the first size that the server
	// cannot do.
	Curve(ctx context.Context, sizes []int) (Curve, error)
	// Measure has the server serve, and quire feed it, as s says, and takes one
	// window under the load.
	Measure(ctx context.Context, s Settings, load Load) (Window, error)
	// Rendering measures how many pages a second this machine draws while the
	// server does nothing.
	Rendering(ctx context.Context) (pagesPerSecond float64, err error)
}

// Infeasible is settings that the server cannot serve: they do not load, do not
// fit into memory, or fail the pages.
type Infeasible struct {
	Reason string
	Err    error // what the reason is made of, or nil
}

func (e *Infeasible) Error() string { return e.Reason }
func (e *Infeasible) Unwrap() error { return e.Err }

func infeasible(err error) bool {
	_, no := errors.AsType[*Infeasible](err)
	return no
}

// LoadKind says where the pages of a load come from.
type LoadKind int

// The kinds of load.
const (
	// Saturated: pages that are drawn already, as fast as they are taken.
	Saturated LoadKind = iota
	// Pipeline: pages that are being drawn, as in a run.
	Pipeline
	// Open: pages that are drawn already, at a rate of their own, whether the
	// server keeps up or not.
	Open
)

func (k LoadKind) String() string {
	return [...]string{"server alone", "with rendering", "open loop"}[k]
}

// Load is what a window is taken under.
type Load struct {
	Kind LoadKind
	// Rate is in pages a second, for Open; else 0.
	Rate float64
}

// Window is one measurement.
type Window struct {
	// PagesPerSecond counts pages that were answered.
	PagesPerSecond float64
	// P50, P95 and P99 are of a page, from when it has its place in a request
	// (with an Open load: from when it was due) to its answer.
	P50, P95, P99 time.Duration
	// QueueShare is the part of the server's time for a request that this
	// waited in its queue, 0 to 1.
	QueueShare float64
	// ServerShare is the part of the time from sending a request to its answer
	// that the server accounts for, 0 to 1; the rest is transport.
	ServerShare float64
	// Executed are the batches that the server ran, by size, smallest first.
	Executed []Executed
	// GPUUtilization is 0 to 1, GPUMemory is in bytes; both negative when the
	// server does not tell.
	GPUUtilization float64
	GPUMemory      int64
}

// Executed counts executions of one batch size.
type Executed struct {
	Size  int   `json:"size"`
	Count int64 `json:"count"`
}

// Curve is compute time against batch size.
type Curve struct {
	Points []Point
	// Stopped says why larger batches were not tried; empty when all were.
	Stopped string
}

// compute is what a batch of the size takes; 0 when that was not measured.
func (c Curve) compute(size int) time.Duration {
	for _, p := range c.Points {
		if p.Size == size {
			return p.Compute
		}
	}
	return 0
}

// within is the largest batch that takes at most the time; 0 when there is none.
func (c Curve) within(most time.Duration) int {
	for _, p := range slices.Backward(c.Points) {
		if p.Compute <= most {
			return p.Size
		}
	}
	return 0
}

// best is the best rate; 0 when nothing was measured.
func (c Curve) best() (best float64) {
	for _, p := range c.Points {
		best = max(best, p.rate())
	}
	return best
}

// smallest is the smallest batch that computes at a rate; 0 when there is none.
func (c Curve) smallest(rate float64) int {
	for _, p := range c.Points {
		if p.rate() >= rate {
			return p.Size
		}
	}
	return 0
}

// Point is one batch size of a curve.
type Point struct {
	Size int
	// Compute is what the server computed for one batch, input and output
	// included.
	Compute time.Duration
}

// rate is how many pages a second one instance can compute at this size.
func (p Point) rate() float64 { return float64(p.Size) / p.Compute.Seconds() }
