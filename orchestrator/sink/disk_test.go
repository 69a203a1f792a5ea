package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quire/orchestrator"
)

// faults lets a tree's steps fail.
func faults(tree *Tree, fault func(step, name string) error) {
	tree.root.fault, tree.work.fault = fault, fault
}

// fullFrom is a disk without space from the n-th write on, until a time.
func fullFrom(n int, until time.Time) func(step, name string) error {
	return fullAt(n, until, "write", "create", "mkdir")
}

// fullAt is a disk without space from the n-th of some steps on, until a time.
func fullAt(n int, until time.Time, steps ...string) func(step, name string) error {
	var mu sync.Mutex
	return func(step, name string) error {
		if !slices.Contains(steps, step) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if n--; n < 0 && time.Now().Before(until) {
			return &os.PathError{Op: step, Path: name, Err: syscall.ENOSPC}
		}
		return nil
	}
}

// scenario runs three documents through a tree, as much as that takes; it stops
// at the first error. Pages that are there are not sent.
func scenario(ctx context.Context, tree *Tree, vanished func(string)) error {
	docs := map[string][]orchestrator.PageResult{}
	for _, path := range []string{"a.pdf", "sub/deep/b.pdf", "sub/c.pdf"} {
		docs[path] = []orchestrator.PageResult{donePage(path, 1), failedPage(path, 2), donePage(path, 3)}
	}
	var mu sync.Mutex
	var failed error
	var group sync.WaitGroup
	run := func() error {
		for _, path := range slices.Sorted(maps.Keys(docs)) {
			past, err := tree.Begin(ctx, document(path))
			if err != nil {
				return err
			}
			if past.Result != nil {
				continue
			}
			d := orchestrator.DocumentResult{Path: path, Size: 1234, PageCount: 3, Status: orchestrator.StatusPartial, Done: past.Done, Failed: past.Failed}
			if err := tree.Opened(ctx, document(path), 3); err != nil {
				return err
			}
			for _, p := range docs[path] {
				if past.Pages.Has(p.Ref.Page) {
					continue
				}
				if err := tree.Page(ctx, p); err != nil {
					return err
				}
				if p.Err != nil {
					d.Failed++
				} else {
					d.Done++
				}
			}
			group.Add(1)
			err = tree.End(ctx, d, func(err error) {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
				group.Done()
			})
			if err != nil {
				group.Done()
				return err
			}
		}
		return nil
	}
	err := run()
	group.Wait()
	err = errors.Join(err, failed)
	_, finishErr := tree.Finish(ctx, orchestrator.Summary{}, err, vanished)
	return errors.Join(err, finishErr)
}

// unbroken is what scenario makes when nothing goes wrong.
func unbroken(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	tree := openTree(t, dir)
	check(t, scenario(t.Context(), tree, nil))
	check(t, tree.Close())
	return results(t, dir)
}

// onlyWhole holds that each result that stands is one of those in whole.
func onlyWhole(t *testing.T, dir string, whole map[string]string) {
	t.Helper()
	for name, content := range results(t, dir) {
		if name != failuresName && content != whole[name] {
			t.Errorf("%s is %q", name, content)
		}
	}
}

// A full disk is waited for, wherever it is met, and costs nothing.
func TestFullDiskIsWaitedFor(t *testing.T) {
	whole := unbroken(t)
	for n := range 26 {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			tree := openTree(t, dir)
			start := time.Now()
			faults(tree, fullFrom(n, start.Add(90*time.Second)))
			told := make(chan string, 1)
			time.AfterFunc(80*time.Second, func() {
				reason, since := tree.Waiting()
				onlyWhole(t, dir, whole)
				if reason != "" && (!strings.Contains(reason, "no space left") || since.After(start.Add(3*time.Second))) {
					t.Errorf("write %d: waiting since %v, %s", n, since.Sub(start), reason)
				}
				told <- reason
			})
			if err := scenario(t.Context(), tree, nil); err != nil {
				t.Fatalf("write %d: %v", n, err)
			}
			if took := time.Since(start); n < 20 && (took < 90*time.Second || took > 95*time.Second) {
				t.Errorf("write %d: done after %v", n, took)
			}
			if n < 20 && <-told == "" {
				t.Errorf("write %d: it does not say that it waits", n)
			}
			if reason, _ := tree.Waiting(); reason != "" {
				t.Errorf("write %d: it still waits: %s", n, reason)
			}
			check(t, tree.Close())
			if got := results(t, dir); !maps.Equal(got, whole) {
				t.Errorf("write %d: %v", n, got)
			}
		})
	}
}

// So is one that says only at a flush that it is full, of whatever that is.
func TestFullDiskAtAnyFlush(t *testing.T) {
	whole := unbroken(t)
	for _, step := range []string{"sync", "syncdir"} {
		for n := range 9 {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				tree := openTree(t, dir)
				faults(tree, fullAt(n, time.Now().Add(90*time.Second), step))
				if err := scenario(t.Context(), tree, nil); err != nil {
					t.Errorf("%s %d: %v", step, n, err)
				}
				check(t, tree.Close())
				if got := results(t, dir); !maps.Equal(got, whole) {
					t.Errorf("%s %d: %v", step, n, got)
				}
			})
		}
	}
}

// The patience with a full disk ends, and so does a run that is to end at once.
// What had come is there for the next run.
func TestFullDiskEndsTheRun(t *testing.T) {
	whole := unbroken(t)
	for _, tt := range []struct {
		name  string
		cfg   Config
		after time.Duration
		says  string
	}{
		{"default", Config{}, 10 * time.Minute, "no space left on device, for 10m0s now: free some space and run the same command again"},
		{"patience", Config{DiskWait: time.Minute}, time.Minute, "for 1m0s now"},
		{"none", Config{DiskWait: -1}, 0, "no space left on device: free some space"},
		{"hard stop", Config{}, 5 * time.Second, "no space left on device: free some space"},
	} {
		for _, n := range []int{0, 1, 4, 9, 14, 19} {
			synctest.Test(t, func(t *testing.T) {
				tt.cfg.Dir = t.TempDir()
				tree := openWith(t, tt.cfg, testModel, testOptions)
				start := time.Now()
				faults(tree, fullFrom(n, start.Add(time.Hour)))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.name == "hard stop" {
					time.AfterFunc(5*time.Second, cancel)
				}
				err := scenario(ctx, tree, nil)
				var w *WriteError
				if !errors.As(err, &w) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%s, write %d: %v", tt.name, n, err)
				}
				if took := time.Since(start); took < tt.after || took > tt.after+2*time.Second {
					t.Errorf("%s, write %d: ended after %v", tt.name, n, took)
				}
				faults(tree, nil)
				check(t, tree.Close())
				onlyWhole(t, tt.cfg.Dir, whole)
				tree = openTree(t, tt.cfg.Dir)
				for path := range whole {
					if path == failuresName {
						continue
					}
					path = strings.TrimSuffix(path, ".json")
					if p := past(t, tree, document(path)); p.SetAside != nil {
						t.Errorf("%s, write %d: %s was set aside", tt.name, n, path)
					}
				}
				check(t, tree.Close())
				tree = openTree(t, tt.cfg.Dir)
				check(t, scenario(t.Context(), tree, nil))
				check(t, tree.Close())
				if got := results(t, tt.cfg.Dir); !maps.Equal(got, whole) {
					t.Errorf("%s, write %d: the next run left %v", tt.name, n, got)
				}
			})
		}
	}
}

// A disk that says only when it is flushed that it is full is waited for, too.
func TestFullDiskAtTheFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := openWith(t, Config{Dir: t.TempDir()}, testModel, testOptions)
		doc := document("a.pdf")
		_, err := tree.Begin(t.Context(), doc)
		check(t, err)
		check(t, tree.Opened(t.Context(), doc, 2))
		start := time.Now()
		faults(tree, func(step, name string) error {
			if step == "sync" && strings.HasPrefix(name, segmentPrefix) && time.Since(start) < time.Minute {
				return &os.PathError{Op: step, Path: name, Err: syscall.ENOSPC}
			}
			return nil
		})
		check(t, tree.Page(t.Context(), donePage("a.pdf", 1)))
		time.Sleep(30 * time.Second)
		if reason, since := tree.Waiting(); reason == "" || since.Sub(start) > 2*syncEvery {
			t.Errorf("it waits since %v: %q", since.Sub(start), reason)
		}
		time.Sleep(time.Minute)
		if reason, _ := tree.Waiting(); reason != "" || tree.Waited() < 50*time.Second {
			t.Errorf("with space again: %q, after %v", reason, tree.Waited())
		}
		if s := tree.inWork("a.pdf"); s.dirty.Load() {
			t.Error("what could not be flushed never was")
		}
		check(t, tree.Page(t.Context(), donePage("a.pdf", 2)))
		check(t, tree.Close())
	})
}

// A document that ends while it is about to be flushed is no failure.
func TestFlushOfWhatHasEnded(t *testing.T) {
	tree := openTree(t, t.TempDir())
	begin(t, tree, "a.pdf", 1)
	s := tree.inWork("a.pdf")
	check(t, end(t.Context(), tree, ended(t, tree, "a.pdf", donePage("a.pdf", 1))))
	s.dirty.Store(true) // as it was when the flusher looked
	check(t, s.flush())
}

// Documents that end together wait together: the patience with a full disk is not
// spent for one after the other, at whatever step it is met.
func TestFullDiskIsWaitedForOnce(t *testing.T) {
	for _, step := range []string{"create", "mkdir"} {
		synctest.Test(t, func(t *testing.T) {
			const documents = 4 * syncAtOnce
			tree := openWith(t, Config{Dir: t.TempDir(), DiskWait: time.Minute}, testModel, testOptions)
			path := func(i int) string { return fmt.Sprintf("%02d/a.pdf", i) }
			for i := range documents {
				_, err := tree.Begin(t.Context(), document(path(i)))
				check(t, err)
				check(t, tree.Opened(t.Context(), document(path(i)), 1))
				check(t, tree.Page(t.Context(), donePage(path(i), 1)))
			}
			var stand sync.WaitGroup
			var full atomic.Int64
			end := func(i int) {
				stand.Add(1)
				check(t, tree.End(t.Context(), orchestrator.DocumentResult{Path: path(i), Size: 1234, PageCount: 1, Status: orchestrator.StatusDone, Done: 1}, func(err error) {
					if errors.Is(err, syscall.ENOSPC) {
						full.Add(1)
					}
					stand.Done()
				}))
			}
			end(0) // so that the others are taken together
			stand.Wait()
			start := time.Now()
			faults(tree, func(at, name string) error {
				if at == step {
					return &os.PathError{Op: at, Path: name, Err: syscall.ENOSPC}
				}
				return nil
			})
			for i := range documents - 1 {
				end(i + 1)
			}
			stand.Wait()
			if took := time.Since(start); took > 90*time.Second || full.Load() != documents-1 {
				t.Errorf("%s: %d documents met a full disk, for %v", step, full.Load(), took)
			}
			faults(tree, nil)
			check(t, tree.Close())
		})
	}
}

// Wherever a disk fails for good, what stands is whole, and the next run makes
// the rest of it.
func TestDiskThatFails(t *testing.T) {
	whole := unbroken(t)
	rnd := rand.New(rand.NewPCG(4, 4))
	for _, step := range []string{"create", "write", "sync", "rename", "syncdir", "mkdir", "remove"} {
		failed := 0
		for _, n := range []int{0, 1, 2, 4, 7, 11, 16} {
			dir := t.TempDir()
			tree := openTree(t, dir)
			var mu sync.Mutex
			left := n
			faults(tree, func(s, name string) error {
				mu.Lock()
				defer mu.Unlock()
				if s != step {
					return nil
				}
				if left--; left < 0 {
					return &os.PathError{Op: s, Path: name, Err: syscall.EIO}
				}
				return nil
			})
			err := scenario(t.Context(), tree, nil)
			if err != nil {
				failed++
				if !errors.Is(err, syscall.EIO) {
					t.Errorf("%s %d: %v", step, n, err)
				}
			}
			onlyWhole(t, dir, whole)
			if rnd.IntN(2) == 0 { // with everything that is still to be done failing, too
				check(t, tree.Close())
			} else {
				faults(tree, nil)
				check(t, tree.Close())
			}
			onlyWhole(t, dir, whole)
			tree = openTree(t, dir)
			check(t, scenario(t.Context(), tree, nil))
			check(t, tree.Close())
			if got := results(t, dir); !maps.Equal(got, whole) {
				t.Fatalf("%s %d: the next run left %v", step, n, got)
			}
		}
		if failed == 0 && step != "remove" {
			t.Errorf("no %s failed", step)
		}
	}
}

// What a power cut may take: the steps come in an order in which there is always
// a document's result, or its pages, on the disk.
func TestOrderOfSteps(t *testing.T) {
	tree := openTree(t, t.TempDir())
	var mu sync.Mutex
	var trace []string
	faults(tree, func(step, name string) error {
		mu.Lock()
		defer mu.Unlock()
		trace = append(trace, step+" "+name)
		return nil
	})
	check(t, scenario(t.Context(), tree, nil))
	for _, path := range []string{"a.pdf", "sub/deep/b.pdf", "sub/c.pdf"} {
		segment, _ := segmentFile(path)
		result := path + ".json"
		from := ""
		for _, s := range trace {
			if before, ok := strings.CutSuffix(s, " to "+result); ok {
				from = strings.TrimPrefix(before, "rename ")
			}
		}
		rename := slices.Index(trace, "rename "+from+" to "+result)
		after := func(from int, want string) int {
			t.Helper()
			if i := slices.Index(trace[from:], want); i >= 0 {
				return from + i
			}
			t.Fatalf("%s: no %q after step %d of %q", path, want, from, trace)
			return 0
		}
		last := 0
		for i, s := range trace[:rename] {
			if s == "write "+from {
				last = i
			}
		}
		if flushed := after(last, "sync "+from); flushed > rename {
			t.Errorf("%s: renamed before it was flushed", path)
		}
		directory := after(rename, "syncdir "+filepath.Dir(result))
		noted := after(directory, "write "+recentName)
		kept := after(noted, "sync "+recentName)
		if gone := after(0, "remove "+segment); gone < kept {
			t.Errorf("%s: its pages went (step %d) before its result stood (step %d)", path, gone, kept)
		}
	}
	// The ledger is whole before it takes the place of the one before, and what it
	// is made of goes after that.
	last := -1
	for _, step := range []string{"sync " + tempPrefix + ledgerName, "rename " + tempPrefix + ledgerName + " to " + ledgerName, "syncdir .", "remove " + recentName} {
		i := slices.Index(trace[last+1:], step)
		if i < 0 {
			t.Fatalf("no %q after step %d of %q", step, last, trace)
		}
		last += 1 + i
	}
}

// The journal of a document in work is flushed every second, and its name too.
func TestJournalIsFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := openTree(t, t.TempDir())
		begin(t, tree, "a.pdf", 2)
		var mu sync.Mutex
		var trace []string
		faults(tree, func(step, name string) error {
			mu.Lock()
			defer mu.Unlock()
			if step == "sync" || step == "syncdir" {
				trace = append(trace, step+" "+name)
			}
			return nil
		})
		page(t, tree, donePage("a.pdf", 1))
		time.Sleep(3*syncEvery + syncEvery/2)
		segment, _ := segmentFile("a.pdf")
		mu.Lock()
		if want := []string{"sync " + segment, "syncdir ."}; !slices.Equal(trace, want) {
			t.Errorf("it did %q, want %q and that once", trace, want)
		}
		mu.Unlock()
		check(t, tree.Close())
	})
}

// A document that could not be noted in the ledger does not stand, and its pages are
// there for the next run.
func TestNotNotedDoesNotStand(t *testing.T) {
	for _, at := range []string{"create", "write", "sync"} {
		dir := t.TempDir()
		tree := openTree(t, dir)
		begin(t, tree, "a.pdf", 2)
		d := ended(t, tree, "a.pdf", donePage("a.pdf", 1), failedPage("a.pdf", 2))
		faults(tree, func(step, name string) error {
			if step == at && name == recentName {
				return &os.PathError{Op: step, Path: name, Err: syscall.EIO}
			}
			return nil
		})
		if err := end(t.Context(), tree, d); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", at, err)
		}
		if w := tree.Written(); w.Documents != 0 {
			t.Errorf("%s: %d results are said to be written", at, w.Documents)
		}
		check(t, tree.Close())
		want(t, past(t, openTree(t, dir), document("a.pdf")), orchestrator.Past{PageCount: 2, Done: 1, Failed: 1}, 1, 2)
	}
}

// A disk that is full from the start is found before anything is begun, and so
// is one that cannot be written.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(dir, workDirectory), 0o777))
	for _, tt := range []struct {
		step string
		err  error
		says string
	}{
		{"write", syscall.ENOSPC, "free some space"},
		{"sync", syscall.EDQUOT, "free some space"},
		{"create", syscall.EROFS, "read-only file system: name another directory with -o"},
		{"create", syscall.EMFILE, "too many open files"},
	} {
		tree := &Tree{cfg: Config{Dir: dir}, work: &disk{Root: tempRoot(t, filepath.Join(dir, workDirectory))}}
		tree.work.fault = func(step, name string) error {
			if step == tt.step {
				return &os.PathError{Op: step, Path: name, Err: tt.err}
			}
			return nil
		}
		err := tree.probe()
		if err == nil || !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), filepath.Join(dir, workDirectory)) {
			t.Errorf("%s: %v", tt.step, err)
		}
		if errors.Is(tt.err, syscall.EMFILE) && strings.Contains(err.Error(), "another directory") {
			t.Errorf("%s: %v", tt.step, err)
		}
		if left := files(t, dir); len(left) > 0 {
			t.Errorf("%s: left %q", tt.step, left)
		}
	}
}

// Documents that end close together are flushed together.
func TestDocumentsAreFlushedInGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		tree := openTree(t, dir)
		var mu sync.Mutex
		flushes := 0
		faults(tree, func(step, name string) error {
			mu.Lock()
			defer mu.Unlock()
			if step == "sync" && name == recentName {
				flushes++
			}
			return nil
		})
		begin(t, tree, "long.pdf", 1) // in work all the time
		start := time.Now()
		var group sync.WaitGroup
		const documents = 200
		for i := range documents {
			path := fmt.Sprintf("%03d.pdf", i)
			begin(t, tree, path, 1)
			page(t, tree, donePage(path, 1))
			group.Add(1)
			check(t, tree.End(t.Context(), orchestrator.DocumentResult{Path: path, Status: orchestrator.StatusDone, PageCount: 1, Done: 1}, func(err error) {
				check(t, err)
				group.Done()
			}))
		}
		group.Wait()
		if took := time.Since(start); flushes > 1+documents/syncDocuments+1 || took > 2*syncEvery {
			t.Errorf("%d flushes for %d documents, %v", flushes, documents, took)
		}
		// One alone waits for nothing when there is nothing else in work.
		check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "long.pdf", Status: orchestrator.StatusCancelled, PageCount: 1, Cancelled: 1}))
		start = time.Now()
		begin(t, tree, "last.pdf", 1)
		page(t, tree, donePage("last.pdf", 1))
		check(t, end(t.Context(), tree, orchestrator.DocumentResult{Path: "last.pdf", Status: orchestrator.StatusDone, PageCount: 1, Done: 1}))
		if took := time.Since(start); took != 0 {
			t.Errorf("the last document waited %v", took)
		}
		check(t, tree.Close())
	})
}
