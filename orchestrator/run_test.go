package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// checkAccounts holds the conservation law: every page that a document has
// ended once, and the sums of documents, pages and sink agree.
func checkAccounts(t *testing.T, s *fakeSink, sum Summary, p ProgressNow) {
	t.Helper()
	var docs, pages Counts
	for _, e := range s.ends {
		add(&docs, e.Status, 1)
		add(&pages, StatusDone, int64(e.Done))
		add(&pages, StatusFailed, int64(e.Failed))
		add(&pages, StatusSkipped, int64(e.Skipped))
		add(&pages, StatusCancelled, int64(e.Cancelled))
	}
	if docs != sum.Documents || pages != sum.Pages {
		t.Errorf("the sink saw %+v %+v, the summary says %+v %+v", docs, pages, sum.Documents, sum.Pages)
	}
	if p.Listed != sum.Documents.Ended() || p.Known != sum.Pages.Ended() || p.Documents != sum.Documents || p.Pages != sum.Pages {
		t.Errorf("progress %+v, summary %+v", p, sum)
	}
	if len(s.open) != 0 {
		t.Errorf("documents without an end: %v", s.open)
	}
}

// runDocs runs documents into a new sink, and checks the accounts.
func runDocs(t *testing.T, d *Detector, source Source) (*fakeSink, Summary, error) {
	t.Helper()
	sink, progress := newFakeSink(t), &Progress{}
	sum, err := d.Run(t.Context(), Job{Source: source, Sink: sink, Progress: progress})
	checkAccounts(t, sink, sum, progress.Now())
	return sink, sum, err
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(8 * time.Millisecond)
		r := &fakeRenderer{pages: map[string]int{"a.pdf": 3, "long.pdf": 100, "b.pdf": 1, "none.pdf": 0, "c.pdf": 7}}
		r.draw = func(_ context.Context, path string, page int) error {
			time.Sleep(3 * time.Millisecond)
			if path == "c.pdf" && page == 2 || path == "b.pdf" {
				return &PageError{Stage: StageRender, Category: CategoryTimeout, Message: "stopped"}
			}
			return nil
		}
		d := newDetector(t, Config{Model: m, Renderer: r, Workers: 3, MaxAge: 50 * time.Millisecond})
		defer d.Close()
		sink, progress := newFakeSink(t), &Progress{}
		sum, err := d.Run(t.Context(), Job{Source: docs{"a.pdf", "broken.pdf", "long.pdf", "b.pdf", "none.pdf", "c.pdf"}, Sink: sink, Progress: progress})
		if err != nil {
			t.Fatal(err)
		}
		checkAccounts(t, sink, sum, progress.Now())
		if n := progress.Now().Opened; n != 6 {
			t.Errorf("%d documents were opened or would not open, want 6", n)
		}
		if sum.Documents != (Counts{Done: 2, Partial: 1, Failed: 3}) || sum.Pages != (Counts{Done: 109, Failed: 2}) {
			t.Errorf("%+v", sum)
		}
		for ref, p := range sink.pages {
			if p.Status == StatusDone && (p.Regions[0].ClassID != ref.Page || p.Regions[0].Label != fmt.Sprint(hash(ref.Path))) {
				t.Errorf("%v has the regions of another page: %+v", ref, p)
			}
		}
		for ref, n := range r.drawn {
			if n != 1 {
				t.Errorf("%v was drawn %d times", ref, n)
			}
		}
		if e := sink.ends["none.pdf"]; e.Err == nil || e.Err.Category != CategoryNoPages || e.PageCount != -1 {
			t.Errorf("a document of no pages: %+v", e)
		}
		// Pages of different documents share batches.
		mixed := 0
		for _, req := range m.requests {
			for _, p := range req {
				if p.doc != req[0].doc {
					mixed++
					break
				}
			}
		}
		if mixed == 0 {
			t.Error("no batch had pages of two documents")
		}
		synctest.Wait() // a batch ends after its pages
		if s := d.Stats(); s.Stalled != 0 || s.InFlight != 0 || s.Filling != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A run's last pages do not wait for their age.
func TestRunsLastBatchWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 3}}, MaxAge: time.Hour})
		defer d.Close()
		start := time.Now()
		if _, err := d.Run(t.Context(), Job{Source: docs{"a.pdf"}, Sink: newFakeSink(t)}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

func manyDocs(n, pages int) (docs, map[string]int) {
	var list docs
	count := map[string]int{}
	for i := range n {
		name := fmt.Sprintf("d%03d.pdf", i)
		list = append(list, name)
		count[name] = pages
	}
	return list, count
}

// TestDiesWithTheRun: what a worker says when the run is called off is nothing
// about its document, also when it is a page's error: of a process that died with
// everything else, of what opens a document and gives up with the run, or of
// another page, which is why the run was called off. The document is for the next
// run, and not recorded as failed.
func TestDiesWithTheRun(t *testing.T) {
	other := &PageError{Ref: PageRef{Path: "other.pdf"}, Stage: StageOpen, Category: CategoryMalformed, Message: "broken"}
	for _, why := range []*PageError{
		{Stage: StageOpen, Category: CategoryCrash, Message: "the process was killed"},
		{Stage: StageOpen, Category: CategoryUnreadable, Message: "the file cannot be opened: context canceled"},
		other,
	} {
		for _, doing := range []string{"opening", "opening again", "drawing"} {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				end := func() error {
					cancel(other)
					return why
				}
				list, count := manyDocs(3, 40)
				r := &fakeRenderer{pages: count}
				opened := false
				r.open = func(path string) error {
					r.mu.Lock()
					defer r.mu.Unlock()
					if path != "d001.pdf" {
						return nil
					}
					if doing == "opening" || doing == "opening again" && opened {
						return end()
					}
					opened = true
					return nil
				}
				r.draw = func(_ context.Context, path string, page int) error {
					time.Sleep(time.Millisecond)
					if path == "d001.pdf" { // so that both workers come to draw of it
						time.Sleep(9 * time.Millisecond)
					}
					if doing == "drawing" && path == "d001.pdf" && page == 3 {
						return end()
					}
					return nil
				}
				d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 2})
				defer d.Close()
				sink, progress := newFakeSink(t), &Progress{}
				sum, err := d.Run(ctx, Job{Source: list, Sink: sink, Progress: progress})
				checkAccounts(t, sink, sum, progress.Now())
				if err != other || sum.Documents.Failed != 0 || sum.Documents.Partial != 0 || sum.Pages.Failed != 0 {
					t.Errorf("%v while %s: %v, %+v", why, doing, err, sum)
				}
				if other.Ref.Path != "other.pdf" {
					t.Errorf("another page's error is now about %v", other.Ref)
				}
			})
		}
	}
}

// A renderer may have one error for all of its documents; each document has its
// own.
func TestOneErrorForAllDocuments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := &PageError{Stage: StageOpen, Category: CategoryUnreadable, Message: "gone"}
		list, count := manyDocs(20, 5)
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: &fakeRenderer{pages: count, open: func(string) error { return gone }}})
		defer d.Close()
		sink := newFakeSink(t)
		if sum, err := d.Run(t.Context(), Job{Source: list, Sink: sink}); err != nil || sum.Documents != (Counts{Failed: 20}) {
			t.Errorf("%+v, %v", sum, err)
		}
		for path, end := range sink.ends {
			if end.Err.Ref != (PageRef{Path: path}) || end.Err.Message != "gone" {
				t.Errorf("%s ended with %v", path, end.Err)
			}
		}
	})
}

func TestSoftStopWritesWhatIsDrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(100 * time.Millisecond)
		list, count := manyDocs(50, 40)
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: count}, Workers: 2})
		defer d.Close()
		sink, progress, stop := newFakeSink(t), &Progress{}, make(chan struct{})
		time.AfterFunc(time.Second, func() { close(stop) })
		start := time.Now()
		sum, err := d.Run(t.Context(), Job{Source: list, Sink: sink, Stop: stop, Progress: progress})
		if !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 1500*time.Millisecond {
			t.Errorf("stopped after %v", took)
		}
		checkAccounts(t, sink, sum, progress.Now())
		// 1 s at 2 × 8 pages in 100 ms is 160; in flight, open and stalled then.
		if sum.Pages.Done < 160 || sum.Pages.Done > 190 || sum.Pages.Cancelled == 0 || sum.Pages.Failed != 0 {
			t.Errorf("%+v", sum)
		}
	})
}

// A soft stop that may take for ever waits for what is drawn.
func TestSoftStopForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(time.Hour)
		list, count := manyDocs(20, 40)
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: count}, Workers: 2, InferTimeout: 2 * time.Hour, SoftStop: -1})
		defer d.Close()
		sink, progress, stop := newFakeSink(t), &Progress{}, make(chan struct{})
		time.AfterFunc(time.Second, func() { close(stop) })
		sum, err := d.Run(t.Context(), Job{Source: list, Sink: sink, Stop: stop, Progress: progress})
		if !errors.Is(err, ErrInterrupted) || sum.Pages.Done < 16 {
			t.Errorf("%+v, %v", sum, err)
		}
		checkAccounts(t, sink, sum, progress.Now())
	})
}

// A run keeps nothing of documents and pages that have ended, however many there
// are.
func TestRunForgetsWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(time.Millisecond)
		list, count := manyDocs(300, 3)
		const workers, inFlight, batch = 2, 2, 8
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: count}, Workers: workers, InFlight: inFlight, Batch: batch})
		defer d.Close()
		sink := newFakeSink(t)
		sink.stand = func(_ DocumentResult, stands func(error)) {
			d.runsMu.Lock()
			for r := range d.runs {
				r.mu.Lock()
				if open, live := len(r.open), len(r.live); open > 2*workers || live > (inFlight+1)*batch+workers {
					t.Errorf("after %d documents %d are open and %d pages are on their way", len(sink.ends), open, live)
				}
				r.mu.Unlock()
			}
			d.runsMu.Unlock()
			stands(nil)
		}
		if sum, err := d.Run(t.Context(), Job{Source: list, Sink: sink}); err != nil || sum.Pages != (Counts{Done: 900}) {
			t.Errorf("%+v, %v", sum, err)
		}
		if n := len(d.runs); n != 0 {
			t.Errorf("the detector keeps %d runs", n)
		}
	})
}

func TestServerThatNeverAnswers(t *testing.T) {
	path := file(t, "single.pdf")
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = never
		list, count := manyDocs(1000, 10)
		count["single.pdf"] = 9
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: count}, Workers: 2, InferTimeout: time.Hour, ServerWait: -1, SoftStop: 5 * time.Second, Queue: 3})
		defer d.Close()
		sink, progress, stop := newFakeSink(t), &Progress{}, make(chan struct{})
		type end struct {
			sum Summary
			err error
		}
		ended := make(chan end)
		start := time.Now()
		go func() {
			sum, err := d.Run(context.Background(), Job{Source: list, Sink: sink, Stop: stop, Progress: progress})
			ended <- end{sum, err}
		}()
		ctx, cancel := context.WithCancel(t.Context())
		for page := range 3 {
			go d.Detect(ctx, path, page+1)
		}
		synctest.Wait()
		// Everything that the event path does returns without a clock tick.
		if _, err := d.TryDetect(ctx, path, 4); !errors.Is(err, ErrBusy) {
			t.Errorf("TryDetect: %v", err)
		}
		if s := d.Stats(); s.InFlight != 2 || s.Filling != 8 {
			t.Errorf("%+v", s)
		}
		if p := progress.Now(); p.Pages.Ended() != 0 || p.Listed > 5 {
			// Three documents hold the 26 pages that fit; one more a worker at most.
			t.Errorf("the walker ran ahead: %+v", p)
		}
		cancel()
		close(stop)
		synctest.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("the event path took %v", took)
		}
		e := <-ended // by the soft stop's own limit
		if took := time.Since(start); took != 5*time.Second || !errors.Is(e.err, ErrInterrupted) {
			t.Errorf("ended after %v: %v", took, e.err)
		}
		checkAccounts(t, sink, e.sum, progress.Now())
	})
}

func TestHardStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(time.Hour)
		list, count := manyDocs(20, 40)
		r := &fakeRenderer{pages: count}
		d := newDetector(t, Config{Model: m, Renderer: r, InferTimeout: 2 * time.Hour, ServerWait: -1})
		sink, progress := newFakeSink(t), &Progress{}
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("second signal")
		time.AfterFunc(time.Second, func() { cancel(why) })
		start := time.Now()
		sum, err := d.Run(ctx, Job{Source: list, Sink: sink, Progress: progress})
		if !errors.Is(err, why) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		checkAccounts(t, sink, sum, progress.Now())
		d.Close()
		if r.live != 0 {
			t.Errorf("%d workers left", r.live)
		}
	})
}

func TestSinkFailureEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, count := manyDocs(20, 5)
		// One at a time, or later documents may overtake the one that fails.
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: &fakeRenderer{pages: count}, Workers: 1, InFlight: 1})
		defer d.Close()
		sink, full := newFakeSink(t), errors.New("no space left on device")
		sink.fail = func(r PageResult) error {
			if r.Ref.Path == "d007.pdf" {
				return full
			}
			return nil
		}
		sum, err := d.Run(t.Context(), Job{Source: list, Sink: sink})
		if !errors.Is(err, full) {
			t.Fatal(err)
		}
		if sum.Documents.Done < 1 || sum.Documents.Done > 8 || sum.Pages.Done != 5*sum.Documents.Done {
			t.Errorf("documents that stood before are not counted: %+v", sum)
		}
		if sum.Pages.Cancelled == 0 || sum.Pages.Failed != 0 {
			t.Errorf("%+v", sum)
		}
	})
}

func TestRunStopsOnAModelThatDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, count := manyDocs(20, 5)
		m := newFakeModel()
		m.ask = func(context.Context, []seenPage) error {
			return &ModelError{Action: ActionStop, Message: "found FP16, wanted UINT8"}
		}
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: count}})
		defer d.Close()
		_, _, err := runDocs(t, d, list)
		if se, ok := errors.AsType[*ServerError](err); !ok || se.Message != "found FP16, wanted UINT8" {
			t.Fatal(err)
		}
	})
}

// listed is a source of documents as they are.
type listed []Document

func (l listed) Documents(context.Context) iter.Seq[Document] { return slices.Values(l) }

// Too many open files end the run, at once and with no document to blame; of one
// of which nothing could be told the sink, which would take it for another file, is
// not asked.
func TestTooManyOpenFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, listing := range []error{syscall.EMFILE, nil} {
			starts, opens := 0, 0
			r := &fakeRenderer{start: func() error { starts++; return nil }, open: func(string) error { opens++; return syscall.EMFILE }}
			var log bytes.Buffer
			d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			sink, sum, err := runDocs(t, d, listed{{Path: "a.pdf", Err: listing}})
			d.Close()
			if !TooManyOpenFiles(err) || sum.Documents.Failed != 0 || sink.begun["a.pdf"] != (listing == nil) {
				t.Errorf("%+v, %v; begun: %v", sum, err, sink.begun)
			}
			if tries := len(sink.begun); opens != tries || starts != 1 || log.Len() > 0 {
				t.Errorf("%d workers have opened it %d times: %s", starts, opens, log.String())
			}
		}
	})
}

// wider draws pages that many pixels wider than it is asked for.
type wider struct {
	*fakeRenderer
	by int
}

func (r wider) NewWorker(ctx context.Context, width, height int) (RenderWorker, error) {
	return r.fakeRenderer.NewWorker(ctx, width+r.by, height)
}

// A renderer that does what no renderer may is named, and no page of it is taken
// for one.
func TestRendererThatIsWrong(t *testing.T) {
	path := file(t, "a.pdf")
	for want, r := range map[string]wider{
		"the renderer says that it has -1 pages":                {&fakeRenderer{pages: map[string]int{"a.pdf": -1}}, 0},
		"page 1: the renderer drew 18 bytes of pixels, 4×2 are": {&fakeRenderer{pages: map[string]int{"a.pdf": 1}}, -1},
		"page 1: the renderer drew 30 bytes of pixels, 4×2 are": {&fakeRenderer{pages: map[string]int{"a.pdf": 1}}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newFakeModel()
			d := newDetector(t, Config{Model: m, Renderer: r, Workers: 1})
			defer d.Close()
			_, _, err := runDocs(t, d, docs{"a.pdf"})
			if err == nil || !strings.Contains(err.Error(), "a.pdf") || !strings.Contains(err.Error(), want) {
				t.Errorf("the run ended with %v, want %q", err, want)
			}
			got, err := d.Detect(t.Context(), path, 1)
			if got.Status != StatusFailed || got.Err.Category != CategoryInternal || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v, %v, want %q", got, err, want)
			}
			if len(m.requests) != 0 {
				t.Errorf("the model was asked for %v", m.requests)
			}
		})
	}
}

// panicking is a source that yields one document and panics.
type panicking struct{}

func (panicking) Documents(context.Context) iter.Seq[Document] {
	return func(yield func(Document) bool) {
		yield(Document{Path: "a.pdf"})
		panic("source")
	}
}

// A source that panics, in a program that recovers, leaves nothing of its run:
// later pages wait for nobody.
func TestSourceThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 3}}, MaxAge: time.Minute})
		defer d.Close() // with a goroutine left, the bubble would not end
		func() {
			defer func() {
				if got := recover(); got != "source" {
					t.Errorf("recovered %v", got)
				}
			}()
			d.Run(t.Context(), Job{Source: panicking{}, Sink: newFakeSink(t)})
		}()
		start := time.Now()
		if _, err := d.Detect(t.Context(), "a.pdf", 1); err != nil || time.Since(start) >= time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if _, err := d.Run(t.Context(), Job{Sink: newFakeSink(t)}); err == nil {
			t.Error("a run without a source")
		}
	})
}

// TestRunAccountsHold throws random faults at every seam at once.
func TestRunAccountsHold(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			var list docs
			count := map[string]int{}
			for i := range 30 {
				name := fmt.Sprintf("%d.pdf", i)
				list = append(list, name)
				if rnd.IntN(8) > 0 {
					count[name] = rnd.IntN(50)
				}
			}
			m := newFakeModel()
			m.in.MaxBatch = 1 + rnd.IntN(8)
			chance := func(n int) bool { m.mu.Lock(); defer m.mu.Unlock(); return rnd.IntN(n) == 0 }
			m.ask = func(ctx context.Context, pages []seenPage) error {
				for _, p := range pages {
					if p.page%17 == 0 {
						return &ModelError{Action: ActionBisect, Message: "poison"}
					}
				}
				for _, a := range []Action{ActionShrink, ActionWait, ActionRefresh, ActionRetry} {
					if chance(36) {
						return &ModelError{Action: a, Message: "now and then"}
					}
				}
				return slow(5*time.Millisecond)(ctx, pages)
			}
			broke := map[PageRef]bool{}
			firstTime := func(p PageRef) bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				was := broke[p]
				broke[p] = true
				return !was
			}
			r := &fakeRenderer{pages: count}
			r.draw = func(ctx context.Context, path string, page int) error {
				time.Sleep(time.Millisecond)
				switch {
				case page%13 == 0 || chance(300):
					return &PageError{Stage: StageRender, Category: CategoryCrash, Message: "crashed"}
				case chance(200) && firstTime(PageRef{path, page}): // twice ends the run
					return errors.New("the worker is of no use any more")
				}
				return ctx.Err()
			}
			d := newDetector(t, Config{Model: m, Renderer: r, Workers: 1 + rnd.IntN(4), InFlight: 1 + rnd.IntN(3), Attempts: 20})
			sink, progress, stop := newFakeSink(t), &Progress{}, make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			switch seed % 4 {
			case 1:
				time.AfterFunc(200*time.Millisecond, func() { close(stop) })
			case 2:
				time.AfterFunc(200*time.Millisecond, cancel)
			case 3:
				time.AfterFunc(200*time.Millisecond, func() { d.Close() })
			}
			sum, err := d.Run(ctx, Job{Source: list, Sink: sink, Stop: stop, Progress: progress})
			checkAccounts(t, sink, sum, progress.Now())
			if seed%4 == 0 {
				if err != nil || sum.Documents.Ended() != 30 || sum.Pages.Cancelled != 0 {
					t.Errorf("seed %d: %v, %+v", seed, err, sum)
				}
				for ref, p := range sink.pages {
					if p.Status == StatusDone && p.Regions[0].ClassID != ref.Page {
						t.Errorf("seed %d: %v has page %d's regions", seed, ref, p.Regions[0].ClassID)
					}
					if ref.Page%17 == 0 && p.Status == StatusDone {
						t.Errorf("seed %d: poisoned %v is done", seed, ref)
					}
				}
			} else if err == nil {
				t.Errorf("seed %d: stopped without an error", seed)
			}
			cancel()
			d.Close()
			if r.live != 0 {
				t.Errorf("seed %d: %d workers left", seed, r.live)
			}
		})
	}
}
