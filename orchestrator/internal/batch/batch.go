// Package batch groups items by count and age and keeps a bounded number
// of groups in flight. It knows neither pages nor servers.
//
// A batch takes its in-flight permit first and is sealed after, so that waiting
// for the server turns into larger batches. It is sealed when it is full, when
// its first item has waited MaxAge, when nothing upstream can still join it, or
// when the batcher closes; whichever is first, and never without a permit.
package batch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Reason tells what sealed a batch.
type Reason int

// The reasons for sealing.
const (
	Size   Reason = iota // MaxItems reached
	Age                  // the first item has waited MaxAge
	Idle                 // nothing upstream can still join
	Closed               // the batcher is closing
	reasons
)

func (r Reason) String() string {
	return [...]string{"size", "age", "idle", "close"}[r]
}

// ErrClosed is what Reserve returns once Close was called.
var ErrClosed = errors.New("batch: closed")

// Config sizes a Batcher.
type Config[R any] struct {
	// MaxItems is the most items a batch holds, at least 1.
	MaxItems int
	// MaxAge is how long the first item waits for company; without a permit it
	// waits on and leaves with the next one. 0 or less means not at all.
	MaxAge time.Duration
	// InFlight is the most batches that run at once, at least 1.
	InFlight int
	// Open gives a new batch its resource, the place its items are put in, and
	// tells how many fit. It is called with at most InFlight batches running
	// and none open, under the batcher's lock: it must not block.
	Open func() (resource R, places int)
	// Discard takes back the resource of a batch that never ran. It is called
	// without the lock, by Close: taking a resource back may take its time.
	Discard func(R)
	// Move moves item src to place dst of the resource; it closes the gaps that
	// removed items leave.
	Move func(r R, dst, src int)
}

// Batcher makes batches. Its methods may be called from any goroutine.
type Batcher[R, T any] struct {
	cfg Config[R]
	ctx context.Context
	run func(*Batch[R, T])

	mu       sync.Mutex
	changed  sync.Cond // inFlight changed, or the open batch is empty
	open     *building[R, T]
	waiters  []chan Slot[R, T] // in arrival order; each has capacity 1
	expected int               // announced upstream, not yet reserved
	window   int               // batches allowed in flight now, ≤ cfg.InFlight
	inFlight int
	closed   bool
	stats    Stats
}

// Stats is a snapshot. Sealed counts batches by reason; Sizes[n] counts those
// that ran with n items.
type Stats struct {
	Open, Waiting, InFlight, Window int
	Sealed                          [reasons]int64
	Sizes                           []int64
}

// Batch is a sealed group of items, given to the run function.
type Batch[R, T any] struct {
	// Resource holds the items in places 0 to len(Items)-1.
	Resource R
	Items    []T
	Reason   Reason
	// Context ends when the batcher's does or when every item was removed.
	Context context.Context

	cancel context.CancelFunc
	live   int // items that were not removed; guarded by Batcher.mu
}

type building[R, T any] struct {
	resource R
	places   int            // that fit resource
	entries  []*entry[R, T] // by place; nil is a gap
	live     int            // entries that are not gaps
	pending  int            // reserved, not committed
	aged     bool
	timer    *time.Timer
}

// entry is one item's place. It outlives the sealing so that Remove works
// before and after.
type entry[R, T any] struct {
	item      T
	place     int
	open      *building[R, T] // nil once sealed
	batch     *Batch[R, T]    // nil until sealed
	committed bool
	gone      bool
}

// New returns a batcher whose batches are handed to run, each on a goroutine of
// its own; the permit is free again when run returns. ctx is the parent of
// every batch's Context; it does not stop the batcher, Close does.
func New[R, T any](ctx context.Context, cfg Config[R], run func(*Batch[R, T])) *Batcher[R, T] {
	if cfg.MaxItems < 1 || cfg.InFlight < 1 {
		panic("batch: MaxItems and InFlight must be at least 1")
	}
	b := &Batcher[R, T]{cfg: cfg, ctx: ctx, run: run, window: cfg.InFlight}
	b.changed.L = &b.mu
	b.stats.Sizes = make([]int64, cfg.MaxItems+1)
	return b
}

// Expect announces n items that may come. Each is followed by one Reserve that
// succeeds or one Withdraw; while any is outstanding a batch below its size
// waits for its age.
func (b *Batcher[R, T]) Expect(n int) {
	b.mu.Lock()
	b.expected += n
	b.mu.Unlock()
}

// Withdraw takes back one announced item that will not come.
func (b *Batcher[R, T]) Withdraw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unexpect()
	b.advance()
}

func (b *Batcher[R, T]) unexpect() {
	if b.expected == 0 {
		panic("batch: more items than were announced")
	}
	b.expected--
}

// Slot is a reserved place in the open batch. Fill its place in Resource, then
// Commit; or Remove.
type Slot[R, T any] struct {
	Resource R
	Place    int
	owner    *Batcher[R, T]
	entry    *entry[R, T]
}

// Reserve takes a place for one announced item. It blocks while the open batch is
// full and waits for a permit. When it fails the item is still announced.
func (b *Batcher[R, T]) Reserve(ctx context.Context) (Slot[R, T], error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return Slot[R, T]{}, ErrClosed
	}
	w := make(chan Slot[R, T], 1)
	b.waiters = append(b.waiters, w)
	b.advance()
	b.mu.Unlock()

	select {
	case s, ok := <-w:
		if !ok {
			return Slot[R, T]{}, ErrClosed
		}
		return s, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case s, ok := <-w:
		// It was given a place just now; it goes back, and so does the
		// announcement that taking the place used up.
		if ok {
			b.expected++
			b.remove(s.entry)
		}
	default:
		b.waiters = slices.DeleteFunc(b.waiters, func(x chan Slot[R, T]) bool { return x == w })
	}
	b.advance()
	return Slot[R, T]{}, context.Cause(ctx)
}

// Commit says that the place is filled. It does nothing after Remove.
func (s Slot[R, T]) Commit(item T) {
	b := s.owner
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.entry.gone {
		return
	}
	s.entry.item = item
	s.entry.committed = true
	s.entry.open.pending--
	b.advance()
}

// Remove gives the place up, before Commit or after, also when the batch is
// already running; a running batch that has lost every item has its Context
// cancelled. It is idempotent, and does nothing on the zero Slot.
func (s Slot[R, T]) Remove() {
	b := s.owner
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(s.entry)
	b.advance()
}

func (b *Batcher[R, T]) remove(e *entry[R, T]) {
	if e.gone {
		return
	}
	e.gone = true
	if e.batch != nil {
		e.batch.live--
		if e.batch.live == 0 {
			e.batch.cancel()
		}
		return
	}
	o := e.open
	o.entries[e.place] = nil
	o.live--
	if !e.committed {
		o.pending--
	}
	if o.live == 0 {
		o.stopAge()
		b.changed.Broadcast() // Close waits for this
	}
}

func (o *building[R, T]) stopAge() {
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
	o.aged = false
}

// advance gives places to waiters and seals the open batch, as often as it can.
// Every change of state ends in it.
func (b *Batcher[R, T]) advance() {
	for {
		b.seat()
		if !b.seal() {
			return
		}
	}
}

// seat gives places of the open batch to waiters, first come first served.
func (b *Batcher[R, T]) seat() {
	for len(b.waiters) > 0 {
		if b.closed {
			for _, w := range b.waiters {
				close(w)
			}
			b.waiters = nil
			return
		}
		if b.open == nil {
			// A batch in Open means one slab more than are in flight; there is
			// one, since InFlight bounds those.
			b.open = &building[R, T]{}
			b.open.resource, b.open.places = b.cfg.Open()
		}
		o, w := b.open, b.waiters[0]
		if b.full(o) {
			return
		}
		b.waiters = b.waiters[1:]
		b.unexpect()
		e := &entry[R, T]{open: o, place: slices.Index(o.entries, nil)}
		if e.place < 0 {
			e.place = len(o.entries)
			o.entries = append(o.entries, nil)
		}
		o.entries[e.place] = e
		o.live++
		o.pending++
		if o.live == 1 {
			b.startAge(o)
		}
		w <- Slot[R, T]{Resource: o.resource, Place: e.place, owner: b, entry: e}
	}
}

func (b *Batcher[R, T]) full(o *building[R, T]) bool {
	return o.live >= min(b.cfg.MaxItems, o.places)
}

func (b *Batcher[R, T]) startAge(o *building[R, T]) {
	if b.cfg.MaxAge <= 0 {
		o.aged = true
		return
	}
	var t *time.Timer
	t = time.AfterFunc(b.cfg.MaxAge, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		// A timer that fires while the batch is sealed, or emptied and begun
		// anew, is no longer this batch's timer.
		if b.open == o && o.timer == t {
			o.aged = true
			b.advance()
		}
	})
	o.timer = t
}

// seal starts the open batch if it may start, and tells whether it did.
func (b *Batcher[R, T]) seal() bool {
	o := b.open
	if o == nil || o.live == 0 || o.pending > 0 || b.inFlight >= b.window {
		return false
	}
	var reason Reason
	switch {
	case b.full(o):
		reason = Size
	case b.closed:
		reason = Closed
	case b.expected == 0:
		reason = Idle
	case o.aged:
		reason = Age
	default:
		return false
	}
	o.stopAge()
	b.open = nil
	b.inFlight++
	ctx, cancel := context.WithCancel(b.ctx)
	batch := &Batch[R, T]{
		Resource: o.resource, Reason: reason, Items: make([]T, 0, o.live),
		Context: ctx, cancel: cancel, live: o.live,
	}
	// Gaps are closed from the end, so that each moves one item.
	last := len(o.entries) - 1
	for place := range o.live {
		if o.entries[place] == nil {
			for o.entries[last] == nil {
				last--
			}
			b.cfg.Move(o.resource, place, last)
			o.entries[place], o.entries[last] = o.entries[last], nil
		}
		e := o.entries[place]
		e.open, e.batch = nil, batch
		batch.Items = append(batch.Items, e.item)
	}
	b.stats.Sealed[reason]++
	for len(b.stats.Sizes) <= len(batch.Items) {
		b.stats.Sizes = append(b.stats.Sizes, 0)
	}
	b.stats.Sizes[len(batch.Items)]++
	go func() {
		defer b.finish(batch)
		b.run(batch)
	}()
	return true
}

func (b *Batcher[R, T]) finish(batch *Batch[R, T]) {
	batch.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
	b.changed.Broadcast()
	b.advance()
}

// SetWindow changes how many batches may be in flight, between 1 and
// Config.InFlight. Those in flight already are left alone.
func (b *Batcher[R, T]) SetWindow(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.window = min(max(n, 1), b.cfg.InFlight)
	b.advance()
}

// SetLimits changes MaxItems, InFlight and MaxAge. Batches that are in flight
// already are left alone; the open one keeps its age and holds no more than its
// resource has room for.
func (b *Batcher[R, T]) SetLimits(maxItems, inFlight int, maxAge time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg.MaxAge = maxAge
	b.cfg.MaxItems, b.cfg.InFlight = max(maxItems, 1), max(inFlight, 1)
	b.window = b.cfg.InFlight
	b.advance()
}

// Stats is a snapshot of the batcher.
func (b *Batcher[R, T]) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Sizes = slices.Clone(s.Sizes)
	if b.open != nil {
		s.Open = b.open.live
	}
	s.Waiting, s.InFlight, s.Window = len(b.waiters), b.inFlight, b.window
	return s
}

// Close refuses new items, runs what is there and waits for all batches to end.
// It is idempotent.
func (b *Batcher[R, T]) Close() {
	b.mu.Lock()
	b.closed = true
	b.advance()
	for b.inFlight > 0 || b.open != nil && b.open.live > 0 {
		b.changed.Wait()
	}
	o := b.open
	b.open = nil
	b.changed.Broadcast()
	b.mu.Unlock()
	if o != nil {
		b.cfg.Discard(o.resource)
	}
}
