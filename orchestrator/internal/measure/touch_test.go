package measure

import "golang.org/x/sys/unix"

// touch takes memory, uses it and gives it back to the system.
func touch(size int) error {
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	for i := 0; i < size; i += 4096 {
		m[i] = 1
	}
	return unix.Munmap(m)
}
