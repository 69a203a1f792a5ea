// Package plan looks at the inputs of a run without running it: how many
// documents there are and which of them cannot be used, about how many pages
// they have, and what that will take in time and disk.
package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"quire/orchestrator"
)

// Config says what to look at. Source and Renderer are required; elsewhere zero
// means the default.
type Config struct {
	// Source yields the documents. It is gone through once.
	Source orchestrator.Source
	// Renderer's workers open documents to count their pages.
	Renderer orchestrator.Renderer
	// Problem is told of each document that a run would fail to open, as far
	// as that was seen: first those seen while walking, in the source's order,
	// then those of the sample, by path. It is called from one goroutine. May
	// be nil.
	Problem func(*orchestrator.PageError)
	// Progress is called now and then, from one goroutine at a time, with how many
	// documents were found and, after that, how many were opened of how many
	// that will be. May be nil.
	Progress func(found, opened, sample int64)

	// Sample is about how many documents are opened. When there are no more
	// than that, all are. Default 500.
	Sample int
	// Time is how long documents are opened for. Default 20 s. Walking is not
	// bounded: every file is looked at.
	Time time.Duration
	// Workers is how many documents are opened at once. Default: the CPUs that
	// this process may use.
	Workers int
}

// Inputs is what was found.
type Inputs struct {
	// Documents is how many there are, Bytes their size in all.
	Documents, Bytes int64
	// Unreadable counts, by category, the documents that Problem was told of.
	Unreadable map[orchestrator.Category]int64
	// Pages is how many pages the rest have.
	Pages Estimate
}

// Problems is how many documents Problem was told of.
func (in Inputs) Problems() int64 {
	var n int64
	for _, count := range in.Unreadable {
		n += count
	}
	return n
}

// Categories are those of Unreadable, most frequent first.
func (in Inputs) Categories() []orchestrator.Category {
	return slices.SortedFunc(maps.Keys(in.Unreadable), func(a, b orchestrator.Category) int {
		return cmp.Or(cmp.Compare(in.Unreadable[b], in.Unreadable[a]), cmp.Compare(a, b))
	})
}

// Look goes through the source once and opens a sample of its documents. The
// same documents give the same sample, drawn by lot from all of them and by size;
// only Time can cut it short. What cannot be used is no error but a
// problem; an error is about this machine, or ctx's own.
func Look(ctx context.Context, cfg Config) (Inputs, error) {
	if cfg.Source == nil || cfg.Renderer == nil {
		return Inputs{}, errors.New("plan: Config.Source and Config.Renderer are required")
	}
	cfg.Sample = cmp.Or(cfg.Sample, 500)
	cfg.Time = cmp.Or(cfg.Time, 20*time.Second)
	cfg.Workers = cmp.Or(cfg.Workers, runtime.GOMAXPROCS(0))
	if cfg.Sample < 1 || cfg.Time < 0 || cfg.Workers < 1 {
		return Inputs{}, fmt.Errorf("plan: a sample of %d in %v by %d workers: each must be above 0", cfg.Sample, cfg.Time, cfg.Workers)
	}
	if cfg.Problem == nil {
		cfg.Problem = func(*orchestrator.PageError) {}
	}
	if cfg.Progress == nil {
		cfg.Progress = func(int64, int64, int64) {}
	}
	l := &look{cfg: cfg, in: Inputs{Unreadable: map[orchestrator.Category]int64{}}, patience: cfg.Time}
	defer l.close()
	// The source's context, which its documents may need when they are opened,
	// lives until the last is.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := l.walk(ctx, cancel); err != nil {
		return l.in, err
	}
	if err := l.sample(ctx); err != nil {
		return l.in, err
	}
	l.in.Pages = l.strata.estimate()
	return l.in, nil
}

// look is one call of Look. Its fields are for the goroutine that called it.
type look struct {
	cfg    Config
	in     Inputs
	strata strata
	// worker opens suspects while walking; nil until there is one. patience is
	// how long it may still go on.
	worker   orchestrator.RenderWorker
	patience time.Duration
}

func (l *look) close() {
	if l.worker != nil {
		_ = l.worker.Close()
		l.worker = nil
	}
}

func (l *look) problem(err *orchestrator.PageError) {
	l.in.Unreadable[err.Category]++
	l.cfg.Problem(err)
}

// ahead is how many files are looked into at once while walking: on a network
// drive each takes a while and none of it is work.
const ahead = 16

// progressEvery is after how many documents Progress is called while walking.
const progressEvery = 1000

// walk looks into every document's file. What it leaves to end, cancel ends.
func (l *look) walk(ctx context.Context, cancel context.CancelFunc) error {
	heads := make(chan chan head, ahead)
	var group sync.WaitGroup
	defer group.Wait()
	whole := false
	defer func() {
		if !whole {
			cancel() // before the wait
		}
	}()
	group.Go(func() {
		defer close(heads)
		for doc := range l.cfg.Source.Documents(ctx) {
			h := make(chan head, 1)
			select {
			case heads <- h:
			case <-ctx.Done():
				return
			}
			group.Go(func() { h <- examine(doc) })
		}
	})
	for c := range heads {
		h := <-c
		if h.fault != nil {
			return h.fault
		}
		l.in.Documents++
		l.in.Bytes += h.doc.Size
		switch {
		case h.err != nil:
			l.problem(h.err)
		case !h.marked:
			if err := l.suspect(ctx, h.doc); err != nil {
				return err
			}
		default:
			l.strata.add(h.doc, l.cfg.Sample)
		}
		if l.in.Documents%progressEvery == 0 {
			l.cfg.Progress(l.in.Documents, 0, 0)
		}
	}
	whole = true
	return context.Cause(ctx)
}

// suspect opens a document without the mark of a PDF: some can be repaired, and
// other formats have none. There are few of them as a rule; when they take all
// the time there is, the rest are judged by their names.
func (l *look) suspect(ctx context.Context, doc orchestrator.Document) error {
	if l.patience <= 0 {
		if !strings.HasSuffix(strings.ToLower(doc.Path), ".pdf") {
			l.strata.add(doc, l.cfg.Sample)
			return nil
		}
		l.problem(failure(doc, orchestrator.CategoryNotPDF, nil, "no mark of a PDF in its first KiB"))
		return nil
	}
	if l.worker == nil {
		var err error
		if l.worker, err = l.cfg.Renderer.NewWorker(ctx, 1, 1); err != nil {
			return err
		}
	}
	start := time.Now()
	pages, problem, err := count(ctx, l.worker, doc)
	l.patience -= time.Since(start)
	switch {
	case err != nil:
		return err
	case problem != nil:
		l.problem(problem)
	default:
		l.strata.known(pages)
	}
	return nil
}

// sample opens documents until enough are opened, or the time is over.
func (l *look) sample(ctx context.Context) error {
	docs := l.strata.choose(l.cfg.Sample)
	if len(docs) == 0 {
		return nil
	}
	l.cfg.Progress(l.in.Documents, 0, int64(len(docs)))
	l.close()
	limited, cancel := context.WithTimeout(ctx, l.cfg.Time)
	defer cancel()

	var (
		mu       sync.Mutex // guards what follows, the strata too
		next     int
		opened   int64
		problems []*orchestrator.PageError
		failed   error
		group    sync.WaitGroup
	)
	work := func() error {
		worker, err := l.cfg.Renderer.NewWorker(limited, 1, 1)
		if err != nil {
			return err
		}
		defer worker.Close()
		for limited.Err() == nil {
			mu.Lock()
			i := next
			next++
			mu.Unlock()
			if i >= len(docs) {
				return nil
			}
			pages, problem, err := count(limited, worker, docs[i].doc)
			if err != nil {
				return err
			}
			mu.Lock()
			if problem != nil {
				problems = append(problems, problem)
			}
			docs[i].stratum.looked(pages, problem != nil)
			opened++
			l.cfg.Progress(l.in.Documents, opened, int64(len(docs)))
			mu.Unlock()
		}
		return nil
	}
	for range min(l.cfg.Workers, len(docs)) {
		group.Go(func() {
			if err := work(); err != nil && limited.Err() == nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
				cancel()
			}
		})
	}
	group.Wait()
	slices.SortFunc(problems, func(a, b *orchestrator.PageError) int { return strings.Compare(a.Ref.Path, b.Ref.Path) })
	for _, p := range problems {
		l.problem(p)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return failed
}

// count opens a document for its pages. A problem is the document's, an error
// is not.
func count(ctx context.Context, worker orchestrator.RenderWorker, doc orchestrator.Document) (int, *orchestrator.PageError, error) {
	for again := false; ; again = true {
		pages, err := worker.Open(ctx, doc)
		switch {
		case err == nil && pages < 0:
			return 0, nil, fmt.Errorf("%s: the renderer says that it has %d pages", doc.Path, pages)
		case err == nil && pages == 0:
			return 0, failure(doc, orchestrator.CategoryNoPages, nil, "the document has no pages"), nil
		case err == nil:
			return pages, nil, nil
		}
		pe, ok := errors.AsType[*orchestrator.PageError](err)
		if !ok || ctx.Err() != nil {
			return 0, nil, err
		}
		// A run tries that once more too.
		if pe.Category != orchestrator.CategoryCrash || again {
			return 0, pe, nil
		}
	}
}
