package slab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func shmNames(t *testing.T, prefix string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(shmDir, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPoolSharedMemory(t *testing.T) {
	prefix := fmt.Sprintf("quire-test-%d-", os.Getpid())
	var released atomic.Int64
	p, err := New(Config{Slabs: 2, Pages: 3, PageBytes: 5000, Prefix: prefix, Release: func(*Slab) { released.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(shmNames(t, prefix)); got != 2 {
		t.Fatalf("%d objects in %s, want 2", got, shmDir)
	}
	a, _ := p.Get()
	b, _ := p.Get()
	if a.Key == b.Key || !strings.HasPrefix(a.Key, "/"+prefix) {
		t.Fatalf("keys %q and %q", a.Key, b.Key)
	}
	copy(a.Page(2), "last")
	a.Move(0, 2)
	seen, err := os.ReadFile(filepath.Join(shmDir, a.Key[1:]))
	if err != nil || string(seen[:4]) != "last" || len(seen) != 15000 {
		t.Fatalf("another reader sees %q, %d bytes, %v", seen[:4], len(seen), err)
	}

	if _, err := p.Get(); !errors.Is(err, errAllLent) {
		t.Fatalf("Get from an empty pool: %v", err)
	}
	p.Put(a)
	p.Put(b)
	p.Close()
	p.Close()
	if n := released.Load(); n != 2 {
		t.Fatalf("released %d", n)
	}
	if names := shmNames(t, prefix); len(names) != 0 {
		t.Fatalf("left behind: %v", names)
	}
	if _, err := p.Get(); !errors.Is(err, ErrClosed) {
		t.Fatalf("Get after Close: %v", err)
	}
}

// A server that does not answer holds up the end of many slabs as long as of one.
func TestReleasedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Config{Slabs: 5, Pages: 1, PageBytes: 8, Release: func(*Slab) { time.Sleep(2 * time.Second) }})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := p.Resize(3, 1, ""); err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("Resize took %v: %v", time.Since(start), err)
		}
		start = time.Now()
		if p.Close(); time.Since(start) != 2*time.Second {
			t.Errorf("Close took %v", time.Since(start))
		}
	})
}

// A process that was killed leaves its slabs; the next one with the same prefix
// is not kept from having its own.
func TestPrefixOfAProcessThatWasKilled(t *testing.T) {
	const killed = "QUIRE_TEST_SLAB_PREFIX"
	cfg := Config{Slabs: 1, Pages: 1, PageBytes: 1, Prefix: os.Getenv(killed)}
	if cfg.Prefix != "" {
		if _, err := New(cfg); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	prefix := fmt.Sprintf("quire-test-killed-%d-", os.Getpid())
	t.Cleanup(func() {
		for _, name := range shmNames(t, prefix) {
			os.Remove(name)
		}
	})
	for i := range 2 {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), killed+"="+prefix)
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != -1 {
			t.Errorf("process %d: %v, %s", i, err, out)
		}
	}
	if n := len(shmNames(t, prefix)); n != 2 {
		t.Errorf("%d slabs were left, want 2", n)
	}
}

func TestPoolTooLargeIsAnErrorAtStart(t *testing.T) {
	prefix := fmt.Sprintf("quire-test-big-%d-", os.Getpid())
	// 2^50 bytes: no /dev/shm has them.
	_, err := New(Config{Slabs: 1, Pages: 1 << 25, PageBytes: 1 << 25, Prefix: prefix})
	if room, ok := errors.AsType[*RoomError](err); !ok || !room.Shared || !strings.Contains(err.Error(), "too small") {
		t.Fatalf("err = %v", err)
	}
	// 2^62 bytes each, which a sum of 64 bits cannot hold.
	for _, prefix := range []string{prefix, ""} {
		if _, err := New(Config{Slabs: 4, Pages: 1 << 31, PageBytes: 1 << 31, Prefix: prefix}); err == nil || !strings.Contains(err.Error(), "too small for 4 batches") {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
	if names := shmNames(t, prefix); len(names) != 0 {
		t.Fatalf("left behind: %v", names)
	}
}

// Two pools of a process may be given one prefix.
func TestNamesAreUsedOnce(t *testing.T) {
	prefix := fmt.Sprintf("quire-test-%d-", os.Getpid())
	keys := map[string]bool{}
	for range 2 {
		p, err := New(Config{Slabs: 2, Pages: 1, PageBytes: 8, Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for range 2 {
			s, err := p.Get()
			if err != nil {
				t.Fatal(err)
			}
			defer os.Remove(filepath.Join(shmDir, s.Key))
			defer p.Put(s)
			keys[s.Key] = true
		}
	}
	if len(keys) != 4 {
		t.Errorf("4 slabs are named %v", keys)
	}
}

// All slabs together have to fit, before the first is made.
func TestFits(t *testing.T) {
	const gb = 1 << 30
	type room string
	const (
		enough   room = "enough"
		inShm    room = "too little of /dev/shm"
		inMemory room = "too little memory"
	)
	for _, c := range []struct {
		cfg         Config
		shm, memory uint64
		want        room
	}{
		{Config{Slabs: 3, Pages: 8, PageBytes: 1459200, Prefix: "p"}, 1 * gb, 1 * gb, enough},
		{Config{Slabs: 1000001, Pages: 8, PageBytes: 1459200, Prefix: "p"}, 24 * gb, 24 * gb, inShm},
		{Config{Slabs: 1000001, Pages: 8, PageBytes: 1459200}, 0, 24 * gb, inMemory},
		{Config{Slabs: 1000001, Pages: 8, PageBytes: 1459200}, 0, unknown, enough},
		{Config{Slabs: 3, Pages: 1, PageBytes: gb, Prefix: "p"}, 64 << 20, 24 * gb, inShm},
		{Config{Slabs: 3, Pages: 1, PageBytes: gb, Prefix: "p"}, 24 * gb, 2 * gb, inMemory}, // a /dev/shm as large as memory
		{Config{Slabs: 3, Pages: 1, PageBytes: gb, Prefix: "p"}, 3 * gb, 3 * gb, enough},
		{Config{Slabs: 3, Pages: 1, PageBytes: gb}, 0, 3 * gb, enough},
		{Config{Slabs: 1 << 40, Pages: 1 << 20, PageBytes: 1 << 20, Prefix: "p"}, unknown, unknown, inMemory}, // overflows
		{Config{Slabs: 1, Pages: 1 << 40, PageBytes: 1 << 40}, 0, 24 * gb, inMemory},
	} {
		err, got := c.cfg.fits(c.shm, c.memory), enough
		if no, ok := errors.AsType[*RoomError](err); ok && no.Shared {
			got = inShm
		} else if ok {
			got = inMemory
		}
		if got != c.want {
			t.Errorf("%+v in %d and %d bytes: %v, want %v", c.cfg, c.shm, c.memory, err, c.want)
		}
	}
	for text, want := range map[string]uint64{
		"MemTotal: 9 kB\nMemAvailable:   20 kB\nSwapTotal: 7 kB\nSwapFree: 3 kB\n": 23 << 10,
		"MemTotal: 9 kB\nSwapFree: 3 kB\n":                                         unknown, // before Linux 3.14
		"MemAvailable: many\n":                                                     unknown,
		"":                                                                         unknown,
	} {
		if got := available(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if free := memoryFree(); free == 0 || free == unknown {
		t.Errorf("this machine has %d bytes", free)
	}
}

func TestPoolPrivateMemory(t *testing.T) {
	p, err := New(Config{Slabs: 1, Pages: 2, PageBytes: 10})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := p.Get()
	if s.Key != "" || len(s.Bytes) != 20 || p.Bytes() != 20 {
		t.Fatalf("slab %+v", s)
	}
	p.Put(s)
	defer func() {
		if recover() == nil {
			t.Error("putting back twice went unnoticed")
		}
		p.Close()
	}()
	p.Put(s)
}

// A slab of an old set may be on its way out while the next Resize is under way;
// the race detector sees what they share.
func TestPutDuringResize(t *testing.T) {
	resized := make(chan struct{})
	out := make(chan struct{})
	var old *Slab
	p, err := New(Config{Slabs: 2, Pages: 1, PageBytes: 10, Release: func(s *Slab) {
		if s == old {
			<-resized
			close(out)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	old, _ = p.Get()
	if err := p.Resize(2, 2, ""); err != nil {
		t.Fatal(err)
	}
	go p.Put(old)
	for p.Held() != p.Bytes() { // until Put is past its lock
		runtime.Gosched()
	}
	if err := p.Resize(2, 3, ""); err != nil {
		t.Fatal(err)
	}
	close(resized)
	<-out
	if p.Held() != p.Bytes() || p.Bytes() != 60 {
		t.Errorf("%d bytes held, %d asked for, want 60", p.Held(), p.Bytes())
	}
	p.Close()
}

func TestResize(t *testing.T) {
	prefix := fmt.Sprintf("quire-test-resize-%d-", os.Getpid())
	p, err := New(Config{Slabs: 2, Pages: 1, PageBytes: 100, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	old, _ := p.Get()
	if err := p.Resize(3, 4, prefix); err != nil {
		t.Fatal(err)
	}
	if got := len(shmNames(t, prefix)); got != 1+3 || p.Bytes() != 1200 || p.Held() != 1200+100 {
		t.Errorf("%d objects, %d bytes asked for, %d held; want the lent one and 3 new", got, p.Bytes(), p.Held())
	}
	copy(old.Page(0), "still mine")
	var slabs []*Slab
	for range 3 {
		s, _ := p.Get()
		if s.Pages != 4 {
			t.Errorf("a slab of %d pages after Resize", s.Pages)
		}
		slabs = append(slabs, s)
	}
	p.Put(old)
	if got := len(shmNames(t, prefix)); got != 3 || p.Held() != 1200 {
		t.Errorf("%d objects once the old one is back, want 3", got)
	}
	// No memory: everything stays as it is.
	if err := p.Resize(1, 1<<40, prefix); err == nil || p.Bytes() != 1200 {
		t.Errorf("an impossible Resize: %v, %d bytes", err, p.Bytes())
	}
	for _, s := range slabs {
		p.Put(s)
	}
	p.Close()
	if names := shmNames(t, prefix); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}
