// Package walk finds the documents of a run below directories.
//
// A document is a regular file, or a relative symbolic link to one that does not
// leave its input root, whose name the patterns ask for. Symbolic links to
// directories are not followed: they would make loops and find files twice.
// Whatever is asked for and cannot be used (a directory that cannot be read, a
// broken link, a FIFO) is yielded all the same and says why when it is opened,
// so that nothing is lost in silence.
package walk

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/bmatcuk/doublestar/v4"

	"quire/orchestrator"
)

// Config says what to look for. Its zero value finds every PDF file.
type Config struct {
	// Include are the patterns of the files to take; none means every name
	// that ends in .pdf, in capitals or not.
	//
	// A pattern is matched against the path below the input root, with '*' for
	// anything within a name, '**' for any number of directories and {a,b} for
	// a choice (github.com/bmatcuk/doublestar). A pattern without a slash is
	// matched against the name alone, at any depth. Case counts. A file that
	// is named as an input itself needs no pattern.
	Include []string
	// Exclude are the patterns of files to leave out, and of directories not
	// to enter. They go before Include, and hold for named files too.
	Exclude []string
	// Output is the output directory, not to be walked when it lies inside an
	// input; empty for none.
	Output string
	// Checksum has Documents read each file and give a digest of its content
	// (Document.Sum).
	Checksum bool
	// Log is told of links that are not followed; nil for nobody.
	Log *slog.Logger
}

// Walker is an [orchestrator.Source] over directories and files. Its methods
// may be called from any goroutine, and Documents more than once.
type Walker struct {
	cfg   Config
	roots []root
	dirs  map[string]*os.Root // by path; the files of one directory share it
	close sync.Once
}

var _ orchestrator.Source = (*Walker)(nil)

// root is one input: a directory, or a file seen through its directory.
type root struct {
	given  string // as the user named it
	dir    *os.Root
	prefix string // what documents' paths begin with; empty for a single directory

	file string      // the file's name within dir; empty when all of dir is meant
	mode fs.FileMode // the file's type
}

// New checks the inputs and opens them. Paths of documents are relative to the
// input directory; when there are several inputs, each path begins with the
// base name of its input, and two inputs of one base name are refused. A file's
// path is its base name. Close the walker when its last document is closed.
func New(inputs []string, cfg Config) (_ *Walker, err error) {
	if len(inputs) == 0 {
		return nil, errors.New("no input: name a directory or a PDF file")
	}
	for _, p := range slices.Concat(cfg.Include, cfg.Exclude) {
		if !doublestar.ValidatePattern(p) {
			return nil, fmt.Errorf("pattern %q is malformed: check its brackets and braces", p)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	w := &Walker{cfg: cfg, dirs: make(map[string]*os.Root)}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	named := make(map[string]string)
	for _, in := range inputs {
		r, err := w.open(in)
		if err != nil {
			return nil, err
		}
		if len(inputs) == 1 && r.file == "" {
			r.prefix = ""
		}
		w.roots = append(w.roots, r)
		if other, taken := named[r.prefix]; taken {
			return nil, fmt.Errorf("inputs %s and %s have the same base name %q, so that their results would meet: run them into two output directories", other, in, r.prefix)
		}
		named[r.prefix] = in
	}
	return w, nil
}

func (w *Walker) open(in string) (root, error) {
	abs, err := filepath.Abs(in)
	if err != nil {
		return root{}, fmt.Errorf("input %s: %w", in, err)
	}
	info, err := os.Stat(abs)
	if errors.Is(err, fs.ErrPermission) {
		return root{}, unusable(in, err)
	}
	if err != nil {
		return root{}, fmt.Errorf("input %s: %w: name a directory or a PDF file that is there", in, cause(err))
	}
	r := root{given: in, prefix: filepath.Base(abs)}
	dir := abs
	if info.IsDir() {
		if r.prefix == "/" {
			r.prefix = "root"
		}
		if out, err := os.Stat(w.cfg.Output); w.cfg.Output != "" && err == nil && os.SameFile(info, out) {
			return root{}, fmt.Errorf("%s is an input and the output directory too: name another output directory with -o", in)
		}
	} else {
		// A link that is named may lead anywhere: whoever named it meant it.
		if dir, err = filepath.EvalSymlinks(abs); err != nil {
			return root{}, fmt.Errorf("input %s: %w", in, cause(err))
		}
		r.mode = info.Mode().Type()
		dir, r.file = filepath.Split(dir)
	}
	if r.dir = w.dirs[dir]; r.dir == nil {
		if r.dir, err = os.OpenRoot(dir); err != nil {
			return root{}, unusable(in, err)
		}
		w.dirs[dir] = r.dir
	}
	if r.file == "" {
		// Better now than after the server has started.
		if _, err := readDir(r.dir, "."); err != nil {
			return root{}, unusable(in, err)
		}
	}
	return r, nil
}

// unusable is the error of an input that cannot be opened.
func unusable(in string, err error) error {
	if orchestrator.TooManyOpenFiles(err) {
		return fmt.Errorf("input %s: %w", in, cause(err))
	}
	return fmt.Errorf("input %s: %w: make it readable for this user", in, cause(err))
}

// Close lets go of the inputs. It is idempotent.
func (w *Walker) Close() error {
	var errs []error
	w.close.Do(func() {
		for _, d := range w.dirs {
			errs = append(errs, d.Close())
		}
		w.roots, w.dirs = nil, nil
	})
	return errors.Join(errs...)
}

// Documents yields the documents in the order of their paths, name by name, one
// input after the other. It holds the names of one directory at each depth and
// reads nothing ahead. When ctx ends, it ends.
//
// Document.Open fails with a [*orchestrator.PageError], or, where too many files
// are open and no document is to blame, with EMFILE or ENFILE; Document.Err is set
// where that was so already when it was listed.
func (w *Walker) Documents(ctx context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		w.find(ctx, w.cfg.Log, func(f found) bool {
			doc := f.document(ctx, w.cfg.Checksum)
			return ctx.Err() == nil && yield(doc)
		})
	}
}

// Count tells how many documents Documents would yield now. It reads
// directories only, no file, and returns ctx's error when that ends first.
func (w *Walker) Count(ctx context.Context) (int, error) {
	n := 0
	w.find(ctx, slog.New(slog.DiscardHandler), func(found) bool { n++; return true })
	return n, ctx.Err()
}

// Empty tells whether Documents would yield nothing now. It stops at the first
// find, and tells the log nothing; when ctx ends first it answers true.
func (w *Walker) Empty(ctx context.Context) bool {
	empty := true
	w.find(ctx, slog.New(slog.DiscardHandler), func(found) bool { empty = false; return false })
	return empty
}

// found is something to account for: a file, or what cannot be one.
type found struct {
	root *root
	name string // within the root's directory
	path string // of the document
	mode fs.FileMode
	err  error // why it cannot be used, when that is known
}

// find calls each for everything asked for, until it returns false.
func (w *Walker) find(ctx context.Context, log *slog.Logger, each func(found) bool) {
	var out os.FileInfo
	if w.cfg.Output != "" {
		out, _ = os.Stat(w.cfg.Output) // one that is not there needs no care
	}
	for i := range w.roots {
		r := &w.roots[i]
		if r.file != "" {
			if ctx.Err() != nil {
				return
			}
			if !matches(w.cfg.Exclude, r.prefix) && !each(found{root: r, name: r.file, path: r.prefix, mode: r.mode}) {
				return
			}
			continue
		}
		t := &tree{w: w, root: r, out: out, log: log, each: each}
		if !t.walk(ctx, ".") {
			return
		}
	}
}

// tree is one walk over one input directory.
type tree struct {
	w    *Walker
	root *root
	out  os.FileInfo
	log  *slog.Logger
	each func(found) bool
}

// walk goes through a directory; false means stop.
func (t *tree) walk(ctx context.Context, dir string) bool {
	if t.out != nil {
		if info, err := t.root.dir.Stat(dir); err == nil && os.SameFile(info, t.out) {
			return true
		}
	}
	entries, readErr := readDir(t.root.dir, dir)
	for _, e := range entries {
		if ctx.Err() != nil {
			return false
		}
		name := path.Join(dir, e.Name())
		switch {
		case matches(t.w.cfg.Exclude, name):
		case e.IsDir():
			if !t.walk(ctx, name) {
				return false
			}
		case t.w.includes(name):
			if !t.each(found{root: t.root, name: name, path: path.Join(t.root.prefix, name), mode: e.Type()}) {
				return false
			}
		case e.Type()&fs.ModeSymlink != 0:
			if info, err := t.root.dir.Stat(name); err == nil && info.IsDir() {
				t.log.Warn("a symbolic link to a directory is not followed; name the directory as an input of its own if it is wanted",
					"input", t.root.given, "link", name)
			}
		}
	}
	if readErr != nil {
		p := path.Join(t.root.prefix, dir)
		if p == "." {
			p = path.Base(filepath.ToSlash(t.root.dir.Name()))
		}
		var err error = &orchestrator.PageError{
			Ref: orchestrator.PageRef{Path: p}, Stage: orchestrator.StageOpen, Category: orchestrator.CategoryUnreadable,
			Message: fmt.Sprintf("directory cannot be read: %v", cause(readErr)), Err: readErr,
		}
		if orchestrator.TooManyOpenFiles(readErr) {
			err = fmt.Errorf("%s: directory cannot be read: %w", p, cause(readErr))
		}
		return t.each(found{root: t.root, name: dir, path: p, err: err})
	}
	return true
}

// readDir lists a directory by name. With an error it gives what it got.
func readDir(r *os.Root, dir string) ([]fs.DirEntry, error) {
	// It may have become a FIFO since, and opening one waits for a writer.
	f, err := r.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries, err
}

func (w *Walker) includes(name string) bool {
	if len(w.cfg.Include) == 0 {
		return strings.EqualFold(path.Ext(name), ".pdf")
	}
	return matches(w.cfg.Include, name)
}

// matches tells whether a path below the input root matches any pattern.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		p = strings.TrimSuffix(p, "/")
		if !strings.Contains(p, "/") {
			return doublestar.MatchUnvalidated(p, path.Base(name))
		}
		return doublestar.MatchUnvalidated(strings.TrimPrefix(p, "/"), name)
	})
}

// document makes the document of what was found. Size and time are looked up
// here; of something that has gone they are 0, and Open tells the rest. A long
// document is opened by several workers, and its result filed under that size and
// time: Open gives no other file.
func (f found) document(ctx context.Context, checksum bool) orchestrator.Document {
	doc := orchestrator.Document{Path: f.path, Open: f.open}
	if f.err == nil {
		info, err := f.root.dir.Stat(f.name)
		switch {
		case orchestrator.TooManyOpenFiles(err):
			f.err = fmt.Errorf("%s: %w", f.path, cause(err))
			doc.Open = f.open
		case err == nil && info.Mode().IsRegular():
			doc.Size, doc.ModTime = info.Size(), info.ModTime()
			doc.Open = func() (*os.File, error) { return f.openAs(info) }
			if checksum {
				doc.Sum = f.sum(ctx)
			}
		default:
			doc.Open = func() (*os.File, error) { return f.openAs(nil) }
		}
	}
	if orchestrator.TooManyOpenFiles(f.err) {
		doc.Err = f.err
	}
	return doc
}

// sum is the digest of a file's content, and empty when that cannot be read (whoever
// opens it will hear why) or ctx ends first.
func (f found) sum(ctx context.Context) string {
	file, err := f.open()
	if err != nil {
		return ""
	}
	defer file.Close()
	h := sha256.New()
	for ctx.Err() == nil {
		_, err := io.CopyN(h, file, 1<<20)
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)[:16])
		}
		if err != nil {
			break
		}
	}
	return ""
}

func (f found) open() (*os.File, error) {
	if f.err != nil {
		return nil, f.err
	}
	fail := func(category orchestrator.Category, err error, format string, args ...any) (*os.File, error) {
		return nil, &orchestrator.PageError{
			Ref: orchestrator.PageRef{Path: f.path}, Stage: orchestrator.StageOpen, Category: category,
			Message: fmt.Sprintf(format, args...), Err: err,
		}
	}
	// Opening a device can already have an effect: do not, when it was one.
	if f.mode&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket|fs.ModeIrregular) != 0 {
		return fail(orchestrator.CategoryNotRegular, nil, "not a regular file but %s", kind(f.mode))
	}
	// It may have become a FIFO since, and opening one waits for a writer.
	file, err := f.root.dir.OpenFile(f.name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) {
		return fail(orchestrator.CategoryNotRegular, err, "not a regular file but %s", kind(fs.ModeSocket))
	}
	if orchestrator.TooManyOpenFiles(err) {
		return nil, fmt.Errorf("%s: cannot be opened: %w", f.path, cause(err))
	}
	if err != nil && f.mode&fs.ModeSymlink != 0 {
		return fail(orchestrator.CategoryUnreadable, err, "a symbolic link that cannot be followed (only relative ones that stay within the input are): %v", cause(err))
	}
	if err != nil {
		return fail(orchestrator.CategoryUnreadable, err, "cannot be opened: %v", cause(err))
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return fail(orchestrator.CategoryUnreadable, err, "cannot be opened: %v", cause(err))
	}
	if !info.Mode().IsRegular() {
		_ = file.Close()
		return fail(orchestrator.CategoryNotRegular, nil, "not a regular file but %s", kind(info.Mode()))
	}
	return file, nil
}

// openAs opens the file if it is still the one that was listed, nil for none.
func (f found) openAs(listed fs.FileInfo) (*os.File, error) {
	file, err := f.open()
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && listed != nil && info.Size() == listed.Size() && info.ModTime().Equal(listed.ModTime()) {
		return file, nil
	}
	_ = file.Close()
	return nil, &orchestrator.PageError{
		Ref: orchestrator.PageRef{Path: f.path}, Stage: orchestrator.StageOpen, Category: orchestrator.CategoryChanged,
		Message: "the file changed after it was listed", Err: err,
	}
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// cause drops the path that os puts into its errors: the text names it already.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
