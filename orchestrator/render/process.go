//go:build linux

package render

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire/tritonclient/guard"
)

// errDied is a worker process that ended, or made no sense, in the middle of a
// command; errStuck one that did not answer in time. Either is gone for good.
var (
	errDied  = errors.New("the render process ended")
	errStuck = errors.New("the render process did not answer")
)

// process is one worker process. It is used by one goroutine at a time.
type process struct {
	guarded *guard.Process
	conn    *conn
	slot    *slot
	stderr  *head
	lastID  uint64
	ahead   *pending // what it was told to draw before anybody asked
	second  bool     // the half of the slot that was drawn to last
	last    bool     // it ends, having said so
	stale   bool     // it opens the document again before it draws the next page
	// sandbox is what the process says holds it in.
	sandbox Sandbox
}

// start starts a process and waits until it can be used. Its errors, ctx's own
// apart, are about this machine and not about any page.
func start(ctx context.Context, cfg Config, r raster) (*process, error) {
	p := &process{}
	slot, err := newSlot(slotSize(r.width, r.height))
	if err != nil {
		return nil, err
	}
	p.slot = slot
	if err := p.spawn(cfg); err != nil {
		slot.close()
		return nil, fmt.Errorf("render: cannot start a worker process: %w", err)
	}
	setup := setupCommand{
		Width: r.width, Height: r.height, Fit: r.fit,
		Memory:  cfg.MemoryLimit,
		Log:     cfg.Logger.Enabled(ctx, logLevel),
		Sandbox: cfg.Sandbox,
	}
	var ready reply
	passwords, err := passwordFile(cfg.Passwords)
	if err == nil {
		ready, err = p.call(ctx, command{Setup: &setup}, passwords, startTimeout)
		passwords.Close()
	}
	switch {
	case err == nil && ready.Reason != 0:
		err = errors.New(ready.Message)
	case errors.Is(err, errDied):
		end, said := p.end(), p.stderr.said()
		first, _, _ := strings.Cut(said, "\n")
		cfg.Logger.DebugContext(ctx, "a worker process ended at once", "end", end, "stderr", said)
		err = fmt.Errorf("it ended at once (%s)%s; %s", end, oneLine(first), whyNot)
	case errors.Is(err, errStuck):
		err = fmt.Errorf("%w; %s", err, whyNot)
	}
	if err == nil && ready.Sandbox != nil {
		p.sandbox = *ready.Sandbox
	}
	if err == nil && cfg.Sandbox == SandboxRequire {
		err = p.sandbox.lacking()
	}
	if err != nil {
		p.kill()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("render: cannot start a worker process: %w", err)
	}
	return p, nil
}

// whyNot is what commonly keeps a worker from starting.
const whyNot = "look at the limits (ulimit -a); in a program of your own, main (and TestMain) must call render.Main first"

// passwordFile is a file in memory for the worker to read; nil for no passwords.
func passwordFile(passwords []string) (*os.File, error) {
	if len(passwords) == 0 {
		return nil, nil
	}
	fd, err := unix.MemfdCreate("passwords", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "passwords")
	if err := json.NewEncoder(f).Encode(passwords); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (p *process) spawn(cfg Config) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "render"), os.NewFile(uintptr(pair[1]), "render")
	defer theirs.Close()
	aborted, aborts, err := os.Pipe()
	if err != nil {
		ours.Close()
		return err
	}
	defer aborted.Close()
	c, err := newConn(ours, aborts)
	if err != nil {
		return err
	}
	said, stderr, err := os.Pipe()
	if err != nil {
		c.close()
		return err
	}
	defer stderr.Close()
	cmd := guard.Command{
		// The guard is this very program, so that is what its children find.
		Path: "/proc/self/exe",
		Args: []string{"quire-render"},
		Env: []string{
			envWorker + "=1",
			"GOMAXPROCS=1", "GOGC=50", "GOTRACEBACK=single",
			"MALLOC_ARENA_MAX=1",
		},
		Dir:   "/",
		Files: []*os.File{nil, nil, stderr, theirs, p.slot.file, aborted},
		Nice:  cfg.Nice,
		Rlimits: []guard.Rlimit{
			{Resource: unix.RLIMIT_FSIZE},
			{Resource: unix.RLIMIT_NOFILE, Cur: 64, Max: 64},
		},
	}
	if limit := uint64(cfg.MemoryLimit) + runtimeBytes; cfg.MemoryLimit < 1<<62 {
		cmd.Rlimits = append(cmd.Rlimits, guard.Rlimit{Resource: unix.RLIMIT_DATA, Cur: limit, Max: limit})
	}
	guarded, err := cfg.Guard.Spawn(cmd)
	if err != nil {
		c.close()
		said.Close()
		return err
	}
	p.guarded, p.conn = guarded, c
	p.stderr = readHead(said)
	return nil
}

// pending is a page that a process draws ahead.
type pending struct {
	id       uint64
	page     int // counts from 0
	second   bool
	deadline time.Time
}

// call sends a command and waits for its answer. At the timeout (0 is none)
// the worker stops by itself and says so; when it does not, or when ctx has
// ended and it does not stop, the process is killed. Nothing may be drawn ahead.
func (p *process) call(ctx context.Context, cmd command, file *os.File, timeout time.Duration) (reply, error) {
	if ctx.Err() != nil {
		return reply{}, context.Cause(ctx)
	}
	if _, err := p.tell(cmd, file, timeout); err != nil {
		return reply{}, err
	}
	return p.answer(ctx, p.lastID)
}

// draw has a page drawn, which counts from 0 here, or takes it if it is drawn
// ahead. Where the document is opened again before, reopen is the time for that.
// The pixels are there until the next call.
func (p *process) draw(ctx context.Context, page int, timeout, reopen time.Duration) (r reply, pixels []byte, err error) {
	switch a := p.ahead; {
	case a == nil:
		p.second = !p.second
		cmd := command{Draw: &drawCommand{Page: page, Timeout: timeout, Reopen: reopen, Second: p.second}}
		r, err = p.call(ctx, cmd, nil, p.within(timeout, reopen))
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	default:
		p.ahead, p.second = nil, a.second
		// It may have been answered long ago.
		if least := time.Now().Add(answerGrace); !a.deadline.IsZero() && a.deadline.Before(least) {
			_ = p.conn.sock.SetDeadline(least)
		}
		r, err = p.answer(ctx, a.id)
	}
	return r, half(p.slot.mem, p.second), err
}

// drawAhead begins with a page that will be asked for next.
func (p *process) drawAhead(page int, timeout, reopen time.Duration) {
	second := !p.second
	cmd := command{Draw: &drawCommand{Page: page, Timeout: timeout, Reopen: reopen, Second: second}}
	deadline, err := p.tell(cmd, nil, p.within(timeout, reopen))
	if err == nil { // else the next call fails as well, and tells
		p.ahead = &pending{p.lastID, page, second, deadline}
	}
}

// within is the time for a page and what comes before it, 0 for none.
func (p *process) within(timeout, reopen time.Duration) time.Duration {
	if !p.stale || timeout == 0 {
		return timeout
	}
	if reopen == 0 {
		return 0
	}
	return timeout + reopen
}

// draws tells whether the page is drawn ahead.
func (p *process) draws(page int) bool { return p.ahead != nil && p.ahead.page == page }

// settle ends what is drawn ahead and was not asked for. With an error the
// process is gone.
func (p *process) settle() error {
	a := p.ahead
	if a == nil {
		return nil
	}
	p.ahead = nil
	p.conn.abort(a.id)
	_ = p.conn.sock.SetDeadline(time.Now().Add(cancelGrace))
	_, err := p.answer(context.Background(), a.id)
	return err
}

// tell sends a command, under the ID p.lastID, which is to be answered until the
// deadline, if there is one.
func (p *process) tell(cmd command, file *os.File, timeout time.Duration) (deadline time.Time, err error) {
	p.lastID++
	cmd.ID = p.lastID
	if timeout > 0 {
		deadline = time.Now().Add(timeout + answerGrace)
	}
	// Also for writing: a stopped process reads nothing.
	_ = p.conn.sock.SetDeadline(deadline)
	if err := p.conn.send(cmd, file); err != nil {
		return deadline, p.lost(err)
	}
	return deadline, nil
}

// answer waits for the answer to a command.
func (p *process) answer(ctx context.Context, id uint64) (reply, error) {
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		_ = p.conn.sock.SetDeadline(time.Now().Add(cancelGrace))
		p.conn.abort(id)
	})
	var r reply
	surprise, err := p.conn.receive(&r)
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
		// It may be this very process that stood still meanwhile (^Z), and the
		// answer has come: once the time is over nothing is read any more.
		_ = p.conn.sock.SetDeadline(time.Now().Add(cancelGrace))
		surprise, err = p.conn.receive(&r)
	}
	if !stop() {
		<-aborted // it must not touch the next command's deadline
	}
	if surprise != nil {
		surprise.Close()
	}
	if err == nil && (surprise != nil || r.ID != id) {
		err = errors.New("an answer to something else")
	}
	if err != nil {
		return reply{}, p.lost(err)
	}
	p.stale, p.last = r.Stale, r.Last
	return r, nil
}

// lost ends a process that cannot be talked to any more.
func (p *process) lost(err error) error {
	_ = p.guarded.Kill()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStuck
	}
	return fmt.Errorf("%w: %w", errDied, err)
}

// alive tells whether the process has not ended, as far as is known.
func (p *process) alive() bool {
	if p.last {
		return false
	}
	select {
	case <-p.guarded.Done():
		return false
	default:
		return true
	}
}

// end says how the process ended, waiting a moment for the news.
func (p *process) end() string {
	timer := time.NewTimer(answerGrace)
	defer timer.Stop()
	select {
	case <-p.guarded.Done():
		return p.guarded.State().String()
	case <-timer.C:
		return "not known how"
	}
}

// close lets the process end by itself, which it does at once, and frees what
// it shared.
func (p *process) close() {
	p.conn.close()
	timer := time.NewTimer(answerGrace)
	defer timer.Stop()
	select {
	case <-p.guarded.Done():
	case <-timer.C:
	}
	p.kill()
}

// kill ends the process and frees what it shared. It waits until the process is
// gone, but not for ever: one that hangs inside the kernel, on a network drive
// for instance, goes later, and shares nothing that is used again.
func (p *process) kill() {
	p.conn.close()
	_ = p.guarded.Kill()
	p.end()
	p.stderr.close()
	p.slot.close()
}

// head keeps the first bytes that a process writes to its standard error: a
// crash of Go's or C's says first what it is.
type head struct {
	file *os.File
	done chan struct{}
	mu   sync.Mutex
	text []byte
}

const headBytes = 4 << 10

func readHead(file *os.File) *head {
	h := &head{file: file, done: make(chan struct{})}
	go h.run()
	return h
}

func (h *head) run() {
	defer close(h.done)
	buf := make([]byte, 4<<10)
	for {
		n, err := h.file.Read(buf)
		h.mu.Lock()
		h.text = append(h.text, buf[:min(n, headBytes-len(h.text))]...)
		h.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// said returns what was written so far, as the tail of a sentence.
func (h *head) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := strings.TrimSpace(string(h.text))
	if text == "" {
		return ""
	}
	return ": " + text
}

func (h *head) close() {
	h.file.Close()
	<-h.done
}
