package measure

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"

	"quire/orchestrator"
)

// Sample chooses at most so many documents of a source by chance, each as likely
// as any other and always the same ones, in no order: of all that there are, or of
// the first look, if that is not 0. found is how many it chose from.
func Sample(ctx context.Context, source orchestrator.Source, most, look int) (chosen []orchestrator.Document, found int) {
	random := rand.New(rand.NewPCG(1, 2))
	for doc := range source.Documents(ctx) {
		found++
		// However many come (reservoir sampling).
		if len(chosen) < most {
			chosen = append(chosen, doc)
		} else if i := random.IntN(found); i < most {
			chosen[i] = doc
		}
		if found == look {
			break
		}
	}
	random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	return chosen, found
}

// Document is a document whose pages have been counted.
type Document struct {
	orchestrator.Document
	Pages int
}

// Count opens documents in order until it has found as many pages as wanted, or
// until there are no more. Documents that do not open or have no pages are left
// out, and so are those with more pages than wanted in all, unless there are no
// others: then it is the first of them. It draws nothing.
func Count(ctx context.Context, renderer orchestrator.Renderer, in orchestrator.Input, documents []orchestrator.Document, pages int) ([]Document, error) {
	w, err := renderer.NewWorker(ctx, in.Width, in.Height)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	var counted, giants []Document
	for found, next := 0, 0; found < pages && next < len(documents); next++ {
		n, err := w.Open(ctx, documents[next])
		switch {
		case err != nil && !pageFailed(err):
			return nil, err
		case err != nil || n == 0:
		case n > pages:
			giants = append(giants, Document{Document: documents[next], Pages: n})
		default:
			counted = append(counted, Document{Document: documents[next], Pages: n})
			found += n
		}
	}
	if len(counted) == 0 {
		return giants[:min(1, len(giants))], nil
	}
	return counted, nil
}

// Repeat yields documents so many times over, each time under other names.
func Repeat(documents []Document, times int) orchestrator.Source {
	return repeated{documents, times}
}

type repeated struct {
	documents []Document
	times     int
}

func (r repeated) Documents(ctx context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		for i := range r.times {
			for _, d := range r.documents {
				doc := d.Document
				doc.Path = fmt.Sprintf("%06d/%s", i, d.Path)
				if ctx.Err() != nil || !yield(doc) {
					return
				}
			}
		}
	}
}

func pageFailed(err error) bool {
	_, failed := errors.AsType[*orchestrator.PageError](err)
	return failed
}
