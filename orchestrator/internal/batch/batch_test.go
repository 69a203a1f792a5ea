package batch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// places is the resource of the tests: what is in each place.
type places []int

// bench is a batcher over ints whose batches run until they are let go.
type bench struct {
	*Batcher[places, int]
	mu      sync.Mutex
	lent    int // resources out
	maxLent int
	started [][]int
	reasons []Reason
	gates   []chan struct{} // one a batch; closing it ends the batch
	auto    bool            // batches end at once
	room    int             // places of the next resource, if not MaxItems
	inside  func(*Batch[places, int])
}

func newBench(t *testing.T, cfg Config[places]) *bench {
	t.Helper()
	k := &bench{}
	cfg.Open = func() (places, int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.lent++
		k.maxLent = max(k.maxLent, k.lent)
		room := cfg.MaxItems
		if k.room > 0 {
			room = k.room
		}
		return make(places, room), room
	}
	cfg.Discard = func(places) { k.mu.Lock(); k.lent--; k.mu.Unlock() }
	cfg.Move = func(r places, dst, src int) { r[dst] = r[src] }
	k.Batcher = New(context.Background(), cfg, func(b *Batch[places, int]) {
		for i, item := range b.Items {
			if b.Resource[i] != item {
				t.Errorf("place %d holds %d, the item is %d", i, b.Resource[i], item)
			}
		}
		gate := make(chan struct{})
		k.mu.Lock()
		k.started = append(k.started, slices.Clone(b.Items))
		k.reasons = append(k.reasons, b.Reason)
		k.gates = append(k.gates, gate)
		auto := k.auto
		k.mu.Unlock()
		if k.inside != nil {
			k.inside(b)
		} else if !auto {
			<-gate
		}
		k.mu.Lock()
		k.lent--
		k.mu.Unlock()
	})
	return k
}

// add announces, reserves, fills and commits.
func (k *bench) add(t *testing.T, item int) Slot[places, int] {
	t.Helper()
	k.Expect(1)
	return k.arrive(t, item)
}

func (k *bench) arrive(t *testing.T, item int) Slot[places, int] {
	t.Helper()
	s, err := k.Reserve(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s.Resource[s.Place] = item
	s.Commit(item)
	return s
}

func (k *bench) seen() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Sprint(k.started, k.reasons)
}

func (k *bench) open(i int) { k.mu.Lock(); g := k.gates[i]; k.mu.Unlock(); close(g) }

func TestSealsWhenNothingCanJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 8, MaxAge: 10 * time.Second, InFlight: 1})
		start := time.Now()
		k.add(t, 1)
		synctest.Wait()
		if got := k.seen(); got != "[[1]] [idle]" || time.Since(start) != 0 {
			t.Fatalf("%s after %v", got, time.Since(start))
		}
		k.open(0)
		// A second announced item that will not come frees the first at once.
		k.Expect(2)
		k.arrive(t, 2)
		synctest.Wait()
		if got := k.seen(); got != "[[1]] [idle]" {
			t.Fatalf("sealed while one could join: %s", got)
		}
		k.Withdraw()
		synctest.Wait()
		if got := k.seen(); got != "[[1] [2]] [idle idle]" || time.Since(start) != 0 {
			t.Fatalf("%s after %v", got, time.Since(start))
		}
		k.open(1)
		k.Close()
	})
}

func TestAgeRunsFromTheFirstItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 100, MaxAge: 50 * time.Millisecond, InFlight: 1})
		start := time.Now()
		k.Expect(100) // a trickle that would reset an idle timer for ever
		for i := range 5 {
			k.arrive(t, i)
			time.Sleep(9 * time.Millisecond)
		}
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		if got := k.seen(); got != "[[0 1 2 3 4]] [age]" || time.Since(start) != 50*time.Millisecond {
			t.Fatalf("%s after %v", got, time.Since(start))
		}
		// A batch that was emptied starts a new age with its next first item.
		k.open(0)
		s := k.arrive(t, 5)
		time.Sleep(40 * time.Millisecond)
		s.Remove()
		k.arrive(t, 6)
		time.Sleep(49 * time.Millisecond)
		synctest.Wait()
		if got := k.seen(); got != "[[0 1 2 3 4]] [age]" {
			t.Fatalf("sealed by another item's age: %s", k.seen())
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := k.seen(); got != "[[0 1 2 3 4] [6]] [age age]" {
			t.Fatal(got)
		}
		// So does one that was emptied when it was past its age, and waited for a permit.
		s = k.arrive(t, 7)
		time.Sleep(time.Hour)
		s.Remove()
		k.arrive(t, 8)
		k.open(1)
		time.Sleep(49 * time.Millisecond)
		synctest.Wait()
		if got := k.seen(); got != "[[0 1 2 3 4] [6]] [age age]" {
			t.Fatalf("sealed by another item's age: %s", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := k.seen(); got != "[[0 1 2 3 4] [6] [8]] [age age age]" {
			t.Fatal(got)
		}
		k.open(2)
		k.Close()
	})
}

// A larger window lets what waits for a permit go at once; it is never without one
// permit, nor larger than InFlight.
func TestSetWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 1, InFlight: 2})
		k.SetWindow(0)
		if n := k.Stats().Window; n != 1 {
			t.Errorf("a window of %d", n)
		}
		k.add(t, 1)
		k.add(t, 2)
		synctest.Wait()
		if got := k.seen(); got != "[[1]] [size]" {
			t.Fatal(got)
		}
		k.SetWindow(3)
		synctest.Wait()
		if got := k.seen(); got != "[[1] [2]] [size size]" || k.Stats().Window != 2 {
			t.Errorf("%s, a window of %d", got, k.Stats().Window)
		}
		// So does a limit that is raised.
		k.add(t, 3)
		k.SetLimits(1, 3, 0)
		synctest.Wait()
		if got := k.seen(); got != "[[1] [2] [3]] [size size size]" {
			t.Error(got)
		}
		for i := range k.gates {
			k.open(i)
		}
		k.Close()
	})
}

// A batch that has run leaves nothing behind in the context that it came from.
func TestContextEndsWithTheBatch(t *testing.T) {
	k := newBench(t, Config[places]{MaxItems: 1, InFlight: 1})
	var ctx context.Context
	k.inside = func(b *Batch[places, int]) { ctx = b.Context }
	k.add(t, 1)
	k.Close()
	if ctx.Err() == nil {
		t.Error("the context of a batch that has run lives on")
	}
}

// Without an age the first item waits for nobody.
func TestNoAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 8, InFlight: 1})
		k.Expect(4)
		k.arrive(t, 1)
		synctest.Wait()
		k.arrive(t, 2)
		k.arrive(t, 3) // there is no permit
		k.open(0)
		synctest.Wait()
		if got := k.seen(); got != "[[1] [2 3]] [age age]" {
			t.Fatal(got)
		}
		k.open(1)
		k.Withdraw()
		k.Close()
	})
}

func TestPermitFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 3, MaxAge: time.Millisecond, InFlight: 1})
		k.Expect(9)
		k.arrive(t, 1)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		k.arrive(t, 2)
		time.Sleep(time.Hour) // long past its age, but no permit
		k.arrive(t, 3)
		k.arrive(t, 4)
		blocked := make(chan struct{})
		go func() { k.arrive(t, 5); close(blocked) }()
		synctest.Wait()
		select {
		case <-blocked:
			t.Fatal("a full batch took one more item")
		default:
		}
		k.open(0)
		<-blocked
		synctest.Wait()
		if got := k.seen(); got != "[[1] [2 3 4]] [age size]" {
			t.Fatal(got)
		}
		if k.maxLent > 2 {
			t.Fatalf("%d resources lent, in-flight + 1 is 2", k.maxLent)
		}
		k.open(1)
		for range 4 {
			k.Withdraw()
		}
		synctest.Wait()
		k.open(2)
		k.Close()
	})
}

func TestCloseRefusesAndDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 2, MaxAge: time.Hour, InFlight: 1})
		k.auto = true
		k.Expect(3)
		k.arrive(t, 1)
		start := time.Now()
		k.Close()
		if got := k.seen(); got != "[[1]] [close]" || time.Since(start) != 0 {
			t.Fatalf("%s after %v", got, time.Since(start))
		}
		if _, err := k.Reserve(context.Background()); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		k.Close()
		if k.lent != 0 {
			t.Fatalf("%d resources still lent", k.lent)
		}
	})
}

// What takes a resource back may ask a server, so nobody is kept waiting by it.
func TestDiscardHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 2, MaxAge: time.Hour, InFlight: 1})
		discarded := 0
		k.cfg.Discard = func(places) {
			discarded++
			if !k.Batcher.mu.TryLock() {
				t.Error("Discard is called with the lock held")
				return
			}
			k.Batcher.mu.Unlock()
		}
		k.Expect(2)
		k.arrive(t, 1).Remove()
		k.Close()
		k.Close()
		if discarded != 1 {
			t.Errorf("the resource was taken back %d times", discarded)
		}
	})
}

func TestSetLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 2, MaxAge: time.Hour, InFlight: 1})
		k.Expect(100)
		k.arrive(t, 1)
		k.arrive(t, 2) // in flight
		synctest.Wait()
		k.arrive(t, 3) // open, in a resource of 2
		k.mu.Lock()
		k.room = 4
		k.mu.Unlock()
		k.SetLimits(4, 2, time.Hour)
		k.arrive(t, 4) // full: the resource has no more room
		synctest.Wait()
		for i := range 4 {
			k.arrive(t, 5+i)
		}
		synctest.Wait()
		if got := k.seen(); got != "[[1 2] [3 4]] [size size]" {
			t.Fatal(got)
		}
		k.open(0)
		synctest.Wait()
		if got := k.seen(); got != "[[1 2] [3 4] [5 6 7 8]] [size size size]" {
			t.Fatal(got)
		}
		k.SetLimits(1, 1, time.Hour)
		k.arrive(t, 9)
		k.open(1)
		k.open(2)
		synctest.Wait()
		if got := k.Stats(); got.Sealed[Size] != 4 || got.Window != 1 || got.Sizes[4] != 1 {
			t.Fatalf("%+v", got)
		}
		k.open(3)
		k.Close()
	})
}

// TestNothingLostNothingDoubled runs random arrivals, cancels, removals and
// window changes, and checks the conservation law and every bound.
func TestNothingLostNothingDoubled(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			rs := rand.New(rand.NewPCG(seed, 8)) // the batches' own, under mu
			cfg := Config[places]{
				MaxItems: 1 + r.IntN(6), InFlight: 1 + r.IntN(4),
				MaxAge: time.Duration(r.IntN(20)) * time.Millisecond,
			}
			k := newBench(t, cfg)
			var mu sync.Mutex
			ran := map[int]int{}
			flying, worst := 0, 0
			k.inside = func(b *Batch[places, int]) {
				mu.Lock()
				flying++
				worst = max(worst, flying)
				for _, i := range b.Items {
					ran[i]++
				}
				if len(b.Items) == 0 || len(b.Items) > cfg.MaxItems {
					t.Errorf("batch of %d, limit %d", len(b.Items), cfg.MaxItems)
				}
				nap := time.Duration(rs.IntN(10)) * time.Millisecond
				mu.Unlock()
				time.Sleep(nap)
				mu.Lock()
				flying--
				mu.Unlock()
			}
			const n = 200
			removed, either := map[int]bool{}, map[int]bool{}
			var wg sync.WaitGroup
			for i := range n {
				window, late, fate := 1+r.IntN(4), time.Duration(r.IntN(100))*time.Millisecond, r.IntN(10)
				patience := time.Duration(1+r.IntN(30)) * time.Millisecond
				k.Expect(1)
				wg.Go(func() {
					time.Sleep(late)
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					if fate > 1 {
						ctx = context.Background()
					}
					s, err := k.Reserve(ctx)
					if err != nil {
						mu.Lock()
						removed[i] = true
						mu.Unlock()
						k.Withdraw()
						return
					}
					if fate == 2 {
						mu.Lock()
						removed[i] = true
						mu.Unlock()
						s.Remove()
						return
					}
					s.Resource[s.Place] = i
					s.Commit(i)
					if fate == 3 {
						time.Sleep(patience)
						s.Remove() // may have been sealed by now, or not
						mu.Lock()
						either[i] = true
						mu.Unlock()
					}
					if fate == 4 {
						k.SetWindow(1 + window)
					}
				})
			}
			wg.Wait()
			k.Close()
			for i := range n {
				want := 1
				if removed[i] {
					want = 0
				}
				if ran[i] != want && !(either[i] && ran[i] == 0) {
					t.Errorf("seed %d: item %d ran %d times, want %d", seed, i, ran[i], want)
				}
			}
			if worst > cfg.InFlight || k.maxLent > cfg.InFlight+1 || k.lent != 0 {
				t.Errorf("seed %d: %d in flight of %d, %d resources, %d left", seed, worst, cfg.InFlight, k.maxLent, k.lent)
			}
			s := k.Stats()
			var sealed, sized int64
			for _, c := range s.Sealed {
				sealed += c
			}
			for _, c := range s.Sizes {
				sized += c
			}
			if sealed != int64(len(k.started)) || sized != sealed {
				t.Errorf("seed %d: statistics count %d and %d batches, %d ran", seed, sealed, sized, len(k.started))
			}
		})
	}
}
