package sink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quire/orchestrator"
)

// readLines reads all good lines.
func readLines(t testing.TB, data []byte) (bodies []string, r *lineReader) {
	t.Helper()
	r = newLineReader(bytes.NewReader(data), 0)
	for {
		body, at, err := r.next()
		if errors.Is(err, io.EOF) {
			return bodies, r
		}
		if err != nil {
			t.Fatal(err)
		}
		if at+int64(len(body)) > r.at || r.good != r.at {
			t.Errorf("a line at %d of %d bytes ends at %d, good up to %d", at, len(body), r.at, r.good)
		}
		bodies = append(bodies, string(body))
	}
}

func TestLines(t *testing.T) {
	var data []byte
	want := []string{`{"a":1}`, `{"b":"` + strings.Repeat("x", 100_000) + `"}`, `{"c":null}`}
	for _, body := range want {
		data = appendLine(data, []byte(body))
	}
	if got, r := readLines(t, data); !slices.Equal(got, want) || r.lost != 0 || r.good != int64(len(data)) {
		t.Errorf("%d lines, %d bytes lost", len(got), r.lost)
	}
	if line, _, _ := strings.Cut(string(data), "\n"); line != `{"crc":"0e7c35e7","a":1}` {
		t.Errorf("the first line is %s", line)
	}
	// What is no line of ours takes no memory.
	long := append(bytes.Repeat([]byte("x"), 2*maxLine), '\n')
	if got, r := readLines(t, append(long, data...)); !slices.Equal(got, want) || r.lost != int64(len(long)) || cap(r.long) > 2*maxLine {
		t.Errorf("%d lines, %d bytes lost, %d bytes kept", len(got), r.lost, cap(r.long))
	}
}

// damage cuts the data or changes some of its bytes.
func damage(rnd *rand.Rand, data []byte) []byte {
	data = bytes.Clone(data)
	switch rnd.IntN(4) {
	case 0:
		return data[:rnd.IntN(len(data)+1)]
	case 1:
		data[rnd.IntN(len(data))] ^= 1 << rnd.IntN(8)
	case 2:
		for range 1 + rnd.IntN(5) {
			data[rnd.IntN(len(data))] = byte(rnd.Int())
		}
	case 3: // a block that never came to the disk
		from := rnd.IntN(len(data))
		clear(data[from:min(len(data), from+rnd.IntN(600))])
	}
	return data
}

// Whatever happens to a journal, what is read of it is what was written; what is
// not is counted, and pages are lost only where something is wrong.
func TestDamagedJournal(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	const path, pages = "sub/a.pdf", 30
	region := orchestrator.Region{Label: "text", LabelRaw: "text", Score: 0.9, BBox: [4]float64{1, 2, 3, 4}}
	begin(t, tree, path, pages)
	for i := range pages {
		if i%7 == 0 {
			page(t, tree, failedPage(path, i+1))
		} else {
			page(t, tree, donePage(path, i+1, slices.Repeat([]orchestrator.Region{region}, i%5)...))
		}
	}
	crash(t, tree)
	name, _ := segmentFile(path)
	name = filepath.Join(dir, workDirectory, name)
	whole, err := os.ReadFile(name)
	check(t, err)
	records, written := map[int]string{}, map[string]bool{}
	for line := range strings.Lines(string(whole)) {
		written[line] = true
		if _, record, ok := strings.Cut(line, `"page":`); ok {
			no, _ := pageOf([]byte(record))
			records[no] = strings.TrimSuffix(record, "}\n")
		}
	}
	if len(records) != pages {
		t.Fatalf("%d records", len(records))
	}
	d := &disk{Root: tempRoot(t, filepath.Join(dir, workDirectory))}
	rnd := rand.New(rand.NewPCG(1, 2))
	lost := 0
	for round := range 1000 {
		data := damage(rnd, whole)
		if round == 0 {
			data = whole[:len(whole)-1] // all but the last line's end
		}
		check(t, os.WriteFile(name, data, 0o666))
		s, cut, err := loadSegment(d, path, filepath.Base(name))
		if errors.Is(err, errNotThis) {
			// Only when its first line, or all of it, is damaged.
			first := bytes.IndexByte(whole, '\n') + 1
			if len(data) >= first && bytes.Equal(data[:first], whole[:first]) {
				t.Fatalf("round %d: not taken for what it is", round)
			}
			lost++
			continue
		}
		check(t, err)
		if intact := bytes.Equal(data, whole); intact != (cut == 0) && !(cut == 0 && bytes.HasPrefix(whole, data)) {
			t.Fatalf("round %d: %d bytes said to be lost", round, cut)
		}
		var buf []byte
		seen := map[uint32]bool{}
		for _, e := range s.index {
			record, err := s.read(e, &buf)
			if err != nil || string(record) != records[int(e.page)] || seen[e.page] {
				t.Fatalf("round %d: page %d is %q (%v), want %q", round, e.page, record, err, records[int(e.page)])
			}
			seen[e.page] = true
			if failed := e.size&failedBit != 0; failed != strings.Contains(records[int(e.page)], `"failed"`) {
				t.Fatalf("round %d: page %d failed: %v", round, e.page, failed)
			}
		}
		if s.count[0]+s.count[1] != len(s.index) {
			t.Fatalf("round %d: %v for %d pages", round, s.count, len(s.index))
		}
		// Every line that is whole, and after a good beginning, counts.
		wholeLines := 0
		for line := range bytes.Lines(data) {
			if written[string(line)] && bytes.Contains(line, []byte(`"page":`)) {
				wholeLines++
			}
		}
		if s.pages > 0 && len(s.index) != wholeLines {
			t.Fatalf("round %d: %d pages of %d whole lines", round, len(s.index), wholeLines)
		}
		// It can be gone on with, and then reads without a fault.
		if s.pages < 0 {
			check(t, s.open(pages))
		}
		missing := 0
		past := s.past()
		for no := 1; no <= pages; no++ {
			if !past.Pages.Has(no) {
				check(t, s.add(no, orchestrator.StatusDone, []byte(records[no])))
				missing++
			}
		}
		check(t, s.file.Close())
		again, cut2, err := loadSegment(d, path, filepath.Base(name))
		check(t, err)
		if len(again.index) != pages || cut2 > cut {
			t.Fatalf("round %d: gone on with, %d pages, %d bytes lost, %v", round, len(again.index), cut2, err)
		}
		check(t, again.file.Close())
	}
	if lost == 0 || lost == 1000 {
		t.Errorf("%d of 1000 journals could not be read at all", lost)
	}
}

func tempRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// No file makes a panic, and what is written after it was read comes back.
func FuzzSegment(f *testing.F) {
	head := []byte(`{"schema":"quire-pages/1","path":"a.pdf","size":1,"mtime":"","model":"m","options":"o"}`)
	seed := func(bodies ...string) {
		data := appendLine(nil, head)
		for _, b := range bodies {
			data = appendLine(data, []byte(b))
		}
		f.Add(data)
	}
	seed()
	seed(eventBegun, `{"pages":3}`, `{"page":{"page_no":2,"status":"done"}}`, eventCrashed)
	seed(`{"pages":`, `{"page":`)
	seed(`{"pages":-1}`, `{"pages":9999999999999999999}`, `{"page":}`, `{"page":{"page_no":99,"status":"skipped"}}`, `{"event":"x"}`)
	f.Add([]byte("{\"crc\":\"\n\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// As it is, and as content that is checksummed.
		sealed := appendLine(nil, head)
		for line := range bytes.Lines(data) {
			if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 1 {
				sealed = appendLine(sealed, line)
			}
		}
		for _, content := range [][]byte{data, sealed} {
			dir := t.TempDir()
			d := &disk{Root: tempRoot(t, dir)}
			name, _ := segmentFile("a.pdf")
			check(t, os.WriteFile(filepath.Join(dir, name), content, 0o666))
			s, lost, err := loadSegment(d, "a.pdf", name)
			if err != nil {
				continue
			}
			if lost < 0 || lost > int64(len(content)) {
				t.Fatalf("%d bytes lost of %d", lost, len(content))
			}
			had := len(s.index)
			if s.pages < 0 {
				check(t, s.open(3))
			}
			record := fmt.Sprintf(`{"page_no":%d,"status":"done","regions":[]}`, s.pages)
			past := s.past()
			was := past.Pages.Has(s.pages)
			check(t, s.add(s.pages, orchestrator.StatusDone, []byte(record)))
			check(t, s.file.Close())
			again, _, err := loadSegment(d, "a.pdf", name)
			check(t, err)
			if !was {
				had++
			}
			if past = again.past(); len(again.index) != had || !past.Pages.Has(s.pages) {
				t.Fatalf("%d pages, want %d", len(again.index), had)
			}
			check(t, again.file.Close())
		}
	})
}
