package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// asked is a request as a fake server saw it.
type asked struct {
	server string
	pages  []seenPage
	at     time.Time
}

// servers makes fake models that note in what order they are asked.
type servers struct {
	mu  sync.Mutex
	log []asked
}

// model is a server that does what ask does; nil: it takes 20 ms.
func (s *servers) model(name string, ask func(context.Context, []seenPage) error) (Endpoint, *fakeModel) {
	m := newFakeModel()
	if ask == nil {
		ask = slow(20 * time.Millisecond)
	}
	m.ask = func(ctx context.Context, pages []seenPage) error {
		s.mu.Lock()
		s.log = append(s.log, asked{name, pages, time.Now()})
		s.mu.Unlock()
		return ask(ctx, pages)
	}
	return Endpoint{name, m}, m
}

// names are the servers in the order in which they were asked.
func (s *servers) names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.log {
		names = append(names, a.server)
	}
	return names
}

func (s *servers) count(name string) (n int) {
	for _, x := range s.names() {
		if x == name {
			n++
		}
	}
	return n
}

// runAll runs many documents and wants every page done, but for those that are
// to fail.
func runAll(t *testing.T, cfg Config, docs, pages int, fail int64) *fakeSink {
	t.Helper()
	list, count := manyDocs(docs, pages)
	cfg.Renderer = &fakeRenderer{pages: count}
	if cfg.Workers == 0 {
		cfg.Workers = 2
	}
	d := newDetector(t, cfg)
	defer d.Close()
	sink, sum, err := runDocs(t, d, list)
	if want := (Counts{Done: int64(docs*pages) - fail, Failed: fail}); err != nil || sum.Pages != want {
		t.Errorf("%+v, %v; want %+v", sum.Pages, err, want)
	}
	return sink
}

// Small requests go to one server until it can make a whole batch of them.
func TestRunsOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s servers
		var all []Endpoint
		for _, name := range []string{"a", "b", "c"} {
			e, m := s.model(name, nil)
			m.in.MaxBatch, m.in.Batch, m.in.InFlight = 4, 1, 4
			all = append(all, e)
		}
		runAll(t, Config{Endpoints: all}, 10, 24, 0)
		names := s.names()
		changes := 0
		for i := range names[1:] {
			if names[i] != names[i+1] {
				changes++
			}
		}
		// With runs about a quarter of them do, one by one nearly all.
		if most := len(names) / 2; changes > most {
			t.Errorf("of %d requests %d went to another server than the one before, want at most %d: %v", len(names), changes, most, names)
		}
		for _, e := range all {
			if n := s.count(e.Name); n < 70 || n > 90 {
				t.Errorf("%s answered %d of 240", e.Name, n)
			}
		}
	})
}

// The faster server gets more, and each has no more than its own window.
func TestLeastToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s servers
		fast, fm := s.model("fast", slow(10*time.Millisecond))
		slowly, sm := s.model("slow", slow(100*time.Millisecond))
		fm.in.Instances = 3 // a window of 4
		runAll(t, Config{Endpoints: []Endpoint{slowly, fast}}, 20, 100, 0)
		if fm.worst != 4 || sm.worst != 2 {
			t.Errorf("%d and %d requests at once, want 4 and 2", fm.worst, sm.worst)
		}
		if f, l := s.count("fast"), s.count("slow"); f < 10*l {
			t.Errorf("the fast server was asked %d times, the slow one %d times", f, l)
		}
	})
}

// TestFastFailureAttractsNothing: a server that fails at once has always the
// least to do. It is found out, and what it failed is answered by another.
func TestFastFailureAttractsNothing(t *testing.T) {
	for _, action := range []Action{ActionBisect, ActionRetry, ActionWait, ActionStop, ActionShrink} {
		t.Run(action.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s servers
				good, _ := s.model("good", nil)
				// It answers blank pages all the time.
				bad, _ := s.model("bad", func(context.Context, []seenPage) error {
					return &ModelError{Action: action, Message: "no"}
				})
				start := time.Now()
				runAll(t, Config{Endpoints: []Endpoint{bad, good}, Attempts: 2}, 30, 100, 0)
				// 375 batches, two at a time for 20 ms each, take about 4 s.
				took := time.Since(start)
				if n := s.count("bad"); took > 6*time.Second || n > 40 {
					t.Errorf("the bad server was asked %d times, and it took %v", n, took)
				}
			})
		})
	}
}

// A server that is away for a while costs nobody anything while another works,
// and is used again when it is back.
func TestOneOfTwoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s servers
		one, other := newMortal(func([]seenPage) bool { return false }), newMortal(func([]seenPage) bool { return false })
		m, n := one.model(), other.model()
		a, am := s.model("a", m.ask)
		b, _ := s.model("b", n.ask)
		am.ready = m.ready
		list, count := manyDocs(80, 100)
		d := newDetector(t, Config{Endpoints: []Endpoint{a, b}, Renderer: &fakeRenderer{pages: count}, Workers: 2, Attempts: 1})
		defer d.Close()
		var died, back time.Time
		go func() {
			time.Sleep(time.Second)
			died = time.Now()
			one.die()
			time.Sleep(time.Second)
			stats := d.Stats()
			if x := stats.Endpoints[0]; x.State != EndpointAway || x.Reason == "" || x.Since.Before(died) || x.InFlight != 0 {
				t.Errorf("away, it is %+v", x)
			}
			if x := stats.Endpoints[1]; x.State != EndpointUp || x.Window != 2 || stats.Waiting != "" || stats.Window != 2 {
				t.Errorf("the other is %+v, waiting %q, window %d", x, stats.Waiting, stats.Window)
			}
			time.Sleep(one.away)
			back = time.Now()
			if x := d.Stats(); x.Endpoints[0].State != EndpointUp || x.Window != 4 {
				t.Errorf("back, it is %+v", x.Endpoints[0])
			}
		}()
		_, sum, err := runDocs(t, d, list)
		if err != nil || sum.Pages != (Counts{Done: 8000}) {
			t.Errorf("%+v, %v", sum, err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		before, after, answered := 0, 0, int64(0)
		last := died
		for _, r := range s.log {
			switch {
			case r.server == "a" && r.at.Before(died):
				before++
			case r.server == "a" && r.at.After(back):
				after++
			case r.server == "b" && r.at.After(died):
				if r.at.Sub(last) > 50*time.Millisecond {
					t.Errorf("the run paused for %v", r.at.Sub(last))
				}
				last = r.at
			}
		}
		for _, e := range d.Stats().Endpoints {
			answered += e.Pages
		}
		if before < 50 || after < 50 || answered != 8000 {
			t.Errorf("a was asked %d times before, %d times after; %d pages were answered", before, after, answered)
		}
	})
}

// When none works everybody waits, says so, and goes on with the first that is
// back, or gives up at the limit.
func TestNoneWorks(t *testing.T) {
	for _, limit := range []time.Duration{time.Minute, time.Second} {
		t.Run(limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				never := func([]seenPage) bool { return false }
				one, other := newMortal(never), newMortal(never)
				one.away = time.Hour
				var s servers
				m, n := one.model(), other.model()
				a, am := s.model("a", m.ask)
				b, bm := s.model("b", n.ask)
				am.ready, bm.ready = m.ready, n.ready
				list, count := manyDocs(40, 100)
				d := newDetector(t, Config{
					Endpoints: []Endpoint{a, b}, Renderer: &fakeRenderer{pages: count}, Workers: 2, ServerWait: limit, InferTimeout: time.Second,
				})
				defer d.Close()
				var none time.Time
				go func() {
					time.Sleep(time.Second)
					one.die()
					time.Sleep(time.Second)
					other.die()
					none = time.Now()
					time.Sleep(500 * time.Millisecond)
					if x := d.Stats(); x.Waiting == "" || x.Endpoints[0].State != EndpointAway || x.Endpoints[1].State != EndpointAway {
						t.Errorf("with none that works: %+v", x)
					}
				}()
				_, sum, err := runDocs(t, d, list)
				if limit == time.Minute {
					if err != nil || sum.Pages != (Counts{Done: 4000}) {
						t.Errorf("%+v, %v", sum, err)
					}
					return
				}
				if _, ok := errors.AsType[*ServerError](err); !ok || sum.Pages.Done == 0 || sum.Pages.Failed != 0 || time.Since(none) != limit {
					t.Errorf("%v after %v: %+v", err, time.Since(none), sum)
				}
			})
		})
	}
}

// A server whose model is another in mid-run is left out; its pages go to the
// others, and it is used again when its model is the right one. The last one is
// not left out: the run ends.
func TestAnotherModelInMidRun(t *testing.T) {
	for _, both := range []bool{false, true} {
		t.Run(fmt.Sprint(both), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var s servers
				model := func(name string, changes bool) Endpoint {
					wrong := func() bool {
						x := time.Since(start)
						return changes && x > time.Second && x < 40*time.Second
					}
					e, m := s.model(name, func(ctx context.Context, pages []seenPage) error {
						if wrong() {
							return &ModelError{Action: ActionRefresh, Message: "reloaded"}
						}
						return slow(100*time.Millisecond)(ctx, pages)
					})
					m.refresh = func(*Input) error {
						if wrong() {
							return &ModelError{Action: ActionStop, Message: "the model was changed while in use: score threshold"}
						}
						return nil
					}
					return e
				}
				list, count := manyDocs(200, 100)
				d := newDetector(t, Config{Endpoints: []Endpoint{model("a", both), model("b", true)}, Renderer: &fakeRenderer{pages: count}, Workers: 2})
				defer d.Close()
				if !both {
					time.AfterFunc(20*time.Second, func() {
						if x := d.Stats().Endpoints[1]; x.State != EndpointRefused || x.Reason == "" {
							t.Errorf("b is %+v", x)
						}
					})
				}
				_, sum, err := runDocs(t, d, list)
				if both {
					if _, ok := errors.AsType[*ServerError](err); !ok || sum.Pages.Failed != 0 {
						t.Errorf("%+v, %v", sum, err)
					}
					return
				}
				if err != nil || sum.Pages != (Counts{Done: 20000}) {
					t.Errorf("%+v, %v", sum, err)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				again := slices.ContainsFunc(s.log, func(r asked) bool { return r.server == "b" && r.at.Sub(start) > 40*time.Second })
				if !again {
					t.Error("b was not used again when it was right")
				}
			})
		})
	}
}

// A fast server whose queue is full now and then is not left idle, with every batch
// behind the slow one beside it: that one costs no more than its last batch.
func TestFullBesideSlow(t *testing.T) {
	for _, took := range []time.Duration{200 * time.Millisecond, time.Second, 20 * time.Second} {
		for _, nth := range []int{10, 50} {
			synctest.Test(t, func(t *testing.T) {
				run := func(beside bool) time.Duration {
					var s servers
					n := 0
					var m *fakeModel
					fast, m := s.model("fast", func(ctx context.Context, pages []seenPage) error {
						m.mu.Lock()
						n++
						full := n%nth == 0 // another client is there, too
						m.mu.Unlock()
						if full {
							return &ModelError{Action: ActionShrink, Message: "Exceeds maximum queue size"}
						}
						return slow(20*time.Millisecond)(ctx, pages)
					})
					all := []Endpoint{fast}
					if beside {
						slowly, _ := s.model("slow", slow(took))
						all = append(all, slowly)
					}
					start := time.Now()
					runAll(t, Config{Endpoints: all, InFlight: 4}, 80, 100, 0)
					return time.Since(start)
				}
				// While it rests it is not asked, which it is where there is no other.
				if alone, both := run(false), run(true); both > alone*3/2+took {
					t.Errorf("the other takes %v, one in %d finds the queue full: %v with it, %v without", took, nth, both, alone)
				}
			})
		}
	}
}

// A queue that is full is that of one server: its window gets smaller, and not
// that of the other.
func TestQueueFullOnOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s servers
		var m *fakeModel
		full, m := s.model("full", func(ctx context.Context, pages []seenPage) error {
			m.mu.Lock()
			over := m.running > 2
			m.mu.Unlock()
			if over {
				return &ModelError{Action: ActionShrink, Message: "Exceeds maximum queue size"}
			}
			return slow(20*time.Millisecond)(ctx, pages)
		})
		good, gm := s.model("good", nil)
		list, count := manyDocs(20, 100)
		d := newDetector(t, Config{Endpoints: []Endpoint{full, good}, Renderer: &fakeRenderer{pages: count}, Workers: 2, InFlight: 8, Attempts: 1})
		defer d.Close()
		var mu sync.Mutex
		low := 8
		gm.mu.Lock()
		gm.ask = func(ctx context.Context, pages []seenPage) error {
			x := d.Stats().Endpoints
			mu.Lock()
			low = min(low, x[0].Window)
			mu.Unlock()
			if x[1].Window != 8 {
				t.Errorf("the window of the good server is %d", x[1].Window)
			}
			return slow(20*time.Millisecond)(ctx, pages)
		}
		gm.mu.Unlock()
		sum, err := d.Run(t.Context(), Job{Source: list, Sink: newFakeSink(t)})
		if err != nil || sum.Pages != (Counts{Done: 2000}) {
			t.Errorf("%+v, %v", sum, err)
		}
		if low > 2 {
			t.Errorf("the window of the full server never went below %d", low)
		}
	})
}

// A page that fails is asked again with nothing beside it at the server that is
// asked; the others go on meanwhile. It fails when two servers say so.
func TestAloneAtOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := seenPage{hash("d005.pdf"), 7}
		var mu sync.Mutex
		alone, beside, others := 0, 0, 0
		var s servers
		var models [2]*fakeModel
		var all []Endpoint
		for i := range models {
			e, m := s.model(fmt.Sprint(i), func(ctx context.Context, pages []seenPage) error {
				if !slices.Contains(pages, bad) {
					return slow(20*time.Millisecond)(ctx, pages)
				}
				// Half-way, since all requests of this clock may end in the same moment.
				if err := slow(10*time.Millisecond)(ctx, pages); err != nil {
					return err
				}
				if len(pages) == 1 {
					running := func(m *fakeModel) int { m.mu.Lock(); defer m.mu.Unlock(); return m.running }
					mu.Lock()
					if running(models[i]) == 1 {
						alone++
					} else {
						beside++
					}
					others += running(models[1-i])
					mu.Unlock()
				}
				time.Sleep(10 * time.Millisecond)
				return &ModelError{Action: ActionBisect, Message: "INTERNAL"}
			})
			models[i], all = m, append(all, e)
		}
		sink := runAll(t, Config{Endpoints: all, InFlight: 3}, 20, 100, 1)
		r := sink.pages[PageRef{"d005.pdf", 7}]
		if r.Err == nil || r.Err.Category != CategoryServer || alone == 0 || beside > 1 || others == 0 {
			t.Errorf("%+v; the page was asked %d times alone, %d times beside others, while the other server had %d", r.Err, alone, beside, others)
		}
	})
}

// A page that kills every server that it is sent to is found, with no more deaths
// than one server would have died, and no other page fails.
func TestPageThatKillsEveryServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		killer := seenPage{hash("d003.pdf"), 5}
		kills := func(pages []seenPage) bool { return slices.Contains(pages, killer) }
		var s servers
		var all []Endpoint
		var mortals []*mortal
		for i := range 3 {
			server := newMortal(kills)
			m := server.model()
			e, em := s.model(fmt.Sprint(i), m.ask)
			em.ready = m.ready
			all, mortals = append(all, e), append(mortals, server)
		}
		sink := runAll(t, Config{Endpoints: all, InFlight: 2}, 40, 100, 1)
		if r := sink.pages[PageRef{"d003.pdf", 5}]; r.Err == nil || r.Err.Category != CategoryCrash {
			t.Errorf("the page ended as %+v", r)
		}
		deaths := 0
		for _, m := range mortals {
			deaths += m.died()
		}
		if deaths > 2+3+1 {
			t.Errorf("servers died %d times until the page was found", deaths)
		}
	})
}

// Endpoints that cannot be together are refused, with their names.
func TestEndpointsMustFit(t *testing.T) {
	a, b := newFakeModel(), newFakeModel()
	b.in.Height = 3
	for want, all := range map[string][]Endpoint{
		"there is nothing to ask": nil,
		"two endpoints":           {{"x", a}, {"x", a}},
		"the model at y wants 4×3 pixels, that at x 4×2": {{"x", a}, {"y", b}},
		"has no model": {{"x", nil}},
	} {
		_, err := New(Config{Endpoints: all})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
