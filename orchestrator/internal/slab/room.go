package slab

import (
	"fmt"
	"math"
	"math/bits"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unknown is room of which nobody tells how much it is.
const unknown = math.MaxUint64

// fits tells whether the slabs fit, all together, into what is free of shared
// memory, if that is where they go, and of memory, which they take in any case.
func (c Config) fits(shm, memory uint64) error {
	over, all := bits.Mul64(uint64(c.Pages), uint64(c.PageBytes))
	if over == 0 {
		over, all = bits.Mul64(uint64(c.Slabs), all)
	}
	if over > 0 {
		all = math.MaxInt64 // more than there is anywhere
	}
	switch {
	case c.Prefix != "" && all > shm:
		return c.noRoom(true, shm)
	case all > memory:
		return c.noRoom(false, memory)
	case over > 0:
		return c.noRoom(false, math.MaxInt64)
	}
	return nil
}

func (c Config) noRoom(shared bool, free uint64) error {
	return &RoomError{Batches: c.Slabs, Pages: c.Pages, PageBytes: c.PageBytes, Shared: shared, Free: free}
}

// RoomError says that batches do not fit into what a machine has free.
type RoomError struct {
	Batches   int
	Pages     int  // of each batch
	PageBytes int  // of each page
	Shared    bool // into /dev/shm, and not into memory
	Free      uint64
}

func (e *RoomError) Error() string {
	where := "the memory"
	if e.Shared {
		where = shmDir
	}
	size := float64(e.Batches) * float64(e.Pages) * float64(e.PageBytes)
	return fmt.Sprintf("%s is too small for %d batches of %d pages: they take %.1f MB, and %.1f MB are free", where, e.Batches, e.Pages, size/1e6, float64(e.Free)/1e6)
}

// shmFree is how many bytes /dev/shm has left.
func shmFree() uint64 {
	var st unix.Statfs_t
	if err := unix.Statfs(shmDir, &st); err != nil || st.Blocks == 0 { // a tmpfs without a limit has none
		return unknown
	}
	return st.Bavail * uint64(st.Bsize)
}

// memoryFree is how many bytes the machine could still give (proc_meminfo(5)).
func memoryFree() uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return unknown
	}
	return available(string(b))
}

func available(meminfo string) uint64 {
	free, told := uint64(0), false
	for line := range strings.Lines(meminfo) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "MemAvailable:" && fields[0] != "SwapFree:" {
			continue
		}
		if kB, err := strconv.ParseUint(fields[1], 10, 54); err == nil {
			free += kB << 10
			told = told || fields[0] == "MemAvailable:"
		}
	}
	if !told {
		return unknown
	}
	return free
}
