package sink

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"quire/orchestrator"
)

// crash ends a tree as SIGKILL does: nothing is tidied up.
func crash(t *testing.T, tree *Tree) {
	t.Helper()
	tree.stop()
	for _, s := range tree.docs {
		check(t, s.file.Close())
	}
	clear(tree.docs)
	check(t, tree.Close())
}

// past begins a document and returns what is known of it.
func past(t *testing.T, tree *Tree, doc orchestrator.Document) orchestrator.Past {
	t.Helper()
	p, err := tree.Begin(t.Context(), doc)
	check(t, err)
	return p
}

// rest sends the pages that the past does not have, and ends the document.
func rest(t *testing.T, tree *Tree, doc orchestrator.Document, p orchestrator.Past, pages ...orchestrator.PageResult) {
	t.Helper()
	if p.PageCount == 0 {
		check(t, tree.Opened(t.Context(), doc, len(pages)))
	}
	d := orchestrator.DocumentResult{Path: doc.Path, Size: doc.Size, PageCount: len(pages), Done: p.Done, Failed: p.Failed, Status: orchestrator.StatusDone}
	for _, r := range pages {
		if p.Pages.Has(r.Ref.Page) {
			continue
		}
		page(t, tree, r)
		if r.Err != nil {
			d.Failed++
		} else {
			d.Done++
		}
	}
	switch d.Failed {
	case 0:
	case len(pages):
		d.Status = orchestrator.StatusFailed
	default:
		d.Status = orchestrator.StatusPartial
	}
	check(t, end(t.Context(), tree, d))
}

// results are the result files and failed.jsonl.
func results(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, name := range files(t, dir) {
		if !strings.HasPrefix(name, workDirectory) && name != runName {
			found[name] = read(t, dir, name)
		}
	}
	return found
}

func want(t *testing.T, got, want orchestrator.Past, pages ...int) {
	t.Helper()
	for _, page := range pages {
		want.Pages.Add(page)
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("the past is %+v, want %+v", got, want)
	}
}

// A document that was in work at a crash, or when a run was interrupted, has the
// pages that had come; its result is that of an unbroken run.
func TestPagesOutliveACrash(t *testing.T) {
	pages := []orchestrator.PageResult{donePage("a.pdf", 1), failedPage("a.pdf", 2), donePage("a.pdf", 3), donePage("a.pdf", 4)}
	whole := t.TempDir()
	tree := openTree(t, whole)
	write(t, tree, "a.pdf", pages...)
	finish(t, tree)
	check(t, tree.Close())

	for _, how := range []string{"crash", "cancel", "close"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			tree := openTree(t, dir)
			begin(t, tree, "a.pdf", 4)
			page(t, tree, pages[2])
			page(t, tree, pages[1])
			switch how {
			case "crash":
				crash(t, tree)
			case "cancel":
				check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "a.pdf", Status: orchestrator.StatusCancelled, PageCount: 4, Done: 1, Failed: 1, Cancelled: 2}))
				finish(t, tree)
				check(t, tree.Close())
			default:
				check(t, tree.Close())
			}
			inWork, left := segmentFile("a.pdf")
			if n := opened(t, filepath.Join(dir, workDirectory, inWork)) + opened(t, filepath.Join(dir, workDirectory, left)); n > 0 {
				t.Errorf("its journal is open %d times", n)
			}
			tree = openTree(t, dir)
			p := past(t, tree, document("a.pdf"))
			want(t, p, orchestrator.Past{PageCount: 4, Done: 1, Failed: 1}, 2, 3)
			rest(t, tree, document("a.pdf"), p, pages...)
			finish(t, tree)
			check(t, tree.Close())
			if got := results(t, dir); !maps.Equal(got, results(t, whole)) {
				t.Errorf("got %v", got)
			}
			if got := files(t, filepath.Join(dir, workDirectory)); !slices.Equal(got, []string{"finished.jsonl", "lock"}) {
				t.Errorf("left %q", got)
			}
		})
	}
}

// A page count that is not what it was voids the pages.
func TestPagesOfAnotherCount(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	begin(t, tree, "a.pdf", 4)
	page(t, tree, donePage("a.pdf", 4))
	crash(t, tree)
	tree = openTree(t, dir)
	want(t, past(t, tree, document("a.pdf")), orchestrator.Past{PageCount: 4, Done: 1}, 4)
	check(t, tree.Opened(t.Context(), document("a.pdf"), 1))
	page(t, tree, donePage("a.pdf", 1))
	check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "a.pdf", Status: orchestrator.StatusDone, PageCount: 1, Done: 1}))
	check(t, tree.Close())

	// Also for the run after, when this one is killed.
	dir = t.TempDir()
	tree = openTree(t, dir)
	begin(t, tree, "a.pdf", 4)
	region := orchestrator.Region{Label: "text", LabelRaw: "text", Score: 0.9, BBox: [4]float64{1, 2, 3, 4}}
	for no := range 4 { // more than is read at once
		page(t, tree, donePage("a.pdf", no+1, slices.Repeat([]orchestrator.Region{region}, 200)...))
	}
	crash(t, tree)
	tree = openTree(t, dir)
	past(t, tree, document("a.pdf"))
	check(t, tree.Opened(t.Context(), document("a.pdf"), 5))
	crash(t, tree)
	want(t, past(t, openTree(t, dir), document("a.pdf")), orchestrator.Past{PageCount: 5})
}

// What stands is skipped as long as nothing that it depends on has changed.
func TestWhatStandsIsSkipped(t *testing.T) {
	doc := document("sub/a.pdf")
	model := testModel
	model.Digest = "sha256:1"
	other := func(change func(*orchestrator.Document)) orchestrator.Document {
		d := doc
		change(&d)
		return d
	}
	tests := []struct {
		name    string
		cfg     Config
		doc     orchestrator.Document
		model   orchestrator.ModelInfo
		options map[string]any
		spoil   func(t *testing.T, result string)
		redone  orchestrator.Redone
	}{
		{name: "the same", doc: doc},
		{name: "its failures are asked for, and it has none", cfg: Config{RetryFailed: true}, doc: doc},
		{name: "passwords, and it needs none", cfg: Config{Passwords: true}, doc: doc},
		{name: "another size", doc: other(func(d *orchestrator.Document) { d.Size++ }), redone: orchestrator.RedoneInput},
		{name: "another time", doc: other(func(d *orchestrator.Document) { d.ModTime = d.ModTime.Add(time.Nanosecond) }), redone: orchestrator.RedoneInput},
		{name: "another model", doc: doc, model: orchestrator.ModelInfo{Name: "layout2", Version: "1"}, redone: orchestrator.RedoneModel},
		{name: "another version", doc: doc, model: orchestrator.ModelInfo{Name: "layout", Version: "2"}, redone: orchestrator.RedoneModel},
		{name: "another digest", doc: doc, model: orchestrator.ModelInfo{Name: "layout", Version: "1", Digest: "x"}, redone: orchestrator.RedoneModel},
		{name: "no digest", doc: doc, model: orchestrator.ModelInfo{Name: "layout", Version: "1"}},
		{name: "another threshold", doc: doc, options: map[string]any{"threshold": 0.4, "colour": "rgb"}, redone: orchestrator.RedoneOptions},
		{name: "no result", doc: doc, spoil: func(t *testing.T, result string) { check(t, os.Remove(result)) }, redone: orchestrator.RedoneMissing},
		{name: "another result", doc: doc, spoil: func(t *testing.T, result string) { check(t, os.WriteFile(result, nil, 0o666)) }, redone: orchestrator.RedoneMissing},
		{name: "asked for", cfg: Config{Fresh: true}, doc: doc, redone: orchestrator.RedoneFresh},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tree := openWith(t, Config{Dir: dir}, model, testOptions)
			write(t, tree, doc.Path, donePage(doc.Path, 1), donePage(doc.Path, 2))
			finish(t, tree)
			check(t, tree.Close())
			result := filepath.Join(dir, doc.Path+".json")
			if tt.spoil != nil {
				tt.spoil(t, result)
			}
			if tt.model == (orchestrator.ModelInfo{}) {
				tt.model = model
			}
			if tt.options == nil {
				tt.options = testOptions
			}
			tt.cfg.Dir = dir
			tree = openWith(t, tt.cfg, tt.model, tt.options)
			p := past(t, tree, tt.doc)
			if p.Redone != tt.redone || (p.Result != nil) != (tt.redone == "") || p.PageCount != 0 {
				t.Errorf("the past is %+v", p)
			}
			if p.Result != nil {
				if p.Result.Status != orchestrator.StatusDone || p.Result.Done != 2 || p.Result.PageCount != 2 {
					t.Errorf("it ended as %+v", p.Result)
				}
				check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: doc.Path, Status: orchestrator.StatusSkipped, PageCount: 2, Skipped: 2}))
				return
			}
			rest(t, tree, tt.doc, p, donePage(doc.Path, 1), donePage(doc.Path, 2))
			finish(t, tree)
			check(t, tree.Close())
			tree = openWith(t, Config{Dir: dir}, tt.model, tt.options)
			if p := past(t, tree, tt.doc); p.Result == nil {
				t.Errorf("done again, and now the past is %+v", p)
			}
		})
	}
}

// A segment is of no use either when what it depends on has changed.
func TestPagesOfAChangedDocument(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	begin(t, tree, "a.pdf", 2)
	page(t, tree, donePage("a.pdf", 1))
	crash(t, tree)
	tree = openTree(t, dir)
	doc := document("a.pdf")
	doc.Size++
	want(t, past(t, tree, doc), orchestrator.Past{Redone: orchestrator.RedoneInput})
}

// With digests the content counts, not the time; and a document that was done
// without one is known by its content from then on.
func TestChecksum(t *testing.T) {
	dir := t.TempDir()
	doc := document("a.pdf")
	tree := openTree(t, dir)
	write(t, tree, "a.pdf", donePage("a.pdf", 1))
	again := func(sum string, later time.Duration) orchestrator.Redone {
		t.Helper()
		finish(t, tree)
		check(t, tree.Close())
		tree = openTree(t, dir)
		d := doc
		d.Sum, d.ModTime = sum, d.ModTime.Add(later)
		p := past(t, tree, d)
		if p.Result == nil {
			rest(t, tree, d, p, donePage("a.pdf", 1))
		}
		return p.Redone
	}
	for i, step := range []struct {
		sum    string
		later  time.Duration
		redone orchestrator.Redone
	}{
		{"x", 0, ""}, // not known yet, and the time is the same
		{"x", time.Hour, ""},
		{"", time.Hour, ""}, // that time is now known too
		{"y", time.Hour, orchestrator.RedoneInput},
		{"y", 0, ""},
		{"", time.Hour, orchestrator.RedoneInput},
	} {
		if got := again(step.sum, step.later); got != step.redone {
			t.Errorf("step %d: redone is %q, want %q", i, got, step.redone)
		}
	}
}

// What is asked for again is what has failed, and no other page.
func TestRetryFailed(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	region := orchestrator.Region{Label: "text", LabelRaw: "text", Score: 0.9, BBox: [4]float64{1, 2, 3, 4}}
	write(t, tree, "partial.pdf", donePage("partial.pdf", 1, region), failedPage("partial.pdf", 2), donePage("partial.pdf", 3))
	write(t, tree, "failed.pdf", failedPage("failed.pdf", 1), failedPage("failed.pdf", 2))
	write(t, tree, "good.pdf", donePage("good.pdf", 1))
	begin(t, tree, "closed.pdf", 0)
	check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "closed.pdf", Status: orchestrator.StatusFailed, PageCount: -1, Err: &orchestrator.PageError{
		Stage: orchestrator.StageOpen, Category: orchestrator.CategoryMalformed, Message: "broken"}}))
	finish(t, tree)
	check(t, tree.Close())

	tree = openTree(t, dir)
	for path, status := range map[string]orchestrator.Status{
		"partial.pdf": orchestrator.StatusPartial, "failed.pdf": orchestrator.StatusFailed, "good.pdf": orchestrator.StatusDone, "closed.pdf": orchestrator.StatusFailed,
	} {
		if p := past(t, tree, document(path)); p.Result == nil || p.Result.Status != status || path == "closed.pdf" && (p.Result.Err == nil || p.Result.Err.Category != orchestrator.CategoryMalformed) {
			t.Errorf("%s: %+v", path, p)
		} else if path == "partial.pdf" && (p.Result.PageCount != 3 || p.Result.Done != 2 || p.Result.Failed != 1 || p.Result.Size != 1234) {
			t.Errorf("%s ended as %+v", path, p.Result)
		}
	}
	check(t, tree.Close())

	retry := Config{Dir: dir, RetryFailed: true}
	tree = openWith(t, retry, testModel, testOptions)
	p := past(t, tree, document("partial.pdf"))
	want(t, p, orchestrator.Past{PageCount: 3, Done: 2, Redone: orchestrator.RedoneFailed}, 1, 3)
	want(t, past(t, tree, document("failed.pdf")), orchestrator.Past{PageCount: 2, Redone: orchestrator.RedoneFailed})
	want(t, past(t, tree, document("closed.pdf")), orchestrator.Past{Redone: orchestrator.RedoneFailed})
	// It fails once more, the run is killed, and the good pages are still there.
	page(t, tree, failedPage("partial.pdf", 2))
	crash(t, tree)
	tree = openWith(t, retry, testModel, testOptions)
	p = past(t, tree, document("partial.pdf"))
	want(t, p, orchestrator.Past{PageCount: 3, Done: 2, Redone: orchestrator.RedoneFailed}, 1, 3)
	rest(t, tree, document("partial.pdf"), p, donePage("partial.pdf", 1), donePage("partial.pdf", 2), donePage("partial.pdf", 3))
	finish(t, tree)
	check(t, tree.Close())

	whole := t.TempDir()
	tree = openTree(t, whole)
	write(t, tree, "partial.pdf", donePage("partial.pdf", 1, region), donePage("partial.pdf", 2), donePage("partial.pdf", 3))
	if got := read(t, dir, "partial.pdf.json"); got != read(t, whole, "partial.pdf.json") {
		t.Errorf("got %s", got)
	}
	if got := read(t, dir, failuresName); strings.Count(got, "\n") != 3 || strings.Contains(got, "partial") {
		t.Errorf("failures: %s", got)
	}
}

// What was failed and then done of a document in work is done, also when that run
// is killed and the next one asks for no failures.
func TestRetriedPagesOutliveACrash(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	begin(t, tree, "a.pdf", 4)
	page(t, tree, failedPage("a.pdf", 2))
	page(t, tree, donePage("a.pdf", 1))
	check(t, tree.Close())
	tree = openWith(t, Config{Dir: dir, RetryFailed: true}, testModel, testOptions)
	want(t, past(t, tree, document("a.pdf")), orchestrator.Past{PageCount: 4, Done: 1}, 1)
	page(t, tree, donePage("a.pdf", 2))
	crash(t, tree)
	tree = openTree(t, dir)
	p := past(t, tree, document("a.pdf"))
	want(t, p, orchestrator.Past{PageCount: 4, Done: 2}, 1, 2)
	rest(t, tree, document("a.pdf"), p, donePage("a.pdf", 1), donePage("a.pdf", 2), donePage("a.pdf", 3), donePage("a.pdf", 4))
}

// What could not be read is looked at again, and what was encrypted when there
// are passwords.
func TestOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	for path, category := range map[string]orchestrator.Category{
		"unreadable.pdf": orchestrator.CategoryUnreadable, "encrypted.pdf": orchestrator.CategoryEncrypted, "empty.pdf": orchestrator.CategoryEmpty,
	} {
		begin(t, tree, path, 0)
		check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: path, Status: orchestrator.StatusFailed, PageCount: -1,
			Err: &orchestrator.PageError{Stage: orchestrator.StageOpen, Category: category, Message: "no"}}))
	}
	finish(t, tree)
	check(t, tree.Close())
	for _, passwords := range []bool{false, true} {
		tree := openWith(t, Config{Dir: dir, Passwords: passwords}, testModel, testOptions)
		got := map[string]orchestrator.Redone{}
		for _, path := range []string{"empty.pdf", "encrypted.pdf", "unreadable.pdf"} {
			got[path] = past(t, tree, document(path)).Redone
		}
		want := map[string]orchestrator.Redone{"empty.pdf": "", "encrypted.pdf": "", "unreadable.pdf": orchestrator.RedoneFailed}
		if passwords {
			want["encrypted.pdf"] = orchestrator.RedonePassword
		}
		if !maps.Equal(got, want) {
			t.Errorf("passwords %v: %v", passwords, got)
		}
		check(t, tree.Close())
	}
}

// A document that was in work at three crashes is set aside with the pages that
// it has. Being interrupted is no crash, and a document that moved on is not
// suspected.
func TestSetAsideAfterCrashes(t *testing.T) {
	dir := t.TempDir()
	for i := range maxCrashes {
		tree := openTree(t, dir)
		p := past(t, tree, document("bad.pdf"))
		if p.SetAside != nil {
			t.Fatalf("set aside after %d crashes", i)
		}
		if i == 0 {
			check(t, tree.Opened(t.Context(), document("bad.pdf"), 3))
			page(t, tree, donePage("bad.pdf", 2))
			check(t, tree.Close()) // in order, in between
			tree = openTree(t, dir)
			past(t, tree, document("bad.pdf"))
		}
		past(t, tree, document("worse.pdf")) // which never came to be opened
		if i == 1 {
			check(t, tree.Close()) // a run that was interrupted makes up for no crash
			tree = openTree(t, dir)
			past(t, tree, document("bad.pdf"))
			past(t, tree, document("worse.pdf"))
		}
		crash(t, tree)
	}
	tree := openTree(t, dir)
	p := past(t, tree, document("bad.pdf"))
	if p.SetAside == nil || p.SetAside.Category != orchestrator.CategoryCrashLoop || !strings.Contains(p.SetAside.Message, "3 crashes") {
		t.Fatalf("the past is %+v", p)
	}
	aside := p.SetAside
	p.SetAside = nil
	want(t, p, orchestrator.Past{PageCount: 3, Done: 1}, 2)
	worse := past(t, tree, document("worse.pdf"))
	if worse.SetAside == nil || worse.PageCount != 0 {
		t.Errorf("the past is %+v", worse)
	}
	check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "worse.pdf", PageCount: -1, Status: orchestrator.StatusFailed, Err: worse.SetAside}))
	failed := func(no int) orchestrator.PageResult {
		return orchestrator.PageResult{Ref: orchestrator.PageRef{Path: "bad.pdf", Page: no}, Status: orchestrator.StatusFailed, Err: aside}
	}
	rest(t, tree, document("bad.pdf"), p, failed(1), donePage("bad.pdf", 2), failed(3))
	finish(t, tree)
	check(t, tree.Close())
	if got := read(t, dir, failuresName); strings.Count(got, `"category":"crash_loop"`) != 3 {
		t.Errorf("failures: %s", got)
	}
	// It stands, until it is asked for again; then it has as many tries more.
	tree = openTree(t, dir)
	if p := past(t, tree, document("bad.pdf")); p.Result == nil {
		t.Errorf("the past is %+v", p)
	}
	check(t, tree.Close())
	tree = openWith(t, Config{Dir: dir, RetryFailed: true}, testModel, testOptions)
	want(t, past(t, tree, document("bad.pdf")), orchestrator.Past{PageCount: 3, Done: 1, Redone: orchestrator.RedoneFailed}, 2)
}

// Nor is a result that could not be written.
func TestFailedResultIsNoCrash(t *testing.T) {
	dir := t.TempDir()
	for i := range maxCrashes + 1 {
		tree := openTree(t, dir)
		p := past(t, tree, document("a.pdf"))
		if p.SetAside != nil || i > 0 && p.Done != 1 {
			t.Errorf("after %d failures the past is %+v", i, p)
		}
		faults(tree, func(step, name string) error {
			if step == "rename" && strings.HasSuffix(name, " to a.pdf.json") {
				return &os.PathError{Op: step, Path: name, Err: syscall.EIO}
			}
			return nil
		})
		if i == 0 {
			check(t, tree.Opened(t.Context(), document("a.pdf"), 1))
			page(t, tree, donePage("a.pdf", 1))
		}
		if err := end(t.Context(), tree, orchestrator.DocumentResult{Path: "a.pdf", Size: 1234, PageCount: 1, Done: 1, Status: orchestrator.StatusDone}); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		crash(t, tree)
	}
}

func TestProgressIsNoCrash(t *testing.T) {
	dir := t.TempDir()
	const pages = progressPages * (maxCrashes + 2)
	for i := range maxCrashes + 2 {
		tree := openTree(t, dir)
		p := past(t, tree, document("long.pdf"))
		if p.SetAside != nil {
			t.Fatalf("set aside after %d crashes, %d pages on each time", i, progressPages)
		}
		if i == 0 {
			check(t, tree.Opened(t.Context(), document("long.pdf"), pages))
		}
		for no := i*progressPages + 1; no <= (i+1)*progressPages; no++ {
			page(t, tree, donePage("long.pdf", no))
		}
		crash(t, tree)
	}
	// What earlier lives have brought does not speak for those that bring nothing.
	for i := range maxCrashes + 1 {
		tree := openTree(t, dir)
		if p := past(t, tree, document("long.pdf")); (p.SetAside != nil) != (i == maxCrashes) {
			t.Errorf("after %d crashes without a page: %v", i, p.SetAside)
		}
		crash(t, tree)
	}
}

func TestAccount(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	s := orchestrator.Summary{
		Documents: orchestrator.Counts{Done: 1, Skipped: 2, Cancelled: 3}, Pages: orchestrator.Counts{Done: 10, Failed: 1, Skipped: 5},
		Resumed: 4, DocumentsBefore: orchestrator.Counts{Partial: 2}, PagesBefore: orchestrator.Counts{Done: 4, Failed: 1},
		Redone: map[orchestrator.Redone]int64{orchestrator.RedoneModel: 1},
	}
	_, err := tree.Finish(t.Context(), s, orchestrator.ErrInterrupted, nil)
	check(t, err)
	var got struct{ Account Account }
	check(t, json.Unmarshal([]byte(read(t, dir, runName)), &got))
	a := got.Account
	if a.Ended != "interrupted" || a.Documents["cancelled"] != 3 || a.Pages["failed"] != 1 || a.Resumed != 4 ||
		a.Before.Documents["partial"] != 2 || a.Before.Pages["done"] != 4 || a.Redone[orchestrator.RedoneModel] != 1 {
		t.Errorf("%+v", a)
	}
	tree2 := func() *Tree { check(t, tree.Close()); return openTree(t, dir) }()
	if got := read(t, dir, runName); strings.Contains(got, "account") {
		t.Errorf("a run that has not ended has an account: %s", got)
	}
	_, err = tree2.Finish(t.Context(), orchestrator.Summary{}, errors.New("no more"), nil)
	check(t, err)
	if got := read(t, dir, runName); !strings.Contains(got, `"ended": "failed"`) {
		t.Errorf("run.json: %s", got)
	}
}
