//go:build linux

package render

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/pdftest"
)

// Opening a document again after a page that was stopped has the time that opening
// has, and none of the page's that comes next.
func TestOpenedAgainInItsOwnTime(t *testing.T) {
	f := pdftest.EndlessFile(plainPage(255, 0, 0))
	f.EncryptAs(pdftest.AES256, "sesame", "sesame")
	w := newWorker(t, newPool(t, Config{Passwords: append(slices.Repeat([]string{"wrong"}, 30), "sesame")})) // which are slow to try
	open(t, w, newDocument(t, f.Bytes()))
	process, cfg := w.process, &w.pool.cfg
	cfg.PageTimeout = 100 * time.Millisecond
	_, _, err := w.Draw(t.Context(), 1)
	wantError(t, err, orchestrator.StageRender, 1, orchestrator.CategoryTimeout)
	cfg.PageTimeout, cfg.OpenTimeout = time.Minute, time.Millisecond
	_, _, err = w.Draw(t.Context(), 2)
	wantError(t, err, orchestrator.StageRender, 2, orchestrator.CategoryTimeout)
	if !strings.HasSuffix(err.Error(), ": opening the document again took longer than 1ms") {
		t.Error(err)
	}
	cfg.OpenTimeout = time.Minute
	wantColour(t, w, 2, 255, 0, 0)
	if w.process != process {
		t.Error("the process was replaced")
	}
}

// MuPDF frees some of a document that it lays out twice when it is stopped in that.
// What comes next has another process.
func TestStoppedWhileItIsLaidOut(t *testing.T) {
	pool := newPool(t, Config{OtherFormats: true})
	long := namedDocument(t, "a.html", []byte("<title>a</title>"+strings.Repeat("<p>word ", 100_000)))
	short := newDocument(t, pdftest.Simple("", plainPage(255, 0, 0)).Bytes())
	w := newWorker(t, pool)
	for range 5 {
		process := w.process
		pool.cfg.OpenTimeout = 20 * time.Millisecond
		_, err := w.Open(t.Context(), long)
		if e, ok := errors.AsType[*orchestrator.PageError](err); !ok || e.Category != orchestrator.CategoryTimeout {
			t.Errorf("got %v", err)
		}
		pool.cfg.OpenTimeout = time.Minute
		open(t, w, short)
		wantColour(t, w, 1, 255, 0, 0)
		if w.process == process {
			t.Error("the process goes on")
		}
	}
}

// A drawing without an end is a page that cannot be drawn, and no numbers that JSON
// does not have are to be told of it.
func TestDrawingWithoutEnd(t *testing.T) {
	w := newWorker(t, newPool(t, Config{OtherFormats: true}))
	for _, size := range []string{`width="3e38in" height="9"`, `width="9" height="3e38in"`, `viewBox="0 0 9 9" width="3e38pc" height="3e38pc"`} {
		open(t, w, namedDocument(t, "a.svg", []byte(`<svg xmlns="http://www.w3.org/2000/svg" `+size+`><rect width="5" height="5"/></svg>`)))
		_, _, err := w.Draw(t.Context(), 1)
		if e, ok := errors.AsType[*orchestrator.PageError](err); !ok || e.Category != orchestrator.CategoryPageSize {
			t.Errorf("%s: got %v", size, err)
		}
	}
}
