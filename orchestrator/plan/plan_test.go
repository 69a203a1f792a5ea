package plan

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"quire/orchestrator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// list is a source of documents that are files with one content.
type list struct {
	file  string
	paths []string
}

func (l list) Documents(ctx context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		for _, p := range l.paths {
			d := orchestrator.Document{Path: p, Open: func() (*os.File, error) { return os.Open(l.file) }}
			if ctx.Err() != nil || !yield(d) {
				return
			}
		}
	}
}

// file writes a file of so many bytes that begins with text.
func file(t *testing.T, text string, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(name, []byte(text), 0o600), os.Truncate(name, size)); err != nil {
		t.Fatal(err)
	}
	return name
}

// opener is a renderer whose workers only open.
type opener struct {
	open  func(ctx context.Context, path string) (int, error)
	opens func(ctx context.Context, doc orchestrator.Document) (int, error) // instead of open

	mu      sync.Mutex
	opened  []string
	workers int
	closed  int
}

func (o *opener) NewWorker(_ context.Context, width, height int) (orchestrator.RenderWorker, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.workers++
	return &openWorker{o: o}, nil
}

type openWorker struct{ o *opener }

func (w *openWorker) Open(ctx context.Context, doc orchestrator.Document) (int, error) {
	w.o.mu.Lock()
	w.o.opened = append(w.o.opened, doc.Path)
	w.o.mu.Unlock()
	if w.o.opens != nil {
		return w.o.opens(ctx, doc)
	}
	return w.o.open(ctx, doc.Path)
}

func (w *openWorker) Draw(context.Context, int) ([]byte, orchestrator.Geometry, error) {
	panic("a plan draws nothing")
}

func (w *openWorker) Ahead(int) {}

func (w *openWorker) Close() error {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	w.o.closed++
	return nil
}

func (o *opener) checkClosed(t *testing.T) {
	t.Helper()
	if o.workers != o.closed {
		t.Errorf("%d workers were made, %d closed", o.workers, o.closed)
	}
}

// numbered gives n paths in order.
func numbered(n int) []string {
	paths := make([]string, n)
	for i := range paths {
		paths[i] = fmt.Sprintf("d/%06d.pdf", i)
	}
	return paths
}

func number(path string) int {
	var n int
	_, _ = fmt.Sscanf(path, "d/%d.pdf", &n)
	return n
}

func malformed(path string) error {
	return &orchestrator.PageError{Ref: orchestrator.PageRef{Path: path}, Stage: orchestrator.StageOpen, Category: orchestrator.CategoryMalformed, Message: "broken"}
}

func TestFewDocumentsAreAllOpened(t *testing.T) {
	o := &opener{open: func(_ context.Context, path string) (int, error) {
		if number(path)%10 == 3 {
			return 0, malformed(path)
		}
		return 1 + number(path), nil
	}}
	var told []string
	in, err := Look(t.Context(), Config{
		Source: list{file: file(t, "%PDF-1.4", 5000), paths: numbered(40)}, Renderer: o, Sample: 40,
		Problem: func(e *orchestrator.PageError) { told = append(told, e.Ref.Path) },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Estimate{Pages: 820 - 4 - 14 - 24 - 34, Opened: 40, Of: 40, Failed: 4}
	want.Low, want.High = want.Pages, want.Pages
	if in.Pages != want || !in.Pages.Exact() || in.Documents != 40 || in.Bytes != 200_000 {
		t.Errorf("%+v; want %+v", in, want)
	}
	if !slices.Equal(told, []string{"d/000003.pdf", "d/000013.pdf", "d/000023.pdf", "d/000033.pdf"}) || in.Unreadable[orchestrator.CategoryMalformed] != 4 {
		t.Errorf("told of %v, counted %v", told, in.Unreadable)
	}
	o.checkClosed(t)
}

// fetching is a source that gets a document when it is opened, for as long as it
// is walked.
type fetching struct{ list }

func (f fetching) Documents(ctx context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		for doc := range f.list.Documents(ctx) {
			open := doc.Open
			doc.Open = func() (*os.File, error) {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				return open()
			}
			if !yield(doc) {
				return
			}
		}
	}
}

// The source's context lives as long as its documents are opened.
func TestSourceLivesUntilTheLastIsOpened(t *testing.T) {
	o := &opener{opens: func(_ context.Context, doc orchestrator.Document) (int, error) {
		file, err := doc.Open()
		if err != nil {
			return 0, malformed(doc.Path)
		}
		return 2, file.Close()
	}}
	in, err := Look(t.Context(), Config{Source: fetching{list{file: file(t, "%PDF-1.4", 5000), paths: numbered(40)}}, Renderer: o})
	if err != nil || in.Problems() != 0 || in.Pages.Pages != 80 {
		t.Errorf("%+v, %v", in, err)
	}
	o.checkClosed(t)
}

// Counts that no document has: none is a problem as it is to a run, fewer is the
// renderer's fault.
func TestPagesThatCannotBe(t *testing.T) {
	for _, mark := range []string{"%PDF-1.4", "something else"} {
		for _, pages := range []int{0, -25} {
			o := &opener{open: func(context.Context, string) (int, error) { return pages, nil }}
			in, err := Look(t.Context(), Config{Source: list{file: file(t, mark, 5000), paths: numbered(3)}, Renderer: o, Workers: 1})
			if pages == 0 && (err != nil || in.Unreadable[orchestrator.CategoryNoPages] != 3) ||
				pages < 0 && (err == nil || !strings.Contains(err.Error(), "the renderer says that it has -25 pages")) {
				t.Errorf("%d pages: %+v, %v", pages, in, err)
			}
			o.checkClosed(t)
		}
	}
}

func TestManyDocumentsAreSampled(t *testing.T) {
	const n, sample = 20_000, 100
	sum := 0
	pages := func(i int) int { return 1 + (i*7919)%20 }
	for i := range n {
		sum += pages(i)
	}
	look := func() (Inputs, []string) {
		o := &opener{open: func(_ context.Context, path string) (int, error) { return pages(number(path)), nil }}
		in, err := Look(t.Context(), Config{
			Source: list{file: file(t, "%PDF-1.4", 5000), paths: numbered(n)}, Renderer: o, Sample: sample, Workers: 3,
		})
		if err != nil {
			t.Fatal(err)
		}
		o.checkClosed(t)
		slices.Sort(o.opened)
		return in, o.opened
	}
	in, opened := look()
	again, openedAgain := look()
	if in.Pages != again.Pages || !slices.Equal(opened, openedAgain) {
		t.Errorf("two looks differ: %+v and %+v", in.Pages, again.Pages)
	}
	e := in.Pages
	if e.Opened != sample || len(opened) != sample || e.Of != n || e.Exact() {
		t.Errorf("%+v, %d opened; want %d of %d", e, len(opened), sample, n)
	}
	if e.Low > int64(sum) || e.High < int64(sum) || e.Low >= e.Pages || e.High > 2*int64(sum) {
		t.Errorf("%+v; there are %d", e, sum)
	}
	for i := range 10 {
		in := 0
		for _, p := range opened {
			if number(p)/(n/10) == i {
				in++
			}
		}
		if in < 2 {
			t.Errorf("%d documents of tenth %d were opened, %d in all: not spread over everything", in, i, len(opened))
		}
	}
}

func TestSizesTellPages(t *testing.T) {
	// A few long documents hold most of the pages: a sample that does not look
	// at sizes would miss them, or meet one by luck and be far off.
	small, large := list{file: file(t, "%PDF-1.4", 20_000)}, list{file: file(t, "%PDF-1.4", 50_000_000)}
	for i, p := range numbered(5000) {
		if i%500 == 250 {
			large.paths = append(large.paths, p)
		} else {
			small.paths = append(small.paths, p)
		}
	}
	o := &opener{open: func(_ context.Context, path string) (int, error) {
		if number(path)%500 == 250 {
			return 1000 + number(path)%7, nil
		}
		return 2, nil
	}}
	in, err := Look(t.Context(), Config{Source: both{small, large}, Renderer: o, Sample: 60})
	if err != nil {
		t.Fatal(err)
	}
	want := int64(4990 * 2)
	for _, p := range large.paths {
		want += int64(1000 + number(p)%7)
	}
	// All long ones are opened, and some of the short ones, which are alike.
	if e := in.Pages; e.Pages != want || e.Low >= want || e.High <= want || e.High-e.Low > want/2 {
		t.Errorf("%+v; want %d", e, want)
	}
}

type both [2]list

func (b both) Documents(ctx context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		for _, l := range b {
			for d := range l.Documents(ctx) {
				if !yield(d) {
					return
				}
			}
		}
	}
}

func TestTimeIsKept(t *testing.T) {
	pdf := file(t, "%PDF-1.4", 5000)
	synctest.Test(t, func(t *testing.T) {
		o := &opener{open: func(ctx context.Context, path string) (int, error) {
			select {
			case <-time.After(time.Second):
				return 10, nil
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}}
		start := time.Now()
		in, err := Look(t.Context(), Config{
			Source: list{file: pdf, paths: numbered(100)}, Renderer: o, Workers: 2, Time: 10*time.Second + time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 10*time.Second+time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if e := in.Pages; e.Opened != 20 || e.Of != 100 || e.Pages != 1000 || len(in.Unreadable) != 0 {
			t.Errorf("%+v, %v; want 20 opened, 1000 pages, and no document blamed", e, in.Unreadable)
		}
		o.checkClosed(t)
	})
}

func TestNothingOpenedInTime(t *testing.T) {
	pdf := file(t, "%PDF-1.4", 5000)
	synctest.Test(t, func(t *testing.T) {
		o := &opener{open: func(ctx context.Context, path string) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}}
		in, err := Look(t.Context(), Config{Source: list{file: pdf, paths: numbered(3)}, Renderer: o})
		if err != nil || in.Pages.Known() || in.Pages.Of != 3 {
			t.Errorf("%+v, %v", in, err)
		}
	})
}

func TestEndingTheContext(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	o := &opener{open: func(ctx context.Context, path string) (int, error) {
		cancel(cause)
		<-ctx.Done()
		return 0, context.Cause(ctx)
	}}
	_, err := Look(ctx, Config{Source: list{file: file(t, "%PDF-1.4", 5000), paths: numbered(3)}, Renderer: o})
	if !errors.Is(err, cause) {
		t.Errorf("while opening: %v", err)
	}
	if _, err = Look(ctx, Config{Source: list{file: file(t, "%PDF-1.4", 5000), paths: numbered(3)}, Renderer: o}); !errors.Is(err, cause) {
		t.Errorf("while walking: %v", err)
	}
	o.checkClosed(t)
}

func TestBrokenMachine(t *testing.T) {
	broken := errors.New("no process")
	o := &opener{open: func(context.Context, string) (int, error) { return 0, broken }}
	_, err := Look(t.Context(), Config{Source: list{file: file(t, "%PDF-1.4", 5000), paths: numbered(9)}, Renderer: o})
	if !errors.Is(err, broken) {
		t.Errorf("%v; want the worker's error", err)
	}
	o.checkClosed(t)
}

func TestWhatHasNoMarkIsOpened(t *testing.T) {
	o := &opener{open: func(_ context.Context, path string) (int, error) {
		if strings.HasPrefix(path, "good") {
			return 4, nil
		}
		return 0, malformed(path)
	}}
	in, err := Look(t.Context(), Config{Source: list{file: file(t, "\x89PNG", 5000), paths: []string{"good.png", "good.pdf", "bad.pdf"}}, Renderer: o})
	if err != nil {
		t.Fatal(err)
	}
	if in.Pages.Pages != 8 || !in.Pages.Exact() || in.Pages.Opened != 2 || in.Problems() != 1 {
		t.Errorf("%+v", in)
	}
}

func TestWhatHasNoMarkMayTakeAllTheTime(t *testing.T) {
	text := file(t, "text", 5000)
	synctest.Test(t, func(t *testing.T) {
		o := &opener{open: func(_ context.Context, path string) (int, error) {
			time.Sleep(time.Second)
			return 0, malformed(path)
		}}
		// An image has no mark either, and its name does not say that it must.
		paths := append(numbered(100), "last.png", "LAST.PDF")
		in, err := Look(t.Context(), Config{Source: list{file: text, paths: paths}, Renderer: o, Time: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if in.Pages.Of != 1 || in.Pages.Failed != 1 || o.opened[len(o.opened)-1] != "last.png" {
			t.Errorf("%+v; want the image among what can be opened", in.Pages)
		}
		in.Unreadable[orchestrator.CategoryMalformed]--
		if in.Unreadable[orchestrator.CategoryMalformed] != 10 || in.Unreadable[orchestrator.CategoryNotPDF] != 91 {
			t.Errorf("%v; want 10 opened in 10 s, and the rest judged by the name", in.Unreadable)
		}
	})
}

func TestCrashIsTriedTwice(t *testing.T) {
	tries := map[string]int{}
	o := &opener{open: func(_ context.Context, path string) (int, error) {
		if tries[path]++; tries[path] == 1 || number(path) == 1 {
			return 0, &orchestrator.PageError{Ref: orchestrator.PageRef{Path: path}, Category: orchestrator.CategoryCrash}
		}
		return 3, nil
	}}
	in, err := Look(t.Context(), Config{Source: list{file: file(t, "%PDF-1.4", 5000), paths: numbered(2)}, Renderer: o, Workers: 1})
	if err != nil || in.Pages.Pages != 3 || in.Unreadable[orchestrator.CategoryCrash] != 1 || tries[numbered(2)[1]] != 2 {
		t.Errorf("%+v, %v, tries %v", in, err, tries)
	}
}
