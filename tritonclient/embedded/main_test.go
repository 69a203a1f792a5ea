package embedded

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"quire/tritonclient/guard"
)

// envRole turns the test binary into a program of its own: "install", "install
// on server" (with its environment as the base) and "serve".
const envRole = "QUIRE_EMBEDDED_TEST_ROLE"

func TestMain(m *testing.M) {
	guard.Main()
	if role := os.Getenv(envRole); role != "" {
		if err := program(role, os.Args[1:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// program is what a role does; it says one line for each thing that happens.
func program(role string, args []string) error {
	ctx := context.Background()
	g, err := guard.Start(ctx, guard.Config{Name: "quiretest"})
	if err != nil {
		return err
	}
	defer g.Close()
	o := Options{Guard: g, Progress: func(p Progress) {
		if p.Done == 0 {
			fmt.Println(p.Text)
		}
	}}
	switch role {
	case "install", "install on server":
		req := Requirements{Name: "tiny", Lock: []byte(tinyLock)}
		if role != "install" {
			if req.Base, err = ServerEnv(ctx, o); err != nil {
				return err
			}
		}
		o.Cache = args[0]
		_, err := Install(ctx, o, req)
		if err == nil {
			fmt.Println("installed")
		}
		return err
	case "serve":
		s, err := Start(ctx, identityConfig(o, args[0]))
		if err != nil {
			return err
		}
		fmt.Println("serving", s.Pid(), g.Pid(), g.ShmPrefix())
		<-s.Done()
	}
	return fmt.Errorf("role %s ended", role)
}

// tinyLock is a package of 45 kB, as scripts/requirements-model.txt pins it.
const tinyLock = `typing-extensions==4.16.0 \
    --hash=sha256:481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8
`

// otherLock is a package of 340 kB, from the same place.
const otherLock = `protobuf==7.36.2 \
    --hash=sha256:89f23aa53c24553a2416fd4fd1ec06f74fa42b14b546d8883128813f775bbfd2
`

func startGuard(t *testing.T) *guard.Guard {
	t.Helper()
	g, err := guard.Start(t.Context(), guard.Config{Name: "quiretest"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func options(t *testing.T) Options {
	t.Helper()
	return Options{Guard: startGuard(t), Progress: func(p Progress) {
		if p.Done == 0 {
			t.Log(p.Text)
		}
	}}
}

// helper is a running copy of the test binary.
type helper struct {
	*exec.Cmd
	out *bufio.Reader
}

func startHelper(t *testing.T, role string, args ...string) *helper {
	t.Helper()
	h := &helper{Cmd: exec.Command("/proc/self/exe", args...)}
	h.Env = append(os.Environ(), envRole+"="+role)
	h.Stderr = os.Stderr
	out, err := h.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewReader(out)
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Process.Kill(); _ = h.Wait() })
	return h
}

// until reads lines until one begins with prefix, and returns that one.
func (h *helper) until(t *testing.T, prefix string) string {
	t.Helper()
	for {
		line, err := h.out.ReadString('\n')
		if strings.HasPrefix(line, prefix) {
			return strings.TrimSpace(line)
		}
		if err != nil || strings.HasPrefix(line, "error:") {
			t.Fatalf("waiting for %q: %q, %v", prefix, line, err)
		}
	}
}

func (h *helper) rest(t *testing.T) []string {
	t.Helper()
	b, err := io.ReadAll(h.out)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// gone returns a function that waits until a process, which need not be a
// child, has ended.
func gone(t *testing.T, pid int) func() {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	return func() {
		t.Helper()
		defer unix.Close(fd)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Minute/time.Millisecond))
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

// children lists the processes whose parent is pid.
func children(t *testing.T, pid int) (found []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("children of %d: %v, %v", pid, tasks, err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // the thread ended
		}
		for f := range strings.FieldsSeq(string(b)) {
			var child int
			if _, err := fmt.Sscan(f, &child); err != nil {
				t.Fatal(err)
			}
			found = append(found, child)
		}
	}
	return found
}

func shmObjects(t *testing.T, prefix string) []string {
	t.Helper()
	names, err := filepath.Glob("/dev/shm/" + prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
