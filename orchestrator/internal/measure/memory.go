package measure

import (
	"fmt"
	"os"
	"strings"
)

// Memory is what quire's processes hold in physical memory, the server's left
// out: this process, the guard and the render workers.
//
// It is made of each process's own high-water mark, which the kernel keeps and
// no sampling can miss. Memory that several share counts once: of files (the
// program itself) what the largest share of one process is, and of shared
// memory what this process has mapped, since slabs and slots are all mapped
// here. Processes need not have their peaks at the same moment, so the sum is
// no less than the true peak.
type Memory struct {
	// Peak is all of it, in bytes.
	Peak int64
	// Quire is this process's part, shared memory included; Workers that of all
	// render workers, Guard the guard's.
	Quire, Workers, Guard int64
	// Processes is how many there were.
	Processes int
}

// ResetPeak makes the high-water marks of quire's processes, the server's left
// out, begin anew. Where the kernel does not allow that they go on, and
// [PeakMemory] then tells the peak since the processes began.
func ResetPeak(server int) error {
	return eachOwn(server, func(p process, _ role) {
		// See proc_pid_clear_refs(5).
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0)
	})
}

// PeakMemory reads the peak since [ResetPeak]. server is as [ReadCPU] has it. A
// worker that has ended since is not in it.
func PeakMemory(server int) (Memory, error) {
	var m Memory
	var largest int64 // of file-backed memory
	err := eachOwn(server, func(p process, r role) {
		s, err := readStatus(p.pid)
		if err != nil {
			return // it has ended
		}
		m.Processes++
		largest = max(largest, s.file)
		switch r {
		case roleQuire:
			m.Quire += s.peak - s.file
		case roleGuard:
			m.Guard += s.peak - s.file - s.shared
		default:
			m.Workers += s.peak - s.file - s.shared
		}
	})
	m.Quire += largest
	m.Peak = m.Quire + m.Workers + m.Guard
	return m, err
}

// eachOwn calls do for this process, the guard and the render workers.
func eachOwn(server int, do func(process, role)) error {
	tree, err := descendants(os.Getpid())
	if err != nil {
		return err
	}
	for _, p := range tree {
		switch r := roleOf(p, tree, server); r {
		case roleQuire, roleGuard, roleRender:
			do(p, r)
		}
	}
	return nil
}

// status is what is needed of /proc/PID/status, in bytes.
type status struct{ peak, file, shared int64 }

func readStatus(pid int) (status, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return status{}, err
	}
	var s status
	found := 0
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"VmHWM": &s.peak, "RssFile": &s.file, "RssShmem": &s.shared}[key]
		if into == nil {
			continue
		}
		if _, err := fmt.Sscanf(value, "%d kB", into); err != nil {
			return status{}, fmt.Errorf("/proc/%d/status: %s: %w", pid, key, err)
		}
		*into *= 1024
		found++
	}
	if found < 3 {
		return status{}, fmt.Errorf("/proc/%d/status has no memory in it", pid)
	}
	return s, nil
}
