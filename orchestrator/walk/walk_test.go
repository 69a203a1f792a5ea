package walk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quire/orchestrator"
)

// plant makes a tree: "dir/" a directory, "name" a file that holds its own
// name, "name -> target" a link, "name |" a FIFO, "name =" a socket.
func plant(t *testing.T, items ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, item := range items {
		name, target, link := strings.Cut(item, " -> ")
		name, fifo := strings.CutSuffix(name, " |")
		name, socket := strings.CutSuffix(name, " =")
		full := filepath.Join(dir, name)
		var err error
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(full, 0o777)
		case link:
			err = errors.Join(os.MkdirAll(filepath.Dir(full), 0o777), os.Symlink(target, full))
		case fifo:
			err = errors.Join(os.MkdirAll(filepath.Dir(full), 0o777), syscall.Mkfifo(full, 0o666))
		case socket:
			err = errors.Join(os.MkdirAll(filepath.Dir(full), 0o777), syscall.Mknod(full, syscall.S_IFSOCK|0o666, 0))
		default:
			err = errors.Join(os.MkdirAll(filepath.Dir(full), 0o777), os.WriteFile(full, []byte(name), 0o666))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newWalker(t *testing.T, cfg Config, inputs ...string) *Walker {
	t.Helper()
	w, err := New(inputs, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// list walks and opens everything: a document is shown as its path, or as
// "path: category" when it does not open. Count and Empty must agree.
func list(t *testing.T, w *Walker) []string {
	t.Helper()
	var got []string
	for d := range w.Documents(t.Context()) {
		f, err := d.Open()
		if err != nil {
			var p *orchestrator.PageError
			if !errors.As(err, &p) || p.Ref != (orchestrator.PageRef{Path: d.Path}) || p.Stage != orchestrator.StageOpen || p.Message == "" {
				t.Fatalf("%s: got %#v, want a PageError of the document", d.Path, err)
			}
			got = append(got, d.Path+": "+string(p.Category))
			continue
		}
		data, err := io.ReadAll(f)
		if err != nil || int64(len(data)) != d.Size {
			t.Errorf("%s: read %d bytes, %v; listed with %d", d.Path, len(data), err, d.Size)
		}
		f.Close()
		got = append(got, d.Path)
	}
	if n, err := w.Count(t.Context()); err != nil || n != len(got) {
		t.Errorf("counted %d (%v), walked %d", n, err, len(got))
	}
	if empty := w.Empty(t.Context()); empty != (len(got) == 0) {
		t.Errorf("empty: %v, with %d documents", empty, len(got))
	}
	return got
}

// noMoreFiles has opening fail from here on.
func noMoreFiles(t *testing.T) (enough func()) {
	t.Helper()
	next, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(next) // the lowest that is free
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
	}
	set(syscall.Rlimit{Cur: uint64(next), Max: before.Max})
	return func() { set(before) }
}

// Too many open files are no document's fault and no input's.
func TestTooManyOpenFiles(t *testing.T) {
	dir := plant(t, "a.pdf", "b/c.pdf", "d/")
	walker := newWalker(t, Config{}, dir)
	documents := slices.Collect(walker.Documents(t.Context()))
	root := newWalker(t, Config{}, filepath.Join(dir, "a.pdf"), filepath.Join(dir, "b"))

	enough := noMoreFiles(t)
	documents = append(documents, slices.Collect(walker.Documents(t.Context()))...) // the directory
	documents = append(documents, slices.Collect(root.Documents(t.Context()))...)
	var errs []error
	for _, d := range documents {
		f, err := d.Open()
		f.Close()
		errs = append(errs, err)
	}
	inB := found{root: &walker.roots[0], name: "b/c.pdf", path: "b/c.pdf"}.document(t.Context(), false)
	for _, d := range []orchestrator.Document{documents[2], documents[4], inB} { // could not be looked at
		errs = append(errs, d.Err)
	}
	_, err := New([]string{dir}, Config{})
	enough()

	if len(documents) != 5 {
		t.Fatalf("%d documents", len(documents))
	}
	for _, err := range append(errs, err) {
		var p *orchestrator.PageError
		if !errors.Is(err, syscall.EMFILE) || errors.As(err, &p) || strings.Contains(err.Error(), "readable for") || !strings.Contains(err.Error(), ": too many open files") {
			t.Errorf("got %#v %v", err, err)
		}
	}
}

func TestDocuments(t *testing.T) {
	tests := []struct {
		name string
		tree []string
		cfg  Config
		want []string
	}{
		{name: "nothing"},
		{name: "sorted, any depth, any case, nothing but PDF",
			tree: []string{"b.pdf", "a.PDF", "c/z.pdf", "c/d/e/f.Pdf", "c.pdf", "notes.txt", "pdf", "x.pdf.json", ".pdf", "empty/"},
			want: []string{".pdf", "a.PDF", "b.pdf", "c/d/e/f.Pdf", "c/z.pdf", "c.pdf"}},
		{name: "names that are not UTF-8, spaces, signs",
			tree: []string{"\xff\xfe.pdf", "a b.pdf", "100%.pdf", "line\nbreak.pdf", "[x].pdf"},
			want: []string{"100%.pdf", "[x].pdf", "a b.pdf", "line\nbreak.pdf", "\xff\xfe.pdf"}},
		{name: "a directory called .pdf is a directory",
			tree: []string{"x.pdf/y.pdf"}, want: []string{"x.pdf/y.pdf"}},
		{name: "links to files inside count, others are accounted for",
			tree: []string{"a.pdf", "sub/in.pdf -> ../a.pdf", "out.pdf -> /etc/passwd", "up.pdf -> ../../x.pdf", "gone.pdf -> nowhere",
				"loop.pdf -> loop.pdf", "dir.pdf -> sub", "other -> a.pdf"},
			want: []string{"a.pdf", "dir.pdf: not_regular", "gone.pdf: unreadable", "loop.pdf: unreadable", "out.pdf: unreadable",
				"sub/in.pdf", "up.pdf: unreadable"}},
		{name: "links to directories are not followed",
			tree: []string{"sub/a.pdf", "again -> sub", "sub/up -> ..", "self -> ."},
			want: []string{"sub/a.pdf"}},
		{name: "what is no regular file is not waited for",
			tree: []string{"a.pdf |", "b |", "c.pdf -> b", "d.pdf", "e.pdf =", "f =", "g.pdf -> f", "null.pdf -> /dev/null"},
			want: []string{"a.pdf: not_regular", "c.pdf: not_regular", "d.pdf", "e.pdf: not_regular", "g.pdf: not_regular", "null.pdf: unreadable"}},
		{name: "loops of links",
			tree: []string{"a.pdf -> b.pdf", "b.pdf -> sub/c.pdf", "sub/c.pdf -> ../a.pdf", "sub/deeper/up -> ../..", "sub/deeper/d.pdf"},
			want: []string{"a.pdf: unreadable", "b.pdf: unreadable", "sub/c.pdf: unreadable", "sub/deeper/d.pdf"}},
		{name: "the longest name there can be",
			tree: []string{strings.Repeat("x", 251) + ".pdf"}, want: []string{strings.Repeat("x", 251) + ".pdf"}},
		{name: "include by name, at any depth",
			tree: []string{"a.pdf", "a.tif", "sub/b.tif", "sub/b.TIF"}, cfg: Config{Include: []string{"*.tif"}},
			want: []string{"a.tif", "sub/b.tif"}},
		{name: "include by path",
			tree: []string{"2023/a.pdf", "2024/a.pdf", "2024/q1/b.pdf", "old/2024/a.pdf"}, cfg: Config{Include: []string{"2024/**/*.pdf", "/2023/{a,b}.pdf"}},
			want: []string{"2023/a.pdf", "2024/a.pdf", "2024/q1/b.pdf"}},
		{name: "exclude goes before include and prunes directories",
			tree: []string{"a.pdf", "draft-a.pdf", "drafts/b.pdf", "sub/drafts/c.pdf", "sub/d.pdf", "sub/old/e.pdf"},
			cfg:  Config{Exclude: []string{"draft-*", "drafts/", "sub/old/**"}},
			want: []string{"a.pdf", "sub/d.pdf"}},
		{name: "everything",
			tree: []string{"a", "b/c"}, cfg: Config{Include: []string{"**"}}, want: []string{"a", "b/c"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWalker(t, tt.cfg, plant(t, tt.tree...))
			for range 2 { // a source can be walked again
				if got := list(t, w); !slices.Equal(got, tt.want) {
					t.Errorf("got  %q\nwant %q", got, tt.want)
				}
			}
		})
	}
}

func TestSeveralInputs(t *testing.T) {
	dir := plant(t, "one/a.pdf", "two/a.pdf", "two/sub/b.pdf", "c.PDF", "notes.txt", "elsewhere/d.pdf", "d-link.pdf -> elsewhere/../elsewhere/d.pdf", "pipe.pdf |", "skip.pdf")
	in := func(names ...string) []string {
		for i, n := range names {
			names[i] = filepath.Join(dir, n)
		}
		return names
	}
	tests := []struct {
		name   string
		inputs []string
		want   []string
	}{
		{"one directory", in("two"), []string{"a.pdf", "sub/b.pdf"}},
		{"directories in the order given", in("two", "one"), []string{"two/a.pdf", "two/sub/b.pdf", "one/a.pdf"}},
		{"one file", in("c.PDF"), []string{"c.PDF"}},
		{"a file needs no pattern", in("notes.txt"), []string{"notes.txt"}},
		{"but is left out by one", in("skip.pdf", "one"), []string{"one/a.pdf"}},
		{"files and directories", in("c.PDF", "one", "notes.txt"), []string{"c.PDF", "one/a.pdf", "notes.txt"}},
		{"a link that is named may lead anywhere", in("d-link.pdf"), []string{"d-link.pdf"}},
		{"a FIFO that is named", in("pipe.pdf"), []string{"pipe.pdf: not_regular"}},
		{"a device that is named", []string{"/dev/zero"}, []string{"zero: not_regular"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWalker(t, Config{Exclude: []string{"skip*"}}, tt.inputs...)
			if got := list(t, w); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
	t.Run("relative", func(t *testing.T) {
		t.Chdir(filepath.Join(dir, "two"))
		if got := list(t, newWalker(t, Config{}, ".", "../one")); !slices.Equal(got, []string{"two/a.pdf", "two/sub/b.pdf", "one/a.pdf"}) {
			t.Errorf("got %q", got)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	dir := plant(t, "x/in/a.pdf", "y/in/a.pdf", "closed/a.pdf", "gone.pdf -> nowhere")
	closed := filepath.Join(dir, "closed")
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(closed, 0o777) })
	x, y := filepath.Join(dir, "x/in"), filepath.Join(dir, "y/in")
	tests := []struct {
		name   string
		inputs []string
		cfg    Config
		want   []string
	}{
		{"nothing", nil, Config{}, []string{"no input"}},
		{"not there", []string{filepath.Join(dir, "z")}, Config{}, []string{filepath.Join(dir, "z"), "no such file"}},
		{"link to nothing", []string{filepath.Join(dir, "gone.pdf")}, Config{}, []string{"gone.pdf", "no such file"}},
		{"not readable", []string{closed}, Config{}, []string{closed, "permission denied: make it readable"}},
		{"below what is not readable", []string{filepath.Join(closed, "a.pdf")}, Config{}, []string{closed, "permission denied: make it readable"}},
		{"equal base names", []string{x, y}, Config{}, []string{x, y, `"in"`}},
		{"malformed include", []string{x}, Config{Include: []string{"[a"}}, []string{`"[a"`}},
		{"malformed exclude", []string{x}, Config{Exclude: []string{"{a"}}, []string{`"{a"`}},
		{"output is the input", []string{x}, Config{Output: x + "/../in"}, []string{x, "-o"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asNobody(dir, func() {
				w, err := New(tt.inputs, tt.cfg)
				if err == nil {
					_ = w.Close()
					t.Error("accepted")
					return
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q does not say %q", err, want)
					}
				}
			})
		})
	}
}

// asNobody runs f without root's right to pass over file permissions, so that
// tests see the same as root and as anyone. Linux keeps that right for each
// thread (setfsuid(2)). The tree at dir is made reachable first.
func asNobody(dir string, f func()) {
	if os.Geteuid() == 0 {
		for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			_ = os.Chmod(dir, 0o755)
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = syscall.Setfsuid(65534)
		defer func() { _ = syscall.Setfsuid(0) }()
	}
	f()
}

// Close may be called by whoever comes first, and by several at once.
func TestClosedByTwo(t *testing.T) {
	w, err := New([]string{t.TempDir()}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// A directory or file that cannot be read is accounted for, and the rest found.
func TestUnreadable(t *testing.T) {
	dir := plant(t, "a/x.pdf", "b/y.pdf", "c.pdf", "d.pdf")
	for _, name := range []string{"b", "c.pdf"} {
		if err := os.Chmod(filepath.Join(dir, name), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "b"), 0o777) })
	asNobody(dir, func() {
		want := []string{"a/x.pdf", "b: unreadable", "c.pdf: unreadable", "d.pdf"}
		if got := list(t, newWalker(t, Config{}, dir)); !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}

func TestOutputIsNotWalked(t *testing.T) {
	dir := plant(t, "a.pdf", "out/a.pdf.json", "out/pages.pdf", "sub/out/b.pdf", "link -> out")
	for _, output := range []string{"out", "link", "not-there-yet"} {
		want := []string{"a.pdf", "sub/out/b.pdf"}
		if output == "not-there-yet" {
			want = []string{"a.pdf", "out/pages.pdf", "sub/out/b.pdf"}
		}
		w := newWalker(t, Config{Output: filepath.Join(dir, output)}, dir)
		if got := list(t, w); !slices.Equal(got, want) {
			t.Errorf("output %s: got %q, want %q", output, got, want)
		}
	}
}

// A file that goes, turns into something else or becomes another one after it was
// listed.
func TestChangedAfterListing(t *testing.T) {
	dir := plant(t, "a.pdf", "b.pdf", "c.pdf", "d.pdf", "e.pdf")
	files := func() int {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	atFirst := files()
	w := newWalker(t, Config{}, dir)
	var docs []orchestrator.Document
	for d := range w.Documents(t.Context()) {
		docs = append(docs, d)
	}
	a, b := filepath.Join(dir, "a.pdf"), filepath.Join(dir, "b.pdf")
	if err := errors.Join(os.Remove(a), os.Remove(b), syscall.Mkfifo(b, 0o666)); err != nil {
		t.Fatal(err)
	}
	d, e, later := filepath.Join(dir, "d.pdf"), filepath.Join(dir, "e.pdf"), time.Now().Add(time.Hour)
	if err := errors.Join(os.WriteFile(a, []byte("x.pdf"), 0o666), os.Chtimes(a, later, later), os.Rename(a, d),
		os.WriteFile(e, []byte("longer"), 0o666), os.Chtimes(e, later, docs[4].ModTime)); err != nil {
		t.Fatal(err)
	}
	listed := files()
	want := []orchestrator.Category{orchestrator.CategoryUnreadable, orchestrator.CategoryNotRegular, "", orchestrator.CategoryChanged, orchestrator.CategoryChanged}
	for i, d := range docs {
		f, err := d.Open()
		var p *orchestrator.PageError
		if errors.As(err, &p) != (want[i] != "") || p != nil && p.Category != want[i] {
			t.Errorf("%s: got %v, want %q", d.Path, err, want[i])
		}
		f.Close()
	}
	if n := files(); n > listed {
		t.Errorf("%d files are open, %d before", n, listed)
	}
	if err := w.Close(); err != nil || files() > atFirst {
		t.Errorf("closed, %v: %d files are open, at first %d", err, files(), atFirst)
	}
}

// A document says what it is known by later: size, time, and on request a digest
// of its content; of what is no regular file nothing.
func TestWhatADocumentIsKnownBy(t *testing.T) {
	dir := plant(t, "a.pdf", "copy.pdf", "fifo.pdf |", "link.pdf -> a.pdf", "nowhere.pdf -> gone", "other.pdf")
	when := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	if err := os.WriteFile(filepath.Join(dir, "copy.pdf"), []byte("a.pdf"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "a.pdf"), when, when); err != nil {
		t.Fatal(err)
	}
	for _, checksum := range []bool{false, true} {
		docs := map[string]orchestrator.Document{}
		for d := range newWalker(t, Config{Checksum: checksum}, dir).Documents(t.Context()) {
			docs[d.Path] = d
		}
		if len(docs) != 6 {
			t.Fatalf("%d documents", len(docs))
		}
		for path, d := range docs {
			regular := path != "fifo.pdf" && path != "nowhere.pdf"
			if (d.Size > 0) != regular || d.ModTime.IsZero() == regular || (d.Sum != "") != (regular && checksum) {
				t.Errorf("checksum %v: %s has size %d, time %v, digest %q", checksum, path, d.Size, d.ModTime, d.Sum)
			}
		}
		a := docs["a.pdf"]
		if !a.ModTime.Equal(when) || !docs["link.pdf"].ModTime.Equal(when) || docs["link.pdf"].Sum != a.Sum {
			t.Errorf("a link is not what it leads to: %+v, %+v", docs["link.pdf"], a)
		}
		if docs["copy.pdf"].Sum != a.Sum || checksum && docs["other.pdf"].Sum == a.Sum {
			t.Errorf("digests: %q, of a copy %q, of another file %q", a.Sum, docs["copy.pdf"].Sum, docs["other.pdf"].Sum)
		}
	}
}

func TestStopping(t *testing.T) {
	dir := plant(t, "a/1.pdf", "a/2.pdf", "b/3.pdf", "c.pdf")
	w := newWalker(t, Config{}, dir)

	n := 0
	for range w.Documents(t.Context()) { // the reader stops
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("read %d documents, want 2", n)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n = 0
	for range w.Documents(ctx) { // the context ends
		n++
		cancel()
	}
	if n != 1 {
		t.Errorf("read %d documents after the context's end, want 1", n)
	}
	if _, err := w.Count(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Count gave %v, want the context's error", err)
	}
}

// A checksum that takes long is given up when the context ends.
func TestStoppingAChecksum(t *testing.T) {
	dir := plant(t, "a.pdf")
	if err := os.Truncate(filepath.Join(dir, "a.pdf"), 1<<40); err != nil { // of hours
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for doc := range newWalker(t, Config{Checksum: true}, dir).Documents(ctx) {
		t.Errorf("%s was yielded, its sum %q", doc.Path, doc.Sum)
	}
}

func TestLinkedDirectoryIsSaid(t *testing.T) {
	var said bytes.Buffer
	dir := plant(t, "sub/a.pdf", "again -> sub", "file -> sub/a.pdf")
	w := newWalker(t, Config{Log: slog.New(slog.NewTextHandler(&said, nil))}, dir)
	list(t, w)
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "link=again") {
		t.Errorf("said %q, want one line about the link", got)
	}
}

func TestDeepTree(t *testing.T) {
	const depth = 300 // names of 20 bytes: a path beyond PATH_MAX
	dir := t.TempDir()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	deep := strings.Repeat("abcdefghijklmnopqrst/", depth)
	if err := r.MkdirAll(strings.TrimSuffix(deep, "/"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteFile(deep+"a.pdf", []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if got := list(t, newWalker(t, Config{}, dir)); !slices.Equal(got, []string{deep + "a.pdf"}) {
		t.Errorf("got %d documents, want the one at depth %d", len(got), depth)
	}
}

func BenchmarkDocuments(b *testing.B) {
	dir := b.TempDir()
	for i := range 10_000 {
		sub := filepath.Join(dir, fmt.Sprint(i%100))
		if err := errors.Join(os.MkdirAll(sub, 0o777), os.WriteFile(filepath.Join(sub, fmt.Sprint(i, ".pdf")), nil, 0o666)); err != nil {
			b.Fatal(err)
		}
	}
	w, err := New([]string{dir}, Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	b.Run("documents", func(b *testing.B) {
		for b.Loop() {
			for range w.Documents(b.Context()) {
			}
		}
	})
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if n, err := w.Count(b.Context()); n != 10_000 || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}
