package tune

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/batch"
	"quire/orchestrator/internal/measure"
	"quire/orchestrator/internal/slab"
)

// record is what came of a load. Its methods may be called from any goroutine.
type record struct {
	warm, window time.Duration
	began        chan struct{} // closed with the first answer

	mu sync.Mutex
	// from is when what counts begins, after the first answer and the warm-up;
	// over is set when it ends, before the rest is waited for.
	from time.Time
	over bool

	requests int           // in all, answered or not
	asking   time.Duration // the sum of their times
	failed   int
	err      error // the first

	latencies   measure.Latencies
	batches     int // that ended between the two below, the first left out
	pages       int
	first, last time.Time
}

func newRecord(warm, window time.Duration) *record {
	return &record{warm: warm, window: window, began: make(chan struct{})}
}

const (
	// leastBatches have to end for a rate, or the window is made longer, up to
	// longer times as long.
	leastBatches, longer = 4, 5
	// firstAnswer is how long the first answer may take: workers start.
	firstAnswer = time.Minute
)

// keep returns when the window is over, or ctx.
func (r *record) keep(ctx context.Context) {
	late := time.NewTimer(firstAnswer)
	defer late.Stop()
	select {
	case <-r.began:
	case <-late.C:
	case <-ctx.Done():
	}
	if !measure.Pause(ctx, r.warm) {
		return
	}
	for n := 1; measure.Pause(ctx, r.window); n++ {
		if r.end(n == longer) {
			return
		}
	}
}

// end ends what counts, and tells that it did, if there is enough or it has to.
func (r *record) end(must bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = must || r.batches >= leastBatches || r.failed > 0 || r.from.IsZero()
	return r.over
}

// request notes one request.
func (r *record) request(took time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests++
	r.asking += took
	if err != nil {
		r.fail(err)
		r.begin(time.Now())
	}
}

// begin starts the clock with the first answer, whatever it is.
func (r *record) begin(now time.Time) {
	if r.from.IsZero() {
		r.from = now.Add(r.warm)
		close(r.began)
	}
}

func (r *record) fail(err error) {
	r.failed++
	if r.err == nil {
		r.err = err
	}
}

// ended notes pages that were answered as one batch.
func (r *record) ended(now time.Time, pages int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin(now)
	switch {
	case !r.counts(now):
	case r.first.IsZero():
		// The rate is counted from an end of a batch to another, since batches
		// end as a whole.
		r.first = now
	default:
		r.batches++
		r.pages += pages
		r.last = now
	}
}

// took notes when pages that are answered now began.
func (r *record) took(now time.Time, began ...time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts(now) {
		for _, b := range began {
			r.latencies = append(r.latencies, now.Sub(b))
		}
	}
}

func (r *record) counts(now time.Time) bool {
	return !r.from.IsZero() && !now.Before(r.from) && !r.over
}

// rate is the pages a second; 0 when there were too few to tell.
func (r *record) rate() float64 {
	if d := r.last.Sub(r.first); r.pages > 0 && d > 0 {
		return float64(r.pages) / d.Seconds()
	}
	return 0
}

// loader feeds a server, through the batcher that runs have.
type loader struct {
	model  orchestrator.Model
	prefix string // of shared-memory names
	pages  [][]byte
	// These are for runPipeline.
	renderer  orchestrator.Renderer
	documents []measure.Document
	workers   int
}

// run feeds the server, as t says, with pages that are drawn already: as fast as
// it takes them, or, with a rate, at that many pages a second on average, come
// when they may (a Poisson process, the same for all settings). It returns when
// all that was sent is answered. The error is ctx's or this machine's; what the
// server says is in the record.
func (l *loader) run(ctx context.Context, t Settings, rate float64, warm, window time.Duration) (*record, error) {
	pool, err := measure.Slabs(l.model, t.InFlight+1, t.Batch, l.prefix)
	if err != nil {
		return nil, &Infeasible{Reason: err.Error(), Err: err}
	}
	defer pool.Close()
	frames := measure.Frames(l.model.Input(), t.Batch)
	r := newRecord(warm, window)
	batches := batch.New(ctx, batch.Config[*slab.Slab]{
		MaxItems: t.Batch, MaxAge: t.maxAge(), InFlight: t.InFlight,
		Open: func() (*slab.Slab, int) {
			s, err := pool.Get()
			if err != nil {
				panic("tune: a batch was opened: " + err.Error())
			}
			return s, s.Pages
		},
		Discard: pool.Put,
		Move:    (*slab.Slab).Move,
	}, func(b *batch.Batch[*slab.Slab, time.Time]) { // the items: when each began
		defer pool.Put(b.Resource)
		began := time.Now()
		verdicts, err := l.model.Infer(b.Context, b.Resource, 0, frames[:len(b.Items)])
		now := time.Now()
		for _, v := range verdicts {
			if v.Err != nil && err == nil {
				err = v.Err
			}
		}
		r.request(now.Sub(began), err)
		if err != nil {
			measure.Pause(ctx, measure.FailurePause)
			return
		}
		r.ended(now, len(b.Items))
		r.took(now, b.Items...)
	})
	// As in a run: while there may be more pages, a batch waits for its age.
	batches.Expect(1)
	feed, stop := context.WithCancel(ctx)
	defer stop()
	var feeders sync.WaitGroup
	feeders.Go(func() {
		r.keep(ctx)
		stop()
	})
	place := func(page int, due time.Time) bool {
		batches.Expect(1)
		slot, err := batches.Reserve(feed)
		if err != nil {
			batches.Withdraw()
			return false
		}
		copy(slot.Resource.Page(slot.Place), l.pages[page%len(l.pages)])
		if due.IsZero() {
			due = time.Now()
		}
		slot.Commit(due)
		return true
	}
	if rate > 0 {
		feeders.Go(func() {
			random := rand.New(rand.NewPCG(1, 2))
			due := time.Now()
			for page := 0; ; page++ {
				due = due.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
				if !measure.Pause(feed, time.Until(due)) || !place(page, due) {
					return
				}
			}
		})
	} else {
		// As many as copy in a run, or the copying would be the limit.
		for f := range runtime.GOMAXPROCS(0) {
			feeders.Go(func() {
				for page := f; place(page, time.Time{}); page++ {
				}
			})
		}
	}
	feeders.Wait()
	batches.Withdraw()
	batches.Close()
	return r, context.Cause(ctx)
}

// endlessly is more often than documents can be done in any window.
const endlessly = 1 << 20

// runPipeline feeds the server with pages that are being drawn, by the engine
// itself: documents over and over, as a run does them.
func (l *loader) runPipeline(ctx context.Context, t Settings, warm, window time.Duration) (*record, error) {
	r := newRecord(warm, window)
	drawn := &drawnTimes{times: map[orchestrator.PageRef]time.Time{}}
	d, err := orchestrator.New(orchestrator.Config{
		Model: timedModel{l.model, r}, Renderer: timedRenderer{l.renderer, drawn},
		Batch: t.Batch, InFlight: t.InFlight, MaxAge: t.maxAge(), Workers: l.workers,
		RefreshEvery: -1, SharedMemoryPrefix: l.prefix,
	})
	if err != nil {
		return nil, &Infeasible{Reason: err.Error(), Err: err}
	}
	defer d.Close()
	watched, unwatch := context.WithCancel(ctx)
	stop := make(chan struct{})
	go func() {
		r.keep(watched)
		close(stop)
	}()
	defer func() {
		unwatch()
		<-stop
	}()
	_, err = d.Run(ctx, orchestrator.Job{
		Source: measure.Repeat(l.documents, endlessly), Sink: &timedSink{record: r, drawn: drawn, documents: len(l.documents)}, Stop: stop,
	})
	if errors.Is(err, orchestrator.ErrInterrupted) {
		err = nil
	}
	return r, err
}

// timedModel notes requests.
type timedModel struct {
	orchestrator.Model
	record *record
}

func (m timedModel) Infer(ctx context.Context, s *orchestrator.Slab, first int, frames []orchestrator.Frame) ([]orchestrator.Verdict, error) {
	began := time.Now()
	verdicts, err := m.Model.Infer(ctx, s, first, frames)
	now := time.Now()
	m.record.request(now.Sub(began), err)
	if err == nil {
		m.record.ended(now, len(frames))
	}
	return verdicts, err
}

// drawnTimes is when pages that are under way were drawn.
type drawnTimes struct {
	mu    sync.Mutex
	times map[orchestrator.PageRef]time.Time
}

func (d *drawnTimes) put(ref orchestrator.PageRef) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.times[ref] = time.Now()
}

func (d *drawnTimes) take(ref orchestrator.PageRef) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.times[ref]
	delete(d.times, ref)
	return t
}

// timedRenderer notes when pages are drawn.
type timedRenderer struct {
	orchestrator.Renderer
	drawn *drawnTimes
}

func (r timedRenderer) NewWorker(ctx context.Context, width, height int) (orchestrator.RenderWorker, error) {
	w, err := r.Renderer.NewWorker(ctx, width, height)
	return &timedWorker{RenderWorker: w, drawn: r.drawn}, err
}

type timedWorker struct {
	orchestrator.RenderWorker
	drawn *drawnTimes
	open  string
}

func (w *timedWorker) Open(ctx context.Context, doc orchestrator.Document) (int, error) {
	w.open = doc.Path
	return w.RenderWorker.Open(ctx, doc)
}

func (w *timedWorker) Draw(ctx context.Context, page int) ([]byte, orchestrator.Geometry, error) {
	pixels, geometry, err := w.RenderWorker.Draw(ctx, page)
	if err == nil {
		w.drawn.put(orchestrator.PageRef{Path: w.open, Page: page})
	}
	return pixels, geometry, err
}

// timedSink notes when pages end. Pages that cannot be drawn are none of the
// server's business.
type timedSink struct {
	record    *record
	drawn     *drawnTimes
	documents int // that have not come yet for the first time
	pages     int
}

func (s *timedSink) Begin(context.Context, orchestrator.Document) (orchestrator.Past, error) {
	return orchestrator.Past{}, nil
}

func (s *timedSink) Opened(context.Context, orchestrator.Document, int) error { return nil }

// End ends the run when documents could be drawn from before and none can now.
func (s *timedSink) End(_ context.Context, d orchestrator.DocumentResult, stands func(error)) error {
	stands(nil)
	s.documents--
	if s.pages == 0 && d.Err != nil && s.documents <= 0 {
		return fmt.Errorf("the sample cannot be drawn any more: %w", d.Err)
	}
	return nil
}

func (s *timedSink) Page(_ context.Context, p orchestrator.PageResult) error {
	drawn := s.drawn.take(p.Ref)
	s.pages++
	switch {
	case p.Err == nil:
		s.record.took(time.Now(), drawn)
	case p.Err.Stage == orchestrator.StageInfer:
		s.record.mu.Lock()
		defer s.record.mu.Unlock()
		s.record.fail(p.Err)
	}
	return nil
}
