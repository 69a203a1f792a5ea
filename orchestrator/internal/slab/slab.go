// Package slab lends batch-sized page buffers under one byte ceiling. There are
// as many as the engine can use at once, one for each batch in flight and one
// for the batch that is being filled, so that memory is bounded by construction.
package slab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Slab is one batch-sized buffer. Whoever holds it owns its bytes until it is
// put back.
type Slab struct {
	// Bytes is the whole buffer, Pages × PageBytes long, page-aligned.
	Bytes []byte
	// Pages is how many pages fit.
	Pages int
	// PageBytes is the size of one page.
	PageBytes int
	// Key is the POSIX shared-memory name ("/quire-…"), empty for private
	// memory.
	Key string

	mapped []byte
}

// Page returns the bytes of page i.
func (s *Slab) Page(i int) []byte { return s.Bytes[i*s.PageBytes : (i+1)*s.PageBytes] }

// Move copies page src over page dst.
func (s *Slab) Move(dst, src int) { copy(s.Page(dst), s.Page(src)) }

// Config sizes a Pool.
type Config struct {
	// Slabs is how many there are, Pages how many pages one holds, PageBytes
	// the size of a page. All at least 1.
	Slabs, Pages, PageBytes int
	// Prefix starts the names of the shared-memory objects; with an empty
	// Prefix the slabs are private memory. Whoever gave the prefix unlinks what
	// a killed process leaves.
	Prefix string
}

// Pool is a fixed set of slabs. Its methods may be called from any goroutine.
type Pool struct {
	all  []*Slab
	free chan *Slab

	closeOnce sync.Once
}

// shmDir is where Linux keeps POSIX shared memory (shm_overview(7)).
const shmDir = "/dev/shm"

// New allocates all slabs at once, so that a /dev/shm that is too small is an
// error here and not a SIGBUS in mid-run.
func New(cfg Config) (*Pool, error) {
	if cfg.Slabs < 1 || cfg.Pages < 1 || cfg.PageBytes < 1 {
		return nil, fmt.Errorf("slab: %d slabs of %d pages of %d bytes: each must be at least 1", cfg.Slabs, cfg.Pages, cfg.PageBytes)
	}
	p := &Pool{free: make(chan *Slab, cfg.Slabs)}
	for i := range cfg.Slabs {
		s, err := newSlab(cfg, i)
		if err != nil {
			p.unmap()
			return nil, err
		}
		p.all = append(p.all, s)
		p.free <- s
	}
	return p, nil
}

func newSlab(cfg Config, i int) (*Slab, error) {
	size := cfg.Pages * cfg.PageBytes
	s := &Slab{Pages: cfg.Pages, PageBytes: cfg.PageBytes}
	if cfg.Prefix == "" {
		m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil, fmt.Errorf("slab: no memory for %d bytes: %w", size, err)
		}
		s.mapped, s.Bytes = m, m
		return s, nil
	}
	name := fmt.Sprintf("%sslab-%d", cfg.Prefix, i)
	path := filepath.Join(shmDir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("slab: shared memory %s: %w", name, err)
	}
	defer f.Close()
	// Fallocate and not Truncate: a sparse object on a full /dev/shm would
	// kill the process at the first write.
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size)); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("slab: shared memory is too small for %d bytes more: %w", size, err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("slab: map shared memory %s: %w", name, err)
	}
	s.mapped, s.Bytes, s.Key = m, m, "/"+name
	return s, nil
}

// ErrClosed is what Get returns after Close.
var ErrClosed = errors.New("slab: pool is closed")

// Get borrows a slab, waiting for one if all are lent.
func (p *Pool) Get(ctx context.Context) (*Slab, error) {
	select {
	case s, ok := <-p.free:
		if !ok {
			return nil, ErrClosed
		}
		return s, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Put gives a slab back.
func (p *Pool) Put(s *Slab) {
	select {
	case p.free <- s:
	default:
		panic("slab: put back twice")
	}
}

// Bytes is what the pool occupies in all.
func (p *Pool) Bytes() int64 {
	var n int64
	for _, s := range p.all {
		n += int64(len(s.Bytes))
	}
	return n
}

// Close calls release for every slab, then unmaps and unlinks them. All slabs
// must have been put back. It is idempotent.
func (p *Pool) Close(release func(*Slab)) {
	p.closeOnce.Do(func() {
		if n := len(p.all) - len(p.free); n != 0 {
			panic(fmt.Sprintf("slab: closed with %d slabs still lent", n))
		}
		for _, s := range p.all {
			<-p.free
			if release != nil {
				release(s)
			}
		}
		close(p.free)
		p.unmap()
	})
}

func (p *Pool) unmap() {
	for _, s := range p.all {
		if s.Key != "" {
			os.Remove(filepath.Join(shmDir, s.Key[1:]))
		}
		unix.Munmap(s.mapped)
		s.Bytes, s.mapped = nil, nil
	}
	p.all = nil
}
