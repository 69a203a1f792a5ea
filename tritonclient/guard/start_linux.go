package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// helloTimeout is for a copy of the program that starts on a busy machine.
	helloTimeout = time.Minute
	// endTimeout is how long the guard waits for killed children; only one that
	// hangs inside the kernel takes longer than moments.
	endTimeout = 10 * time.Second
	// whyNot is what commonly keeps the guard from starting.
	whyNot = "look at the limits (ulimit -a); in a program of your own, main (and TestMain) must call guard.Main first"
)

// Guard is a running guard process. Its methods may be called from any
// goroutine.
type Guard struct {
	process *os.Process
	sock    *net.UnixConn
	prefix  string
	lock    *os.File
	hello   chan struct{}
	done    chan struct{}

	sendMu sync.Mutex // held around conn.send
	conn   *conn      // receives belong to the goroutine that runs receive

	mu       sync.Mutex
	lastID   uint64
	waiting  map[uint64]*call
	children map[int]*Process
	closing  bool
	err      error // set before done is closed
}

// call is a request that waits for its reply.
type call struct {
	process *Process // of a spawn, else nil
	reply   chan reply
}

// Start starts the guard process and waits until it stands. It runs in a
// session of its own, so that signals of the terminal do not reach it or its
// children. ctx bounds the start only; Close ends the guard.
//
// Start also removes the shared-memory objects of earlier runs that were
// killed together with their guard.
func Start(ctx context.Context, cfg Config) (*Guard, error) {
	if _, inside := os.LookupEnv(envGuard); inside {
		return nil, errors.New("guard: this process was started as a guard but did not call guard.Main first thing in main (or TestMain)")
	}
	name := cmp.Or(cfg.Name, "quire")
	if strings.ContainsFunc(name, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return nil, fmt.Errorf("guard: name %q holds something else than letters and digits", name)
	}
	unlinkStale(name)
	prefix, lock, err := newPrefix(name)
	if err != nil {
		return nil, err
	}
	g, err := startProcess(cmp.Or(cfg.Stderr, os.Stderr), prefix, lock)
	if err != nil {
		unlinkPrefix(prefix)
		if lock != nil {
			lock.Close()
		}
		return nil, fmt.Errorf("guard: cannot start the guard process: %w", err)
	}
	go g.receive()

	timeout := time.NewTimer(helloTimeout)
	defer timeout.Stop()
	select {
	case <-g.hello:
		return g, nil
	case <-g.done:
		err = errors.New("guard: the guard process ended at once; " + whyNot)
	case <-timeout.C:
		err = fmt.Errorf("guard: the guard process did not report within %v; %s", helloTimeout, whyNot)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	_ = g.process.Kill()
	<-g.done
	return nil, err
}

func startProcess(stderr *os.File, prefix string, lock *os.File) (*Guard, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "guard"), os.NewFile(uintptr(pair[1]), "guard")
	defer ours.Close()
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	sock := c.(*net.UnixConn)
	attr := &os.ProcAttr{
		Env:   append(os.Environ(), envGuard+"=3"),
		Files: []*os.File{null, null, stderr, theirs},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if lock != nil {
		attr.Files = append(attr.Files, lock)
	}
	// /proc/self/exe is this very program even when its file was replaced or,
	// as with go run, removed.
	p, err := os.StartProcess("/proc/self/exe", []string{guardName, prefix}, attr)
	if err != nil {
		sock.Close()
		return nil, err
	}
	return &Guard{
		process:  p,
		sock:     sock,
		conn:     newConn(sock),
		prefix:   prefix,
		lock:     lock,
		hello:    make(chan struct{}),
		done:     make(chan struct{}),
		waiting:  map[uint64]*call{},
		children: map[int]*Process{},
	}, nil
}

// ShmPrefix begins the name of every POSIX shared-memory object of this run,
// without a slash; they are unlinked when the guard ends, whoever made them.
func (g *Guard) ShmPrefix() string { return g.prefix }

// Pid is the guard's process ID.
func (g *Guard) Pid() int { return g.process.Pid }

// Done is closed when the guard and all its children are gone and the run's
// shared memory is unlinked.
func (g *Guard) Done() <-chan struct{} { return g.done }

// Err is nil before Done is closed and after Close, and ErrLost when the guard
// ended by itself.
func (g *Guard) Err() error {
	select {
	case <-g.done:
		return g.err
	default:
		return nil
	}
}

// Close kills all children and what they started, waits until they are gone,
// and unlinks the run's shared memory. It is idempotent.
func (g *Guard) Close() error {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	// The guard takes the end of the stream as its order to end, and still
	// tells how its children ended.
	_ = g.sock.CloseWrite()
	timeout := time.NewTimer(endTimeout + 5*time.Second)
	defer timeout.Stop()
	select {
	case <-g.done:
	case <-timeout.C:
		_ = g.process.Kill()
		<-g.done
	}
	return g.err
}

// Spawn starts a process in a process group of its own. A program that cannot
// be executed is an error here.
func (g *Guard) Spawn(cmd Command) (*Process, error) {
	if len(cmd.Files) > maxFiles {
		return nil, fmt.Errorf("guard: %d files for one process, at most %d", len(cmd.Files), maxFiles)
	}
	req := &spawnRequest{Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir, Nice: cmd.Nice, Rlimits: cmd.Rlimits}
	if len(req.Args) == 0 {
		req.Args = []string{cmd.Path}
	}
	if cmd.Env == nil {
		req.Env = os.Environ()
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, f := range cmd.Files {
		req.Files = append(req.Files, f != nil)
		if f == nil {
			continue
		}
		fd, err := dup(f)
		if err != nil {
			return nil, fmt.Errorf("guard: descriptor for %s: %w", cmd.Path, err)
		}
		fds = append(fds, fd)
	}
	p := &Process{guard: g, done: make(chan struct{})}
	r, err := g.call(request{Spawn: req}, p, fds)
	if err != nil {
		return nil, err
	}
	if r.Errno != 0 {
		return nil, &os.PathError{Op: r.Op, Path: cmd.Path, Err: syscall.Errno(r.Errno)}
	}
	return p, nil
}

// call sends a request and waits for its reply or for the guard's end.
func (g *Guard) call(req request, p *Process, fds []int) (reply, error) {
	c := &call{process: p, reply: make(chan reply, 1)}
	g.mu.Lock()
	if g.closing {
		err := g.err // of a guard that was lost
		g.mu.Unlock()
		return reply{}, cmp.Or(err, ErrClosed)
	}
	g.lastID++
	req.ID = g.lastID
	g.waiting[req.ID] = c
	g.mu.Unlock()

	g.sendMu.Lock()
	err := g.conn.send(req, fds...)
	g.sendMu.Unlock()
	if err != nil {
		// The stream is of no use any more: a part of a message may be in it.
		_ = g.sock.CloseWrite()
	}
	select {
	case r := <-c.reply:
		return r, nil
	case <-g.done:
	}
	select {
	case r := <-c.reply:
		return r, nil
	default:
	}
	return reply{}, cmp.Or(g.err, ErrClosed)
}

// receive runs until the guard is gone.
func (g *Guard) receive() {
	var err error
	for greeted := false; ; {
		var r reply
		if err = g.conn.dec.Decode(&r); err != nil {
			break
		}
		switch {
		case r.Hello:
			if !greeted {
				close(g.hello)
			}
			greeted = true
		case r.ID != 0:
			g.mu.Lock()
			c := g.waiting[r.ID]
			delete(g.waiting, r.ID)
			if c != nil && c.process != nil && r.Errno == 0 {
				// Registered before the next reply is read: that may be its end.
				c.process.pid = r.Pid
				g.children[r.Pid] = c.process
			}
			g.mu.Unlock()
			if c != nil {
				c.reply <- r
			}
		default:
			g.mu.Lock()
			p := g.children[r.Pid]
			delete(g.children, r.Pid)
			g.mu.Unlock()
			if p != nil {
				p.end(stateOf(unix.WaitStatus(r.Status)))
			}
		}
	}

	// The stream ends when the guard does. If it was killed, the kernel has
	// sent SIGKILL to its children, but not to theirs. Until the guard is
	// reaped, the number of its session cannot belong to anybody else.
	if !errors.Is(err, io.EOF) {
		_ = g.process.Kill()
	}
	killSession(g.process.Pid)
	unlinkPrefix(g.prefix)
	_, _ = g.process.Wait()
	g.sock.Close()
	if g.lock != nil {
		g.lock.Close()
	}
	g.mu.Lock()
	lost := g.children
	g.children = nil
	if !g.closing {
		g.err = ErrLost
	}
	g.closing = true
	g.mu.Unlock()
	for _, p := range lost {
		p.end(State{Code: -1, Signal: syscall.SIGKILL})
	}
	close(g.done)
}

// Process is a child of the guard. Its methods may be called from any
// goroutine.
type Process struct {
	guard *Guard
	pid   int
	done  chan struct{}
	state State // set before done is closed
}

// Pid is the process ID; it is also the ID of its process group.
func (p *Process) Pid() int { return p.pid }

// Done is closed when the process has ended. Members of its process group that
// it leaves behind are killed then.
func (p *Process) Done() <-chan struct{} { return p.done }

// State says how the process ended; the zero State before Done is closed.
func (p *Process) State() State {
	select {
	case <-p.done:
		return p.state
	default:
		return State{}
	}
}

// Signal sends a signal to the process alone. It returns os.ErrProcessDone when
// the process has ended.
func (p *Process) Signal(sig syscall.Signal) error { return p.signal(sig, false) }

// Kill sends SIGKILL to the whole process group. It returns os.ErrProcessDone
// when the process has ended.
func (p *Process) Kill() error { return p.signal(syscall.SIGKILL, true) }

func (p *Process) signal(sig syscall.Signal, group bool) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
	}
	r, err := p.guard.call(request{Signal: &signalRequest{Pid: p.pid, Signal: int(sig), Group: group}}, nil, nil)
	switch {
	case err != nil:
		return err
	case syscall.Errno(r.Errno) == syscall.ESRCH:
		return os.ErrProcessDone
	case r.Errno != 0:
		return os.NewSyscallError("kill", syscall.Errno(r.Errno))
	}
	return nil
}

func (p *Process) end(s State) {
	p.state = s
	close(p.done)
}

func stateOf(w unix.WaitStatus) State {
	if w.Signaled() {
		return State{Code: -1, Signal: w.Signal()}
	}
	return State{Code: w.ExitStatus()}
}

// dup duplicates f's descriptor without what File.Fd does to f.
func dup(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(from uintptr) {
		fd, dupErr = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("fcntl", dupErr)
}
