package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	// is finished and written. A Source that waits just then holds the end up,
	// for Config.SoftStop at most. Cancelling Run's context ends it at once. May
	// be nil.
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
// the source yielded before the run was stopped, Pages.Ended the number of pages
// of those that opened.
type Summary struct {
	Documents, Pages Counts
	// Resumed is how many of the pages that are done or failed come from an
	// earlier run, or were set aside for what happened in one.
	Resumed int64
	// DocumentsBefore and PagesBefore tell how the documents that were skipped,
	// and their pages, ended when they were done.
	DocumentsBefore, PagesBefore Counts
	// Redone counts documents that were done again, by the reason.
	Redone  map[Redone]int64
	Elapsed time.Duration
}

// Progress tells how far a run is. The zero value is ready; one run may use it
// at a time, and any goroutine may read it at any time without waiting.
type Progress struct {
	listed, opened, known, resumed atomic.Int64
	documents, pages               counts
	redone                         [len(reasons)]atomic.Int64
}

// ProgressNow is a snapshot of a Progress.
type ProgressNow struct {
	// Listed is how many documents the source has yielded, Opened how many of
	// them were opened or would not open, and Known how many pages those have.
	Listed, Opened, Known int64
	// Documents and Pages have ended. Resumed is how many of the pages that
	// are done or failed come from an earlier run, or were set aside.
	Documents, Pages Counts
	Resumed          int64
	// Redone counts documents that were done again, by the reason; each is there.
	Redone map[Redone]int64
}

// Now is a snapshot.
func (p *Progress) Now() ProgressNow {
	now := ProgressNow{
		Listed: p.listed.Load(), Opened: p.opened.Load(), Known: p.known.Load(),
		Documents: p.documents.now(), Pages: p.pages.now(), Resumed: p.resumed.Load(), Redone: map[Redone]int64{},
	}
	for i, why := range reasons {
		now.Redone[why] = p.redone[i].Load()
	}
	return now
}

// Run moves every page of the source's documents to the sink, but for those
// that it has from earlier runs. Pages share batches with those of other calls. It returns when every page has ended: with
// a nil error even if pages failed (the Summary counts them), with
// ErrInterrupted after a soft stop, with ctx's error after a hard one, with a
// *ServerError when the server stayed away or does not fit, or with the sink's
// error. In every case the counts add up.
func (d *Detector) Run(ctx context.Context, job Job) (Summary, error) {
	if d.cfg.Renderer == nil {
		return Summary{}, errors.New("orchestrator: Config.Renderer is nil: nothing can draw a page")
	}
	if job.Source == nil || job.Sink == nil {
		return Summary{}, errors.New("orchestrator: a Job needs a Source and a Sink")
	}
	if err := d.enter(); err != nil {
		return Summary{}, err
	}
	defer d.callers.Done()
	start := time.Now()
	r := &run{
		d: d, sink: job.Sink, progress: job.Progress,
		// Answers of one batch can be put down without waiting for the writer.
		out:    make(chan func(), 2*d.cfg.Batch),
		inWork: map[string]*inWork{},
		live:   map[*page]struct{}{},
		open:   map[*drawTask]struct{}{},
	}
	if r.progress == nil {
		r.progress = &Progress{}
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.soft, r.stopSoft = context.WithCancel(r.ctx)
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
	func() {
		walked := false
		defer func() {
			if !walked { // the source has panicked; nothing of the run may stay behind
				r.abort(errors.New("orchestrator: the source panicked"))
			}
			r.release()
			r.docs.Wait()
			close(r.out)
			close(finished)
			group.Wait()
		}()
		r.walk(job.Source)
		walked = true
	}()

	r.accounts.Lock() // nobody has it any more
	defer r.accounts.Unlock()
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
	soft     context.Context // ends at any stop
	stopSoft context.CancelFunc
	progress *Progress

	out   chan func()    // what the writer is to do, in order
	docs  sync.WaitGroup // documents that the source yielded and the writer has not ended
	holds atomic.Int64   // the walker, and documents that are not wholly drawn

	// Of the writer's goroutine:
	sink    Sink
	sinkErr error
	inWork  map[string]*inWork // by path

	mu   sync.Mutex
	live map[*page]struct{}     // begun, not ended
	open map[*drawTask]struct{} // opened, not wholly drawn

	accounts sync.Mutex // the sink ends documents on goroutines of its own
	summary  Summary
}

// inWork is a document whose pages are coming in.
type inWork struct {
	doc    Document
	result DocumentResult
}

func (r *run) stopping() bool { return r.soft.Err() != nil }

// abort ends the run at once; the first cause counts.
func (r *run) abort(cause error) { r.cancel(cause) }

// watch turns stops into actions.
func (r *run) watch(stop <-chan struct{}, finished <-chan struct{}) {
	select {
	case <-finished:
		return
	case <-r.ctx.Done():
	case <-stop:
	}
	r.stop()
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
	r.stopSoft()
	r.mu.Lock()
	open := slices.Collect(maps.Keys(r.open))
	r.mu.Unlock()
	for _, dt := range open {
		r.pagesNotDrawn(dt, r.d.work.rest(dt))
	}
}

// cancelLive ends the pages that are on their way.
func (r *run) cancelLive() {
	r.mu.Lock()
	live := slices.Collect(maps.Keys(r.live))
	r.mu.Unlock()
	for _, p := range live {
		p.cancel()
	}
}

// beginPage makes a page that a worker is about to draw.
func (r *run) beginPage(dt *drawTask, pageNo int) *page {
	p := newPage(r.d, r.ctx, PageRef{Path: dt.doc.Path, Page: pageNo})
	p.run = r
	r.mu.Lock()
	r.live[p] = struct{}{}
	r.mu.Unlock()
	if r.ctx.Err() != nil {
		p.cancel() // cancelLive may have looked before
	}
	return p
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
		if doc.Err != nil {
			r.abort(doc.Err)
			return
		}
		r.progress.listed.Add(1)
		r.docs.Add(1)
		begun := make(chan *openTask, 1)
		r.out <- func() { begun <- r.begin(doc) }
		t := <-begun
		if t == nil {
			continue
		}
		r.holds.Add(1)
		r.d.work.addOpen(t)
		select {
		case <-t.took:
			continue
		case <-r.soft.Done():
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
	r.out <- func() { r.opened(r.inWork[dt.doc.Path], dt.pages, dt.past) }
}

// documentOffered is called after the document's pages can be taken.
func (r *run) documentOffered(dt *drawTask) {
	if r.stopping() {
		r.pagesNotDrawn(dt, r.d.work.rest(dt)) // stop may have looked before
	}
}

// documentFailed ends a document with a copy of an error that may be the
// renderer's own, for all of its documents.
func (r *run) documentFailed(doc Document, err PageError) {
	err.Ref = PageRef{Path: doc.Path}
	r.progress.opened.Add(1)
	r.out <- func() { r.end(r.inWork[doc.Path], StatusFailed, &err) }
	r.release()
}

func (r *run) documentNotReached(doc Document) {
	r.out <- func() { r.end(r.inWork[doc.Path], StatusCancelled, nil) }
	r.release()
}

// pageDrawn counts a page whose drawing is over, in whatever way.
func (r *run) pageDrawn(dt *drawTask) { r.drawn(dt, 1) }

func (r *run) pagesNotDrawn(dt *drawTask, n int) {
	if n == 0 {
		return
	}
	r.out <- func() {
		w := r.inWork[dt.doc.Path]
		w.result.Cancelled += n
		r.progress.pages.add(StatusCancelled, int64(n))
		r.settle(w)
	}
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
	r.out <- func() {
		w := r.inWork[p.ref.Path]
		r.page(w, result)
		r.settle(w)
	}
}

// write is the goroutine that owns the sink and the documents in work.
func (r *run) write() {
	for do := range r.out {
		do()
	}
}

// begin asks the sink about a document, and ends it when there is nothing left
// to draw; else that is the task.
func (r *run) begin(doc Document) *openTask {
	w := &inWork{doc: doc, result: DocumentResult{Path: doc.Path, Size: doc.Size, PageCount: -1}}
	if r.inWork[doc.Path] != nil {
		err := fmt.Errorf("%s: two documents of one run have this path", doc.Path)
		r.abort(err)
		r.account(w.result, err)
		return nil
	}
	r.inWork[doc.Path] = w
	var past Past
	r.tell(doc.Path, func() (err error) {
		if past, err = r.sink.Begin(r.ctx, doc); err == nil {
			err = past.fault(doc)
		}
		return err
	})
	w.result.Redone = past.Redone
	switch {
	case r.sinkErr != nil:
		r.end(w, StatusCancelled, nil)
	case past.Result != nil:
		pages := max(0, past.Result.PageCount)
		r.progress.opened.Add(1)
		r.progress.known.Add(int64(pages))
		r.progress.pages.add(StatusSkipped, int64(pages))
		w.result.PageCount, w.result.Skipped, w.result.Before = past.Result.PageCount, pages, past.Result
		r.end(w, StatusSkipped, nil)
	case past.SetAside != nil && past.PageCount == 0:
		r.progress.opened.Add(1)
		r.end(w, StatusFailed, past.SetAside)
	case past.PageCount > 0 && (past.SetAside != nil || past.Pages.Len() == past.PageCount):
		r.progress.opened.Add(1)
		r.progress.known.Add(int64(past.PageCount))
		r.opened(w, past.PageCount, past)
		for page := 1; page <= past.PageCount && past.Pages.Len() < past.PageCount; page++ {
			if !past.Pages.Has(page) {
				e := *past.SetAside
				e.Ref = PageRef{Path: doc.Path, Page: page}
				r.page(w, PageResult{Ref: e.Ref, Status: StatusFailed, Err: &e})
				w.result.Resumed++
				r.progress.resumed.Add(1)
			}
		}
		r.settle(w)
	default:
		return &openTask{run: r, doc: doc, past: past, took: make(chan struct{})}
	}
	return nil
}

// opened counts what is done of a document already.
func (r *run) opened(w *inWork, pages int, past Past) {
	c := &w.result
	c.PageCount = pages
	if past.PageCount == pages {
		c.Done, c.Failed, c.Resumed = past.Done, past.Failed, past.Done+past.Failed
		r.progress.pages.add(StatusDone, int64(past.Done))
		r.progress.pages.add(StatusFailed, int64(past.Failed))
		r.progress.resumed.Add(int64(c.Resumed))
	}
	r.tell(w.doc.Path, func() error { return r.sink.Opened(r.ctx, w.doc, pages) })
}

func (r *run) page(w *inWork, p PageResult) {
	switch p.Status {
	case StatusDone:
		w.result.Done++
	case StatusFailed:
		w.result.Failed++
	default:
		w.result.Cancelled++
	}
	r.progress.pages.add(p.Status, 1)
	if p.Status != StatusCancelled {
		r.tell(w.doc.Path, func() error { return r.sink.Page(r.ctx, p) })
	}
}

// settle ends the document if all its pages have.
func (r *run) settle(w *inWork) {
	c := w.result
	if c.ended() < c.PageCount {
		return
	}
	status := StatusDone
	switch {
	case c.Cancelled > 0:
		status = StatusCancelled
	case c.Failed == c.PageCount:
		status = StatusFailed
	case c.Failed > 0:
		status = StatusPartial
	}
	r.end(w, status, nil)
}

// end ends a document, with err if it failed as a whole.
func (r *run) end(w *inWork, status Status, err *PageError) {
	w.result.Status, w.result.Err = status, err
	delete(r.inWork, w.doc.Path)
	var once sync.Once // a sink that tells and fails has ended the document once
	r.tell(w.doc.Path, func() error {
		return r.sink.End(r.ctx, w.result, func(err error) {
			if err != nil {
				r.abort(err)
			}
			once.Do(func() { r.account(w.result, err) })
		})
	})
	if r.sinkErr != nil {
		once.Do(func() { r.account(w.result, r.sinkErr) })
	}
}

// account counts a document that has ended; with an error, nothing of it is
// known to be on disk.
func (r *run) account(c DocumentResult, err error) {
	if err != nil {
		c.Status, c.Cancelled = StatusCancelled, c.ended()
		c.Done, c.Failed, c.Skipped, c.Resumed, c.Redone, c.Before = 0, 0, 0, 0, "", nil
	}
	r.accounts.Lock()
	s := &r.summary
	add(&s.Documents, c.Status, 1)
	add(&s.Pages, StatusDone, int64(c.Done))
	add(&s.Pages, StatusFailed, int64(c.Failed))
	add(&s.Pages, StatusSkipped, int64(c.Skipped))
	add(&s.Pages, StatusCancelled, int64(c.Cancelled))
	s.Resumed += int64(c.Resumed)
	if b := c.Before; b != nil {
		add(&s.DocumentsBefore, b.Status, 1)
		add(&s.PagesBefore, StatusDone, int64(b.Done))
		add(&s.PagesBefore, StatusFailed, int64(b.Failed))
	}
	if c.Redone != "" {
		if s.Redone == nil {
			s.Redone = map[Redone]int64{}
		}
		s.Redone[c.Redone]++
	}
	r.accounts.Unlock()
	r.progress.documents.add(c.Status, 1)
	if i := slices.Index(reasons[:], c.Redone); i >= 0 {
		r.progress.redone[i].Add(1)
	}
	r.docs.Done()
}

// tell calls the sink about a document, unless it has failed before.
func (r *run) tell(path string, call func() error) {
	if r.sinkErr != nil {
		return
	}
	doing := r.d.doings.begin(writing, PageRef{Path: path}, 0)
	defer doing.end()
	if err := call(); err != nil {
		r.sinkErr = err
		r.abort(err)
	}
}
