package sink

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"quire/orchestrator"
)

// maxCrashes is at how many crashes of the whole program a document must have
// been in work to be set aside.
const maxCrashes = 3

// past looks up what earlier runs have done of a document. Unless its result
// stands, it returns a segment with what there is of its pages.
func (t *Tree) past(ctx context.Context, doc orchestrator.Document, name string) (past orchestrator.Past, s *segment, err error) {
	id := t.identityOf(doc)
	was, found, err := t.ledger.find(doc.Path)
	if err != nil {
		return past, nil, t.explain("read", workDirectory+"/"+ledgerName, err)
	}
	var redone orchestrator.Redone
	if found {
		if redone = t.redone(was, id, name); redone == "" {
			past.Result = was.result()
			return past, nil, t.stands(ctx, id, was)
		}
	}
	s, again, err := t.resume(ctx, doc.Path, id)
	redone = cmp.Or(again, redone)
	if err == nil && s == nil {
		err = t.try(ctx, "write in", workDirectory, func() (err error) {
			s, err = newSegment(t.work, doc.Path, id)
			return err
		})
		if err == nil && redone == orchestrator.RedoneFailed && was.Pages != nil {
			err = t.try(ctx, "write in", workDirectory, func() error { return t.keepGood(s, was, name) })
		}
	}
	if err != nil {
		if s != nil {
			s.leave(doc.Path)
		}
		return past, nil, err
	}
	if found {
		s.was = &was
	}
	past = s.past()
	past.Redone = redone
	if s.crashes >= maxCrashes && !t.cfg.RetryFailed {
		past.SetAside = &orchestrator.PageError{
			Ref: orchestrator.PageRef{Path: doc.Path}, Stage: orchestrator.StageOpen, Category: orchestrator.CategoryCrashLoop,
			Message: fmt.Sprintf("it was in work at %d crashes of the whole program", s.crashes),
		}
	}
	return past, s, nil
}

// stands settles a document whose result stands: nothing else of it is wanted, unless
// that is that it would not open; and from now on it is known by its content where
// that is told.
func (t *Tree) stands(ctx context.Context, id identity, was record) error {
	if was.Pages == nil {
		_, left := segmentFile(was.path)
		delete(t.left, left) // what there is of its pages waits
	}
	t.discard(was.path)
	if id.Sum == "" || id.Sum == was.Sum && id.ModTime == was.ModTime {
		return nil
	}
	was.identity = id.over(was.identity)
	return t.try(ctx, "write in", workDirectory, func() error { return t.ledger.add([]record{was}, false) })
}

// resume takes up the segment that an earlier run has left of a document, nil if
// there is none. One that is of no use now is removed, and again tells why.
func (t *Tree) resume(ctx context.Context, path string, id identity) (s *segment, again orchestrator.Redone, err error) {
	if s, err = t.take(ctx, path); s == nil {
		return nil, "", err
	}
	if again = id.changed(s.id); t.cfg.Fresh {
		again = orchestrator.RedoneFresh
	}
	if again != "" {
		s.remove()
		return nil, again, nil
	}
	s.id = id.over(s.id)
	if t.cfg.RetryFailed {
		s.dropFailed()
	}
	return s, "", t.try(ctx, "write in", workDirectory, func() error { return s.event(eventBegun) })
}

// redone tells why a document is done again that was finished; empty when its
// result stands.
func (t *Tree) redone(was record, id identity, name string) orchestrator.Redone {
	if t.cfg.Fresh {
		return orchestrator.RedoneFresh
	}
	if why := id.changed(was.identity); why != "" {
		return why
	}
	if info, err := t.root.Stat(name); err != nil || !info.Mode().IsRegular() || info.Size() != was.Bytes {
		return orchestrator.RedoneMissing
	}
	if was.Error != nil {
		switch was.Error.Category {
		case orchestrator.CategoryUnreadable, orchestrator.CategoryNotRegular:
			// Nothing of its content was ever seen, so nothing tells whether it
			// is still the same; and looking costs nothing.
			return orchestrator.RedoneFailed
		case orchestrator.CategoryEncrypted:
			if t.cfg.Passwords {
				return orchestrator.RedonePassword
			}
		}
	}
	if t.cfg.RetryFailed && was.Status != orchestrator.StatusDone {
		return orchestrator.RedoneFailed
	}
	return ""
}

// take opens the segment that an earlier run has left of a document, if it did.
// One that is no segment is removed; one that cannot be read now is kept.
func (t *Tree) take(ctx context.Context, path string) (*segment, error) {
	inWork, left := segmentFile(path)
	for _, name := range []string{inWork, left} {
		if !t.left[name] {
			continue
		}
		var s *segment
		var lost int64
		err := t.space.try(ctx, func() (err error) {
			var now int64
			s, now, err = loadSegment(t.work, path, name)
			lost = max(lost, now) // the first try has cut off what a later one does not see
			if err != nil || name == inWork {
				return err
			}
			if err = t.work.rename(left, inWork); err != nil {
				return errors.Join(err, s.file.Close())
			}
			s.name = inWork
			return nil
		})
		if lost > 0 {
			t.cfg.Log.Warn("the journal of a document was damaged or torn; the pages that are lost are done again", "document", path, "bytes_cut", lost)
		}
		switch {
		case errors.Is(err, errNotThis):
			t.cfg.Log.Warn("the journal of a document cannot be read; the document is done again", "document", path, "err", err)
			delete(t.left, name)
			_ = t.work.remove(name)
			continue
		case err != nil:
			err = t.explain("read", workDirectory+"/"+name, err)
			t.fail(err)
			return nil, err
		}
		delete(t.left, name)
		t.discard(path) // there is no other
		return s, nil
	}
	return nil, nil
}

// discard removes what an earlier run has left of a document.
func (t *Tree) discard(path string) {
	inWork, left := segmentFile(path)
	for _, name := range []string{inWork, left} {
		if t.left[name] {
			delete(t.left, name)
			_ = t.work.remove(name)
		}
	}
}

// keepGood takes the pages that are done from a document's result into a new
// segment. A result that does not read as one has none.
func (t *Tree) keepGood(s *segment, was record, name string) error {
	s.settle(func(entry) bool { return false }) // of a try before
	if s.pages < 0 {
		if err := s.open(*was.Pages); err != nil {
			return err
		}
	}
	return t.eachPage(name, func(page int, status orchestrator.Status, record []byte) error {
		if status != orchestrator.StatusDone || page > s.pages {
			return nil
		}
		return s.add(page, status, record)
	})
}

// eachPage calls each for the records of the pages in a result.
func (t *Tree) eachPage(name string, each func(page int, status orchestrator.Status, record []byte) error) error {
	f, err := t.root.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		record := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte(","))
		if page, status := pageOf(record); page > 0 {
			if err := each(page, status, record); err != nil {
				return err
			}
		}
	}
}
