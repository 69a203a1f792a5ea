//go:build linux

package render

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/pdftest"
	"quire/tritonclient/guard"
)

// endlessAndPlain is a document whose first page does not end.
func endlessAndPlain() []byte { return pdftest.Endless(plainPage(255, 0, 0)) }

func TestEndlessPage(t *testing.T) {
	w := newWorker(t, newPool(t, Config{PageTimeout: 100 * time.Millisecond}))
	pid := w.process.guarded.Pid()
	open(t, w, newDocument(t, endlessAndPlain()))
	for range 2 {
		_, geometry, err := w.Draw(t.Context(), 1)
		wantError(t, err, orchestrator.StageRender, 1, orchestrator.CategoryTimeout)
		if geometry.WidthPt != 200 {
			t.Errorf("geometry %+v", geometry)
		}
		wantColour(t, w, 2, 255, 0, 0)
	}
	if w.process.guarded.Pid() != pid {
		t.Error("the process was replaced")
	}
}

// A process that does not answer stands for a page that MuPDF cannot be
// stopped in, and for a file that is opened for ever.
func TestUnstoppable(t *testing.T) {
	for _, c := range []struct {
		name  string
		page  int
		stage orchestrator.Stage
		do    func(*worker, orchestrator.Document) error
	}{
		{"page", 1, orchestrator.StageRender, func(w *worker, _ orchestrator.Document) error {
			_, _, err := w.Draw(context.Background(), 1)
			return err
		}},
		{"document", 0, orchestrator.StageOpen, func(w *worker, doc orchestrator.Document) error {
			_, err := w.Open(context.Background(), doc)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorker(t, newPool(t, Config{PageTimeout: 100 * time.Millisecond, OpenTimeout: 100 * time.Millisecond}))
			doc := newDocument(t, endlessAndPlain())
			open(t, w, doc)
			process := w.process.guarded
			stop(t, process)
			wantError(t, c.do(w, doc), c.stage, c.page, orchestrator.CategoryTimeout)
			w.pool.cfg.OpenTimeout, w.pool.cfg.PageTimeout = time.Minute, time.Minute
			open(t, w, doc)
			wantColour(t, w, 2, 255, 0, 0)
			if w.process.guarded == process {
				t.Error("the process was not replaced")
			}
			if s := w.pool.Stats(); s.Kills != 1 || s.Crashes != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// A program that stood still while its worker went on (^Z) comes back after the
// time is over, and the answer lies there.
func TestAnswerThatWasNotReadInTime(t *testing.T) {
	w := newWorker(t, newPool(t, Config{}))
	open(t, w, newDocument(t, endlessAndPlain()))
	p := w.process
	if _, err := p.tell(command{Draw: &drawCommand{Page: 1}}, nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	raw, err := p.conn.sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil
	}); err != nil {
		t.Fatal(err)
	}
	_ = p.conn.sock.SetDeadline(time.Now())
	if r, err := p.answer(t.Context(), p.lastID); err != nil || r.Reason != 0 {
		t.Errorf("got %+v, %v; want the page", r, err)
	}
	wantColour(t, w, 2, 255, 0, 0)
	if w.process != p {
		t.Error("the process was replaced")
	}
}

// working returns once the process has used CPU time since it was called.
func working(t testing.TB, pid int) {
	t.Helper()
	ticks := func() int {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')'):]))
		n, err := strconv.Atoi(fields[12]) // utime, of fields that begin after the name
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := ticks()
	until(t, "the worker does nothing", func() bool { return ticks() >= before+5 })
}

// beginDrawing begins with page 1, which does not end by itself, and returns when the
// process is at it.
func beginDrawing(ctx context.Context, t testing.TB, w *worker) (failed <-chan error) {
	t.Helper()
	pid := w.process.guarded.Pid()
	result := make(chan error, 1)
	go func() {
		_, _, err := w.Draw(ctx, 1)
		result <- err
	}()
	working(t, pid)
	return result
}

// until looks at what only /proc tells, and nobody is told of, until it is so.
func until(t testing.TB, otherwise string, so func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !so() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatal(otherwise)
		}
	}
}

// stop returns once every thread of the process stands still: the signal is
// answered before that, and a command that overtook it would be, too.
func stop(t testing.TB, process *guard.Process) {
	t.Helper()
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "the worker does not stop", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", process.Pid()))
		if err != nil || len(threads) == 0 {
			t.Fatalf("threads %v, %v", threads, err)
		}
		return !slices.ContainsFunc(threads, func(thread string) bool {
			// The state comes after the name, which is in parentheses.
			data, err := os.ReadFile(thread)
			return err == nil && !bytes.HasPrefix(data[bytes.LastIndexByte(data, ')'):], []byte(") T "))
		})
	})
}

func TestCrash(t *testing.T) {
	w := newWorker(t, newPool(t, Config{PageTimeout: -1}))
	open(t, w, newDocument(t, endlessAndPlain()))
	process := w.process.guarded
	failed := beginDrawing(context.Background(), t, w)
	if err := process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-failed, orchestrator.StageRender, 1, orchestrator.CategoryCrash)
	wantColour(t, w, 2, 255, 0, 0)
	if s := w.pool.Stats(); s.Kills != 0 || s.Crashes != 1 {
		t.Errorf("stats %+v", s)
	}

	// It may be the change that a reader crashes of.
	failed = beginDrawing(context.Background(), t, w)
	if err := os.Chtimes(w.doc.file.Name(), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := w.process.guarded.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-failed, orchestrator.StageRender, 1, orchestrator.CategoryChanged)
}

// What a crash says reaches the log, sandbox or not.
func TestCrashIsTold(t *testing.T) {
	var log bytes.Buffer
	w := newWorker(t, newPool(t, Config{PageTimeout: -1, Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	open(t, w, newDocument(t, endlessAndPlain()))
	process := w.process.guarded
	failed := beginDrawing(context.Background(), t, w)
	if err := process.Signal(syscall.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-failed, orchestrator.StageRender, 1, orchestrator.CategoryCrash)
	if !strings.Contains(log.String(), "SIGSEGV: segmentation violation") {
		t.Errorf("log:\n%s", &log)
	}
}

func TestDeathBetweenPagesIsNoPagesFault(t *testing.T) {
	w := newWorker(t, newPool(t, Config{}))
	open(t, w, newDocument(t, endlessAndPlain()))
	for range 3 {
		process := w.process.guarded
		if err := process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-process.Done()
		wantColour(t, w, 2, 255, 0, 0)
	}
}

// A process that took another one's place and could not open the document has it
// open no more than before, though it lives.
func TestNewProcessWithoutTheDocument(t *testing.T) {
	w := newWorker(t, newPool(t, Config{}))
	path := filepath.Join(t.TempDir(), "a.pdf")
	good := pdftest.Simple("", plainPage(255, 0, 0)).Bytes()
	// All that is known of the file stays.
	write := func(data []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, data, 0o600), os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0))); err != nil {
			t.Fatal(err)
		}
	}
	write(good)
	open(t, w, fileDocument(path))
	process := w.process.guarded
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-process.Done()
	write(bytes.Repeat([]byte("x"), len(good)))
	_, _, err := w.Draw(t.Context(), 1)
	wantError(t, err, orchestrator.StageRender, 1, orchestrator.CategoryMalformed)
	process = w.process.guarded
	write(good)
	wantColour(t, w, 1, 255, 0, 0)
	if s := w.pool.Stats(); w.process.guarded != process || s.Crashes != 0 {
		t.Errorf("the process was replaced: %v; stats %+v", w.process.guarded != process, s)
	}
}

func TestCancel(t *testing.T) {
	for _, c := range []struct {
		name    string
		stopped bool // the process does not answer
	}{{"stops", false}, {"does not stop", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorker(t, newPool(t, Config{PageTimeout: -1}))
			open(t, w, newDocument(t, endlessAndPlain()))
			process := w.process.guarded
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			cause := errors.New("enough")
			failed := beginDrawing(ctx, t, w)
			if c.stopped {
				stop(t, process)
			}
			cancel(cause)
			if err := <-failed; !errors.Is(err, cause) {
				t.Errorf("got %v, want the context's cause", err)
			}
			if _, _, err := w.Draw(ctx, 2); !errors.Is(err, cause) {
				t.Errorf("got %v, want the context's cause", err)
			}
			wantColour(t, w, 2, 255, 0, 0)
			if same := w.process.guarded == process; same == c.stopped {
				t.Errorf("same process: %v", same)
			}
		})
	}
}

func countFiles(t *testing.T, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

func TestNoDescriptorLeaks(t *testing.T) {
	pool := newPool(t, Config{Sandbox: SandboxOff}) // or only root could look
	good := newDocument(t, endlessAndPlain())
	bad := newDocument(t, []byte("%PDF-1.7\n"))
	encrypted := pdftest.Simple("", plainPage(0, 0, 0))
	encrypted.Encrypt("sesame")
	locked := newDocument(t, encrypted.Bytes())
	var before, beforeInWorker int
	for i := range 6 {
		w := newWorker(t, pool)
		for j := range 20 {
			open(t, w, good)
			wantColour(t, w, 2, 255, 0, 0)
			for _, doc := range []orchestrator.Document{bad, locked} {
				if _, err := w.Open(t.Context(), doc); err == nil {
					t.Fatal("it opened")
				}
			}
			if n := countFiles(t, w.process.guarded.Pid()); j == 0 {
				beforeInWorker = n
			} else if n > beforeInWorker {
				t.Fatalf("the worker has %d files open, at first %d", n, beforeInWorker)
			}
		}
		open(t, w, good)
		process := w.process.guarded
		if err := process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-process.Done()
		wantColour(t, w, 2, 255, 0, 0)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if n := countFiles(t, os.Getpid()); i == 0 {
			before = n
		} else if n > before {
			t.Fatalf("%d files open, at first %d", n, before)
		}
	}
}

// A worker that cannot start is told of, and leaves nothing here.
func TestFailedStartLeavesNothing(t *testing.T) {
	closed, starved, small := newPool(t, Config{}), newPool(t, Config{}), newPool(t, Config{MemoryLimit: 1 << 10})
	if err := closed.cfg.Guard.Close(); err != nil {
		t.Fatal(err)
	}
	starved.cfg.MemoryLimit = 1<<20 - runtimeBytes
	for _, c := range []struct {
		name, want string
		pool       *Pool
	}{
		{"no guard any more", guard.ErrClosed.Error(), closed},
		{"no memory for its runtime", "", starved},
		{"no memory for MuPDF", "MuPDF does not start", small},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before int
			for i := range 3 {
				w, err := c.pool.NewWorker(t.Context(), width, height)
				if err == nil {
					w.Close()
					t.Fatal("it started")
				}
				if !strings.Contains(err.Error(), "cannot start a worker process") || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v; want to be told that %q", err, c.want)
				}
				if n := countFiles(t, os.Getpid()); i == 0 {
					before = n
				} else if n > before {
					t.Errorf("%d files open, at first %d", n, before)
				}
			}
		})
	}
}

// What a worker may take of the machine, whatever the kernel has of a sandbox.
func TestLimits(t *testing.T) {
	w := newWorker(t, newPool(t, Config{MemoryLimit: 100 << 20, Sandbox: SandboxOff})) // or only root could look
	pid := w.process.guarded.Pid()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{} // of each limit, the one in force and the one that it can be raised to
	for line := range strings.Lines(string(limits)) {
		if len(line) > 66 {
			got[strings.TrimSpace(line[:26])] = strings.Join(strings.Fields(line[26:66]), " ")
		}
	}
	data := strconv.Itoa(100<<20 + runtimeBytes)
	for name, want := range map[string]string{"Max file size": "0 0", "Max open files": "64 64", "Max core file size": "0 0", "Max data size": data + " " + data} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil || strings.TrimSpace(string(score)) != "500" {
		t.Errorf("oom_score_adj is %q, %v", score, err)
	}
}

// program draws without end and says with which processes.
func program(path string) {
	err := func() error {
		g, err := guard.Start(context.Background(), guard.Config{Name: "quiretest"})
		if err != nil {
			return err
		}
		rw, err := New(Config{Guard: g, PageTimeout: -1}).NewWorker(context.Background(), width, height)
		if err != nil {
			return err
		}
		w := rw.(*worker)
		if _, err := w.Open(context.Background(), fileDocument(path)); err != nil {
			return err
		}
		fmt.Println(w.process.guarded.Pid())
		_, _, err = w.Draw(context.Background(), 1)
		return err
	}()
	fmt.Println("ended:", err)
	os.Exit(1)
}

func TestKilledProgramLeavesNoWorker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.pdf")
	if err := os.WriteFile(path, endlessAndPlain(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envProgram+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("it said %q", line)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	working(t, pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
		if err == unix.EINTR {
			continue
		}
		if n != 1 {
			t.Fatalf("worker %d still lives (%v)", pid, err)
		}
		return
	}
}
