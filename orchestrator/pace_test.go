package orchestrator

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A server that is slower than rendering is never without a request, and holds
// rendering up: what is drawn and not answered is bounded.
func TestSlowServerHoldsRenderingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers, inFlight, batch = 3, 2, 8
		var mu sync.Mutex
		drawn, answered, most, idle := 0, 0, 0, 0
		m := newFakeModel()
		m.ask = func(ctx context.Context, pages []seenPage) error {
			if err := slow(100*time.Millisecond)(ctx, pages); err != nil {
				return err
			}
			m.mu.Lock()
			running := m.running // this one too
			m.mu.Unlock()
			mu.Lock()
			defer mu.Unlock()
			answered += len(pages)
			if running == 1 && answered < 1000-inFlight*batch {
				idle++
			}
			return nil
		}
		source, pages := manyDocs(10, 100)
		r := &fakeRenderer{pages: pages, draw: func(context.Context, string, int) error {
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			drawn++
			most = max(most, drawn-answered)
			return nil
		}}
		d := newDetector(t, Config{Model: m, Renderer: r, Workers: workers, InFlight: inFlight, Batch: batch})
		defer d.Close()
		sum, err := d.Run(t.Context(), Job{Source: source, Sink: newFakeSink(t)})
		if err != nil || sum.Pages.Done != 1000 {
			t.Fatalf("%+v, %v", sum, err)
		}
		if bound := (inFlight+1)*batch + workers; most > bound {
			t.Errorf("%d pages were drawn and not answered; the buffers hold %d", most, bound)
		}
		if idle > 0 {
			t.Errorf("%d times the server ended its last request while pages were waiting", idle)
		}
		// From the second batch on they are full, for waiting makes them so.
		if sizes := m.sizes(); len(sizes) > 1000/batch+3 {
			t.Errorf("%d requests for 1000 pages: %v", len(sizes), sizes)
		}
	})
}

// When rendering is the slower part, pages leave on age, however few they are,
// and rendering is never held up.
func TestSlowRenderingLeavesOnAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const draw, age, infer = 50 * time.Millisecond, 10 * time.Millisecond, 5 * time.Millisecond
		var mu sync.Mutex
		drawn := map[seenPage]time.Time{}
		m := newFakeModel()
		m.ask = func(ctx context.Context, pages []seenPage) error {
			mu.Lock()
			for _, p := range pages {
				if waited := time.Since(drawn[p]); waited > age {
					t.Errorf("page %d waited %v with nothing at the server", p.page, waited)
				}
			}
			mu.Unlock()
			return slow(infer)(ctx, pages)
		}
		source, pages := manyDocs(1, 90)
		r := &fakeRenderer{pages: pages, draw: func(_ context.Context, path string, page int) error {
			time.Sleep(draw)
			mu.Lock()
			defer mu.Unlock()
			drawn[seenPage{hash(path), page}] = time.Now()
			return nil
		}}
		d := newDetector(t, Config{Model: m, Renderer: r, Workers: 3, MaxAge: age})
		defer d.Close()
		start := time.Now()
		if _, err := d.Run(t.Context(), Job{Source: source, Sink: newFakeSink(t)}); err != nil {
			t.Fatal(err)
		}
		// Pieces of 16 pages leave two of three workers without work at the end.
		if took, want := time.Since(start), 32*draw+age+infer; took > want {
			t.Errorf("90 pages on 3 workers took %v, want at most %v", took, want)
		}
		if n := d.Stats().Sealed["age"]; n < 25 {
			t.Errorf("%d batches left on age: %v", n, d.Stats().Sealed)
		}
	})
}

// A window that a full queue has halved grows by one for each window of answers
// once the queue has room.
func TestWindowComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 12
		room := 2
		m := newFakeModel()
		m.in.MaxBatch = 1
		var d *Detector
		var widths []int
		m.ask = func(ctx context.Context, pages []seenPage) error {
			m.mu.Lock()
			over := m.running > room
			if len(m.requests) == 500 {
				room = 100
			}
			widths = append(widths, d.Stats().Window)
			m.mu.Unlock()
			if over {
				return &ModelError{Action: ActionShrink, Message: "Exceeds maximum queue size"}
			}
			return slow(20*time.Millisecond)(ctx, pages)
		}
		source, pages := manyDocs(1, 1500)
		d = newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: pages}, Workers: 2, InFlight: limit, MaxAge: -1, Attempts: 1})
		defer d.Close()
		sum, err := d.Run(t.Context(), Job{Source: source, Sink: newFakeSink(t)})
		if err != nil || sum.Pages.Done != 1500 {
			t.Fatalf("%+v, %v", sum, err)
		}
		low := limit
		for _, w := range widths[:500] {
			low = min(low, w)
		}
		if low > 2 {
			t.Errorf("the window never went below %d beside a queue of 2", low)
		}
		if last := widths[len(widths)-1]; last != limit {
			t.Errorf("at the end the window was %d, want %d", last, limit)
		}
		for i := 501; i < len(widths); i++ {
			if widths[i] < widths[i-1] {
				t.Errorf("request %d: the window went from %d to %d though the queue had room", i, widths[i-1], widths[i])
			} else if widths[i] > widths[i-1]+1 {
				t.Errorf("request %d: the window jumped from %d to %d", i, widths[i-1], widths[i])
			}
		}
	})
}
