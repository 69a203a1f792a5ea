package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quire/orchestrator"
)

func put(content string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	}
}

func TestPictures(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	p := tree.Pictures()
	write(t, tree, "sub/a.pdf", donePage("sub/a.pdf", 1), failedPage("sub/a.pdf", 2))
	d, err := p.Result("sub/a.pdf")
	check(t, err)
	if d.Source.Path != "sub/a.pdf" || len(d.Pages) != 2 || d.Pages[1].Status != orchestrator.StatusFailed {
		t.Errorf("result %+v", d)
	}
	if _, err := p.Result("sub/b.pdf"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a result that is not there: %v", err)
	}

	var group sync.WaitGroup
	for page := range 9 {
		group.Go(func() {
			if err := p.Write(t.Context(), "sub/a.pdf", page+1, put(fmt.Sprint("first ", page+1))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	check(t, p.Write(t.Context(), "sub/a.pdf", 3, put("again")))
	for page, want := range map[int]string{1: "first 1", 3: "again", 9: "first 9"} {
		if got := read(t, dir, "sub", "a.pdf.pages", fmt.Sprintf("%04d.png", page)); got != want {
			t.Errorf("page %d: %q, want %q", page, got, want)
		}
	}
	// Several hands may write at once, each with Pictures of its own.
	check(t, tree.Pictures().Write(t.Context(), "sub/a.pdf", 4, func(w io.Writer) error {
		return errors.Join(put("fourth")(w), tree.Pictures().Write(t.Context(), "sub/a.pdf", 5, put("fifth")))
	}))
	if four, five := read(t, dir, "sub", "a.pdf.pages", "0004.png"), read(t, dir, "sub", "a.pdf.pages", "0005.png"); four != "fourth" || five != "fifth" {
		t.Errorf("two at once gave %q and %q", four, five)
	}
	// One that could not be made leaves the one before, and no rest of itself.
	broken := errors.New("no picture")
	err = p.Write(t.Context(), "sub/a.pdf", 3, func(w io.Writer) error { _, _ = io.WriteString(w, "half"); return broken })
	if !errors.Is(err, broken) || read(t, dir, "sub", "a.pdf.pages", "0003.png") != "again" {
		t.Errorf("a failure to draw gave %v", err)
	}

	check(t, p.Trim("sub/a.pdf", 2))
	want := []string{"sub/a.pdf.json", "sub/a.pdf.pages/0001.png", "sub/a.pdf.pages/0002.png"}
	if got := visible(t, dir); !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q", got, want)
	}
	check(t, p.Trim("sub/a.pdf", 0))
	if _, err := os.Stat(filepath.Join(dir, "sub", "a.pdf.pages")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory was left: %v", err)
	}
	check(t, p.Trim("never/there.pdf", 0))
}

// A picture waits for space on the disk, as a result does, and no longer than it may.
func TestPictureOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		tree := openTree(t, dir)
		defer tree.Close()
		begun := time.Now()
		faults(tree, fullFrom(0, begun.Add(5*time.Second)))
		check(t, tree.Pictures().Write(t.Context(), "a.pdf", 1, put("picture")))
		if waited := time.Since(begun); waited != 5*time.Second || read(t, dir, "a.pdf.pages", "0001.png") != "picture" {
			t.Errorf("written after %v", waited)
		}
		faults(tree, fullFrom(0, time.Now().Add(time.Hour)))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begun = time.Now()
		if err := tree.Pictures().Write(ctx, "a.pdf", 2, put("picture")); !errors.Is(err, syscall.ENOSPC) || time.Since(begun) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// Pictures go before their result is replaced, wherever that is cut off: none
// is ever beside a result that it is not of. What is not quire's stays.
func TestPicturesOfAnOlderResult(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, tree, "sub/a.pdf", donePage("sub/a.pdf", 1), donePage("sub/a.pdf", 2), donePage("sub/a.pdf", 3))
	for _, page := range []int{1, 2, 3, 5} { // one in between was taken away
		check(t, tree.Pictures().Write(t.Context(), "sub/a.pdf", page, put("old")))
	}
	for _, mine := range []string{"mine.txt", "1.png", "7.png", "00002.png", "0004.jpg"} {
		check(t, os.WriteFile(filepath.Join(dir, "sub", "a.pdf.pages", mine), nil, 0o666))
	}
	check(t, os.Mkdir(filepath.Join(dir, "sub", "a.pdf.pages", "0007.png"), 0o777))
	check(t, os.WriteFile(filepath.Join(dir, "sub", "a.pdf.pages", "0007.png", "mine.txt"), nil, 0o666))
	check(t, os.WriteFile(filepath.Join(dir, "sub", "b.pdf.pages"), nil, 0o666))
	check(t, os.Mkdir(filepath.Join(dir, "sub", "c.pdf.pages"), 0o777)) // of whose document there is no result
	check(t, os.WriteFile(filepath.Join(dir, "sub", "c.pdf.pages", "0001.png"), nil, 0o666))
	old := read(t, dir, "sub", "a.pdf.json")
	finish(t, tree)
	check(t, tree.Close())

	tree = openWith(t, Config{Dir: dir, Fresh: true}, testModel, testOptions)
	faults(tree, func(step, name string) error {
		if step == "remove" && name == "sub/a.pdf.pages/0002.png" {
			return &os.PathError{Op: step, Path: name, Err: syscall.EIO}
		}
		return nil
	})
	past(t, tree, document("sub/a.pdf"))
	check(t, tree.Opened(t.Context(), document("sub/a.pdf"), 1))
	if err := end(t.Context(), tree, ended(t, tree, "sub/a.pdf", failedPage("sub/a.pdf", 1))); !errors.Is(err, syscall.EIO) {
		t.Errorf("cut off while pictures are removed: %v", err)
	}
	check(t, tree.Close())
	if read(t, dir, "sub", "a.pdf.json") != old {
		t.Error("the result was replaced before its pictures had gone")
	}

	tree = openWith(t, Config{Dir: dir, Fresh: true}, testModel, testOptions)
	for _, name := range []string{"sub/a.pdf", "sub/b.pdf", "sub/c.pdf"} {
		past(t, tree, document(name))
		check(t, tree.Opened(t.Context(), document(name), 1))
		check(t, end(t.Context(), tree, ended(t, tree, name, failedPage(name, 1))))
	}
	want := []string{"sub/a.pdf.json", "sub/a.pdf.pages/00002.png", "sub/a.pdf.pages/0004.jpg", "sub/a.pdf.pages/0007.png/mine.txt", "sub/a.pdf.pages/1.png", "sub/a.pdf.pages/7.png",
		"sub/a.pdf.pages/mine.txt", "sub/b.pdf.json", "sub/b.pdf.pages", "sub/c.pdf.json", "sub/c.pdf.pages/0001.png"}
	if got := visible(t, dir); !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q", got, want)
	}
}

// The pictures of a document are there when each is, none empty, as a power cut may
// leave one, and none older than the result.
func TestDrawn(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, tree, "a.pdf", donePage("a.pdf", 1), donePage("a.pdf", 2))
	p := tree.Pictures()
	drawn := func(when string, want bool) {
		t.Helper()
		if got := p.Drawn("a.pdf", 2); got != want {
			t.Errorf("%s: drawn is %v", when, got)
		}
	}
	first, result := filepath.Join(dir, "a.pdf.pages", "0001.png"), filepath.Join(dir, "a.pdf.json")
	drawn("before any", false)
	check(t, p.Write(t.Context(), "a.pdf", 1, put("one")))
	drawn("with one of two", false)
	check(t, p.Write(t.Context(), "a.pdf", 2, put("two")))
	drawn("with both", true)
	check(t, os.Truncate(first, 0))
	drawn("with an empty one", false)
	check(t, os.Remove(first))
	drawn("without the first", false)
	check(t, os.Mkdir(first, 0o777))
	drawn("with a directory for one", false)
	check(t, os.Remove(first))
	check(t, p.Write(t.Context(), "a.pdf", 1, put("one")))
	drawn("with both again", true)
	info, err := os.Stat(first)
	check(t, err)
	check(t, os.Chtimes(result, time.Time{}, info.ModTime().Add(time.Second)))
	drawn("with a younger result", false)
	check(t, os.Remove(result))
	drawn("without a result", false)
	if p.Drawn("a.pdf", 0) || p.Drawn("../a.pdf", 1) {
		t.Error("pictures of nothing are drawn")
	}
}

// What could not be written replaces nothing, neither a result nor its pictures.
func TestNothingIsReplacedByHalf(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, tree, "a.pdf", donePage("a.pdf", 1))
	check(t, tree.Pictures().Write(t.Context(), "a.pdf", 1, put("old")))
	old := read(t, dir, "a.pdf.json")
	finish(t, tree)
	check(t, tree.Close())
	for _, at := range []string{"write", "sync"} {
		tree = openWith(t, Config{Dir: dir, Fresh: true}, testModel, testOptions)
		past(t, tree, document("a.pdf"))
		check(t, tree.Opened(t.Context(), document("a.pdf"), 2))
		d := ended(t, tree, "a.pdf", donePage("a.pdf", 1), donePage("a.pdf", 2))
		faults(tree, func(step, name string) error {
			if step == at && strings.Contains(name, tempPrefix) {
				return &os.PathError{Op: step, Path: name, Err: syscall.EIO}
			}
			return nil
		})
		if err := end(t.Context(), tree, d); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", at, err)
		}
		check(t, tree.Close())
		if got := read(t, dir, "a.pdf.json"); got != old {
			t.Errorf("%s: the result is %s", at, got)
		}
		if got := visible(t, dir); !slices.Equal(got, []string{"a.pdf.json", "a.pdf.pages/0001.png"}) {
			t.Errorf("%s: there is %q", at, got)
		}
	}
}

// visible lists what readers of results find, but for the run's own files.
func visible(t *testing.T, dir string) []string {
	t.Helper()
	return slices.DeleteFunc(files(t, dir), func(name string) bool {
		return name == runName || name == failuresName || strings.HasPrefix(name, workDirectory)
	})
}

func TestPicturesStayInside(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	tree := openTree(t, dir)
	check(t, os.Symlink(elsewhere, filepath.Join(dir, "link")))
	p := tree.Pictures()
	for _, name := range []string{"../a.pdf", "link/a.pdf", ""} {
		if err := p.Write(t.Context(), name, 1, put("x")); err == nil {
			t.Errorf("a picture for %q was written", name)
		}
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) > 0 {
		t.Errorf("left outside: %v, %v", left, err)
	}
	left, err := os.ReadDir(filepath.Join(dir, workDirectory))
	check(t, err)
	for _, e := range left {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// Pictures of a result that somebody has removed are not beside the next one.
func TestPicturesOfARemovedResult(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, tree, "a.pdf", donePage("a.pdf", 1))
	check(t, tree.Pictures().Write(t.Context(), "a.pdf", 1, put("of the first")))
	finish(t, tree)
	check(t, tree.Close())
	check(t, os.Remove(filepath.Join(dir, "a.pdf.json")))
	tree = openTree(t, dir)
	rest(t, tree, document("a.pdf"), past(t, tree, document("a.pdf")), donePage("a.pdf", 1))
	finish(t, tree)
	if got := files(t, dir); slices.Contains(got, "a.pdf.pages/0001.png") {
		t.Errorf("left %q", got)
	}
}
