package orchestrator

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Endpoint is one of the servers that answer. All of a Detector's have the same
// model; how they batch may differ.
type Endpoint struct {
	// Name is what people know it by, such as "gpu1:8001"; no two have the same.
	Name  string
	Model Model
}

// fleet is the endpoints, which of them work, and who may ask which. A request
// takes a permit of one endpoint; each has as many as its window says. away.go
// has what becomes of an endpoint that fails.
//
// Requests go to one endpoint until it has been sent a whole batch of its own:
// several small ones at once are merged there, and would not be if each went
// elsewhere. Then comes the one with the least to do for its size.
type fleet struct {
	limit   time.Duration // for which none may work; see Config.ServerWait
	log     *slog.Logger
	ctx     context.Context // ends at Close
	allowed func(int)       // is told how many requests there may be in all
	polls   sync.WaitGroup

	// all is in the order in which they came. It is replaced under mu and read
	// by anybody.
	all atomic.Pointer[[]*endpoint]

	mu      sync.Mutex
	changed chan struct{} // closed and made anew when somebody may go on
	waiting int           // who wait for that
	turn    *endpoint     // was chosen last
	sent    int           // pages that it was sent since
	outage  *outage       // while none works and somebody has noticed
	said    bool          // that everybody waits; until one works
	waited  time.Duration // in outages that are over
}

// endpoint is a member of a fleet. Everything but the first group is guarded by
// fleet.mu.
type endpoint struct {
	Endpoint
	ctx   context.Context // ends when it leaves, and with the fleet
	leave context.CancelFunc

	window          window
	maxBatch        int   // pages that it takes in a request
	inFlight, pages int   // requests and pages that are at it
	reserved        bool  // for one request that wants to be alone
	answered        int64 // pages

	state     EndpointState
	reason    string // why it is not up
	since     time.Time
	mending   bool      // a goroutine looks after it
	users     int       // who ask it for something else than pages: who look after it, or release a slab there
	fresh     bool      // is back and has not answered since
	strikes   int       // failures that were its own, since it has answered
	refusals  int       // times that its queue was full, since it has answered
	restUntil time.Time // before that it is asked only if there is no other
	outUntil  time.Time // before that it is not taken back
}

// EndpointState tells whether an endpoint is used.
type EndpointState string

// The states of an endpoint.
const (
	EndpointUp      EndpointState = "up"
	EndpointChecked EndpointState = "checked" // has failed a request, and is asked for a blank page
	EndpointAway    EndpointState = "away"
	EndpointRefused EndpointState = "refused" // its model is another, or it takes no requests of ours
)

func newFleet(ctx context.Context, limit time.Duration, log *slog.Logger, allowed func(int)) *fleet {
	f := &fleet{limit: limit, log: log, ctx: ctx, allowed: allowed, changed: make(chan struct{})}
	f.all.Store(&[]*endpoint{})
	return f
}

// members are the endpoints there are. The slice is not to be changed.
func (f *fleet) members() []*endpoint { return *f.all.Load() }

// endpoints are the members as the caller knows them.
func (f *fleet) endpoints() []Endpoint {
	var all []Endpoint
	for _, e := range f.members() {
		all = append(all, e.Endpoint)
	}
	return all
}

// several tells whether there is more than one.
func (f *fleet) several() bool { return len(f.members()) > 1 }

// add takes an endpoint in, with a window.
func (f *fleet) add(e Endpoint, inFlight int) {
	x := &endpoint{Endpoint: e, window: newWindow(inFlight), maxBatch: e.Model.Input().MaxBatch, state: EndpointUp}
	x.ctx, x.leave = context.WithCancel(f.ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	all := append(slices.Clone(f.members()), x)
	f.all.Store(&all)
	f.cameUp()
}

// remove takes an endpoint out and waits until nobody uses it any more.
func (f *fleet) remove(name string) {
	f.mu.Lock()
	i := slices.IndexFunc(f.members(), func(e *endpoint) bool { return e.Name == name })
	if i < 0 {
		f.mu.Unlock()
		return
	}
	e := f.members()[i]
	all := slices.Delete(slices.Clone(f.members()), i, i+1)
	f.all.Store(&all)
	e.state = EndpointAway
	e.leave()
	if f.turn == e {
		f.turn = nil
	}
	f.fit()
	f.wake()
	for e.inFlight+e.users > 0 { // which Close ends, too
		f.sleep(context.Background())
	}
	f.mu.Unlock()
}

// working are the endpoints that are up.
func (f *fleet) working() []*endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.members()), func(e *endpoint) bool { return e.state != EndpointUp })
}

// release tells all endpoints that a slab is about to be unmapped.
func (f *fleet) release(s *Slab) {
	f.mu.Lock()
	all := f.members()
	for _, e := range all {
		e.users++
	}
	f.mu.Unlock()
	var group sync.WaitGroup // one that hangs costs its time, not everybody's
	for _, e := range all {
		group.Go(func() {
			e.Model.Release(s)
			f.unused(e)
		})
	}
	group.Wait()
}

// unused ends what endpoint.users counts; it may be what remove waits for.
func (f *fleet) unused(e *endpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.users--
	f.wake()
}

// maxBatch is the most pages that every endpoint takes in a request; 0 while there
// is none.
func (f *fleet) maxBatch() int {
	most := 0
	for _, e := range f.members() {
		if n := e.Model.Input().MaxBatch; most == 0 || n < most {
			most = n
		}
	}
	return most
}

// wanted is what a request asks of its endpoint.
type wanted struct {
	alone bool      // nothing else of ours is there at the same time
	avoid *endpoint // another one, if any works; may be nil
	sure  bool      // a failure counts only if a blank page does not fail as well
}

// acquire takes a permit for a request of so many pages, and waits for one. It
// fails with ctx's error, or with a *ServerError when none has worked for too
// long. settle must follow.
func (f *fleet) acquire(ctx context.Context, pages int, w wanted) (*endpoint, error) {
	var e *endpoint
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.until(ctx, func() bool {
		if e != nil && e.state != EndpointUp { // gone while it was being drained
			e.reserved, e = false, nil
		}
		if e == nil {
			if e = f.choose(pages, w); e == nil {
				return false
			}
			e.reserved = w.alone
		}
		return !w.alone || e.inFlight == 0
	})
	if err != nil {
		if e != nil {
			e.reserved = false
			f.wake()
		}
		return nil, err
	}
	e.inFlight++
	e.pages += pages
	return e, nil
}

// choose picks the endpoint for a request, nil if all that might do are busy;
// mu is held.
func (f *fleet) choose(pages int, w wanted) *endpoint {
	all, now := f.members(), time.Now()
	// Those that are rather not asked are not, as long as there are others.
	liking := func(e *endpoint) int {
		switch {
		case e.state != EndpointUp:
			return 0
		case e == w.avoid:
			return 1
		case now.Before(e.restUntil):
			return 2
		}
		return 3
	}
	liked := 1
	for _, e := range all {
		liked = max(liked, liking(e))
	}
	free := func(e *endpoint) bool {
		return liking(e) == liked && !e.reserved && (w.alone || e.inFlight < e.window.size)
	}
	if t := f.turn; t != nil && free(t) && !w.alone && f.sent < t.maxBatch {
		f.sent += pages
		return t
	}
	var best *endpoint
	first := slices.Index(all, f.turn) + 1 // among equals the next has its turn
	for i := range all {
		e := all[(first+i)%len(all)]
		if free(e) && (best == nil || e.pages*best.window.size < best.pages*e.window.size) {
			best = e
		}
	}
	if best != nil && !w.alone {
		f.turn, f.sent = best, pages
	}
	return best
}

// settle gives a permit back.
func (f *fleet) settle(e *endpoint, pages int, w wanted, answered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.inFlight--
	e.pages -= pages
	if w.alone {
		e.reserved = false
	}
	if answered {
		e.answered += int64(pages)
		e.fresh, e.strikes, e.refusals = false, 0, 0
		if e.window.grow() {
			f.fit()
		}
	}
	f.wake()
}

// full halves the window of an endpoint whose queue is full, and lets it rest.
func (f *fleet) full(e *endpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := backoff(20*time.Millisecond, 2*time.Second, e.refusals)
	e.restUntil = time.Now().Add(rest)
	time.AfterFunc(rest, func() { // whoever waits for another may have it now
		f.mu.Lock()
		defer f.mu.Unlock()
		f.wake()
	})
	e.refusals++
	if e.window.shrink() {
		f.fit()
	}
}

// backoff is a pause that doubles each time.
func backoff(least, most time.Duration, times int) time.Duration {
	return min(least<<min(times, 16), most)
}

// resize gives an endpoint another largest window, and takes over the size of its
// batches.
func (f *fleet) resize(e *endpoint, inFlight int) {
	maxBatch := e.Model.Input().MaxBatch
	f.mu.Lock()
	defer f.mu.Unlock()
	e.maxBatch = maxBatch
	if e.window.max != inFlight {
		e.window = newWindow(inFlight)
	}
	f.fit()
	f.wake()
}

// fit says how many requests there may be at all endpoints that are up together.
// While none is, that stays as it was: the batches that there may be are made,
// and wait. mu is held.
func (f *fleet) fit() {
	n := 0
	for _, e := range f.members() {
		if e.state == EndpointUp {
			n += e.window.size
		}
	}
	if n > 0 {
		f.allowed(n)
	}
}

// wake has everybody who waits look again; mu is held.
func (f *fleet) wake() {
	if f.waiting > 0 {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// sleep waits for a change, with mu held before and after.
func (f *fleet) sleep(ctx context.Context) {
	changed := f.changed
	f.waiting++
	f.mu.Unlock()
	select {
	case <-changed:
	case <-ctx.Done():
	}
	f.mu.Lock()
	f.waiting--
}

// anyUp tells whether an endpoint works, one other than but; mu is held.
func (f *fleet) anyUp(but *endpoint) bool {
	return slices.ContainsFunc(f.members(), func(e *endpoint) bool { return e != but && e.state == EndpointUp })
}

// stats are snapshots of all endpoints.
func (f *fleet) stats() []EndpointStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []EndpointStats
	for _, e := range f.members() {
		all = append(all, EndpointStats{
			Name: e.Name, State: e.state, Reason: e.reason, Since: e.since,
			InFlight: e.inFlight, Window: e.window.size, Pages: e.answered,
		})
	}
	return all
}
