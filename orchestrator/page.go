package orchestrator

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Document is one input of a run. Its identity is Path; nothing of it is read
// until Open is called, so that a million of them can be listed for free.
type Document struct {
	// Path is relative to the input root, with slashes; results are filed
	// under it and it never leaves the run.
	Path string
	// Size is the file's size in bytes, and ModTime when it was last changed,
	// when it was listed; zero for what has no size.
	Size    int64
	ModTime time.Time
	// Sum is a digest of the content where the source was asked for one, else
	// empty.
	Sum string
	// Open gives the document's bytes: an open regular file, owned by the
	// caller. An input that was listed but cannot be read says so here. It is
	// called once for each worker that draws some of the document and again
	// where one is replaced, also from several goroutines at once.
	Open func() (*os.File, error)
	// Err is set where nothing can be told of the input and that is not its
	// fault: a run ends there with it, and asks no sink.
	Err error
}

// PageRef names one page: a document and a page number, 1-based.
type PageRef struct {
	Path string
	Page int
}

func (r PageRef) String() string { return fmt.Sprintf("%s page %d", r.Path, r.Page) }

// Geometry is a page as a PDF viewer shows it. Lengths are points, 1/72 inch
// after UserUnit (PDF 32000-1, 14.11.2 and 8.3.2.3).
type Geometry struct {
	// WidthPt and HeightPt are the displayed page: CropBox after Rotate.
	WidthPt, HeightPt float64
	// Rotation is the page's /Rotate, one of 0, 90, 180, 270, clockwise.
	Rotation int
	// CropBox is x0,y0,x1,y1 in the page's own user space, before UserUnit and
	// Rotate, already cut to the MediaBox.
	CropBox [4]float64
}

// Region is one thing found on a page.
type Region struct {
	// ID counts from 0 within the page, best score first.
	ID int
	// Label is docling's word for the class, LabelRaw the model's own.
	Label, LabelRaw string
	// ClassID is the model's class index.
	ClassID int
	// Score is in [0,1].
	Score float64
	// BBox is x0,y0,x1,y1 with the origin at the top left; points of the
	// displayed page for PDF pages, pixels for images.
	BBox [4]float64
	// Order is the region's place in reading order, from 0.
	Order int
}

// Status is how a page or a document ended.
type Status string

// Every page ends in exactly one of done, failed, skipped and cancelled; a
// document in done, partial (some pages failed), failed, skipped or cancelled.
const (
	StatusDone      Status = "done"
	StatusPartial   Status = "partial"
	StatusFailed    Status = "failed"
	StatusSkipped   Status = "skipped"
	StatusCancelled Status = "cancelled"
)

// Stage is the part of a page's path that failed.
type Stage string

// The stages in the order a page meets them.
const (
	StageOpen   Stage = "open"
	StageRender Stage = "render"
	StageInfer  Stage = "infer"
	StageWrite  Stage = "write"
)

// Category is a stable word for why something failed; it only ever grows.
type Category string

// The categories. Messages are for people and may change; these may not.
const (
	CategoryUnreadable  Category = "unreadable"   // the file cannot be opened or read
	CategoryNotRegular  Category = "not_regular"  // FIFO, device, directory, socket
	CategoryNotPDF      Category = "not_pdf"      // no document that MuPDF knows
	CategoryEmpty       Category = "empty"        // zero bytes
	CategoryMalformed   Category = "malformed"    // broken beyond repair
	CategoryEncrypted   Category = "encrypted"    // needs a password that was not given
	CategoryNoPages     Category = "no_pages"     // opens, has no page
	CategoryPageSize    Category = "page_size"    // a page with no usable area, an image too large to scale
	CategoryTimeout     Category = "timeout"      // stopped at its deadline
	CategoryMemory      Category = "memory"       // over the worker's memory limit
	CategoryCrash       Category = "crash"        // the worker died on it, or at stage infer the server
	CategoryChanged     Category = "changed"      // the file changed while being read
	CategoryServer      Category = "server"       // the server failed this very page
	CategoryBadOutput   Category = "bad_output"   // the server's answer is not usable
	CategoryNoSuchPage  Category = "no_such_page" // page number beyond the document
	CategoryUnavailable Category = "unavailable"  // no server within the wait allowed
	CategoryCrashLoop   Category = "crash_loop"   // in work at several crashes of the whole program
	CategoryInternal    Category = "internal"     // a fault of quire's own
)

// PageError says why a page, or with Page 0 a whole document, failed.
type PageError struct {
	Ref      PageRef
	Stage    Stage
	Category Category
	// Message is one line for people, without the path.
	Message string
	// Err is the cause, for the log; may be nil.
	Err error
}

func (e *PageError) Error() string {
	if e.Ref.Page == 0 {
		return fmt.Sprintf("%s: %s: %s", e.Ref.Path, e.Stage, e.Message)
	}
	return fmt.Sprintf("%s: %s: %s", e.Ref, e.Stage, e.Message)
}

func (e *PageError) Unwrap() error { return e.Err }

// TooManyOpenFiles tells an error that is about this process or its machine, and
// not about a file.
func TooManyOpenFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// PageResult is how one page ended.
type PageResult struct {
	Ref    PageRef
	Status Status
	// Err is set when Status is failed; its Ref is this page.
	Err *PageError
	// Geometry is zero when the page could not be loaded.
	Geometry Geometry
	// ImageWidth and ImageHeight are the raster the model saw, in pixels; zero when
	// the page was not drawn.
	ImageWidth, ImageHeight int
	// Regions are best score first; empty, not nil, for a blank page.
	Regions []Region
}

// DocumentResult is how one document ended; its pages went before it.
type DocumentResult struct {
	Path   string
	Size   int64
	Status Status
	// Err is set when the document as a whole failed.
	Err *PageError
	// PageCount is -1 when the document would not open.
	PageCount int
	// Done, Failed, Skipped and Cancelled count its pages and add up to
	// PageCount (to 0 when that is -1).
	Done, Failed, Skipped, Cancelled int
	// Resumed is how many of the pages that are done or failed come from an
	// earlier run, or were set aside for what happened in one.
	Resumed int
	// Redone is why it was done again though it was done before; empty when
	// it was not.
	Redone Redone
	// Before is how a document that is skipped ended when it was done.
	Before *DocumentResult
}

// ended is how many of its pages have ended.
func (r DocumentResult) ended() int { return r.Done + r.Failed + r.Skipped + r.Cancelled }

// ModelInfo names the model that gave the answers.
type ModelInfo struct {
	Name, Version string
	// Digest is of the model's content, empty where that is not known.
	Digest string
}
