package orchestrator

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Servers join and leave while a run goes on. One that leaves answers what it
// has, and is not asked again.
func TestJoinAndLeave(t *testing.T) {
	prefix := fmt.Sprintf("quire-test-join-%d-", os.Getpid())
	synctest.Test(t, func(t *testing.T) {
		var s servers
		a, _ := s.model("a", nil)
		b, bm := s.model("b", nil)
		c, cm := s.model("c", nil)
		bm.in.MaxBatch, bm.in.SharedMemory, cm.in.Width = 4, true, 5
		list, count := manyDocs(40, 100)
		d := newDetector(t, Config{Endpoints: []Endpoint{a}, Renderer: &fakeRenderer{pages: count}, Workers: 2, SharedMemoryPrefix: prefix})
		defer d.Close()
		shared := func() int {
			names, err := filepath.Glob("/dev/shm/" + prefix + "*")
			if err != nil {
				t.Error(err)
			}
			return len(names)
		}
		if n := shared(); n != 0 {
			t.Errorf("%d slabs in shared memory that nobody takes", n)
		}
		var joined, left time.Time
		go func() {
			time.Sleep(time.Second)
			joined = time.Now()
			if err := d.Join(b); err != nil {
				t.Error(err)
			}
			if d.Join(b) == nil || d.Join(c) == nil {
				t.Error("a server joined twice, or one with another raster")
			}
			time.Sleep(time.Second)
			if x := d.Settings(); x.Batch != 4 || x.InFlight != 4 || shared() != 5 || d.Stats().Window != 4 {
				t.Errorf("with two servers: batches of %d, %d in flight, window %d, %d slabs in shared memory", x.Batch, x.InFlight, d.Stats().Window, shared())
			}
			d.Leave("a")
			left = time.Now()
			d.Leave("a")
			time.Sleep(time.Second)
			if x := d.Settings(); x.Batch != 4 || x.InFlight != 2 || len(d.Stats().Endpoints) != 1 {
				t.Errorf("with the other one: %+v, %+v", x, d.Stats().Endpoints)
			}
		}()
		_, sum, err := runDocs(t, d, list)
		if err != nil || sum.Pages != (Counts{Done: 4000}) {
			t.Errorf("%+v, %v", sum, err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, r := range s.log {
			if r.server == "a" && r.at.After(left) || r.server == "b" && r.at.Before(joined) {
				t.Errorf("%s was asked at the wrong time", r.server)
			}
		}
	})
	if left, _ := filepath.Glob("/dev/shm/" + prefix + "*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A server that is asked whether it is back has not left before it has answered.
func TestLeaveWaitsForWhoeverLooks(t *testing.T) {
	path := file(t, "a.pdf")
	synctest.Test(t, func(t *testing.T) {
		var s servers
		a, am := s.model("a", func(context.Context, []seenPage) error { return &ModelError{Action: ActionWait, Message: "refused"} })
		b, _ := s.model("b", nil)
		looks := make(chan struct{}, 1)
		var mu sync.Mutex
		used := false
		am.ready = func(ctx context.Context) error {
			looks <- struct{}{}
			<-ctx.Done()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			used = true
			return ctx.Err()
		}
		d := newDetector(t, Config{
			Endpoints: []Endpoint{a, b}, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}},
			RefreshEvery: -1, StallAfter: -1, // no clock that wakes others
		})
		defer d.Close()
		if _, err := d.Detect(t.Context(), path, 1); err != nil {
			t.Error(err)
		}
		<-looks
		begun := time.Now()
		d.Leave("a")
		mu.Lock()
		defer mu.Unlock()
		if took := time.Since(begun); !used || took != time.Second {
			t.Errorf("it has left after %v, and the look for whether it is back has ended: %v", took, used)
		}
	})
}

// A server that is told of a slab that goes has not left before it knows. One that a
// reload has replaced goes when it is put back, whoever it was at.
func TestLeaveWaitsForSlabsThatGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s servers
		a, am := s.model("a", nil)
		b, _ := s.model("b", nil)
		am.refresh = func(in *Input) error { in.MaxBatch = 2; return nil }
		releasing := make(chan struct{}, 10)
		var mu sync.Mutex
		begun, ended := 0, 0
		slowly := func(*Slab) {
			mu.Lock()
			begun++
			mu.Unlock()
			releasing <- struct{}{}
			time.Sleep(time.Second)
			mu.Lock()
			ended++
			mu.Unlock()
		}
		d := newDetector(t, Config{Endpoints: []Endpoint{a, b}, RefreshEvery: -1, StallAfter: -1}) // no clock that wakes others
		defer d.Close()
		lent, err := d.slabs.Get()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.refresh(t.Context(), d.fleet.members()[0]); err != nil { // all but that one are replaced
			t.Fatal(err)
		}
		am.mu.Lock()
		am.release = slowly
		am.mu.Unlock()
		go d.slabs.Put(lent)
		<-releasing
		start := time.Now()
		d.Leave("a")
		mu.Lock()
		defer mu.Unlock()
		if took := time.Since(start); begun != 1 || ended != 1 || took != time.Second {
			t.Errorf("it has left after %v; of %d slabs that it was told of, it knew of %d", took, begun, ended)
		}
	})
}

// Nor is a server used after Leave when the detector is being closed: before, or
// while Leave waits.
func TestLeaveWhileClosing(t *testing.T) {
	path := file(t, "a.pdf")
	for _, closing := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var s servers
			var used atomic.Int64
			a, _ := s.model("a", func(ctx context.Context, _ []seenPage) error {
				used.Add(1)
				defer used.Add(-1)
				<-ctx.Done()
				time.Sleep(time.Second) // as a client may that waits for its buffers
				return ctx.Err()
			})
			d := newDetector(t, Config{Endpoints: []Endpoint{a}, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}})
			go d.Detect(t.Context(), path, 1)
			left := make(chan struct{})
			leave := func() {
				defer close(left)
				d.Leave("a")
				if used.Load() != 0 {
					t.Errorf("closing %t: it has left, and is still asked", closing)
				}
			}
			synctest.Wait()
			if used.Load() != 1 {
				t.Fatal("it was not asked at all")
			}
			if closing {
				go d.Close()
				synctest.Wait()
				leave()
			} else {
				go leave()
				synctest.Wait()
			}
			d.Close()
			<-left
		})
	}
}

// When the last server leaves, what is in hand waits for the next that joins.
func TestLastLeavesBeforeTheNextJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s servers
		a, _ := s.model("a", nil)
		b, _ := s.model("b", nil)
		list, count := manyDocs(40, 100)
		d := newDetector(t, Config{Endpoints: []Endpoint{a}, Renderer: &fakeRenderer{pages: count}, Workers: 2})
		defer d.Close()
		go func() {
			time.Sleep(300 * time.Millisecond)
			d.Leave("a")
			time.Sleep(time.Second)
			if waiting := d.Stats().Waiting; waiting != "there is none" {
				t.Errorf("with no server, Stats says %q", waiting)
			}
			if err := d.Join(b); err != nil {
				t.Error(err)
			}
		}()
		_, sum, err := runDocs(t, d, list)
		if err != nil || sum.Pages != (Counts{Done: 4000}) || s.count("a") == 0 || s.count("b") == 0 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}
