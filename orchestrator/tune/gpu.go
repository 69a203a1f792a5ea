package tune

import (
	"context"
	"sync"
	"time"

	"quire/tritonclient/metrics"
)

// gpu is the use of a server's GPUs over a window: the mean utilization of the
// busiest, 0 to 1, and the most memory on all, in bytes; both negative when
// nobody tells.
type gpu struct {
	utilization float64
	memory      int64
	looks       int
}

// lookEvery is about how often servers bring these numbers up to date.
const lookEvery = 500 * time.Millisecond

// watchGPU looks at the GPUs now and then while do runs, the warm-up left out,
// and once at the end where that was too short.
func watchGPU(ctx context.Context, read func(context.Context) (metrics.Metrics, error), warm time.Duration, do func()) gpu {
	seen := gpu{utilization: -1, memory: -1}
	if read == nil {
		do()
		return seen
	}
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for from := time.Now().Add(warm); ; {
			select {
			case <-stop:
				return
			case now := <-t.C:
				if !now.Before(from) {
					seen.look(read(ctx))
				}
			}
		}
	})
	do()
	close(stop)
	watcher.Wait()
	if seen.looks == 0 {
		seen.look(read(ctx))
	}
	return seen
}

// look adds what was read to the means.
func (g *gpu) look(m metrics.Metrics, err error) {
	if err != nil || len(m.GPUs) == 0 {
		return
	}
	busiest, memory := 0.0, int64(0)
	for _, one := range m.GPUs {
		busiest, memory = max(busiest, one.Utilization), memory+one.MemoryUsed
	}
	g.looks++
	g.memory = max(g.memory, memory)
	if g.looks == 1 {
		g.utilization = busiest
	} else {
		g.utilization += (busiest - g.utilization) / float64(g.looks)
	}
}
