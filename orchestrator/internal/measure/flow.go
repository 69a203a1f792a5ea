package measure

import (
	"sync"
	"time"

	"quire/orchestrator"
)

// Flow is how a detector's pages moved, looked at many times while they did.
type Flow struct {
	// Looks is how often was looked.
	Looks int
	// Full is in how many of them as many requests were at the server as may
	// be, Idle in how many there was none, and Stalled in how many a drawn page
	// waited for a place in a batch.
	Full, Idle, Stalled int
}

// Add is both together.
func (f Flow) Add(g Flow) Flow {
	return Flow{Looks: f.Looks + g.Looks, Full: f.Full + g.Full, Idle: f.Idle + g.Idle, Stalled: f.Stalled + g.Stalled}
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
