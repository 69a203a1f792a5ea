package tune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"quire/orchestrator"
	"quire/orchestrator/internal/measure"
)

// Sample is some documents, and some of their pages as the model wants them.
type Sample struct {
	documents []measure.Document
	pages     [][]byte
	// Listed is how many documents were chosen from.
	Listed int
}

const (
	// sampleDocuments and samplePages are how many are wanted; the pages are
	// kept in memory.
	sampleDocuments, samplePages = 32, 64
	// longDocument has so many pages that a window would see no other.
	longDocument = 100
	// sampleList is how many documents are looked at to choose from.
	sampleList = 20_000
)

// Draw chooses documents of a source by chance, always the same ones, draws
// some of their pages, so many at once, and keeps them. workers 0 is the CPUs.
func Draw(ctx context.Context, source orchestrator.Source, renderer orchestrator.Renderer, in orchestrator.Input, workers int) (*Sample, error) {
	chosen, listed := measure.Sample(ctx, source, sampleDocuments, sampleList)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	documents, err := measure.Count(ctx, renderer, in, chosen, 1<<30)
	if err != nil {
		return nil, err
	}
	short := slices.DeleteFunc(slices.Clone(documents), func(d measure.Document) bool { return d.Pages > longDocument })
	if len(short) > 0 {
		documents = short
	}
	if len(documents) == 0 {
		return nil, errors.New("none of the documents opens: see quire plan for the reasons")
	}
	s := &Sample{documents: documents, Listed: listed}

	drawing, err := measure.NewRendering(ctx, renderer, in, cmp.Or(workers, runtime.GOMAXPROCS(0)))
	if err != nil {
		return nil, err
	}
	defer drawing.Close()
	enough, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	// Round by round through the documents would open each many times; a piece
	// of each is mixture enough.
	_, err = drawing.Draw(enough, documents, 1, func(_ measure.Document, _ int, pixels []byte) {
		mu.Lock()
		defer mu.Unlock()
		if len(s.pages) < samplePages {
			s.pages = append(s.pages, slices.Clone(pixels))
		}
		if len(s.pages) == samplePages {
			stop()
		}
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil && enough.Err() == nil {
		return nil, err
	}
	if len(s.pages) == 0 {
		return nil, fmt.Errorf("not one page of %d documents can be drawn: see quire plan for the reasons", len(documents))
	}
	return s, nil
}

// Pages is how many drawn pages it has.
func (s *Sample) Pages() int { return len(s.pages) }

// Documents is how many documents it has.
func (s *Sample) Documents() int { return len(s.documents) }
