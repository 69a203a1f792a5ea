package sink

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"

	"quire/orchestrator"
)

// Account is what run.json says of the run that ended last.
type Account struct {
	// Ended is "complete", "interrupted" or "failed".
	Ended     string           `json:"ended"`
	Documents map[string]int64 `json:"documents"`
	Pages     map[string]int64 `json:"pages"`
	// Of the pages that are done or failed, Resumed come from earlier runs.
	Resumed int64 `json:"pages_resumed"`
	// Before tells how what was skipped had ended.
	Before struct {
		Documents map[string]int64 `json:"documents"`
		Pages     map[string]int64 `json:"pages"`
	} `json:"before"`
	// Redone counts documents that were done again, by the reason.
	Redone map[orchestrator.Redone]int64 `json:"documents_redone"`
	// Vanished results are of documents that are not among the inputs; Pruned
	// of them were removed.
	Vanished int64 `json:"vanished"`
	Pruned   int64 `json:"pruned"`
}

// Vanished counts results of documents that are not among the inputs.
type Vanished struct {
	Found, Pruned int64
	// Kept says why none was pruned though that was asked for; else it is empty.
	Kept string
}

// Finish is called when the run ends, however it ends. It takes the documents
// that have ended into the ledger's order and writes failed.jsonl and the
// account in run.json. After a run that came to its end (err is nil) it tells
// vanished, which may be nil, of each result whose document is not among the
// inputs, and removes these with [Config.Prune].
func (t *Tree) Finish(ctx context.Context, s orchestrator.Summary, err error, vanished func(documentPath string)) (v Vanished, _ error) {
	if t.ledger == nil {
		return v, errNotStarted
	}
	t.stop()
	ended, failed := "complete", error(nil)
	switch {
	case errors.Is(err, orchestrator.ErrInterrupted):
		ended = "interrupted"
	case err != nil:
		ended = "failed"
	default:
		if v, failed = t.vanished(ctx, vanished); failed != nil {
			ended = "failed"
		}
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{workDirectory, t.ledger.merge},
		{failuresName, func() error { return t.replace(failuresName, t.writeFailures) }},
		{runName, func() error { return t.writeRun(accountOf(s, v, ended)) }},
	}
	for _, step := range steps {
		if err := t.try(ctx, "write", step.name, step.do); err != nil {
			return v, cmp.Or(failed, err)
		}
	}
	return v, failed
}

func accountOf(s orchestrator.Summary, v Vanished, ended string) *Account {
	counts := func(c orchestrator.Counts, partial bool) map[string]int64 {
		m := map[string]int64{"done": c.Done, "failed": c.Failed, "skipped": c.Skipped, "cancelled": c.Cancelled}
		if partial {
			m["partial"] = c.Partial
		}
		return m
	}
	a := &Account{
		Ended: ended, Documents: counts(s.Documents, true), Pages: counts(s.Pages, false), Resumed: s.Resumed,
		Redone: s.Redone, Vanished: v.Found, Pruned: v.Pruned,
	}
	if a.Redone == nil {
		a.Redone = map[orchestrator.Redone]int64{}
	}
	a.Before.Documents, a.Before.Pages = counts(s.DocumentsBefore, true), counts(s.PagesBefore, false)
	return a
}

// vanished looks for results of documents that nobody asked for.
func (t *Tree) vanished(ctx context.Context, tell func(string)) (v Vanished, err error) {
	if t.cfg.Prune && t.unreadable {
		v.Kept = "some inputs could not be read, and may be back next time"
	}
	pictures := t.Pictures()
	err = t.ledger.unseen(func(r record) error {
		v.Found++
		if tell != nil {
			tell(r.path)
		}
		if !t.cfg.Prune || v.Kept != "" {
			return nil
		}
		name, err := ResultName(r.path)
		if err != nil {
			return err
		}
		if err := pictures.Trim(r.path, 0); err != nil {
			return err
		}
		if err := t.root.remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return t.explain("remove", name, err)
		}
		for dir := path.Dir(name); dir != "." && t.root.removeDir(dir) == nil; dir = path.Dir(dir) {
		}
		v.Pruned++
		r.Status = statusGone
		return t.try(ctx, "write in", workDirectory, func() error { return t.ledger.add([]record{r}, false) })
	})
	if err == nil && t.cfg.Prune && v.Kept == "" {
		for name := range t.left {
			_ = t.work.remove(name)
		}
	}
	return v, err
}

// writeFailures writes failed.jsonl: the failures in all results that stand, in
// the order of the documents.
func (t *Tree) writeFailures(f *file) error {
	w := bufio.NewWriterSize(f, 64<<10)
	var enc encoder
	line := func(ref orchestrator.PageRef, why *Failure) error {
		enc.buf = enc.buf[:0]
		enc.failureLine(ref, &orchestrator.PageError{Stage: why.Stage, Category: why.Category, Message: why.Message})
		_, err := w.Write(enc.buf)
		return err
	}
	err := t.ledger.failed(func(r record) error {
		if r.Error != nil {
			if err := line(orchestrator.PageRef{Path: r.path}, r.Error); err != nil {
				return err
			}
		}
		if r.Failed == 0 {
			return nil
		}
		name, err := ResultName(r.path)
		if err != nil {
			return err
		}
		return t.eachPage(name, func(page int, status orchestrator.Status, record []byte) error {
			if status != orchestrator.StatusFailed {
				return nil
			}
			var p Page
			if err := json.Unmarshal(record, &p); err != nil {
				return fmt.Errorf("a page record of %s does not read back: %w", r.path, err)
			}
			why := p.Error
			if why == nil {
				why = &Failure{Category: orchestrator.CategoryInternal, Message: "no reason was given"}
			}
			return line(orchestrator.PageRef{Path: r.path, Page: p.PageNo}, why)
		})
	})
	if err != nil {
		return err
	}
	return w.Flush()
}
