// Package slab lends batch-sized page buffers under one byte ceiling. There are
// as many as the engine can use at once, one for each batch in flight and one
// for the batch that is being filled, so that memory is bounded by construction.
package slab

import (
	"crypto/rand"
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
	// Release, if set, is called with each slab before it is unmapped, from
	// several goroutines.
	Release func(*Slab)
}

// Pool is a set of slabs. Its methods may be called from any goroutine.
type Pool struct {
	release  func(*Slab) // Config.Release
	resizing sync.Mutex  // held by Resize; allocating takes time

	mu     sync.Mutex
	cfg    Config
	free   []*Slab
	lent   map[*Slab]bool // whether it is of the set that was asked for last
	closed bool
}

// shmDir is where Linux keeps POSIX shared memory (shm_overview(7)).
const shmDir = "/dev/shm"

// New allocates all slabs at once, so that a /dev/shm that is too small is an
// error here and not a SIGBUS in mid-run. What cannot fit is refused before the
// first of them takes memory from others.
func New(cfg Config) (*Pool, error) {
	if cfg.Slabs < 1 || cfg.Pages < 1 || cfg.PageBytes < 1 {
		return nil, fmt.Errorf("slab: %d slabs of %d pages of %d bytes: each must be at least 1", cfg.Slabs, cfg.Pages, cfg.PageBytes)
	}
	slabs, err := allocate(cfg)
	if err != nil {
		return nil, err
	}
	return &Pool{release: cfg.Release, cfg: cfg, free: slabs, lent: map[*Slab]bool{}}, nil
}

// allocate makes the slabs that cfg asks for; all or none.
func allocate(cfg Config) ([]*Slab, error) {
	if err := cfg.fits(shmFree(), memoryFree()); err != nil {
		return nil, err
	}
	var slabs []*Slab
	for range cfg.Slabs {
		s, err := newSlab(cfg)
		if err != nil {
			for _, s := range slabs {
				s.unmap()
			}
			return nil, err
		}
		slabs = append(slabs, s)
	}
	return slabs, nil
}

// Resize replaces the slabs by others: those that are free now, those that are
// lent when they are put back. The new ones are made first, so for a moment there
// are both sets, and until the last old one is back more than asked for.
// prefix is as in Config. When there is no memory for the new ones, the old ones
// stay.
func (p *Pool) Resize(slabs, pages int, prefix string) error {
	p.resizing.Lock()
	defer p.resizing.Unlock()
	p.mu.Lock()
	cfg := p.cfg
	cfg.Slabs, cfg.Pages, cfg.Prefix = max(slabs, 1), max(pages, 1), prefix
	p.mu.Unlock()
	fresh, err := allocate(cfg)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		for _, s := range fresh {
			s.unmap()
		}
		return ErrClosed
	}
	p.cfg = cfg
	retired := p.free
	p.free = fresh
	for s := range p.lent {
		p.lent[s] = false // not of the set any more
	}
	p.mu.Unlock()
	p.retire(retired...)
	return nil
}

// retire releases and unmaps slabs, all at once: a server that does not answer
// has some time for each, and costs that time and no multiple of it.
func (p *Pool) retire(slabs ...*Slab) {
	var group sync.WaitGroup
	for _, s := range slabs {
		group.Go(func() {
			if p.release != nil {
				p.release(s)
			}
			s.unmap()
		})
	}
	group.Wait()
}

func newSlab(cfg Config) (*Slab, error) {
	size := cfg.Pages * cfg.PageBytes
	s := &Slab{Pages: cfg.Pages, PageBytes: cfg.PageBytes}
	if cfg.Prefix == "" {
		m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			if errors.Is(err, unix.ENOMEM) {
				return nil, cfg.noRoom(false, memoryFree())
			}
			return nil, fmt.Errorf("slab: take %d bytes of memory: %w", size, err)
		}
		s.Bytes = m
		return s, nil
	}
	// A name is nobody else's, also not one that a process has left which was
	// killed and had the same prefix.
	name := cfg.Prefix + "slab-" + rand.Text()[:12]
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
		if errors.Is(err, unix.ENOSPC) {
			return nil, cfg.noRoom(true, shmFree())
		}
		return nil, fmt.Errorf("slab: allocate shared memory %s: %w", name, err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("slab: map shared memory %s: %w", name, err)
	}
	s.Bytes, s.Key = m, "/"+name
	return s, nil
}

// What Get returns when it has no slab to lend.
var (
	ErrClosed  = errors.New("slab: pool is closed")
	errAllLent = errors.New("slab: all slabs are lent")
)

// Get borrows a slab. Nobody waits for one: there are as many as can be in use.
func (p *Pool) Get() (*Slab, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	switch {
	case p.closed:
		return nil, ErrClosed
	case last < 0:
		return nil, errAllLent
	}
	s := p.free[last]
	p.free = p.free[:last]
	p.lent[s] = true
	return s, nil
}

// Put gives a slab back.
func (p *Pool) Put(s *Slab) {
	p.mu.Lock()
	current, ok := p.lent[s]
	if !ok {
		p.mu.Unlock()
		panic("slab: put back twice")
	}
	delete(p.lent, s)
	if current {
		p.free = append(p.free, s)
	}
	p.mu.Unlock()
	if !current {
		p.retire(s)
	}
}

// Bytes is what the slabs that were asked for occupy in all.
func (p *Pool) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(p.cfg.Slabs) * int64(p.cfg.Pages) * int64(p.cfg.PageBytes)
}

// Held is what the slabs that exist occupy, those that a Resize has replaced and
// that are still lent included.
func (p *Pool) Held() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var n int64
	for _, s := range p.free {
		n += int64(len(s.Bytes))
	}
	for s := range p.lent {
		n += int64(len(s.Bytes))
	}
	return n
}

// Close releases, unmaps and unlinks the slabs. All must have been put back. It
// is idempotent.
func (p *Pool) Close() {
	p.mu.Lock()
	if n := len(p.lent); n != 0 {
		p.mu.Unlock()
		panic(fmt.Sprintf("slab: closed with %d slabs still lent", n))
	}
	free := p.free
	p.free, p.closed = nil, true
	p.mu.Unlock()
	p.retire(free...)
}

func (s *Slab) unmap() {
	if s.Key != "" {
		os.Remove(filepath.Join(shmDir, s.Key[1:]))
	}
	unix.Munmap(s.Bytes)
	s.Bytes = nil
}
