package orchestrator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The fakes stand for the seams only; that the real parts work together is
// tested against the real server elsewhere.

// fakeRenderer draws pages whose pixels spell "document hash, page".
type fakeRenderer struct {
	mu    sync.Mutex
	pages map[string]int                                         // by path; missing: will not open
	draw  func(ctx context.Context, path string, page int) error // nil: instant
	open  func(path string) error                                // nil: as pages says
	opens int                                                    // documents opened
	live  int                                                    // workers not closed
	start func() error                                           // nil: always
	drawn map[PageRef]int
}

type fakeWorker struct {
	r      *fakeRenderer
	path   string
	pixels []byte
	closed bool
}

func (r *fakeRenderer) NewWorker(_ context.Context, w, h int) (RenderWorker, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.start != nil {
		if err := r.start(); err != nil {
			return nil, err
		}
	}
	r.live++
	return &fakeWorker{r: r, pixels: make([]byte, w*h*3)}, nil
}

func (w *fakeWorker) Open(_ context.Context, doc Document) (int, error) {
	if w.r.open != nil {
		if err := w.r.open(doc.Path); err != nil {
			return 0, err
		}
	}
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.r.opens++
	w.path = doc.Path
	// Detect gives the path of a real file, whose base name stands for it.
	n, ok := w.r.pages[filepath.Base(doc.Path)]
	if !ok {
		return 0, &PageError{Ref: PageRef{Path: doc.Path}, Stage: StageOpen, Category: CategoryMalformed, Message: "broken"}
	}
	return n, nil
}

func (w *fakeWorker) Draw(ctx context.Context, page int) ([]byte, Geometry, error) {
	if w.r.draw != nil {
		if err := w.r.draw(ctx, w.path, page); err != nil {
			return nil, Geometry{}, err
		}
	}
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if w.r.drawn == nil {
		w.r.drawn = map[PageRef]int{}
	}
	w.r.drawn[PageRef{w.path, page}]++
	binary.LittleEndian.PutUint32(w.pixels, hash(filepath.Base(w.path)))
	binary.LittleEndian.PutUint32(w.pixels[4:], uint32(page))
	return w.pixels, Geometry{WidthPt: 100, HeightPt: 200}, nil
}

func (w *fakeWorker) Ahead(int) {}

func (w *fakeWorker) Close() error {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if !w.closed {
		w.closed = true
		w.r.live--
	}
	return nil
}

func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// fakeModel answers with one region whose class is the page number and whose
// score spells nothing; ask may fail a request.
type fakeModel struct {
	mu       sync.Mutex
	in       Input
	ask      func(ctx context.Context, pages []seenPage) error // nil: instant
	ready    func(ctx context.Context) error
	refresh  func(in *Input) error
	release  func(*Slab)
	requests [][]seenPage
	running  int
	worst    int
}

type seenPage struct {
	doc  uint32
	page int
}

func newFakeModel() *fakeModel {
	return &fakeModel{in: Input{Width: 4, Height: 2, MaxBatch: 8, Instances: 1}}
}

func (m *fakeModel) Info() ModelInfo { return ModelInfo{Name: "fake", Version: "1"} }
func (m *fakeModel) Input() Input    { m.mu.Lock(); defer m.mu.Unlock(); return m.in }

func (m *fakeModel) WaitReady(ctx context.Context) error {
	if m.ready != nil {
		return m.ready(ctx)
	}
	return nil
}

func (m *fakeModel) Refresh(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refresh != nil {
		return m.refresh(&m.in)
	}
	return nil
}

func (m *fakeModel) Release(s *Slab) {
	m.mu.Lock()
	release := m.release
	m.mu.Unlock()
	if release != nil {
		release(s)
	}
}

func (m *fakeModel) Infer(ctx context.Context, s *Slab, first int, frames []Frame) ([]Verdict, error) {
	var pages []seenPage
	for i := range frames {
		b := s.Page(first + i)
		pages = append(pages, seenPage{binary.LittleEndian.Uint32(b), int(binary.LittleEndian.Uint32(b[4:]))})
	}
	m.mu.Lock()
	m.requests = append(m.requests, pages)
	m.running++
	m.worst = max(m.worst, m.running)
	ask := m.ask
	m.mu.Unlock()
	defer func() { m.mu.Lock(); m.running--; m.mu.Unlock() }()
	if ask != nil {
		if err := ask(ctx, pages); err != nil {
			return nil, err
		}
	}
	verdicts := make([]Verdict, len(frames))
	for i, p := range pages {
		verdicts[i].Regions = []Region{{ClassID: p.page, Label: fmt.Sprint(p.doc), BBox: [4]float64{0, 0, frames[i].Width, frames[i].Height}}}
	}
	return verdicts, nil
}

// sizes are the batch sizes of the requests so far.
func (m *fakeModel) sizes() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	var s []int
	for _, r := range m.requests {
		s = append(s, len(r))
	}
	return s
}

// slow is an ask that takes d, or as long as ctx lives.
func slow(d time.Duration) func(context.Context, []seenPage) error {
	return func(ctx context.Context, _ []seenPage) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// never is an ask that no server ever answers.
func never(ctx context.Context, _ []seenPage) error { <-ctx.Done(); return ctx.Err() }

// docs is a source.
type docs []string

func (d docs) Documents(context.Context) iter.Seq[Document] {
	return func(yield func(Document) bool) {
		for _, path := range d {
			if !yield(Document{Path: path, Size: 1, Open: func() (*os.File, error) { return nil, errors.New("unused") }}) {
				return
			}
		}
	}
}

// fakeSink checks the calls' order and keeps what it was told. What begins with
// a past is done already.
type fakeSink struct {
	t     *testing.T
	past  map[string]Past
	begun map[string]bool
	open  map[string]int
	pages map[PageRef]PageResult
	ends  map[string]DocumentResult
	fail  func(PageResult) error
	// stand is called for what has ended; nil: it stands at once.
	stand func(DocumentResult, func(error))
}

func newFakeSink(t *testing.T) *fakeSink {
	return &fakeSink{
		t: t, past: map[string]Past{}, begun: map[string]bool{}, open: map[string]int{},
		pages: map[PageRef]PageResult{}, ends: map[string]DocumentResult{},
	}
}

func (s *fakeSink) Begin(_ context.Context, doc Document) (Past, error) {
	if s.begun[doc.Path] {
		s.t.Errorf("%s began twice", doc.Path)
	}
	s.begun[doc.Path] = true
	return s.past[doc.Path], nil
}

func (s *fakeSink) Opened(_ context.Context, doc Document, pages int) error {
	if _, ok := s.open[doc.Path]; ok || !s.begun[doc.Path] {
		s.t.Errorf("%s was opened twice, or never began", doc.Path)
	}
	s.open[doc.Path] = pages
	return nil
}

func (s *fakeSink) Page(_ context.Context, r PageResult) error {
	if _, ok := s.open[r.Ref.Path]; !ok {
		s.t.Errorf("%v: page outside its document", r.Ref)
	}
	if _, ok := s.pages[r.Ref]; ok {
		s.t.Errorf("%v ended twice", r.Ref)
	}
	if past := s.past[r.Ref.Path]; past.PageCount == s.open[r.Ref.Path] && past.Pages.Has(r.Ref.Page) {
		s.t.Errorf("%v was done before", r.Ref)
	}
	if drawn := r.Err == nil || r.Err.Stage == StageInfer; drawn != (r.ImageWidth > 0 && r.ImageHeight > 0) {
		s.t.Errorf("%v (%s, %v): a raster of %d×%d pixels", r.Ref, r.Status, r.Err, r.ImageWidth, r.ImageHeight)
	}
	s.pages[r.Ref] = r
	if s.fail != nil {
		return s.fail(r)
	}
	return nil
}

func (s *fakeSink) End(_ context.Context, r DocumentResult, stands func(error)) error {
	if _, ok := s.ends[r.Path]; ok {
		s.t.Errorf("%s ended twice", r.Path)
	}
	if !s.begun[r.Path] {
		s.t.Errorf("%s ended and never began", r.Path)
	}
	if n, ok := s.open[r.Path]; ok {
		if n != r.PageCount || r.Done+r.Failed+r.Skipped+r.Cancelled != n {
			s.t.Errorf("%s: %d pages, counts %+v", r.Path, n, r)
		}
		delete(s.open, r.Path)
	}
	s.ends[r.Path] = r
	if s.stand != nil {
		s.stand(r, stands)
	} else {
		stands(nil)
	}
	return nil
}

// file makes an empty file, so that Detect finds something to look at.
func file(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newDetector(t *testing.T, cfg Config) *Detector {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
