package guard

import (
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guardName is what ps shows; at most 15 bytes, as prctl(2) cuts it there.
const guardName = "quire-guard"

// Main does nothing in a program that was started as itself. In a process that
// Start has started, it runs the guard and never returns. Call it first thing
// in main and in TestMain, before flags are parsed and goroutines started.
func Main() {
	v, ok := os.LookupEnv(envGuard)
	if !ok {
		return
	}
	os.Unsetenv(envGuard)
	fd, err := strconv.Atoi(v)
	if err == nil && len(os.Args) != 2 {
		err = fmt.Errorf("%d arguments", len(os.Args))
	}
	if err == nil {
		err = run(fd, os.Args[1])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", guardName, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// keeper is the state of the guard process. Everything happens on one
// goroutine, which is locked to its thread: children get SIGKILL when the
// *thread* that forked them ends (prctl(2), PR_SET_PDEATHSIG).
type keeper struct {
	conn     *conn
	null     int
	children map[int]bool          // leaders not yet reaped
	threads  map[int]chan<- func() // by niceness
	base     int                   // the guard's own niceness
	sigchld  chan os.Signal        // wakes reap
	requests chan requestWithFiles // closed when the program is gone
	gone     bool                  // replies are of no use any more
}

type requestWithFiles struct {
	request
	fds []int
}

func run(fd int, prefix string) error {
	runtime.LockOSThread()
	file := os.NewFile(uintptr(fd), "program")
	c, err := net.FileConn(file) // a duplicate with close-on-exec
	if err != nil {
		return err
	}
	file.Close()
	// Children get what they are given and nothing that this process happened to
	// inherit. The run's lock is the next descriptor and stays open for as long
	// as we live. (Kernels before 5.11 lack the flag; there only the lock counts.)
	unix.CloseOnExec(fd + 1)
	_ = unix.CloseRange(uint(fd+2), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)

	// Orphans of the children become ours, so that none gets away.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if name, err := unix.BytePtrFromString(guardName); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// Only the program's end ends the guard, else a signal meant for all would
	// take the children away while the program still needs them to finish. A
	// handler, and not SIG_IGN, because that would be inherited.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE)

	k := &keeper{
		conn:     newConn(c.(*net.UnixConn)),
		children: map[int]bool{},
		threads:  map[int]chan<- func(){},
		sigchld:  make(chan os.Signal, 1),
		requests: make(chan requestWithFiles),
	}
	if k.null, err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	if p, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		k.base = 20 - p // the system call's way of never being negative
	}
	signal.Notify(k.sigchld, syscall.SIGCHLD)
	go k.receive()
	k.send(reply{Hello: true})
	for open := true; open; {
		select {
		case r, ok := <-k.requests:
			open = ok
			switch {
			case r.Spawn != nil:
				k.spawn(r)
			case r.Signal != nil:
				k.signal(r)
			}
		case <-k.sigchld:
			k.reap()
		}
	}
	k.endAll()
	unlinkPrefix(prefix)
	return nil
}

// receive takes requests until the program is gone or talks nonsense.
func (k *keeper) receive() {
	defer close(k.requests)
	for {
		var r requestWithFiles
		if err := k.conn.dec.Decode(&r.request); err != nil {
			return
		}
		if r.Spawn != nil {
			n := 0
			for _, given := range r.Spawn.Files {
				if given {
					n++
				}
			}
			fds, err := k.conn.take(n)
			if err != nil {
				return
			}
			r.fds = fds
		}
		k.requests <- r
	}
}

func (k *keeper) send(r reply) {
	if !k.gone && k.conn.send(r) != nil {
		k.gone = true
	}
}

func (k *keeper) spawn(r requestWithFiles) {
	s := r.Spawn
	files := make([]uintptr, 0, len(s.Files)+3)
	for i, next := 0, 0; i < max(len(s.Files), 3); i++ {
		fd := k.null
		if i < len(s.Files) && s.Files[i] {
			fd = r.fds[next]
			next++
			_ = unix.SetNonblock(fd, false)
		}
		files = append(files, uintptr(fd))
	}
	attr := &syscall.ProcAttr{
		Dir: s.Dir, Env: s.Env, Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	op := "exec"
	var pid int
	var err error
	k.at(s.Nice, func() { pid, err = syscall.ForkExec(s.Path, s.Args, attr) })
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	if err == nil {
		k.children[pid] = true
		// The process may already run, but it has had no work yet.
		for _, l := range s.Rlimits {
			if err = limit(pid, l); err != nil {
				op = "setrlimit"
				_ = unix.Kill(-pid, unix.SIGKILL)
				break
			}
		}
	}
	answer := reply{ID: r.ID, Pid: pid}
	if err != nil {
		errno, ok := err.(syscall.Errno)
		if !ok {
			errno = syscall.EINVAL
		}
		answer = reply{ID: r.ID, Op: op, Errno: int(errno)}
	}
	k.send(answer)
}

// limit sets a limit of a process. One that is lower already stays: raising it
// takes a privilege, and nobody meant to.
func limit(pid int, l Rlimit) error {
	var is unix.Rlimit
	if err := unix.Prlimit(pid, l.Resource, nil, &is); err != nil {
		return err
	}
	return unix.Prlimit(pid, l.Resource, &unix.Rlimit{Cur: min(l.Cur, is.Max), Max: min(l.Max, is.Max)}, nil)
}

// at runs f on a thread of the given niceness, which f's children inherit;
// Linux keeps niceness by thread. Lowering it again needs a privilege, hence
// one thread for each value. They live as long as the guard.
func (k *keeper) at(nice int, f func()) {
	if nice == 0 {
		f()
		return
	}
	work := k.threads[nice]
	if work == nil {
		ch := make(chan func())
		go func() {
			runtime.LockOSThread()
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, min(k.base+nice, 19))
			for f := range ch {
				f()
			}
		}()
		k.threads[nice] = ch
		work = ch
	}
	finished := make(chan struct{})
	work <- func() { f(); close(finished) }
	<-finished
}

func (k *keeper) signal(r requestWithFiles) {
	err := error(syscall.ESRCH)
	if s := r.Signal; k.children[s.Pid] { // not reaped, so the number is its own
		pid := s.Pid
		if s.Group {
			pid = -pid
		}
		err = syscall.Kill(pid, syscall.Signal(s.Signal))
	}
	errno, _ := err.(syscall.Errno)
	k.send(reply{ID: r.ID, Errno: int(errno)})
}

// siginfo is the head of siginfo_t for SIGCHLD; the union after the first three
// fields is aligned like a pointer.
type siginfo struct {
	signo, errno, code int32
	_                  [0]uintptr
	pid                int32
	_                  [128]byte // the rest, with room to spare
}

// reap collects every child that has ended and reports those that Spawn
// started. It tells whether any child is left.
func (k *keeper) reap() (left bool) {
	for {
		var info siginfo
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false // ECHILD
		}
		if info.pid == 0 {
			return true
		}
		pid := int(info.pid)
		if k.children[pid] {
			// Whatever the leader left behind in its group goes with it. Its
			// number is still taken because it is not reaped yet.
			_ = unix.Kill(-pid, unix.SIGKILL)
		}
		var status unix.WaitStatus
		for {
			if _, err = unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
				break
			}
		}
		if k.children[pid] {
			delete(k.children, pid)
			k.send(reply{Pid: pid, Status: uint32(status)})
		}
	}
}

// endAll kills until no descendant is left: what a killed child leaves behind
// becomes our child, and there is no other way for it to go.
func (k *keeper) endAll() {
	self := os.Getpid()
	deadline := time.Now().Add(endTimeout)
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		for pid := range k.children {
			_ = unix.Kill(-pid, unix.SIGKILL)
		}
		for _, st := range processes(func(st procStat) bool { return st.parent == self }) {
			_ = unix.Kill(st.pid, unix.SIGKILL)
		}
		if !k.reap() || time.Now().After(deadline) {
			return
		}
		select {
		case <-k.sigchld:
		case <-again.C:
		}
	}
}
