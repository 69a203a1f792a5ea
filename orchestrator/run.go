package orchestrator

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrInterrupted is what Run returns after a soft stop.
var ErrInterrupted = errors.New("interrupted")

// Job is one run over many documents.
type Job struct {
	Source Source
	Sink   Sink
	// Stop, once closed, ends the run softly: no page is begun, what is drawn
	// is finished and written. Cancelling Run's context ends it at once. May be
	// nil.
	Stop <-chan struct{}
	// Progress is filled in while the run goes on. May be nil.
	Progress *Progress
}

// Counts says how pages or documents ended. Pages are never partial.
type Counts struct {
	Done, Partial, Failed, Skipped, Cancelled int64
}

// Ended is the sum of the counts.
func (c Counts) Ended() int64 { return c.Done + c.Partial + c.Failed + c.Skipped + c.Cancelled }

// Summary is how a run ended. Documents.Ended is the number of documents that
// the source yielded, Pages.Ended the number of pages of those that opened.
type Summary struct {
	Documents, Pages Counts
	Elapsed          time.Duration
}

// Progress tells how far a run is. The zero value is ready; one run may use it
// at a time, and any goroutine may read it at any time without waiting.
type Progress struct {
	listed, opened, known atomic.Int64
	documents, pages      counts
}

// ProgressNow is a snapshot of a Progress.
type ProgressNow struct {
	// Listed is how many documents the source has yielded, Opened how many of
	// them were opened or would not open, and Known how many pages those have.
	Listed, Opened, Known int64
	// Documents and Pages have ended.
	Documents, Pages Counts
}

// Now is a snapshot.
func (p *Progress) Now() ProgressNow {
	return ProgressNow{Listed: p.listed.Load(), Opened: p.opened.Load(), Known: p.known.Load(), Documents: p.documents.now(), Pages: p.pages.now()}
}

// Run moves every page of the source's documents to the sink. Pages share
// batches with those of other calls. It returns when every page has ended: with
// a nil error even if pages failed (the Summary counts them), with
// ErrInterrupted after a soft stop, with ctx's error after a hard one, with a
// *ServerError when the server stayed away or does not fit, or with the sink's
// error. In every case the counts add up.
func (d *Detector) Run(ctx context.Context, job Job) (Summary, error) {
	if d.cfg.Renderer == nil {
		return Summary{}, errors.New("orchestrator: Config.Renderer is nil: nothing can draw a page")
	}
	if err := d.enter(); err != nil {
		return Summary{}, err
	}
	defer d.callers.Done()
	start := time.Now()
	r := &run{
		d: d, sink: job.Sink, progress: job.Progress,
		// Answers of one batch can be put down without waiting for the writer.
		out:     make(chan message, 2*d.cfg.Batch),
		stopped: make(chan struct{}),
		live:    map[*page]struct{}{},
		open:    map[*drawTask]struct{}{},
	}
	if r.progress == nil {
		r.progress = &Progress{}
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	d.runsMu.Lock()
	d.runs[r] = true
	d.runsMu.Unlock()
	defer func() {
		d.runsMu.Lock()
		delete(d.runs, r)
		d.runsMu.Unlock()
	}()
	defer context.AfterFunc(d.ctx, func() { r.abort(ErrClosed) })()
	defer context.AfterFunc(r.ctx, r.cancelLive)()

	var group sync.WaitGroup
	finished := make(chan struct{})
	group.Go(func() { r.watch(job.Stop, finished) })
	group.Go(r.write)
	d.batches.Expect(1) // held until no page of this run can join any more
	r.holds.Store(1)
	r.walk(job.Source)
	r.release()
	r.docs.Wait()
	close(r.out)
	close(finished)
	group.Wait()

	r.summary.Elapsed = time.Since(start)
	var err error
	switch {
	case r.ctx.Err() != nil:
		err = context.Cause(r.ctx)
	case r.stopping():
		err = ErrInterrupted
	}
	return r.summary, err
}

// run is one call of Run.
type run struct {
	d        *Detector
	ctx      context.Context // ends at a hard stop
	cancel   context.CancelCauseFunc
	sink     Sink
	progress *Progress

	out   chan message
	docs  sync.WaitGroup // documents that the source yielded and the writer has not ended
	holds atomic.Int64   // the walker, and documents that are not wholly drawn

	stopOnce sync.Once
	stopped  chan struct{} // closed at any stop

	mu   sync.Mutex
	live map[*page]struct{}     // begun, not ended
	open map[*drawTask]struct{} // opened, not wholly drawn

	// Of the writer's goroutine.
	summary Summary
	sinkErr error
}

// message is what the writer hears; exactly one of the pointers is set.
type message struct {
	opened  *drawTask
	page    *PageResult
	undrawn *drawTask // with count
	count   int
	failed  *Document // with err, or with none when it was not reached
	err     *PageError
}

func (r *run) stopping() bool {
	select {
	case <-r.stopped:
		return true
	default:
		return r.ctx.Err() != nil
	}
}

// abort ends the run at once; the first cause counts.
func (r *run) abort(cause error) { r.cancel(cause) }

// watch turns stops into actions.
func (r *run) watch(stop <-chan struct{}, finished <-chan struct{}) {
	select {
	case <-finished:
		return
	case <-r.ctx.Done():
		r.stop()
		return
	case <-stop:
		r.stop()
	}
	if r.d.cfg.SoftStop < 0 {
		return
	}
	t := time.NewTimer(r.d.cfg.SoftStop)
	defer t.Stop()
	select {
	case <-finished:
	case <-r.ctx.Done():
	case <-t.C:
		r.abort(ErrInterrupted)
	}
}

// stop keeps pages from being begun, and ends those that nobody has taken.
func (r *run) stop() {
	r.stopOnce.Do(func() { close(r.stopped) })
	r.mu.Lock()
	open := make([]*drawTask, 0, len(r.open))
	for dt := range r.open {
		open = append(open, dt)
	}
	r.mu.Unlock()
	for _, dt := range open {
		r.pagesNotDrawn(dt, r.d.work.rest(dt))
	}
}

// cancelLive ends the pages that are on their way.
func (r *run) cancelLive() {
	r.mu.Lock()
	live := make([]*page, 0, len(r.live))
	for p := range r.live {
		live = append(live, p)
	}
	r.mu.Unlock()
	for _, p := range live {
		p.cancel()
	}
}

func (r *run) track(p *page) {
	r.mu.Lock()
	r.live[p] = struct{}{}
	r.mu.Unlock()
	if r.ctx.Err() != nil {
		p.cancel() // cancelLive may have looked before
	}
}

// release gives up one hold; with the last, nothing of this run can join a
// batch any more.
func (r *run) release() {
	if r.holds.Add(-1) == 0 {
		r.d.batches.Withdraw()
	}
}

// walk offers the source's documents to the workers, one at a time.
func (r *run) walk(src Source) {
	for doc := range src.Documents(r.ctx) {
		if r.stopping() {
			return
		}
		r.progress.listed.Add(1)
		r.docs.Add(1)
		r.holds.Add(1)
		t := &openTask{run: r, doc: doc, took: make(chan struct{})}
		r.d.work.addOpen(t)
		select {
		case <-t.took:
			continue
		case <-r.stopped:
		case <-r.ctx.Done():
		}
		if r.d.work.removeOpen(t) {
			r.documentNotReached(doc)
		}
		return
	}
}

func (r *run) documentOpened(dt *drawTask) {
	r.progress.known.Add(int64(dt.pages))
	r.progress.opened.Add(1)
	r.mu.Lock()
	r.open[dt] = struct{}{}
	r.mu.Unlock()
	r.out <- message{opened: dt}
}

// documentOffered is called after the document's pages can be taken.
func (r *run) documentOffered(dt *drawTask) {
	if r.stopping() {
		r.pagesNotDrawn(dt, r.d.work.rest(dt)) // stop may have looked before
	}
}

func (r *run) documentFailed(doc Document, err *PageError) {
	err.Ref = PageRef{Path: doc.Path}
	r.progress.opened.Add(1)
	r.out <- message{failed: &doc, err: err}
	r.release()
}

func (r *run) documentNotReached(doc Document) {
	r.out <- message{failed: &doc}
	r.release()
}

// pageDrawn counts a page whose drawing is over, in whatever way.
func (r *run) pageDrawn(dt *drawTask) { r.drawn(dt, 1) }

func (r *run) pagesNotDrawn(dt *drawTask, n int) {
	if n == 0 {
		return
	}
	r.out <- message{undrawn: dt, count: n}
	r.drawn(dt, n)
}

func (r *run) drawn(dt *drawTask, n int) {
	if !r.d.work.ended(dt, n) {
		return
	}
	r.mu.Lock()
	delete(r.open, dt)
	r.mu.Unlock()
	r.release()
}

func (r *run) pageEnded(p *page, result PageResult) {
	r.mu.Lock()
	delete(r.live, p)
	r.mu.Unlock()
	r.out <- message{page: &result}
}

// inWork is a document whose pages are coming in.
type inWork struct {
	doc    Document
	result DocumentResult
}

// write is the goroutine that owns the sink and the accounts.
func (r *run) write() {
	docs := map[string]*inWork{}
	for m := range r.out {
		switch {
		case m.opened != nil:
			w := &inWork{doc: m.opened.doc, result: DocumentResult{Path: m.opened.doc.Path, Size: m.opened.doc.Size, PageCount: m.opened.pages}}
			docs[w.doc.Path] = w
			r.tell(func() error { return r.sink.Begin(w.doc, w.result.PageCount) })
		case m.page != nil:
			w := docs[m.page.Ref.Path]
			switch m.page.Status {
			case StatusDone:
				w.result.Done++
			case StatusFailed:
				w.result.Failed++
			case StatusSkipped:
				w.result.Skipped++
			default:
				w.result.Cancelled++
			}
			r.progress.pages.end(m.page.Status)
			if m.page.Status != StatusCancelled {
				r.tell(func() error { return r.sink.Page(*m.page) })
			}
			r.settle(docs, w)
		case m.undrawn != nil:
			w := docs[m.undrawn.doc.Path]
			w.result.Cancelled += m.count
			r.progress.pages.add(StatusCancelled, int64(m.count))
			r.settle(docs, w)
		default:
			w := &inWork{doc: *m.failed, result: DocumentResult{Path: m.failed.Path, Size: m.failed.Size, PageCount: -1, Status: StatusCancelled, Err: m.err}}
			if m.err != nil {
				w.result.Status = StatusFailed
			}
			r.end(w)
		}
	}
}

// settle ends the document if all its pages have.
func (r *run) settle(docs map[string]*inWork, w *inWork) {
	c := &w.result
	if c.Done+c.Failed+c.Skipped+c.Cancelled < c.PageCount {
		return
	}
	delete(docs, w.doc.Path)
	switch {
	case c.Cancelled > 0:
		c.Status = StatusCancelled
	case c.Failed == c.PageCount:
		c.Status = StatusFailed
	case c.Failed > 0:
		c.Status = StatusPartial
	default:
		c.Status = StatusDone
	}
	r.end(w)
}

func (r *run) end(w *inWork) {
	r.tell(func() error { return r.sink.End(w.result) })
	c := &w.result
	if r.sinkErr != nil {
		// Nothing of it is known to be on disk.
		c.Status, c.Cancelled = StatusCancelled, c.Done+c.Failed+c.Skipped+c.Cancelled
		c.Done, c.Failed, c.Skipped = 0, 0, 0
	}
	add(&r.summary.Documents, c.Status, 1)
	add(&r.summary.Pages, StatusDone, int64(c.Done))
	add(&r.summary.Pages, StatusFailed, int64(c.Failed))
	add(&r.summary.Pages, StatusSkipped, int64(c.Skipped))
	add(&r.summary.Pages, StatusCancelled, int64(c.Cancelled))
	r.progress.documents.end(c.Status)
	r.docs.Done()
}

// tell calls the sink, unless it has failed before.
func (r *run) tell(call func() error) {
	if r.sinkErr != nil {
		return
	}
	if err := call(); err != nil {
		r.sinkErr = err
		r.abort(err)
	}
}
