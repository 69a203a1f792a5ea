package verify

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"quire/orchestrator"
)

// drawer is a renderer of one worker, which opens documents of so many pages, and
// none where that is below 0.
type drawer struct {
	pages  map[string]int
	broken error // of the machine, at every page
	pixels []byte
	closed bool
	count  int
	path   string
}

func (d *drawer) NewWorker(context.Context, int, int) (orchestrator.RenderWorker, error) {
	d.pixels = make([]byte, side*side*3)
	return d, nil
}

func (d *drawer) Open(_ context.Context, doc orchestrator.Document) (int, error) {
	d.path, d.count = doc.Path, d.pages[doc.Path]
	if d.count < 0 {
		return 0, &orchestrator.PageError{Category: orchestrator.CategoryMalformed}
	}
	return d.count, nil
}

// Draw draws into one place, as a worker does. Page 13 fails.
func (d *drawer) Draw(_ context.Context, page int) ([]byte, orchestrator.Geometry, error) {
	if d.broken != nil {
		return nil, orchestrator.Geometry{}, d.broken
	}
	if page == 13 {
		return nil, orchestrator.Geometry{}, &orchestrator.PageError{Category: orchestrator.CategoryMalformed}
	}
	d.pixels[0] = byte(page)
	return d.pixels, orchestrator.Geometry{WidthPt: float64(page)}, nil
}

func (d *drawer) Ahead(int)    {}
func (d *drawer) Close() error { d.closed = true; return nil }

type paths []string

func (p paths) Documents(context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		for _, path := range p {
			if !yield(orchestrator.Document{Path: path}) {
				return
			}
		}
	}
}

// Pages come from all over a document, and what fails is passed over.
func TestDraw(t *testing.T) {
	source := paths{"broken.pdf", "long.pdf", "short.pdf"}
	counts := map[string]int{"broken.pdf": -1, "long.pdf": 16, "short.pdf": 2}
	for _, test := range []struct {
		most, perDocument, failed int
		want                      string
	}{
		{100, 3, 1, "long.pdf 1, long.pdf 6, long.pdf 11, short.pdf 1, short.pdf 2"},
		{100, 4, 2, "long.pdf 1, long.pdf 5, long.pdf 9, short.pdf 1, short.pdf 2"},
		{4, 0, 1, "long.pdf 1, long.pdf 2, long.pdf 3, long.pdf 4"},
		{4, 3, 1, "long.pdf 1, long.pdf 6, long.pdf 11, short.pdf 1"},
	} {
		d := &drawer{pages: counts}
		all, failed, err := Draw(t.Context(), d, source, newFake().in, test.most, test.perDocument)
		var got []string
		for _, p := range all {
			got = append(got, fmt.Sprintf("%s %d", p.Ref.Path, p.Ref.Page))
			if int(p.Pixels[0]) != p.Ref.Page || p.Geometry.WidthPt != float64(p.Ref.Page) {
				t.Errorf("%v has the pixels or the size of another page", p.Ref)
			}
		}
		if got := strings.Join(got, ", "); err != nil || got != test.want || failed != test.failed || !d.closed {
			t.Errorf("%d, %d of each: %s, %d failed, %v, closed %v; want %s, %d failed", test.most, test.perDocument, got, failed, err, d.closed, test.want, test.failed)
		}
	}
	broken := errors.New("no process")
	d := &drawer{pages: counts, broken: broken}
	if _, _, err := Draw(t.Context(), d, source, newFake().in, 9, 0); !errors.Is(err, broken) || !d.closed {
		t.Errorf("%v, closed %v", err, d.closed)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(orchestrator.ErrInterrupted)
	if _, _, err := Draw(ctx, &drawer{pages: counts}, source, newFake().in, 9, 0); err != nil && !errors.Is(err, orchestrator.ErrInterrupted) {
		t.Error(err)
	}
}
