package sink

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"quire/orchestrator"
)

// Names of a run's own files in the work directory. Whatever begins with one of
// the first three is left over when no run holds the lock.
const (
	segmentPrefix  = "segment-"
	tempPrefix     = "temp-"
	failuresPrefix = "failures-"
	lockName       = "lock"
)

// Config says where results go and what they say about how they were made.
type Config struct {
	// Dir is the output directory; it is made when it is not there.
	Dir string
	// Tool and ToolVersion name the program that makes the results.
	Tool, ToolVersion string
	// Model gave the answers.
	Model orchestrator.ModelInfo
	// Options are the settings that change answers, for run.json. The values
	// must be what encoding/json can write.
	Options map[string]any
}

// Tree is a result tree that is being written: an [orchestrator.Sink]. Its
// methods are for one goroutine. A method that failed left nothing half done:
// it can be called again, for instance when there is space again.
type Tree struct {
	cfg  Config
	root *os.Root // the output directory
	work *os.Root // its work directory
	lock *os.File // held while the tree is open

	docs     map[string]*segment // documents in work, by path
	failures *failureLog
	serial   int    // makes names in the work directory unique
	lastDir  string // a result directory that is known to be there
	enc      encoder
	copyBuf  []byte
	written  Written
}

// Written counts the results that a tree has written since it was opened.
type Written struct {
	// Documents is how many result files, Bytes their size.
	Documents, Bytes int64
}

var _ orchestrator.Sink = (*Tree)(nil)

// Open makes the output directory ready: it creates what is missing, makes sure
// that nobody else writes there and that writing works, removes what a killed
// run left behind, and writes run.json. Results that stand stay until a new one
// takes their place.
func Open(cfg Config) (_ *Tree, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("no output directory: name one with -o")
	}
	t := &Tree{cfg: cfg, docs: make(map[string]*segment)}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o777); err != nil {
		return nil, t.explain("create", "", err)
	}
	if t.root, err = os.OpenRoot(cfg.Dir); err != nil {
		return nil, t.explain("open", "", err)
	}
	if err := t.root.Mkdir(workDirectory, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, t.explain("create", workDirectory, err)
	}
	if t.work, err = t.root.OpenRoot(workDirectory); err != nil {
		return nil, t.explain("open", workDirectory, err)
	}
	if err := t.acquire(); err != nil {
		return nil, err
	}
	if err := t.sweep(); err != nil {
		return nil, err
	}
	if err := t.writeRun(); err != nil {
		return nil, err
	}
	if t.failures, err = newFailureLog(t); err != nil {
		return nil, t.explain("write in", workDirectory, err)
	}
	return t, nil
}

// acquire takes the lock that keeps a second run out. The kernel gives it back
// however this process ends.
func (t *Tree) acquire() error {
	f, err := t.work.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return t.explain("write", path.Join(workDirectory, lockName), err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		var pid int
		_, _ = fmt.Fscan(f, &pid)
		_ = f.Close()
		return fmt.Errorf("output directory %s is in use by another run (process %d): wait for it, or name another directory with -o", t.cfg.Dir, pid)
	}
	if err != nil {
		_ = f.Close()
		return t.explain("lock", path.Join(workDirectory, lockName), err)
	}
	t.lock = f
	// Only a help to people; the lock itself is what counts.
	if err := f.Truncate(0); err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
		if err != nil {
			return t.explain("write", path.Join(workDirectory, lockName), err)
		}
	}
	return nil
}

// sweep removes what a killed run left in the work directory.
func (t *Tree) sweep() error {
	dir, err := t.work.Open(".")
	if err != nil {
		return t.explain("read", workDirectory, err)
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	if err != nil {
		return t.explain("read", workDirectory, err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, segmentPrefix) || strings.HasPrefix(name, tempPrefix) || strings.HasPrefix(name, failuresPrefix) {
			if err := t.work.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return t.explain("remove", path.Join(workDirectory, name), err)
			}
		}
	}
	return nil
}

// writeRun writes run.json. Being the first file written, it is also what finds
// a full or read-only disk.
func (t *Tree) writeRun() error {
	options := t.cfg.Options
	if options == nil {
		options = map[string]any{}
	}
	data, err := json.MarshalIndent(struct {
		Schema string `json:"schema"`
		Tool   struct {
			Name    string `json:"name"`
			Version string `json:"version"`
		} `json:"tool"`
		Model   Model          `json:"model"`
		Options map[string]any `json:"options"`
	}{
		Schema: "quire-run/1",
		Tool: struct {
			Name    string `json:"name"`
			Version string `json:"version"`
		}{t.cfg.Tool, t.cfg.ToolVersion},
		Model:   Model(t.cfg.Model),
		Options: options,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("options of this run cannot be written to %s: %w", runName, err)
	}
	return t.replace(runName, func(f *os.File) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// Begin starts a document of pageCount pages.
func (t *Tree) Begin(doc orchestrator.Document, pageCount int) error {
	if _, err := ResultName(doc.Path); err != nil {
		return err
	}
	if pageCount < 0 {
		return fmt.Errorf("%s: %d pages", doc.Path, pageCount)
	}
	if t.docs[doc.Path] != nil {
		return fmt.Errorf("%s: two documents of one run have this path", doc.Path)
	}
	s, err := newSegment(t.work, t.name(segmentPrefix), pageCount)
	if err != nil {
		return t.explain("write in", workDirectory, err)
	}
	t.docs[doc.Path] = s
	return nil
}

// Page keeps one page's result until its document ends.
func (t *Tree) Page(p orchestrator.PageResult) error {
	s := t.docs[p.Ref.Path]
	if s == nil {
		return fmt.Errorf("%s: result of a document that is not in work", p.Ref)
	}
	if p.Ref.Page < 1 || p.Ref.Page > s.pages {
		return fmt.Errorf("%s: the document has %d pages", p.Ref, s.pages)
	}
	t.enc.buf, t.enc.err = t.enc.buf[:0], nil
	t.enc.page(p)
	if t.enc.err != nil {
		return fmt.Errorf("%s: %w", p.Ref, t.enc.err)
	}
	if err := s.add(p.Ref.Page, p.Status, t.enc.buf); err != nil {
		return t.explain("write in", workDirectory, err)
	}
	return nil
}

// End ends a document. When it is done, partial or failed its result file
// stands, durably, once End has returned; a skipped or cancelled one leaves no
// result and an older result as it is. The pages must all have come, and the
// counts must be theirs.
func (t *Tree) End(d orchestrator.DocumentResult) error {
	name, err := ResultName(d.Path)
	if err != nil {
		return err
	}
	s := t.docs[d.Path]
	switch d.Status {
	case orchestrator.StatusDone, orchestrator.StatusPartial, orchestrator.StatusFailed:
		if err := s.check(d); err != nil {
			return fmt.Errorf("%s: accounts do not add up: %w", d.Path, err)
		}
		var size int64
		err := t.replace(name, func(f *os.File) error {
			if err := t.writeDocument(f, d, s); err != nil {
				return err
			}
			var err error
			size, err = f.Seek(0, io.SeekCurrent)
			return err
		})
		if err != nil {
			t.failures.forget()
			return err
		}
		t.failures.keep()
		t.written.Documents++
		t.written.Bytes += size
	case orchestrator.StatusSkipped, orchestrator.StatusCancelled:
	default:
		return fmt.Errorf("%s: a document cannot end as %q", d.Path, d.Status)
	}
	if s != nil {
		delete(t.docs, d.Path)
		s.remove()
	}
	return nil
}

// Written is what End has written so far.
func (t *Tree) Written() Written { return t.written }

// Finish writes failed.jsonl from what has ended so far. It is called when the
// run ends, however it ends.
func (t *Tree) Finish() error {
	return t.replace(failuresName, t.failures.writeSorted)
}

// Close gives the output directory free and removes this run's work files.
// Results that stand are not touched. It is idempotent.
func (t *Tree) Close() error {
	for p, s := range t.docs {
		s.remove()
		delete(t.docs, p)
	}
	if t.failures != nil {
		t.failures.remove()
		t.failures = nil
	}
	var errs []error
	if t.lock != nil {
		errs = append(errs, t.lock.Close())
		t.lock = nil
	}
	for _, r := range []**os.Root{&t.work, &t.root} {
		if *r != nil {
			errs = append(errs, (*r).Close())
			*r = nil
		}
	}
	return errors.Join(errs...)
}

// name makes a name in the work directory that this run has not used.
func (t *Tree) name(prefix string) string {
	t.serial++
	return fmt.Sprintf("%s%08d", prefix, t.serial)
}

// replace writes a file below the output directory whole or not at all, and
// makes it last: written under another name, flushed to the disk, renamed, and
// the directory flushed too.
func (t *Tree) replace(name string, write func(*os.File) error) error {
	temp := path.Join(workDirectory, t.name(tempPrefix))
	f, err := t.root.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return t.explain("write in", workDirectory, err)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	dir := path.Dir(name)
	if err == nil && dir != t.lastDir {
		err = t.makeDirs(dir)
	}
	if err == nil {
		err = t.root.Rename(temp, name)
	}
	if err != nil {
		_ = t.root.Remove(temp)
		t.lastDir = ""
		return t.explain("write", name, err)
	}
	t.lastDir = dir
	if err := t.syncDir(dir); err != nil {
		return t.explain("write", dir, err)
	}
	return nil
}

// makeDirs creates a directory below the output directory with its parents, and
// makes them last.
func (t *Tree) makeDirs(dir string) error {
	if dir == "." {
		return nil
	}
	err := t.root.Mkdir(dir, 0o777)
	if errors.Is(err, os.ErrNotExist) {
		if err := t.makeDirs(path.Dir(dir)); err != nil {
			return err
		}
		err = t.root.Mkdir(dir, 0o777)
	}
	if errors.Is(err, os.ErrExist) {
		return nil // if it is no directory, the rename will say so
	}
	if err != nil {
		return err
	}
	return t.syncDir(path.Dir(dir))
}

func (t *Tree) syncDir(dir string) error {
	d, err := t.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// explain says in one line what could not be done where, why, and what helps.
func (t *Tree) explain(verb, name string, err error) error {
	full := filepath.Join(t.cfg.Dir, filepath.FromSlash(name))
	hint := ""
	var errno syscall.Errno
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = ": free some space and start again, or name another directory with -o"
	case errors.Is(err, os.ErrPermission):
		hint = ": make it writable for this user, or name another directory with -o"
	case errors.Is(err, syscall.EXDEV):
		hint = ": the output directory must lie on one file system"
	case errors.As(err, &errno):
		hint = ": name another directory with -o"
	}
	return &WriteError{Name: full, message: fmt.Sprintf("cannot %s %s: %v%s", verb, full, cause(err), hint), Err: err}
}

// cause drops the path that os puts into its errors: the text names it already.
func cause(err error) error {
	var p *os.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// WriteError is a failure to write results. Err tells a full disk (ENOSPC) from
// a read-only one.
type WriteError struct {
	Name    string
	Err     error
	message string
}

func (e *WriteError) Error() string { return e.message }
func (e *WriteError) Unwrap() error { return e.Err }
