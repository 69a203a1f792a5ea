package plan

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quire/orchestrator"
)

// TestExamine has files that never get as far as a worker.
func TestExamine(t *testing.T) {
	dir := t.TempDir()
	late := make([]byte, 2000) // a mark that comes too late for readers
	copy(late[1500:], "%PDF-1.4")
	for name, text := range map[string]string{"good.pdf": "%PDF-1.4", "junk first.pdf": "junk\n%PDF-1.4", "empty.pdf": "", "late.pdf": string(late)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	told := &orchestrator.PageError{Ref: orchestrator.PageRef{Path: "fifo.pdf"}, Stage: orchestrator.StageOpen, Category: orchestrator.CategoryNotRegular, Message: "a FIFO"}
	var files []*os.File
	opens := func(name string) orchestrator.Document {
		return orchestrator.Document{Path: name, Open: func() (*os.File, error) {
			file, err := os.Open(filepath.Join(dir, name))
			if err == nil {
				files = append(files, file)
			}
			return file, err
		}}
	}
	closed := orchestrator.Document{Path: "closed.pdf", Open: func() (*os.File, error) {
		file, err := os.Open(filepath.Join(dir, "good.pdf"))
		return file, errors.Join(err, file.Close())
	}}
	noReading := orchestrator.Document{Path: "no reading.pdf", Open: func() (*os.File, error) {
		return os.OpenFile(filepath.Join(dir, "good.pdf"), os.O_WRONLY, 0)
	}}
	for _, c := range []struct {
		doc      orchestrator.Document
		category orchestrator.Category
		marked   bool
	}{
		{opens("good.pdf"), "", true},
		{opens("junk first.pdf"), "", true},
		{opens("late.pdf"), "", false},
		{opens("empty.pdf"), orchestrator.CategoryEmpty, false},
		{opens("gone.pdf"), orchestrator.CategoryUnreadable, false},
		{opens("."), orchestrator.CategoryNotRegular, false},
		{orchestrator.Document{Path: "fetched.pdf", Open: func() (*os.File, error) { return nil, errors.New("the store is away") }}, orchestrator.CategoryUnreadable, false},
		{closed, orchestrator.CategoryUnreadable, false},
		{noReading, orchestrator.CategoryUnreadable, false},
		{orchestrator.Document{Path: "fifo.pdf", Open: func() (*os.File, error) { return nil, told }}, orchestrator.CategoryNotRegular, false},
	} {
		h := examine(c.doc)
		var got orchestrator.Category
		if h.err != nil {
			got = h.err.Category
			if h.err.Ref.Path != c.doc.Path || h.err.Stage != orchestrator.StageOpen || h.err.Message == "" || strings.Contains(h.err.Message, dir) {
				t.Errorf("%s: %+v", c.doc.Path, h.err)
			}
		}
		if got != c.category || h.marked != c.marked {
			t.Errorf("%s: %q, marked %v; want %q, %v", c.doc.Path, got, h.marked, c.category, c.marked)
		}
	}
	for _, file := range files {
		if err := file.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s was left open: %v", file.Name(), err)
		}
	}
}

// Too many open files are no document's fault, as in a run.
func TestTooManyOpenFiles(t *testing.T) {
	for name, doc := range map[string]orchestrator.Document{
		"listing": {Path: "a.pdf", Err: syscall.EMFILE},
		"opening": {Path: "a.pdf", Open: func() (*os.File, error) { return nil, &fs.PathError{Op: "open", Path: "a.pdf", Err: syscall.ENFILE} }},
	} {
		o := &opener{}
		in, err := Look(t.Context(), Config{Source: source{doc}, Renderer: o, Problem: func(e *orchestrator.PageError) { t.Errorf("%s: told of %v", name, e) }})
		if !orchestrator.TooManyOpenFiles(err) || in.Problems() != 0 {
			t.Errorf("%s: %+v, %v", name, in, err)
		}
		o.checkClosed(t)
	}
}

// TestProblemsComeInOrder mixes what is known at once with what a worker finds.
func TestProblemsComeInOrder(t *testing.T) {
	o := &opener{open: func(_ context.Context, path string) (int, error) { return 0, malformed(path) }}
	text := file(t, "text", 5000)
	var docs source
	var want []string
	for i, path := range numbered(50) {
		want = append(want, path)
		open := func() (*os.File, error) { return os.Open(text) }
		if i%3 == 0 {
			open = func() (*os.File, error) { return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission} }
		}
		docs = append(docs, orchestrator.Document{Path: path, Open: open})
	}
	var got []string
	in, err := Look(t.Context(), Config{Source: docs, Renderer: o, Problem: func(e *orchestrator.PageError) { got = append(got, e.Ref.Path) }})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if in.Unreadable[orchestrator.CategoryUnreadable] != 17 || in.Unreadable[orchestrator.CategoryMalformed] != 33 || in.Problems() != 50 {
		t.Errorf("%v", in.Unreadable)
	}
	if got := in.Categories(); !slices.Equal(got, []orchestrator.Category{orchestrator.CategoryMalformed, orchestrator.CategoryUnreadable}) {
		t.Errorf("%v", got)
	}
	if !in.Pages.Known() || !in.Pages.Exact() || in.Pages.Pages != 0 {
		t.Errorf("%+v", in.Pages)
	}
	o.checkClosed(t)
	if _, err := Look(t.Context(), Config{}); err == nil {
		t.Error("a look at nothing")
	}
	if _, err := Look(t.Context(), Config{Source: docs, Renderer: &opener{}, Sample: -1}); err == nil {
		t.Error("a sample below zero")
	}
	if _, err := Look(t.Context(), Config{Source: docs, Renderer: noWorker{}}); !errors.Is(err, errNoWorker) {
		t.Errorf("%v; want what NewWorker said", err)
	}
}

type source []orchestrator.Document

func (s source) Documents(context.Context) iter.Seq[orchestrator.Document] { return slices.Values(s) }

var errNoWorker = errors.New("no worker")

type noWorker struct{}

func (noWorker) NewWorker(context.Context, int, int) (orchestrator.RenderWorker, error) {
	return nil, errNoWorker
}
