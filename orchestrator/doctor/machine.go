package doctor

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what is looked at. The zero value is this machine and this process.
type Machine struct {
	// These are for tests: what is put before /proc, /sys and /dev, and in the
	// place of questions to the kernel.
	root          string
	fakeGetrlimit func(resource int) (unix.Rlimit, error)
	fakeLandlock  func() (int, error)
	fakeStatfs    func(path string, st *unix.Statfs_t) error
	fakeAccess    func(path string, mode uint32) error
}

func (m Machine) limit(resource int) (unix.Rlimit, error) {
	if m.fakeGetrlimit != nil {
		return m.fakeGetrlimit(resource)
	}
	var l unix.Rlimit
	err := unix.Getrlimit(resource, &l)
	return l, err
}

func (m Machine) statfs(path string) (st unix.Statfs_t, err error) {
	ask := m.fakeStatfs
	if ask == nil {
		ask = unix.Statfs
	}
	err = ask(path, &st)
	return st, err
}

func (m Machine) read(path string) string {
	b, err := os.ReadFile(filepath.Join(m.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// line is what a file of lines "name: value" says of a name; empty: nothing.
func (m Machine) line(path, name string) string {
	for line := range strings.Lines(m.read(path)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

const processStatus = "/proc/self/status"

// SharedMemory looks at /dev/shm; need is how many bytes there a run will take,
// 0 for none.
func (m Machine) SharedMemory(need int64) Finding {
	const dir = "/dev/shm"
	f := Finding{Check: "shared_memory", Status: OK}
	st, err := m.statfs(filepath.Join(m.root, dir))
	if err == nil {
		err = unix.Access(filepath.Join(m.root, dir), unix.W_OK|unix.X_OK)
	}
	if err != nil {
		f.Status, f.Text = Fail, fmt.Sprintf("%s: %v", dir, err)
		if need == 0 {
			f.Status = Warn
		}
		f.Remedy = "mount -t tmpfs -o size=1g,mode=1777 tmpfs " + dir
		return f
	}
	free, all := int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	f.Text = fmt.Sprintf("%s: %s of %s free, %s wanted", dir, size(free), size(all), size(need))
	if free < need {
		f.Status = Fail
		f.Remedy = "mount -o remount,size=1g " + dir + " (a container: --shm-size=1g; or send less at once with --batch and --in-flight)"
		if all >= 2*need {
			f.Remedy = "remove what fills it (ls -l " + dir + "), or send less at once with --batch and --in-flight"
		}
	}
	return f
}

// Cache looks at a directory that programs will be installed in, or are; need is
// how many bytes will be added. With nothing to add it need not be writable: what
// is installed runs from there.
func (m Machine) Cache(dir string, need int64) Finding {
	f := Finding{Check: "cache", Status: OK}
	const elsewhere = "name another directory with QUIRE_CACHE"
	// What is not there will be made in what is.
	there := dir
	for {
		info, err := os.Stat(there)
		if err == nil && !info.IsDir() {
			f.Status, f.Text, f.Remedy = Fail, there+" is not a directory", elsewhere
			return f
		}
		if err == nil || there == filepath.Dir(there) {
			break
		}
		there = filepath.Dir(there)
	}
	if locked, err := m.locked(there, there == dir); err != nil {
		f.Status, f.Text = Fail, fmt.Sprintf("%s: %s: %v", dir, locked, err)
		f.Remedy = fmt.Sprintf("chown -R %d %s, or %s", os.Geteuid(), dir, elsewhere)
		switch {
		case errors.Is(err, unix.EROFS):
			f.Remedy = "mount it writable, or " + elsewhere
		case there != dir: // and is not quire's
			f.Remedy = fmt.Sprintf("install -d -o %d %s, or %s", os.Geteuid(), dir, elsewhere)
		}
		if need > 0 {
			return f
		}
		f.Status = Warn
		f.Text += "; what is installed there is used, and nothing can be added or kept there"
	}
	st, err := m.statfs(there)
	if err != nil {
		f.Status, f.Text, f.Remedy = Fail, fmt.Sprintf("%s: %v", there, err), elsewhere
		return f
	}
	free := int64(st.Bavail) * st.Bsize
	if f.Status == OK {
		f.Text = fmt.Sprintf("%s: %s free", dir, size(free))
	}
	if free < need {
		f.Status, f.Text = Fail, f.Text+", "+size(need)+" wanted"
		f.Remedy = "make room, or " + elsewhere
	}
	return f
}

// locked finds a directory that cannot be written in: dir, or with below one
// right in it, as another user of the same cache leaves them.
func (m Machine) locked(dir string, below bool) (string, error) {
	access := m.fakeAccess
	if access == nil {
		access = unix.Access
	}
	if err := access(dir, unix.W_OK|unix.X_OK); err != nil || !below {
		return dir, err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if sub := filepath.Join(dir, e.Name()); e.IsDir() {
			if err := access(sub, unix.W_OK|unix.X_OK); err != nil {
				return sub, err
			}
		}
	}
	return dir, err
}

// Files looks at the limit on open files of a process that draws on so many
// workers.
func (m Machine) Files(workers int) Finding {
	f := Finding{Check: "open_files", Status: OK}
	l, err := m.limit(unix.RLIMIT_NOFILE)
	if err != nil {
		return Finding{Check: f.Check, Status: Warn, Text: "the limit on open files is unknown: " + err.Error()}
	}
	// Documents, sockets, pipes and page buffers of each worker, and what is
	// open anyway. Go has raised the soft limit to the hard one by now.
	need := uint64(64 + 16*workers)
	f.Text = fmt.Sprintf("at most %s, %d workers want %d", count(l.Cur), workers, need)
	const remedy = "ulimit -n 4096 (a container: --ulimit nofile=4096; systemd: LimitNOFILE=4096)"
	switch {
	case l.Cur < need:
		f.Status, f.Remedy = Fail, remedy
	case l.Cur < 1024:
		f.Status, f.Remedy = Warn, remedy
	}
	return f
}

// leastAddressSpace is what the Go runtime of a worker reserves at its start.
const leastAddressSpace = 2 << 30

// AddressSpace looks at the limit on virtual memory.
func (m Machine) AddressSpace() Finding {
	f := Finding{Check: "address_space", Status: OK, Text: "not limited"}
	l, err := m.limit(unix.RLIMIT_AS)
	switch {
	case err != nil:
		f.Status, f.Text = Warn, "the limit is unknown: "+err.Error()
	case l.Cur == unix.RLIM_INFINITY:
	case l.Cur < leastAddressSpace:
		f.Status, f.Remedy = Fail, "ulimit -v unlimited"
		f.Text = fmt.Sprintf("limited to %s, and the workers need %s to start", size(int64(l.Cur)), size(leastAddressSpace))
	default:
		f.Status, f.Remedy = Warn, "ulimit -v unlimited"
		f.Text = fmt.Sprintf("limited to %s; address space is reserved, not used, so the limit stops what would fit", size(int64(l.Cur)))
	}
	return f
}

func count(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "any number"
	}
	return strconv.FormatUint(n, 10)
}

// Memory looks at the memory of the machine and of this process's control group.
// need is what a run takes at most.
func (m Machine) Memory(need int64) Finding {
	f := Finding{Check: "memory", Status: OK}
	all, whose := m.total(), "this machine has"
	if limit := m.groupLimit(); limit > 0 && (all == 0 || limit < all) {
		all, whose = limit, "this control group may use"
	}
	if all == 0 {
		return Finding{Check: f.Check, Status: Warn, Text: "unknown: no /proc/meminfo"}
	}
	f.Text = fmt.Sprintf("%s %s; a run takes up to %s", whose, size(all), size(need))
	if all < need {
		f.Status = Warn
		f.Remedy = "draw less at once with --workers (a container: raise --memory)"
	}
	return f
}

// total is the memory of the machine; 0 if it does not say.
func (m Machine) total() int64 {
	kb, err := strconv.ParseInt(strings.TrimSuffix(m.line("/proc/meminfo", "MemTotal"), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}

// groupLimit is the least memory limit of the control groups that this process
// is in (cgroups(7)), of version 2 or 1; 0 for none.
func (m Machine) groupLimit() int64 {
	least := int64(0)
	for line := range strings.Lines(m.read("/proc/self/cgroup")) {
		// hierarchy:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var mount, file string
		switch {
		case parts[0] == "0" && parts[1] == "":
			mount, file = "/sys/fs/cgroup", "memory.max"
		case strings.Contains(","+parts[1]+",", ",memory,"):
			mount, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// In a container the path may be the host's and not be there.
		for group := path.Join("/", parts[2]); ; group = path.Dir(group) {
			n, err := strconv.ParseInt(m.read(path.Join(mount, group, file)), 10, 64) // "max" is none
			if err == nil && (least == 0 || n < least) {
				least = n
			}
			if group == "/" {
				break
			}
		}
	}
	return least
}

// Kernel looks at what the kernel offers to lock processes in with.
func (m Machine) Kernel() []Finding {
	return []Finding{m.landlock(), m.seccomp(), m.noNewPrivileges()}
}

func (m Machine) landlock() Finding {
	ask := m.fakeLandlock
	if ask == nil {
		ask = landlockABI
	}
	f := Finding{Check: "landlock", Status: OK}
	abi, err := ask()
	switch {
	case err == nil:
		f.Text = fmt.Sprintf("there, ABI %d", abi)
	case errors.Is(err, unix.EOPNOTSUPP):
		f.Status, f.Text = Warn, "in the kernel, and switched off"
		f.Remedy = "add landlock to lsm= on the kernel's command line"
	case errors.Is(err, unix.EPERM):
		f.Status, f.Text = Warn, "forbidden here, most likely by a container's seccomp profile"
		f.Remedy = "use a container engine whose default profile allows Landlock"
	default:
		f.Status, f.Text = Warn, "not there: "+err.Error()
		f.Remedy = "use Linux 5.13 or newer, built with CONFIG_SECURITY_LANDLOCK"
	}
	return f
}

// landlockABI asks as landlock_create_ruleset(2) says.
func landlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	return int(abi), nil
}

// seccomp tells from /proc (proc_sys_kernel(5), proc_pid_status(5)): to ask for
// the mode by prctl(2) kills a process in strict mode.
func (m Machine) seccomp() Finding {
	f := Finding{Check: "seccomp", Status: OK}
	actions := m.read("/proc/sys/kernel/seccomp/actions_avail")
	mode := m.line(processStatus, "Seccomp")
	switch {
	case strings.Contains(actions, "errno") || mode != "":
		f.Text = map[string]string{"2": "there, and a filter holds for this process", "1": "strict mode"}[mode]
		if f.Text == "" {
			f.Text = "there, no filter on this process"
		}
	default:
		f.Status, f.Text, f.Remedy = Warn, "not there", "use a kernel built with CONFIG_SECCOMP_FILTER"
	}
	return f
}

func (m Machine) noNewPrivileges() Finding {
	f := Finding{Check: "no_new_privs", Status: OK, Text: "there, not set on this process"}
	switch m.line(processStatus, "NoNewPrivs") {
	case "0":
	case "1":
		f.Text = "set on this process"
	default:
		f.Status, f.Text = Warn, "unknown: /proc/self/status does not say"
	}
	return f
}
