package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
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
		const took = 50 * time.Second // an answer as late as InferTimeout would be none
		m := newFakeModel()
		m.ask = slow(took)
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
		if _, err := d.Detect(t.Context(), path, 5); err != nil || time.Since(start) != took {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
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
