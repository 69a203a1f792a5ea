package sink

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// sortBytes is how much of the failures is sorted in memory at a time. More
// than that, as when every one of a million documents fails, is sorted in runs
// on the disk that are then merged.
const sortBytes = 8 << 20

// failureLog collects the lines of failed.jsonl in the order they come.
type failureLog struct {
	tree      *Tree
	name      string
	file      *os.File
	kept      int64 // lines of documents whose result stands
	end       int64 // the same and the lines of the document being ended
	sortBytes int
}

func newFailureLog(t *Tree) (*failureLog, error) {
	name := t.name(failuresPrefix)
	f, err := t.work.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	return &failureLog{tree: t, name: name, file: f, sortBytes: sortBytes}, nil
}

// add notes a line; it counts once keep is called.
func (l *failureLog) add(line []byte) error {
	if _, err := l.file.WriteAt(line, l.end); err != nil {
		return err
	}
	l.end += int64(len(line))
	return nil
}

func (l *failureLog) keep()   { l.kept = l.end }
func (l *failureLog) forget() { l.end = l.kept }

func (l *failureLog) remove() {
	_ = l.file.Close()
	_ = l.tree.work.Remove(l.name)
}

// failureLine is a line and what it is sorted by: path, then the document
// before its pages, then the page.
type failureLine struct {
	path string
	page int
	text []byte
}

func parseFailure(text []byte) (failureLine, error) {
	var key struct {
		Path string
		Page int
	}
	if err := json.Unmarshal(text, &key); err != nil {
		return failureLine{}, fmt.Errorf("a line of the failures does not read back: %w", err)
	}
	return failureLine{path: key.Path, page: key.Page, text: text}, nil
}

func compareFailures(a, b failureLine) int {
	return cmp.Or(strings.Compare(a.path, b.path), cmp.Compare(a.page, b.page), bytes.Compare(a.text, b.text))
}

// writeSorted writes all lines to f in order.
func (l *failureLog) writeSorted(f *os.File) error {
	in := bufio.NewReader(io.NewSectionReader(l.file, 0, l.kept))
	var runs []*failureRun
	defer func() {
		for _, r := range runs {
			r.remove()
		}
	}()
	for {
		lines, err := l.readChunk(in)
		if err != nil {
			return err
		}
		last := len(lines) == 0
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			last = true
		}
		if last && len(runs) == 0 {
			return writeLines(f, lines) // it all fitted
		}
		if len(lines) > 0 {
			run, err := l.newRun(lines)
			if err != nil {
				return err
			}
			runs = append(runs, run)
		}
		if last {
			return merge(f, runs)
		}
	}
}

// readChunk reads about sortBytes of lines and sorts them.
func (l *failureLog) readChunk(in *bufio.Reader) ([]failureLine, error) {
	var lines []failureLine
	for size := 0; size < l.sortBytes; {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, err := parseFailure(text)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
		size += len(text)
	}
	slices.SortFunc(lines, compareFailures)
	return lines, nil
}

func writeLines(f *os.File, lines []failureLine) error {
	w := bufio.NewWriter(f)
	for _, line := range lines {
		if _, err := w.Write(line.text); err != nil {
			return err
		}
	}
	return w.Flush()
}

// failureRun is a sorted part of the failures in a file of its own.
type failureRun struct {
	dir  *os.Root
	name string
	file *os.File
	in   *bufio.Reader
	head failureLine
}

func (l *failureLog) newRun(lines []failureLine) (*failureRun, error) {
	name := l.tree.name(failuresPrefix)
	f, err := l.tree.work.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	r := &failureRun{dir: l.tree.work, name: name, file: f}
	err = writeLines(f, lines)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		r.remove()
		return nil, err
	}
	r.in = bufio.NewReader(f)
	return r, nil
}

func (r *failureRun) remove() {
	_ = r.file.Close()
	_ = r.dir.Remove(r.name)
}

// next reads the run's next line into head; io.EOF at its end.
func (r *failureRun) next() error {
	text, err := r.in.ReadBytes('\n')
	if err != nil {
		return err
	}
	r.head, err = parseFailure(text)
	return err
}

// runHeap has the run with the smallest head on top.
type runHeap []*failureRun

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return compareFailures(h[i].head, h[j].head) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)        { *h = append(*h, x.(*failureRun)) }
func (h *runHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func merge(f *os.File, runs []*failureRun) error {
	w := bufio.NewWriter(f)
	h := make(runHeap, 0, len(runs))
	for _, r := range runs {
		if err := r.next(); err != nil {
			return err
		}
		h = append(h, r)
	}
	heap.Init(&h)
	for len(h) > 0 {
		if _, err := w.Write(h[0].head.text); err != nil {
			return err
		}
		switch err := h[0].next(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&h)
		case err != nil:
			return err
		default:
			heap.Fix(&h, 0)
		}
	}
	return w.Flush()
}
