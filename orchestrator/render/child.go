//go:build linux

package render

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire/orchestrator/render/internal/mupdf"
)

// envWorker marks a process as a worker; its descriptors 3, 4 and 5 are the
// connection, the slot, and what tells of aborts.
const (
	envWorker = "QUIRE_RENDER_WORKER"
	fdConn    = 3
	fdSlot    = 4
	fdAborts  = 5
)

// Main turns a process that a [Pool] started into a worker and never returns
// there; elsewhere it does nothing. Call it first thing in main and in each
// TestMain, after guard.Main.
func Main() {
	if _, ok := os.LookupEnv(envWorker); !ok {
		return
	}
	// MuPDF's memory stays in one arena of the C library that way, and the main
	// thread has the deepest stack.
	runtime.LockOSThread()
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child is the worker's own side. The goroutine that called work reads a
// command, carries it out and answers, all on the main thread, so that a page
// wakes no other thread; another goroutine hears of aborts meanwhile.
type child struct {
	message
	engine *mupdf.Engine
	slot   []byte
	setup  setupCommand
	format mupdf.Format // of the open document
	// passwords are tried in order.
	passwords []string

	mu       sync.Mutex
	running  uint64 // the command that runs, or 0
	aborted  uint64 // the latest command that was to be aborted
	deadline time.Time
	timer    *time.Timer // calls expire
}

func work() error {
	// Where memory runs out, it is better to lose a page than the run.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)

	w := &child{message: newMessage()}
	first, err := w.receive()
	if err != nil || first.Setup == nil {
		return fmt.Errorf("render worker: no setup (%v)", err)
	}
	ready := reply{ID: first.ID}
	ready.fail(w.prepare(*first.Setup, first.file))
	if first.Setup.Sandbox != SandboxOff {
		// From here on nothing can be opened any more.
		s := confine()
		ready.Sandbox = &s
	}
	go w.hearAborts(os.NewFile(fdAborts, "aborts"))
	for r := ready; ; {
		if err := w.send(r); err != nil {
			return fmt.Errorf("render worker: %w", err)
		}
		if r.Last {
			os.Exit(0)
		}
		cmd, err := w.receive()
		if err != nil {
			// The parent is gone, and MuPDF need not be tidied up.
			os.Exit(0)
		}
		if r, err = w.answer(cmd); err != nil {
			return fmt.Errorf("render worker: %w", err)
		}
	}
}

func (w *child) prepare(s setupCommand, passwords *os.File) error {
	w.setup = s
	if passwords != nil {
		defer passwords.Close()
		// Its position is that of whoever wrote it.
		from := io.NewSectionReader(passwords, 0, math.MaxInt64)
		if err := json.NewDecoder(from).Decode(&w.passwords); err != nil {
			return fmt.Errorf("reading the passwords: %w", err)
		}
	}
	mem, err := unix.Mmap(fdSlot, 0, slotSize(s.Width, s.Height), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	unix.Close(fdSlot)
	w.slot = mem
	w.engine, err = mupdf.New(s.Memory, storeBytes)
	return err
}

type commandWithFile struct {
	command
	file *os.File
}

// receive waits for a command. The thread waits in the system call itself: Go's
// poller would wake another one first.
func (w *child) receive() (cmd commandWithFile, err error) {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(fdConn, w.buf, w.oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && n == 0:
			err = io.EOF
		}
		if err != nil {
			return cmd, err
		}
		cmd.file, err = w.unpack(n, oobn, flags, &cmd.command)
		return cmd, err
	}
}

func (w *child) send(r reply) error {
	data, err := pack(r)
	if err != nil {
		return err
	}
	for {
		if _, err := unix.Write(fdConn, data); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// hearAborts ends the process when the parent is gone: nobody waits for what
// runs.
func (w *child) hearAborts(from io.Reader) {
	var id [8]byte
	for {
		if _, err := io.ReadFull(from, id[:]); err != nil {
			os.Exit(0)
		}
		w.abort(binary.NativeEndian.Uint64(id[:]))
	}
}

func (w *child) answer(cmd commandWithFile) (reply, error) {
	r := reply{ID: cmd.ID}
	start := threadCPU()
	switch {
	case cmd.Open != nil && cmd.file != nil:
		end := w.begin(cmd.ID, cmd.Open.Timeout)
		w.format = cmd.Open.Format
		pages, err := w.engine.Open(cmd.file, cmd.Open.Format, w.passwords)
		end()
		r.Pages = pages
		r.fail(err)
	case cmd.Draw != nil:
		if w.engine.Stale() {
			end := w.begin(cmd.ID, cmd.Draw.Reopen)
			err := w.engine.Reopen()
			end()
			if err != nil {
				r.Again = true
				r.fail(err)
				break
			}
		}
		end := w.begin(cmd.ID, cmd.Draw.Timeout)
		page, err := w.engine.Draw(cmd.Draw.Page, w.setup.Width, w.setup.Height, w.setup.Fit, half(w.slot, cmd.Draw.Second))
		end()
		r.Page = &drawnPage{page.WidthPt, page.HeightPt, page.Rotation, page.CropBox, page.Width, page.Height}
		r.fail(err)
	default:
		return r, errors.New("a command that is none")
	}
	r.CPU = threadCPU() - start
	r.Stale = w.engine.Stale()
	r.Last = r.Reason != 0 && w.format.LaidOut()
	r.MissedLetters = w.engine.MissedLetters()
	if log, lost := w.engine.Messages(); w.setup.Log {
		r.Log, r.Lost = log, lost
	}
	return r, nil
}

// threadCPU is the processor time of this thread, which is MuPDF's alone but for
// what answers its commands.
func threadCPU() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // never fails
	return time.Duration(ts.Nano())
}

// begin lets the engine be stopped, by the time or by the parent, until end is
// called.
func (w *child) begin(id uint64, timeout time.Duration) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = id
	if w.aborted == id {
		w.engine.Abort()
	}
	w.deadline = time.Time{}
	if timeout > 0 {
		w.deadline = time.Now().Add(timeout)
		// It is not stopped in between: a timer that is only ever put off wakes
		// nobody.
		if w.timer == nil {
			w.timer = time.AfterFunc(timeout, w.expire)
		} else {
			w.timer.Reset(timeout)
		}
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running = 0
		w.engine.Resume()
	}
}

// expire stops the command whose time is over.
func (w *child) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running != 0 && !w.deadline.IsZero() && !time.Now().Before(w.deadline) {
		w.engine.Abort()
	}
}

// abort stops a command whether it runs or has not begun; one that has ended
// is not confused with its successor.
func (w *child) abort(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.aborted = id
	if w.running == id {
		w.engine.Abort()
	}
}

func (r *reply) fail(err error) {
	if err == nil {
		return
	}
	r.Reason, r.Message = mupdf.Malformed, err.Error()
	if e, ok := errors.AsType[*mupdf.Error](err); ok {
		r.Reason, r.Message = e.Reason, e.Message
	}
}
