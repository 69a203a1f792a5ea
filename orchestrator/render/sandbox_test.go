//go:build linux

package render

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"quire/orchestrator/render/internal/pdftest"
	"quire/tritonclient/guard"
)

// misdeed is what a worker that a document has taken over would try.
type misdeed struct {
	name string
	// abi is the version of Landlock that denies it alone, 0 for none.
	abi int
	do  func() error
}

func call(number uintptr, args ...uintptr) func() error {
	args = append(args, make([]uintptr, 6-len(args))...)
	return func() error {
		if _, _, errno := unix.Syscall6(number, args[0], args[1], args[2], args[3], args[4], args[5]); errno != 0 {
			return errno
		}
		return nil
	}
}

// made is a file that is not there.
const made = "/dev/shm/quire-misdeed"

// abstract is the socket of a test's own whose worker's parent this is.
func abstract(parent int) string { return fmt.Sprintf("@quire-misdeed-%d", parent) }

// misdeeds has its sockets before they can be had no more.
func misdeeds() []misdeed {
	parent := os.Getppid()
	open := func(path string, flags int) func() error {
		return func() error {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
			unix.Close(fd)
			return err
		}
	}
	socket := func(family int) int {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		return fd
	}
	out, in, local := socket(unix.AF_INET), socket(unix.AF_INET), socket(unix.AF_UNIX)
	var word [8]byte
	return []misdeed{
		{"read a file", 1, open("/etc/passwd", unix.O_RDONLY)},
		{"read its own program", 1, open("/proc/self/exe", unix.O_RDONLY)},
		{"list a directory", 1, open("/", unix.O_RDONLY|unix.O_DIRECTORY)},
		{"write a file", 1, open(made, unix.O_WRONLY|unix.O_CREAT)},
		{"make a directory", 1, func() error { return unix.Mkdir(made, 0o700) }},
		{"make a link", 1, func() error { return unix.Symlink("/etc/passwd", made) }},
		{"make a pipe", 1, func() error { return unix.Mkfifo(made, 0o600) }},
		{"become a program", 1, func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
		{"start a program", 1, func() error {
			_, err := syscall.ForkExec("/bin/true", []string{"true"}, nil)
			return err
		}},
		{"trace its parent", 1, func() error { return unix.PtraceSeize(parent) }},
		{"read its parent's memory", 1, func() error {
			_, err := unix.ProcessVMReadv(parent, []unix.Iovec{{Base: &word[0], Len: 8}}, []unix.RemoteIovec{{Base: 4096, Len: 8}}, 0)
			return err
		}},
		{"connect to loopback", 4, func() error {
			return unix.Connect(out, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
		}},
		{"take a port", 4, func() error { return unix.Bind(in, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) }},
		{"signal its parent", 6, func() error { return unix.Kill(parent, 0) }},
		{"connect to another program", 6, func() error {
			return unix.Connect(local, &unix.SockaddrUnix{Name: abstract(parent)})
		}},
		{"make an internet socket", 0, call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM)},
		{"make a local socket", 0, call(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM)},
		{"send a descriptor", 0, func() error { return unix.Sendmsg(fdConn, word[:], unix.UnixRights(0), nil, 0) }},
		// What is denied is to be no thread; this would be nonsense.
		{"fork", 0, call(unix.SYS_CLONE, unix.CLONE_SIGHAND)},
		{"hold a process", 0, call(unix.SYS_PIDFD_OPEN, uintptr(parent))},
		{"make a file in memory", 0, call(unix.SYS_MEMFD_CREATE, uintptr(unsafe.Pointer(&word)))},
		{"make code", 0, func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
			return err
		}},
		{"take memory that is not counted", 0, func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
			return err
		}},
		{"take memory that is counted as a stack", 0, func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_GROWSDOWN)
			return err
		}},
		{"make a stack larger", 0, call(unix.SYS_MREMAP)},
		{"make code of data", 0, call(unix.SYS_MPROTECT, 0, 0, unix.PROT_EXEC)},
		{"allow core files again", 0, func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }},
		{"outlive its parent", 0, func() error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) }},
		{"change a limit", 0, func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}) }},
		{"leave its group", 0, call(unix.SYS_SETPGID)},
		{"make a namespace", 0, call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)},
		{"mount", 0, call(unix.SYS_MOUNT)},
		{"load a program into the kernel", 0, call(unix.SYS_BPF, ^uintptr(0))},
		{"queue calls to the kernel", 0, call(unix.SYS_IO_URING_SETUP, 1)},
		{"ask for keys", 0, call(unix.SYS_KEYCTL, ^uintptr(0))},
		{"look for a file", 0, func() error { return unix.Access("/etc/passwd", unix.R_OK) }},
		{"change a file's mode", 0, func() error { return unix.Chmod(made, 0o777) }},
	}
}

// refused tells whether it was the sandbox that answered.
func refused(err error) bool { return err == unix.EPERM || err == unix.EACCES }

const (
	endOfMisdeeds = "and that was all\n"
	// envConfined makes the test binary try misdeeds with a part of the sandbox.
	envConfined = "QUIRE_RENDER_TEST_CONFINED"
	// envOldKernel makes it a program on a kernel without Landlock and seccomp.
	envOldKernel = "QUIRE_RENDER_TEST_OLD_KERNEL"
)

// misbehaveWhenTold has a worker try its misdeeds at SIGUSR2, on a thread that
// there was before the worker confined itself. It writes what was not refused.
func misbehaveWhenTold() {
	deeds, told, ready := misdeeds(), make(chan os.Signal, 1), make(chan bool)
	signal.Notify(told, syscall.SIGUSR2)
	go func() {
		runtime.LockOSThread()
		close(ready)
		<-told
		// What the resource limit is for: MuPDF's own account does not see this.
		if _, err := unix.Mmap(-1, 0, 2<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON); err != unix.ENOMEM {
			fmt.Fprintf(os.Stderr, "take more memory than there is for it: %v\n", err)
		}
		for _, d := range deeds {
			if err := d.do(); !refused(err) {
				fmt.Fprintf(os.Stderr, "%s: %v\n", d.name, err)
			}
		}
		os.Stderr.WriteString(endOfMisdeeds)
	}()
	<-ready
}

// sandboxHelper is what the test binary does as a helper of this file's tests.
func sandboxHelper() {
	if part := os.Getenv(envConfined); part != "" {
		deeds := misdeeds()
		abi, err := 1<<30, error(nil)
		if part == "Landlock" {
			abi, err = denyAccess()
		} else {
			err = filterCalls()
		}
		if err != nil {
			fmt.Println(err)
		}
		for _, d := range deeds {
			if part == "Landlock" && (d.abi == 0 || d.abi > abi) {
				continue
			}
			if err := d.do(); !refused(err) {
				fmt.Printf("%s: %v\n", d.name, err)
			}
		}
		os.Exit(0)
	}
	if path := os.Getenv(envOldKernel); path != "" {
		if err := onOldKernel(path); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
}

// The real worker, with a document open, and before and after it draws.
func TestWorkerIsConfined(t *testing.T) {
	w := newWorker(t, newPool(t, Config{}))
	if s := w.process.sandbox; s.Landlock < 1 || !s.Seccomp || len(s.Missing) > 0 {
		t.Fatalf("%+v: this test needs a kernel with Landlock and seccomp", s)
	}
	pid := w.process.guarded.Pid()
	tempt(t, w.pool.cfg.Guard.Pid())
	open(t, w, newDocument(t, endlessAndPlain()))
	wantColour(t, w, 2, 255, 0, 0)
	if err := w.process.guarded.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	look, deadline := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer look.Stop()
	said := ""
	for !strings.HasSuffix(said, endOfMisdeeds[:len(endOfMisdeeds)-1]) {
		select {
		case <-look.C:
			said = w.process.stderr.said()
		case <-deadline:
			t.Fatalf("the worker did not come to the end; it said %q", said)
		}
	}
	if said = strings.TrimPrefix(said, ": "); said+"\n" != endOfMisdeeds {
		t.Errorf("not refused:\n%s", said)
	}
	wantColour(t, w, 2, 255, 0, 0)
	if got := w.process.guarded.Pid(); got != pid {
		t.Error("the process was replaced")
	}
	// Each thread, whenever it was made.
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) < 3 {
		t.Fatalf("threads %q (%v)", threads, err)
	}
	for _, path := range threads {
		status, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !bytes.Contains(status, []byte(line)) {
				t.Errorf("%s lacks %q", path, line)
			}
		}
	}
}

// tempt has a program there that a worker with this parent could connect to,
// and room for the file that it could make.
func tempt(t *testing.T, parent int) {
	t.Helper()
	t.Cleanup(func() { os.Remove(made) })
	l, err := net.Listen("unix", abstract(parent))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// Either part does its work where the other is not there.
func TestEachPartOfTheSandbox(t *testing.T) {
	tempt(t, os.Getpid())
	for _, part := range []string{"Landlock", "seccomp"} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envConfined+"="+part)
		out, err := cmd.CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v; not refused:\n%s", part, err, out)
		}
	}
}

// onOldKernel has this process and its children find neither Landlock nor
// seccomp, and starts workers. It writes what they say.
func onOldKernel(path string) error {
	err := seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{{
			Names:  []string{"landlock_create_ruleset", "seccomp"},
			Action: seccomp.ActionErrno&^0xffff | seccomp.Action(unix.ENOSYS),
		}}},
	})
	if err != nil {
		return err
	}
	ctx := context.Background()
	g, err := guard.Start(ctx, guard.Config{Name: "quiretest"})
	if err != nil {
		return err
	}
	defer g.Close()
	pool := New(Config{Guard: g, Logger: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	for range 2 { // said once
		s, err := pool.Sandbox(ctx)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
			return err
		}
	}
	w, err := pool.NewWorker(ctx, width, height)
	if err != nil {
		return err
	}
	defer w.Close()
	pages, err := w.Open(ctx, fileDocument(path))
	if err == nil {
		_, _, err = w.Draw(ctx, pages)
	}
	if err != nil {
		return err
	}
	_, err = New(Config{Guard: g, Sandbox: SandboxRequire}).NewWorker(ctx, width, height)
	return err
}

func TestKernelWithoutSandbox(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.pdf")
	if err := os.WriteFile(path, pdftest.Simple("", plainPage(255, 0, 0)).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envOldKernel+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.SplitAfter(string(out), "\n")
	const missing = `{"Missing":["Landlock: function not implemented","seccomp: function not implemented"]}`
	if len(lines) != 5 || !strings.Contains(lines[0], "level=INFO") || !strings.Contains(lines[0], "quire doctor") ||
		lines[1] != missing+"\n" || lines[2] != lines[1] ||
		!strings.Contains(lines[3], "cannot start a worker process: it cannot be held in here (Landlock: function not implemented; seccomp: function not implemented)") {
		t.Errorf("it said:\n%s", out)
	}
}

// Where no signals can be queued go-landlock would wait for its threads for ever.
func TestNoSignals(t *testing.T) {
	pool := newPool(t, Config{})
	if err := unix.Prlimit(pool.cfg.Guard.Pid(), unix.RLIMIT_SIGPENDING, &unix.Rlimit{}, nil); err != nil {
		t.Fatal(err)
	}
	abi, err := landlockABI()
	if err != nil {
		t.Fatal(err)
	}
	s, err := pool.Sandbox(t.Context())
	missing := len(s.Missing) == 1 && strings.HasPrefix(s.Missing[0], "Landlock: ulimit -i is 0")
	if err != nil || !s.Seccomp || missing != (abi < 8) {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestSandboxModes(t *testing.T) {
	for _, c := range []struct {
		mode SandboxMode
		held bool
	}{{"", true}, {SandboxAuto, true}, {SandboxRequire, true}, {SandboxOff, false}} {
		pool := newPool(t, Config{Sandbox: c.mode})
		s, err := pool.Sandbox(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if held := s.Landlock > 0 && s.Seccomp; held != c.held || len(s.Missing) > 0 {
			t.Errorf("%q: %+v", c.mode, s)
		}
		w := newWorker(t, pool)
		open(t, w, newDocument(t, pdftest.Simple("", plainPage(255, 0, 0)).Bytes()))
		wantColour(t, w, 1, 255, 0, 0)
	}
}
