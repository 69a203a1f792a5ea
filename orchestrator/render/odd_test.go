//go:build linux

package render

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/odd"
)

// TestOddDocuments holds every odd document to its manifest: how it ends, page
// by page, where its pages lie, and that twins are drawn alike.
func TestOddDocuments(t *testing.T) {
	set := odd.Make(t)
	// Short of patience only with what may run out of time, so that a busy
	// machine makes no difference to the rest.
	patient := newPool(t, Config{MemoryLimit: 256 << 20})
	hasty := newPool(t, Config{PageTimeout: time.Second, OpenTimeout: 2 * time.Second, MemoryLimit: 256 << 20})
	for _, name := range set.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := patient
			if mayTimeOut(set.Documents[name]) {
				pool = hasty
			}
			w, err := pool.NewWorker(context.Background(), 608, 800)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			checkOdd(t, w, set, name)
			if w := w.(*worker); w.process != nil {
				wantBounded(t, w)
			}
		})
	}
}

func mayTimeOut(d odd.Document) bool {
	const timeout = "failed:" + string(orchestrator.CategoryTimeout)
	return slices.Contains(d.Ends, timeout) ||
		slices.ContainsFunc(d.Pages, func(p odd.Page) bool { return slices.Contains(p.Ends, timeout) })
}

func checkOdd(t *testing.T, w orchestrator.RenderWorker, set odd.Set, name string) {
	ctx := context.Background()
	want := set.Documents[name]
	document := func(name string) orchestrator.Document {
		return orchestrator.Document{Path: name, Open: func() (*os.File, error) { return os.Open(set.Path(name)) }}
	}
	count, err := w.Open(ctx, document(name))
	if err != nil {
		if status, category := outcome(t, err); !want.Ends.Allow(status, category) {
			t.Errorf("opening: %s %s (%v), want one of %v", status, category, err, want.Ends)
		}
		return
	}
	if want.PageCount == nil && len(want.Pages) == 0 {
		t.Fatalf("opened with %d pages, want one of %v", count, want.Ends)
	}
	if want.PageCount != nil && count != *want.PageCount {
		t.Fatalf("%d pages, want %d", count, *want.PageCount)
	}
	type twin struct {
		page   int
		of     string
		pixels []byte
	}
	var twins []twin
	for i, page := range want.Pages[:min(count, len(want.Pages))] {
		pixels, geometry, err := w.Draw(ctx, i+1)
		if status, category := outcome(t, err); !page.Ends.Allow(status, category) {
			t.Errorf("page %d: %s %s (%v), want one of %v", i+1, status, category, err, page.Ends)
		}
		if err != nil {
			continue
		}
		if page.WidthPt != 0 {
			expect := orchestrator.Geometry{WidthPt: page.WidthPt, HeightPt: page.HeightPt, Rotation: page.Rotation, CropBox: page.CropBox}
			if geometry != expect {
				t.Errorf("page %d: %+v, want %+v", i+1, geometry, expect)
			}
		}
		if page.SameAs != "" {
			twins = append(twins, twin{i + 1, page.SameAs, slices.Clone(pixels)})
		}
	}
	for _, twin := range twins {
		if _, err := w.Open(ctx, document(twin.of)); err != nil {
			t.Fatal(err)
		}
		pixels, _, err := w.Draw(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if most := difference(twin.pixels, pixels); most > 16 { // rounding of the shift, at the edges of glyphs
			t.Errorf("page %d: differs from %s by %d", twin.page, twin.of, most)
		}
	}
}

// outcome is how a call ended, in the words of the manifest.
func outcome(t *testing.T, err error) (status, category string) {
	if err == nil {
		return "done", ""
	}
	var page *orchestrator.PageError
	if !errors.As(err, &page) {
		t.Fatal(err)
	}
	return "failed", string(page.Category)
}

// difference is the largest difference of two pictures' values.
func difference(a, b []byte) int {
	if len(a) != len(b) {
		return math.MaxInt
	}
	most := 0
	for i := range a {
		most = max(most, int(a[i])-int(b[i]), int(b[i])-int(a[i]))
	}
	return most
}
