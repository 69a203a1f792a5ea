//go:build linux

package render

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire/orchestrator/render/internal/mupdf"
)

// envWorker marks a process as a worker; its descriptors 3 and 4 are the
// connection and the slot.
const (
	envWorker = "QUIRE_RENDER_WORKER"
	fdConn    = 3
	fdSlot    = 4
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

// child is the worker's own side. Commands are carried out one after another
// by the goroutine that called work; another one reads them, so that an abort
// is heard meanwhile.
type child struct {
	conn   *conn
	engine *mupdf.Engine
	rgb    []byte
	setup  setupCommand

	mu      sync.Mutex
	running uint64 // the command that runs, or 0
	aborted uint64 // the latest command that was to be aborted
}

func work() error {
	// Where memory runs out, it is better to lose a page than the run.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)

	c, err := newConn(os.NewFile(fdConn, "connection"))
	if err != nil {
		return fmt.Errorf("render worker: %w", err)
	}
	w := &child{conn: c}
	var first command
	if _, err := c.receive(&first); err != nil || first.Setup == nil {
		return fmt.Errorf("render worker: no setup (%v)", err)
	}
	ready := reply{ID: first.ID}
	if err := w.prepare(*first.Setup); err != nil {
		ready.Reason, ready.Message = reasonSetup, err.Error()
	}
	if first.Setup.Sandbox != SandboxOff {
		// From here on nothing can be opened any more.
		s := confine()
		ready.Sandbox = &s
	}
	if err := c.send(ready, nil); err != nil {
		return err
	}

	commands := make(chan commandWithFile)
	go w.receive(commands)
	for cmd := range commands {
		if err := w.answer(cmd); err != nil {
			return fmt.Errorf("render worker: %w", err)
		}
	}
	return nil
}

func (w *child) prepare(s setupCommand) error {
	w.setup = s
	mem, err := unix.Mmap(fdSlot, 0, s.Width*s.Height*3, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	unix.Close(fdSlot)
	w.rgb = mem
	w.engine, err = mupdf.New(s.Memory, s.Store)
	return err
}

type commandWithFile struct {
	command
	file *os.File
}

// receive passes commands on. When the parent is gone nobody waits for what
// runs, and MuPDF need not be tidied up.
func (w *child) receive(commands chan<- commandWithFile) {
	for {
		var cmd commandWithFile
		var err error
		if cmd.file, err = w.conn.receive(&cmd.command); err != nil {
			os.Exit(0)
		}
		if cmd.Abort != 0 {
			w.abort(cmd.Abort)
			continue
		}
		commands <- cmd
	}
}

func (w *child) answer(cmd commandWithFile) error {
	r := reply{ID: cmd.ID}
	switch {
	case cmd.Open != nil && cmd.file != nil:
		end := w.begin(cmd.ID, cmd.Open.Timeout)
		start := threadCPU()
		pages, err := w.engine.Open(cmd.file, cmd.Open.Format, w.setup.Passwords)
		r.Pages, r.CPU = pages, threadCPU()-start
		end()
		r.fail(err)
	case cmd.Draw != nil:
		end := w.begin(cmd.ID, cmd.Draw.Timeout)
		page, err := w.engine.Draw(cmd.Draw.Page, w.setup.Width, w.setup.Height, w.setup.Fit, w.rgb)
		end()
		r.Page = &drawnPage{
			page.WidthPt, page.HeightPt, page.Rotation, page.CropBox,
			time.Duration(page.CPUNanos), page.Width, page.Height,
		}
		r.fail(err)
	default:
		return errors.New("a command that is none")
	}
	if log, lost := w.engine.Messages(); w.setup.Log {
		r.Log, r.Lost = log, lost
	}
	return w.conn.send(r, nil)
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
	var timer *time.Timer
	if timeout > 0 {
		timer = time.AfterFunc(timeout, func() { w.abort(id) })
	}
	return func() {
		if timer != nil {
			timer.Stop()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running = 0
		w.engine.Resume()
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
	r.Reason, r.Message = reasonMalformed, err.Error()
	var e *mupdf.Error
	if !errors.As(err, &e) {
		return
	}
	r.Message = e.Message
	switch e.Reason {
	case mupdf.Memory:
		r.Reason = reasonMemory
	case mupdf.Aborted:
		r.Reason = reasonAborted
	case mupdf.Encrypted:
		r.Reason = reasonEncrypted
	case mupdf.Read:
		r.Reason = reasonRead
	case mupdf.PageSize:
		r.Reason = reasonPageSize
	}
}
