package sink

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path"
	"sync"
	"syscall"
	"time"
)

// disk is a directory as the tree uses it. What leads out of it, also through
// links, is refused (os.Root). Its methods may be called from any goroutine.
type disk struct {
	*os.Root
	// fault, in tests, is asked before each step and may fail it. A write that
	// it fails comes to half.
	fault func(step, name string) error
}

func (d *disk) before(step, name string) error {
	if d.fault == nil {
		return nil
	}
	return d.fault(step, name)
}

func (d *disk) create(name string) (*file, error) {
	if err := d.before("create", name); err != nil {
		return nil, err
	}
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d *disk) open(name string, flag int) (*file, error) {
	f, err := d.OpenFile(name, flag, 0o666)
	if err != nil {
		return nil, err
	}
	return &file{File: f, disk: d, name: name}, nil
}

func (d *disk) rename(from, to string) error {
	if err := d.before("rename", from+" to "+to); err != nil {
		return err
	}
	return d.Rename(from, to)
}

func (d *disk) remove(name string) error {
	if err := d.before("remove", name); err != nil {
		return err
	}
	return d.Remove(name)
}

// removeDir removes a directory that is empty; a link to one is not ours.
func (d *disk) removeDir(name string) error {
	info, err := d.Lstat(name)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return err
	}
	return d.remove(name)
}

// sync makes the names in a directory last.
func (d *disk) sync(dir string) error {
	if err := d.before("syncdir", dir); err != nil {
		return err
	}
	f, err := d.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeDirs creates a directory with its parents, and makes them last.
func (d *disk) makeDirs(dir string) error {
	if dir == "." {
		return nil
	}
	if err := d.before("mkdir", dir); err != nil {
		return err
	}
	err := d.Mkdir(dir, 0o777)
	if errors.Is(err, os.ErrNotExist) {
		if err := d.makeDirs(path.Dir(dir)); err != nil {
			return err
		}
		err = d.Mkdir(dir, 0o777)
	}
	if errors.Is(err, os.ErrExist) {
		return nil // if it is no directory, what comes next will say so
	}
	if err != nil {
		return err
	}
	return d.sync(path.Dir(dir))
}

// file is an open file of a disk.
type file struct {
	*os.File
	disk *disk
	name string
}

func (f *file) Write(p []byte) (int, error) {
	if err := f.disk.before("write", f.name); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f *file) WriteAt(p []byte, at int64) (int, error) {
	if err := f.disk.before("write", f.name); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], at)
		return n, err
	}
	return f.File.WriteAt(p, at)
}

func (f *file) Sync() error {
	if err := f.disk.before("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

// space waits while a disk is full.
type space struct {
	limit time.Duration // negative: do not wait
	log   *slog.Logger

	mu      sync.Mutex
	waiting int
	since   time.Time
	reason  string
	took    time.Duration // of waits that are over
}

// spaceEvery is how often a full disk is tried again.
const spaceEvery = time.Second

// try does op, again and again while all that it lacks is space, as long as ctx
// lives and the limit allows.
func (s *space) try(ctx context.Context, op func() error) error {
	var since time.Time
	for {
		err := op()
		if !isFull(err) || s.limit < 0 {
			if !since.IsZero() {
				s.leave(err)
			}
			return err
		}
		if since.IsZero() {
			since = s.enter(err)
		}
		if waited := time.Since(since); waited >= s.limit {
			s.leave(err)
			return &stillFull{waited.Round(time.Second), err}
		}
		if !sleep(ctx, spaceEvery) {
			s.leave(err)
			return err
		}
	}
}

// stillFull says that the patience with a full disk has ended.
type stillFull struct {
	after time.Duration
	error
}

func (e *stillFull) Unwrap() error { return e.error }

// sleep tells whether ctx has outlived d.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func (s *space) enter(err error) (now time.Time) {
	s.mu.Lock()
	s.waiting++
	now = time.Now()
	first := s.waiting == 1
	if first {
		s.since, s.reason = now, err.Error()
	}
	s.mu.Unlock()
	if first {
		s.log.Warn("waiting for disk space", "reason", err)
	}
	return now
}

func (s *space) leave(err error) {
	s.mu.Lock()
	s.waiting--
	last, since := s.waiting == 0, s.since
	if last {
		s.took += time.Since(since)
		s.reason, s.since = "", time.Time{}
	}
	s.mu.Unlock()
	if last && err == nil {
		s.log.Warn("there is disk space again", "after", time.Since(since).Round(time.Millisecond))
	}
}

// now tells why somebody waits, since when; empty when nobody does.
func (s *space) now() (reason string, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason, s.since
}

// inAll is how long somebody has waited in all.
func (s *space) inAll() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting > 0 {
		return s.took + time.Since(s.since)
	}
	return s.took
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
