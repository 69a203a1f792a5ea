package verify

import (
	"bytes"
	"context"
	"errors"

	"quire/orchestrator"
)

// Page is a page, drawn as the model wants it.
type Page struct {
	Ref      orchestrator.PageRef
	Geometry orchestrator.Geometry
	// Pixels are RGB, width × height × 3 bytes of the model's input.
	Pixels []byte
}

// Draw draws pages of a source's documents, in their order, until there are most
// of them; of one document at most perDocument, spread evenly over it, or all if
// that is 0. Documents and pages that fail are passed over and counted. The error
// is ctx's or one of this machine.
func Draw(ctx context.Context, renderer orchestrator.Renderer, source orchestrator.Source, in orchestrator.Input, most, perDocument int) (pages []Page, failed int, err error) {
	w, err := renderer.NewWorker(ctx, in.Width, in.Height)
	if err != nil {
		return nil, 0, err
	}
	defer w.Close()
	isFault := func(err error) bool {
		_, fault := errors.AsType[*orchestrator.PageError](err)
		return fault
	}
	for doc := range source.Documents(ctx) {
		count, err := w.Open(ctx, doc)
		if err != nil && !isFault(err) {
			return nil, failed, err
		} else if err != nil {
			failed++
			continue
		}
		take := count
		if perDocument > 0 {
			take = min(count, perDocument)
		}
		for i := range take {
			if len(pages) == most {
				return pages, failed, nil
			}
			number := 1 + i*count/take
			pixels, geometry, err := w.Draw(ctx, number)
			if err != nil && !isFault(err) {
				return nil, failed, err
			} else if err != nil {
				failed++
				continue
			}
			pages = append(pages, Page{Ref: orchestrator.PageRef{Path: doc.Path, Page: number}, Geometry: geometry, Pixels: bytes.Clone(pixels)})
		}
	}
	return pages, failed, context.Cause(ctx)
}
