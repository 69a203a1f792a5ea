package tune

import (
	"cmp"
	"container/heap"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// simulated is a server with quire's batcher before it, as a simulation of
// discrete events: pages take places in a batch that leaves when it is full or
// old and a request may be sent; the server merges what waits, up to its
// largest batch, when an instance is free and the oldest request has waited; an
// instance copies, computes while no other does, and copies back. It is a Bench.
type simulated struct {
	// compute is what a batch takes on the device, which one has at a time.
	compute func(pages int) time.Duration
	// copyPage is what an instance takes to copy a page in, beside the others.
	copyPage time.Duration
	// wire is what a request takes on its way, wirePage what each of its pages
	// adds to that.
	wire, wirePage time.Duration
	// drawing is how many pages a second are drawn; 0: nobody draws.
	drawing float64
	// memory is how many pages of instances × largest batch fit; 0: any.
	memory int
	// tells has the server tell its memory: a byte for each page that fits
	// into a batch of an instance.
	tells bool
	// noise is the standard deviation of a window, drift the change from one
	// window to the next; both are parts of the rate.
	noise, drift float64

	rand  *rand.Rand
	taken int
	now   time.Time
}

// The cost of a measurement in simulated time.
const simulatedWindow = 5 * time.Second

func (s *simulated) fits(t Settings) bool { return s.memory == 0 || t.MaxBatch*t.Instances <= s.memory }

func (s *simulated) Curve(_ context.Context, sizes []int) (Curve, error) {
	s.tick()
	var c Curve
	for _, n := range sizes {
		if s.memory > 0 && n > s.memory {
			c.Stopped = "out of memory"
			break
		}
		took := time.Duration(n)*s.copyPage + s.compute(n)
		c.Points = append(c.Points, Point{n, time.Duration(float64(took) * s.luck(s.noise/2))})
	}
	return c, nil
}

func (s *simulated) Measure(_ context.Context, t Settings, load Load) (Window, error) {
	s.tick()
	if !s.fits(t) {
		return Window{}, &Infeasible{Reason: "out of memory"}
	}
	w := s.exact(t, load)
	if s.tells {
		w.GPUMemory = int64(t.MaxBatch * t.Instances)
	}
	f := s.luck(s.noise) * math.Pow(1+s.drift, float64(s.taken))
	if load.Kind != Open {
		w.PagesPerSecond *= f
	}
	for _, d := range []*time.Duration{&w.P50, &w.P95, &w.P99} {
		*d = time.Duration(float64(*d) / f)
	}
	return w, nil
}

func (s *simulated) Rendering(context.Context) (float64, error) {
	s.tick()
	return s.drawing * s.luck(s.noise), nil
}

func (s *simulated) tick() { s.taken++; s.now = s.now.Add(simulatedWindow) }

func (s *simulated) luck(deviation float64) float64 {
	return max(0.5, 1+deviation*s.rand.NormFloat64())
}

// exact is a window without noise.
func (s *simulated) exact(t Settings, load Load) Window {
	e := &simulation{server: s, set: t, load: load}
	// Enough for all that may be under way to turn over some times.
	e.pages = 200 + 8*t.Batch*min(t.InFlight, 4*t.Instances)
	if load.Kind == Open {
		e.pages = 800
	}
	return e.run()
}

// simulation is one window of a simulated server.
type simulation struct {
	server *simulated
	set    Settings
	load   Load
	pages  int // in all

	clock  time.Duration
	events events
	serial int

	come      int             // pages that have come
	open      []time.Duration // pages in the open batch, by when they came
	late      []time.Duration // pages that wait for a place
	aged      bool
	inFlight  int
	queue     []*simulatedRequest
	idle      int
	device    bool // computing
	waiting   []func()
	latencies []time.Duration
	ended     []time.Duration
	executed  map[int]int64
}

type simulatedRequest struct {
	pages   []time.Duration
	arrived time.Duration
}

type event struct {
	at     time.Duration
	serial int
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(e[i].at, e[j].at), e[i].serial-e[j].serial) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (e *simulation) after(d time.Duration, do func()) {
	e.serial++
	heap.Push(&e.events, event{e.clock + d, e.serial, do})
}

func (e *simulation) run() Window {
	e.idle, e.executed = e.set.Instances, map[int]int64{}
	switch {
	case e.load.Kind == Open:
		e.arrivals(e.load.Rate)
	case e.load.Kind == Pipeline && e.server.drawing > 0:
		e.arrivals(e.server.drawing)
	default:
		e.feed()
	}
	for len(e.events) > 0 && len(e.ended) < e.pages {
		next := heap.Pop(&e.events).(event)
		e.clock = next.at
		next.do()
	}
	// The beginning and the end, when less is under way, do not count.
	from := len(e.ended) / 4
	slices.Sort(e.latencies)
	at := func(q float64) time.Duration { return e.latencies[int(q*float64(len(e.latencies)-1))] }
	for from+1 < len(e.ended) && e.ended[from+1] == e.ended[from] {
		from++ // the rest of the batch
	}
	w := Window{
		PagesPerSecond: float64(len(e.ended)-1-from) / (e.ended[len(e.ended)-1] - e.ended[from]).Seconds(),
		P50:            at(0.5), P95: at(0.95), P99: at(0.99), GPUUtilization: -1, GPUMemory: -1,
	}
	for size, n := range e.executed {
		w.Executed = append(w.Executed, Executed{size, n})
	}
	slices.SortFunc(w.Executed, func(a, b Executed) int { return a.Size - b.Size })
	return w
}

// arrivals has pages come at a rate. Renderers wait when there is no place.
func (e *simulation) arrivals(rate float64) {
	mean := float64(time.Second) / rate
	random := rand.New(rand.NewPCG(1, 2)) // the same arrivals for all settings
	var next func()
	next = func() {
		gap := mean
		if e.load.Kind == Open {
			gap = mean * random.ExpFloat64()
		} else if len(e.late) > 0 {
			e.after(time.Duration(gap/4), next)
			return
		}
		e.come++
		e.late = append(e.late, e.clock)
		e.seat()
		if e.come < e.pages+e.pages/2 {
			e.after(time.Duration(gap), next)
		}
	}
	e.after(0, next)
}

// feed fills the open batch with pages that were there all along.
func (e *simulation) feed() {
	for len(e.open) < e.set.Batch {
		e.come++
		e.join(e.clock)
	}
	e.seal()
}

func (e *simulation) join(came time.Duration) {
	e.open = append(e.open, came)
	if len(e.open) == 1 {
		e.aged = e.set.MaxAge == 0
		if !e.aged {
			first := came
			e.after(e.set.MaxAge, func() {
				if len(e.open) > 0 && e.open[0] == first {
					e.aged = true
					e.seal()
				}
			})
		}
	}
}

// seat gives places to pages that wait for one.
func (e *simulation) seat() {
	for len(e.late) > 0 && len(e.open) < e.set.Batch {
		e.join(e.late[0])
		e.late = e.late[1:]
	}
	e.seal()
}

func (e *simulation) seal() {
	if e.inFlight >= e.set.InFlight || len(e.open) == 0 || len(e.open) < e.set.Batch && !e.aged {
		return
	}
	r := &simulatedRequest{pages: e.open}
	e.open, e.aged = nil, false
	e.inFlight++
	e.after(e.server.wire+time.Duration(len(r.pages))*e.server.wirePage, func() {
		r.arrived = e.clock
		e.queue = append(e.queue, r)
		e.dispatch()
		if e.set.Delay > 0 {
			e.after(e.set.Delay, e.dispatch)
		}
	})
	if e.load.Kind == Saturated {
		e.feed()
	} else {
		e.seat()
	}
}

// dispatch is the server's batcher.
func (e *simulation) dispatch() {
	for e.idle > 0 && len(e.queue) > 0 {
		pages, n := 0, 0
		for n < len(e.queue) && pages+len(e.queue[n].pages) <= e.set.MaxBatch {
			pages += len(e.queue[n].pages)
			n++
		}
		full := pages == e.set.MaxBatch || n < len(e.queue)
		if !full && e.clock-e.queue[0].arrived < e.set.Delay {
			return
		}
		batch := e.queue[:n]
		e.queue = slices.Clone(e.queue[n:])
		e.idle--
		e.executed[pages]++
		e.after(time.Duration(pages)*e.server.copyPage, func() { e.compute(batch, pages) })
	}
}

func (e *simulation) compute(batch []*simulatedRequest, pages int) {
	run := func() {
		e.device = true
		e.after(e.server.compute(pages), func() {
			e.device = false
			if len(e.waiting) > 0 {
				next := e.waiting[0]
				e.waiting = e.waiting[1:]
				next()
			}
			e.idle++
			for _, r := range batch {
				e.after(e.server.wire, func() { e.answered(r) })
			}
			e.dispatch()
		})
	}
	if e.device {
		e.waiting = append(e.waiting, run)
		return
	}
	run()
}

func (e *simulation) answered(r *simulatedRequest) {
	e.inFlight--
	for _, came := range r.pages {
		e.latencies = append(e.latencies, e.clock-came)
		e.ended = append(e.ended, e.clock)
	}
	if e.load.Kind == Saturated {
		e.feed()
	} else {
		e.seat()
	}
}

func ms(x float64) time.Duration { return time.Duration(x * float64(time.Millisecond)) }

// The servers that the search has to do well with.
func servers(seed uint64) map[string]*simulated {
	gpu := func(n int) time.Duration { return ms(6 + 0.8*float64(n)) }
	list := map[string]*simulated{
		"gpu":           {compute: gpu, wire: ms(0.4), wirePage: ms(0.05)},
		"gpu far away":  {compute: gpu, wire: ms(8), wirePage: ms(1.2)},
		"gpu, big base": {compute: func(n int) time.Duration { return ms(40 + 0.5*float64(n)) }, wire: ms(0.4), wirePage: ms(0.05)},
		"copies":        {compute: gpu, copyPage: ms(0.7), wire: ms(0.4), wirePage: ms(0.05)},
		"padded": {compute: func(n int) time.Duration {
			padded := 1
			for padded < n {
				padded *= 2
			}
			return gpu(padded)
		}, wire: ms(0.4), wirePage: ms(0.05)},
		"cpu":           {compute: func(n int) time.Duration { return ms(30 * float64(n)) }, wire: ms(0.4), wirePage: ms(0.05)},
		"cpu, worse":    {compute: func(n int) time.Duration { return ms(28 * math.Pow(float64(n), 1.07)) }, wire: ms(0.4), wirePage: ms(0.05)},
		"noisy":         {compute: gpu, wire: ms(0.4), wirePage: ms(0.05), noise: 0.02},
		"drifting down": {compute: gpu, wire: ms(0.4), wirePage: ms(0.05), noise: 0.005, drift: -0.01},
		"drifting up":   {compute: gpu, wire: ms(0.4), wirePage: ms(0.05), noise: 0.005, drift: 0.01},
		"cliff at 16": {compute: func(n int) time.Duration {
			if n >= 16 {
				return 2 * gpu(n)
			}
			return gpu(n)
		}, wire: ms(0.4), wirePage: ms(0.05)},
		"out of memory":              {compute: gpu, wire: ms(0.4), wirePage: ms(0.05), memory: 20},
		"drawing is slow":            {compute: gpu, wire: ms(0.4), wirePage: ms(0.05), drawing: 60, noise: 0.01},
		"drawing is the limit later": {compute: func(n int) time.Duration { return ms(20 + 0.8*float64(n)) }, wire: ms(0.4), wirePage: ms(0.05), drawing: 150, noise: 0.01},
	}
	for _, s := range list {
		s.rand = rand.New(rand.NewPCG(seed, 7))
		s.now = time.Unix(0, 0)
	}
	return list
}
