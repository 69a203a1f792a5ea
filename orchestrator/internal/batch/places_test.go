package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A place that was given up counts no more, whatever is put into it after: a batch
// waits for its other places.
func TestCommitAfterRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 2, MaxAge: time.Hour, InFlight: 1})
		k.Expect(3)
		gone, err := k.Reserve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		gone.Remove()
		late, err := k.Reserve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		gone.Commit(1)
		k.arrive(t, 2)
		synctest.Wait()
		if got := k.seen(); got != "[] []" {
			t.Fatalf("sealed with a place that is not filled: %s", got)
		}
		late.Resource[late.Place] = 3
		late.Commit(3)
		synctest.Wait()
		if got := k.seen(); got != "[[3 2]] [size]" {
			t.Fatal(got)
		}
		k.open(0)
		k.Close()
	})
}

// Whichever places are given up, the rest is what runs, without gaps; newBench
// holds that each item is in its place.
func TestGaps(t *testing.T) {
	const items = 5
	for gone := range 1<<items - 1 {
		synctest.Test(t, func(t *testing.T) {
			k := newBench(t, Config[places]{MaxItems: items + 1, MaxAge: time.Hour, InFlight: 1})
			k.auto = true
			k.Expect(items + 1)
			var slots []Slot[places, int]
			var want []int
			for i := range items {
				slots = append(slots, k.arrive(t, i))
			}
			for i, s := range slots {
				if gone>>i&1 == 1 {
					s.Remove()
				} else {
					want = append(want, i)
				}
			}
			k.Withdraw()
			synctest.Wait()
			for _, ran := range k.started {
				slices.Sort(ran)
			}
			if got := k.seen(); got != fmt.Sprint([][]int{want}, []Reason{Idle}) {
				t.Errorf("without the places %05b: %s, want %v", gone, got, want)
			}
			k.Close()
		})
	}
}

// Close waits for places that are reserved, and no longer.
func TestCloseWaitsForPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 2, MaxAge: time.Hour, InFlight: 1})
		k.Expect(1)
		s, err := k.Reserve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		go func() { k.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("closed with a place reserved")
		default:
		}
		s.Remove()
		<-closed
		if k.lent != 0 {
			t.Errorf("%d resources still lent", k.lent)
		}
	})
}

func TestCancelledWaiterFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 1, InFlight: 1})
		k.add(t, 1)
		k.add(t, 2) // open, full, waits for the permit
		k.Expect(1)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			_, err := k.Reserve(ctx)
			done <- err
		}()
		synctest.Wait()
		if n := k.Stats().Waiting; n != 1 {
			t.Fatalf("%d waiting", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		k.Withdraw()
		if s := k.Stats(); s.Waiting != 0 || s.Open != 1 || s.InFlight != 1 {
			t.Fatalf("%+v", s)
		}
		synctest.Wait()
		k.open(0)
		synctest.Wait()
		k.open(1)
		k.Close()
	})
}

func TestRemoveClosesGapsAndCancelsEmptyBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBench(t, Config[places]{MaxItems: 4, MaxAge: time.Hour, InFlight: 1})
		k.Expect(4)
		slots := []Slot[places, int]{k.arrive(t, 1), k.arrive(t, 2), k.arrive(t, 3)}
		slots[0].Remove()
		slots[0].Remove()
		k.Withdraw() // nothing can join: seals with a gap at place 0
		synctest.Wait()
		if got := k.seen(); got != "[[3 2]] [idle]" {
			t.Fatal(got)
		}
		ended := make(chan struct{})
		k.mu.Lock()
		k.inside = func(b *Batch[places, int]) { <-b.Context.Done(); close(ended) }
		k.mu.Unlock()
		k.open(0)
		s := k.add(t, 9)
		synctest.Wait()
		s.Remove()
		<-ended
		k.Close()
	})
}
