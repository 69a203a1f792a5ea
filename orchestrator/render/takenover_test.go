//go:build linux

package render

import (
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/mupdf"
	"quire/orchestrator/render/internal/pdftest"
)

// takeOver has a worker's commands answered by the test, as a document would
// that has taken the process over. The files go with each answer.
func takeOver(t *testing.T, w *worker, answer func(id uint64) reply, files ...int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, aborts, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newConn(os.NewFile(uintptr(pair[0]), "ours"), aborts)
	if err != nil {
		t.Fatal(err)
	}
	theirs, id := w.process.conn, w.process.lastID
	w.process.conn = c // the process lives as long as theirs is open
	done := make(chan bool)
	go func() {
		defer close(done)
		defer unix.Close(pair[1])
		buf := make([]byte, maxMessage)
		for {
			if n, err := unix.Read(pair[1], buf); n <= 0 || err != nil {
				return // the process was given up
			}
			id++
			data, err := pack(answer(id))
			if err != nil {
				t.Error(err)
			}
			var rights []byte
			if len(files) > 0 {
				rights = unix.UnixRights(files...)
			}
			_ = unix.Sendmsg(pair[1], data, rights, nil, 0)
		}
	}()
	t.Cleanup(func() {
		theirs.close()
		w.Close()
		<-done
	})
}

// A run may not become as long as a worker says.
func TestMorePagesThanThereCanBe(t *testing.T) {
	pool := newPool(t, Config{OtherFormats: true})
	pdf := pdftest.Simple("", plainPage(255, 0, 0)).Bytes()
	for _, c := range []struct {
		name  string
		data  []byte
		pages int
	}{
		{"a.pdf", pdf, -1},
		{"a.pdf", pdf, len(pdf) + 1025},
		{"a.pdf", pdf, 1 << 40},
		{"a.pdf", pdf, math.MaxInt},
		{"a.txt", []byte("text"), math.MaxInt32 + 1},
	} {
		w := newWorker(t, pool)
		takeOver(t, w, func(id uint64) reply { return reply{ID: id, Pages: c.pages} })
		n, err := w.Open(t.Context(), namedDocument(t, c.name, c.data))
		if err == nil {
			t.Errorf("%s of %d bytes has %d pages", c.name, len(c.data), n)
			continue
		}
		var e *orchestrator.PageError
		if e, _ = err.(*orchestrator.PageError); e == nil || e.Category != orchestrator.CategoryCrash {
			t.Errorf("%s: %v", c.name, err)
		}
		open(t, w, newDocument(t, pdf))
		wantColour(t, w, 1, 255, 0, 0)
	}
}

// A page is not taken for what it cannot be, and what was not asked for is no
// answer; the worker is ended.
func TestAnswersThatCannotBe(t *testing.T) {
	pool := newPool(t, Config{})
	doc := newDocument(t, pdftest.Simple("", plainPage(255, 0, 0)).Bytes())
	page := func(change func(*drawnPage)) *drawnPage {
		p := &drawnPage{WidthPt: 200, HeightPt: 100, CropBox: [4]float64{0, 0, 200, 100}, Width: width, Height: height}
		change(p)
		return p
	}
	whole := page(func(*drawnPage) {})
	for _, c := range []struct {
		name   string
		fit    bool
		answer reply // its ID is how far it is from the right one
		files  int   // that come with it
		drawn  bool
	}{
		{"what it should be", false, reply{Page: whole}, 0, true},
		{"no geometry", false, reply{}, 0, false},
		{"turned by 45 degrees", false, reply{Page: page(func(p *drawnPage) { p.Rotation = 45 })}, 0, false},
		{"no width", false, reply{Page: page(func(p *drawnPage) { p.WidthPt = 0 })}, 0, false},
		{"no height", false, reply{Page: page(func(p *drawnPage) { p.HeightPt = 0 })}, 0, false},
		{"failed and narrower than nothing", false, reply{Reason: mupdf.Malformed, Page: page(func(p *drawnPage) { p.WidthPt = -1 })}, 0, false},
		{"failed and lower than nothing", false, reply{Reason: mupdf.Malformed, Page: page(func(p *drawnPage) { p.HeightPt = -1 })}, 0, false},
		{"another raster", false, reply{Page: page(func(p *drawnPage) { p.Width-- })}, 0, false},
		{"another raster's height", false, reply{Page: page(func(p *drawnPage) { p.Height-- })}, 0, false},
		{"a smaller picture", true, reply{Page: page(func(p *drawnPage) { p.Width, p.Height = 1, 1 })}, 0, true},
		{"a picture that is too wide", true, reply{Page: page(func(p *drawnPage) { p.Width++ })}, 0, false},
		{"a picture that is too high", true, reply{Page: page(func(p *drawnPage) { p.Height = 1 << 40 })}, 0, false},
		{"a picture without width", true, reply{Page: page(func(p *drawnPage) { p.Width = 0 })}, 0, false},
		{"a picture without height", true, reply{Page: page(func(p *drawnPage) { p.Height = -1 })}, 0, false},
		{"the answer to another command", false, reply{ID: 1, Page: whole}, 0, false},
		{"a file with it", false, reply{Page: whole}, 1, false},
		{"two files with it", false, reply{Page: whole}, 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := pool.newWorker(t.Context(), raster{width, height, c.fit})
			if err != nil {
				t.Fatal(err)
			}
			open(t, w, doc)
			ours, theirs, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			defer theirs.Close()
			takeOver(t, w, func(id uint64) reply {
				r := c.answer
				r.ID += id
				return r
			}, slices.Repeat([]int{int(theirs.Fd())}, c.files)...)
			process := w.process.guarded
			got, err := w.draw(t.Context(), 1)
			if c.drawn {
				if err != nil || len(got.pixels) != got.width*got.height*3 {
					t.Errorf("%d bytes of %d×%d, %v", len(got.pixels), got.width, got.height, err)
				}
				return
			}
			wantError(t, err, orchestrator.StageRender, 1, orchestrator.CategoryCrash)
			if state := process.State(); state.Success() {
				t.Errorf("its process ended with %v", state)
			}
			// No copy of the file that came is open here.
			theirs.Close()
			_ = ours.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the file that came with it is still open: %v", err)
			}
		})
	}
}

// Whatever a worker writes to its standard error, its beginning is kept, and it can
// go on.
func TestHead(t *testing.T) {
	said, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h := readHead(said)
	for _, text := range []string{"\nthis is first\n", strings.Repeat("x", 1<<20)} {
		if _, err := stderr.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	stderr.Close()
	<-h.done
	if got := h.said(); !strings.HasPrefix(got, ": this is first\nxxx") || len(got) > headBytes+2 {
		t.Errorf("%d bytes are kept: %.40q", len(got), got)
	}
	h.close()
}

// A worker that does not hear of aborts holds nobody up.
func TestAbortsThatNobodyReads(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	for {
		if _, err := unix.Write(pipe[1], make([]byte, 8)); err == unix.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	c := &conn{aborts: os.NewFile(uintptr(pipe[1]), "aborts")}
	defer c.aborts.Close()
	done := make(chan bool)
	go func() {
		defer close(done)
		c.abort(1)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("it waits for somebody to read")
	}
}
