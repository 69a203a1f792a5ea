package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A server that is there and does nothing is not asked for ever: in the end whoever
// waits is told what it says.
func TestServerThatNeverDoes(t *testing.T) {
	path := file(t, "a.pdf")
	for _, tt := range []struct {
		action Action
		says   string
	}{
		{ActionWait, "the server says that it is ready and fails every request for 1m0s: no"},
		{ActionShrink, "the server's queue was full for 1m0s: no"},
		{ActionRefresh, "no"},
	} {
		t.Run(tt.action.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newFakeModel()
				m.ask = func(context.Context, []seenPage) error { return &ModelError{Action: tt.action, Message: "no"} }
				d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}, ServerWait: time.Minute})
				defer d.Close()
				start := time.Now()
				_, err := d.Detect(t.Context(), path, 1)
				var pe *PageError
				if took := time.Since(start); !errors.As(err, &pe) || pe.Category != CategoryUnavailable || pe.Message != tt.says || took < time.Minute || took > time.Minute+3*time.Second {
					t.Errorf("after %v: %v", took, err)
				}
			})
		})
	}
}

// Without a limit it is waited for, whatever it says.
func TestServerIsWaitedForForEver(t *testing.T) {
	path := file(t, "a.pdf")
	for _, action := range []Action{ActionWait, ActionShrink, ActionRefresh} {
		synctest.Test(t, func(t *testing.T) {
			m, start := newFakeModel(), time.Now()
			m.ask = func(context.Context, []seenPage) error {
				if time.Since(start) > time.Hour {
					return nil
				}
				return &ModelError{Action: action, Message: "no"}
			}
			d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}, ServerWait: -1})
			defer d.Close()
			if _, err := d.Detect(t.Context(), path, 1); err != nil {
				t.Errorf("%s, after %v: %v", action, time.Since(start), err)
			}
		})
	}
}

// A page that no answer came to in time says so.
func TestNoAnswerInTime(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = never
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}, Attempts: 2, InferTimeout: time.Second})
		defer d.Close()
		start := time.Now()
		_, err := d.Detect(t.Context(), path, 1)
		var pe *PageError
		if took := time.Since(start); !errors.As(err, &pe) || pe.Category != CategoryTimeout || !strings.HasPrefix(pe.Message, "no answer in 2 attempts") || took > 3*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// A server that comes back as what cannot be used is not waited for.
func TestServerThatComesBackAsAnother(t *testing.T) {
	path := file(t, "a.pdf")
	for _, action := range []Action{ActionStop, ActionBisect} { // whatever is told of it
		synctest.Test(t, func(t *testing.T) {
			m := newFakeModel()
			m.ask = func(context.Context, []seenPage) error { return &ModelError{Action: ActionWait, Message: "refused"} }
			m.ready = func(ctx context.Context) error {
				_ = slow(5*time.Second)(ctx, nil)
				return &ModelError{Action: action, Message: "the model is another one"}
			}
			d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 9}}, InFlight: 9})
			defer d.Close()
			start := time.Now()
			var calls sync.WaitGroup
			for page := range 9 {
				calls.Go(func() {
					_, err := d.Detect(t.Context(), path, page+1)
					var pe *PageError
					if took := time.Since(start); !errors.As(err, &pe) || pe.Message != "the model is another one" || took != 5*time.Second {
						t.Errorf("%s, after %v: %v", action, took, err)
					}
				})
				time.Sleep(100 * time.Millisecond)
			}
			calls.Wait()
		})
	}
}

// Each time that everybody waits for the server is told of, and counted.
func TestEachOutageIsTold(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		server := newMortal(func([]seenPage) bool { return false })
		d := newDetector(t, Config{Model: server.model(), Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for n := range 3 {
			server.die()
			if _, err := d.Detect(t.Context(), path, 1); err != nil {
				t.Error(err)
			}
			if waited, want := d.Stats().Waited, time.Duration(n+1)*server.away; waited != want {
				t.Errorf("after %d outages: waited %v, want %v", n+1, waited, want)
			}
		}
		d.Close()
		if away, back := strings.Count(log.String(), "waiting for the server"), strings.Count(log.String(), "the server is back"); away != 3 || back != 3 {
			t.Errorf("three outages, told of %d and %d times:\n%s", away, back, log.String())
		}
	})
}

// aFleet is so many endpoints that answer blank pages as ready says.
func aFleet(t *testing.T, n int, ready func(context.Context) error) (*fleet, []*endpoint) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := newFleet(ctx, time.Hour, slog.New(slog.DiscardHandler), func(int) {})
	for i := range n {
		m := newFakeModel()
		m.ready = ready
		f.add(Endpoint{Name: fmt.Sprint(i), Model: m}, 2)
	}
	t.Cleanup(func() { cancel(); f.close() })
	return f, f.members()
}

// state is that of an endpoint now.
func (f *fleet) state(e *endpoint) EndpointState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return e.state
}

// An endpoint that somebody waits to be alone at is everybody's again when that one
// gives up, and when it was away meanwhile.
func TestAloneThatComesToNothing(t *testing.T) {
	for _, how := range []string{"gives up", "goes away"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, all := aFleet(t, 2, slow2(time.Minute))
				e, other := all[0], all[1]
				f.away(other, "it is not there")
				one := wanted{}
				if got, err := f.acquire(t.Context(), 1, one); got != e || err != nil {
					t.Fatalf("%+v, %v", got, err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				alone := wanted{alone: true}
				got := make(chan *endpoint, 1)
				go func() {
					x, _ := f.acquire(ctx, 1, alone)
					got <- x
				}()
				synctest.Wait()
				if how == "gives up" {
					cancel()
					if x := <-got; x != nil {
						t.Errorf("it was given %s", x.Name)
					}
				} else {
					time.Sleep(30 * time.Second)
					f.away(e, "it is not there either")
					if x := <-got; x != other { // which is back first
						t.Errorf("it was given %+v", x)
					}
					f.settle(other, 1, alone, true)
					time.Sleep(time.Minute)
					f.away(other, "it is not there again")
				}
				f.settle(e, 1, one, true)
				again, stop := context.WithTimeout(t.Context(), time.Second)
				defer stop()
				if x, err := f.acquire(again, 1, one); x != e {
					t.Errorf("then nobody may ask it: %+v, %v", x, err)
				}
			})
		})
	}
}

// slow2 is a ready that takes d, or as long as ctx lives.
func slow2(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error { return slow(d)(ctx, nil) }
}

// What is known to be worse of an endpoint stays: one whose model is another is not
// taken back because it is there.
func TestWorseStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, all := aFleet(t, 2, slow2(time.Minute))
		if !f.refuse(all[0], "another model") {
			t.Error("with two, one is not refused")
		}
		f.away(all[0], "it is not there")
		f.doubt(all[0], "it fails")
		if s := f.state(all[0]); s != EndpointRefused {
			t.Errorf("it is %s", s)
		}
		f.away(all[1], "it is not there")
		f.doubt(all[1], "it fails")
		if s := f.state(all[1]); s != EndpointAway {
			t.Errorf("it is %s", s)
		}
	})
	// Also when that is found out while it is asked for a blank page.
	synctest.Test(t, func(t *testing.T) {
		f, all := aFleet(t, 2, slow2(time.Minute))
		f.away(all[0], "it is not there")
		time.Sleep(50 * time.Second)
		f.refuse(all[0], "another model")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := f.state(all[0]); s != EndpointRefused {
			t.Errorf("it is %s", s)
		}
	})
}

// An endpoint that fails what others answer rests longer each time, until it has
// answered; as long as there is another.
func TestRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, all := aFleet(t, 2, nil)
		e := all[0]
		rests := func(want ...time.Duration) {
			t.Helper()
			for _, d := range want {
				start := time.Now()
				f.strike(e, "INTERNAL")
				for f.state(e) != EndpointUp {
					time.Sleep(10 * time.Millisecond)
					synctest.Wait()
				}
				if took := time.Since(start); took < d || took > d+20*time.Millisecond {
					t.Errorf("it rested %v, want %v", took, d)
				}
			}
		}
		rests(time.Second, 2*time.Second, 4*time.Second, 8*time.Second, 16*time.Second, 30*time.Second, 30*time.Second)
		f.away(e, "blank pages are all that it can") // and rests once more for that
		for f.state(e) != EndpointUp {
			time.Sleep(time.Second)
		}
		x, err := f.acquire(t.Context(), 1, wanted{avoid: all[1]})
		if x != e || err != nil {
			t.Fatalf("%+v, %v", x, err)
		}
		f.settle(e, 1, wanted{}, true)
		// It has answered, so that it is away no longer than it is not there.
		f.away(e, "it is not there")
		synctest.Wait()
		if s := f.state(e); s != EndpointUp {
			t.Errorf("it is %s", s)
		}
		rests(time.Second, 2*time.Second, 4*time.Second, 8*time.Second, 16*time.Second)
		// When it is needed it is asked all the same.
		f.strike(e, "INTERNAL")
		f.mu.Lock()
		f.takeOut(all[1], EndpointRefused, "another model")
		f.mu.Unlock()
		time.Sleep(restStep + time.Millisecond)
		synctest.Wait()
		if s := f.state(e); s != EndpointUp {
			t.Errorf("with no other it is %s", s)
		}
	})
}

// An endpoint that has failed and then answers no blank page either is away.
func TestCheckedIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, all := aFleet(t, 2, slow2(time.Minute))
		f.doubt(all[0], "INTERNAL")
		time.Sleep(quietCheck - time.Millisecond)
		if s := f.state(all[0]); s != EndpointChecked {
			t.Errorf("it is %s", s)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if s := f.state(all[0]); s != EndpointAway {
			t.Errorf("after %v it is %s", quietCheck, s)
		}
	})
}

// A server whose model has become another one and answers with it is not asked
// until it is the right one again.
func TestRefusedIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var s servers
		a, _ := s.model("a", slow(100*time.Millisecond))
		b, bm := s.model("b", slow(100*time.Millisecond))
		bm.refresh = func(*Input) error {
			if x := time.Since(start); x > time.Second && x < 100*time.Second {
				return &ModelError{Action: ActionStop, Message: "the model was changed while in use: score threshold"}
			}
			return nil
		}
		runAll(t, Config{Endpoints: []Endpoint{a, b}}, 400, 100, 0)
		before, after := 0, 0
		for _, r := range s.log {
			switch x := r.at.Sub(start); {
			case r.server == "b" && x < 6*time.Second:
				before++
			case r.server == "b" && x < 100*time.Second:
				t.Errorf("it was asked after %v", x)
			case r.server == "b":
				after++
			}
		}
		if before == 0 || after == 0 {
			t.Errorf("it was asked %d times before and %d times after", before, after)
		}
	})
}

func TestServerAwayPausesAndGoesOn(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		start := time.Now()
		away := func() bool { s := time.Since(start); return s > time.Second && s < 6*time.Second }
		m.ask = func(ctx context.Context, pages []seenPage) error {
			if away() {
				return &ModelError{Action: ActionWait, Message: "connection refused"}
			}
			return slow(10*time.Millisecond)(ctx, pages)
		}
		m.ready = func(ctx context.Context) error {
			for away() {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 2000}}, Workers: 2, Attempts: 1})
		defer d.Close()
		saw := make(chan string, 1)
		go func() {
			time.Sleep(3 * time.Second)
			saw <- d.Stats().Waiting
		}()
		for page := 1; page <= 200; page++ {
			if _, err := d.Detect(t.Context(), path, page); err != nil {
				t.Errorf("page %d: %v", page, err)
			}
		}
		if reason := <-saw; reason != "connection refused" {
			t.Errorf("while waiting, Stats says %q", reason)
		}
		if reason := d.Stats().Waiting; reason != "" {
			t.Errorf("still waiting: %q", reason)
		}
	})
}

func TestServerAwayForGood(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = func(context.Context, []seenPage) error { return &ModelError{Action: ActionWait, Message: "refused"} }
		m.ready = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 9}}, ServerWait: 2 * time.Minute})
		defer d.Close()
		start := time.Now()
		_, err := d.Detect(t.Context(), path, 1)
		if pe, ok := errors.AsType[*PageError](err); !ok || pe.Category != CategoryUnavailable || time.Since(start) != 2*time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// TestSlowIsNotAway: how long one waits for a server that is away is no limit for
// one that takes its time.
func TestSlowIsNotAway(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(50 * time.Second)
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}, ServerWait: time.Second})
		defer d.Close()
		start := time.Now()
		if _, err := d.Detect(t.Context(), path, 1); err != nil || time.Since(start) < 50*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
	// Nor is the time of a request that failed.
	reset := &ModelError{Action: ActionWait, Message: "connection reset"}
	for _, first := range []error{context.DeadlineExceeded, reset} {
		synctest.Test(t, func(t *testing.T) {
			m, asked := newFakeModel(), 0
			m.ask = func(ctx context.Context, pages []seenPage) error {
				if pages[0].page == 0 {
					return nil // a blank one
				}
				asked++
				switch asked {
				case 1:
					return first
				case 2:
					_ = slow(40*time.Second)(ctx, pages)
					return reset
				}
				return nil
			}
			d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}, ServerWait: 30 * time.Second})
			defer d.Close()
			if _, err := d.Detect(t.Context(), path, 1); err != nil {
				t.Errorf("after %v: %v", first, err)
			}
		})
	}
}

// TestFullAroundAnOutage: how long a server is away and how long its queue is full are
// not added up; each may take ServerWait.
func TestFullAroundAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		in := func(from, to time.Duration) bool { s := time.Since(start); return s >= from && s < to }
		away := func() bool { return in(1500*time.Millisecond, 10500*time.Millisecond) }
		m := newFakeModel()
		m.ask = func(ctx context.Context, pages []seenPage) error {
			switch {
			case away():
				return &ModelError{Action: ActionWait, Message: "connection refused"}
			case in(900*time.Millisecond, 11500*time.Millisecond):
				return &ModelError{Action: ActionShrink, Message: "Exceeds maximum queue size"}
			}
			return slow(20*time.Millisecond)(ctx, pages)
		}
		m.ready = func(ctx context.Context) error {
			for away() {
				if err := slow(100*time.Millisecond)(ctx, nil); err != nil {
					return err
				}
			}
			return nil
		}
		runAll(t, Config{Model: m, InFlight: 3, ServerWait: 10 * time.Second}, 20, 100, 0)
	})
}

// TestBackAndAwayAgain: a server that is back only until the next request is not
// waited for as if each time were the first.
func TestBackAndAwayAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		m := newFakeModel()
		m.ask = func(context.Context, []seenPage) error {
			return &ModelError{Action: ActionWait, Message: "out of memory"}
		}
		m.ready = func(ctx context.Context) error { return slow(50*time.Second)(ctx, nil) }
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}, ServerWait: 2 * time.Minute})
		defer d.Close()
		_, err := d.Detect(t.Context(), file(t, "a.pdf"), 1)
		pe, ok := errors.AsType[*PageError](err)
		if took := time.Since(start); !ok || pe.Category != CategoryUnavailable || took < 2*time.Minute || took > 5*time.Minute {
			t.Errorf("after %v: %v", took, err)
		}
	})
}
