package embedded

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a held lock is tried again: flock(2) cannot be waited
// for together with a context.
const lockPoll = 200 * time.Millisecond

// lockFile takes an exclusive lock on path, which it makes below the cache
// directory; closing the file gives it back, and so does the end of every process
// that holds the descriptor. When it has to wait it calls waiting once.
func lockFile(ctx context.Context, cache, path string, waiting func()) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, cacheError(cache, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, cacheError(cache, err)
	}
	var again *time.Ticker
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case nil:
			return f, nil
		case unix.EINTR:
			continue
		case unix.EWOULDBLOCK:
		default:
			f.Close()
			return nil, cacheError(cache, fmt.Errorf("lock %s: %w", path, err))
		}
		if again == nil {
			again = time.NewTicker(lockPoll)
			defer again.Stop()
			if waiting != nil {
				waiting()
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}

// replaceFile writes a file so that its name stands for the old content or the
// new, whole, at any time.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
