package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestDetectOneByOneWaitsForNothing(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(30 * time.Millisecond)
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 5}}, Batch: 8, MaxAge: 10 * time.Second, Workers: 2})
		defer d.Close()
		start := time.Now()
		for page := 1; page <= 5; page++ {
			r, err := d.Detect(t.Context(), path, page)
			if err != nil {
				t.Fatal(err)
			}
			if r.Status != StatusDone || r.Regions[0].ClassID != page || r.Regions[0].BBox != [4]float64{0, 0, 100, 200} || r.ImageWidth != 4 {
				t.Fatalf("page %d: %+v", page, r)
			}
		}
		if took := time.Since(start); took != 150*time.Millisecond {
			t.Errorf("5 pages of 30 ms took %v; the batch waited for company that could not come", took)
		}
	})
}

// A worker that always finds a page of the document that it has open takes those
// of others too.
func TestNoPageIsPassedOverForEver(t *testing.T) {
	s := newSchedule()
	add := func(path string) { s.addDetect(&detectTask{doc: Document{Path: path}}) }
	for _, path := range []string{"q", "p", "p", "q", "p", "p"} {
		add(path)
	}
	var taken []int // when those of q were
	for i := range 3 * reach {
		t, _ := s.next(openDocument{path: "p"})
		if t.detect.doc.Path == "q" {
			taken = append(taken, i)
		}
		add("p")
	}
	// The second one is first in the queue from then on, and starts anew.
	if want := []int{reach, 2*reach + 1}; !slices.Equal(taken, want) {
		t.Errorf("the pages of another document were taken at %v, want %v", taken, want)
	}
}

func TestDetectManyCallersStayWithinTheBound(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(10 * time.Millisecond)
		r := &fakeRenderer{pages: map[string]int{"a.pdf": 10_000}}
		d := newDetector(t, Config{Model: m, Renderer: r, InFlight: 2, Queue: 100, Workers: 3})
		defer d.Close()
		want := int64((2+1)*8*4*2*3 + 2*3*4*2*3)
		if got := d.MemoryBound(); got != want {
			t.Errorf("bound %d, want %d", got, want)
		}
		var wg sync.WaitGroup
		for page := 1; page <= 10_000; page++ {
			wg.Go(func() {
				got, err := d.Detect(t.Context(), path, page)
				if err != nil || got.Regions[0].ClassID != page {
					t.Errorf("page %d: %+v, %v", page, got, err)
				}
			})
		}
		wg.Wait()
		if m.worst > 2 {
			t.Errorf("%d requests at once, the window is 2", m.worst)
		}
		s := d.Stats()
		if s.Pages.Done != 10_000 || s.Admitted != 0 || s.Filling != 0 {
			t.Errorf("%+v", s)
		}
		if got := d.slabs.Held(); got != int64(3*8*4*2*3) {
			t.Errorf("slabs grew to %d bytes", got)
		}
		if full := s.Sizes[8]; full < 1200 {
			t.Errorf("only %d of 1250 batches were full: %v", full, s.Sizes)
		}
	})
}

func TestCloseReturnsEveryCall(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = never
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 100}}, Queue: 20, Workers: 2, ServerWait: -1})
		var wg sync.WaitGroup
		for page := 1; page <= 40; page++ {
			wg.Go(func() {
				if _, err := d.Detect(t.Context(), path, page); !errors.Is(err, ErrClosed) {
					t.Errorf("page %d: %v", page, err)
				}
			})
		}
		synctest.Wait()
		d.Close()
		wg.Wait()
	})
}

func TestFailedBatchReturnsEveryCall(t *testing.T) {
	path := file(t, "a.pdf")
	for _, action := range []Action{ActionRetry, ActionBisect, ActionStop} {
		t.Run(action.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newFakeModel()
				m.ask = func(context.Context, []seenPage) error { return &ModelError{Action: action, Message: "no"} }
				d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 100}}, Workers: 2})
				defer d.Close()
				var wg sync.WaitGroup
				for page := 1; page <= 20; page++ {
					wg.Go(func() {
						r, err := d.Detect(t.Context(), path, page)
						pe, ok := errors.AsType[*PageError](err)
						if !ok || pe.Stage != StageInfer || pe.Ref.Page != page || r.Status != StatusFailed {
							t.Errorf("page %d: %v, %v", page, r.Status, err)
						}
						asked := 0
						m.mu.Lock()
						for _, pages := range m.requests {
							if slices.ContainsFunc(pages, func(p seenPage) bool { return p.page == page }) {
								asked++
							}
						}
						m.mu.Unlock()
						if want := fmt.Sprintf("no answer in %d attempts: no", asked); action == ActionRetry && ok && pe.Message != want {
							t.Errorf("page %d: %q, want %q", page, pe.Message, want)
						}
					})
				}
				wg.Wait()
			})
		})
	}
}

func TestPoisonedPageFailsAlone(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = func(_ context.Context, pages []seenPage) error {
			// As Triton does it: everything at the server at the same time may
			// be merged with the culprit and fails with it.
			time.Sleep(5 * time.Millisecond)
			m.mu.Lock()
			defer m.mu.Unlock()
			if slices.ContainsFunc(pages, func(p seenPage) bool { return p.page == 13 }) || m.running > 1 && len(m.requests) < 20 {
				return &ModelError{Action: ActionBisect, Message: "INTERNAL"}
			}
			return nil
		}
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 100}}, Workers: 2, InFlight: 3})
		defer d.Close()
		var wg sync.WaitGroup
		for page := 1; page <= 64; page++ {
			wg.Go(func() {
				_, err := d.Detect(t.Context(), path, page)
				if page == 13 {
					if pe, ok := errors.AsType[*PageError](err); !ok || pe.Category != CategoryServer {
						t.Errorf("the poisoned page: %v", err)
					}
				} else if err != nil {
					t.Errorf("page %d: %v", page, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestQueueFullShrinksTheWindowAndCostsNothing(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		// A server that takes two requests and refuses a third.
		m.ask = func(ctx context.Context, pages []seenPage) error {
			m.mu.Lock()
			over := m.running > 2
			m.mu.Unlock()
			if over {
				return &ModelError{Action: ActionShrink, Message: "Exceeds maximum queue size"}
			}
			return slow(20*time.Millisecond)(ctx, pages)
		}
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1000}}, Workers: 4, InFlight: 16, Attempts: 1, Queue: 500})
		defer d.Close()
		var wg sync.WaitGroup
		low := 16
		for page := 1; page <= 1000; page++ {
			wg.Go(func() {
				if _, err := d.Detect(t.Context(), path, page); err != nil {
					t.Errorf("page %d: %v", page, err)
				}
				m.mu.Lock()
				low = min(low, d.Stats().Window)
				m.mu.Unlock()
			})
		}
		wg.Wait()
		if low > 2 {
			t.Errorf("the window never went below %d, the server takes 2", low)
		}
		refused := len(m.requests) - 125
		if refused > 125 {
			t.Errorf("%d requests were refused for 125 that were not: the window does not learn", refused)
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
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = func(context.Context, []seenPage) error { return &ModelError{Action: ActionWait, Message: "refused"} }
		m.ready = func(ctx context.Context) error {
			_ = slow(5*time.Second)(ctx, nil)
			return &ModelError{Action: ActionStop, Message: "the model is another one"}
		}
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}})
		defer d.Close()
		start := time.Now()
		_, err := d.Detect(t.Context(), path, 1)
		var pe *PageError
		if took := time.Since(start); !errors.As(err, &pe) || pe.Message != "the model is another one" || took != 5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
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

// Close waits for workers, whatever they do.
func TestCloseWaitsForWorkers(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRenderer{pages: map[string]int{"a.pdf": 1}, draw: func(context.Context, string, int) error {
			time.Sleep(time.Second)
			return nil
		}}
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 2})
		go d.Detect(t.Context(), path, 1)
		time.Sleep(time.Millisecond)
		d.Close()
		if r.live != 0 {
			t.Errorf("%d workers live on", r.live)
		}
	})
}

// slowImage takes its time to be scaled.
type slowImage struct {
	image.Image
	looked chan struct{}
	once   *sync.Once
}

func (s slowImage) At(x, y int) color.Color {
	s.once.Do(func() { close(s.looked); time.Sleep(time.Second) })
	return s.Image.At(x, y)
}

// Close waits for calls with an image in hand: that is the caller's, and goes to
// memory that Close gives back.
func TestCloseWaitsForImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDetector(t, Config{Model: newFakeModel(), Workers: 1})
		img := slowImage{image.NewGray(image.Rect(0, 0, 40, 20)), make(chan struct{}), &sync.Once{}}
		returned := make(chan time.Time, 1)
		start := time.Now()
		go func() {
			if _, err := d.DetectBatch(t.Context(), []image.Image{img}); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
			returned <- time.Now()
		}()
		<-img.looked
		d.Close()
		if took := time.Since(start); took != time.Second || (<-returned).Sub(start) != time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// What ends a call's context may be another page's error; it is not this one's.
func TestDetectEndsWithAnotherPagesError(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		other := &PageError{Ref: PageRef{Path: "other.pdf"}, Stage: StageOpen, Category: CategoryMalformed, Message: "broken"}
		r := &fakeRenderer{pages: map[string]int{"a.pdf": 9}}
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1})
		defer d.Close()
		for _, opening := range []bool{true, false} {
			ctx, cancel := context.WithCancelCause(t.Context())
			end := func() error { cancel(other); return other }
			r.open, r.draw = nil, nil
			if opening {
				r.open = func(string) error { return end() }
			} else {
				r.draw = func(context.Context, string, int) error { return end() }
			}
			got, err := d.Detect(ctx, path, 1)
			if got.Status != StatusCancelled || err != other || other.Ref.Path != "other.pdf" {
				t.Errorf("opening %t: %+v, %v", opening, got, err)
			}
		}
	})
}

// A call that fails, wherever it does, takes back what it had announced: the next
// one waits for no company that cannot come.
func TestFailedCallsAnnounceNothing(t *testing.T) {
	good, bad := file(t, "a.pdf"), file(t, "broken.pdf")
	synctest.Test(t, func(t *testing.T) {
		var fail error
		r := &fakeRenderer{pages: map[string]int{"a.pdf": 3}, draw: func(context.Context, string, int) error { return fail }}
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1, MaxAge: time.Hour})
		defer d.Close()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		call := func(ctx context.Context, path string, page int, err error) error {
			fail = err
			defer func() { fail = nil }()
			_, err = d.Detect(ctx, path, page)
			return err
		}
		for name, failing := range map[string]func() error{
			"no such page":      func() error { return call(t.Context(), good, 4, nil) },
			"a broken document": func() error { return call(t.Context(), bad, 1, nil) },
			"a page that fails": func() error {
				return call(t.Context(), good, 2, &PageError{Stage: StageRender, Category: CategoryMalformed})
			},
			"a worker that breaks":     func() error { return call(t.Context(), good, 2, errors.New("broken")) },
			"a call that is cancelled": func() error { return call(gone, good, 1, nil) },
			"images that are cancelled": func() error {
				_, err := d.DetectBatch(gone, []image.Image{image.NewGray(image.Rect(0, 0, 40, 20)), image.NewGray(image.Rect(0, 0, 4, 2))})
				return err
			},
		} {
			if err := failing(); err == nil {
				t.Errorf("%s: no error", name)
			}
			synctest.Wait()
			start := time.Now()
			if _, err := d.Detect(t.Context(), good, 1); err != nil || time.Since(start) != 0 {
				t.Errorf("after %s a page took %v: %v", name, time.Since(start), err)
			}
		}
	})
}

// So does one that is cancelled while it waits for a place in a batch.
func TestWaiterThatGivesUpAnnouncesNothing(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(time.Minute)
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 9}}, Workers: 1, Batch: 2, InFlight: 1, MaxAge: time.Hour})
		defer d.Close()
		var calls sync.WaitGroup
		detect := func(ctx context.Context, page int, want error) {
			calls.Go(func() {
				if _, err := d.Detect(ctx, path, page); !errors.Is(err, want) {
					t.Errorf("page %d: %v", page, err)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		detect(t.Context(), 1, nil) // in flight
		detect(t.Context(), 2, nil)
		detect(t.Context(), 3, nil) // the open batch is full
		detect(ctx, 4, context.Canceled)
		if s := d.Stats(); s.InFlight != 1 || s.Filling != 2 || s.Stalled != 1 {
			t.Errorf("%+v", s)
		}
		cancel()
		calls.Wait()
		start := time.Now()
		if _, err := d.Detect(t.Context(), path, 5); err != nil || time.Since(start) != time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// A worker keeps a document open for the next call as long as the file at its path
// is the same.
func TestDetectOpensWhatHasChanged(t *testing.T) {
	path := file(t, "a.pdf")
	r := &fakeRenderer{pages: map[string]int{"a.pdf": 3}}
	d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1})
	defer d.Close()
	opens := 0
	detect := func(what string, again bool) {
		t.Helper()
		if _, err := d.Detect(t.Context(), path, 1); err != nil {
			t.Fatal(err)
		}
		if again {
			opens++
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.opens != opens {
			t.Errorf("%s: opened %d times, want %d", what, r.opens, opens)
			opens = r.opens
		}
	}
	then := time.Now().Add(-time.Hour).Truncate(time.Second)
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chtimes(path, then, then))
	detect("at first", true)
	detect("the same", false)
	must(os.Chtimes(path, then, then.Add(time.Second)))
	detect("another time", true)
	must(os.WriteFile(path, []byte("longer"), 0o600), os.Chtimes(path, then, then.Add(time.Second)))
	detect("another size", true)
	other := path + ".new"
	must(os.WriteFile(other, []byte("other."), 0o600), os.Chtimes(other, then, then.Add(time.Second)), os.Rename(other, path))
	detect("another file of the same size and time", true)
	detect("the same", false)
}

// What would not open is not taken for what was open before.
func TestNothingIsOpenAfterAFailure(t *testing.T) {
	good, bad := file(t, "a.pdf"), file(t, "broken.pdf")
	r := &fakeRenderer{pages: map[string]int{"a.pdf": 3}}
	d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1})
	defer d.Close()
	for page := range 3 {
		got, err := d.Detect(t.Context(), good, page+1)
		if err != nil || got.Regions[0].Label != fmt.Sprint(hash("a.pdf")) {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := d.Detect(t.Context(), bad, 1); err == nil {
			t.Error("a broken document has a page")
		}
	}
}

// A document that kills the worker that opens it has one try more, and one that
// breaks it has another worker for that; no more, or it would be opened for ever.
func TestTriesOfOpening(t *testing.T) {
	dead := &PageError{Stage: StageOpen, Category: CategoryCrash, Message: "the process ended"}
	broken := errors.New("it makes no sense")
	for _, tt := range []struct {
		name    string
		err     error
		times   int
		tries   int
		workers int
		want    Status
	}{
		{"killed once", dead, 1, 2, 1, StatusDone},
		{"killed each time", dead, 99, 2, 1, StatusFailed},
		{"broken once", broken, 1, 2, 2, StatusDone},
		{"broken each time", broken, 99, 2, 2, StatusFailed},
		{"refused", &PageError{Stage: StageOpen, Category: CategoryMalformed}, 99, 1, 1, StatusFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := file(t, "a.pdf")
			tries, workers := 0, 0
			r := &fakeRenderer{
				pages: map[string]int{"a.pdf": 1},
				start: func() error { workers++; return nil },
				open: func(string) error {
					if tries++; tries > 10 {
						return nil
					}
					if tries <= tt.times {
						return tt.err
					}
					return nil
				},
			}
			d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1})
			got, err := d.Detect(t.Context(), path, 1)
			d.Close()
			if got.Status != tt.want || tries != tt.tries || workers != tt.workers {
				t.Errorf("%s, %v after %d tries with %d workers", got.Status, err, tries, workers)
			}
		})
	}
}

func TestDetectRefusals(t *testing.T) {
	dir := t.TempDir()
	m := newFakeModel()
	d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 3}}})
	defer d.Close()
	for _, c := range []struct {
		name string
		page int
		want Category
	}{{"a.pdf", 0, CategoryNoSuchPage}, {"a.pdf", 4, CategoryNoSuchPage}, {"broken.pdf", 1, CategoryMalformed}} {
		_, err := d.Detect(t.Context(), filepath.Join(dir, c.name), c.page)
		if pe, ok := errors.AsType[*PageError](err); !ok || pe.Category != c.want || pe.Ref.Page != c.page {
			t.Errorf("%s page %d: %v", c.name, c.page, err)
		}
	}
}

func TestContradictionsNameBothValues(t *testing.T) {
	m := newFakeModel()
	for _, c := range []struct {
		cfg  Config
		want []string
	}{
		{Config{Model: m, Batch: 16}, []string{"batch 16", "max_batch_size 8"}},
		{Config{Model: m, Workers: -1}, []string{"Workers", "-1"}},
		{Config{Model: m, InferTimeout: -time.Second}, []string{"InferTimeout is -1s"}},
		{Config{}, []string{"Model"}},
	} {
		_, err := New(c.cfg)
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%v does not name %q", err, w)
			}
		}
	}
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

// blank is an image without pixels of its own.
type blank struct {
	image.Image
	bounds image.Rectangle
}

func (b blank) Bounds() image.Rectangle { return b.bounds }

func TestDetectBatch(t *testing.T) {
	m := newFakeModel()
	d := newDetector(t, Config{Model: m, Workers: 2})
	defer d.Close()
	var images []image.Image
	for i := range 20 {
		img := image.NewNRGBA(image.Rect(5, 5, 5+40*(i+1), 5+20))
		for j := range img.Pix {
			img.Pix[j] = 0xff
		}
		// The first 8 bytes of the scaled raster are what the fake model reads:
		// an all-white image reads as page 0xffffffff.
		images = append(images, img)
	}
	images = append(images, nil, image.NewUniform(color.Black))
	images[21] = image.NewGray(image.Rect(0, 0, 4, 2)) // black: page 0
	// Tall ones take memory for each row, wide ones for each column. The first takes
	// little more than the limit, the others more than there is.
	big := []image.Rectangle{image.Rect(0, 0, 1, maxScaling/32/5+1), image.Rect(-2e9, 0, 2e9, 1), {image.Pt(math.MinInt, math.MinInt), image.Pt(math.MaxInt, math.MaxInt)}}
	for _, r := range big {
		images = append(images, blank{image.White, r})
	}
	results, err := d.DetectBatch(t.Context(), images)
	if pe, ok := errors.AsType[*PageError](err); !ok || pe.Category != CategoryPageSize {
		t.Errorf("the empty image: %v", err)
	}
	for i, r := range results {
		switch {
		case i == 20:
			if r.Status != StatusFailed {
				t.Errorf("empty image: %+v", r)
			}
		case i > 21:
			if r.Err == nil || r.Err.Category != CategoryPageSize || !strings.Contains(r.Err.Message, "the limit is 512 MiB") || !strings.Contains(err.Error(), r.Err.Message) {
				t.Errorf("image of %v: %+v", big[i-22], r)
			}
		case i == 21:
			if r.Regions[0].ClassID != 0 || r.Regions[0].BBox != [4]float64{0, 0, 4, 2} {
				t.Errorf("black image: %+v", r)
			}
		case r.Regions[0].ClassID != 0xffffffff || r.Regions[0].BBox != [4]float64{0, 0, float64(40 * (i + 1)), 20}:
			t.Errorf("image %d: %+v", i, r)
		}
	}
	if fmt.Sprint(d.Stats().Pages) != "{21 0 0 0 0}" {
		t.Errorf("%+v", d.Stats().Pages)
	}
}
