//go:build linux

package guard

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A process whose limits cannot be set does not go on without.
func TestWithoutItsLimits(t *testing.T) {
	g := start(t)
	r, w := pipe(t)
	if _, err := g.Spawn(Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000"}, Files: []*os.File{nil, w},
		Rlimits: []Rlimit{{Resource: unix.RLIMIT_DATA, Cur: 2, Max: 1}},
	}); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "setrlimit") {
		t.Errorf("got %v", err)
	}
	w.Close()
	wantReleased(t, r)
}

// Descriptors land where they should, in blocking mode, and nothing else is
// inherited; bytes of arguments and environment arrive as they are.
func TestWhatAProcessGets(t *testing.T) {
	stray, err := unix.Dup(1) // without close-on-exec, as a careless parent leaves it
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	g := start(t)
	r, w := pipe(t)
	in, out := pipe(t)
	extra, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	p, err := g.Spawn(Command{
		Path:    "/bin/sh",
		Args:    []string{"sh", "-c", `read go; printf '%s|%s|' "$1" "$V"; pwd; nice; grep -h -E 'core file|data size' /proc/self/limits; sed -n 's/^flags:\t//p' /proc/$$/fdinfo/1; ls /proc/self/fd | tr '\n' ' '; echo; readlink /proc/$$/fd/4; echo extra >&4`, "sh", "arg\xff"},
		Env:     []string{"V=value\xfe", "PATH=/usr/bin:/bin"},
		Dir:     "/",
		Files:   []*os.File{in, w, nil, nil, extra},
		Nice:    7,
		Rlimits: []Rlimit{{Resource: unix.RLIMIT_DATA, Cur: 1 << 30, Max: 1 << 30}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	// Limits hold from when Spawn returns.
	if _, err := out.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	wantEnded(t, p, State{})
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(lines) != 7 {
		t.Fatalf("got %q", b)
	}
	if lines[0] != "arg\xff|value\xfe|/" {
		t.Errorf("argument, variable, directory: %q", lines[0])
	}
	base, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.Itoa(min(20-base+7, 19)); lines[1] != want {
		t.Errorf("niceness %s, want %s", lines[1], want)
	}
	for _, want := range []string{"Max data size 1073741824 1073741824 bytes", "Max core file size 0 0 bytes"} {
		if got := strings.Join(strings.Fields(lines[2]), " "); got != want && strings.Join(strings.Fields(lines[3]), " ") != want {
			t.Errorf("limits %q, %q lack %q", lines[2], lines[3], want)
		}
	}
	if flags, err := strconv.ParseInt(lines[4], 8, 64); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("standard output has flags %s", lines[4])
	}
	if want := "0 1 2 3 4 5 "; lines[5] != want { // 5 is the directory that ls reads
		t.Errorf("descriptors %q, want %q", lines[5], want)
	}
	if lines[6] != extra.Name() {
		t.Errorf("descriptor 4 is %s", lines[6])
	}
	if b, _ := os.ReadFile(extra.Name()); string(b) != "extra\n" {
		t.Errorf("the file holds %q", b)
	}

	// Nor does it get what the guard has open when it gets few files itself.
	r, w = pipe(t)
	if _, err = g.Spawn(Command{Path: "/bin/ls", Args: []string{"ls", "/proc/self/fd"}, Files: []*os.File{nil, w}}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if b, err = io.ReadAll(r); err != nil || string(b) != "0\n1\n2\n3\n" { // 3 is the directory
		t.Errorf("descriptors %q, %v", b, err)
	}
}

// A limit that is lower already is no reason not to start, and stays.
func TestLowerLimitStays(t *testing.T) {
	g := start(t)
	const own = 1 << 30
	if err := unix.Prlimit(g.Pid(), unix.RLIMIT_DATA, &unix.Rlimit{Cur: own, Max: own}, nil); err != nil {
		t.Fatal(err)
	}
	p, _ := spawnStubborn(t, g, "echo up; sleep 1000", 1, Rlimit{Resource: unix.RLIMIT_DATA, Cur: 2 * own, Max: 3 * own})
	var is unix.Rlimit
	if err := unix.Prlimit(p.Pid(), unix.RLIMIT_DATA, nil, &is); err != nil || is.Cur != own || is.Max != own {
		t.Errorf("limits %+v, %v; want %d", is, err, own)
	}
}

func TestOwnSession(t *testing.T) {
	g := start(t)
	p, _ := spawnStubborn(t, g, "echo up; sleep 1000", 1)
	own, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{g.Pid(), p.Pid()} {
		st, ok := readStat(pid)
		if !ok || st.session != g.Pid() || st.session == own || st.group != pid {
			t.Errorf("process %d: %+v; guard is %d, own session %d", pid, st, g.Pid(), own)
		}
	}
}
