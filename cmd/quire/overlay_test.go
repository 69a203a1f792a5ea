package main

import (
	"bytes"
	"context"
	"errors"
	"image/color"
	"image/png"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/render"
	"quire/orchestrator/report"
	"quire/orchestrator/sink"
)

// overlayOver gives an overlay on a new tree in out.
func overlayOver(t *testing.T, ctx context.Context, stop <-chan struct{}, out string) *overlay {
	t.Helper()
	o, _ := loggedOverlay(t, ctx, stop, out)
	return o
}

// loggedOverlay gives its log too.
func loggedOverlay(t *testing.T, ctx context.Context, stop <-chan struct{}, out string) (*overlay, *bytes.Buffer) {
	t.Helper()
	g := startedGuard(t)
	tree, err := sink.Open(sink.Config{Dir: out, Tool: "quire", ToolVersion: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	if err := tree.Start(t.Context(), orchestrator.ModelInfo{Name: "layout", Version: "1"}, nil); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancelCause(ctx)
	t.Cleanup(func() { end(nil) })
	var log bytes.Buffer
	return newOverlay(ctx, end, stop, tree, render.New(render.Config{Guard: g}), 2, slog.New(slog.NewTextHandler(&log, nil))), &log
}

// sendDocument sends a document through the overlay, with one table on each page
// but failed ones.
func sendDocument(t *testing.T, o *overlay, file, path string, pages int, failed ...int) {
	t.Helper()
	doc := orchestrator.Document{Path: path, Open: func() (*os.File, error) { return os.Open(file) }}
	end := orchestrator.DocumentResult{Path: path, PageCount: pages, Status: orchestrator.StatusDone}
	_, err := o.Begin(t.Context(), doc)
	errs := []error{err, o.Opened(t.Context(), doc, pages)}
	for i := range pages {
		ref := orchestrator.PageRef{Path: path, Page: i + 1}
		result := orchestrator.PageResult{
			Ref: ref, Status: orchestrator.StatusDone, Geometry: orchestrator.Geometry{WidthPt: 612, HeightPt: 792},
			Regions: []orchestrator.Region{{Label: "table", Score: 0.9, BBox: [4]float64{100, 200, 300, 400}}},
		}
		end.Done++
		for _, f := range failed {
			if f == i+1 {
				result = orchestrator.PageResult{Ref: ref, Status: orchestrator.StatusFailed, Err: &orchestrator.PageError{
					Ref: ref, Stage: orchestrator.StageRender, Category: orchestrator.CategoryTimeout, Message: "it took too long"}}
				end.Done, end.Failed, end.Status = end.Done-1, end.Failed+1, orchestrator.StatusPartial
			}
		}
		errs = append(errs, o.Page(t.Context(), result))
	}
	if err := errors.Join(append(errs, endDocument(t, o, end))...); err != nil {
		t.Fatal(err)
	}
}

// endDocument ends a document and waits until that stands.
func endDocument(t *testing.T, o *overlay, end orchestrator.DocumentResult) error {
	t.Helper()
	stands := make(chan error, 1)
	if err := o.End(t.Context(), end, func(err error) { stands <- err }); err != nil {
		return err
	}
	return <-stands
}

// readPicture reads a picture and tells how many of its pixels have a colour.
func readPicture(t *testing.T, c color.RGBA, elem ...string) (width, height, coloured int) {
	t.Helper()
	f, err := os.Open(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	for y := range m.Bounds().Dy() {
		for x := range m.Bounds().Dx() {
			r, g, b, _ := m.At(x, y).RGBA()
			if uint8(r>>8) == c.R && uint8(g>>8) == c.G && uint8(b>>8) == c.B {
				coloured++
			}
		}
	}
	return m.Bounds().Dx(), m.Bounds().Dy(), coloured
}

const paper = "../../examples/paper.pdf" // four pages of 612×792 points

func TestOverlay(t *testing.T) {
	out := t.TempDir()
	o, log := loggedOverlay(t, t.Context(), nil, out)
	gone := filepath.Join(t.TempDir(), "gone.pdf")
	sendDocument(t, o, paper, "sub/paper.pdf", 4, 3)
	sendDocument(t, o, gone, "gone.pdf", 2, 1)
	sendDocument(t, o, gone, "failed.pdf", 1, 1)
	if _, err := o.Begin(t.Context(), orchestrator.Document{Path: "never.pdf"}); err != nil {
		t.Fatal(err)
	}
	if err := endDocument(t, o, orchestrator.DocumentResult{Path: "never.pdf", PageCount: -1, Status: orchestrator.StatusFailed, Err: &orchestrator.PageError{
		Ref: orchestrator.PageRef{Path: "never.pdf"}, Stage: orchestrator.StageOpen, Category: orchestrator.CategoryNotPDF, Message: "not a PDF"}}); err != nil {
		t.Fatal(err)
	}
	sendDocument(t, o, paper, "long.pdf", 4)
	if err := o.finish(); err != nil {
		t.Fatal(err)
	}
	table := report.Colour("table")
	for _, p := range []struct {
		doc, name string
		drawn     bool
	}{
		{"sub/paper.pdf.pages", "0001.png", true}, {"sub/paper.pdf.pages", "0002.png", true}, {"sub/paper.pdf.pages", "0004.png", true},
		{"long.pdf.pages", "0004.png", true},
		{"sub/paper.pdf.pages", "0003.png", false}, {"failed.pdf.pages", "0001.png", false},
	} {
		width, height, n := readPicture(t, table, out, p.doc, p.name)
		if p.drawn && (n < 1000 || height < pictureSide || height > pictureSide+200 || width < 1000) {
			t.Errorf("%s/%s: %d×%d pixels, %d of the box", p.doc, p.name, width, height, n)
		}
		if !p.drawn && (n > 0 || height > pictureSide) {
			t.Errorf("%s/%s: %d×%d pixels, %d of a box: it is no page", p.doc, p.name, width, height, n)
		}
	}
	// What cannot be opened has none, and so the next run draws them.
	for _, name := range []string{"never.pdf.pages", "gone.pdf.pages"} {
		if _, err := os.Stat(filepath.Join(out, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: pictures of a document that did not open: %v", name, err)
		}
	}
	if said := log.String(); strings.Count(said, "has no pictures") != 1 || !strings.Contains(said, "document=gone.pdf") {
		t.Errorf("it says %s", said)
	}
}

// A worker that dies has what it died of done once more, by another one.
func TestTwice(t *testing.T) {
	died := &orchestrator.PageError{Category: orchestrator.CategoryCrash}
	slow := &orchestrator.PageError{Category: orchestrator.CategoryTimeout}
	for _, errs := range [][]error{{nil}, {died, nil}, {died, died}, {died, slow}, {slow}, {context.Canceled}} {
		calls := 0
		err := twice(func() error { calls++; return errs[calls-1] })
		if calls != len(errs) || err != errs[calls-1] {
			t.Errorf("%v: %d calls, %v", errs, calls, err)
		}
	}
}

// Of a document that is skipped, pictures are drawn only if they are not there or
// older than the result.
func TestOverlayOfWhatStands(t *testing.T) {
	out := t.TempDir()
	o := overlayOver(t, t.Context(), nil, out)
	sendDocument(t, o, paper, "a.pdf", 4)
	if err := o.finish(); err != nil {
		t.Fatal(err)
	}
	// With its context ended, and nobody to take a document, it says whether it
	// would have handed one over.
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(orchestrator.ErrInterrupted)
	idle := &overlay{ctx: ended, pictures: o.pictures, work: make(chan orchestrator.Document)}
	draws := func() bool {
		return idle.hand(orchestrator.Document{Path: "a.pdf"}, orchestrator.DocumentResult{Path: "a.pdf", Status: orchestrator.StatusSkipped, PageCount: 4}) != nil
	}
	if draws() {
		t.Error("pictures that are there would be drawn again")
	}
	last := filepath.Join(out, "a.pdf.pages", "0004.png")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(last, old, old); err != nil {
		t.Fatal(err)
	}
	if !draws() {
		t.Error("pictures older than the result would be kept")
	}
	if err := os.Remove(last); err != nil {
		t.Fatal(err)
	}
	if !draws() {
		t.Error("pictures that are not there would not be drawn")
	}
}

// A picture that cannot be written ends the run and is told, as a result would be.
func TestOverlayThatCannotBeWritten(t *testing.T) {
	out := t.TempDir()
	o := overlayOver(t, t.Context(), nil, out)
	write(t, "", out, "a.pdf.pages")
	sendDocument(t, o, paper, "a.pdf", 4)
	var w *sink.WriteError
	err := o.finish()
	if !errors.As(err, &w) || context.Cause(o.ctx) != err {
		t.Errorf("got %v, and the run ends with %v; want a write error", err, context.Cause(o.ctx))
	}
	// What ends after it, and finds no hand, has a result that stands all the same.
	late := &overlay{Sink: o.Sink, ctx: o.ctx, end: o.end, pictures: o.pictures, begun: o.begun, work: make(chan orchestrator.Document)}
	sendDocument(t, late, paper, "b.pdf", 4)
}

// Neither a stop, soft or hard, nor what is left to draw holds up the run. That
// pictures are left is told, since the run may have come to its end before.
func TestOverlayStops(t *testing.T) {
	for _, c := range []struct {
		name string
		stop func(soft chan struct{}, hard context.CancelCauseFunc)
	}{
		{"soft", func(soft chan struct{}, _ context.CancelCauseFunc) { close(soft) }},
		{"hard", func(_ chan struct{}, hard context.CancelCauseFunc) { hard(orchestrator.ErrInterrupted) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := t.TempDir()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			soft := make(chan struct{})
			o := overlayOver(t, ctx, soft, out)
			c.stop(soft, cancel)
			ended := make(chan error, 1)
			go func() {
				doc := orchestrator.Document{Path: "a.pdf", Open: func() (*os.File, error) { return os.Open(paper) }}
				_, _ = o.Begin(ctx, doc)
				_ = o.Opened(ctx, doc, 1)
				_ = o.Page(ctx, orchestrator.PageResult{Ref: orchestrator.PageRef{Path: "a.pdf", Page: 1}, Status: orchestrator.StatusDone})
				_ = endDocument(t, o, orchestrator.DocumentResult{Path: "a.pdf", Status: orchestrator.StatusDone, PageCount: 1, Done: 1})
				ended <- o.finish()
			}()
			select {
			case err := <-ended:
				if !errors.Is(err, orchestrator.ErrInterrupted) {
					t.Errorf("got %v, want an interruption", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("it does not end")
			}
		})
	}
}
