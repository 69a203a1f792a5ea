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
	for q, ok := p, true; server > 0 && ok; q, ok = tree[q.parent] {
		if q.pid == server {
			if p.pid == server {
				return roleServer
			}
			return roleModel
		}
	}
	switch p.name {
	case guardName:
		return roleGuard
	case renderName:
		return roleRender
	}
	return roleOther
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
	for pid := range all {
		for q, ok := all[pid]; ok; q, ok = all[q.parent] {
			if q.pid == root {
				below[pid] = all[pid]
				break
			}
		}
	}
	for pid, p := range below {
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
