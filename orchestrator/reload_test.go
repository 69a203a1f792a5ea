package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestReloadWithSmallerBatch(t *testing.T) {
	path := file(t, "a.pdf")
	for _, fewer := range []int{2, 7} {
		testReloadWithSmallerBatch(t, path, fewer)
	}
}

func testReloadWithSmallerBatch(t *testing.T, path string, fewer int) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = func(ctx context.Context, pages []seenPage) error {
			m.mu.Lock()
			served := 8
			if len(m.requests) > 3 {
				served = fewer
			}
			m.mu.Unlock()
			if len(pages) > served {
				return &ModelError{Action: ActionRefresh, Message: fmt.Sprintf("batch-size must be <= %d", served)}
			}
			return slow(time.Millisecond)(ctx, pages)
		}
		m.refresh = func(in *Input) error { in.MaxBatch = fewer; return nil }
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 100}}, Workers: 2})
		defer d.Close()
		var wg sync.WaitGroup
		for page := 1; page <= 100; page++ {
			wg.Go(func() {
				if r, err := d.Detect(t.Context(), path, page); err != nil || r.Regions[0].ClassID != page {
					t.Errorf("page %d: %v", page, err)
				}
			})
		}
		wg.Wait()
		if last := m.sizes()[len(m.requests)-5:]; slices.Max(last) > fewer {
			t.Errorf("the last requests had %v pages", last)
		}
	})
}

func TestReloadWithLargerBatchIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.in.MaxBatch = 2
		m.ask = slow(100 * time.Millisecond)
		start := time.Now()
		m.refresh = func(in *Input) error {
			if time.Since(start) > 12*time.Second {
				in.MaxBatch, in.Instances = 6, 2
			}
			return nil
		}
		list, count := manyDocs(30, 50)
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: count}, Workers: 2})
		defer d.Close()
		sink, sum, err := runDocs(t, d, list)
		if err != nil || sum.Pages != (Counts{Done: 1500}) {
			t.Fatalf("%+v, %v", sum, err)
		}
		for ref, p := range sink.pages {
			if p.Regions[0].ClassID != ref.Page {
				t.Errorf("%v has the regions of page %d", ref, p.Regions[0].ClassID)
			}
		}
		if c := d.Settings(); c.Batch != 6 || c.InFlight != 3 || d.MemoryBound() != int64((4*6+4)*24) || d.slabs.Held() != 4*6*24 {
			t.Errorf("after the reload: batch %d, in flight %d, bound %d", c.Batch, c.InFlight, d.MemoryBound())
		}
		// 600 pages at 2 × 2 in 100 ms until it is noticed at 15 s, then 3 × 6.
		if took := time.Since(start); took > 21*time.Second {
			t.Errorf("took %v", took)
		}
		if s := d.Stats(); s.Sizes[6] < 100 || m.worst != 3 {
			t.Errorf("%d at once, sizes %v", m.worst, s.Sizes)
		}
	})
}

// A reload that there is no memory for is tried and told once, and not at every
// look; another one is tried again.
func TestReloadWithoutMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(100 * time.Millisecond)
		start := time.Now()
		m.refresh = func(in *Input) error {
			switch s := time.Since(start); {
			case s > 50*time.Second:
				in.MaxBatch = 1 << 50 // of 24 bytes: more than there are addresses
			case s > 40*time.Second:
				in.MaxBatch = 4
			case s > 12*time.Second:
				in.MaxBatch = 1 << 50
			}
			return nil
		}
		var log bytes.Buffer
		list, count := manyDocs(120, 100)
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: count}, Workers: 2, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		defer d.Close()
		sum, err := d.Run(t.Context(), Job{Source: list, Sink: newFakeSink(t)})
		if took := time.Since(start); err != nil || sum.Pages != (Counts{Done: 12_000}) || took < time.Minute {
			t.Fatalf("%+v, %v, after %v", sum, err, took)
		}
		if n := strings.Count(log.String(), "no memory for the batches"); n != 2 {
			t.Errorf("told %d times that there is no memory, want once for each reload:\n%s", n, log.String())
		}
		if n := strings.Count(log.String(), "was reloaded"); n != 3 {
			t.Errorf("told of %d reloads, want 3:\n%s", n, log.String())
		}
	})
}

func TestReloadThatDoesNotFitEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(100 * time.Millisecond)
		m.refresh = func(*Input) error { return &ModelError{Action: ActionStop, Message: "found 640×640, wanted 608×800"} }
		list, count := manyDocs(300, 50)
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: count}, Workers: 2})
		defer d.Close()
		_, _, err := runDocs(t, d, list)
		if se, ok := errors.AsType[*ServerError](err); !ok || se.Message != "found 640×640, wanted 608×800" {
			t.Errorf("%v", err)
		}
	})
}

// Whoever walks over the servers may hold one that has left meanwhile.
func TestWhatHasLeftIsNotRefreshed(t *testing.T) {
	var s servers
	a, _ := s.model("a", nil)
	b, bm := s.model("b", nil)
	used := false
	bm.refresh = func(*Input) error { used = true; return nil }
	d := newDetector(t, Config{Endpoints: []Endpoint{a, b}})
	defer d.Close()
	for _, e := range d.fleet.working() {
		d.Leave("b")
		if err := d.refresh(t.Context(), e); err != nil {
			t.Error(err)
		}
	}
	if used {
		t.Error("the config of a server that has left was read")
	}
}
