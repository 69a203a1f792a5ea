package guard

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// procStat is what is needed of /proc/PID/stat (proc(5)).
type procStat struct {
	pid, parent, group, session int
	state                       rune
}

// processes lists those processes for which keep answers true.
func processes(keep func(procStat) bool) []procStat {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var found []procStat
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if st, ok := readStat(pid); ok && keep(st) {
			found = append(found, st)
		}
	}
	return found
}

func readStat(pid int) (procStat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, false
	}
	// The command name, in parentheses, may hold anything; what follows the
	// last ')' is state, ppid, pgrp, session.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, false
	}
	st := procStat{pid: pid}
	_, err = fmt.Sscanf(string(b[i+1:]), " %c %d %d %d", &st.state, &st.parent, &st.group, &st.session)
	return st, err == nil
}

// killSession ends every process of a session and waits until they are gone.
// The caller makes sure that the session's number is not used again meanwhile,
// by not reaping its leader. It uses pidfds because the members are not its
// children and could be reaped by another process between look and kill.
func killSession(session int) {
	for range 100 { // a member may fork while it is being killed
		members := processes(func(st procStat) bool {
			return st.session == session && st.pid != session && st.state != 'Z' && st.state != 'X'
		})
		if len(members) == 0 {
			return
		}
		var fds []unix.PollFd
		for _, m := range members {
			fd, err := unix.PidfdOpen(m.pid, 0)
			if err != nil {
				continue
			}
			if st, ok := readStat(m.pid); ok && st.session == session {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			} else {
				unix.Close(fd)
			}
		}
		for i := range fds {
			_, _ = unix.Poll(fds[i:i+1], int(endTimeout.Milliseconds()))
			unix.Close(int(fds[i].Fd))
		}
	}
}
