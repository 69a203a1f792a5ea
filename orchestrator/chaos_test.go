package orchestrator

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A simulation puts everything that may happen to the engine together, as a seed
// says: servers with faults that come and go, reloads, pages and renderers with
// faults, runs that are stopped, calls that are given up, sinks that are slow or
// fail. Each kind of them promises something.
type promise int

const (
	wild    promise = iota // every call returns, every page has its own answer, and the accounts add up
	outages                // servers are away, full or sick at times: only pages with faults fail as well
	healthy                // one of two servers has no fault: likewise
	promises
)

const faultless = 70 * time.Second

// trait is what is special about a page.
type trait int

const (
	plain     trait = iota
	faulty          // its answer is an error
	poisonous       // fails every batch that it is in
	deadly          // kills the server
	undrawn         // cannot be drawn; the others are what it does to its workers
	killsOnce
	breaksOnce
	breaksAndKills
	kills
	traits
)

// endsAs is why a page fails; those that are not here are done.
var endsAs = map[trait]Category{
	faulty: CategoryBadOutput, poisonous: CategoryServer, deadly: CategoryCrash, undrawn: CategoryTimeout, kills: CategoryCrash,
}

// drawnAs is what becomes of the tries to draw it.
func drawnAs(x trait, try int) error {
	died, broke := &PageError{Stage: StageRender, Category: CategoryCrash, Message: "died"}, errors.New("broke")
	switch {
	case x == undrawn:
		return &PageError{Stage: StageRender, Category: CategoryTimeout, Message: "stopped"}
	case x == kills, x == killsOnce && try == 1, x == breaksAndKills && try == 2:
		return died
	case (x == breaksOnce || x == breaksAndKills) && try == 1:
		return broke
	}
	return nil
}

type world struct {
	t     *testing.T
	is    promise
	seed  uint64
	start time.Time
	dir   string
	d     *Detector
	first Endpoint     // of New
	dead  atomic.Int64 // times that servers died of pages
	last  atomic.Int64 // page that was asked for singly

	mu    sync.Mutex
	rnd   *rand.Rand
	tries map[PageRef]int
}

func (w *world) n(most int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rnd.IntN(most)
}

func (w *world) one(in int) bool                       { return w.n(in) == 0 }
func (w *world) span(most time.Duration) time.Duration { return time.Duration(w.n(int(most))) }
func (w *world) now() time.Duration                    { return time.Since(w.start) }
func (w *world) closed() bool                          { return w.d.ctx.Err() != nil }

func pick[T any](w *world, from ...T) T { return from[w.n(len(from))] }

func (w *world) trait(p seenPage) trait {
	x := trait(rand.New(rand.NewPCG(w.seed, uint64(p.doc)<<32+uint64(p.page))).IntN(100 * int(traits)))
	switch {
	case x >= traits, x == deadly && (w.seed%4 != 0 || w.is == healthy), x >= undrawn && p.doc == hash("image"):
		return plain
	}
	return x
}

func seen(page []byte) seenPage {
	return seenPage{binary.LittleEndian.Uint32(page), int(binary.LittleEndian.Uint32(page[4:]))}
}

// try counts the tries to draw a page, or with page 0 to open a document.
func (w *world) try(path string, page int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries[PageRef{path, page}]++
	return w.tries[PageRef{path, page}]
}

func (w *world) renderer(took time.Duration) *fakeRenderer {
	r := &fakeRenderer{pages: map[string]int{"s0.pdf": 1 << 30, "s1.pdf": 1 << 30}}
	for i := range 24 {
		r.pages[fmt.Sprintf("%s%02d.pdf", []string{"a", "b"}[i/12], i%12)] = w.n(40)
	}
	r.draw = func(ctx context.Context, path string, page int) error {
		if err := slow(w.span(took+1)*time.Duration(pick(w, 1, 1, 1, 1, 10)))(ctx, nil); err != nil {
			return err
		}
		return drawnAs(w.trait(seenPage{hash(filepath.Base(path)), page}), w.try(path, page))
	}
	r.open = func(path string) error {
		return drawnAs(pick(w, plain, plain, plain, killsOnce, breaksOnce), w.try(path, 0))
	}
	return r
}

// ended checks how a page ended; may: it may have been cancelled.
func (w *world) ended(page seenPage, r PageResult, may bool) {
	category, fails := endsAs[w.trait(page)]
	switch {
	case r.Status == StatusCancelled:
		if !may {
			w.t.Errorf("%v was cancelled, and nobody had called it off", r.Ref)
		}
	case r.Status == StatusDone && (r.Regions[0].ClassID != page.page || r.Regions[0].Label != fmt.Sprint(page.doc)):
		w.t.Errorf("%v has the regions of another page: %+v", r.Ref, r.Regions)
	case w.is != wild && (fails != (r.Status == StatusFailed) || fails && r.Err.Category != category):
		w.t.Errorf("%v ended as %s, %v, want %q", r.Ref, r.Status, r.Err, category)
	}
}

// tormented is a sink that takes its time, and may fail at a call.
type tormented struct {
	*fakeSink
	w           *world
	left        int           // calls until it fails
	full        time.Duration // that the disk was full
	failed, end error         // what it failed with, and what became of an end
}

func (s *tormented) call(ctx context.Context) error {
	if s.failed != nil {
		s.w.t.Error("a sink that has failed is called")
	}
	if s.w.one(20) {
		began := time.Now()
		_ = slow(s.w.span(pick(s.w, time.Second, time.Second, time.Second, 20*time.Second)))(ctx, nil)
		s.full += time.Since(began)
	}
	if s.left--; s.left == 0 {
		s.failed = errors.New("the sink failed")
	}
	return s.failed
}

func (s *tormented) Begin(ctx context.Context, doc Document) (Past, error) {
	past, _ := s.fakeSink.Begin(ctx, doc)
	return past, s.call(ctx)
}

func (s *tormented) Opened(ctx context.Context, doc Document, pages int) error {
	return errors.Join(s.fakeSink.Opened(ctx, doc, pages), s.call(ctx))
}

func (s *tormented) Page(ctx context.Context, r PageResult) error {
	return errors.Join(s.fakeSink.Page(ctx, r), s.call(ctx))
}

func (s *tormented) End(ctx context.Context, r DocumentResult, stands func(error)) error {
	if err := s.call(ctx); err != nil {
		return err
	}
	return s.fakeSink.End(ctx, r, func(error) {
		if s.w.is == wild && s.w.one(50) {
			s.end = cmp.Or(s.end, errors.New("the disk failed"))
			go stands(s.end)
		} else if s.w.one(2) {
			stands(nil)
		} else {
			time.AfterFunc(s.w.span(time.Second), func() { stands(nil) })
		}
	})
}

// past is what the sink has of a document of so many pages.
func (w *world) past(pages int) Past {
	if pages == 0 || !w.one(4) {
		return Past{}
	}
	if w.one(5) {
		return Past{Result: &DocumentResult{Status: StatusDone, Done: pages, PageCount: pages}}
	}
	past := Past{PageCount: pages + w.n(2)*w.n(2)}
	for page := 1; page < past.PageCount; page++ {
		if w.one(2) {
			past.Pages.Add(page)
			past.Done++
		}
	}
	if w.one(4) {
		past.SetAside = &PageError{Stage: StageOpen, Category: CategoryCrashLoop, Message: "set aside"}
	}
	return past
}

// run is a run over documents of its own, that may be stopped.
func (w *world) run(name string, pages map[string]int) {
	time.Sleep(w.span(time.Second))
	sink := &tormented{fakeSink: newFakeSink(w.t), w: w}
	if w.is == wild && w.one(3) {
		sink.left = 1 + w.n(100)
	}
	var list docs
	for i := range 1 + w.n(12) {
		list = append(list, fmt.Sprintf("%s%02d.pdf", name, i))
		sink.past[list[i]] = w.past(pages[list[i]])
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	stopped, hard, at := w.one(3), w.one(2), w.span(20*time.Second)
	if stopped && hard {
		time.AfterFunc(at, cancel)
	} else if stopped {
		time.AfterFunc(at, func() { close(stop) })
	}
	began, progress := time.Now(), &Progress{}
	sum, err := w.d.Run(ctx, Job{Source: list, Sink: sink, Stop: stop, Progress: progress})
	took := time.Since(began)
	if sink.failed == nil && sink.end == nil {
		checkAccounts(w.t, sink.fakeSink, sum, progress.Now())
		anew := sum.Pages.Done + sum.Pages.Failed - sum.Resumed
		for _, r := range sink.pages {
			if r.Err == nil || r.Err.Category != CategoryCrashLoop {
				anew--
			}
		}
		if anew != 0 {
			w.t.Errorf("%d pages are not in the sink, summary %+v", anew, sum)
		}
	}
	if err == nil && (sum.Pages.Cancelled+sum.Documents.Cancelled > 0 || int(sum.Documents.Ended()) != len(list)) {
		w.t.Errorf("a run of %d documents without an error: %+v", len(list), sum)
	}
	if errors.Is(err, context.Canceled) && took > at+1100*time.Millisecond { // a second until a document stands
		w.t.Errorf("run %s ended after %v, cancelled after %v", name, took, at)
	}
	if w.is != wild && !stopped {
		if most := faultless + time.Minute + sink.full + time.Duration(w.dead.Load())*time.Minute; err != nil || took > most {
			w.t.Errorf("run %s ended after %v of at most %v: %v", name, took, most, err)
		}
		for path, end := range sink.ends {
			if n := pages[path]; sink.past[path].SetAside == nil && end.PageCount != cmp.Or(n, -1) {
				w.t.Errorf("%s has %d pages and ended with %d", path, n, end.PageCount)
			}
		}
	}
	for ref, r := range sink.pages {
		if sink.past[ref.Path].SetAside == nil {
			w.ended(seenPage{hash(ref.Path), ref.Page}, r, false)
		}
	}
}

// pictured is an image whose pixels spell "image" and a page, as those of fakeRenderer.
func pictured(page int) image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, 4, 2))
	raw := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, hash("image")), uint32(page))
	for i := range 32 {
		img.Pix[i] = 255
	}
	for i, b := range raw {
		img.Pix[i/3*4+i%3] = b
	}
	return img
}

// calls are for single pages and images, one after another; some are given up.
func (w *world) calls() {
	for range w.n(20) {
		time.Sleep(w.span(time.Second))
		ctx, cancel := context.WithTimeout(context.Background(), w.span(pick(w, time.Second, 1000*time.Hour)))
		page := int(w.last.Add(5))
		if w.one(4) {
			results, _ := w.d.DetectBatch(ctx, []image.Image{pictured(page), pictured(page + 1), pictured(page + 2)})
			for i, r := range results {
				w.ended(seenPage{hash("image"), page + i}, r, ctx.Err() != nil || w.closed())
			}
		} else {
			name, detect := pick(w, "s0.pdf", "s1.pdf"), pick(w, w.d.Detect, w.d.TryDetect)
			r, err := detect(ctx, filepath.Join(w.dir, name), page)
			if (r.Status == StatusDone) != (err == nil) {
				w.t.Errorf("%v: %s, %v", r.Ref, r.Status, err)
			}
			w.ended(seenPage{hash(name), page}, r, ctx.Err() != nil || w.closed() || errors.Is(err, ErrBusy))
		}
		cancel()
	}
}

// guests join and leave, and the first of all leaves and comes back.
func (w *world) guests(faults []fault) {
	for i := range w.n(4) {
		for _, e := range []Endpoint{{fmt.Sprint("guest", i), w.server(faults...)}, w.first} {
			m := e.Model.(*server)
			if e != w.first {
				time.Sleep(w.span(3 * time.Second))
			} else if w.d.Leave(e.Name); true {
				m.left.Store(true)
				time.Sleep(w.span(3 * time.Second))
				m.left.Store(false)
			}
			if err := w.d.Join(e); err != nil && !w.closed() {
				w.t.Error(err)
			}
			if time.Sleep(w.span(3 * time.Second)); e != w.first {
				w.d.Leave(e.Name)
				m.left.Store(true)
			}
		}
	}
}

func simulate(t *testing.T, seed uint64, dir string) {
	w := &world{t: t, is: promise(seed % uint64(promises)), seed: seed, start: time.Now(), dir: dir, rnd: rand.New(rand.NewPCG(seed, 77)), tries: map[PageRef]int{}}
	r := w.renderer(w.span(20 * time.Millisecond))
	cfg := Config{
		Renderer: r, Workers: 1 + w.n(3), Queue: w.n(3) * w.n(10), InFlight: w.n(2) * w.n(4), InferTimeout: 5 * time.Second,
		MaxAge: pick(w, -1, 0, time.Millisecond, 5*time.Second), ServerWait: pick(w, 10*time.Second, 10*time.Minute),
		RefreshEvery: pick(w, 0, time.Second, -1), SoftStop: pick(w, 0, time.Second, -1),
		SharedMemoryPrefix: fmt.Sprintf("quire-test-chaos-%d-%d-", os.Getpid(), seed),
	}
	faults, servers := []fault{slowly, full, down, sick}, 1+w.n(3)
	if w.is != outages {
		faults = append(faults, flaky, hangs, stops, nonsense)
	}
	if w.is == healthy {
		cfg.Endpoints, servers = []Endpoint{{"healthy", w.server()}}, 1
	}
	for i := range servers {
		cfg.Endpoints = append(cfg.Endpoints, Endpoint{fmt.Sprint(i), w.server(faults...)})
	}
	w.first = cfg.Endpoints[0]
	d := newDetector(t, cfg)
	w.d = d
	var all sync.WaitGroup
	for _, name := range []string{"a", "b"}[:w.n(3)] {
		all.Go(func() { w.run(name, r.pages) })
	}
	for range w.n(12) {
		all.Go(w.calls)
	}
	if w.is != healthy {
		all.Go(func() { w.guests(faults) })
	}
	if w.is == wild && w.one(3) {
		all.Go(func() { time.Sleep(w.span(20 * time.Second)); d.Close() })
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Hour):
		t.Errorf("it stands still: %+v, %s", d.Stats(), d.holdup(time.Now()))
		d.Close()
		<-done
	}
	time.Sleep(faultless + refusedPause)
	synctest.Wait()
	if !w.closed() {
		w.atRest()
	}
	d.Close()
	left, _ := filepath.Glob("/dev/shm/" + cfg.SharedMemoryPrefix + "*")
	if n := d.slabs.Held(); n != 0 || r.live != 0 || len(left) != 0 {
		t.Errorf("%d bytes of slabs, %d workers and %v are left", n, r.live, left)
	}
}

// atRest checks that nothing is under way any more, and that nothing waits for it.
func (w *world) atRest() {
	d := w.d
	s := d.Stats()
	if s.Admitted+s.Queued+s.Filling+s.Stalled+s.InFlight+len(d.doings.m)+len(d.runs)+d.fleet.waiting > 0 {
		w.t.Errorf("it is not at rest: %+v", s)
	}
	windows := 0
	for _, e := range d.fleet.members() {
		if e.inFlight+e.pages+e.users > 0 || e.reserved || e.mending || e.state != EndpointUp {
			w.t.Errorf("a server is not at rest: %+v", e)
		}
		windows += e.window.size
	}
	if n := min(windows, d.limits.Load().inFlight); s.Window != n {
		w.t.Errorf("the window is %d, want %d", s.Window, n)
	}
	if over := d.slabs.Held() - d.slabs.Bytes(); over > 8*24 { // the open batch may have one from before a reload
		w.t.Errorf("%d bytes of slabs too many", over)
	}
	page := 1 << 20
	for w.trait(seenPage{hash("s0.pdf"), page}) != plain {
		page++
	}
	start := time.Now()
	_, err := d.Detect(w.t.Context(), filepath.Join(w.dir, "s0.pdf"), page)
	if took := time.Since(start); err != nil || took > time.Second {
		w.t.Errorf("a single page took %v: %v", took, err)
	}
}

var (
	chaosSeeds = flag.Uint64("seeds", 150, "how many simulations TestChaos runs")
	chaosFrom  = flag.Uint64("from", 0, "the seed of the first")
)

// TestChaos runs the simulations of many seeds. What the seed does not say, chance
// does, so one that fails may have to be run more than once: -from SEED -seeds 1 -count 20.
func TestChaos(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"s0.pdf", "s1.pdf"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for seed := *chaosFrom; seed < *chaosFrom+*chaosSeeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { simulate(t, seed, dir) })
		})
	}
}
