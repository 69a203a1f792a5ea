package orchestrator

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestDetectCancelledFreesItsPlaceAtOnce(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = never
		r := &fakeRenderer{pages: map[string]int{"a.pdf": 100}}
		d := newDetector(t, Config{Model: m, Renderer: r, Batch: 1, InFlight: 1, Queue: 5, Workers: 1, InferTimeout: time.Hour, ServerWait: -1})
		// In flight, in the open batch, waiting for a place in one, and queued.
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 5)
		for page := 1; page <= 5; page++ {
			go func() {
				_, err := d.Detect(ctx, path, page)
				errs <- err
			}()
			synctest.Wait()
		}
		if _, err := d.TryDetect(t.Context(), path, 6); !errors.Is(err, ErrBusy) {
			t.Fatalf("TryDetect with a full queue: %v", err)
		}
		if s := d.Stats(); s.Admitted != 5 || s.InFlight != 1 || s.Filling != 1 || s.Stalled != 1 || s.Queued != 2 {
			t.Errorf("%+v", s)
		}
		start := time.Now()
		cancel()
		for range 5 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled call: %v", err)
			}
		}
		synctest.Wait()
		if s := d.Stats(); time.Since(start) != 0 || s.Admitted != 0 || s.InFlight != 0 || s.Filling != 0 || s.Stalled != 0 || s.Queued != 0 {
			t.Errorf("after %v: %+v", time.Since(start), s)
		}
		m.mu.Lock()
		m.ask = nil
		m.mu.Unlock()
		if got, err := d.TryDetect(t.Context(), path, 7); err != nil || got.Regions[0].ClassID != 7 {
			t.Errorf("the next call: %+v, %v", got, err)
		}
		d.Close()
		d.Close()
		if _, err := d.Detect(t.Context(), path, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("Detect after Close: %v", err)
		}
		if r.live != 0 {
			t.Errorf("%d workers left", r.live)
		}
	})
}

// Of two pages that were in one batch one is answered, and the other one never;
// when that is cancelled, it is asked for no more and holds nothing up.
func TestCancelledPageIsAskedNoMore(t *testing.T) {
	path := file(t, "a.pdf")
	refuse := func(context.Context, []seenPage) error {
		return &ModelError{Action: ActionShrink, Message: "Exceeds maximum queue size"}
	}
	fail := func(context.Context, []seenPage) error {
		time.Sleep(5 * time.Second)
		return &ModelError{Action: ActionBisect, Message: "INTERNAL"}
	}
	for _, tt := range []struct {
		name  string
		stuck int
		ask   func(context.Context, []seenPage) error // nil: the server is away for 5 s
	}{
		{"refused, and the last", 2, refuse}, {"refused, and another one behind it", 1, refuse}, {"not answered, and the last", 2, never},
		{"failed, and another one behind it", 1, fail}, {"waiting for the server, and another one behind it", 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d *Detector
				m := newFakeModel()
				m.ready = func(context.Context) error { time.Sleep(5 * time.Second); return nil }
				m.ask = func(ctx context.Context, pages []seenPage) error {
					switch {
					case len(pages) > 1:
						if tt.ask == nil {
							d.fleet.away(d.fleet.members()[0], "connection refused")
						}
						return &ModelError{Action: ActionBisect, Message: "INTERNAL"}
					case pages[0].page == tt.stuck && tt.ask != nil:
						return tt.ask(ctx, pages)
					}
					return nil
				}
				r := &fakeRenderer{pages: map[string]int{"a.pdf": 9}, draw: func(context.Context, string, int) error {
					time.Sleep(time.Millisecond)
					return nil
				}}
				d = newDetector(t, Config{Model: m, Renderer: r, Batch: 2, InFlight: 1, Workers: 1, InferTimeout: time.Hour, ServerWait: time.Hour})
				defer d.Close()
				stuck, cancel := context.WithCancel(t.Context())
				var group sync.WaitGroup
				for page := 1; page <= 2; page++ {
					group.Go(func() {
						ctx, want := t.Context(), error(nil)
						if page == tt.stuck {
							ctx, want = stuck, context.Canceled
						}
						if _, err := d.Detect(ctx, path, page); !errors.Is(err, want) {
							t.Errorf("page %d: %v, want %v", page, err, want)
						}
					})
					synctest.Wait()
				}
				time.Sleep(3 * time.Second)
				cancel()
				synctest.Wait()
				if n := d.Stats().InFlight; n != 0 && tt.stuck == 2 {
					t.Errorf("%d batches are under way, and nobody waits for a page", n)
				}
				asked := len(m.sizes())
				if r, err := d.Detect(t.Context(), path, 3); err != nil || r.Regions[0].ClassID != 3 {
					t.Errorf("the next page: %+v, %v", r, err)
				}
				group.Wait()
				if slices.ContainsFunc(m.requests[asked:], func(pages []seenPage) bool { return pages[0].page == tt.stuck }) {
					t.Error("the page was asked for after it was cancelled")
				}
				if sizes := m.sizes(); sizes[0] != 2 {
					t.Errorf("the pages did not share a request: %v", sizes)
				}
			})
		})
	}
}

// A page that is cancelled while the server fails it is not asked alone: that would
// keep the server for it until everything else there is answered.
func TestCancelledPageDrainsNothing(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = func(ctx context.Context, pages []seenPage) error {
			switch {
			case pages[0].page >= 3:
				return slow(30*time.Second)(ctx, pages)
			case pages[0].page == 1:
				time.Sleep(5 * time.Second)
				return &ModelError{Action: ActionBisect, Message: "INTERNAL"}
			}
			return nil
		}
		r := &fakeRenderer{pages: map[string]int{"a.pdf": 9}, draw: func(context.Context, string, int) error {
			time.Sleep(time.Millisecond)
			return nil
		}}
		d := newDetector(t, Config{Model: m, Renderer: r, Batch: 2, InFlight: 2, Workers: 1})
		defer d.Close()
		gone, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var group sync.WaitGroup
		detect := func(ctx context.Context, page int, want error) {
			group.Go(func() {
				if _, err := d.Detect(ctx, path, page); !errors.Is(err, want) {
					t.Errorf("page %d: %v, want %v", page, err, want)
				}
				if took := time.Since(start); page == 2 && took.Round(time.Second) != 10*time.Second {
					t.Errorf("the page beside it was answered after %v", took)
				}
			})
			synctest.Wait()
		}
		detect(gone, 1, context.Canceled)
		detect(t.Context(), 2, nil)
		detect(t.Context(), 3, nil)
		detect(t.Context(), 4, nil)
		time.Sleep(7 * time.Second) // it is asked without the other one since 5 s
		cancel()
		group.Wait()
	})
}
