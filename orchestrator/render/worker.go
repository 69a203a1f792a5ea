//go:build linux

package render

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/mupdf"
)

// worker is a process and what it takes to replace it.
type worker struct {
	pool    *Pool
	raster  raster
	process *process // nil after it was lost
	doc     *document
	ahead   int // the page after the one that is drawn next, or 0

	closed bool
}

// raster is what pages are drawn to: exactly width×height pixels, or with fit
// the largest raster of the page's shape within that.
type raster struct {
	width, height int
	fit           bool
}

// document is the open document as the parent knows it.
type document struct {
	path   string
	format format
	file   *os.File
	info   os.FileInfo
	pages  int
	// process is the one that has it open; another one must open it again.
	process *process
	// changed is set for good once the file was seen to change.
	changed bool
}

func (d *document) close() { d.file.Close() }

// mostPages is more than any sane worker says, so that one that is not cannot
// make a run of pages without end. A PDF has no more than count_pages of engine.c
// counts; other formats have no such bound, but MuPDF counts them as a C int.
func (d *document) mostPages() int64 {
	if d.format.reader == mupdf.PDF {
		return min(d.info.Size()+1024, math.MaxInt32)
	}
	return math.MaxInt32
}

// failure returns the error of a page, or with page 0 of the document.
func (d *document) failure(page int, category orchestrator.Category, message string, err error) *orchestrator.PageError {
	stage := orchestrator.StageRender
	if page == 0 {
		stage = orchestrator.StageOpen
	}
	return &orchestrator.PageError{
		Ref:   orchestrator.PageRef{Path: d.path, Page: page},
		Stage: stage, Category: category, Message: message, Err: err,
	}
}

// Open implements [orchestrator.RenderWorker].
func (w *worker) Open(ctx context.Context, doc orchestrator.Document) (int, error) {
	if w.closed {
		return 0, errors.New("render: the worker is closed")
	}
	if w.doc != nil {
		w.doc.close()
		w.doc = nil
	}
	d := &document{path: doc.Path, format: w.pool.format(doc.Path)}
	if doc.Open == nil {
		return 0, d.failure(0, orchestrator.CategoryUnreadable, "the document has no Open", nil)
	}
	file, err := doc.Open()
	if told, ok := errors.AsType[*orchestrator.PageError](err); ok {
		return 0, d.failure(0, told.Category, told.Message, told.Err)
	}
	if orchestrator.TooManyOpenFiles(err) {
		return 0, err // not the document's fault
	}
	if err != nil {
		return 0, d.failure(0, orchestrator.CategoryUnreadable, "the file cannot be opened: "+plain(err), err)
	}
	d.file = file
	if err := w.open(ctx, d); err != nil {
		d.close()
		return 0, err
	}
	w.doc = d
	return d.pages, nil
}

func (w *worker) open(ctx context.Context, d *document) error {
	info, err := d.file.Stat()
	switch {
	case err != nil:
		return d.failure(0, orchestrator.CategoryUnreadable, "the file cannot be read: "+plain(err), err)
	case !info.Mode().IsRegular():
		return d.failure(0, orchestrator.CategoryNotRegular, "not a regular file but "+kind(info.Mode()), nil)
	case info.Size() == 0:
		return d.failure(0, orchestrator.CategoryEmpty, "the file is empty", nil)
	}
	d.info = info
	pages, err := w.load(ctx, d, 0)
	if err != nil {
		return err
	}
	if pages == 0 {
		return d.failure(0, orchestrator.CategoryNoPages, "the document has no pages", nil)
	}
	d.pages = pages
	return nil
}

// load has the process open the document. page is the page that it is for, 0
// for none in particular.
func (w *worker) load(ctx context.Context, d *document, page int) (int, error) {
	w.settle()
	if err := w.ensure(ctx); err != nil {
		return 0, err
	}
	timeout := w.pool.cfg.OpenTimeout
	r, err := w.process.call(ctx, command{Open: &openCommand{Format: d.format.reader, Timeout: timeout}}, d.file, timeout)
	if err != nil {
		return 0, w.lost(ctx, d, page, err, "opening the document", timeout)
	}
	w.pool.cpu.Add(int64(max(0, r.CPU)))
	w.log(ctx, d, page, r)
	if w.changed(d) {
		return 0, d.failure(page, orchestrator.CategoryChanged, changedMessage, nil)
	}
	if r.Reason != 0 {
		return 0, w.refused(ctx, d, page, r, "opening the document", timeout)
	}
	if r.Pages < 0 || int64(r.Pages) > d.mostPages() {
		return 0, w.lost(ctx, d, page, fmt.Errorf("%w: %d pages", errDied, r.Pages), "opening the document", timeout)
	}
	d.process = w.process
	return r.Pages, nil
}

// Ahead implements [orchestrator.RenderWorker].
func (w *worker) Ahead(page int) { w.ahead = page }

// settle ends what the process draws ahead, and the process if it does not stop.
// The page that did that may never be asked for, and the next command is not to
// blame.
func (w *worker) settle() {
	if w.process == nil {
		return
	}
	if err := w.process.settle(); err != nil {
		w.pool.cfg.Logger.Warn("a render process ended drawing a page that was not asked for", "error", err)
		w.process.kill()
		w.process = nil
	}
}

// Draw implements [orchestrator.RenderWorker].
func (w *worker) Draw(ctx context.Context, page int) ([]byte, orchestrator.Geometry, error) {
	d, err := w.draw(ctx, page)
	return d.pixels, d.geometry, err
}

// drawing is a page as it was drawn. Its geometry may be there when the rest is
// not.
type drawing struct {
	pixels        []byte
	width, height int
	geometry      orchestrator.Geometry
}

func (w *worker) draw(ctx context.Context, page int) (drawing, error) {
	d, next := w.doc, w.ahead
	w.ahead = 0
	switch {
	case w.closed:
		return drawing{}, errors.New("render: the worker is closed")
	case d == nil:
		return drawing{}, errors.New("render: no document is open")
	case page < 1 || page > d.pages:
		err := d.failure(page, orchestrator.CategoryNoSuchPage, fmt.Sprintf("no such page; the document ends with page %d", d.pages), nil)
		err.Stage = orchestrator.StageRender // page 0 does not stand for the document here
		return drawing{}, err
	case d.changed:
		return drawing{}, d.failure(page, orchestrator.CategoryChanged, changedMessage, nil)
	}
	if w.process != nil && !w.process.draws(page-1) {
		w.settle()
	}
	// A process that died between two pages is nobody's fault.
	if w.process == nil || d.process != w.process || !w.process.alive() && !w.process.draws(page-1) {
		pages, err := w.load(ctx, d, page)
		if err != nil {
			return drawing{}, err
		}
		if pages != d.pages {
			return drawing{}, d.failure(page, orchestrator.CategoryChanged, changedMessage, nil)
		}
	}
	what, timeout := "drawing the page", w.pool.cfg.PageTimeout
	w.pool.pages.Add(1)
	again := w.process.stale && !w.process.draws(page-1)
	r, pixels, err := w.process.draw(ctx, page-1, timeout, w.pool.cfg.OpenTimeout)
	if err == nil {
		err = r.Page.check(r.Reason == 0, w.raster)
	}
	if err != nil {
		if again {
			what, timeout = "opening the document again and "+what, timeout+w.pool.cfg.OpenTimeout
		}
		return drawing{}, w.lost(ctx, d, page, err, what, timeout)
	}
	if next >= 1 && next <= d.pages && w.process.alive() {
		w.process.drawAhead(next-1, timeout, w.pool.cfg.OpenTimeout)
	}
	w.pool.cpu.Add(int64(max(0, r.CPU)))
	var geometry orchestrator.Geometry
	if r.Page != nil {
		geometry = orchestrator.Geometry{WidthPt: r.Page.WidthPt, HeightPt: r.Page.HeightPt, Rotation: r.Page.Rotation, CropBox: r.Page.CropBox}
	}
	w.log(ctx, d, page, r)
	if w.changed(d) {
		return drawing{}, d.failure(page, orchestrator.CategoryChanged, changedMessage, nil)
	}
	if r.Again {
		what, timeout = "opening the document again", w.pool.cfg.OpenTimeout
	}
	if r.Reason != 0 {
		return drawing{geometry: geometry}, w.refused(ctx, d, page, r, what, timeout)
	}
	width, height := r.Page.Width, r.Page.Height
	return drawing{pixels[:width*height*3], width, height, geometry}, nil
}

// check refuses what no sane worker says.
func (p *drawnPage) check(drawn bool, most raster) error {
	if p == nil {
		if drawn {
			return fmt.Errorf("%w: no geometry", errDied)
		}
		return nil
	}
	ok := p.Rotation == 0 || p.Rotation == 90 || p.Rotation == 180 || p.Rotation == 270
	ok = ok && p.WidthPt >= 0 && p.HeightPt >= 0
	if drawn {
		ok = ok && p.WidthPt > 0 && p.HeightPt > 0
		if most.fit {
			ok = ok && p.Width >= 1 && p.Width <= most.width && p.Height >= 1 && p.Height <= most.height
		} else {
			ok = ok && p.Width == most.width && p.Height == most.height
		}
	}
	if !ok {
		return fmt.Errorf("%w: geometry %+v", errDied, *p)
	}
	return nil
}

// Close implements [orchestrator.RenderWorker].
func (w *worker) Close() error {
	w.closed = true
	if w.doc != nil {
		w.doc.close()
		w.doc = nil
	}
	if w.process != nil {
		w.process.close()
		w.process = nil
	}
	return nil
}

// ensure starts a process where there is none that lives.
func (w *worker) ensure(ctx context.Context) error {
	if w.process != nil && w.process.alive() {
		return nil
	}
	if w.process != nil {
		w.process.kill()
		w.process = nil
	}
	p, err := w.pool.start(ctx, w.raster)
	if err != nil {
		return err
	}
	w.process = p
	return nil
}

// lost gives up the process after a call that failed, and tells why the page
// (0: the document) did.
func (w *worker) lost(ctx context.Context, d *document, page int, err error, what string, timeout time.Duration) error {
	p := w.process
	if ctx.Err() != nil && !errors.Is(err, errStuck) && !errors.Is(err, errDied) {
		return err // ctx's own: the call was not made
	}
	w.process = nil
	_ = p.guarded.Kill() // one that makes no sense still lives
	end := p.end()
	said := p.stderr
	p.kill()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errStuck) {
		w.pool.kills.Add(1)
		return d.failure(page, orchestrator.CategoryTimeout, fmt.Sprintf("%s took longer than %v and could not be stopped; its process was ended", what, timeout), err)
	}
	w.pool.crashes.Add(1)
	w.pool.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "a render process crashed",
		slog.String("path", d.path), slog.Int("page", page), slog.String("end", end), slog.Any("error", err), slog.String("stderr", said.said()))
	if w.changed(d) {
		return d.failure(page, orchestrator.CategoryChanged, changedMessage, err)
	}
	return d.failure(page, orchestrator.CategoryCrash, fmt.Sprintf("%s crashed its process (%s)", what, end), err)
}

const changedMessage = "the file changed while it was being read"

// changed tells whether the file is another one than when it was opened. A
// file that another one was renamed over is still the old one.
func (w *worker) changed(d *document) bool {
	if d.changed {
		return true
	}
	info, err := d.file.Stat()
	d.changed = err != nil || info.Size() != d.info.Size() || !info.ModTime().Equal(d.info.ModTime())
	return d.changed
}

// refused turns a worker's reason into the page's error.
func (w *worker) refused(ctx context.Context, d *document, page int, r reply, what string, timeout time.Duration) error {
	r.Message = oneLine(r.Message)
	var cause error
	if r.Message != "" {
		cause = errors.New("MuPDF: " + r.Message)
	}
	switch r.Reason {
	case mupdf.Aborted:
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return d.failure(page, orchestrator.CategoryTimeout, fmt.Sprintf("%s took longer than %v", what, timeout), nil)
	case mupdf.Memory:
		return d.failure(page, orchestrator.CategoryMemory, fmt.Sprintf("%s takes more than the %d MB of memory allowed", what, w.pool.cfg.MemoryLimit>>20), cause)
	case mupdf.Encrypted:
		if r.Message != "" {
			return d.failure(page, orchestrator.CategoryEncrypted, "encrypted in a way that MuPDF cannot open ("+r.Message+")", cause)
		}
		if len(w.pool.cfg.Passwords) > 0 {
			return d.failure(page, orchestrator.CategoryEncrypted, "encrypted, and none of the passwords given opens it", nil)
		}
		return d.failure(page, orchestrator.CategoryEncrypted, "encrypted; it needs a password", nil)
	case mupdf.Read:
		return d.failure(page, orchestrator.CategoryUnreadable, "the file cannot be read: "+r.Message, cause)
	case mupdf.PageSize:
		return d.failure(page, orchestrator.CategoryPageSize, "the page has a size that cannot be drawn", nil)
	}
	if page == 0 && d.format.reader != mupdf.PDF {
		return d.failure(0, orchestrator.CategoryMalformed, fmt.Sprintf("not %s that can be read (%s)", d.format.name, r.Message), cause)
	}
	if page == 0 {
		if !looksLikePDF(d.file) {
			return d.failure(0, orchestrator.CategoryNotPDF, "not a PDF", cause)
		}
		return d.failure(0, orchestrator.CategoryMalformed, "damaged beyond repair ("+r.Message+")", cause)
	}
	return d.failure(page, orchestrator.CategoryMalformed, "the page is damaged ("+r.Message+")", cause)
}

func (w *worker) log(ctx context.Context, d *document, page int, r reply) {
	logger := w.pool.cfg.Logger
	// Pictures for people are drawn of pages that were drawn before.
	if r.MissedLetters && !w.raster.fit && w.pool.missed.first(d.path) {
		logger.LogAttrs(ctx, slog.LevelWarn, "some text is drawn as nothing or as other letters: its font is not in the file, and quire has none for its script", slog.String("path", d.path))
	}
	for _, line := range r.Log {
		logger.LogAttrs(ctx, logLevel, "MuPDF: "+oneLine(line), slog.String("path", d.path), slog.Int("page", page))
	}
	if r.Lost > 0 {
		logger.LogAttrs(ctx, logLevel, fmt.Sprintf("MuPDF: %d more messages", r.Lost), slog.String("path", d.path), slog.Int("page", page))
	}
}

// looksLikePDF tells whether the file's head has the mark of a PDF, which
// readers accept anywhere in the first kilobyte (PDF 32000-1, annex H).
func looksLikePDF(file *os.File) bool {
	head := make([]byte, 1<<10)
	n, _ := file.ReadAt(head, 0)
	return bytes.Contains(head[:n], []byte("%PDF-"))
}

// oneLine makes text that may hold pieces of a file fit to be shown.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}

func kind(mode os.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&os.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&os.ModeSocket != 0:
		return "a socket"
	case mode&os.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// plain is an error without the path, which results name already.
func plain(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
