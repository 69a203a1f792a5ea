package sink

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"

	"quire/orchestrator"
)

// segment holds the finished pages of a document in work: their records in a
// file, in the order they came, and in memory only where each of them lies.
type segment struct {
	dir   *os.Root
	name  string
	file  *os.File
	pages int   // how many the document has
	end   int64 // where the next record goes
	index []entry
	count [4]int // done, failed, skipped, cancelled
}

// entry is 16 bytes a page: all that a long document costs in memory.
type entry struct {
	offset int64
	page   uint32
	// size is the record's length; the top bit marks a failed page.
	size uint32
}

const failedBit = 1 << 31

func newSegment(dir *os.Root, name string, pages int) (*segment, error) {
	f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	return &segment{dir: dir, name: name, file: f, pages: pages}, nil
}

// add appends a page's record. When that fails the segment is as it was.
func (s *segment) add(page int, status orchestrator.Status, record []byte) error {
	which := slices.Index(endings[:], status)
	if which < 0 {
		return fmt.Errorf("a page cannot end as %q", status)
	}
	if len(record) >= failedBit || page > math.MaxUint32 {
		return fmt.Errorf("the record of page %d has %d bytes", page, len(record))
	}
	if _, err := s.file.WriteAt(record, s.end); err != nil {
		return err
	}
	e := entry{offset: s.end, page: uint32(page), size: uint32(len(record))}
	if status == orchestrator.StatusFailed {
		e.size |= failedBit
	}
	s.index = append(s.index, e)
	s.end += int64(len(record))
	s.count[which]++
	return nil
}

var endings = [4]orchestrator.Status{
	orchestrator.StatusDone, orchestrator.StatusFailed, orchestrator.StatusSkipped, orchestrator.StatusCancelled,
}

// check holds a document's accounts against the pages that came, and puts the
// index into page order. s is nil for a document that never began.
func (s *segment) check(d orchestrator.DocumentResult) error {
	if s == nil {
		if d.PageCount > 0 || d.Done+d.Failed+d.Skipped+d.Cancelled != 0 {
			return fmt.Errorf("it counts %d pages and never began", d.PageCount)
		}
		return nil
	}
	if d.PageCount != s.pages || len(s.index) != s.pages {
		return fmt.Errorf("%d pages were begun, %d came, and it ends with %d", s.pages, len(s.index), d.PageCount)
	}
	if told := [4]int{d.Done, d.Failed, d.Skipped, d.Cancelled}; told != s.count {
		return fmt.Errorf("%v came as %v, and it ends with %v", s.count, endings, told)
	}
	slices.SortFunc(s.index, func(a, b entry) int { return cmp.Compare(a.page, b.page) })
	for i, e := range s.index {
		if e.page != uint32(i+1) {
			return fmt.Errorf("page %d came twice or page %d not at all", e.page, i+1)
		}
	}
	return nil
}

// read returns an entry's record in buf, grown when it is too small.
func (s *segment) read(e entry, buf []byte) ([]byte, error) {
	n := int(e.size &^ failedBit)
	buf = slices.Grow(buf[:0], n)[:n]
	_, err := s.file.ReadAt(buf, e.offset)
	return buf, err
}

// remove deletes the segment. What cannot be deleted is swept by the next run.
func (s *segment) remove() {
	_ = s.file.Close()
	_ = s.dir.Remove(s.name)
}

// writeDocument writes a document's result and notes its failures.
func (t *Tree) writeDocument(f *os.File, d orchestrator.DocumentResult, s *segment) error {
	w := bufio.NewWriterSize(f, 64<<10)
	t.enc.buf, t.enc.err = t.enc.buf[:0], nil
	t.enc.head(d, t.cfg.Model)
	if _, err := w.Write(t.enc.buf); err != nil {
		return err
	}
	if d.Err != nil {
		if err := t.fail(orchestrator.PageRef{Path: d.Path}, d.Err); err != nil {
			return err
		}
	}
	if s != nil {
		for i, e := range s.index {
			lead := ",\n"
			if i == 0 {
				lead = "\n"
			}
			var err error
			if t.copyBuf, err = s.read(e, t.copyBuf); err != nil {
				return err
			}
			if _, err := w.WriteString(lead); err != nil {
				return err
			}
			if _, err := w.Write(t.copyBuf); err != nil {
				return err
			}
			if e.size&failedBit != 0 {
				if err := t.failPage(d.Path, t.copyBuf); err != nil {
					return err
				}
			}
		}
		if len(s.index) > 0 {
			if err := w.WriteByte('\n'); err != nil {
				return err
			}
		}
	}
	if _, err := w.WriteString("]}\n"); err != nil {
		return err
	}
	return w.Flush()
}

// failPage notes a failed page from its own record.
func (t *Tree) failPage(path string, record []byte) error {
	var p Page
	if err := json.Unmarshal(record, &p); err != nil {
		return fmt.Errorf("a page record of %s does not read back: %w", path, err)
	}
	why := &orchestrator.PageError{Category: orchestrator.CategoryInternal, Message: "no reason was given"}
	if p.Error != nil {
		why = &orchestrator.PageError{Stage: p.Error.Stage, Category: p.Error.Category, Message: p.Error.Message}
	}
	return t.fail(orchestrator.PageRef{Path: path, Page: p.PageNo}, why)
}

func (t *Tree) fail(ref orchestrator.PageRef, why *orchestrator.PageError) error {
	t.enc.buf = t.enc.buf[:0]
	t.enc.failureLine(ref, why)
	return t.failures.add(t.enc.buf)
}
