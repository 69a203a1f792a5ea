package layout

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"quire/orchestrator"
	"quire/tritonclient"
)

// shmDir is where Linux keeps POSIX shared-memory objects (shm_overview(7)).
const shmDir = "/dev/shm"

// releaseTimeout bounds how long a server that does not answer can hold up the
// release of memory. It unmaps what it forgot to when it ends.
const releaseTimeout = 2 * time.Second

// busyTimeout bounds how long a server that still works at requests which were
// given up here can, whatever regions they use.
const busyTimeout = 5 * time.Second

// maxDoubtful bounds what a server that goes on not answering leaves to do.
const maxDoubtful = 16

// spellings counts how often each slab was registered, anywhere. Two addresses may
// be one server, and an old registration may stand there. A Triton before 26.05
// (2.51 too) that is told of a key again takes the descriptor that it has closed
// after the first time. But it compares keys letter by letter, and shm_open skips
// slashes in front; so each registration of a slab has one slash more.
var spellings = struct {
	sync.Mutex
	of map[string]int
}{of: map[string]int{}}

// spell gives a slab's key as it was not spelled before.
func spell(key string) string {
	spellings.Lock()
	defer spellings.Unlock()
	spellings.of[key]++
	return strings.Repeat("/", spellings.of[key]) + strings.TrimPrefix(key, "/")
}

// unspell forgets a key whose slab goes.
func unspell(key string) {
	spellings.Lock()
	defer spellings.Unlock()
	delete(spellings.of, key)
}

// regions knows which slabs are registered with the server as shared memory.
type regions struct {
	client *tritonclient.Client
	log    *slog.Logger
	// suffix keeps our names apart from those of a process in another
	// container, which may have the same prefix and process id.
	suffix string

	mu      sync.Mutex
	allowed bool // the server is known to take shared memory
	serial  int
	byKey   map[string]*region
	// A region that should be unregistered was in use at busyLast, zero when one
	// was unregistered since; and now and again from busySince on.
	busySince, busyLast time.Time
}

// region is one slab's registration. Its turn is held while a call registers
// it, so that two batches of one slab do so once.
type region struct {
	turn chan struct{} // of capacity 1; whoever has the turn may touch the rest
	name string        // empty when not registered
	// doubtful are names whose registration got no answer, the last maxDoubtful
	// of them: the server may hold them or not.
	doubtful []string
}

func (r *regions) init(client *tritonclient.Client, log *slog.Logger) {
	r.client, r.log, r.byKey, r.suffix = client, log, make(map[string]*region), rand.Text()
}

// disallow goes over to in-band for good, and says so once.
func (r *regions) disallow(reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.allowed {
		r.log.Warn("the server takes no shared memory any more; pixels go in gRPC messages from now on", "server", r.client.Target(), "reason", reason)
	}
	r.allowed = false
}

// probe finds out whether the server shares /dev/shm with this process, and allows
// slabs if so: it registers an object whose name nobody can have by chance.
func (r *regions) probe(ctx context.Context, prefix string) error {
	name := prefix + "probe-" + rand.Text()
	path := filepath.Join(shmDir, name)
	// The same mode as the slabs have: another user's server is found out here.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("no shared memory on this machine: %w", err)
	}
	defer os.Remove(path)
	size := os.Getpagesize()
	_, err = f.Write(make([]byte, size))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("no shared memory on this machine: %w", err)
	}
	err = r.client.SystemSharedMemoryRegister(ctx, tritonclient.Region{Name: name, Key: "/" + name, ByteSize: uint64(size)})
	if !refused(err) { // the server may have it also when there was no answer
		r.unregister(name)
	}
	r.mu.Lock()
	r.allowed = err == nil
	r.mu.Unlock()
	return err
}

// refused tells that the server has not registered a region, as opposed to one
// that gave no answer.
func refused(err error) bool {
	kind := tritonclient.KindOf(err)
	return kind == tritonclient.RegionRefused || kind == tritonclient.SharedMemoryDisabled
}

// of gives the name under which the slab is registered, registering it first if
// need be; an empty name means in-band.
func (r *regions) of(ctx context.Context, s *orchestrator.Slab) (string, error) {
	if s.Key == "" {
		return "", nil
	}
	r.mu.Lock()
	if !r.allowed {
		r.mu.Unlock()
		return "", nil
	}
	g := r.byKey[s.Key]
	if g == nil {
		g = &region{turn: make(chan struct{}, 1)}
		r.byKey[s.Key] = g
	}
	r.mu.Unlock()

	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-g.turn }()
	if g.name != "" {
		return g.name, nil
	}
	// A name is used once: the server may still hold an old one, busy with a
	// request that was given up here.
	r.mu.Lock()
	r.serial++
	name := fmt.Sprintf("%s-%s-%d", strings.TrimPrefix(s.Key, "/"), r.suffix, r.serial)
	r.mu.Unlock()
	err := r.client.SystemSharedMemoryRegister(ctx, tritonclient.Region{Name: name, Key: spell(s.Key), ByteSize: uint64(len(s.Bytes))})
	if refused(err) {
		r.disallow(err)
		return "", nil
	}
	if err != nil {
		if len(g.doubtful) == maxDoubtful {
			g.doubtful = slices.Delete(g.doubtful, 0, 1)
		}
		g.doubtful = append(g.doubtful, name)
		return "", err
	}
	g.name = name
	return name, nil
}

// forget notes that the server does not know the slab under this name.
func (r *regions) forget(s *orchestrator.Slab, name string) {
	r.mu.Lock()
	g := r.byKey[s.Key]
	r.mu.Unlock()
	if g == nil {
		return
	}
	g.turn <- struct{}{} // held for a bounded time
	if g.name == name {  // not registered anew by another batch meanwhile
		g.name = ""
	}
	<-g.turn
}

// release unregisters a slab, by all its names at once: a server that does not
// answer has some time for each.
func (r *regions) release(key string) {
	r.mu.Lock()
	g := r.byKey[key]
	delete(r.byKey, key)
	r.mu.Unlock()
	if g == nil {
		return
	}
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	var group sync.WaitGroup
	defer group.Wait()
	if g.name != "" {
		group.Go(func() { r.unregister(g.name) })
	}
	for _, name := range g.doubtful {
		group.Go(func() { r.unregister(name) })
	}
}

// releaseAll unregisters all slabs, at once too.
func (r *regions) releaseAll() {
	r.mu.Lock()
	keys := slices.Collect(maps.Keys(r.byKey))
	r.mu.Unlock()
	var group sync.WaitGroup
	defer group.Wait()
	for _, k := range keys {
		group.Go(func() { r.release(k) })
	}
}

// unregister is best effort: a server that is gone has forgotten by itself. It
// has a time of its own, since it must happen when everything else was called
// off as well. A region that a request uses, such as one that was given up here,
// Triton does not forget before 24.12 (2.51 too), so it is asked until it does.
func (r *regions) unregister(name string) {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
		err := r.client.SystemSharedMemoryUnregister(ctx, name)
		cancel()
		if !r.busy(tritonclient.KindOf(err) == tritonclient.Internal) {
			if err != nil {
				r.log.Debug("a shared-memory region was not unregistered", "region", name, "err", err)
			}
			return
		}
		time.Sleep(pause)
	}
}

// busy notes whether a region was in use, and tells whether it is worth asking
// again. What was in use long ago takes no time from what is now.
func (r *regions) busy(inUse bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !inUse {
		r.busyLast = time.Time{}
		return false
	}
	if now.Sub(r.busyLast) > busyTimeout {
		r.busySince = now
	}
	r.busyLast = now
	return now.Sub(r.busySince) < busyTimeout
}
