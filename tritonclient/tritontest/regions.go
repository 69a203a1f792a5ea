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
// its errors are those of Triton's shared_memory_manager.cc, and as in Triton 2.51
// a region that is in use is not forgotten, and no key is registered twice.
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
	for _, r := range s.byName {
		if r.key == key { // 2.51 takes that one's descriptor, which is closed
			return status.Errorf(codes.InvalidArgument, "failed to register shared memory region '%s': invalid args", name)
		}
	}
	f, err := os.OpenFile(filepath.Join("/dev/shm", strings.TrimLeft(key, "/")), os.O_RDWR, 0)
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

func (s *regions) unregister(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byName[name]
	if r == nil {
		return nil
	}
	if r.users > 1 {
		return status.Errorf(codes.Internal, "Cannot unregister shared memory region '%s', it is currently in use.", name)
	}
	delete(s.byName, name)
	r.releaseLocked()
	return nil
}

// unregisterAll is what a client asks for without a name.
func (s *regions) unregisterAll() error {
	var failed []string
	for _, name := range s.names() {
		if s.unregister(name) != nil {
			failed = append(failed, name)
		}
	}
	if failed != nil {
		return status.Errorf(codes.Internal, "Failed to unregister the following system shared memory regions: %s", strings.Join(failed, " ,"))
	}
	return nil
}

// removeAll is the end of the server.
func (s *regions) removeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, r := range s.byName {
		delete(s.byName, name)
		r.releaseLocked()
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
