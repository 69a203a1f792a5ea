package sink

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quire/orchestrator"
)

// A journal is taken up when there is space to do so, and until then kept; what was
// torn of it is told once, and what quire could not write is not taken for that.
func TestJournalOnAFullDisk(t *testing.T) {
	for _, torn := range []int{0, 29} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			tree := openTree(t, dir)
			begin(t, tree, "a.pdf", 3)
			page(t, tree, donePage("a.pdf", 1))
			page(t, tree, donePage("a.pdf", 2))
			crash(t, tree)
			name, _ := segmentFile("a.pdf")
			name = filepath.Join(dir, workDirectory, name)
			check(t, os.WriteFile(name, append([]byte(read(t, name)), make([]byte, torn)...), 0o666))
			var log bytes.Buffer
			tree = openWith(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}, testModel, testOptions)
			faults(tree, fullFrom(0, time.Now().Add(10*time.Second)))
			want(t, past(t, tree, document("a.pdf")), orchestrator.Past{PageCount: 3, Done: 2}, 1, 2)
			said := log.String()
			if n := strings.Count(said, "torn"); n != min(torn, 1) || torn > 0 && !strings.Contains(said, fmt.Sprint("bytes_cut=", torn)) {
				t.Errorf("of %d bytes that were torn it says:\n%s", torn, said)
			}
			if n := opened(t, name); n != 1 {
				t.Errorf("the journal is open %d times", n)
			}
			check(t, tree.Close())
		})
	}
}

// opened counts the descriptors of this process that a file has.
func opened(t *testing.T, name string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	check(t, err)
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == name {
			n++
		}
	}
	return n
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

// A run starts when there is space for what it writes first, and for the ledger that
// a run that was killed has left; what was damaged of that is told once.
func TestStartOnAFullDisk(t *testing.T) {
	for _, where := range []string{"run.json", "the ledger", "the ledger's directory"} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			sorted, lately := filepath.Join(dir, workDirectory, ledgerName), filepath.Join(dir, workDirectory, recentName)
			tree := openTree(t, dir)
			write(t, tree, "a.pdf", donePage("a.pdf", 1))
			finish(t, tree)
			check(t, tree.Close())
			tree = openTree(t, dir)
			write(t, tree, "b.pdf", donePage("b.pdf", 1))
			crash(t, tree)
			check(t, os.WriteFile(sorted, []byte("torn\n"+read(t, sorted)+"torn"), 0o666))
			check(t, os.WriteFile(lately, []byte(read(t, lately)+"torn"), 0o666))

			var log bytes.Buffer
			tree, err := Open(Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
			check(t, err)
			defer tree.Close()
			begun := time.Now()
			full := fullFrom(map[string]int{"the ledger": 2}[where], begun.Add(10*time.Second))
			if where == "the ledger's directory" {
				merged := false
				full = func(step, name string) error {
					merged = merged || step == "rename" && strings.HasSuffix(name, " to "+ledgerName)
					if merged && step == "syncdir" && time.Since(begun) < 10*time.Second {
						return &os.PathError{Op: step, Path: name, Err: syscall.ENOSPC}
					}
					return nil
				}
			}
			faults(tree, full)
			check(t, tree.Start(t.Context(), testModel, testOptions))
			if waited := time.Since(begun); waited != 10*time.Second {
				t.Errorf("%s: waited %v", where, waited)
			}
			said := log.String()
			if strings.Count(said, "was damaged") != 2 || !strings.Contains(said, ledgerName+" bytes_left_out=9\n") || !strings.Contains(said, recentName+" bytes_left_out=4\n") {
				t.Errorf("%s: of the two files that are damaged it says:\n%s", where, said)
			}
			if got := opened(t, sorted) + opened(t, sorted+" (deleted)") + opened(t, lately) + opened(t, lately+" (deleted)"); got != 1 {
				t.Errorf("%s: the ledger's files are open %d times", where, got)
			}
			for _, path := range []string{"a.pdf", "b.pdf"} {
				if past(t, tree, document(path)).Result == nil {
					t.Errorf("%s: %s is done again", where, path)
				}
			}
		})
	}
}

// What cannot be read at a start is named, whichever of the two files it is.
func TestLedgerThatCannotBeRead(t *testing.T) {
	for _, name := range []string{ledgerName, recentName} {
		dir := t.TempDir()
		check(t, os.MkdirAll(filepath.Join(dir, workDirectory, name), 0o777))
		tree, err := Open(Config{Dir: dir})
		check(t, err)
		if err := tree.Start(t.Context(), testModel, testOptions); err == nil || !strings.Contains(err.Error(), "/"+name+": is a directory") {
			t.Errorf("%s: %v", name, err)
		}
		check(t, tree.Close())
	}
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
	for _, order := range [][2]orchestrator.Document{{document("a.pdf"), doc}, {doc, document("a.pdf")}} {
		t.Run("the content's, over a journal", func(t *testing.T) {
			dir := t.TempDir()
			tree := openTree(t, dir)
			past(t, tree, order[0])
			check(t, tree.Opened(t.Context(), order[0], 2))
			page(t, tree, donePage("a.pdf", 1))
			check(t, tree.Close())
			tree = openTree(t, dir)
			rest(t, tree, order[1], past(t, tree, order[1]), donePage("a.pdf", 1), donePage("a.pdf", 2))
			finish(t, tree)
			check(t, tree.Close())
			if p := past(t, openTree(t, dir), touched); p.Result == nil {
				t.Errorf("of the same content, done again: %+v", p)
			}
		})
	}
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

// What was done of a document that is asked for again is taken over once, also when
// there is no space for it at first.
func TestRetryFailedOnAFullDisk(t *testing.T) {
	for n := range 5 {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			tree := openTree(t, dir)
			write(t, tree, "a.pdf", donePage("a.pdf", 1), failedPage("a.pdf", 2), donePage("a.pdf", 3), donePage("a.pdf", 4))
			finish(t, tree)
			check(t, tree.Close())
			tree = openWith(t, Config{Dir: dir, RetryFailed: true}, testModel, testOptions)
			faults(tree, fullFrom(n, time.Now().Add(10*time.Second)))
			p := past(t, tree, document("a.pdf"))
			want(t, p, orchestrator.Past{PageCount: 4, Done: 3, Redone: orchestrator.RedoneFailed}, 1, 3, 4)
			rest(t, tree, document("a.pdf"), p, donePage("a.pdf", 1), donePage("a.pdf", 2), donePage("a.pdf", 3), donePage("a.pdf", 4))
			check(t, tree.Close())
		})
	}
}

// A file that is no journal of the document makes way for one; where there are two,
// the one that is good counts.
func TestJournalThatIsNone(t *testing.T) {
	inWork, left := segmentFile("a.pdf")
	other := appendLine(nil, []byte(`{"schema":"quire-pages/1","path":"b.pdf","size":1,"mtime":"","model":"m","options":"o"}`))
	for _, junk := range [][]byte{nil, []byte("junk\n"), other} {
		for _, good := range []bool{false, true} {
			dir := t.TempDir()
			tree := openTree(t, dir)
			begin(t, tree, "a.pdf", 2)
			page(t, tree, donePage("a.pdf", 1))
			check(t, tree.Close())
			check(t, os.WriteFile(filepath.Join(dir, workDirectory, inWork), junk, 0o666))
			if !good {
				check(t, os.WriteFile(filepath.Join(dir, workDirectory, left), junk, 0o666))
			}
			var log bytes.Buffer
			tree = openWith(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}, testModel, testOptions)
			p := past(t, tree, document("a.pdf"))
			if good {
				want(t, p, orchestrator.Past{PageCount: 2, Done: 1}, 1)
			} else {
				want(t, p, orchestrator.Past{})
			}
			if n := strings.Count(log.String(), "the journal of a document cannot be read"); n == 0 {
				t.Errorf("of %q it says:\n%s", junk, log.String())
			}
			rest(t, tree, document("a.pdf"), p, donePage("a.pdf", 1), donePage("a.pdf", 2))
			finish(t, tree)
			check(t, tree.Close())
			if got := files(t, filepath.Join(dir, workDirectory)); !slices.Equal(got, []string{ledgerName, lockName}) {
				t.Errorf("left %q", got)
			}
		}
	}
}

// A journal that a run left behind beside its result, killed before it could remove
// it, goes with the next run.
func TestJournalBesideItsResult(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	segment, _ := segmentFile("a.pdf")
	faults(tree, func(step, name string) error {
		if step == "remove" && name == segment {
			return &os.PathError{Op: step, Path: name, Err: syscall.EIO}
		}
		return nil
	})
	write(t, tree, "a.pdf", donePage("a.pdf", 1))
	crash(t, tree)
	if got := files(t, filepath.Join(dir, workDirectory)); !slices.Contains(got, segment) {
		t.Fatalf("there is %q", got)
	}
	tree = openTree(t, dir)
	if p := past(t, tree, document("a.pdf")); p.Result == nil {
		t.Errorf("the past is %+v", p)
	}
	if got := files(t, filepath.Join(dir, workDirectory)); slices.Contains(got, segment) {
		t.Errorf("left %q", got)
	}
}

// cutOff gives a.pdf another result of the same size, and ends the run before the
// ledger has it.
func cutOff(t *testing.T, tree *Tree, dir string, doc orchestrator.Document) {
	t.Helper()
	before := read(t, dir, "a.pdf.json")
	past(t, tree, doc)
	check(t, tree.Opened(t.Context(), doc, 1))
	other := donePage("a.pdf", 1)
	other.Geometry.WidthPt++
	page(t, tree, other)
	replaced := false
	faults(tree, func(step, name string) error {
		replaced = replaced || step == "rename"
		if replaced && name == recentName {
			return syscall.EIO
		}
		return nil
	})
	if err := end(t.Context(), tree, orchestrator.DocumentResult{Path: "a.pdf", Size: doc.Size, Status: orchestrator.StatusDone, PageCount: 1, Done: 1}); err == nil {
		t.Fatal("a ledger that cannot be written stands")
	}
	crash(t, tree)
	if after := read(t, dir, "a.pdf.json"); after == before || len(after) != len(before) {
		t.Fatalf("%s: not another result of the same size", after)
	}
}

// A run that ends between a result and its line in the ledger leaves a result
// that is not what the line says: it does not stand for the document as it was
// before, though it has the size of the one that was there then.
func TestResultThatTheLedgerDoesNotKnow(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, tree, "a.pdf", donePage("a.pdf", 1))
	finish(t, tree)
	check(t, tree.Close())
	before := read(t, dir, "a.pdf.json")

	tree = openTree(t, dir)
	changed := document("a.pdf")
	changed.ModTime = changed.ModTime.Add(time.Hour)
	cutOff(t, tree, dir, changed)

	tree = openTree(t, dir)
	p := past(t, tree, document("a.pdf"))
	if p.Result != nil || p.Redone != orchestrator.RedoneInput || p.Pages.Len() != 0 {
		t.Errorf("the past is %+v, want that it is done again", p)
	}
	rest(t, tree, document("a.pdf"), p, donePage("a.pdf", 1))
	finish(t, tree)
	check(t, tree.Close())
	if after := read(t, dir, "a.pdf.json"); after != before {
		t.Errorf("got %s, want %s", after, before)
	}
}

// Nor does it when what tells of the other result has gone: another run has begun the
// document and was killed, too, or the power was cut before the journal was flushed.
func TestResultThatNothingTellsOf(t *testing.T) {
	for _, power := range []bool{false, true} {
		dir := t.TempDir()
		tree := openTree(t, dir)
		write(t, tree, "a.pdf", donePage("a.pdf", 1))
		finish(t, tree)
		check(t, tree.Close())
		before := read(t, dir, "a.pdf.json")

		other := map[string]any{"threshold": 0.3}
		tree = openWith(t, Config{Dir: dir}, testModel, other)
		cutOff(t, tree, dir, document("a.pdf"))
		if power {
			for _, name := range files(t, filepath.Join(dir, workDirectory)) {
				if strings.HasPrefix(name, segmentPrefix) || strings.HasPrefix(name, leftPrefix) {
					check(t, os.Remove(filepath.Join(dir, workDirectory, name)))
				}
			}
		} else {
			tree = openWith(t, Config{Dir: dir}, testModel, map[string]any{"threshold": 0.7})
			past(t, tree, document("a.pdf"))
			check(t, tree.Opened(t.Context(), document("a.pdf"), 1))
			crash(t, tree)
		}

		tree = openTree(t, dir)
		p := past(t, tree, document("a.pdf"))
		if p.Result != nil {
			t.Fatalf("power %v: the past is %+v, want that it is done again", power, p)
		}
		rest(t, tree, document("a.pdf"), p, donePage("a.pdf", 1))
		finish(t, tree)
		check(t, tree.Close())
		if after := read(t, dir, "a.pdf.json"); after != before {
			t.Errorf("got %s, want %s", after, before)
		}
	}
}

// What else an earlier run has left of a document whose result stands is of no
// account: pages that no result can have been made of, or what is torn. Nothing is
// said of it, and no space taken.
func TestWhatIsLeftOfWhatStands(t *testing.T) {
	for name, options := range map[string]map[string]any{"the same": testOptions, "another": {"threshold": 0.3}} {
		for how, spoil := range map[string]func([]byte) []byte{
			"cancelled": nil,
			"killed":    func(b []byte) []byte { return b },
			"empty":     func(b []byte) []byte { return nil },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				dir := t.TempDir()
				tree := openTree(t, dir)
				write(t, tree, "a.pdf", donePage("a.pdf", 1), donePage("a.pdf", 2))
				finish(t, tree)
				check(t, tree.Close())

				tree = openWith(t, Config{Dir: dir, Fresh: true}, testModel, options)
				past(t, tree, document("a.pdf"))
				check(t, tree.Opened(t.Context(), document("a.pdf"), 2))
				page(t, tree, donePage("a.pdf", 1))
				if spoil == nil {
					check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "a.pdf", Status: orchestrator.StatusCancelled, PageCount: 2, Done: 1, Cancelled: 1}))
					finish(t, tree)
					check(t, tree.Close())
				} else {
					crash(t, tree)
					inWork, _ := segmentFile("a.pdf")
					journal := filepath.Join(dir, workDirectory, inWork)
					check(t, os.WriteFile(journal, spoil([]byte(read(t, journal))), 0o666))
				}

				var log bytes.Buffer
				tree = openWith(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}, testModel, testOptions)
				faults(tree, fullFrom(0, time.Now().Add(time.Hour)))
				if p := past(t, tree, document("a.pdf")); p.Result == nil {
					t.Errorf("the past is %+v", p)
				}
				check(t, tree.Close())
				if log.Len() > 0 {
					t.Errorf("it says %s", &log)
				}
				if got := files(t, filepath.Join(dir, workDirectory)); !slices.Equal(got, []string{ledgerName, "lock"}) {
					t.Errorf("left %q", got)
				}
			})
		}
	}
}

// A document of which there are pages, and that does not open any more, fails like
// any other: no run ends for it.
func TestNotOpenedAnyMore(t *testing.T) {
	for _, stood := range []bool{false, true} {
		dir := t.TempDir()
		tree := openTree(t, dir)
		begin(t, tree, "a.pdf", 3)
		pages := []orchestrator.PageResult{donePage("a.pdf", 1), failedPage("a.pdf", 2)}
		if stood {
			check(t, end(t.Context(), tree, ended(t, tree, "a.pdf", append(pages, donePage("a.pdf", 3))...)))
			finish(t, tree)
		} else {
			ended(t, tree, "a.pdf", pages...)
		}
		check(t, tree.Close())

		tree = openWith(t, Config{Dir: dir, RetryFailed: stood}, testModel, testOptions)
		if p := past(t, tree, document("a.pdf")); p.PageCount != 3 {
			t.Errorf("the past is %+v", p)
		}
		check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "a.pdf", Size: 1234, PageCount: -1, Status: orchestrator.StatusFailed,
			Err: &orchestrator.PageError{Stage: orchestrator.StageOpen, Category: orchestrator.CategoryEncrypted, Message: "no"}}))
		finish(t, tree)
		check(t, tree.Close())
		d, err := ReadDocument(filepath.Join(dir, "a.pdf.json"))
		if check(t, err); d.PageCount != nil || len(d.Pages) != 0 || d.Error == nil {
			t.Errorf("its result is %+v", d)
		}

		// Its pages wait for the run in which it opens again.
		tree = openWith(t, Config{Dir: dir, Prune: true}, testModel, testOptions)
		if p := past(t, tree, document("a.pdf")); p.Result == nil {
			t.Errorf("then the past is %+v", p)
		}
		finish(t, tree)
		check(t, tree.Close())
		tree = openWith(t, Config{Dir: dir, RetryFailed: true}, testModel, testOptions)
		p := past(t, tree, document("a.pdf"))
		if p.PageCount != 3 || !p.Pages.Has(1) || p.Pages.Has(2) || p.Pages.Has(3) != stood {
			t.Errorf("at last the past is %+v", p)
		}
		rest(t, tree, document("a.pdf"), p, donePage("a.pdf", 1), donePage("a.pdf", 2), donePage("a.pdf", 3))
		finish(t, tree)
		check(t, tree.Close())
		if got := files(t, filepath.Join(dir, workDirectory)); !slices.Equal(got, []string{ledgerName, lockName}) {
			t.Errorf("left %q", got)
		}
	}
}
