package sink

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quire/orchestrator"
)

// Results whose documents are gone are told of, and removed only on request;
// never while it cannot be known that they are gone.
func TestVanished(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	for _, path := range []string{"a.pdf", "sub/deep/b.pdf", "sub/c.pdf", "x/d.pdf"} {
		write(t, tree, path, donePage(path, 1), failedPage(path, 2))
	}
	pictures := tree.Pictures()
	check(t, pictures.Write(t.Context(), "sub/deep/b.pdf", 1, put("picture")))
	finish(t, tree)
	check(t, tree.Close())
	check(t, os.WriteFile(filepath.Join(dir, "x", "mine.txt"), nil, 0o666))

	run := func(cfg Config, err error, unreadable bool) (Vanished, []string) {
		cfg.Dir = dir
		tree := openWith(t, cfg, testModel, testOptions)
		defer tree.Close()
		for _, path := range []string{"a.pdf", "sub/c.pdf"} {
			if p := past(t, tree, document(path)); p.Result == nil {
				t.Errorf("%s: the past is %+v", path, p)
			}
		}
		if unreadable {
			past(t, tree, document("sub"))
			check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "sub", PageCount: -1, Status: orchestrator.StatusFailed,
				Err: &orchestrator.PageError{Stage: orchestrator.StageOpen, Category: orchestrator.CategoryUnreadable, Message: "no"}}))
		}
		var told []string
		v, finishErr := tree.Finish(t.Context(), orchestrator.Summary{}, err, func(path string) { told = append(told, path) })
		check(t, finishErr)
		return v, told
	}
	tree = openTree(t, dir)
	begin(t, tree, "journal.pdf", 2) // of which a journal is all that there is
	page(t, tree, donePage("journal.pdf", 1))
	check(t, tree.Close())
	_, journal := segmentFile("journal.pdf")
	gone := []string{"sub/deep/b.pdf", "x/d.pdf"}
	before := results(t, dir)
	if v, told := run(Config{Prune: true}, orchestrator.ErrInterrupted, false); v != (Vanished{}) || told != nil {
		t.Errorf("after an interrupted run: %+v, %q", v, told)
	}
	if v, told := run(Config{}, nil, false); v != (Vanished{Found: 2}) || !slices.Equal(told, gone) {
		t.Errorf("%+v, %q", v, told)
	}
	if got := results(t, dir); !maps.Equal(got, before) {
		t.Errorf("results are %v", slices.Sorted(maps.Keys(got)))
	}
	if v, told := run(Config{Prune: true}, nil, true); v.Found != 2 || v.Pruned != 0 || v.Kept == "" || !slices.Equal(told, gone) {
		t.Errorf("with inputs that could not be read: %+v, %q", v, told)
	}
	if got := files(t, filepath.Join(dir, workDirectory)); !slices.Contains(got, journal) {
		t.Errorf("the journal has gone: %q", got)
	}
	if v, _ := run(Config{Prune: true}, nil, false); v != (Vanished{Found: 3, Pruned: 3}) { // and what could not be read
		t.Errorf("%+v", v)
	}
	want := []string{".quire/finished.jsonl", ".quire/lock", "a.pdf.json", "failed.jsonl", "run.json", "sub/c.pdf.json", "x/mine.txt"}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "sub", "deep")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of what was removed is left: %v", err)
	}
	if got := read(t, dir, failuresName); strings.Count(got, "\n") != 2 {
		t.Errorf("failures: %s", got)
	}
	if v, told := run(Config{Prune: true}, nil, false); v != (Vanished{}) || told != nil {
		t.Errorf("once more: %+v, %q", v, told)
	}
}

// run.json says how the run ended that ended last.
// A link to a directory within the output is the user's, and leads to more than
// what is removed.
func TestPruneLeavesLinks(t *testing.T) {
	dir := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(dir, "store", "sub"), 0o777))
	check(t, os.Symlink(filepath.Join("store", "sub"), filepath.Join(dir, "sub")))
	check(t, os.Symlink("sub", filepath.Join(dir, "a.pdf.pages")))
	tree := openTree(t, dir)
	write(t, tree, "sub/a.pdf", donePage("sub/a.pdf", 1))
	write(t, tree, "a.pdf", donePage("a.pdf", 1))
	finish(t, tree)
	check(t, tree.Close())
	tree = openWith(t, Config{Dir: dir, Prune: true}, testModel, testOptions)
	if v, err := tree.Finish(t.Context(), orchestrator.Summary{}, nil, nil); err != nil || v != (Vanished{Found: 2, Pruned: 2}) {
		t.Errorf("%+v, %v", v, err)
	}
	for _, name := range []string{"sub", "a.pdf.pages"} {
		if _, err := os.Readlink(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// A result that somebody else has removed is pruned as well.
func TestPruneOfWhatHasGone(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, tree, "gone.pdf", donePage("gone.pdf", 1))
	finish(t, tree)
	check(t, tree.Close())
	check(t, os.Remove(filepath.Join(dir, "gone.pdf.json")))
	for _, want := range []Vanished{{Found: 1, Pruned: 1}, {}} {
		tree = openWith(t, Config{Dir: dir, Prune: true}, testModel, testOptions)
		v, err := tree.Finish(t.Context(), orchestrator.Summary{}, nil, nil)
		if err != nil || v != want {
			t.Errorf("%+v, %v", v, err)
		}
		check(t, tree.Close())
	}
}

// A result that cannot be removed costs nothing else.
func TestPruneThatFails(t *testing.T) {
	dir := t.TempDir()
	tree := openWith(t, Config{Dir: dir, Prune: true}, testModel, testOptions)
	write(t, tree, "gone.pdf", donePage("gone.pdf", 1))
	finish(t, tree)
	check(t, tree.Close())
	tree = openWith(t, Config{Dir: dir, Prune: true}, testModel, testOptions)
	faults(tree, func(step, name string) error {
		if step == "remove" && name == "gone.pdf.json" {
			return &os.PathError{Op: step, Path: name, Err: syscall.EACCES}
		}
		return nil
	})
	write(t, tree, "a.pdf", failedPage("a.pdf", 1))
	_, err := tree.Finish(t.Context(), orchestrator.Summary{}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "gone.pdf.json") || !strings.Contains(err.Error(), "make it writable") {
		t.Errorf("got %v", err)
	}
	check(t, tree.Close())
	if got := read(t, dir, failuresName); !strings.Contains(got, "a.pdf") {
		t.Errorf("%s has %q", failuresName, got)
	}
	if got := read(t, dir, runName); !strings.Contains(got, `"ended": "failed"`) {
		t.Errorf("%s has %s", runName, got)
	}
}
