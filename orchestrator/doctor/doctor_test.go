package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// wantFinding checks a finding against what it should say; "" in remedy means
// none.
func wantFinding(t *testing.T, f Finding, status Status, text, remedy string) {
	t.Helper()
	if f.Status != status || !strings.Contains(f.Text, text) {
		t.Errorf("%s is %s: %q; want %s with %q", f.Check, f.Status, f.Text, status, text)
	}
	if !strings.Contains(f.Remedy, remedy) || (remedy == "") != (f.Remedy == "") {
		t.Errorf("%s: remedy %q, want %q", f.Check, f.Remedy, remedy)
	}
	if strings.Contains(f.Text+f.Remedy, "\n") {
		t.Errorf("%s: more than one line: %q, %q", f.Check, f.Text, f.Remedy)
	}
}

// root makes files below a new root directory.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// disk is a file system of so many bytes.
func disk(all, free int64) func(string, *unix.Statfs_t) error {
	return func(_ string, st *unix.Statfs_t) error {
		*st = unix.Statfs_t{Bsize: 4096, Blocks: uint64(all / 4096), Bavail: uint64(free / 4096)}
		return nil
	}
}

func TestSharedMemory(t *testing.T) {
	dir := root(t, map[string]string{"dev/shm/x": ""})
	for _, c := range []struct {
		all, free int64
		status    Status
		remedy    string
	}{
		{1 << 30, 1 << 30, OK, ""},
		{64 << 20, 64 << 20, Fail, "--shm-size"}, // what Docker gives
		{1 << 30, 10 << 20, Fail, "ls -l /dev/shm"},
	} {
		f := Machine{root: dir, fakeStatfs: disk(c.all, c.free)}.SharedMemory(100 << 20)
		wantFinding(t, f, c.status, "100 MB wanted", c.remedy)
	}
	wantFinding(t, Machine{root: t.TempDir()}.SharedMemory(1), Fail, "no such file", "mount -t tmpfs")
	wantFinding(t, Machine{root: t.TempDir()}.SharedMemory(0), Warn, "no such file", "mount -t tmpfs")
}

func TestCache(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "not", "there", "yet")
	wantFinding(t, Machine{fakeStatfs: disk(1<<40, 1<<40)}.Cache(missing, 1<<30), OK, missing, "")
	wantFinding(t, Machine{fakeStatfs: disk(1<<40, 1<<20)}.Cache(dir, 1<<30), Fail, "1.0 GB wanted", "make room")
	wantFinding(t, Machine{fakeStatfs: disk(1<<40, 1<<20)}.Cache(dir, 0), OK, dir, "")
	readOnly := func(string, uint32) error { return unix.EROFS }
	notOurs := func(string, uint32) error { return unix.EACCES }
	wantFinding(t, Machine{fakeStatfs: disk(1<<40, 0), fakeAccess: readOnly}.Cache(dir, 0), Warn, "what is installed there is used", "mount it writable, or")
	wantFinding(t, Machine{fakeStatfs: disk(1<<40, 1<<40), fakeAccess: notOurs}.Cache(dir, 0), Warn, "permission denied; what is installed", "chown")
	wantFinding(t, Machine{fakeStatfs: disk(1<<40, 0), fakeAccess: readOnly}.Cache(dir, 1), Fail, "read-only", "mount it writable, or")
	wantFinding(t, Machine{fakeStatfs: disk(1<<40, 1<<40), fakeAccess: notOurs}.Cache(dir, 1), Fail, "permission denied", "chown")
	// What another user has left in it.
	for _, name := range []string{"env", "locks"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	locks := filepath.Join(dir, "locks")
	oneNotOurs := func(path string, _ uint32) error {
		if path == locks {
			return unix.EACCES
		}
		return nil
	}
	wantFinding(t, Machine{fakeStatfs: disk(1<<40, 1<<40), fakeAccess: oneNotOurs}.Cache(dir, 1), Fail, locks+": permission denied", fmt.Sprintf("chown -R %d %s,", os.Geteuid(), dir))
	wantFinding(t, Machine{fakeStatfs: disk(1<<40, 1<<40), fakeAccess: oneNotOurs}.Cache(dir, 0), Warn, locks+": permission denied", "chown -R")
	// Nobody's directory but quire's is to change hands.
	wantFinding(t, Machine{fakeAccess: notOurs}.Cache(missing, 1), Fail, "permission denied", fmt.Sprintf("install -d -o %d %s,", os.Geteuid(), missing))
	file := filepath.Join(root(t, map[string]string{"passwd": ""}), "passwd")
	for _, path := range []string{file, filepath.Join(file, "quire")} {
		wantFinding(t, Machine{}.Cache(path, 0), Fail, file+" is not a directory", "name another directory with QUIRE_CACHE")
	}
	noAnswer := func(string, *unix.Statfs_t) error { return unix.EIO }
	wantFinding(t, Machine{fakeStatfs: noAnswer}.Cache(dir, 1), Fail, "input/output error", "QUIRE_CACHE")
	// Where nobody can write, root included.
	wantFinding(t, Machine{}.Cache("/proc/self/nowhere", 1), Fail, "/proc/self", "QUIRE_CACHE")
}

func limits(n uint64) func(int) (unix.Rlimit, error) {
	return func(int) (unix.Rlimit, error) { return unix.Rlimit{Cur: n, Max: n}, nil }
}

func TestLimits(t *testing.T) {
	for n, want := range map[uint64]Status{64: Fail, 256: Warn, 4096: OK, unix.RLIM_INFINITY: OK} {
		remedy := "ulimit -n"
		if want == OK {
			remedy = ""
		}
		wantFinding(t, Machine{fakeGetrlimit: limits(n)}.Files(8), want, "192", remedy)
	}
	unknown := func(int) (unix.Rlimit, error) { return unix.Rlimit{}, unix.EPERM }
	wantFinding(t, Machine{fakeGetrlimit: unknown}.Files(8), Warn, "unknown: operation not permitted", "")
	wantFinding(t, Machine{fakeGetrlimit: unknown}.AddressSpace(), Warn, "unknown: operation not permitted", "")
	wantFinding(t, Machine{fakeGetrlimit: limits(unix.RLIM_INFINITY)}.Files(8), OK, "at most any number,", "")
	wantFinding(t, Machine{fakeGetrlimit: limits(4096)}.Files(8), OK, "at most 4096,", "")
	wantFinding(t, Machine{fakeGetrlimit: limits(1 << 30)}.AddressSpace(), Fail, "1.0 GB", "ulimit -v unlimited")
	wantFinding(t, Machine{fakeGetrlimit: limits(8 << 30)}.AddressSpace(), Warn, "8.0 GB", "ulimit -v unlimited")
	wantFinding(t, Machine{fakeGetrlimit: limits(unix.RLIM_INFINITY)}.AddressSpace(), OK, "not limited", "")
}

// The least limit on the way up counts, in either version of control groups.
func TestMemory(t *testing.T) {
	const total = "MemTotal:       16777216 kB\n" // 16 GB
	for name, c := range map[string]struct {
		files map[string]string
		text  string
	}{
		"none":              {map[string]string{"proc/self/cgroup": "0::/user\n", "sys/fs/cgroup/user/memory.max": "max\n"}, "this machine has 16.0 GB"},
		"version 2":         {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1073741824\n"}, "this control group may use 1.0 GB"},
		"container":         {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2147483648\n"}, "this control group may use 2.0 GB"},
		"version 1":         {map[string]string{"proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/m\n", "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "3221225472\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, "this control group may use 3.0 GB"},
		"both":              {map[string]string{"proc/self/cgroup": "4:cpu,memory:/m\n0::/a\n", "sys/fs/cgroup/a/memory.max": "2147483648\n", "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "1073741824\n"}, "this control group may use 1.0 GB"},
		"above":             {map[string]string{"proc/self/cgroup": "no line of its kind\n0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "1073741824\n", "sys/fs/cgroup/a/memory.max": "2147483648\n"}, "this control group may use 1.0 GB"},
		"not its":           {map[string]string{"proc/self/cgroup": "4:cpu:/m\n0:memories:/m\n3::/m\n", "sys/fs/cgroup/m/memory.max": "1\n", "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "1\n"}, "this machine has 16.0 GB"},
		"a limit above all": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "9223372036854771712\n"}, "this machine has 16.0 GB"},
	} {
		c.files["proc/meminfo"] = total
		m := Machine{root: root(t, c.files)}
		if f := m.Memory(4 << 30); !strings.Contains(f.Text, c.text) || (f.Status == OK) != strings.HasPrefix(c.text, "this machine") || (f.Status == OK) != (f.Remedy == "") {
			t.Errorf("%s: %+v, want %q", name, f, c.text)
		}
	}
	wantFinding(t, Machine{root: t.TempDir()}.Memory(1), Warn, "unknown", "")
	group := Machine{root: root(t, map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2147483648\n"})}
	wantFinding(t, group.Memory(1<<30), OK, "this control group may use 2.0 GB", "")
}

func TestKernel(t *testing.T) {
	for _, c := range []struct {
		err          error
		status       Status
		text, remedy string
	}{
		{nil, OK, "ABI 4", ""},
		{unix.EOPNOTSUPP, Warn, "switched off", "lsm="},
		{unix.ENOSYS, Warn, "not there", "5.13"},
		{unix.EPERM, Warn, "forbidden", "profile"},
	} {
		wantFinding(t, Machine{fakeLandlock: func() (int, error) { return 4, c.err }}.landlock(), c.status, c.text, c.remedy)
	}
	m := Machine{root: root(t, map[string]string{"proc/self/status": "Name:\tquire\nNoNewPrivs:\t1\nSeccomp:\t2\n"})}
	wantFinding(t, m.seccomp(), OK, "a filter holds", "")
	if f := m.noNewPrivileges(); f.Status != OK || f.Text != "set on this process" {
		t.Errorf("%+v", f)
	}
	m = Machine{root: root(t, map[string]string{"proc/self/status": "NoNewPrivs:\t0\n", "proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow\n"})}
	wantFinding(t, m.seccomp(), OK, "there, no filter", "")
	wantFinding(t, m.noNewPrivileges(), OK, "not set on this process", "")
	m = Machine{root: t.TempDir()}
	wantFinding(t, m.seccomp(), Warn, "not there", "CONFIG_SECCOMP_FILTER")
	wantFinding(t, m.noNewPrivileges(), Warn, "unknown", "")
}

// On a real machine each look ends, with a word of its own.
func TestThisMachine(t *testing.T) {
	var m Machine
	findings := append(m.Kernel(), m.SharedMemory(1), m.Cache(t.TempDir(), 1), m.Files(1), m.AddressSpace(), m.Memory(1))
	seen := map[string]bool{}
	for _, f := range findings {
		if f.Check == "" || f.Text == "" || seen[f.Check] || (f.Status == Fail && f.Remedy == "") {
			t.Errorf("%+v", f)
		}
		seen[f.Check] = true
	}
}

func TestReport(t *testing.T) {
	findings := []Finding{
		{Check: "a", Status: OK, Text: "fine"},
		{Check: "b", Status: Warn, Text: "two\nlines", Remedy: "do this"},
		{Check: "c", Status: Fail, Text: `"quoted"`, Remedy: "do that"},
	}
	for _, c := range []struct {
		json bool
		want string
	}{
		{false, `ok    a                fine
warn  b                two lines
                       -> do this
fail  c                "quoted"
                       -> do that
quire run would not work: 1 ok, 1 to look at, 1 failed
`},
		{true, `{"message_type":"finding","check":"a","status":"ok","text":"fine"}
{"message_type":"finding","check":"b","status":"warn","text":"two lines","remedy":"do this"}
{"message_type":"finding","check":"c","status":"fail","text":"\"quoted\"","remedy":"do that"}
{"message_type":"summary","ok":1,"warn":1,"fail":1,"exit_code":1}
`},
	} {
		var out bytes.Buffer
		r := Report{Out: &out, JSON: c.json}
		for _, f := range findings {
			r.Add(f)
		}
		if err := r.Finish(1); err != nil || out.String() != c.want {
			t.Errorf("%v, got\n%s\nwant\n%s", err, out.String(), c.want)
		}
	}
	for _, c := range []struct {
		status Status
		want   string
	}{{OK, "quire run would work: 1 ok, 0 to look at, 0 failed\n"}, {Warn, "quire run would work: 0 ok, 1 to look at, 0 failed\n"}} {
		var out bytes.Buffer
		r := Report{Out: &out}
		r.Add(Finding{Check: "a", Status: c.status, Text: "x"})
		if err := r.Finish(0); err != nil || !strings.HasSuffix(out.String(), c.want) {
			t.Errorf("%v, got\n%s\nwant %s", err, out.String(), c.want)
		}
	}
	broken := Report{Out: brokenPipe{}}
	broken.Add(findings[0])
	if err := broken.Finish(0); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

var errBroken = errors.New("broken pipe")

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }
