//go:build linux

package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// envRole turns the test binary into a program that has a guard start a shell
// with the variable's value as its script.
const envRole = "QUIRE_GUARD_TEST_SCRIPT"

func TestMain(m *testing.M) {
	Main()
	if script := os.Getenv(envRole); script != "" {
		program(script)
	}
	goleak.VerifyTestMain(m)
}

// stubborn is a shell script of a child that ignores SIGTERM and has two
// children of its own, one of them in another session. They all hold standard
// output, so its reader sees the end of file once all of them are gone. A line
// is written by each when it stands.
const stubborn = `
trap "" TERM INT HUP
sh -c 'trap "" TERM; echo grandchild; while :; do sleep 1000; done' &
setsid sh -c 'echo other session; while :; do sleep 1000; done' &
echo child
while :; do sleep 1000; done`

const stubbornLines = 3

// program starts a guard and a child, tells about them on standard output, and
// waits for its end. Descriptor 3 is for the child.
func program(script string) {
	g, err := Start(context.Background(), Config{Name: "quiretest"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if _, err := g.Spawn(Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Files: []*os.File{nil, os.NewFile(3, "held")}}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(shmDir, g.ShmPrefix()+name), []byte("pixels"), 0o600); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	fmt.Println(g.Pid(), g.ShmPrefix())
	select {}
}

func start(t *testing.T) *Guard {
	t.Helper()
	g, err := Start(t.Context(), Config{Name: "quiretest"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return r, w
}

// spawnStubborn returns the read end of what the child and its children hold,
// once they all stand.
func spawnStubborn(t *testing.T, g *Guard, script string, lines int, limits ...Rlimit) (*Process, *bufio.Reader) {
	t.Helper()
	r, w := pipe(t)
	p, err := g.Spawn(Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Files: []*os.File{nil, w}, Rlimits: limits})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	held := bufio.NewReader(r)
	readLines(t, held, lines)
	return p, held
}

func readLines(t *testing.T, r *bufio.Reader, n int) {
	t.Helper()
	for range n {
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

// wantReleased fails unless every holder of the pipe's other end is gone soon.
func wantReleased(t *testing.T, held io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(held); err != nil {
		t.Fatalf("a process still lives: %v (read %q)", err, rest)
	}
}

func wantEnded(t *testing.T, p *Process, want State) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Fatalf("process %d did not end", p.Pid())
	}
	if got := p.State(); got != want {
		t.Errorf("state %v, want %v", got, want)
	}
}

func shmObjects(t *testing.T, prefix string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(shmDir, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func makeShm(t *testing.T, g *Guard) {
	t.Helper()
	path := filepath.Join(shmDir, g.ShmPrefix()+"slab0")
	if err := os.WriteFile(path, []byte("pixels"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
}

// startProgram runs this test binary as a program with a guard.
func startProgram(t *testing.T, script string, lines int) (cmd *exec.Cmd, guardPid int, prefix string, held *bufio.Reader) {
	t.Helper()
	r, w := pipe(t)
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"="+script)
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	w.Close()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &guardPid, &prefix); err != nil {
		t.Fatalf("program said %q: %v", line, err)
	}
	held = bufio.NewReader(r)
	readLines(t, held, lines)
	return cmd, guardPid, prefix, held
}

// gone returns a function that waits for the end of a process that is not a
// child of this one.
func gone(t *testing.T, pid int) func() {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		defer unix.Close(fd)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				t.Fatalf("process %d still lives (%v)", pid, err)
			}
			return
		}
	}
}

func TestKilledProgramLeavesNothing(t *testing.T) {
	cmd, guardPid, prefix, held := startProgram(t, stubborn, stubbornLines)
	guardGone := gone(t, guardPid)
	if n := len(shmObjects(t, prefix)); n != 3 {
		t.Fatalf("%d shared-memory objects with prefix %s, want 3", n, prefix)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	wantReleased(t, held)
	guardGone()
	if left := shmObjects(t, prefix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestKilledGuardEndsChildren(t *testing.T) {
	g := start(t)
	// Without the member of another session: nobody is left to find it.
	script := strings.Replace(stubborn, "setsid sh", "sh", 1)
	p, held := spawnStubborn(t, g, script, stubbornLines)
	makeShm(t, g)
	if err := syscall.Kill(g.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-g.Done()
	wantReleased(t, held)
	wantEnded(t, p, State{Code: -1, Signal: syscall.SIGKILL})
	if left := shmObjects(t, g.ShmPrefix()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := g.Err(); !errors.Is(err, ErrLost) {
		t.Errorf("Err() = %v, want ErrLost", err)
	}
	if _, err := g.Spawn(Command{Path: "/bin/true"}); !errors.Is(err, ErrLost) {
		t.Errorf("Spawn after the guard's death gave %v", err)
	}
	if err := p.Kill(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Kill() = %v, want os.ErrProcessDone", err)
	}
}

// The program and its guard killed together leave their shared memory to the
// next run, which must not touch that of a living one.
func TestStaleSharedMemory(t *testing.T) {
	living := start(t)
	makeShm(t, living)
	cmd, guardPid, prefix, held := startProgram(t, "echo up; exec sleep 1000", 1)
	guardGone := gone(t, guardPid)
	// Stopped, the guard cannot clean up between the two kills.
	for _, kill := range []func() error{
		func() error { return syscall.Kill(guardPid, syscall.SIGSTOP) },
		cmd.Process.Kill,
		func() error { _ = cmd.Wait(); return syscall.Kill(guardPid, syscall.SIGKILL) },
	} {
		if err := kill(); err != nil {
			t.Fatal(err)
		}
	}
	guardGone()
	if n := len(shmObjects(t, prefix)); n != 3 {
		t.Fatalf("%d shared-memory objects with prefix %s, want 3", n, prefix)
	}
	wantReleased(t, held)

	start(t)
	if left := shmObjects(t, prefix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if n := len(shmObjects(t, living.ShmPrefix())); n != 2 {
		t.Errorf("%d objects of the living run, want 2", n)
	}
}

func TestCloseEndsChildren(t *testing.T) {
	g := start(t)
	p, held := spawnStubborn(t, g, stubborn, stubbornLines)
	makeShm(t, g)
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	wantReleased(t, held)
	wantEnded(t, p, State{Code: -1, Signal: syscall.SIGKILL})
	if left := shmObjects(t, g.ShmPrefix()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := g.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := g.Spawn(Command{Path: "/bin/true"}); !errors.Is(err, ErrClosed) {
		t.Errorf("Spawn after Close: %v, want ErrClosed", err)
	}
	if err := g.Err(); err != nil {
		t.Errorf("Err() = %v after Close", err)
	}
}

// A leader that ends takes what it left in its group with it.
func TestEndOfLeaderEndsGroup(t *testing.T) {
	g := start(t)
	p, held := spawnStubborn(t, g, `trap "exit 7" USR1; sh -c 'trap "" TERM; echo left; sleep 1000' & echo leader; wait`, 2)
	if err := p.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	wantEnded(t, p, State{Code: 7})
	wantReleased(t, held)
}

func TestExitStates(t *testing.T) {
	g := start(t)
	for script, want := range map[string]State{
		"exit 0":        {},
		"exit 3":        {Code: 3},
		"kill -9 $$":    {Code: -1, Signal: syscall.SIGKILL},
		"kill -SEGV $$": {Code: -1, Signal: syscall.SIGSEGV},
	} {
		p, err := g.Spawn(Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}})
		if err != nil {
			t.Fatal(err)
		}
		wantEnded(t, p, want)
		if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("Signal after the end: %v", err)
		}
	}
	if _, err := g.Spawn(Command{Path: "/no/such/program"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing program: %v", err)
	}
	if _, err := g.Spawn(Command{Path: "/dev/null"}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("file that is no program: %v", err)
	}
	if _, err := g.Spawn(Command{Path: "/bin/true", Rlimits: []Rlimit{{Resource: unix.RLIMIT_DATA, Cur: 2, Max: 1}}}); err == nil {
		t.Error("a limit above its maximum gave no error")
	}
}

// A guard that was closed leaves no descriptor and no process, not even a dead one.
func TestClosedGuardLeavesNothing(t *testing.T) {
	ours := func(st procStat) bool { return st.parent == os.Getpid() }
	var files, children int
	for i := range 4 {
		g, err := Start(t.Context(), Config{Name: "quiretest"})
		if err != nil {
			t.Fatal(err)
		}
		p, err := g.Spawn(Command{Path: "/bin/true"})
		if err != nil {
			t.Fatal(err)
		}
		wantEnded(t, p, State{})
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if n := len(g.waiting); n > 0 {
			t.Errorf("it keeps %d requests", n)
		}
		nowFiles, nowChildren := descriptors(t, os.Getpid()), len(processes(ours))
		if i > 0 && (nowFiles > files || nowChildren > children) {
			t.Errorf("%d descriptors and %d children, before %d and %d", nowFiles, nowChildren, files, children)
		}
		files, children = nowFiles, nowChildren
	}
}

func TestSignalAndKill(t *testing.T) {
	g := start(t)
	p, held := spawnStubborn(t, g, "echo up; sleep 1000; echo never", 1)
	if err := p.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	wantEnded(t, p, State{Code: -1, Signal: syscall.SIGUSR1})
	wantReleased(t, held)

	p, held = spawnStubborn(t, g, strings.Replace(stubborn, "setsid sh", "sh", 1), stubbornLines)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	wantReleased(t, held)
	wantEnded(t, p, State{Code: -1, Signal: syscall.SIGKILL})
}

// The guard ignores what a terminal or a service manager sends to everybody.
func TestGuardSurvivesSignals(t *testing.T) {
	g := start(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if err := syscall.Kill(g.Pid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	p, err := g.Spawn(Command{Path: "/bin/sh", Args: []string{"sh", "-c", "kill -TERM $$"}})
	if err != nil {
		t.Fatal(err)
	}
	wantEnded(t, p, State{Code: -1, Signal: syscall.SIGTERM}) // not inherited
}

func TestManySpawns(t *testing.T) {
	g := start(t)
	warm, err := g.Spawn(Command{Path: "/bin/true", Nice: 1})
	if err != nil {
		t.Fatal(err)
	}
	wantEnded(t, warm, State{})
	before := [2]int{descriptors(t, os.Getpid()), descriptors(t, g.Pid())}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before[0]++

	const routines, each = 8, 40
	var wg sync.WaitGroup
	for i := range routines {
		wg.Go(func() {
			for j := range each {
				code := (i*each + j) % 200
				p, err := g.Spawn(Command{Path: "/bin/sh", Args: []string{"sh", "-c", "exit " + strconv.Itoa(code)}, Files: []*os.File{null, nil, null}, Nice: j % 2})
				if err != nil {
					t.Error(err)
					return
				}
				<-p.Done()
				if got := p.State(); got != (State{Code: code}) {
					t.Errorf("state %v, want exit code %d", got, code)
				}
			}
		})
	}
	wg.Wait()
	if after := [2]int{descriptors(t, os.Getpid()), descriptors(t, g.Pid())}; after != before {
		t.Errorf("descriptors of program and guard %v, before %v", after, before)
	}
	if left := processes(func(st procStat) bool { return st.parent == g.Pid() }); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestStartErrors(t *testing.T) {
	if _, err := Start(t.Context(), Config{Name: "a/b"}); err == nil {
		t.Error("a name with a slash gave no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if g, err := Start(ctx, Config{Name: "quiretest"}); err == nil {
		// The guard may have been faster than the look at ctx.
		g.Close()
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled start: %v", err)
	}
	t.Setenv(envGuard, "3")
	if _, err := Start(t.Context(), Config{}); err == nil {
		t.Error("Start inside a guard gave no error")
	}
}
