package sink

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quire/orchestrator"
)

// A journal is taken up when there is space to do so, and until then kept.
func TestJournalOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		tree := openTree(t, dir)
		begin(t, tree, "a.pdf", 3)
		page(t, tree, donePage("a.pdf", 1))
		page(t, tree, donePage("a.pdf", 2))
		crash(t, tree)
		tree = openTree(t, dir)
		faults(tree, fullFrom(0, time.Now().Add(10*time.Second)))
		want(t, past(t, tree, document("a.pdf")), orchestrator.Past{PageCount: 3, Done: 2}, 1, 2)
		check(t, tree.Close())
	})
}

// A journal that cannot be read for a reason that may pass ends the run and is
// there for the next one.
func TestJournalThatCannotBeReadNow(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	begin(t, tree, "a.pdf", 3)
	page(t, tree, donePage("a.pdf", 1))
	check(t, tree.Close())
	tree = openTree(t, dir)
	faults(tree, func(step, name string) error {
		if step == "rename" && strings.HasPrefix(name, leftPrefix) {
			return &os.PathError{Op: step, Path: name, Err: syscall.EIO}
		}
		return nil
	})
	var failure *WriteError
	if _, err := tree.Begin(t.Context(), document("a.pdf")); !errors.As(err, &failure) || !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	check(t, tree.Close())
	want(t, past(t, openTree(t, dir), document("a.pdf")), orchestrator.Past{PageCount: 3, Done: 1}, 1)
}

// A run starts when there is space for what it writes first.
func TestStartOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree, err := Open(Config{Dir: t.TempDir()})
		check(t, err)
		defer tree.Close()
		faults(tree, fullFrom(0, time.Now().Add(10*time.Second)))
		begun := time.Now()
		check(t, tree.Start(t.Context(), testModel, nil))
		if waited := time.Since(begun); waited != 10*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

// What a run cannot tell of a document or the model holds as it was told before.
func TestDigestsAreKept(t *testing.T) {
	doc := document("a.pdf")
	doc.Sum = "content"
	touched := doc
	touched.ModTime = doc.ModTime.Add(time.Hour)
	told, silent, other := testModel, testModel, testModel
	told.Digest, other.Digest = "A", "B"

	t.Run("the model's", func(t *testing.T) {
		dir := t.TempDir()
		tree := openWith(t, Config{Dir: dir}, told, testOptions)
		rest(t, tree, doc, past(t, tree, doc), donePage("a.pdf", 1))
		finish(t, tree)
		check(t, tree.Close())
		tree = openWith(t, Config{Dir: dir}, silent, testOptions)
		if p := past(t, tree, touched); p.Result == nil {
			t.Fatalf("done again: %+v", p)
		}
		finish(t, tree)
		check(t, tree.Close())
		if p := past(t, openWith(t, Config{Dir: dir}, other, testOptions), touched); p.Redone != orchestrator.RedoneModel {
			t.Errorf("under another model the past is %+v", p)
		}
	})
	t.Run("the content's, over a journal", func(t *testing.T) {
		dir := t.TempDir()
		tree := openTree(t, dir)
		begin(t, tree, "a.pdf", 2)
		page(t, tree, donePage("a.pdf", 1))
		check(t, tree.Close())
		tree = openTree(t, dir)
		rest(t, tree, doc, past(t, tree, doc), donePage("a.pdf", 1), donePage("a.pdf", 2))
		finish(t, tree)
		check(t, tree.Close())
		if p := past(t, openTree(t, dir), touched); p.Result == nil {
			t.Errorf("of the same content, done again: %+v", p)
		}
	})
}

// What was there at three crashes is tried again when that is asked for.
func TestRetryFailedAfterCrashes(t *testing.T) {
	dir := t.TempDir()
	doc := document("a.pdf")
	for range maxCrashes {
		tree := openTree(t, dir)
		if past(t, tree, doc).PageCount == 0 {
			check(t, tree.Opened(t.Context(), doc, 3))
		}
		page(t, tree, donePage("a.pdf", 1))
		crash(t, tree)
	}
	tree := openWith(t, Config{Dir: dir, RetryFailed: true}, testModel, testOptions)
	want(t, past(t, tree, doc), orchestrator.Past{PageCount: 3, Done: 1}, 1)
	check(t, tree.Close())
	if p := past(t, openTree(t, dir), doc); p.SetAside == nil {
		t.Errorf("without being asked: %+v", p)
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
