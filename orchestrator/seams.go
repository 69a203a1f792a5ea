package orchestrator

import (
	"context"
	"fmt"
	"iter"
	"math/bits"
	"time"

	"quire/orchestrator/internal/slab"
)

// Source yields the documents of a run in a stable order. It is read by one
// goroutine and never further ahead than the renderers are. One that waits for a
// document ends when ctx does; a soft stop does not end ctx before
// Config.SoftStop is over, and what is yielded after a stop is dropped.
type Source interface {
	Documents(ctx context.Context) iter.Seq[Document]
}

// Renderer draws pages. Each worker it makes is used by one goroutine at a
// time and draws one page at a time; parallel drawing takes several workers.
type Renderer interface {
	// NewWorker returns a worker that draws pages width×height pixels.
	NewWorker(ctx context.Context, width, height int) (RenderWorker, error)
}

// RenderWorker is one renderer's state: at most one open document, and staging
// slots for the page that was drawn last and the next one. A worker survives the failure of a document or a page; what it
// needs to restart for that, it does by itself.
type RenderWorker interface {
	// Open makes doc the open document, in place of any other, and returns its
	// page count. A document that will not open is a *PageError with Page 0.
	Open(ctx context.Context, doc Document) (pages int, err error)
	// Draw draws one page (1-based) of the open document. A page that cannot
	// be drawn is a *PageError; any other error means the worker is of no use.
	// Pixels are width×height×3 bytes of RGB, top row first, valid until the
	// next call of Draw, Open or Close.
	Draw(ctx context.Context, page int) (pixels []byte, geometry Geometry, err error)
	// Ahead says, before Draw draws a page, which one will be drawn after it, so
	// that the worker can go on while the caller has the first one's pixels. It
	// is a hint: what is asked for in the end may be something else.
	Ahead(page int)
	// Close ends the worker. It is idempotent.
	Close() error
}

// Slab is a batch-sized buffer: Pages images one after another, as the model's
// input tensor wants them.
type Slab = slab.Slab

// Input is what a model wants to be fed, read from the served config.
type Input struct {
	// Width and Height are a page's raster in pixels; a page is
	// Width×Height×3 bytes of RGB.
	Width, Height int
	// MaxBatch is the most pages the server takes in one request, at least 1.
	MaxBatch int
	// Batch, MaxAge and InFlight are the defaults the served config asks for;
	// zero where it says nothing. A negative MaxAge is not to wait at all.
	Batch    int
	MaxAge   time.Duration
	InFlight int
	// Instances is how many copies of the model the server runs at once, at
	// least 1.
	Instances int
	// SharedMemory tells whether slabs should be named shared memory.
	SharedMemory bool
}

// PageBytes is the size of one page's pixels.
func (in Input) PageBytes() int { return in.Width * in.Height * 3 }

// Frame is the coordinate system that a page's regions are wanted in: the
// raster's full width and height stand for this many points or pixels.
type Frame struct{ Width, Height float64 }

// Verdict is a model's answer for one page: regions, or the page's own error
// (category and message; the engine fills in which page it was).
type Verdict struct {
	Regions []Region
	Err     *PageError
}

// Model gives regions for batches of pages. Its methods may be called from any
// goroutine.
type Model interface {
	// Info names the model.
	Info() ModelInfo
	// Input is what it wants now; it changes only inside Refresh.
	Input() Input
	// Infer runs pages [first, first+len(frames)) of the slab and returns one
	// verdict a page, in order. When the call as a whole fails it returns a
	// *ModelError that says what to do about it, or ctx's error. The slab may
	// be used again once Infer has returned.
	Infer(ctx context.Context, s *Slab, first int, frames []Frame) ([]Verdict, error)
	// WaitReady returns when the model answers again: when it has answered a
	// blank page, since a server may say that it is ready and fail everything.
	// It fails with ctx's error, or with a *ModelError when waiting is no use.
	WaitReady(ctx context.Context) error
	// Refresh reads the served config again. It fails with a *ModelError whose
	// Action is ActionStop when pages that are already drawn no longer fit.
	Refresh(ctx context.Context) error
	// Release tells the model that the slab is about to be unmapped.
	Release(s *Slab)
}

// Action is what to do about a failed Infer.
type Action int

// The actions, mildest first.
const (
	// ActionShrink: the server's queue is full; fewer batches in flight, wait
	// a little, again. Costs no attempt.
	ActionShrink Action = iota + 1
	// ActionWait: the server is away; WaitReady, then again. Costs no attempt.
	ActionWait
	// ActionRefresh: the model was reloaded; Refresh, then again.
	ActionRefresh
	// ActionRetry: again, and it costs an attempt.
	ActionRetry
	// ActionBisect: something in the batch; find out which page.
	ActionBisect
	// ActionStop: nothing will help; end the run.
	ActionStop
)

func (a Action) String() string {
	switch a {
	case ActionShrink:
		return "shrink"
	case ActionWait:
		return "wait"
	case ActionRefresh:
		return "refresh"
	case ActionRetry:
		return "retry"
	case ActionBisect:
		return "bisect"
	case ActionStop:
		return "stop"
	}
	return fmt.Sprintf("action %d", int(a))
}

// ModelError is a failed call to the model, and what to do about it.
type ModelError struct {
	Action Action
	// Lost is set beside ActionWait when the server died with the request in
	// flight: one of its pages may be why.
	Lost bool
	// Message is one line for people.
	Message string
	Err     error
}

func (e *ModelError) Error() string { return e.Message }
func (e *ModelError) Unwrap() error { return e.Err }

// Sink takes results, and knows those of earlier runs. The engine calls it from
// one goroutine, so that a document's calls are Begin, Opened, Page for each
// page in any order, End. A document whose pages cannot be counted gets neither
// Opened nor Page; one that is cancelled may get its End at any time.
//
// A sink that has to wait, as for space on a disk, waits no longer than ctx
// lives; what needs no waiting it does also after that.
type Sink interface {
	// Begin starts a document, before anything of it is read, and tells what
	// earlier runs have done of it.
	Begin(ctx context.Context, doc Document) (Past, error)
	// Opened tells how many pages the document has. If that is not the number
	// in what Begin told, the past does not count: all pages will come.
	Opened(ctx context.Context, doc Document, pageCount int) error
	// Page takes the result of a page that was not done before.
	Page(ctx context.Context, result PageResult) error
	// End ends a document. Unless it fails, it sees to it that stands is called
	// once, before or after it returns and from any goroutine: with nil when
	// the document's result is there to stay, or none is due; else with the
	// reason. The run goes on meanwhile, and does not end before. What is told
	// first counts.
	End(ctx context.Context, result DocumentResult, stands func(error)) error
}

// Past is what earlier runs have done of a document. Its zero value is nothing.
type Past struct {
	// Result is how the document ended when its result stands and nothing is
	// left to do: it is then skipped. Nil otherwise.
	Result *DocumentResult
	// PageCount is how many pages the document had when it was opened before,
	// and Pages which of them have ended, Done and Failed in number. The sink
	// has their results.
	PageCount    int
	Pages        PageSet
	Done, Failed int
	// SetAside is why the document is not to be touched any more: the pages
	// that have not ended fail with it, unseen. Nil otherwise.
	SetAside *PageError
	// Redone is why the document is done again though it was done before.
	Redone Redone
}

// fault is an error if the past contradicts itself: with such counts a document
// would never end.
func (p Past) fault(doc Document) error {
	if p.Result != nil || p.PageCount == 0 {
		return nil
	}
	if n := p.Pages.Len(); p.Done < 0 || p.Failed < 0 || p.Done+p.Failed != n || p.Pages.between(1, p.PageCount+1) != n {
		return fmt.Errorf("%s: the sink says that %d pages are done and %d failed before, and names %d of %d",
			doc.Path, p.Done, p.Failed, p.Pages.between(1, p.PageCount+1), p.PageCount)
	}
	return nil
}

// Redone is a stable word for why something is done again; the words only ever
// grow.
type Redone string

// The reasons for doing a document again.
const (
	RedoneInput    Redone = "input"    // the file has changed
	RedoneModel    Redone = "model"    // another model, or version of it, answers
	RedoneOptions  Redone = "options"  // an option that changes answers has changed
	RedoneMissing  Redone = "missing"  // the result is not there any more
	RedoneFailed   Redone = "failed"   // it failed, and was asked for again
	RedonePassword Redone = "password" // it was encrypted, and there are passwords to try
	RedoneFresh    Redone = "fresh"    // everything was asked for again
)

// reasons are all of them.
var reasons = [...]Redone{RedoneInput, RedoneModel, RedoneOptions, RedoneMissing, RedoneFailed, RedonePassword, RedoneFresh}

// PageSet is a set of page numbers, 1-based. The zero value is empty. It takes
// a bit for each page up to the largest.
type PageSet struct {
	bits []uint64
	size int
}

// Add puts a page into the set.
func (s *PageSet) Add(page int) {
	word := (page - 1) / 64
	if word >= len(s.bits) {
		s.bits = append(s.bits, make([]uint64, word+1-len(s.bits))...)
	}
	if !s.Has(page) {
		s.bits[word] |= 1 << ((page - 1) % 64)
		s.size++
	}
}

// Has tells whether a page is in the set.
func (s *PageSet) Has(page int) bool {
	word := (page - 1) / 64
	return word < len(s.bits) && s.bits[word]>>((page-1)%64)&1 == 1
}

// Len is how many pages the set has.
func (s *PageSet) Len() int { return s.size }

// between is how many pages of [from, to) are in the set.
func (s *PageSet) between(from, to int) int {
	n := 0
	for first := from - 1; first < min(to-1, 64*len(s.bits)); first = first/64*64 + 64 {
		word := s.bits[first/64] >> (first % 64)
		if left := to - 1 - first; left < 64 {
			word &= 1<<left - 1
		}
		n += bits.OnesCount64(word)
	}
	return n
}
