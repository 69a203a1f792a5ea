package sink

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// sortBytes is how much of the ledger is sorted in memory at a time. More than
// that, as after a run over a million documents, is sorted in pieces on the
// disk that are then merged.
var sortBytes = 8 << 20

// comparePaths is the order of the ledger and of failed.jsonl, which is that in
// which directories are walked: name by name.
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			switch {
			case a[i] == '/':
				return -1
			case b[i] == '/':
				return 1
			}
			return cmp.Compare(a[i], b[i])
		}
	}
	return cmp.Compare(len(a), len(b))
}

// merge takes what ended lately into the sorted file. It is done when the
// ledger is opened, after a run that was killed, and when a run ends. A crash
// at any point of it changes nothing: it is done again.
func (l *ledger) merge() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recent == nil {
		f, err := l.disk.open(recentName, os.O_RDWR)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		l.recent = f
	}
	var sources []*source
	defer func() {
		for _, s := range sources {
			s.close()
		}
	}()
	first := &source{lines: newLineReader(strings.NewReader(""), 0)}
	if l.sorted != nil {
		first.lines.reset(l.sorted, 0)
	}
	sources = append(sources, first)
	in := newLineReader(l.recent, 0)
	for {
		s, err := l.sortPiece(in, len(sources))
		if err != nil {
			return err
		}
		if s == nil {
			break
		}
		sources = append(sources, s)
	}
	if in.lost > 0 {
		l.lost(recentName, in.lost)
	}
	temp := tempPrefix + ledgerName
	_ = l.disk.remove(temp)
	f, err := l.disk.create(temp)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	if err = mergeTo(w, sources); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = l.disk.rename(temp, ledgerName)
	}
	if err != nil {
		_ = l.disk.remove(temp)
		return err
	}
	if l.sorted != nil {
		l.lines.lost = 0 // it is read as a whole here, and what was damaged is gone now
	}
	if first.lines.lost > 0 {
		l.lost(ledgerName, first.lines.lost)
	}
	if err := l.disk.sync("."); err != nil {
		return err
	}
	_ = l.recent.Close()
	l.recent = nil
	// First, since a try after one that fails below may find nothing to do.
	if err := l.openSorted(); err != nil {
		return err
	}
	if err := l.disk.remove(recentName); err != nil {
		return err
	}
	return l.disk.sync(".")
}

// mergeTo writes the ledger that sources make together.
func mergeTo(w io.Writer, sources []*source) error {
	if _, err := w.Write(appendLine(nil, []byte(ledgerHead))); err != nil {
		return err
	}
	var h byPath
	for _, s := range sources {
		switch err := s.next(); {
		case err == nil:
			h = append(h, s)
		case !errors.Is(err, io.EOF):
			return err
		}
	}
	heap.Init(&h)
	for last, any := "", false; len(h) > 0; {
		s := h[0]
		// Of lines with one path the first that comes is the latest.
		if !any || s.path != last {
			last, any = s.path, true
			if !s.gone {
				if _, err := w.Write(s.line); err != nil {
					return err
				}
			}
		}
		switch err := s.next(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&h)
		case err != nil:
			return err
		default:
			heap.Fix(&h, 0)
		}
	}
	return nil
}

// source is a sorted stream of lines. Of two with the same path, that of the
// later source counts.
type source struct {
	lines *lineReader
	rank  int
	piece *file // nil for what is not a file of its own

	line []byte // as it stands in the file
	path string
	gone bool
}

func (s *source) close() {
	if s.piece != nil {
		_ = s.piece.Close()
		_ = s.piece.disk.remove(s.piece.name)
	}
}

// next reads the next line; io.EOF at the end.
func (s *source) next() error {
	r, body, _, err := nextRecord(s.lines)
	if err == nil {
		s.line, s.path, s.gone = appendLine(s.line[:0], body), r.path, r.Status == statusGone
	}
	return err
}

// sortPiece sorts about sortBytes of lines, into a file of its own unless they
// are the last; nil when there are none left.
func (l *ledger) sortPiece(in *lineReader, rank int) (*source, error) {
	type line struct {
		path string
		text []byte
	}
	var lines []line
	last := false
	for size := 0; size < sortBytes; {
		r, body, _, err := nextRecord(in)
		if errors.Is(err, io.EOF) {
			last = true
			break
		}
		if err != nil {
			return nil, err
		}
		text := appendLine(nil, body)
		lines = append(lines, line{r.path, text})
		size += len(text)
	}
	if len(lines) == 0 {
		return nil, nil
	}
	slices.SortStableFunc(lines, func(a, b line) int { return comparePaths(a.path, b.path) })
	var sorted []byte
	for i, line := range lines {
		if i+1 == len(lines) || lines[i+1].path != line.path { // the last one counts
			sorted = append(sorted, line.text...)
		}
	}
	s := &source{rank: rank}
	if last {
		s.lines = newLineReader(bytes.NewReader(sorted), 0)
		return s, nil
	}
	f, err := l.disk.create(fmt.Sprintf("%spiece-%04d", tempPrefix, rank))
	if err != nil {
		return nil, err
	}
	s.piece, s.lines = f, newLineReader(f, 0)
	if _, err := f.Write(sorted); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// byPath has the source with the smallest path on top, of equals the latest.
type byPath []*source

func (h byPath) Len() int { return len(h) }
func (h byPath) Less(i, j int) bool {
	return cmp.Or(comparePaths(h[i].path, h[j].path), cmp.Compare(h[j].rank, h[i].rank)) < 0
}
func (h byPath) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byPath) Push(x any)   { *h = append(*h, x.(*source)) }
func (h *byPath) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
