//go:build linux

package render

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// slot is memory for the pixels of two pages, the one that was drawn last and
// the next one, shared with one worker process. It is sealed against shrinking, so that no process that has it can make another
// one's access a SIGBUS.
type slot struct {
	file *os.File
	mem  []byte
}

// slotSize is that of a slot in bytes.
func slotSize(width, height int) int { return 2 * width * height * 3 }

// half is one of a slot's two pages.
func half(mem []byte, second bool) []byte {
	n := len(mem) / 2
	if second {
		return mem[n:]
	}
	return mem[:n]
}

func newSlot(size int) (*slot, error) {
	fd, err := unix.MemfdCreate("quire-page", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "quire-page")
	if err := allocate(fd, size); err != nil {
		file.Close()
		return nil, fmt.Errorf("no memory for a page of %d bytes: %w", size, err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		file.Close()
		return nil, os.NewSyscallError("mmap", err)
	}
	return &slot{file, mem}, nil
}

// allocate takes the pages for real, so that a full memory is an error here
// and not a SIGBUS in the middle of a drawing.
func allocate(fd, size int) error {
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	if err := unix.Fallocate(fd, 0, 0, int64(size)); err != nil {
		return os.NewSyscallError("fallocate", err)
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	return os.NewSyscallError("fcntl", err)
}

func (s *slot) close() {
	_ = unix.Munmap(s.mem)
	s.mem = nil
	s.file.Close()
}
