//go:build linux

package render

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire/orchestrator"
	"quire/orchestrator/internal/odd"
	"quire/orchestrator/render/internal/pdftest"
)

// inMemory is a document that lies in memory.
func inMemory(t testing.TB, data []byte) orchestrator.Document {
	return orchestrator.Document{Path: "in/a.pdf", Open: func() (*os.File, error) {
		fd, err := unix.MemfdCreate("document", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), "document")
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		return file, nil
	}}
}

// FuzzDocument: whatever is in a document, opening it and drawing its first and
// last page end, with a picture or with an error that has a category, and the
// next document is drawn as if nothing had been.
func FuzzDocument(f *testing.F) {
	set := odd.Make(f, "good.pdf", "broken_xref.pdf", "encrypted_owner.pdf", "encrypted_user.pdf", "truncated.pdf", "missing_page.pdf",
		"count_lies.pdf", "page_tree_loop.pdf", "recursive_form.pdf", "widget.pdf", "twin_all.pdf", "no_pages.pdf", "not_pdf.pdf",
		"loop_pattern.pdf", "loop_glyph.pdf", "loop_mask.pdf", "loop_space.pdf", "loop_function.pdf", "loop_layer.pdf", "loop_cmap.pdf",
		"loop_contents.pdf", "loop_object_stream.pdf", "bomb_pages.pdf", "bomb_jpeg2000.pdf", "bomb_jpeg.pdf", "font_bomb.pdf")
	seeds, err := filepath.Glob("../../examples/*.pdf")
	if err != nil || len(seeds) == 0 {
		f.Fatal("no examples", err)
	}
	for _, name := range set.Names() {
		seeds = append(seeds, set.Path(name))
	}
	for _, path := range seeds {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, way := range pdftest.Encryptions {
		file := pdftest.Simple("", plainPage(1, 2, 3))
		file.EncryptAs(way, "", "owner")
		f.Add(file.Bytes())
	}
	f.Add([]byte{})
	f.Add(pdftest.Bomb(100_000))
	known := []orchestrator.Category{
		orchestrator.CategoryEmpty, orchestrator.CategoryNotPDF, orchestrator.CategoryMalformed, orchestrator.CategoryEncrypted,
		orchestrator.CategoryNoPages, orchestrator.CategoryPageSize, orchestrator.CategoryTimeout, orchestrator.CategoryMemory, orchestrator.CategoryCrash,
	}
	good := inMemory(f, pdftest.Simple("", plainPage(255, 0, 0)).Bytes())
	w := newWorker(f, newPool(f, Config{MemoryLimit: 64 << 20, OpenTimeout: 500 * time.Millisecond, PageTimeout: 500 * time.Millisecond}))
	f.Fuzz(func(t *testing.T, data []byte) {
		check := func(err error) {
			var e *orchestrator.PageError
			if err != nil && (!errors.As(err, &e) || !slices.Contains(known, e.Category)) {
				t.Errorf("%v", err)
			}
		}
		pages, err := w.Open(context.Background(), inMemory(t, data))
		check(err)
		if err == nil {
			for _, page := range slices.Compact([]int{1, pages}) {
				_, _, err := w.Draw(context.Background(), page)
				check(err)
			}
		}
		// Not in the process that the document has crashed.
		if _, err := w.Open(context.Background(), good); err != nil {
			t.Fatal(err)
		}
		wantColour(t, w, 1, 255, 0, 0)
		wantBounded(t, w)
	})
}
