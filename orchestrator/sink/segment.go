package sink

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"quire/orchestrator"
)

// segmentSchema names the format of a segment.
const segmentSchema = "quire-pages/1"

// segment is the journal of a document in work: what is known of it and its
// finished pages, in the order they came, in a file that is only appended to;
// in memory only where each page lies. Its name tells whether the program that
// has it in work left it in order: it is renamed then.
type segment struct {
	file  *file
	name  string
	id    identity
	pages int   // how many the document has; -1 until that is known
	end   int64 // where the next line goes
	index []entry
	count [4]int  // done, failed, skipped, cancelled
	was   *record // what the ledger says of an older result; nil for none

	crashes int         // of the whole program while it was in work
	dirty   atomic.Bool // something was written that is not flushed
	head    []byte      // the content of the first line
	buf     []byte
}

// entry is 16 bytes a page: all that a long document costs in memory.
type entry struct {
	offset int64 // of the page's line
	page   uint32
	// size is the line's length without its end; the top bit marks a failed page.
	size uint32
}

const failedBit = 1 << 31

// segmentHead is the first line of a segment.
type segmentHead struct {
	Schema       string `json:"schema"`
	Path         string `json:"path"`
	PathEncoding string `json:"path_encoding,omitempty"`
	identity
}

// The other lines are a page's record under pageKey, the number of pages under
// pagesKey, and events.
const (
	pageKey  = `{"page":`
	pagesKey = `{"pages":`

	eventBegun   = `{"event":"begun"}`
	eventCrashed = `{"event":"crashed"}`
)

// segmentFile gives the names of a document's segment: in work, and left.
func segmentFile(documentPath string) (inWork, left string) {
	sum := sha256.Sum256([]byte(documentPath))
	name := hex.EncodeToString(sum[:12]) + ".jsonl"
	return segmentPrefix + name, leftPrefix + name
}

func newSegment(dir *disk, documentPath string, id identity) (*segment, error) {
	name, _ := segmentFile(documentPath)
	text, encoding := PathText(documentPath)
	head, err := json.Marshal(segmentHead{segmentSchema, text, encoding, id})
	if err != nil {
		return nil, err
	}
	f, err := dir.create(name)
	if err != nil {
		return nil, err
	}
	s := &segment{file: f, name: name, id: id, head: head}
	if err := s.begin(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// begin writes the beginning of a segment, whatever was in it.
func (s *segment) begin() error {
	if err := s.file.Truncate(0); err != nil {
		return err
	}
	s.pages, s.end, s.index, s.count, s.crashes = -1, 0, nil, [4]int{}, 0
	return s.write(appendLine(appendLine(s.buf[:0], s.head), []byte(eventBegun)))
}

// write appends lines. When that fails the segment is as it was.
func (s *segment) write(lines []byte) error {
	s.buf = lines[:0]
	if _, err := s.file.WriteAt(lines, s.end); err != nil {
		_ = s.file.Truncate(s.end) // half a line would look like damage
		return err
	}
	s.end += int64(len(lines))
	s.dirty.Store(true)
	return nil
}

func (s *segment) event(body string) error { return s.write(appendLine(s.buf[:0], []byte(body))) }

// open notes how many pages the document has.
func (s *segment) open(pages int) error {
	if err := s.event(pagesKey + strconv.Itoa(pages) + "}"); err != nil {
		return err
	}
	s.pages = pages
	return nil
}

// add appends a page's record.
func (s *segment) add(page int, status orchestrator.Status, record []byte) error {
	which := slices.Index(endings[:], status)
	if which < 0 {
		return fmt.Errorf("a page cannot end as %q", status)
	}
	if len(pageKey)+len(record)+1+lineSeam >= failedBit || page > math.MaxUint32 {
		return fmt.Errorf("the record of page %d has %d bytes", page, len(record))
	}
	at := s.end
	if err := s.write(appendLine(s.buf[:0], []byte(pageKey), record, []byte("}"))); err != nil {
		return err
	}
	s.note(at, s.end-at-1, page, which)
	return nil
}

func (s *segment) note(at, size int64, page, which int) {
	e := entry{offset: at, page: uint32(page), size: uint32(size)}
	if endings[which] == orchestrator.StatusFailed {
		e.size |= failedBit
	}
	s.index = append(s.index, e)
	s.count[which]++
}

var endings = [4]orchestrator.Status{
	orchestrator.StatusDone, orchestrator.StatusFailed, orchestrator.StatusSkipped, orchestrator.StatusCancelled,
}

// check holds a document's accounts against the pages that came, and puts the
// index into page order.
func (s *segment) check(d orchestrator.DocumentResult) error {
	if s.pages < 0 || d.PageCount < 0 && d.Err != nil { // it may have been opened by an earlier run
		if d.PageCount > 0 || d.Done+d.Failed+d.Skipped+d.Cancelled != 0 {
			return fmt.Errorf("it counts %d pages and was never opened", d.PageCount)
		}
		return nil
	}
	if d.PageCount != s.pages || len(s.index) != s.pages {
		return fmt.Errorf("%d pages were begun, %d came, and it ends with %d", s.pages, len(s.index), d.PageCount)
	}
	if told := [4]int{d.Done, d.Failed, d.Skipped, d.Cancelled}; told != s.count {
		return fmt.Errorf("%v came as %v, and it ends with %v", s.count, endings, told)
	}
	s.sort()
	for i, e := range s.index {
		if e.page != uint32(i+1) {
			return fmt.Errorf("page %d came twice or page %d not at all", e.page, i+1)
		}
	}
	return nil
}

func (s *segment) sort() {
	slices.SortStableFunc(s.index, func(a, b entry) int { return cmp.Compare(a.page, b.page) })
}

// read returns a page's record, which lives until the next call with the same
// buf. What was written must come back.
func (s *segment) read(e entry, buf *[]byte) ([]byte, error) {
	n := int(e.size &^ failedBit)
	*buf = slices.Grow((*buf)[:0], n)[:n]
	if _, err := s.file.ReadAt(*buf, e.offset); err != nil {
		return nil, err
	}
	body, ok := openLine(*buf)
	if !ok {
		return nil, fmt.Errorf("%s is damaged at byte %d: run the same command again, the pages that are lost are done once more", s.name, e.offset)
	}
	return recordOf(body)
}

// recordOf takes a page's record out of its line.
func recordOf(body []byte) ([]byte, error) {
	record, ok := bytes.CutPrefix(body, []byte(pageKey))
	if !ok || len(record) == 0 {
		return nil, errors.New("no page's record")
	}
	return record[:len(record)-1], nil
}

// flush makes what was written last. It may be called from any goroutine.
func (s *segment) flush() error {
	if !s.dirty.Swap(false) {
		return nil
	}
	err := s.file.Sync()
	if errors.Is(err, os.ErrClosed) { // the document has ended
		return nil
	}
	if err != nil {
		s.dirty.Store(true)
	}
	return err
}

// remove deletes the segment. What cannot be deleted is found again, and its
// document's result with it.
func (s *segment) remove() {
	_ = s.file.Close()
	_ = s.file.disk.remove(s.name)
}

// leave keeps what the document has for the next run, or nothing if that is
// nothing, and says that no crash was the reason.
func (s *segment) leave(documentPath string) {
	if len(s.index) == 0 && s.crashes == 0 {
		s.remove()
		return
	}
	_ = s.file.Sync()
	_ = s.file.Close()
	// A rename needs no space, also on a disk that is full.
	_, left := segmentFile(documentPath)
	_ = s.file.disk.rename(s.name, left)
}

// errNotThis is what loadSegment returns for a file that is not the segment of
// that document.
var errNotThis = errors.New("the segment of another document, or of none")

// progressPages is how many pages of a document a life of the program must have
// brought for its crash not to count: a long document in work is no reason to
// suspect it.
const progressPages = 1000

// loadSegment opens what an earlier run has left of a document. What is damaged
// is left out, and what is torn at the end cut off: lost tells how many bytes, also
// beside an error, since what is cut off is not met again.
func loadSegment(dir *disk, documentPath, name string) (_ *segment, lost int64, err error) {
	f, err := dir.open(name, os.O_RDWR)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	s, r, lately, err := readSegment(f, documentPath)
	if err != nil {
		return nil, 0, err
	}
	s.end = r.good
	if err := f.Truncate(s.end); err != nil {
		return nil, 0, err // the next try meets it again
	}
	if strings.HasPrefix(name, segmentPrefix) && lately < progressPages {
		// Nobody has left it in order.
		if err := s.event(eventCrashed); err != nil {
			return nil, r.lost, err
		}
		s.crashes++
	}
	return s, r.lost, nil
}

// readSegment reads the segment of a document, and tells how many pages have come
// since it was begun last.
func readSegment(f *file, documentPath string) (s *segment, r *lineReader, lately int, err error) {
	s, r = &segment{file: f, name: f.name, pages: -1}, newLineReader(f, 0)
	for first := true; ; first = false {
		body, at, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, 0, err
		}
		if first && at > 0 {
			return nil, nil, 0, errNotThis // whose it is is damaged
		}
		switch {
		case first:
			var head segmentHead
			if json.Unmarshal(body, &head) != nil || head.Schema != segmentSchema {
				return nil, nil, 0, errNotThis
			}
			if path, err := pathFrom(head.Path, head.PathEncoding); err != nil || path != documentPath {
				return nil, nil, 0, errNotThis
			}
			s.id, s.head = head.identity, bytes.Clone(body)
		case bytes.HasPrefix(body, []byte(pageKey)):
			record, err := recordOf(body)
			if err != nil {
				break
			}
			page, status := pageOf(record)
			if which := slices.Index(endings[:2], status); which >= 0 && page > 0 && s.pages > 0 && page <= s.pages {
				s.note(at, r.at-at-1, page, which)
				lately++
			}
		case bytes.HasPrefix(body, []byte(pagesKey)):
			number, ok := bytes.CutSuffix(body[len(pagesKey):], []byte("}"))
			n, err := strconv.Atoi(string(number))
			if ok && err == nil && n > 0 && s.pages < 0 {
				s.pages = n
			}
		case string(body) == eventBegun:
			lately = 0
		case string(body) == eventCrashed:
			s.crashes++
		}
	}
	if s.head == nil {
		return nil, nil, 0, errNotThis
	}
	s.settle(func(entry) bool { return true })
	return s, r, lately, nil
}

// settle keeps the last record of each page, of those that keep says.
func (s *segment) settle(keep func(entry) bool) {
	s.sort()
	kept := s.index[:0]
	s.count = [4]int{}
	for i, e := range s.index {
		if i+1 < len(s.index) && s.index[i+1].page == e.page || !keep(e) {
			continue
		}
		kept = append(kept, e)
		if e.size&failedBit != 0 {
			s.count[1]++
		} else {
			s.count[0]++
		}
	}
	s.index = kept
}

// dropFailed forgets the pages that failed, so that they come again.
func (s *segment) dropFailed() {
	s.settle(func(e entry) bool { return e.size&failedBit == 0 })
}

// past tells which pages the segment has.
func (s *segment) past() orchestrator.Past {
	var p orchestrator.Past
	if s.pages < 0 {
		return p
	}
	p.PageCount, p.Done, p.Failed = s.pages, s.count[0], s.count[1]
	for _, e := range s.index {
		p.Pages.Add(int(e.page))
	}
	return p
}

// pageOf reads the beginning of a page's record as the encoder writes it; page
// is 0 for anything else.
func pageOf(record []byte) (page int, status orchestrator.Status) {
	rest, ok := bytes.CutPrefix(record, []byte(`{"page_no":`))
	if !ok {
		return 0, ""
	}
	number, rest, ok := bytes.Cut(rest, []byte(`,"status":"`))
	if !ok {
		return 0, ""
	}
	word, _, ok := bytes.Cut(rest, []byte(`"`))
	page, err := strconv.Atoi(string(number))
	if !ok || err != nil || page < 1 || page > math.MaxUint32 {
		return 0, ""
	}
	return page, orchestrator.Status(word)
}
