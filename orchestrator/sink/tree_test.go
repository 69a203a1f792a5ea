package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"quire/orchestrator"
)

var testModel = orchestrator.ModelInfo{Name: "layout", Version: "1"}

func openTree(t *testing.T, dir string) *Tree {
	t.Helper()
	tree, err := Open(Config{Dir: dir, Tool: "quire", ToolVersion: "0.1", Model: testModel, Options: map[string]any{"threshold": 0.5, "colour": "rgb"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return tree
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func donePage(path string, page int, regions ...orchestrator.Region) orchestrator.PageResult {
	return orchestrator.PageResult{
		Ref: orchestrator.PageRef{Path: path, Page: page}, Status: orchestrator.StatusDone,
		Geometry:   orchestrator.Geometry{WidthPt: 612, HeightPt: 792.004, Rotation: 90, CropBox: [4]float64{-0.001, 0, 792.004, 612}},
		ImageWidth: 608, ImageHeight: 800, Regions: regions,
	}
}

func failedPage(path string, page int) orchestrator.PageResult {
	ref := orchestrator.PageRef{Path: path, Page: page}
	return orchestrator.PageResult{Ref: ref, Status: orchestrator.StatusFailed, Err: &orchestrator.PageError{
		Ref: ref, Stage: orchestrator.StageRender, Category: orchestrator.CategoryTimeout, Message: "stopped after 30s",
	}}
}

// write sends one document with these pages through the tree.
func write(t *testing.T, tree *Tree, path string, pages ...orchestrator.PageResult) {
	t.Helper()
	d := orchestrator.DocumentResult{Path: path, Size: 1234, PageCount: len(pages)}
	check(t, tree.Begin(orchestrator.Document{Path: path, Size: 1234}, len(pages)))
	for _, p := range pages {
		check(t, tree.Page(p))
		if p.Status == orchestrator.StatusDone {
			d.Done++
		} else {
			d.Failed++
		}
	}
	switch {
	case d.Failed == 0:
		d.Status = orchestrator.StatusDone
	case d.Done == 0:
		d.Status = orchestrator.StatusFailed
	default:
		d.Status = orchestrator.StatusPartial
	}
	check(t, tree.End(d))
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	check(t, err)
	return string(data)
}

// files lists what is below dir, with slashes.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	check(t, fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, p)
		}
		return err
	}))
	return names
}

func TestDocumentBytes(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	region := orchestrator.Region{
		ID: 0, Label: "section_header", LabelRaw: "title", ClassID: 1, Score: 0.987654,
		BBox: [4]float64{-0.0001, 1.005, 99.999, 400}, Order: 0,
	}
	// Pages come in any order and stand in page order.
	write(t, tree, "sub/a.pdf", failedPage("sub/a.pdf", 2), donePage("sub/a.pdf", 1, region), donePage("sub/a.pdf", 3))
	want := `{"schema":"quire/1","source":{"path":"sub/a.pdf","size":1234},"model":{"name":"layout","version":"1"},"status":"partial","page_count":3,"bbox_unit":"pt","bbox_origin":"top-left","pages":[
{"page_no":1,"status":"done","page":{"width_pt":612.00,"height_pt":792.00,"rotation":90,"crop_box":[0.00,0.00,792.00,612.00]},"image":{"width_px":608,"height_px":800},"regions":[{"id":0,"label":"section_header","label_raw":"title","class_id":1,"score":0.9877,"bbox":[0.00,1.00,100.00,400.00],"order":0}]},
{"page_no":2,"status":"failed","error":{"stage":"render","category":"timeout","message":"stopped after 30s"},"page":null,"image":null,"regions":[]},
{"page_no":3,"status":"done","page":{"width_pt":612.00,"height_pt":792.00,"rotation":90,"crop_box":[0.00,0.00,792.00,612.00]},"image":{"width_px":608,"height_px":800},"regions":[]}
]}
`
	if got := read(t, dir, "sub/a.pdf.json"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	check(t, tree.End(orchestrator.DocumentResult{Path: "b\xff.pdf", Size: 7, Status: orchestrator.StatusFailed, PageCount: -1, Err: &orchestrator.PageError{
		Stage: orchestrator.StageOpen, Category: orchestrator.CategoryNotPDF, Message: "no \"PDF\"\nhere\x01\xff",
	}}))
	want = `{"schema":"quire/1","source":{"path":"b%FF.pdf","path_encoding":"percent","size":7},"model":{"name":"layout","version":"1"},"status":"failed",` +
		`"error":{"stage":"open","category":"not_pdf","message":"no \"PDF\" here ` + "\uFFFD" + `"},"page_count":null,"bbox_unit":"pt","bbox_origin":"top-left","pages":[]}` + "\n"
	if got := read(t, dir, "b%FF.pdf.json"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	check(t, tree.Finish())
	want = `{"path":"b%FF.pdf","path_encoding":"percent","page":null,"stage":"open","category":"not_pdf","message":"no \"PDF\" here ` + "\uFFFD\"}\n" +
		`{"path":"sub/a.pdf","page":2,"stage":"render","category":"timeout","message":"stopped after 30s"}` + "\n"
	if got := read(t, dir, failuresName); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = `{
  "schema": "quire-run/1",
  "tool": {
    "name": "quire",
    "version": "0.1"
  },
  "model": {
    "name": "layout",
    "version": "1"
  },
  "options": {
    "colour": "rgb",
    "threshold": 0.5
  }
}
`
	if got := read(t, dir, runName); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	check(t, tree.Close())
	wantFiles := []string{".quire/lock", "b%FF.pdf.json", "failed.jsonl", "run.json", "sub/a.pdf.json"}
	if got := files(t, dir); !slices.Equal(got, wantFiles) {
		t.Errorf("left %q, want %q", got, wantFiles)
	}
}

// What the writer writes, the reader's types read without a key left over.
func TestReadDocument(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	tree.cfg.Model.Digest = "abc"
	region := orchestrator.Region{ID: 0, Label: "täxt\u2028\"", LabelRaw: "a\\b\t", ClassID: 3, Score: 0.75, BBox: [4]float64{1.5, 2.25, 3, 4}, Order: 0}
	write(t, tree, "a.pdf", donePage("a.pdf", 1, region, region), failedPage("a.pdf", 2))

	dec := json.NewDecoder(strings.NewReader(read(t, dir, "a.pdf.json")))
	dec.DisallowUnknownFields()
	var strict Document
	check(t, dec.Decode(&strict))
	got, err := ReadDocument(filepath.Join(dir, "a.pdf.json"))
	check(t, err)
	if !reflect.DeepEqual(*got, strict) {
		t.Errorf("two readings differ: %+v and %+v", got, strict)
	}
	count := 2
	want := Document{
		Schema: Schema, Source: Source{Path: "a.pdf", Size: 1234}, Model: Model{"layout", "1", "abc"},
		Status: orchestrator.StatusPartial, PageCount: &count, BBoxUnit: "pt", BBoxOrigin: "top-left",
		Pages: []Page{
			{PageNo: 1, Status: "done", Geometry: &Geometry{612, 792, 90, [4]float64{0, 0, 792, 612}}, Image: &Image{608, 800},
				Regions: []Region{Region(region), Region(region)}},
			{PageNo: 2, Status: "failed", Error: &Failure{"render", "timeout", "stopped after 30s"}, Regions: []Region{}},
		},
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}

	for name, content := range map[string]string{"other": `{"schema":"quire/9"}`, "half": `{"schema":"quire/1","pa`} {
		file := filepath.Join(dir, name)
		check(t, os.WriteFile(file, []byte(content), 0o666))
		if _, err := ReadDocument(file); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want an error that names it", name, err)
		}
	}
}

// The same results give the same bytes, whatever order pages and documents
// come in and whatever was there before.
func TestBytesDoNotDependOnOrder(t *testing.T) {
	var want map[string]string
	rng := rand.New(rand.NewPCG(1, 1))
	dir := t.TempDir()
	for round := range 5 {
		tree := openTree(t, dir)
		paths := []string{"a.pdf", "b/b.pdf", "b/c.pdf"}
		rng.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
		for _, p := range paths {
			pages := []orchestrator.PageResult{donePage(p, 1), failedPage(p, 2), donePage(p, 3), failedPage(p, 4)}
			rng.Shuffle(len(pages), func(i, j int) { pages[i], pages[j] = pages[j], pages[i] })
			write(t, tree, p, pages...)
		}
		check(t, tree.Finish())
		check(t, tree.Close())
		got := make(map[string]string)
		for _, f := range files(t, dir) {
			got[f] = read(t, dir, f)
		}
		if round == 0 {
			want = got
		} else if !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d: got %v, want %v", round, got, want)
		}
	}
}

// Documents interleave: the engine has several in work.
func TestDocumentsInWorkTogether(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	for _, p := range []string{"a.pdf", "b.pdf"} {
		check(t, tree.Begin(orchestrator.Document{Path: p}, 2))
	}
	for page := range 2 {
		for _, p := range []string{"a.pdf", "b.pdf"} {
			check(t, tree.Page(donePage(p, page+1)))
		}
	}
	if got := files(t, dir); slices.Contains(got, "a.pdf.json") {
		t.Error("a result stands before its document ended")
	}
	for _, p := range []string{"a.pdf", "b.pdf"} {
		check(t, tree.End(orchestrator.DocumentResult{Path: p, Status: orchestrator.StatusDone, PageCount: 2, Done: 2}))
		d, err := ReadDocument(filepath.Join(dir, p+".json"))
		check(t, err)
		if d.Source.Path != p || len(d.Pages) != 2 {
			t.Errorf("%s: got %+v", p, d)
		}
	}
	check(t, tree.Begin(orchestrator.Document{Path: "empty.pdf"}, 0))
	check(t, tree.End(orchestrator.DocumentResult{Path: "empty.pdf", Status: orchestrator.StatusFailed, PageCount: 0,
		Err: &orchestrator.PageError{Stage: orchestrator.StageOpen, Category: orchestrator.CategoryNoPages, Message: "no page"}}))
}

// A skipped or cancelled document leaves an older result alone.
func TestCancelledLeavesNoResult(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, tree, "old.pdf", donePage("old.pdf", 1))
	old := read(t, dir, "old.pdf.json")
	for _, p := range []string{"old.pdf", "new.pdf"} {
		check(t, tree.Begin(orchestrator.Document{Path: p}, 2))
		check(t, tree.Page(failedPage(p, 1)))
		check(t, tree.End(orchestrator.DocumentResult{Path: p, Status: orchestrator.StatusCancelled, PageCount: 2, Failed: 1, Cancelled: 1}))
	}
	check(t, tree.End(orchestrator.DocumentResult{Path: "skipped.pdf", Status: orchestrator.StatusSkipped, PageCount: -1}))
	check(t, tree.Finish())
	check(t, tree.Close())
	if got := read(t, dir, "old.pdf.json"); got != old {
		t.Errorf("the older result became %s", got)
	}
	want := []string{".quire/lock", "failed.jsonl", "old.pdf.json", "run.json"}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
	if got := read(t, dir, failuresName); got != "" {
		t.Errorf("failures of documents that did not end: %s", got)
	}
}

// Calls that break the sink's contract are refused, not written down.
func TestAccountsMustAddUp(t *testing.T) {
	done := orchestrator.StatusDone
	tests := []struct {
		name string
		do   func(*Tree) error
	}{
		{"begun twice", func(tr *Tree) error { return tr.Begin(orchestrator.Document{Path: "a.pdf"}, 2) }},
		{"outside the root", func(tr *Tree) error { return tr.Begin(orchestrator.Document{Path: "../a.pdf"}, 2) }},
		{"page of an unknown document", func(tr *Tree) error { return tr.Page(donePage("b.pdf", 1)) }},
		{"page zero", func(tr *Tree) error { return tr.Page(donePage("a.pdf", 0)) }},
		{"page beyond the end", func(tr *Tree) error { return tr.Page(donePage("a.pdf", 3)) }},
		{"a number that is none", func(tr *Tree) error {
			return tr.Page(donePage("a.pdf", 2, orchestrator.Region{Score: math.NaN()}))
		}},
		{"page without an end", func(tr *Tree) error {
			return tr.Page(orchestrator.PageResult{Ref: orchestrator.PageRef{Path: "a.pdf", Page: 2}})
		}},
		{"a page missing", func(tr *Tree) error {
			return tr.End(orchestrator.DocumentResult{Path: "a.pdf", Status: done, PageCount: 2, Done: 2})
		}},
		{"fewer pages than begun", func(tr *Tree) error {
			return tr.End(orchestrator.DocumentResult{Path: "a.pdf", Status: done, PageCount: 1, Done: 1})
		}},
		{"a page twice", func(tr *Tree) error {
			if err := tr.Page(donePage("a.pdf", 1)); err != nil {
				return nil
			}
			return tr.End(orchestrator.DocumentResult{Path: "a.pdf", Status: done, PageCount: 2, Done: 2})
		}},
		{"counts of another kind", func(tr *Tree) error {
			if err := tr.Page(donePage("a.pdf", 2)); err != nil {
				return nil
			}
			return tr.End(orchestrator.DocumentResult{Path: "a.pdf", Status: done, PageCount: 2, Done: 1, Failed: 1})
		}},
		{"never begun", func(tr *Tree) error {
			return tr.End(orchestrator.DocumentResult{Path: "b.pdf", Status: done, PageCount: 1, Done: 1})
		}},
		{"no such ending", func(tr *Tree) error {
			return tr.End(orchestrator.DocumentResult{Path: "a.pdf", PageCount: 2})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tree := openTree(t, dir)
			check(t, tree.Begin(orchestrator.Document{Path: "a.pdf"}, 2))
			check(t, tree.Page(donePage("a.pdf", 1)))
			if err := tt.do(tree); err == nil {
				t.Error("accepted")
			}
			if got := files(t, dir); slices.Contains(got, "a.pdf.json") {
				t.Error("a result stands")
			}
		})
	}
}

func TestManyFailuresAreSortedOnDisk(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	tree.failures.sortBytes = 1000 // some ten lines at a time
	rng := rand.New(rand.NewPCG(5, 5))
	var want []string
	for _, i := range rng.Perm(300) {
		path := string(rune('a'+i%26)) + "/" + strings.Repeat("x", i%7) + ".pdf" + string(rune('0'+i/26%10)) + string(rune('0'+i/260))
		write(t, tree, path, failedPage(path, 2), failedPage(path, 1))
		want = append(want, path)
	}
	check(t, tree.Finish())
	slices.Sort(want)
	lines := strings.Split(strings.TrimSuffix(read(t, dir, failuresName), "\n"), "\n")
	if len(lines) != 600 {
		t.Fatalf("%d lines, want 600", len(lines))
	}
	for i, line := range lines {
		got, err := parseFailure([]byte(line))
		check(t, err)
		if got.path != want[i/2] || got.page != 1+i%2 {
			t.Fatalf("line %d is %s, want page %d of %s", i, line, 1+i%2, want[i/2])
		}
	}
	check(t, tree.Close())
	for _, f := range files(t, dir) {
		if strings.HasPrefix(f, ".quire/") && f != ".quire/lock" {
			t.Errorf("left %s", f)
		}
	}
}

func TestLeftoversAreSwept(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, workDirectory), 0o777))
	for _, name := range []string{"segment-00000001", "temp-00000007", "failures-00000002", "keep-me"} {
		check(t, os.WriteFile(filepath.Join(dir, workDirectory, name), []byte("old"), 0o666))
	}
	check(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o666))
	tree := openTree(t, dir)
	write(t, tree, "a.pdf", donePage("a.pdf", 1))
	check(t, tree.Close())
	check(t, tree.Close())
	want := []string{".quire/keep-me", ".quire/lock", "a.pdf.json", "notes.txt", "run.json"}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
}

func TestSecondRunIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := openTree(t, dir)
	_, err := Open(Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "in use by another run") || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v, want a refusal that names the directory", err)
	}
	write(t, first, "a.pdf", donePage("a.pdf", 1)) // the first is not disturbed
	check(t, first.Close())
	check(t, openTree(t, dir).Close())
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	check(t, os.WriteFile(file, nil, 0o666))
	locked := filepath.Join(dir, "locked")
	check(t, os.Mkdir(locked, 0o555))
	blocked := filepath.Join(dir, "blocked")
	check(t, os.MkdirAll(filepath.Join(blocked, "run.json", "x"), 0o777))
	tests := []struct {
		name, dir string
		want      []string
	}{
		{"nothing named", "", []string{"-o"}},
		{"a file", file, []string{file, "not a directory", "-o"}},
		{"below a file", filepath.Join(file, "out"), []string{file, "not a directory", "-o"}},
		{"not writable", locked, []string{locked, "permission denied", "make it writable"}},
		{"something in the way", blocked, []string{filepath.Join(blocked, "run.json"), "exists"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, err := asNobody(func() (*Tree, error) { return Open(Config{Dir: tt.dir}) }, tt.dir == locked)
			if err == nil {
				_ = tree.Close()
				t.Fatal("opened")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q has more than one line", err)
			}
		})
	}
}

// asNobody runs f without root's right to pass over file permissions, so that
// tests see the same as root and as anyone. Linux keeps that right for each
// thread (setfsuid(2)).
func asNobody(f func() (*Tree, error), drop bool) (*Tree, error) {
	if drop && os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = syscall.Setfsuid(65534)
		defer func() { _ = syscall.Setfsuid(0) }()
	}
	return f()
}

// A full disk in mid-run: the call fails with a reason, nothing half stands
// under a final name, and once there is space the same call goes through.
func TestDiskFullAndBack(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	check(t, err)
	defer full.Close()
	check(t, tree.Begin(orchestrator.Document{Path: "a.pdf"}, 2))
	check(t, tree.Page(donePage("a.pdf", 1)))

	isFull := func(err error) {
		t.Helper()
		var w *WriteError
		if !errors.As(err, &w) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
			t.Fatalf("got %v, want a WriteError about space", err)
		}
	}
	seg := tree.docs["a.pdf"]
	good := seg.file
	seg.file = full
	isFull(tree.Page(failedPage("a.pdf", 2)))
	seg.file = good
	check(t, tree.Page(failedPage("a.pdf", 2)))

	end := orchestrator.DocumentResult{Path: "a.pdf", Status: orchestrator.StatusPartial, PageCount: 2, Done: 1, Failed: 1}
	goodLog := tree.failures.file
	tree.failures.file = full
	isFull(tree.End(end))
	if got := files(t, dir); slices.Contains(got, "a.pdf.json") || slices.ContainsFunc(got, func(n string) bool { return strings.Contains(n, tempPrefix) }) {
		t.Errorf("left %q", got)
	}
	tree.failures.file = goodLog
	check(t, tree.End(end))
	if d, err := ReadDocument(filepath.Join(dir, "a.pdf.json")); err != nil || len(d.Pages) != 2 {
		t.Errorf("got %+v, %v", d, err)
	}
	check(t, tree.Finish())
	if got := read(t, dir, failuresName); strings.Count(got, "\n") != 1 {
		t.Errorf("failures: %s", got)
	}
}

// A result never goes through a link out of the output directory.
func TestLinksDoNotLeadOut(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	check(t, os.Symlink(outside, filepath.Join(dir, "sub")))
	tree := openTree(t, dir)
	path := "sub/a.pdf"
	check(t, tree.Begin(orchestrator.Document{Path: path}, 1))
	check(t, tree.Page(donePage(path, 1)))
	if err := tree.End(orchestrator.DocumentResult{Path: path, Status: orchestrator.StatusDone, PageCount: 1, Done: 1}); err == nil {
		t.Error("written through a link")
	}
	if got := files(t, outside); len(got) != 0 {
		t.Errorf("outside: %q", got)
	}
}

// A long document costs 16 bytes of memory a page: its pages lie on the disk.
func TestLongDocumentStaysOnDisk(t *testing.T) {
	if size := unsafe.Sizeof(entry{}); size != 16 {
		t.Errorf("an entry has %d bytes", size)
	}
	const pages = 20_000
	dir := t.TempDir()
	tree := openTree(t, dir)
	region := orchestrator.Region{Label: "text", LabelRaw: "text", Score: 0.9, BBox: [4]float64{1, 2, 3, 4}}
	regions := slices.Repeat([]orchestrator.Region{region}, 10)
	check(t, tree.Begin(orchestrator.Document{Path: "long.pdf"}, pages))
	before := heapBytes()
	for i := pages; i > 0; i-- {
		check(t, tree.Page(donePage("long.pdf", i, regions...)))
	}
	// Twice 16 bytes: append grows ahead. The records themselves are 25 MB.
	if grown := heapBytes() - before; grown > pages*32+1<<20 {
		t.Errorf("heap grew by %d bytes for %d pages", grown, pages)
	}
	check(t, tree.End(orchestrator.DocumentResult{Path: "long.pdf", Status: orchestrator.StatusDone, PageCount: pages, Done: pages}))
	data := read(t, dir, "long.pdf.json")
	if n := strings.Count(data, "\n"); n != pages+2 {
		t.Errorf("%d lines, want %d", n, pages+2)
	}
	if i := strings.Index(data, `{"page_no":777,`); i < 0 || strings.Count(data[:i], "\n") != 777 {
		t.Error("page 777 does not stand in line 778")
	}
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\nb\tc\x00d\xff"); got != "a b c d\uFFFD" {
		t.Errorf("got %q", got)
	}
	got := oneLine(strings.Repeat("ä", 1000))
	if len(got) > maxMessage || !strings.HasSuffix(got, "…") || !strings.HasPrefix(got, "ää") {
		t.Errorf("got %q (%d bytes)", got, len(got))
	}
}

func FuzzString(f *testing.F) {
	f.Add("a\"\\\n\t\x00\x1f\x7f\u2028é\U0001F600")
	f.Add("\xff\xfe")
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != strings.ToValidUTF8(s, "\uFFFD") && len([]rune(back)) != len([]rune(s)) {
			t.Fatalf("%q written as %s, read as %q, %v", s, b, back, err)
		}
		if bytes.ContainsAny(b, "\n\r") {
			t.Fatalf("%s has a line break", b)
		}
	})
}

func BenchmarkDocument(b *testing.B) {
	tree, err := Open(Config{Dir: b.TempDir(), Model: testModel})
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	region := orchestrator.Region{Label: "text", LabelRaw: "text", Score: 0.9, BBox: [4]float64{1, 2, 3, 4}}
	regions := slices.Repeat([]orchestrator.Region{region}, 15)
	const pages = 10
	for b.Loop() {
		_ = tree.Begin(orchestrator.Document{Path: "a.pdf"}, pages)
		for i := range pages {
			_ = tree.Page(donePage("a.pdf", i+1, regions...))
		}
		if err := tree.End(orchestrator.DocumentResult{Path: "a.pdf", Status: orchestrator.StatusDone, PageCount: pages, Done: pages}); err != nil {
			b.Fatal(err)
		}
	}
}
