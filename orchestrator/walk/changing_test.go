package walk

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"quire/orchestrator"
)

// A directory may have become something else since its name was read; nothing waits
// for a writer.
func TestDirectoryThatBecomesAFIFO(t *testing.T) {
	dir := plant(t, "a.pdf", "b/c.pdf", "d.pdf")
	w := newWalker(t, Config{}, dir)
	var got []string
	for d := range w.Documents(t.Context()) {
		if d.Path == "a.pdf" {
			b := filepath.Join(dir, "b")
			if err := os.Rename(b, filepath.Join(dir, "z")); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, d.Path)
		if d.Path == "b" {
			_, err := d.Open()
			if p, ok := errors.AsType[*orchestrator.PageError](err); !ok || p.Category != orchestrator.CategoryUnreadable {
				t.Errorf("got %v", err)
			}
		}
	}
	if want := []string{"a.pdf", "b", "d.pdf"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What was no file when it was listed has no size and no time that a result could be
// filed under, and is none when it is opened.
func TestFileThatCameLater(t *testing.T) {
	dir := plant(t, "a.pdf", "gone.pdf", "link.pdf -> later")
	w := newWalker(t, Config{}, dir)
	for d := range w.Documents(t.Context()) {
		switch d.Path {
		case "a.pdf":
			if err := os.Remove(filepath.Join(dir, "gone.pdf")); err != nil {
				t.Fatal(err)
			}
			continue
		case "gone.pdf", "link.pdf":
			if err := os.WriteFile(filepath.Join(dir, map[string]string{"gone.pdf": "gone.pdf", "link.pdf": "later"}[d.Path]), []byte("new"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		f, err := d.Open()
		f.Close()
		if p, ok := errors.AsType[*orchestrator.PageError](err); !ok || p.Category != orchestrator.CategoryChanged {
			t.Errorf("%s, listed with %d bytes: got %v", d.Path, d.Size, err)
		}
	}
}
