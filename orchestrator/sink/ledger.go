package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"quire/orchestrator"
)

// ledgerSchema names the format of the ledger.
const ledgerSchema = "quire-finished/1"

// record is a finished document in the ledger: what its result was made from,
// and what is in it.
type record struct {
	// Status comes first, so that what is done can be told without reading on.
	Status       orchestrator.Status `json:"status"`
	Path         string              `json:"path"`
	PathEncoding string              `json:"path_encoding,omitempty"`
	identity
	// Pages is nil when the document would not open; Failed of them failed.
	Pages  *int `json:"page_count"`
	Failed int  `json:"pages_failed"`
	// Bytes is the size of the result, or noBytes.
	Bytes int64 `json:"bytes"`
	// Error is there when the document as a whole failed.
	Error *Failure `json:"error,omitempty"`

	// Schema is in the first line only, which has nothing else.
	Schema string `json:"schema,omitempty"`

	path string // the document's, as Path and PathEncoding say it
}

const (
	// statusGone is of a document whose result was removed.
	statusGone orchestrator.Status = "gone"

	// noBytes is the size of a result that may have been replaced.
	noBytes = -1

	doneStart  = `{"status":"done",`
	ledgerHead = `{"schema":"` + ledgerSchema + `"}`
)

func recordFor(d orchestrator.DocumentResult, id identity, bytes int64) record {
	r := record{Status: d.Status, identity: id, Failed: d.Failed, Bytes: bytes, path: d.Path}
	r.Path, r.PathEncoding = PathText(d.Path)
	if d.PageCount >= 0 {
		r.Pages = &d.PageCount
	}
	if d.Err != nil {
		r.Error = &Failure{d.Err.Stage, d.Err.Category, oneLine(d.Err.Message)}
	}
	return r
}

// result is how the document ended.
func (r record) result() *orchestrator.DocumentResult {
	d := &orchestrator.DocumentResult{Path: r.path, Size: r.Size, Status: r.Status, PageCount: -1}
	if r.Pages != nil {
		d.PageCount, d.Failed, d.Done = *r.Pages, r.Failed, *r.Pages-r.Failed
	}
	if r.Error != nil {
		d.Err = &orchestrator.PageError{Ref: orchestrator.PageRef{Path: r.path}, Stage: r.Error.Stage, Category: r.Error.Category, Message: r.Error.Message}
	}
	return d
}

// ledger knows the finished documents: those of earlier runs in a file that is
// sorted by path, those of this one in a second file in the order they ended.
// Next to nothing of either is in memory: documents are asked for in order, more
// or less, and read in order.
type ledger struct {
	disk *disk
	lost func(name string, bytes int64) // is told what is damaged

	// Of the goroutine that asks. The cursor stands before head, which is the
	// first record that is not below what was asked for last.
	sorted *file // nil when there is none
	size   int64
	lines  *lineReader
	head   record
	headAt int64
	ended  bool   // there is no head
	passed string // path of the record before head; empty for none, or not known
	known  bool   // whether passed is known
	seen   []uint64

	mu     sync.Mutex
	recent *file // nil until the first document has ended
	end    int64
}

// seenGrain is less than the shortest record is long, so that each has a bit of
// its own.
const seenGrain = 64

// openLedger opens the ledger, without what a run that was killed has added to it.
func openLedger(d *disk, lost func(string, int64)) (*ledger, error) {
	l := &ledger{disk: d, lost: lost}
	if err := l.openSorted(); err != nil {
		if l.sorted != nil {
			l.lines.lost = 0 // the next try meets it again
		}
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *ledger) openSorted() error {
	l.closeSorted()
	f, err := l.disk.open(ledgerName, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		l.ended = true
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.sorted, l.size = f, info.Size()
	l.seen = make([]uint64, (l.size/seenGrain+64)/64)
	l.lines = newLineReader(f, 0)
	return l.advance()
}

func (l *ledger) closeSorted() {
	if l.sorted != nil {
		if l.lines.lost > 0 {
			l.lost(ledgerName, l.lines.lost)
		}
		_ = l.sorted.Close()
	}
	l.sorted, l.lines, l.size, l.seen = nil, nil, 0, nil
	l.ended, l.known, l.passed, l.head = false, true, "", record{}
}

func (l *ledger) close() {
	l.closeSorted()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recent != nil {
		_ = l.recent.Close()
		l.recent = nil
	}
}

// parseRecord reads a line of the ledger; ok is false for the first.
func parseRecord(body []byte) (r record, ok bool, err error) {
	if err := json.Unmarshal(body, &r); err != nil {
		return r, false, fmt.Errorf("a line of the ledger does not read back: %w", err)
	}
	if r.Schema != "" {
		if r.Schema != ledgerSchema {
			return r, false, fmt.Errorf("%s/%s is of another version of quire: it is %q, wanted %q; name another directory with -o, or remove that file to do every document again", workDirectory, ledgerName, r.Schema, ledgerSchema)
		}
		return r, false, nil
	}
	r.path, err = pathFrom(r.Path, r.PathEncoding)
	return r, err == nil, err
}

// nextRecord reads the next record of the ledger, with the content of its line and
// where that begins, as lineReader.next does; io.EOF at the end.
func nextRecord(lines *lineReader) (r record, body []byte, at int64, err error) {
	for ok := false; !ok; {
		if body, at, err = lines.next(); err != nil {
			return r, nil, 0, err
		}
		if r, ok, err = parseRecord(body); err != nil {
			return r, nil, 0, err
		}
	}
	return r, body, at, nil
}

// advance moves the cursor by one record.
func (l *ledger) advance() error {
	r, _, at, err := nextRecord(l.lines)
	if errors.Is(err, io.EOF) {
		l.ended = true
		return nil
	}
	if err == nil {
		l.head, l.headAt = r, at
	}
	return err
}

// near is how far the cursor goes step by step before it jumps.
const near = 64

// find returns the record of a document.
func (l *ledger) find(path string) (record, bool, error) {
	for range near {
		switch order := l.compare(path); {
		case order == 0:
			return l.take()
		case order < 0 && l.known && comparePaths(l.passed, path) < 0:
			return record{}, false, nil // between two that follow each other
		case order < 0:
			return l.jump(path)
		}
		l.passed, l.known = l.head.path, true
		if err := l.advance(); err != nil {
			return record{}, false, err
		}
	}
	return l.jump(path)
}

// compare tells where a path lies from head.
func (l *ledger) compare(path string) int {
	if l.ended {
		return -1
	}
	return comparePaths(path, l.head.path)
}

func (l *ledger) take() (record, bool, error) {
	at := l.headAt / seenGrain
	l.seen[at/64] |= 1 << (at % 64)
	return l.head, true, nil
}

func (l *ledger) wasSeen(at int64) bool {
	at /= seenGrain
	return l.seen[at/64]>>(at%64)&1 == 1
}

// jump puts the cursor before the first record that is not below path, by
// bisection, and looks whether that is it.
func (l *ledger) jump(path string) (record, bool, error) {
	if l.sorted == nil {
		return record{}, false, nil
	}
	l.ended, l.known = false, false
	// What begins before lo is below path, what begins at hi or later is not.
	lo, hi := int64(0), l.size
	for lo < hi {
		mid := lo + (hi-lo)/2
		if err := l.seek(mid); err != nil {
			return record{}, false, err
		}
		if l.ended || l.headAt >= hi || comparePaths(l.head.path, path) >= 0 {
			l.ended = false
			hi = mid
		} else {
			lo = l.lines.at
		}
	}
	if err := l.seek(lo); err != nil {
		return record{}, false, err
	}
	if l.compare(path) == 0 {
		return l.take()
	}
	return record{}, false, nil
}

// seek puts the cursor before the first record that begins at an offset or
// after it.
func (l *ledger) seek(at int64) error {
	if at > 0 {
		at-- // a line begins there if one ends before
	}
	lost := l.lines.lost
	l.lines.reset(l.sorted, at)
	if at > 0 {
		_, size, err := l.lines.line()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		l.lines.at += size
	}
	err := l.advance()
	l.lines.lost = lost // the same bytes may be met again
	return err
}

// unseen calls each for the records that nobody asked for.
func (l *ledger) unseen(each func(record) error) error {
	return l.without(func(_ []byte, at int64) bool { return l.wasSeen(at) }, each)
}

// failed calls each for the documents that are not done.
func (l *ledger) failed(each func(record) error) error {
	return l.without(func(body []byte, _ int64) bool { return bytes.HasPrefix(body, []byte(doneStart)) }, each)
}

// without calls each for the records in order, but for those that leaveOut says by
// the content of their line and where that begins.
func (l *ledger) without(leaveOut func(body []byte, at int64) bool, each func(record) error) error {
	if l.sorted == nil {
		return nil
	}
	for lines := newLineReader(l.sorted, 0); ; {
		body, at, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if leaveOut(body, at) {
			continue
		}
		r, ok, err := parseRecord(body)
		if err == nil && ok {
			err = each(r)
		}
		if err != nil {
			return err
		}
	}
}

// add notes documents that have ended, and with flush makes that last. When it
// fails nothing was noted. It may be called from any goroutine.
func (l *ledger) add(records []record, flush bool) error {
	var lines []byte
	for _, r := range records {
		body, err := json.Marshal(r)
		if err != nil {
			return err
		}
		lines = appendLine(lines, body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recent == nil {
		f, err := l.disk.create(recentName)
		if err != nil {
			return err
		}
		if err := l.disk.sync("."); err != nil {
			_ = f.Close()
			_ = l.disk.remove(recentName)
			return err
		}
		l.recent, l.end = f, 0
	}
	_, err := l.recent.WriteAt(lines, l.end)
	if err == nil && flush {
		err = l.recent.Sync()
	}
	if err != nil {
		_ = l.recent.Truncate(l.end) // half a line would look like damage
		return err
	}
	l.end += int64(len(lines))
	return nil
}
