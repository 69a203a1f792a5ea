package orchestrator

import (
	"sync"
	"time"
)

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
