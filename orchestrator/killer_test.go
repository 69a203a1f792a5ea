package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// mortal is a server, shared by fake models, that dies of some pages: everything
// that is under way then is lost, and it is back after a while.
type mortal struct {
	took, away time.Duration
	kills      func(pages []seenPage) bool

	mu     sync.Mutex
	life   chan struct{} // closed at its end
	back   time.Time
	deaths int
}

func newMortal(kills func([]seenPage) bool) *mortal {
	return &mortal{took: 20 * time.Millisecond, away: 3 * time.Second, kills: kills, life: make(chan struct{})}
}

func (s *mortal) die() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.back) {
		return
	}
	close(s.life)
	s.life, s.back = make(chan struct{}), time.Now().Add(s.away)
	s.deaths++
}

// died is how often it has.
func (s *mortal) died() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deaths
}

// model is one client's view of it.
func (s *mortal) model() *fakeModel {
	m := newFakeModel()
	m.ask = func(ctx context.Context, pages []seenPage) error {
		s.mu.Lock()
		life, up := s.life, !time.Now().Before(s.back)
		s.mu.Unlock()
		if !up {
			return &ModelError{Action: ActionWait, Message: "connection refused"}
		}
		if s.kills(pages) {
			time.AfterFunc(s.took/2, s.die)
		}
		select {
		case <-life:
			return &ModelError{Action: ActionWait, Lost: true, Message: "EOF"}
		case <-time.After(s.took):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.ready = func(ctx context.Context) error {
		for {
			s.mu.Lock()
			wait := time.Until(s.back)
			s.mu.Unlock()
			if wait <= 0 {
				return nil
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return m
}

// TestPageThatKillsTheServer: the page is found and fails, with what it did; no
// other does, of this client nor of another that is there all the time.
func TestPageThatKillsTheServer(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			killer := seenPage{hash("d003.pdf"), 1 + rnd.IntN(16)}
			server := newMortal(func(pages []seenPage) bool { return slices.Contains(pages, killer) })
			over := make(chan struct{})
			var others sync.WaitGroup
			path := file(t, "other.pdf")
			others.Go(func() {
				d := newDetector(t, Config{Model: server.model(), Renderer: &fakeRenderer{pages: map[string]int{"other.pdf": 1 << 30}}, Workers: 2})
				defer d.Close()
				for page := 1; ; page += 16 {
					var calls sync.WaitGroup
					for i := range 16 {
						calls.Go(func() {
							if _, err := d.Detect(t.Context(), path, page+i); err != nil {
								t.Errorf("another client's page: %v", err)
							}
						})
					}
					calls.Wait()
					select {
					case <-over:
						return
					default:
					}
				}
			})
			list, count := manyDocs(20, 16)
			d := newDetector(t, Config{Model: server.model(), Renderer: &fakeRenderer{pages: count}, Workers: 2, InFlight: 3})
			sink, sum, err := runDocs(t, d, list)
			close(over)
			others.Wait()
			d.Close()
			if err != nil || sum.Pages != (Counts{Done: 319, Failed: 1}) {
				t.Fatalf("%+v, %v", sum, err)
			}
			r := sink.pages[PageRef{"d003.pdf", killer.page}]
			if r.Status != StatusFailed || r.Err.Stage != StageInfer || r.Err.Category != CategoryCrash {
				t.Errorf("the page ended as %s, %v", r.Status, r.Err)
			}
			// Two that make suspects, one for each half of the 8, one to be sure.
			if died := server.died(); died > 2+3+1 {
				t.Errorf("the server died %d times until the page was found", died)
			}
		})
	}
}

// TestSuspectsAreAskedAlone: what the server may have died of twice is asked with
// nothing else of ours there, or other pages would become suspects with it.
func TestSuspectsAreAskedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		killer := seenPage{hash("d003.pdf"), 5}
		server := newMortal(func(pages []seenPage) bool { return slices.Contains(pages, killer) })
		m, alone := server.model(), 0
		ask := m.ask
		m.ask = func(ctx context.Context, pages []seenPage) error {
			if server.died() >= suspicion && slices.Contains(pages, killer) {
				time.AfterFunc(server.took/4, func() { // it dies after half of that
					m.mu.Lock()
					defer m.mu.Unlock()
					if m.running != 1 {
						t.Errorf("%d pages that the server may have died of are asked beside %d other requests", len(pages), m.running-1)
					}
					alone++
				})
			}
			return ask(ctx, pages)
		}
		runAll(t, Config{Model: m, InFlight: 3}, 20, 16, 1)
		if alone < convict {
			t.Errorf("asked alone %d times", alone)
		}
	})
}

// TestServerThatDiesOfItself: no page is blamed for a server that dies again and
// again, every few seconds, for reasons of its own.
func TestServerThatDiesOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newMortal(func([]seenPage) bool { return false })
		server.took = 200 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		var dying sync.WaitGroup
		dying.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-time.After(server.away + time.Second + rand.N(5*time.Second)):
					server.die()
				case <-ctx.Done():
				}
			}
		})
		list, count := manyDocs(80, 100)
		d := newDetector(t, Config{Model: server.model(), Renderer: &fakeRenderer{pages: count}, Workers: 2, InFlight: 3})
		defer d.Close()
		_, sum, err := runDocs(t, d, list)
		cancel()
		dying.Wait()
		if err != nil || sum.Pages != (Counts{Done: 8000}) || server.died() < 10 {
			t.Errorf("%+v, %v, after %d deaths", sum, err, server.died())
		}
	})
}

// TestServerThatFailsEverything: when a blank page fails as well, the server is
// waited for and no page is blamed, whether it is well again before its blank page is
// given up (InferTimeout) or after that.
func TestServerThatFailsEverything(t *testing.T) {
	for _, long := range []time.Duration{30 * time.Second, 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			sick := func() bool { s := time.Since(start); return s > time.Second && s < long }
			m := newFakeModel()
			m.ask = func(ctx context.Context, pages []seenPage) error {
				if sick() {
					return &ModelError{Action: ActionBisect, Message: "CUDA error: unspecified launch failure"}
				}
				return slow(20*time.Millisecond)(ctx, pages)
			}
			m.ready = func(ctx context.Context) error {
				for sick() {
					if err := slow(time.Second)(ctx, nil); err != nil {
						return err
					}
				}
				return nil
			}
			list, count := manyDocs(20, 100)
			d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: count}, Workers: 2, InFlight: 3})
			defer d.Close()
			time.AfterFunc(3*time.Minute, func() {
				if s := d.Stats(); sick() && s.Waiting == "" {
					t.Errorf("nothing says what is waited for: %+v", s)
				}
			})
			_, sum, err := runDocs(t, d, list)
			if err != nil || sum.Pages != (Counts{Done: 2000}) || time.Since(start) < long {
				t.Errorf("sick for %v: %+v, %v", long, sum, err)
			}
		})
	}
}

// TestAwayTooLong: the run ends with what is finished kept, and says why, when
// the server is back later than ServerWait allows; also when that is less than it
// takes to notice that a server is silent.
func TestAwayTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ silence, wait time.Duration }{{0, 2 * time.Minute}, {20 * time.Second, 2 * time.Second}} {
			server := newMortal(func([]seenPage) bool { return false })
			server.away = time.Hour
			m := server.model()
			ask := m.ask
			m.ask = func(ctx context.Context, pages []seenPage) error {
				err := ask(ctx, pages)
				if err != nil && ctx.Err() == nil && c.silence > 0 {
					if err := slow(c.silence)(ctx, pages); err != nil {
						return err
					}
				}
				return err
			}
			list, count := manyDocs(20, 100)
			var log bytes.Buffer
			d := newDetector(t, Config{
				Model: m, Renderer: &fakeRenderer{pages: count}, Workers: 2, InFlight: 3, ServerWait: c.wait, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			time.AfterFunc(time.Second, server.die)
			start := time.Now()
			_, sum, err := runDocs(t, d, list)
			if se, ok := errors.AsType[*ServerError](err); !ok || time.Since(start) != time.Second+c.silence+c.wait {
				t.Errorf("silent for %v, after %v: %v, %v", c.silence, time.Since(start), se, err)
			}
			if sum.Pages.Done == 0 || sum.Pages.Failed != 0 || sum.Pages.Cancelled == 0 {
				t.Errorf("silent for %v: %+v", c.silence, sum)
			}
			d.Close()
			if n := strings.Count(log.String(), "waiting for the server"); n != 1 {
				t.Errorf("silent for %v: said %d times that it waits: %s", c.silence, n, log.String())
			}
		}
	})
}
