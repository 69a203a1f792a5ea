package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// worker is the goroutine that owns one render worker.
//
// Once a call's context has ended, an error of the render worker says nothing
// about the page, not even a *PageError: a process that died has not been given
// its second try, and may have been ended with everything else; what opens a
// document may give up with the context; and what ended the context may be
// another page's error. So the context is asked first.
type worker struct {
	d      *Detector
	render RenderWorker // nil until the first task, and after one broke
	open   openDocument
}

// openDocument is what the render worker has open.
type openDocument struct {
	path  string
	draw  *drawTask   // set when it belongs to a run
	file  os.FileInfo // set when Detect asked for it
	pages int
}

func (w *worker) loop() {
	// Starting early hides the start of the worker process behind whatever the
	// caller does first. A failure is met again, and told, by the first task.
	_ = w.start(w.d.ctx)
	for {
		t, ok := w.d.work.next(w.open)
		if !ok {
			break
		}
		switch {
		case t.detect != nil:
			w.detect(t.detect)
		case t.open != nil:
			w.openForRun(t.open)
		default:
			w.drawRange(t)
		}
	}
	w.drop()
}

func (w *worker) start(ctx context.Context) error {
	if w.render != nil {
		return nil
	}
	defer w.d.doings.begin(starting, PageRef{}, 0).end()
	in := w.d.raster
	r, err := w.d.cfg.Renderer.NewWorker(ctx, in.Width, in.Height)
	if err != nil {
		return fmt.Errorf("start a render worker: %w", err)
	}
	w.render = r
	return nil
}

func (w *worker) drop() {
	w.open = openDocument{}
	if w.render != nil {
		if err := w.render.Close(); err != nil {
			w.d.log.Warn("a render worker did not close", "err", err)
		}
		w.render = nil
	}
}

// crashed tells a worker process that died. Whatever killed it may have meant
// the process and not the page, so the page has a second try.
func crashed(err error) bool {
	pe, ok := errors.AsType[*PageError](err)
	return ok && pe.Category == CategoryCrash
}

// broken tells an error that is about the worker and not about what it draws.
func broken(err error) bool {
	_, ok := errors.AsType[*PageError](err)
	return err != nil && !ok
}

// openDoc opens doc with a working worker; one that died and one that turns out
// broken are replaced once each.
func (w *worker) openDoc(ctx context.Context, doc Document) (int, error) {
	for died, broke := false, false; ; {
		w.open = openDocument{}
		if err := w.start(ctx); err != nil {
			return 0, err
		}
		doing := w.d.doings.begin(opening, PageRef{Path: doc.Path}, 0)
		pages, err := w.render.Open(ctx, doc)
		doing.end()
		if err == nil && pages < 0 {
			err = fmt.Errorf("%s: the renderer says that it has %d pages", doc.Path, pages)
		}
		if err == nil {
			w.open = openDocument{path: doc.Path, pages: pages}
			return pages, nil
		}
		if ctx.Err() != nil {
			return 0, err
		}
		if crashed(err) && !died {
			died = true
			w.d.log.Warn("a render worker died opening a document; once more", "document", doc.Path)
			continue
		}
		if !broken(err) || TooManyOpenFiles(err) {
			return 0, err // another worker would do no better
		}
		w.d.log.Warn("a render worker broke", "document", doc.Path, "err", err)
		w.drop()
		if broke {
			return 0, err
		}
		broke = true
	}
}

// draw draws one page of doc, which is open, and puts it into a batch. The page
// has been announced to the batcher; draw uses the announcement up. After a worker
// that died another one draws the page once more, and so after one that is broken.
func (w *worker) draw(ctx context.Context, p *page, doc Document) {
	doing := w.d.doings.begin(drawing, p.ref, 0)
	pixels, geometry, err := w.pixels(ctx, p.ref)
	for died, broke := false, false; ctx.Err() == nil; {
		if crashed(err) && !died {
			died = true
			w.d.log.Warn("a render worker died drawing a page; once more", "page", p.ref.String())
		} else if broken(err) && !broke {
			broke = true
			w.d.log.Warn("a render worker broke drawing a page; once more", "page", p.ref.String(), "err", err)
			if err = w.reopen(ctx, doc); err != nil {
				break
			}
		} else {
			break
		}
		pixels, geometry, err = w.pixels(ctx, p.ref)
	}
	doing.end()
	p.geometry = geometry
	if err == nil {
		p.frame = Frame{Width: geometry.WidthPt, Height: geometry.HeightPt}
		p.join(ctx, func(dst []byte) { copy(dst, pixels) })
		return
	}
	w.d.batches.Withdraw()
	pe, ok := errors.AsType[*PageError](err)
	switch {
	case ctx.Err() != nil: // first, see worker
		p.cancel()
	case ok:
		p.fail(pe.Stage, pe.Category, pe.Message, pe.Err)
	case p.run != nil:
		// This machine's fault or ours, and none of the page's: it is for the
		// next run.
		w.drop()
		p.run.abort(err)
		p.cancel()
	default:
		w.drop()
		p.fail(StageRender, CategoryInternal, "the render worker broke: "+err.Error(), err)
	}
}

// pixels has a page drawn. Pixels of another size than was asked for would leave
// some of another page's in the batch.
func (w *worker) pixels(ctx context.Context, ref PageRef) ([]byte, Geometry, error) {
	pixels, geometry, err := w.render.Draw(ctx, ref.Page)
	if in := w.d.raster; err == nil && len(pixels) != in.PageBytes() {
		err = fmt.Errorf("%s: the renderer drew %d bytes of pixels, %d×%d are %d", ref, len(pixels), in.Width, in.Height, in.PageBytes())
	}
	return pixels, geometry, err
}

// reopen opens doc, which is open, with another worker.
func (w *worker) reopen(ctx context.Context, doc Document) error {
	open := w.open
	w.drop()
	pages, err := w.openDoc(ctx, doc)
	if err != nil {
		return err
	}
	w.open = open
	w.open.pages = pages
	return nil
}

func (w *worker) detect(t *detectTask) {
	p := t.page
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.d.ctx, func() { cancel(ErrClosed) })()
	if !p.live() {
		w.d.batches.Withdraw()
		return
	}
	// The file at a path may be another one by now.
	info, statErr := os.Stat(t.doc.Path)
	same := statErr == nil && w.render != nil && w.open.file != nil && w.open.path == t.doc.Path &&
		os.SameFile(info, w.open.file) && info.ModTime().Equal(w.open.file.ModTime()) && info.Size() == w.open.file.Size()
	if !same {
		if statErr == nil {
			t.doc.Size = info.Size()
		}
		if _, err := w.openDoc(ctx, t.doc); err != nil {
			w.d.batches.Withdraw()
			pe, ok := errors.AsType[*PageError](err)
			switch {
			case ctx.Err() != nil:
				p.cancel()
			case ok:
				p.fail(pe.Stage, pe.Category, pe.Message, pe.Err)
			default:
				p.fail(StageRender, CategoryInternal, err.Error(), err)
			}
			return
		}
		w.open.file = info
	}
	if p.ref.Page > w.open.pages {
		w.d.batches.Withdraw()
		p.fail(StageOpen, CategoryNoSuchPage, fmt.Sprintf("there is no page %d: the document has %d", p.ref.Page, w.open.pages), nil)
		return
	}
	w.draw(ctx, p, t.doc)
}

// openForRun opens a document of a run and makes its pages work for everybody.
func (w *worker) openForRun(t *openTask) {
	r := t.run
	if r.stopping() {
		r.documentNotReached(t.doc)
		return
	}
	pages, err := w.openDoc(r.ctx, t.doc)
	if err != nil {
		pe, ok := errors.AsType[*PageError](err)
		switch {
		case r.ctx.Err() != nil:
			r.documentNotReached(t.doc)
		case ok:
			r.documentFailed(t.doc, *pe)
		default:
			r.abort(err) // first: with its last document the run may be over
			r.documentNotReached(t.doc)
		}
		return
	}
	if pages == 0 {
		r.documentFailed(t.doc, PageError{Stage: StageOpen, Category: CategoryNoPages, Message: "the document has no pages"})
		return
	}
	dt := newDrawTask(t, pages)
	w.open.draw = dt
	r.documentOpened(dt)
	w.d.work.addDraw(dt)
	r.documentOffered(dt)
}

// drawRange draws the pages it was given of a run's document.
func (w *worker) drawRange(t task) {
	r, dt := t.draw.run, t.draw
	for page := dt.due(t.from); page < t.to; page = dt.due(page + 1) {
		if r.stopping() {
			r.pagesNotDrawn(dt, dt.missing(page, t.to))
			return
		}
		if w.open.draw != dt {
			if _, err := w.openDoc(r.ctx, dt.doc); err != nil {
				w.reopenFailed(dt, page, t.to, err)
				return
			}
			w.open.draw = dt
		}
		p := r.beginPage(dt, page)
		w.d.batches.Expect(1)
		if next := dt.due(page + 1); next < t.to {
			w.render.Ahead(next)
		}
		w.draw(r.ctx, p, dt.doc)
		r.pageDrawn(dt)
	}
}

// reopenFailed ends the pages of a document that was opened once and will not
// open again.
func (w *worker) reopenFailed(dt *drawTask, from, to int, err error) {
	r := dt.run
	if pe, ok := errors.AsType[*PageError](err); ok && r.ctx.Err() == nil {
		for page := dt.due(from); page < to; page = dt.due(page + 1) {
			r.beginPage(dt, page).fail(pe.Stage, pe.Category, pe.Message, pe.Err)
			r.pageDrawn(dt)
		}
		return
	}
	r.abort(err)
	r.pagesNotDrawn(dt, dt.missing(from, to))
}
