package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long anything may take that is waited for. Nothing takes a
// tenth of it on a machine that is not overloaded.
const patience = 2 * time.Minute

// program is the built binary at work.
type program struct {
	*exec.Cmd
	t      *testing.T
	stdout bytes.Buffer
	ended  chan struct{} // closed when both streams have ended

	mu    sync.Mutex
	lines []string      // of stderr
	read  int           // of lines, by until
	more  chan struct{} // of capacity 1; has something when lines has grown
}

// start runs the program with args; env is added to the environment.
func start(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	return startTo(t, nil, env, args...)
}

// startTo does so with standard output going to a file.
func startTo(t *testing.T, stdout *os.File, env []string, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(must(t, binary), args...), t: t, ended: make(chan struct{}), more: make(chan struct{}, 1)}
	p.Env = append(os.Environ(), env...)
	if p.Stdout = &p.stdout; stdout != nil {
		p.Stdout = stdout
	}
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			<-p.ended
			_ = p.Wait()
		}
		if t.Failed() {
			t.Logf("quire %s said:\n%s\n%s", strings.Join(args, " "), p.said(), p.stdout.String())
		}
	})
	return p
}

// said is all of stderr so far.
func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// until waits for a line on stderr that has text in it, after the one that it
// found before.
func (p *program) until(text string) string {
	p.t.Helper()
	late := time.After(patience)
	for {
		p.mu.Lock()
		for p.read < len(p.lines) {
			line := p.lines[p.read]
			p.read++
			if strings.Contains(line, text) {
				p.mu.Unlock()
				return line
			}
		}
		p.mu.Unlock()
		select {
		case <-p.more:
		case <-p.ended:
			p.t.Fatalf("it ended without saying %q", text)
		case <-late:
			p.t.Fatalf("it did not say %q", text)
		}
	}
}

// signal sends a signal to the program alone.
func (p *program) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for the end and returns the exit code, -1 for a signal.
func (p *program) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("it does not end")
	}
	var exit *exec.ExitError
	if err := p.Wait(); err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

// child is a process that the program has started, itself or through others.
type child struct {
	pid  int
	name string // argument 0, without directories
}

// children lists the program's descendants, from /proc.
func (p *program) children() []child {
	p.t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		p.t.Fatal(err)
	}
	of := map[int][]int{}
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it has just ended
		}
		// PID (NAME) STATE PPID …, where NAME may hold anything (proc(5)).
		pid, _ := strconv.Atoi(string(data[:bytes.IndexByte(data, ' ')]))
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		parent, _ := strconv.Atoi(fields[1])
		if fields[0] != "Z" {
			of[parent] = append(of[parent], pid)
		}
	}
	var found []child
	for next := of[p.Process.Pid]; len(next) > 0; next = next[1:] {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", next[0]))
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(string(line), "\x00")
		found = append(found, child{next[0], filepath.Base(name)})
		next = append(next, of[next[0]]...)
	}
	return found
}

// named are the children of one name.
func (p *program) named(name string) (pids []int) {
	p.t.Helper()
	for _, c := range p.children() {
		if c.name == name {
			pids = append(pids, c.pid)
		}
	}
	return pids
}

// The names of what quire starts.
const (
	nameGuard  = "quire-guard"
	nameServer = "tritonserver"
	nameStub   = "triton_python_backend_stub"
	nameWorker = "quire-render"
)

// kill sends SIGKILL to a child of that name, and waits until that is gone.
func (p *program) kill(name string) {
	p.t.Helper()
	var pids []int
	p.await(name, func() bool { // a worker may be on its way
		pids = p.named(name)
		return len(pids) > 0
	})
	gone := watch(p.t, pids[0])
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	gone()
}

// leavesNothing notes what the program has started by now. The function that it
// returns is called once the program has ended, and waits for the rest to go,
// shared memory too.
func (p *program) leavesNothing() (gone func()) {
	p.t.Helper()
	var pids []int
	names := map[string]bool{}
	for _, c := range p.children() {
		pids = append(pids, c.pid)
		names[c.name] = true
	}
	if !names[nameGuard] {
		p.t.Fatalf("there is no guard among %v", p.children())
	}
	wait := watch(p.t, pids...)
	return func() {
		p.t.Helper()
		wait()
		// The guard is gone, and this is the last that it does.
		if left, _ := filepath.Glob(fmt.Sprintf("/dev/shm/quire-%d-*", p.Process.Pid)); len(left) > 0 {
			p.t.Errorf("shared memory is left: %v", left)
		}
	}
}

// watch returns a function that waits until the processes are gone.
func watch(t *testing.T, pids ...int) func() {
	t.Helper()
	fds := map[int]int{}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH {
			continue
		}
		if err != nil {
			t.Fatalf("process %d: %v", pid, err)
		}
		fds[pid] = fd
	}
	return func() {
		t.Helper()
		for pid, fd := range fds {
			for {
				n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
				if err == unix.EINTR {
					continue
				}
				if n != 1 {
					t.Errorf("process %d still lives (%v)", pid, err)
				}
				break
			}
			unix.Close(fd)
		}
	}
}

// untilNewResult waits until a result stands in out that did not when it was
// called.
func (p *program) untilNewResult(out string) {
	p.t.Helper()
	before := map[string]os.FileInfo{}
	for _, name := range resultFiles(p.t, out) {
		if info, err := os.Stat(name); err == nil {
			before[name] = info
		}
	}
	p.await("a new result", func() bool {
		for _, name := range resultFiles(p.t, out) {
			info, err := os.Stat(name)
			if old := before[name]; err == nil && (old == nil || !os.SameFile(old, info)) {
				return true
			}
		}
		return false
	})
}

// await waits until ok says so.
func (p *program) await(what string, ok func() bool) {
	p.t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	late := time.After(patience)
	for !ok() {
		select {
		case <-again.C:
		case <-p.ended:
			p.t.Fatalf("it ended without %s", what)
		case <-late:
			p.t.Fatalf("no sign of %s", what)
		}
	}
}
