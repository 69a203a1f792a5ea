package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"quire/orchestrator/internal/batch"
	"quire/orchestrator/internal/slab"
)

// The ways in which a page can be refused.
var (
	// ErrBusy is what TryDetect returns when the queue is full.
	ErrBusy = errors.New("too many pages are waiting: try again later, or raise the queue")
	// ErrClosed is what calls return after Close.
	ErrClosed = errors.New("the detector is closed")
)

// RoomError is what New returns when the batches do not fit into what the machine
// has free, of /dev/shm where pages go to the server through shared memory. Fewer
// and smaller batches do, or messages.
type RoomError = slab.RoomError

// Detector turns pages into regions. Pages of all callers share batches. What a
// batch adds to the time of an answer is MaxAge at most, and nothing when no
// other page could join; the rest is the queue, drawing and inference. Its
// methods may be called from any goroutine.
type Detector struct {
	asked Config // as New was given it
	cfg   Config // with defaults; Batch, InFlight and MaxAge as they were at New
	// raster is what the model wanted at New; its Width and Height are every
	// endpoint's.
	raster Input
	log    *slog.Logger

	slabs   *slab.Pool
	batches *batch.Batcher[*Slab, *page]
	fleet   *fleet
	took    atomic.Int64 // nanoseconds that the last answered request took

	admission chan struct{} // one token a page that Detect or DetectBatch admitted
	scaling   chan struct{} // one token an image being scaled
	work      *schedule
	counts    counts
	failed    [ActionStop + 1]atomic.Int64 // requests, by Action
	doings    doings
	stalled   atomic.Pointer[stall] // nil while pages end

	reloads      sync.Mutex // held while a reload is taken over
	limits       atomic.Pointer[limits]
	unaffordable limits // what the endpoints want and there was no memory for; guarded by reloads
	runsMu       sync.Mutex
	runs         map[*run]bool

	ctx     context.Context // ends at Close
	stop    context.CancelCauseFunc
	workers sync.WaitGroup
	callers sync.WaitGroup // pages admitted, and runs
	closeMu sync.RWMutex
	closed  bool
	ended   chan struct{} // closed when Close is done
}

// New returns a detector. It allocates its page buffers, asks nothing of the
// server and starts the workers; Close ends them.
func New(cfg Config) (*Detector, error) {
	asked := cfg
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	in, first := cfg.Endpoints[0].Model.Input(), asked.limits(inputs(cfg.Endpoints)...)
	d := &Detector{
		asked: asked, cfg: cfg, raster: in, log: cfg.Logger, runs: map[*run]bool{},
		admission: make(chan struct{}, cfg.Queue),
		scaling:   make(chan struct{}, cfg.Workers),
		work:      newSchedule(),
		ended:     make(chan struct{}),
	}
	d.ctx, d.stop = context.WithCancelCause(context.Background())
	d.fleet = newFleet(d.ctx, cfg.ServerWait, cfg.Logger, func(n int) { d.batches.SetWindow(n) })
	if d.slabs, err = slab.New(slab.Config{
		Slabs: first.inFlight + 1, Pages: first.batch, PageBytes: in.PageBytes(), Prefix: d.slabPrefix(first), Release: d.fleet.release,
	}); err != nil {
		d.stop(err)
		return nil, err
	}
	d.batches = batch.New(d.ctx, batch.Config[*Slab]{
		MaxItems: cfg.Batch, MaxAge: cfg.MaxAge, InFlight: cfg.InFlight,
		Open: func() (*Slab, int) {
			s, err := d.slabs.Get()
			if err != nil { // there is one more than batches in flight, until Close
				panic("orchestrator: a batch was opened: " + err.Error())
			}
			return s, s.Pages
		},
		Discard: d.slabs.Put,
		Move:    (*Slab).Move,
	}, d.runBatch)
	for _, e := range cfg.Endpoints {
		d.fleet.add(e, asked.inFlight(e.Model.Input()))
	}
	d.limits.Store(&first)
	if cfg.RefreshEvery > 0 {
		d.workers.Go(d.watchModel)
	}
	if cfg.StallAfter > 0 {
		d.workers.Go(d.watchStall)
	}
	if cfg.Renderer != nil {
		for range cfg.Workers {
			w := &worker{d: d}
			d.workers.Go(w.loop)
		}
	}
	return d, nil
}

// MemoryBound is the most that page buffers occupy, in bytes: one batch for
// each request in flight and one that is being filled, and two pages a worker.
func (d *Detector) MemoryBound() int64 {
	return d.slabs.Bytes() + 2*int64(d.cfg.Workers)*int64(d.raster.PageBytes())
}

// Settings returns the configuration in force, defaults filled in. Batch,
// InFlight and MaxAge change when the served model is reloaded with others, or
// servers join and leave. It is not for another New: InFlight is that of all
// endpoints together, and Endpoints are those of New, whoever has joined or left.
func (d *Detector) Settings() Config {
	cfg, now := d.cfg, d.limits.Load()
	cfg.Batch, cfg.InFlight, cfg.MaxAge = now.batch, now.inFlight, now.maxAge
	return cfg
}

// Detect returns the regions of one page (1-based) of the document at path. It
// blocks while the queue is full. Calls batch with each other; a call that
// nothing can join goes to the server at once. A page that failed is a
// *PageError beside its result; when ctx ends the page's place is free at once
// and the error is ctx's.
func (d *Detector) Detect(ctx context.Context, path string, pageNo int) (PageResult, error) {
	return d.detect(ctx, path, pageNo, true)
}

// TryDetect is Detect that returns ErrBusy at once when the queue is full.
func (d *Detector) TryDetect(ctx context.Context, path string, pageNo int) (PageResult, error) {
	return d.detect(ctx, path, pageNo, false)
}

func (d *Detector) detect(ctx context.Context, path string, pageNo int, wait bool) (PageResult, error) {
	if d.cfg.Renderer == nil {
		return PageResult{}, errors.New("orchestrator: Config.Renderer is nil: nothing can draw a page")
	}
	ref := PageRef{Path: path, Page: pageNo}
	if pageNo < 1 {
		e := &PageError{Ref: ref, Stage: StageOpen, Category: CategoryNoSuchPage, Message: fmt.Sprintf("there is no page %d: the first is 1", pageNo)}
		return PageResult{Ref: ref, Status: StatusFailed, Err: e}, e
	}
	leave, err := d.admit(ctx, wait)
	if err != nil {
		return PageResult{Ref: ref, Status: StatusCancelled}, err
	}
	defer leave()
	p := newPage(d, ctx, ref)
	t := &detectTask{page: p, doc: Document{Path: path, Open: func() (*os.File, error) {
		// Opening a FIFO would wait for a writer, and nothing could end that.
		return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}}}
	d.batches.Expect(1)
	d.work.addDetect(t)
	r, err := p.wait()
	if r.Status == StatusCancelled && d.work.removeDetect(t) {
		d.batches.Withdraw() // no worker had taken it
	}
	return r, err
}

// admit takes a place in the queue and holds Close off until leave is called.
func (d *Detector) admit(ctx context.Context, wait bool) (leave func(), err error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	if wait {
		select {
		case d.admission <- struct{}{}:
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-d.ctx.Done():
			err = ErrClosed
		}
	} else {
		select {
		case d.admission <- struct{}{}:
		default:
			err = ErrBusy
		}
	}
	if err != nil {
		d.callers.Done()
		return nil, err
	}
	return func() {
		<-d.admission
		d.callers.Done()
	}, nil
}

func (d *Detector) enter() error {
	d.closeMu.RLock()
	defer d.closeMu.RUnlock()
	if d.closed {
		return ErrClosed
	}
	d.callers.Add(1)
	return nil
}

// Close ends everything: calls that are waiting return ErrClosed, requests in
// flight are cancelled, workers end. It does not close the Model or what the
// Renderer is made of. It is idempotent, and every call returns when all has
// ended.
func (d *Detector) Close() error {
	d.closeMu.Lock()
	first := !d.closed
	d.closed = true
	d.closeMu.Unlock()
	if !first {
		<-d.ended
		return nil
	}
	d.stop(ErrClosed)
	d.work.close()
	d.callers.Wait()
	d.workers.Wait()
	d.batches.Close()
	d.fleet.close()
	d.slabs.Close()
	close(d.ended)
	return nil
}

// page is one page on its way; it ends exactly once.
type page struct {
	d        *Detector
	ctx      context.Context
	ref      PageRef
	run      *run // nil for Detect and DetectBatch
	frame    Frame
	geometry Geometry
	lost     int // times that the server died with it in flight; of its batch's goroutine
	tries    int // requests with it that had no answer and cost an attempt; likewise

	ended  atomic.Bool
	result chan PageResult // capacity 1; unused by a run

	slotMu sync.Mutex
	slot   batch.Slot[*Slab, *page] // zero until it has a place in a batch
}

func newPage(d *Detector, ctx context.Context, ref PageRef) *page {
	return &page{d: d, ctx: ctx, ref: ref, result: make(chan PageResult, 1)}
}

// live tells whether the page has yet to end.
func (p *page) live() bool { return !p.ended.Load() }

// end gives the page its result, and its place in a batch up, if it has one: the
// request of a batch that is left with no live page ends. Only the first call
// counts.
func (p *page) end(r PageResult) {
	if !p.ended.CompareAndSwap(false, true) {
		return
	}
	p.slotMu.Lock()
	p.slot.Remove()
	p.slotMu.Unlock()
	r.Ref = p.ref
	if r.Err != nil {
		r.Err.Ref = p.ref
	}
	if r.Status != StatusCancelled { // a worker may be setting it just now
		r.Geometry = p.geometry
		if r.Err == nil || r.Err.Stage == StageInfer { // it was drawn
			r.ImageWidth, r.ImageHeight = p.d.raster.Width, p.d.raster.Height
		}
	}
	p.d.counts.add(r.Status, 1)
	if p.run != nil {
		p.run.pageEnded(p, r)
		return
	}
	p.result <- r
}

func (p *page) fail(stage Stage, category Category, message string, err error) {
	p.end(PageResult{Status: StatusFailed, Err: &PageError{Stage: stage, Category: category, Message: message, Err: err}})
}

func (p *page) cancel() { p.end(PageResult{Status: StatusCancelled}) }

// join puts the drawn pixels into the open batch, or ends the page. It uses up
// the page's announcement in either case.
func (p *page) join(ctx context.Context, fill func(dst []byte)) {
	slot, err := p.d.batches.Reserve(ctx)
	if err != nil {
		p.d.batches.Withdraw()
		p.cancel()
		return
	}
	fill(slot.Resource.Page(slot.Place))
	p.slotMu.Lock()
	p.slot = slot
	p.slotMu.Unlock()
	slot.Commit(p)
	if p.ended.Load() {
		// Cancelled while it was being filled: end may have looked before
		// there was a slot to give up. Remove twice is harmless.
		slot.Remove()
	}
}

// wait returns when the page has ended, or cancels it when the caller's context
// or the detector does.
func (p *page) wait() (PageResult, error) {
	var r PageResult
	select {
	case r = <-p.result:
	case <-p.ctx.Done():
		p.cancel()
		r = <-p.result // it may have ended by itself
	case <-p.d.ctx.Done():
		p.cancel()
		r = <-p.result
	}
	switch {
	case r.Err != nil:
		return r, r.Err
	case r.Status == StatusCancelled:
		return r, cmp.Or(context.Cause(p.ctx), context.Cause(p.d.ctx), context.Canceled)
	}
	return r, nil
}
