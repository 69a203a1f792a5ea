//go:build linux

package render

import (
	"bytes"
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/pdftest"
)

// What is drawn ahead is what is drawn when it is asked for, and the pixels of
// the page before stay as they are meanwhile.
func TestAhead(t *testing.T) {
	w := newWorker(t, newPool(t, Config{}))
	var pages []pdftest.Page
	for n := range 6 {
		pages = append(pages, plainPage(byte(40*n), 0, 0))
	}
	doc := newDocument(t, pdftest.Simple("", pages...).Bytes())
	open(t, w, doc)
	// Also what is not there, what is asked for twice, and what is not asked for.
	for _, turn := range [][2]int{{1, 2}, {2, 3}, {3, 0}, {4, 5}, {6, 1}, {1, 1}, {1, 7}, {2, -1}, {3, 6}, {6, 4}, {5, 4}, {4, 0}} {
		page, next := turn[0], turn[1]
		w.Ahead(next)
		pixels, _, err := w.Draw(t.Context(), page)
		if err != nil {
			t.Fatal(err)
		}
		if w.process.ahead != nil {
			if n := w.process.ahead.page + 1; n != next || n < 1 || n > len(pages) {
				t.Errorf("page %d is drawn ahead, not %d", n, next)
			}
			for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
				if pixels[0] != byte(40*(page-1)) {
					t.Fatalf("the pixels of page %d changed", page)
				}
			}
		} else if next >= 1 && next <= len(pages) {
			t.Errorf("page %d is not drawn ahead", next)
		}
		if !bytes.Equal(pixels, bytes.Repeat([]byte{byte(40 * (page - 1)), 0, 0}, width*height)) {
			t.Errorf("page %d after Ahead(%d) begins with %v", page, next, pixels[:3])
		}
	}
	// What was said of one page's successor is not about the next page's.
	w.Ahead(2)
	wantColour(t, w, 1, 0, 0, 0)
	wantColour(t, w, 2, 40, 0, 0)
	if w.process.ahead != nil {
		t.Errorf("page %d is drawn ahead, and nobody said so", w.process.ahead.page+1)
	}
	// Another document's page of that number is another page.
	w.Ahead(2)
	wantColour(t, w, 1, 0, 0, 0)
	open(t, w, newDocument(t, pdftest.Simple("", plainPage(0, 0, 7), plainPage(0, 0, 9)).Bytes()))
	wantColour(t, w, 2, 0, 0, 9)
}

// answered waits until a process has said something that nobody has read.
func answered(t *testing.T, p *process) {
	t.Helper()
	raw, err := p.conn.sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n, pollErr := 0, error(unix.EINTR)
	err = raw.Control(func(fd uintptr) {
		for errors.Is(pollErr, unix.EINTR) {
			n, pollErr = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		}
	})
	if err != nil || pollErr != nil || n != 1 {
		t.Fatalf("no answer: %v, %v", err, pollErr)
	}
}

// A page that is drawn ahead ends as one that is asked for does, and when nobody
// asks it is nobody's fault.
func TestAheadOfEndlessPage(t *testing.T) {
	begin := func(t *testing.T, timeout time.Duration) (*worker, orchestrator.Document) {
		w := newWorker(t, newPool(t, Config{PageTimeout: timeout}))
		doc := newDocument(t, endlessAndPlain())
		open(t, w, doc)
		w.Ahead(1)
		wantColour(t, w, 2, 255, 0, 0)
		working(t, w.process.guarded.Pid())
		return w, doc
	}
	wantStats := func(t *testing.T, w *worker, crashes, kills int64) {
		t.Helper()
		if s := w.pool.Stats(); s.Crashes != crashes || s.Kills != kills {
			t.Errorf("stats %+v", s)
		}
	}
	t.Run("asked for", func(t *testing.T) {
		w, _ := begin(t, time.Second)
		process := w.process
		answered(t, w.process) // its time is over before it is asked for
		_, geometry, err := w.Draw(t.Context(), 1)
		wantError(t, err, orchestrator.StageRender, 1, orchestrator.CategoryTimeout)
		if geometry.WidthPt != 200 || w.process != process {
			t.Errorf("geometry %+v, same process: %v", geometry, w.process == process)
		}
		wantColour(t, w, 2, 255, 0, 0)
		wantStats(t, w, 0, 0)
	})
	t.Run("not asked for", func(t *testing.T) {
		w, doc := begin(t, -1)
		process := w.process
		wantColour(t, w, 2, 255, 0, 0)
		w.Ahead(1)
		wantColour(t, w, 2, 255, 0, 0)
		open(t, w, doc)
		wantColour(t, w, 2, 255, 0, 0)
		if w.process != process {
			t.Error("the process was replaced")
		}
		wantStats(t, w, 0, 0)
	})
	t.Run("does not stop", func(t *testing.T) {
		w, doc := begin(t, -1)
		process := w.process
		stop(t, process.guarded)
		files := countFiles(t, os.Getpid())
		open(t, w, doc)
		if n := countFiles(t, os.Getpid()); n > files {
			t.Errorf("%d files open, %d before the process was given up", n, files)
		}
		wantColour(t, w, 2, 255, 0, 0)
		if w.process == process {
			t.Error("the process was not replaced")
		}
		wantStats(t, w, 0, 0)
	})
	t.Run("crashes", func(t *testing.T) {
		w, _ := begin(t, -1)
		process := w.process.guarded
		if err := process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-process.Done()
		_, _, err := w.Draw(t.Context(), 1)
		wantError(t, err, orchestrator.StageRender, 1, orchestrator.CategoryCrash)
		wantColour(t, w, 2, 255, 0, 0)
		wantStats(t, w, 1, 0)
	})
	t.Run("crashes and is not asked for", func(t *testing.T) {
		w, _ := begin(t, -1)
		process := w.process.guarded
		if err := process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-process.Done()
		wantColour(t, w, 2, 255, 0, 0)
		wantStats(t, w, 0, 0)
	})
	t.Run("cancelled", func(t *testing.T) {
		w, _ := begin(t, -1)
		process := w.process
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		cancel(cause)
		if _, _, err := w.Draw(ctx, 1); !errors.Is(err, cause) {
			t.Errorf("got %v, want the context's cause", err)
		}
		wantColour(t, w, 2, 255, 0, 0)
		if w.process != process {
			t.Error("the process was replaced")
		}
		wantStats(t, w, 0, 0)
	})
	t.Run("cancelled meanwhile", func(t *testing.T) {
		w, _ := begin(t, -1)
		process := w.process
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
		defer cancel()
		if _, _, err := w.Draw(ctx, 1); err == nil || err.Error() != "enough" {
			t.Errorf("got %v, want the context's cause", err)
		}
		wantColour(t, w, 2, 255, 0, 0)
		if w.process != process {
			t.Error("the process was replaced")
		}
		wantStats(t, w, 0, 0)
	})
	t.Run("closed", func(t *testing.T) {
		w, _ := begin(t, -1)
		process := w.process.guarded
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		<-process.Done()
		if s := process.State(); !s.Success() {
			t.Errorf("the process ended with %v", s)
		}
	})
}
