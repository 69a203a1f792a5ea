package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"quire/tritonclient/guard"
)

// supervised supervises a server until the function that it returns is called,
// and passes on what is logged.
func supervised(t *testing.T, s *Server, most int, done func() int64) (said <-chan string, stop func() error) {
	t.Helper()
	lines := make(chan string, 100)
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) { lines <- string(p); return len(p), nil }), nil))
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- s.supervise(ctx, log, done, most); close(lines) }()
	return lines, func() error { cancel(); return <-result }
}

func wantLine(t *testing.T, said <-chan string, want string) {
	t.Helper()
	for line := range said {
		if strings.Contains(line, want) {
			return
		}
		t.Logf("%s", line)
	}
	t.Fatalf("nobody said %q", want)
}

// A server that is killed, or whose model is, is there again, on its port, as
// often as is allowed.
func TestSupervise(t *testing.T) {
	o := options(t)
	s := startServer(t, identityConfig(o, repository(t)))
	addr := s.Addr()
	var done atomic.Int64
	said, stop := supervised(t, s, 1, done.Load)
	kill := func() {
		t.Helper()
		if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	kill()
	wantLine(t, said, "signal 9")
	wantLine(t, said, "is back")
	wantIdentity(t, addr)
	done.Add(1) // so that the next one is the first again

	model := children(t, s.Pid())
	if len(model) != 1 {
		t.Fatalf("models' processes: %v", model)
	}
	if err := syscall.Kill(model[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantLine(t, said, "the process of a model ended")
	wantLine(t, said, "is back")
	wantIdentity(t, addr)

	kill()
	for range said { // until it gives up
	}
	err := stop()
	for _, want := range []string{"after 1 restarts", "signal 9", "tritonserver.log", "--triton ADDR"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}

	// One that cannot start any more is not tried for ever either.
	cfg := identityConfig(o, t.TempDir())
	broken := &Server{cfg: cfg.withDefaults(), env: s.env, backends: s.backends, cache: t.TempDir(), served: cfg.ModelRepository, log: newTail(logLines), run: s.run}
	if err := broken.pickPorts(); err != nil {
		t.Fatal(err)
	}
	err = broken.supervise(t.Context(), slog.New(slog.DiscardHandler), done.Load, 2)
	if err == nil || !strings.Contains(err.Error(), "did not start") || !strings.Contains(err.Error(), "'identity'") {
		t.Errorf("a server that cannot start: %v", err)
	}
}

// Told to stop, it leaves the server alone; without the guard it does not try.
func TestSuperviseStops(t *testing.T) {
	g, err := guard.Start(t.Context(), guard.Config{Name: "quiretest"})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	o := options(t)
	o.Guard = g
	s := startServer(t, identityConfig(o, repository(t)))
	idle := func() int64 { return 0 }
	_, stop := supervised(t, s, 1, idle)
	if err := stop(); err != nil {
		t.Errorf("told to stop: %v", err)
	}
	wantIdentity(t, s.Addr())

	said, stop := supervised(t, s, 5, idle)
	if err := syscall.Kill(g.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range said {
	}
	if err := stop(); !errors.Is(err, guard.ErrLost) {
		t.Errorf("without the guard: %v", err)
	}

	// After the guard was closed there is one try, and no more.
	closed, err := guard.Start(t.Context(), guard.Config{Name: "quiretest"})
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	s.cfg.Guard = closed // whose servers have all ended, as this one has
	said, stop = supervised(t, s, 5, idle)
	tries := 0
	for line := range said {
		if strings.Contains(line, "is started again") {
			tries++
		}
	}
	if err := stop(); !errors.Is(err, guard.ErrClosed) || tries > 1 {
		t.Errorf("with a guard that was closed, after %d tries: %v", tries, err)
	}
}

// A model's process goes on as long as its server does, and no longer, also where the
// kernel has no pidfd or a container keeps it from the process.
func TestEndWithServer(t *testing.T) {
	python, err := FindPython(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	const server = `import os, subprocess, sys
with open("/proc/self/comm", "w") as name:
    name.write(sys.argv[1])
subprocess.Popen([sys.executable, "-c", sys.argv[2]])
os.close(1)
sys.stdin.read()
`
	const model = `import errno, os, select, sys, threading
wait = select.select
def told(r, w, x, limit):
    print("waits", flush=True)
    return wait(r, w, x, limit and limit / 100)
select.select = told
def fails(number):
    def pidfd_open(pid):
        raise OSError(number, os.strerror(number))
    return pidfd_open
%s
import end_with_server
threading.Event().wait(60)
`
	for _, tt := range []struct {
		name, parent, change string
		waits                int
	}{
		{"a pidfd", "tritonserver", "", 1},
		{"an old kernel", "tritonserver", "os.pidfd_open = fails(errno.ENOSYS)", 3},
		{"a container", "tritonserver", "os.pidfd_open = fails(errno.EPERM)", 3},
		{"an old Python", "tritonserver", "del os.pidfd_open", 3},
		{"no server", "init", "os.pidfd_open = fails(errno.ENOSYS)", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(python.Path, "-c", server, tt.parent, fmt.Sprintf(model, tt.change))
			cmd.Env = append(os.Environ(), "PYTHONPATH=backend/python", "PYTHONDONTWRITEBYTECODE=1")
			_, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			lines := bufio.NewReader(out)
			for i := range tt.waits {
				if line, err := lines.ReadString('\n'); line != "waits\n" {
					t.Fatalf("it waited %d times, then: %q, %v", i, line, err)
				}
			}
			if tt.waits > 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if rest, err := io.ReadAll(lines); err != nil || tt.waits == 0 && len(rest) > 0 { // until it has ended
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

func TestEnding(t *testing.T) {
	if ending(os.Getpid()) {
		t.Error("this process is said to end")
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	// Until it has ended, and leaves it for Wait.
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if !ending(pid) {
		t.Error("a process that has ended, and was not waited for, is said to go on")
	}
	if err := cmd.Wait(); err != nil || !ending(pid) {
		t.Errorf("%v; one that is gone is said to go on", err)
	}
}

func TestStubsWatch(t *testing.T) {
	s := stubs{died: make(chan struct{}, 1)}
	start := func() *exec.Cmd {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	dies, lives := start(), start()
	s.known = map[string]*os.File{}
	for _, cmd := range []*exec.Cmd{dies, lives} {
		pid := strconv.Itoa(cmd.Process.Pid)
		if s.known[pid] = s.watch(pid); s.known[pid] == nil {
			t.Fatal("the kernel does not tell of the end of processes")
		}
	}
	select {
	case <-s.died:
		t.Error("a process that lives is said to have ended")
	default:
	}
	if err := dies.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.died
	// What is not watched any more is not told.
	s.close()
	if err := lives.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = lives.Wait()
	select {
	case <-s.died:
		t.Error("a process is still watched")
	default:
	}
}
