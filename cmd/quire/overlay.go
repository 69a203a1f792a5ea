package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"quire/orchestrator"
	"quire/orchestrator/render"
	"quire/orchestrator/report"
	"quire/orchestrator/sink"
)

// pictureSide is how many pixels the longer side of a page has in its picture:
// about 120 to the inch of an A4 page, which small print can be read in.
const pictureSide = 1400

// overlay is a sink that has a picture drawn of every page of each document
// that ended. Documents wait for a free hand, so that memory stays bounded.
type overlay struct {
	orchestrator.Sink
	ctx      context.Context // of the run
	end      context.CancelCauseFunc
	stop     <-chan struct{}
	writing  context.Context // ends at any stop: what waits for space on the disk does not
	unwatch  func()
	pool     *render.Pool
	pictures *sink.Pictures
	log      *slog.Logger

	begun map[string]orchestrator.Document // by path
	work  chan orchestrator.Document
	hands sync.WaitGroup
	left  atomic.Bool // a stop came before all was drawn
}

// newOverlay puts pictures into tree, drawn by n workers of their own. When
// ctx, the run's, ends or stop is closed, no further page is drawn; a picture
// that cannot be written ends ctx.
func newOverlay(ctx context.Context, end context.CancelCauseFunc, stop <-chan struct{}, tree *sink.Tree, pool *render.Pool, n int, log *slog.Logger) *overlay {
	o := &overlay{
		Sink: tree, ctx: ctx, end: end, stop: stop, pool: pool, pictures: tree.Pictures(), log: log,
		begun: make(map[string]orchestrator.Document), work: make(chan orchestrator.Document),
	}
	writing, unwatch := untilStopped(ctx, stop)
	o.writing, o.unwatch = writing, func() { unwatch(nil) }
	for range n {
		o.hands.Go(o.draw)
	}
	return o
}

func (o *overlay) Begin(ctx context.Context, doc orchestrator.Document) (orchestrator.Past, error) {
	o.begun[doc.Path] = doc
	return o.Sink.Begin(ctx, doc)
}

func (o *overlay) End(ctx context.Context, result orchestrator.DocumentResult, stands func(error)) error {
	doc := o.begun[result.Path]
	delete(o.begun, result.Path)
	return o.Sink.End(ctx, result, func(err error) {
		if err == nil {
			if err := o.hand(doc, result); err != nil {
				o.end(err) // the result stands all the same
			}
		}
		stands(err)
	})
}

// hand has the pictures of a document drawn whose result stands.
func (o *overlay) hand(doc orchestrator.Document, result orchestrator.DocumentResult) error {
	switch result.Status {
	case orchestrator.StatusCancelled:
		return nil // no result was written
	case orchestrator.StatusSkipped:
		if o.pictures.Drawn(result.Path, result.PageCount) {
			return nil
		}
	}
	if result.PageCount < 1 {
		return o.pictures.Trim(result.Path, 0)
	}
	select {
	case o.work <- doc:
		return nil
	case <-o.stop:
		o.left.Store(true)
		return nil
	case <-o.ctx.Done():
		o.left.Store(true)
		return context.Cause(o.ctx)
	}
}

// finish waits until the last picture is drawn. It is called once, after the
// last End. The run may have ended before and know nothing of a stop since.
func (o *overlay) finish() error {
	close(o.work)
	o.hands.Wait()
	o.unwatch()
	if err := context.Cause(o.ctx); err != nil && !errors.Is(err, orchestrator.ErrInterrupted) {
		return err
	}
	if o.left.Load() {
		return orchestrator.ErrInterrupted
	}
	return nil
}

// draw is one worker's work. A picture that cannot be written ends the run.
func (o *overlay) draw() {
	var drawer *render.Pictures
	defer func() {
		if drawer != nil {
			drawer.Close()
		}
	}()
	for doc := range o.work {
		if o.stopped() {
			o.left.Store(true)
			continue
		}
		var err error
		if drawer == nil {
			drawer, err = o.pool.NewPictures(o.ctx, pictureSide, pictureSide)
		}
		if err == nil {
			err = o.document(drawer, doc)
		}
		if err != nil {
			o.left.Store(true)
			o.end(err)
		}
	}
}

func (o *overlay) stopped() bool {
	select {
	case <-o.stop:
		return true
	default:
		return o.ctx.Err() != nil
	}
}

// document draws what the document's result says. One that cannot be opened again
// now has no pictures, and so they are drawn by the next run.
func (o *overlay) document(drawer *render.Pictures, doc orchestrator.Document) error {
	result, err := o.pictures.Result(doc.Path)
	if err != nil {
		return err
	}
	cannotOpen, err := pageError(twice(func() error {
		if !slices.ContainsFunc(result.Pages, done) {
			return nil // there is nothing to draw
		}
		_, err := drawer.Open(o.ctx, doc)
		return err
	}))
	if err != nil {
		return err
	}
	if cannotOpen != nil {
		o.log.Warn("a document has no pictures: it cannot be opened again", "document", doc.Path, "reason", cannotOpen.Message)
		return nil
	}
	for _, p := range result.Pages {
		if o.stopped() {
			o.left.Store(true)
			return nil
		}
		page := pictureOf(result, p)
		if done(p) {
			cannotDraw, err := pageError(twice(func() error {
				image, _, err := drawer.Draw(o.ctx, p.PageNo)
				if err == nil {
					page.Image = image
				}
				return err
			}))
			if err != nil {
				return err
			}
			if cannotDraw != nil {
				page.Note = "The page cannot be drawn again: " + cannotDraw.Message
			}
		}
		picture := report.Picture(page)
		err := o.pictures.Write(o.writing, doc.Path, p.PageNo, func(w io.Writer) error { return report.WritePNG(w, picture) })
		if err != nil && o.stopped() { // it may have waited for space
			o.left.Store(true)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return o.pictures.Trim(doc.Path, len(result.Pages))
}

func done(p sink.Page) bool { return p.Status == orchestrator.StatusDone }

// twice does once more what a worker has died of: that may have meant the process.
func twice(do func() error) error {
	err := do()
	if p, ok := errors.AsType[*orchestrator.PageError](err); ok && p.Category == orchestrator.CategoryCrash {
		return do()
	}
	return err
}

// pageError takes a page's own failure apart from one that leaves nothing to go
// on with.
func pageError(err error) (*orchestrator.PageError, error) {
	if p, ok := errors.AsType[*orchestrator.PageError](err); ok {
		return p, nil
	}
	return nil, err
}

// pictureOf is a page of a result, but for its image.
func pictureOf(d *sink.Document, p sink.Page) report.Page {
	page := report.Page{
		Title: fmt.Sprintf("%s, page %d of %d", d.Source.Path, p.PageNo, len(d.Pages)),
		About: fmt.Sprintf("model %s, version %s", d.Model.Name, d.Model.Version),
		Note:  fmt.Sprintf("This page is %s.", p.Status),
	}
	if p.Error != nil {
		page.Note = fmt.Sprintf("This page failed (%s, %s): %s", p.Error.Stage, p.Error.Category, p.Error.Message)
	}
	if p.Geometry != nil {
		page.Width, page.Height = p.Geometry.WidthPt, p.Geometry.HeightPt
	}
	for _, r := range p.Regions {
		page.Regions = append(page.Regions, orchestrator.Region(r))
	}
	return page
}
