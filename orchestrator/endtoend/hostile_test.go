package endtoend

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/odd"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/walk"
)

// meddled is a source whose documents something happens to, by path: before
// they are opened, or when they have just been.
type meddled struct {
	orchestrator.Source
	before, after map[string]func() error
}

func (m meddled) Documents(ctx context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		for d := range m.Source.Documents(ctx) {
			open := d.Open
			d.Open = func() (*os.File, error) {
				if do := m.before[d.Path]; do != nil {
					if err := do(); err != nil {
						return nil, err
					}
				}
				file, err := open()
				if do := m.after[d.Path]; do != nil && err == nil {
					err = do()
				}
				return file, err
			}
			if !yield(d) {
				return
			}
		}
	}
}

// TestHostileTree runs a directory of what is no document, and of documents
// that change under the run's hands, beside good ones.
func TestHostileTree(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	good, err := os.ReadFile(odd.Make(t, "twin_plain.pdf").Path("twin_plain.pdf"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(names ...string) (err error) {
		for _, name := range names {
			err = errors.Join(err, os.MkdirAll(filepath.Dir(at(name)), 0o777), os.WriteFile(at(name), good, 0o666))
		}
		return err
	}
	err = errors.Join(
		write("good.pdf", "\xff\xfe.pdf", "line\nbreak.pdf", "a directory.pdf/inside.pdf", "gone.pdf", "turned.pdf", "emptied.pdf", "grown.pdf", "replaced.pdf"),
		os.WriteFile(at("zero.pdf"), nil, 0o666),
		os.WriteFile(at("terabyte.pdf"), []byte("%PDF-1.7\n"), 0o666), os.Truncate(at("terabyte.pdf"), 1<<40),
		syscall.Mkfifo(at("pipe.pdf"), 0o666), syscall.Mknod(at("socket.pdf"), syscall.S_IFSOCK|0o666, 0),
		os.Symlink("good.pdf", at("link.pdf")), os.Symlink("/etc/passwd", at("escape.pdf")), os.Symlink("../../../../etc/passwd", at("climb.pdf")),
		os.Symlink("/dev/zero", at("device.pdf")), os.Symlink("loop.pdf", at("loop.pdf")), os.Symlink("nowhere", at("dangling.pdf")),
		os.Symlink("..", at("a directory.pdf/up")), os.Symlink(".", at("self.pdf")),
	)
	if err != nil {
		t.Fatal(err)
	}
	w, err := walk.New([]string{dir}, walk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	source := meddled{w, map[string]func() error{
		"gone.pdf":   func() error { return os.Remove(at("gone.pdf")) },
		"turned.pdf": func() error { return errors.Join(os.Remove(at("turned.pdf")), syscall.Mkfifo(at("turned.pdf"), 0o666)) },
	}, map[string]func() error{
		"emptied.pdf":  func() error { return os.Truncate(at("emptied.pdf"), 0) },
		"grown.pdf":    func() error { return os.WriteFile(at("grown.pdf"), bytes.Repeat(good, 2), 0o666) },
		"replaced.pdf": func() error { return errors.Join(write("other"), os.Rename(at("other"), at("replaced.pdf"))) },
	}}
	const done = orchestrator.Category("")
	want := map[string]orchestrator.Category{
		"good.pdf": done, "%FF%FE.pdf": done, "line\nbreak.pdf": done, "a directory.pdf/inside.pdf": done, "link.pdf": done,
		"grown.pdf": done, // before it was looked at
		// What is open stays what it was.
		"replaced.pdf": done,
		"zero.pdf":     orchestrator.CategoryEmpty, "emptied.pdf": orchestrator.CategoryEmpty,
		"terabyte.pdf": orchestrator.CategoryTimeout,
		"pipe.pdf":     orchestrator.CategoryNotRegular, "socket.pdf": orchestrator.CategoryNotRegular, "turned.pdf": orchestrator.CategoryNotRegular,
		"self.pdf": orchestrator.CategoryNotRegular, "escape.pdf": orchestrator.CategoryUnreadable, "climb.pdf": orchestrator.CategoryUnreadable,
		"device.pdf": orchestrator.CategoryUnreadable, "loop.pdf": orchestrator.CategoryUnreadable, "dangling.pdf": orchestrator.CategoryUnreadable,
		"gone.pdf": orchestrator.CategoryUnreadable,
	}

	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{}, render.Config{OpenTimeout: time.Second, Sandbox: render.SandboxRequire})
	tree, err := sink.Open(sink.Config{Dir: out, Tool: "quire", ToolVersion: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := tree.Start(t.Context(), m.Info(), nil); err != nil {
		t.Fatal(err)
	}
	s, err := d.Run(t.Context(), orchestrator.Job{Source: source, Sink: tree})
	_, finishErr := tree.Finish(t.Context(), s, err, nil)
	if err := errors.Join(err, finishErr); err != nil {
		t.Fatal(err)
	}
	got := map[string]orchestrator.Category{}
	var failed int64
	for path, doc := range results(t, out) {
		got[path] = done
		if doc.Error != nil {
			got[path] = doc.Error.Category
			failed++
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if s.Documents != (orchestrator.Counts{Done: int64(len(want)) - failed, Failed: failed}) || s.Pages != (orchestrator.Counts{Done: s.Documents.Done}) {
		t.Errorf("%+v", s)
	}
}
