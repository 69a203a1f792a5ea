//go:build linux

package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// confine gives up, for good and for every thread, what this process does not
// need any more. What the kernel does not offer is left out and said.
func confine() Sandbox {
	var s Sandbox
	miss := func(what string, err error) {
		if errno, ok := errors.AsType[unix.Errno](err); ok {
			err = errno // the libraries' own words add nothing
		}
		s.Missing = append(s.Missing, fmt.Sprintf("%s: %v", what, err))
	}
	// A limit of no core files does not keep a crash from a collector that the
	// kernel pipes it to; this does.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		miss("no core files", err)
	}
	var err error
	if s.Landlock, err = denyAccess(); err != nil {
		miss("Landlock", err)
	}
	// Last, as it denies what the others need.
	if err := filterCalls(); err != nil {
		miss("seccomp", err)
	} else {
		s.Seccomp = true
	}
	return s
}

// denyAccess denies every file, port and process that Landlock knows to deny,
// and returns the version in force. (The library lets the process list its own
// threads: before version 8 it has to go through them one by one.)
func denyAccess() (abi int, err error) {
	if abi, err = landlockABI(); err != nil {
		return 0, err
	}
	var queue unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_SIGPENDING, &queue); abi < 8 && err == nil && queue.Cur < leastSignals {
		return 0, fmt.Errorf("ulimit -i is %d, and threads are told by signal: %d wanted", queue.Cur, leastSignals)
	}
	if err := landlock.V11.BestEffort().Restrict(); err != nil {
		return 0, err
	}
	return abi, nil
}

// leastSignals is how many signals it must be possible to queue for go-landlock
// to go through the threads, which all get one at once, in several workers and
// beside what other processes of this user have queued. One that does not fit
// comes without its sender, is taken for somebody else's, and waited for for ever.
const leastSignals = 64

// landlockABI asks as landlock_create_ruleset(2) says.
func landlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	return int(abi), nil
}

// filterCalls lets no thread make another system call than those below. A list
// of what is allowed stays right when kernels learn new calls; what is not on
// it fails with EPERM and does not kill, so that a C library that tries a newer
// call first goes on as on an older kernel.
func filterCalls() error {
	pid := uint64(unix.Getpid())
	allowed := seccomp.SyscallGroup{
		Action: seccomp.ActionAllow,
		Names: onThisArch(
			// What was handed over, and nothing new: descriptors come with
			// recvmsg, and none can be sent.
			"read", "readv", "pread64", "write", "writev", "recvmsg", "close", "lseek", "fstat",
			// Memory. Not mremap: it makes a piece of a stack as large as one
			// likes. The C library copies where it is not there.
			"brk", "munmap", "madvise",
			// Threads, their waiting, and the poller of Go's runtime.
			"futex", "sched_yield", "sched_getaffinity", "set_robust_list", "rseq", "gettid", "getpid", "exit", "exit_group",
			"epoll_create1", "eventfd2", "epoll_ctl", "epoll_pwait", "epoll_pwait2",
			// Signals to itself.
			"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
			// Time, chance, and the size of memory, which qsort asks for.
			"clock_gettime", "clock_getres", "gettimeofday", "time", "nanosleep", "clock_nanosleep", "getrandom", "sysinfo",
		),
		NamesWithCondtions: []seccomp.NameWithConditions{
			{Name: "clone", Conditions: when(0, seccomp.BitsSet, unix.CLONE_THREAD)},
			{Name: "tgkill", Conditions: when(0, seccomp.Equal, pid)},
			{Name: "kill", Conditions: when(0, seccomp.Equal, pid)},
			// No new code, and no memory that RLIMIT_DATA does not count, as it
			// does not what is shared or a stack.
			{Name: "mmap", Conditions: append(when(2, seccomp.BitsNotSet, unix.PROT_EXEC), when(3, seccomp.BitsNotSet, unix.MAP_SHARED|unix.MAP_GROWSDOWN)...)},
			{Name: "mprotect", Conditions: when(2, seccomp.BitsNotSet, unix.PROT_EXEC)},
			{Name: "fcntl", Conditions: when(1, seccomp.LessOrEqual, unix.F_SETFL)},
			// What fstat is in some C libraries. A filter cannot see the path,
			// so whether a file is there can be found out.
			{Name: "newfstatat", Conditions: when(3, seccomp.BitsSet, unix.AT_EMPTY_PATH)},
		},
	}
	// A filter cannot see the arguments of clone3. Where it is not there the C
	// library takes clone.
	absent := seccomp.SyscallGroup{
		Action: seccomp.ActionErrno&^0xffff | seccomp.Action(unix.ENOSYS),
		Names:  onThisArch("clone3"),
	}
	load := func(flags seccomp.FilterFlag) error {
		return seccomp.LoadFilter(seccomp.Filter{
			NoNewPrivs: true, // TSYNC carries it to the other threads, too
			Flag:       seccomp.FilterFlagTSync | flags,
			Policy: seccomp.Policy{
				DefaultAction: seccomp.ActionErrno, // EPERM
				Syscalls:      []seccomp.SyscallGroup{allowed, absent},
			},
		})
	}
	// Without the first flag, threads that cannot follow are no error. Without
	// the second, kernels before 5.16 slow a filtered process down, against what
	// it might do with code of strangers, which this one does not run. Kernels
	// before 5.7 do not know the first.
	err := load(unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	if errors.Is(err, unix.EINVAL) {
		err = load(0)
	}
	return err
}

func when(argument uint32, op seccomp.Operation, value uint64) seccomp.ArgumentConditions {
	return seccomp.ArgumentConditions{{Argument: argument, Operation: op, Value: value}}
}

// onThisArch leaves out system calls that newer architectures never had.
func onThisArch(names ...string) []string {
	info, err := arch.GetInfo("")
	if err != nil {
		return names // loading the filter says it
	}
	return slices.DeleteFunc(names, func(name string) bool {
		_, ok := info.SyscallNames[name]
		return !ok
	})
}

// lacking is why a worker may not work under SandboxRequire, or nil.
func (s Sandbox) lacking() error {
	if s.Landlock > 0 && s.Seccomp {
		return nil
	}
	return fmt.Errorf("it cannot be held in here (%s); the sandbox mode auto does without", strings.Join(s.Missing, "; "))
}
