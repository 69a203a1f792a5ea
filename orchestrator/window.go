package orchestrator

import "time"

// window is the number of requests at one endpoint: halved when its queue is
// full, one more after every full window of answers (additive increase,
// multiplicative decrease, as TCP has it). Its methods tell whether the size has
// changed.
type window struct {
	size, max int
	answered  int
	halved    time.Time
}

func newWindow(limit int) window { return window{size: limit, max: limit} }

func (w *window) grow() bool {
	if w.size == w.max {
		return false
	}
	if w.answered++; w.answered < w.size {
		return false
	}
	w.answered = 0
	w.size++
	return true
}

func (w *window) shrink() bool {
	// All requests of a window meet the same full queue; that is one event.
	if time.Since(w.halved) < 100*time.Millisecond {
		return false
	}
	w.halved, w.answered = time.Now(), 0
	w.size = max(1, w.size/2)
	return true
}
