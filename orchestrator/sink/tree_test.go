package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"quire/orchestrator"
)

var testModel = orchestrator.ModelInfo{Name: "layout", Version: "1"}

var testOptions = map[string]any{"threshold": 0.5, "colour": "rgb"}

func openTree(t *testing.T, dir string) *Tree {
	t.Helper()
	return openWith(t, Config{Dir: dir}, testModel, testOptions)
}

func openWith(t *testing.T, cfg Config, model orchestrator.ModelInfo, options map[string]any) *Tree {
	t.Helper()
	cfg.Tool, cfg.ToolVersion = "quire", "0.1"
	tree, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	check(t, tree.Start(t.Context(), model, options))
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

func document(path string) orchestrator.Document {
	return orchestrator.Document{Path: path, Size: 1234, ModTime: time.Unix(1700000000, 123456789)}
}

// begin starts a document of which nothing is known.
func begin(t *testing.T, tree *Tree, path string, pages int) {
	t.Helper()
	past, err := tree.Begin(t.Context(), document(path))
	check(t, err)
	if !reflect.DeepEqual(past, orchestrator.Past{}) {
		t.Errorf("%s has a past: %+v", path, past)
	}
	if pages > 0 {
		check(t, tree.Opened(t.Context(), document(path), pages))
	}
}

func page(t *testing.T, tree *Tree, p orchestrator.PageResult) {
	t.Helper()
	check(t, tree.Page(t.Context(), p))
}

// end ends a document and waits until it stands.
func end(ctx context.Context, tree *Tree, d orchestrator.DocumentResult) error {
	stands := make(chan error, 1)
	if err := tree.End(ctx, d, func(err error) { stands <- err }); err != nil {
		return err
	}
	return <-stands
}

func finish(t *testing.T, tree *Tree) {
	t.Helper()
	_, err := tree.Finish(t.Context(), orchestrator.Summary{}, nil, nil)
	check(t, err)
}

// write sends one document with these pages through the tree.
func write(t *testing.T, tree *Tree, path string, pages ...orchestrator.PageResult) {
	t.Helper()
	begin(t, tree, path, len(pages))
	check(t, end(t.Context(), tree, ended(t, tree, path, pages...)))
}

// ended sends pages, and says how the document ends with them.
func ended(t *testing.T, tree *Tree, path string, pages ...orchestrator.PageResult) orchestrator.DocumentResult {
	t.Helper()
	d := orchestrator.DocumentResult{Path: path, Size: 1234, PageCount: len(pages)}
	for _, p := range pages {
		page(t, tree, p)
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
	return d
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

	begin(t, tree, "b\xff.pdf", 0)
	check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "b\xff.pdf", Size: 7, Status: orchestrator.StatusFailed, PageCount: -1, Err: &orchestrator.PageError{
		Stage: orchestrator.StageOpen, Category: orchestrator.CategoryNotPDF, Message: "no \"PDF\"\nhere\x01\xff",
	}}))
	want = `{"schema":"quire/1","source":{"path":"b%FF.pdf","path_encoding":"percent","size":7},"model":{"name":"layout","version":"1"},"status":"failed",` +
		`"error":{"stage":"open","category":"not_pdf","message":"no \"PDF\" here ` + "\uFFFD" + `"},"page_count":null,"bbox_unit":"pt","bbox_origin":"top-left","pages":[]}` + "\n"
	if got := read(t, dir, "b%FF.pdf.json"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	finish(t, tree)
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
  },
  "account": {
    "ended": "complete",
`
	if got := read(t, dir, runName); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant at its beginning\n%s", got, want)
	}
	check(t, tree.Close())
	wantFiles := []string{".quire/finished.jsonl", ".quire/lock", "b%FF.pdf.json", "failed.jsonl", "run.json", "sub/a.pdf.json"}
	if got := files(t, dir); !slices.Equal(got, wantFiles) {
		t.Errorf("left %q, want %q", got, wantFiles)
	}
}

// What the writer writes, the reader's types read without a key left over.
func TestReadDocument(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	tree.model.Digest = "abc"
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
		tree := openWith(t, Config{Dir: dir, Fresh: round > 0}, testModel, testOptions)
		paths := []string{"a.pdf", "b/b.pdf", "b/c.pdf"}
		rng.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
		for _, p := range paths {
			pages := []orchestrator.PageResult{donePage(p, 1), failedPage(p, 2), donePage(p, 3), failedPage(p, 4)}
			rng.Shuffle(len(pages), func(i, j int) { pages[i], pages[j] = pages[j], pages[i] })
			_, err := tree.Begin(t.Context(), document(p))
			check(t, err)
			check(t, tree.Opened(t.Context(), document(p), len(pages)))
			check(t, end(t.Context(), tree, ended(t, tree, p, pages...)))
		}
		finish(t, tree)
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
		begin(t, tree, p, 2)
	}
	for no := range 2 {
		for _, p := range []string{"a.pdf", "b.pdf"} {
			page(t, tree, donePage(p, no+1))
		}
	}
	if got := files(t, dir); slices.Contains(got, "a.pdf.json") {
		t.Error("a result stands before its document ended")
	}
	for _, p := range []string{"a.pdf", "b.pdf"} {
		check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: p, Status: orchestrator.StatusDone, PageCount: 2, Done: 2}))
		d, err := ReadDocument(filepath.Join(dir, p+".json"))
		check(t, err)
		if d.Source.Path != p || len(d.Pages) != 2 {
			t.Errorf("%s: got %+v", p, d)
		}
	}
}

// A skipped or cancelled document leaves an older result alone.
func TestCancelledLeavesNoResult(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, tree, "old.pdf", donePage("old.pdf", 1))
	finish(t, tree)
	check(t, tree.Close())
	old := read(t, dir, "old.pdf.json")
	tree = openWith(t, Config{Dir: dir, Fresh: true}, testModel, testOptions)
	for _, p := range []string{"old.pdf", "new.pdf"} {
		_, err := tree.Begin(t.Context(), document(p))
		check(t, err)
		check(t, tree.Opened(t.Context(), document(p), 2))
		page(t, tree, failedPage(p, 1))
		check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: p, Status: orchestrator.StatusCancelled, PageCount: 2, Failed: 1, Cancelled: 1}))
	}
	begin(t, tree, "unopened.pdf", 0)
	check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "unopened.pdf", Status: orchestrator.StatusCancelled, PageCount: -1}))
	check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "skipped.pdf", Status: orchestrator.StatusSkipped, PageCount: -1}))
	finish(t, tree)
	check(t, tree.Close())
	if got := read(t, dir, "old.pdf.json"); got != old {
		t.Errorf("the older result became %s", got)
	}
	_, leftNew := segmentFile("new.pdf")
	_, leftOld := segmentFile("old.pdf")
	want := []string{".quire/finished.jsonl", ".quire/" + leftNew, ".quire/" + leftOld, ".quire/lock", "failed.jsonl", "old.pdf.json", "run.json"}
	slices.Sort(want)
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
		do   func(context.Context, *Tree) error
	}{
		{"begun twice", func(ctx context.Context, tr *Tree) error {
			_, err := tr.Begin(ctx, document("a.pdf"))
			return err
		}},
		{"outside the root", func(ctx context.Context, tr *Tree) error {
			_, err := tr.Begin(ctx, document("../a.pdf"))
			return err
		}},
		{"opened and never begun", func(ctx context.Context, tr *Tree) error { return tr.Opened(ctx, document("b.pdf"), 1) }},
		{"no pages", func(ctx context.Context, tr *Tree) error { return tr.Opened(ctx, document("a.pdf"), 0) }},
		{"page of an unknown document", func(ctx context.Context, tr *Tree) error { return tr.Page(ctx, donePage("b.pdf", 1)) }},
		{"page zero", func(ctx context.Context, tr *Tree) error { return tr.Page(ctx, donePage("a.pdf", 0)) }},
		{"page beyond the end", func(ctx context.Context, tr *Tree) error { return tr.Page(ctx, donePage("a.pdf", 3)) }},
		{"a number that is none", func(ctx context.Context, tr *Tree) error {
			return tr.Page(ctx, donePage("a.pdf", 2, orchestrator.Region{Score: math.NaN()}))
		}},
		{"page without an end", func(ctx context.Context, tr *Tree) error {
			return tr.Page(ctx, orchestrator.PageResult{Ref: orchestrator.PageRef{Path: "a.pdf", Page: 2}})
		}},
		{"a page missing", func(ctx context.Context, tr *Tree) error {
			return end(ctx, tr, orchestrator.DocumentResult{Path: "a.pdf", Status: done, PageCount: 2, Done: 2})
		}},
		{"fewer pages than begun", func(ctx context.Context, tr *Tree) error {
			return end(ctx, tr, orchestrator.DocumentResult{Path: "a.pdf", Status: done, PageCount: 1, Done: 1})
		}},
		{"fewer pages than begun, as many as came", func(ctx context.Context, tr *Tree) error {
			return end(ctx, tr, orchestrator.DocumentResult{Path: "a.pdf", Status: done, PageCount: 2, Done: 1})
		}},
		{"a page twice", func(ctx context.Context, tr *Tree) error {
			if err := tr.Page(ctx, donePage("a.pdf", 1)); err != nil {
				return nil
			}
			return end(ctx, tr, orchestrator.DocumentResult{Path: "a.pdf", Status: done, PageCount: 2, Done: 2})
		}},
		{"counts of another kind", func(ctx context.Context, tr *Tree) error {
			if err := tr.Page(ctx, donePage("a.pdf", 2)); err != nil {
				return nil
			}
			return end(ctx, tr, orchestrator.DocumentResult{Path: "a.pdf", Status: done, PageCount: 2, Done: 1, Failed: 1})
		}},
		{"never begun", func(ctx context.Context, tr *Tree) error {
			return end(ctx, tr, orchestrator.DocumentResult{Path: "b.pdf", Status: done, PageCount: 1, Done: 1})
		}},
		{"no such ending", func(ctx context.Context, tr *Tree) error {
			return end(ctx, tr, orchestrator.DocumentResult{Path: "a.pdf", PageCount: 2})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tree := openTree(t, dir)
			begin(t, tree, "a.pdf", 2)
			page(t, tree, donePage("a.pdf", 1))
			if err := tt.do(t.Context(), tree); err == nil {
				t.Error("accepted")
			}
			if got := files(t, dir); slices.Contains(got, "a.pdf.json") {
				t.Error("a result stands")
			}
		})
	}
}

// A tree that was not started, or has ended, says so.
func TestTreeThatTakesNothing(t *testing.T) {
	ctx := t.Context()
	tree, err := Open(Config{Dir: t.TempDir()})
	check(t, err)
	defer tree.Close()
	refuses := func(when string, finish bool) {
		t.Helper()
		_, begin := tree.Begin(ctx, document("a.pdf"))
		errs := []error{
			begin, tree.Opened(ctx, document("a.pdf"), 1), tree.Page(ctx, donePage("a.pdf", 1)),
			end(ctx, tree, orchestrator.DocumentResult{Path: "a.pdf", Status: orchestrator.StatusCancelled}),
		}
		if finish {
			_, err := tree.Finish(ctx, orchestrator.Summary{}, nil, nil)
			errs = append(errs, err)
		}
		for i, err := range errs {
			if !errors.Is(err, errNotStarted) {
				t.Errorf("%s, call %d: %v", when, i, err)
			}
		}
	}
	refuses("before Start", true)
	check(t, tree.Start(ctx, orchestrator.ModelInfo{Name: "m"}, nil))
	write(t, tree, "a.pdf", donePage("a.pdf", 1))
	finish(t, tree)
	refuses("after Finish", false)
	check(t, tree.Close())
	refuses("after Close", true)
}

func TestWritten(t *testing.T) {
	start, dir := time.Now(), t.TempDir()
	tree := openTree(t, dir)
	if w := tree.Written(); w != (Written{}) {
		t.Errorf("%+v before anything was written", w)
	}
	write(t, tree, "a.pdf", donePage("a.pdf", 1), failedPage("a.pdf", 2))
	write(t, tree, "sub/b.pdf", donePage("sub/b.pdf", 1))
	begin(t, tree, "c.pdf", 3)
	check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "c.pdf", Status: orchestrator.StatusCancelled, PageCount: 3, Cancelled: 3}))
	var want int64
	for _, name := range []string{"a.pdf.json", "sub/b.pdf.json"} {
		info, err := os.Stat(filepath.Join(dir, name))
		check(t, err)
		want += info.Size()
	}
	if w := tree.Written(); w.Documents != 2 || w.Bytes != want || w.First.Before(start) || w.First.After(time.Now()) {
		t.Errorf("%+v; two results have %d bytes", w, want)
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
	begin(t, tree, "long.pdf", pages)
	before := heapBytes()
	for i := pages; i > 0; i-- {
		page(t, tree, donePage("long.pdf", i, regions...))
	}
	// Twice 16 bytes: append grows ahead. The records themselves are 25 MB.
	if grown := heapBytes() - before; grown > pages*32+1<<20 {
		t.Errorf("heap grew by %d bytes for %d pages", grown, pages)
	}
	check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "long.pdf", Status: orchestrator.StatusDone, PageCount: pages, Done: pages}))
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

// Documents that end while others are in work share the flushes of the disk.
func BenchmarkDocument(b *testing.B) {
	tree, err := Open(Config{Dir: b.TempDir(), Fresh: true})
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	if err := tree.Start(b.Context(), testModel, nil); err != nil {
		b.Fatal(err)
	}
	region := orchestrator.Region{Label: "text", LabelRaw: "text", Score: 0.9, BBox: [4]float64{1, 2, 3, 4}}
	regions := slices.Repeat([]orchestrator.Region{region}, 15)
	const pages = 10
	ctx := b.Context()
	if _, err := tree.Begin(ctx, document("other.pdf")); err != nil {
		b.Fatal(err)
	}
	var group sync.WaitGroup
	n := 0
	for b.Loop() {
		n++
		path := fmt.Sprintf("%d/%d.pdf", n/1000, n)
		_, _ = tree.Begin(ctx, document(path))
		_ = tree.Opened(ctx, document(path), pages)
		for i := range pages {
			_ = tree.Page(ctx, donePage(path, i+1, regions...))
		}
		group.Add(1)
		stands := func(err error) {
			if err != nil {
				b.Error(err)
			}
			group.Done()
		}
		if err := tree.End(ctx, orchestrator.DocumentResult{Path: path, Status: orchestrator.StatusDone, PageCount: pages, Done: pages}, stands); err != nil {
			b.Fatal(err)
		}
	}
	group.Wait()
}
