package measure

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is processor time by who took it. A single reading is the time since the
// processes began, of use only beside a later one.
type CPU struct {
	// Quire is this process, Guard the guard, Render the render workers.
	Quire, Guard, Render time.Duration
	// Server is the tritonserver that quire started, Model the processes of its
	// models.
	Server, Model time.Duration
	// Other is everything else that descends from this process.
	Other time.Duration
}

// Sub is what was taken since before was read.
func (c CPU) Sub(before CPU) CPU {
	return CPU{
		Quire: c.Quire - before.Quire, Guard: c.Guard - before.Guard, Render: c.Render - before.Render,
		Server: c.Server - before.Server, Model: c.Model - before.Model, Other: c.Other - before.Other,
	}
}

// Add is both together.
func (c CPU) Add(d CPU) CPU {
	return CPU{
		Quire: c.Quire + d.Quire, Guard: c.Guard + d.Guard, Render: c.Render + d.Render,
		Server: c.Server + d.Server, Model: c.Model + d.Model, Other: c.Other + d.Other,
	}
}

// Total is all of it.
func (c CPU) Total() time.Duration {
	return c.Quire + c.Guard + c.Render + c.Server + c.Model + c.Other
}

// ReadCPU reads the processor time of this process and all that descend from
// it, the dead included. server is the process ID of the tritonserver that was
// started from here, 0 for none. A render worker that has ended still counts as
// Render, a model's process as Model.
func ReadCPU(server int) (CPU, error) {
	tree, err := descendants(os.Getpid())
	if err != nil {
		return CPU{}, err
	}
	var c CPU
	for _, p := range tree {
		switch roleOf(p, tree, server) {
		case roleQuire:
			c.Quire += p.cpu
			c.Other += p.reaped
		case roleGuard:
			// It is the parent of the workers, so what it reaped in a window
			// without a change of server was theirs.
			c.Guard += p.cpu
			c.Render += p.reaped
		case roleRender:
			c.Render += p.cpu
		case roleServer:
			c.Server += p.cpu
			c.Model += p.reaped
		case roleModel:
			c.Model += p.cpu + p.reaped
		default:
			c.Other += p.cpu + p.reaped
		}
	}
	return c, nil
}

// Machine is what the processors that this program may run on did, whoever for,
// in processor time: in a container too, where they are the host's.
type Machine struct {
	// Busy is work, Idle none (waiting for a disk included), Stolen what a
	// hypervisor gave to other guests.
	Busy, Idle, Stolen time.Duration
}

// Sub is what happened since before was read.
func (m Machine) Sub(before Machine) Machine {
	return Machine{Busy: m.Busy - before.Busy, Idle: m.Idle - before.Idle, Stolen: m.Stolen - before.Stolen}
}

// Add is both together.
func (m Machine) Add(n Machine) Machine {
	return Machine{Busy: m.Busy + n.Busy, Idle: m.Idle + n.Idle, Stolen: m.Stolen + n.Stolen}
}

// tick is the unit of processor time in /proc, the same on every Linux
// (USER_HZ).
const tick = 10 * time.Millisecond

// ReadMachine reads what the processors did since the machine started.
func ReadMachine() (Machine, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Machine{}, err
	}
	var mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		return Machine{}, os.NewSyscallError("sched_getaffinity", err)
	}
	return machineOf(string(text), mine.IsSet)
}

// machineOf adds up the processors in the text of /proc/stat that are mine.
func machineOf(text string, mine func(int) bool) (Machine, error) {
	var all Machine
	for line := range strings.Lines(text) {
		var n int
		var user, nice, system, idle, iowait, irq, softirq, steal int64
		if len(line) < 4 || line[:3] != "cpu" || line[3] == ' ' {
			continue // the sum of all, or about something else
		}
		if _, err := fmt.Sscanf(line, "cpu%d %d %d %d %d %d %d %d %d", &n, &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
			return Machine{}, fmt.Errorf("/proc/stat: %w", err)
		}
		if mine(n) {
			all = all.Add(Machine{
				Busy:   time.Duration(user+nice+system+irq+softirq) * tick,
				Idle:   time.Duration(idle+iowait) * tick,
				Stolen: time.Duration(steal) * tick,
			})
		}
	}
	return all, nil
}

// clockOf reads the processor time that a process has taken, in all its threads,
// those that have ended included. It is finer than /proc's.
func clockOf(pid int) (time.Duration, error) {
	// See clock_getcpuclockid(3): the clock of a process is made of its ID.
	const scheduler = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(ts.Nano()), nil
}
