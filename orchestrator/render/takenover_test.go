//go:build linux

package render

import (
	"math"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/pdftest"
)

// takeOver has a worker's commands answered by the test, as a document would
// that has taken the process over.
func takeOver(t *testing.T, w *worker, answer func(id uint64) reply) {
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
			_, _ = unix.Write(pair[1], data)
		}
	}()
	t.Cleanup(func() {
		w.Close()
		theirs.close()
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
