//go:build linux

// Package mupdf draws pages of documents with the MuPDF that go-fitz
// carries. It holds one context with one open document, counts its memory and
// lets nothing of MuPDF's escape: every call is inside a try.
//
// MuPDF without locks is not safe for two documents in one process, so one
// process has one Engine, used by one goroutine at a time ([Engine.Abort] and
// [Engine.Resume] excepted). A crash in C ends the process.
package mupdf

/*
#cgo CFLAGS: -O2 -Wall
#cgo LDFLAGS: -Wl,--wrap=fz_render_glyph -Wl,--wrap=pdf_load_to_unicode
#cgo LDFLAGS: -Wl,--wrap=fz_encode_character_with_fallback
#cgo LDFLAGS: -Wl,--wrap=FT_Get_Name_Index -Wl,--wrap=FT_Done_Face
#cgo LDFLAGS: -Wl,--wrap=opj_decode -Wl,--wrap=fz_load_jpx
#cgo LDFLAGS: -Wl,--wrap=fz_open_predict -Wl,--wrap=inflateInit2_
#cgo LDFLAGS: -Wl,--wrap=fz_subsample_pixblock -Wl,--wrap=fz_subsample_pixmap -Wl,--wrap=fz_get_span_color_painter
#cgo LDFLAGS: -Wl,--wrap=fz_open_faxd -Wl,--wrap=inflate_fast
#cgo LDFLAGS: -Wl,--wrap=fz_find_item -Wl,--wrap=fz_store_item -Wl,--wrap=fz_begin_tile_id -Wl,--wrap=fz_render_stroked_glyph
#cgo LDFLAGS: -Wl,--wrap=pdf_load_font -Wl,--wrap=pdf_dict_get -Wl,--wrap=pdf_lookup_number
#include <stdlib.h>
#include "engine.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	_ "github.com/gen2brain/go-fitz" // links the MuPDF archive
)

// Reason says why a call failed.
type Reason int

// The reasons; the numbers are those of engine.h.
const (
	Malformed Reason = C.ENGINE_MALFORMED // broken beyond repair
	Memory    Reason = C.ENGINE_MEMORY    // over the engine's memory limit
	Aborted   Reason = C.ENGINE_ABORTED   // stopped by Abort
	Encrypted Reason = C.ENGINE_ENCRYPTED // no password fits
	Read      Reason = C.ENGINE_READ      // the descriptor could not be read
	PageSize  Reason = C.ENGINE_PAGE_SIZE // the page has no area to draw
)

// Format is what a document is read as.
type Format int

// The formats; the numbers are those of engine.h.
const (
	PDF   Format = C.ENGINE_PDF
	XPS   Format = C.ENGINE_XPS
	EPUB  Format = C.ENGINE_EPUB
	FB2   Format = C.ENGINE_FB2
	MOBI  Format = C.ENGINE_MOBI
	CBZ   Format = C.ENGINE_CBZ
	Image Format = C.ENGINE_IMAGE
	SVG   Format = C.ENGINE_SVG
	Text  Format = C.ENGINE_TEXT
	HTML  Format = C.ENGINE_HTML
)

// LaidOut tells whether documents of this format have no pages of their own. When
// one of them cannot be laid out, for want of memory or because it was stopped,
// MuPDF 1.24 frees some of it twice (xml_to_boxes, then fz_drop_html), and the
// process is not to be trusted any more.
func (f Format) LaidOut() bool {
	return f == EPUB || f == FB2 || f == MOBI || f == Text || f == HTML
}

// Error is a failed call; Message is MuPDF's own text and may be empty.
type Error struct {
	Reason  Reason
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("mupdf: reason %d: %s", int(e.Reason), e.Message)
}

// Page is a page as displayed; see orchestrator.Geometry for the meaning.
type Page struct {
	WidthPt, HeightPt float64
	Rotation          int
	CropBox           [4]float64
	// Width and Height are the raster that was drawn, in pixels.
	Width, Height int
}

// mostRepairs is after how many repairs on the way a document is opened again.
const mostRepairs = 2

// Engine is one MuPDF context and its open document.
type Engine struct {
	c    *C.engine
	file *os.File
	// tainted says that the open document must not be used for the next page:
	// its caches may lack what a stopped page did not get, or what was put
	// right in its page tree is gone after a repair.
	tainted   bool
	repairs   int // of the open document, on the way
	format    Format
	passwords []string
}

// New makes an engine that allocates at most memory bytes, of which its store
// of decoded images and fonts takes at most store.
func New(memory, store int64) (*Engine, error) {
	c := C.engine_new(C.size_t(memory), C.size_t(store))
	if c == nil {
		return nil, errors.New("MuPDF does not start: too little memory, or not the version that this build expects")
	}
	return &Engine{c: c}, nil
}

// Open makes file, read as format, the open document, in place of any other,
// and returns its page count. Documents without pages of their own are laid out
// on pages of 420×595 points (A5) in letters of 11. The first of passwords that
// fits is used when the document needs one. The engine closes file when the next is opened, whatever the outcome.
// Errors are *Error.
func (e *Engine) Open(file *os.File, format Format, passwords []string) (int, error) {
	e.closeDocument()
	e.file, e.format, e.passwords, e.repairs = file, format, passwords, 0
	return e.open()
}

func (e *Engine) open() (int, error) {
	e.tainted = false
	list := C.malloc(C.size_t(len(e.passwords)+1) * C.size_t(unsafe.Sizeof((*C.char)(nil))))
	defer C.free(list)
	passwords := unsafe.Slice((**C.char)(list), len(e.passwords)+1)
	for i, p := range e.passwords {
		passwords[i] = C.CString(p)
		defer C.free(unsafe.Pointer(passwords[i]))
	}
	var cerr C.engine_error
	n := C.engine_open(e.c, C.int(e.file.Fd()), C.int(e.format), (**C.char)(list), C.int(len(e.passwords)), &cerr)
	if n < 0 {
		return 0, e.fail(&cerr)
	}
	return int(n), nil
}

// Draw draws page number (from 0) into rgb, width×height×3 bytes, white where
// the page has nothing. The page is stretched to fill the raster; with fit it
// keeps its shape and fills the largest raster within, from the first byte of
// rgb on and without gaps between rows; Page tells its size. The geometry is
// valid also with an error where its width is not 0. Errors are *Error.
//
// After a page that was stopped or ran out of memory, or during which MuPDF
// repaired the document, it is opened again before the next one, so that no
// page's pixels depend on what happened to the page before.
func (e *Engine) Draw(number, width, height int, fit bool, rgb []byte) (Page, error) {
	if len(rgb) != width*height*3 {
		return Page{}, &Error{Malformed, "the raster has the wrong size"}
	}
	if e.tainted {
		if err := e.Reopen(); err != nil {
			return Page{}, err
		}
	}
	var cerr C.engine_error
	var cpage C.engine_page
	rc := C.engine_draw(e.c, C.int(number), C.int(width), C.int(height), truth(fit), (*C.uchar)(unsafe.Pointer(unsafe.SliceData(rgb))), &cpage, &cerr)
	page := Page{
		WidthPt:  float64(cpage.width),
		HeightPt: float64(cpage.height),
		Rotation: int(cpage.rotation),
		Width:    int(cpage.px_width),
		Height:   int(cpage.px_height),
	}
	for i := range page.CropBox {
		page.CropBox[i] = float64(cpage.crop[i])
	}
	var err error
	if rc != 0 {
		err = e.fail(&cerr)
	}
	e.tainted = e.tainted || cpage.heavy != 0
	if cpage.repaired != 0 {
		// Opened again it is as before the repair, so that the next page is what
		// it is alone. But where every page leads to a repair, each would cost
		// one of the whole file: such a document is mended and stays repaired.
		e.repairs++
		e.tainted = e.tainted || e.repairs <= mostRepairs || C.engine_mend(e.c) < 0
	}
	return page, err
}

// Stale tells whether the next page is drawn after the document was opened again.
func (e *Engine) Stale() bool { return e.tainted }

// Reopen opens the document again, which can take as long as it took at first.
// Errors are *Error.
func (e *Engine) Reopen() error {
	_, err := e.open()
	e.tainted = e.tainted || err != nil // there is no document now
	return err
}

func (e *Engine) fail(cerr *C.engine_error) error {
	err := &Error{Reason(cerr.code), C.GoString(&cerr.message[0])}
	e.tainted = err.Reason == Memory || err.Reason == Aborted || err.Reason == Read
	return err
}

func truth(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// Abort makes the running call, if any, fail soon with Aborted, and every call
// after it until Resume. Not every page can be stopped: MuPDF looks between
// operators, at allocations and at reads. It may be called from any goroutine.
func (e *Engine) Abort() { C.engine_abort(e.c) }

// Resume ends the effect of Abort. It may be called from any goroutine.
func (e *Engine) Resume() { C.engine_resume(e.c) }

// Messages returns what MuPDF warned of since the last call, and how many
// further messages did not fit.
func (e *Engine) Messages() (lines []string, lost int) {
	var n C.size_t
	var l C.int
	p := C.engine_messages(e.c, &n, &l)
	if n == 0 {
		return nil, int(l)
	}
	text := C.GoStringN(p, C.int(n))
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n"), int(l)
}

// MissedLetters tells whether, since the last call, there was text for which
// neither the document has a font nor MuPDF: it is drawn as nothing, or as other
// letters.
func (e *Engine) MissedLetters() bool { return C.engine_missed_letters(e.c) != 0 }

// Used returns the bytes that MuPDF holds at the moment.
func (e *Engine) Used() int64 { return int64(C.engine_used(e.c)) }

func (e *Engine) closeDocument() {
	C.engine_close(e.c)
	if e.file != nil {
		e.file.Close()
		e.file = nil
	}
}

// Close frees everything. The engine must not be used afterwards.
func (e *Engine) Close() {
	e.closeDocument()
	C.engine_free(e.c)
	e.c = nil
}
