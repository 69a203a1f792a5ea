package measure

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// process is what is read of one process.
type process struct {
	pid, parent int
	name        string        // as it calls itself: argv[0]
	cpu         time.Duration // its own
	reaped      time.Duration // of the children that it has waited for, and theirs
}

// role is what a process is to quire.
type role int

const (
	roleOther role = iota
	roleQuire
	roleGuard
	roleRender
	roleServer
	roleModel
)

// The names under which tritonclient/guard and orchestrator/render start their
// processes.
const (
	guardName  = "quire-guard"
	renderName = "quire-render"
)

func roleOf(p process, tree map[int]process, server int) role {
	if p.pid == os.Getpid() {
		return roleQuire
	}
	switch {
	case p.pid == server:
		return roleServer
	case p.descends(server, tree):
		return roleModel
	case p.name == guardName:
		return roleGuard
	case p.name == renderName:
		return roleRender
	}
	return roleOther
}

// descends tells whether the process is another's descendant, or that one.
func (p process) descends(from int, tree map[int]process) bool {
	for ok := true; ok; p, ok = tree[p.parent] {
		if p.pid == from {
			return true
		}
	}
	return false
}

// descendants reads the process root and all below it.
func descendants(root int) (map[int]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid); ok {
			all[pid] = p
		}
	}
	if _, ok := all[root]; !ok {
		return nil, fmt.Errorf("/proc has no process %d", root)
	}
	below := map[int]process{}
	for pid, p := range all {
		if !p.descends(root, all) {
			continue
		}
		// Only of ours: a command line can be long.
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		name, _, _ := bytes.Cut(line, []byte{0})
		p.name = string(name)
		if cpu, err := clockOf(pid); err == nil {
			p.cpu = cpu
		}
		below[pid] = p
	}
	return below, nil
}

// readProcess reads /proc/PID/stat (proc_pid_stat(5)).
func readProcess(pid int) (process, bool) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false // it has ended
	}
	// The command's name, in parentheses, may hold anything.
	fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	const parent, utime, stime, cutime, cstime = 1, 11, 12, 13, 14
	if len(fields) <= cstime {
		return process{}, false
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(string(fields[i]), 10, 64)
		return n
	}
	return process{
		pid: pid, parent: int(number(parent)),
		cpu:    time.Duration(number(utime)+number(stime)) * tick,
		reaped: time.Duration(number(cutime)+number(cstime)) * tick,
	}, true
}
