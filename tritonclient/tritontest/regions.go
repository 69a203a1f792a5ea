package tritontest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// regions is the system shared memory that clients have registered. The words of
// its errors are those of Triton's shared_memory_manager.cc.
type regions struct {
	mu     sync.Mutex
	byName map[string]*region
}

type region struct {
	key          string
	offset, size uint64
	mapping      []byte
	// users is how many requests read the mapping, plus one while it is
	// registered; it is unmapped at zero. Under regions.mu.
	users int
}

// releaseLocked drops one use.
func (r *region) releaseLocked() {
	if r.users--; r.users == 0 {
		// It was mapped, so it can be unmapped.
		_ = unix.Munmap(r.mapping)
		r.mapping = nil
	}
}

func (s *regions) register(name, key string, offset, size uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName[name] != nil {
		return status.Errorf(codes.AlreadyExists, "shared memory region '%s' already in manager", name)
	}
	f, err := os.OpenFile(filepath.Join("/dev/shm", strings.TrimPrefix(key, "/")), os.O_RDWR, 0)
	if err != nil {
		return status.Errorf(codes.Internal, "Unable to open shared memory region: '%s'", key)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || offset+size > uint64(info.Size()) || offset+size < offset || size == 0 {
		return status.Errorf(codes.Internal, "Invalid shared memory region: '%s'", key)
	}
	mapping, err := unix.Mmap(int(f.Fd()), int64(offset), int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return status.Errorf(codes.Internal, "failed to register shared memory region '%s'", name)
	}
	s.byName[name] = &region{key: key, offset: offset, size: size, mapping: mapping, users: 1}
	return nil
}

func (s *regions) unregister(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.byName[name]; r != nil {
		delete(s.byName, name)
		r.releaseLocked()
	}
}

func (s *regions) removeAll() {
	for _, name := range s.names() {
		s.unregister(name)
	}
}

func (s *regions) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.byName))
}

// use lends a part of a region until release is called.
func (s *regions) use(name string, offset, size int64) (data []byte, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byName[name]
	switch {
	case r == nil:
		return nil, nil, status.Errorf(codes.NotFound, "Unable to find shared memory region: '%s'", name)
	case offset < 0 || uint64(offset) >= r.size:
		return nil, nil, status.Errorf(codes.InvalidArgument, "Invalid offset for shared memory region: '%s'", name)
	case size < 0 || uint64(size) > r.size-uint64(offset):
		return nil, nil, status.Errorf(codes.InvalidArgument, "Invalid offset + byte size for shared memory region: '%s'", name)
	}
	r.users++
	return r.mapping[offset : offset+size], sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.releaseLocked()
	}), nil
}
