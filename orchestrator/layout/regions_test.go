package layout

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quire/orchestrator"
	"quire/tritonclient/tritontest"
)

// However many slabs a server still reads, an end waits for it once; and a later
// one waits again.
func TestBusySlabsShareOneWait(t *testing.T) {
	wait := func(r *regions) time.Duration {
		start := time.Now()
		for r.busy(true) {
			time.Sleep(50 * time.Millisecond)
		}
		return time.Since(start)
	}
	synctest.Test(t, func(t *testing.T) {
		var r regions
		var group sync.WaitGroup
		start := time.Now()
		for range 3 {
			group.Go(func() { wait(&r) })
		}
		group.Wait()
		if d := time.Since(start); d != busyTimeout {
			t.Errorf("three at once: %v", d)
		}
		for range 3 {
			if d := wait(&r); d != 0 {
				t.Errorf("one more: %v", d)
			}
		}
		time.Sleep(time.Minute)
		if d := wait(&r); d != busyTimeout {
			t.Errorf("a minute later: %v", d)
		}
		r.busy(false)
		if d := wait(&r); d != busyTimeout {
			t.Errorf("after one that was unregistered: %v", d)
		}
	})
	// A server that takes its time to say so has no more of it.
	synctest.Test(t, func(t *testing.T) {
		var r regions
		start := time.Now()
		for r.busy(true) && time.Since(start) < time.Minute {
			time.Sleep(releaseTimeout)
		}
		if d := time.Since(start); d > busyTimeout+releaseTimeout {
			t.Errorf("a slow one: %v", d)
		}
	})
}

// All names of all slabs are unregistered at once, those too whose registration
// got no answer, so that a server that hangs is waited for once.
func TestNamesAreUnregisteredAtOnce(t *testing.T) {
	s, m := open(t, tritontest.Config{}, Config{})
	slabs := []*orchestrator.Slab{sharedSlab(t, m, 1), sharedSlab(t, m, 1)}
	const tries = maxDoubtful + 3
	var mu sync.Mutex
	var hold context.CancelFunc
	var registered, asked []string
	all := make(chan struct{})
	s.Script(func(c *tritontest.Call) tritontest.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch c.Method {
		case "SystemSharedMemoryRegister":
			registered = append(registered, c.Region)
			if hold != nil {
				hold()
				return tritontest.Fault{Hang: true}
			}
		case "SystemSharedMemoryUnregister":
			if asked = append(asked, c.Region); len(asked) == maxDoubtful+2 {
				close(all)
			}
			return tritontest.Fault{Hold: all}
		}
		return tritontest.Fault{}
	})
	for range tries {
		ctx, cancel := context.WithCancel(testContext(t))
		mu.Lock()
		hold = cancel
		mu.Unlock()
		if _, err := m.Infer(ctx, slabs[0], 0, frames(1)); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	mu.Lock()
	hold = nil
	mu.Unlock()
	for _, slab := range slabs {
		if _, err := m.Infer(testContext(t), slab, 0, frames(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if names := slices.Compact(slices.Sorted(slices.Values(registered))); len(names) != len(registered) {
		t.Errorf("of %d names only %d are different: %q", len(registered), len(names), registered)
	}
	want := registered[tries-maxDoubtful:]
	slices.Sort(want)
	slices.Sort(asked)
	if !slices.Equal(asked, want) {
		t.Errorf("unregistered %q, want %q", asked, want)
	}
	if left := s.Regions(); len(left) != 0 {
		t.Errorf("%q stand", left)
	}
}
