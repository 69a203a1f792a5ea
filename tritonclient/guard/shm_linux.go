package guard

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// shmDir is where Linux keeps POSIX shared-memory objects (shm_overview(7)).
const shmDir = "/dev/shm"

// lockName is appended to a run's prefix. The object is locked with flock as
// long as the program or its guard lives, whatever PID namespace they are in,
// so that a later run can tell what a killed one left behind.
const lockName = "lock"

// newPrefix makes a name prefix that nobody else uses, and its lock. The lock
// is nil where there is no /dev/shm to write to.
func newPrefix(name string) (prefix string, lock *os.File, err error) {
	for range 100 {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		prefix = fmt.Sprintf("%s-%d-%s-", name, os.Getpid(), hex.EncodeToString(b[:]))
		path := filepath.Join(shmDir, prefix+lockName)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if os.IsExist(err) {
			continue
		}
		if err != nil {
			return prefix, nil, nil
		}
		if flock(f) && sameFile(f, path) {
			return prefix, f, nil
		}
		// Another program's unlinkStale came between create and lock.
		f.Close()
	}
	return "", nil, fmt.Errorf("guard: no free name under %s", shmDir)
}

// unlinkStale removes what runs of the same name left behind that ended
// together with their guard.
func unlinkStale(name string) {
	locks, err := filepath.Glob(filepath.Join(shmDir, name+"-*-"+lockName))
	if err != nil {
		return
	}
	for _, path := range locks {
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if flock(f) && sameFile(f, path) {
			unlinkPrefix(strings.TrimSuffix(filepath.Base(path), lockName))
		}
		f.Close()
	}
}

// unlinkPrefix removes every shared-memory object whose name begins with
// prefix, the lock last.
func unlinkPrefix(prefix string) {
	if prefix == "" {
		return
	}
	entries, err := os.ReadDir(shmDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Name() != prefix+lockName {
			_ = os.Remove(filepath.Join(shmDir, e.Name()))
		}
	}
	_ = os.Remove(filepath.Join(shmDir, prefix+lockName))
}

func flock(f *os.File) bool {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// sameFile tells whether path still names the open file f.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
