package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"quire/orchestrator"
)

// Names in the work directory; docs/resume.md says what is in them. What begins
// with tempPrefix is of no use when no run holds the lock.
const (
	lockName      = "lock"
	tempPrefix    = "temp-"
	segmentPrefix = "pages-"
	leftPrefix    = "left-"
	ledgerName    = "finished.jsonl"
	recentName    = "finished-lately.jsonl"
)

// runSchema begins the name of run.json's format; its version follows.
const runSchema = "quire-run/"

// Config says where results go, and what to do again.
type Config struct {
	// Dir is the output directory; it is made when it is not there.
	Dir string
	// Tool and ToolVersion name the program that makes the results.
	Tool, ToolVersion string
	// Log is told what was found damaged, and of waiting; nil for nobody.
	Log *slog.Logger
	// DiskWait is how long a full disk is waited for. Default 10 minutes;
	// negative: not at all.
	DiskWait time.Duration
	// Fresh does every document again, whatever earlier runs have done.
	Fresh bool
	// RetryFailed does the pages and documents again that have failed.
	RetryFailed bool
	// Passwords says that there are passwords to try, so that documents that
	// were encrypted are done again.
	Passwords bool
	// Prune removes results of documents that are not among the inputs.
	Prune bool
}

// Tree is a result tree that is being written: an [orchestrator.Sink]. But for
// Waiting, Waited and Written its methods are for one goroutine.
type Tree struct {
	cfg  Config
	root *disk    // the output directory
	work *disk    // its work directory
	lock *os.File // held while the tree is open

	// From Start on.
	model                orchestrator.ModelInfo
	options              map[string]any
	modelSum, optionsSum string

	space      space
	ledger     *ledger
	left       map[string]bool // segments of earlier runs, by name
	unreadable bool            // an input could not be read
	committer  *committer
	flusher    *flusher
	serial     atomic.Int64 // makes names in the work directory unique
	enc        encoder

	mu      sync.Mutex
	docs    map[string]*segment // documents in work, by path
	failure error
	written Written
}

// Written counts the results that a tree has written since it was opened.
type Written struct {
	// Documents is how many result files, Bytes their size.
	Documents, Bytes int64
	// First is when the first of them stood; zero when there is none.
	First time.Time
}

var _ orchestrator.Sink = (*Tree)(nil)

// Start begins a run whose answers the model gives, under options that change
// answers (values as encoding/json can write them): it reads what earlier runs
// have done, and writes run.json. Results that stand stay until new ones take
// their place.
func (t *Tree) Start(ctx context.Context, model orchestrator.ModelInfo, options map[string]any) (err error) {
	if options == nil {
		options = map[string]any{}
	}
	t.model, t.options = model, options
	if t.modelSum, err = digest([]string{model.Name, model.Version}); err != nil {
		return err
	}
	if t.optionsSum, err = digest([]any{Schema, options}); err != nil {
		return err
	}
	if err := t.try(ctx, "write", runName, func() error { return t.writeRun(nil) }); err != nil {
		return err
	}
	told := map[string]int64{} // a full disk has the same damage met at every try
	damaged := func(name string, lost int64) {
		if told[name] == lost {
			return
		}
		told[name] = lost
		t.cfg.Log.Warn("a file was damaged; documents that it no longer knows are done again", "file", filepath.Join(t.cfg.Dir, workDirectory, name), "bytes_left_out", lost)
	}
	var l *ledger
	err = t.try(ctx, "read", path.Join(workDirectory, ledgerName), func() (err error) {
		l, err = openLedger(t.work, damaged)
		return err
	})
	if err != nil {
		return err
	}
	// What a run that was killed has added.
	if err := t.try(ctx, "take in", path.Join(workDirectory, recentName), l.merge); err != nil {
		l.close()
		return err
	}
	t.ledger = l
	t.committer, t.flusher = newCommitter(t), newFlusher()
	go t.committer.run()
	go t.flusher.run(t)
	return nil
}

// writeRun writes run.json, at the end with an account.
func (t *Tree) writeRun(account *Account) error {
	type tool struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	data, err := json.MarshalIndent(struct {
		Schema  string         `json:"schema"`
		Tool    tool           `json:"tool"`
		Model   Model          `json:"model"`
		Options map[string]any `json:"options"`
		Account *Account       `json:"account,omitempty"`
	}{runSchema + "1", tool{t.cfg.Tool, t.cfg.ToolVersion}, Model(t.model), t.options, account}, "", "  ")
	if err != nil {
		return fmt.Errorf("options of this run cannot be written to %s: %w", runName, err)
	}
	return t.replace(runName, func(f *file) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// Begin starts a document, and tells what earlier runs have done of it.
func (t *Tree) Begin(ctx context.Context, doc orchestrator.Document) (orchestrator.Past, error) {
	if err := t.closed(); err != nil {
		return orchestrator.Past{}, err
	}
	name, err := ResultName(doc.Path)
	if err != nil {
		return orchestrator.Past{}, err
	}
	if t.inWork(doc.Path) != nil {
		return orchestrator.Past{}, fmt.Errorf("%s: two documents of one run have this path", doc.Path)
	}
	past, s, err := t.past(ctx, doc, name)
	if err != nil || past.Result != nil {
		return past, err
	}
	t.mu.Lock()
	t.docs[doc.Path] = s
	t.mu.Unlock()
	return past, nil
}

// Opened tells how many pages a document has.
func (t *Tree) Opened(ctx context.Context, doc orchestrator.Document, pageCount int) error {
	if err := t.closed(); err != nil {
		return err
	}
	s := t.inWork(doc.Path)
	switch {
	case s == nil:
		return fmt.Errorf("%s: opened without having begun", doc.Path)
	case pageCount < 1:
		return fmt.Errorf("%s: %d pages", doc.Path, pageCount)
	case s.pages == pageCount:
		return nil
	case s.pages >= 0: // its pages are not those that it has now
		if err := t.try(ctx, "write in", workDirectory, s.begin); err != nil {
			return err
		}
	}
	return t.try(ctx, "write in", workDirectory, func() error { return s.open(pageCount) })
}

// Page keeps one page's result until its document ends.
func (t *Tree) Page(ctx context.Context, p orchestrator.PageResult) error {
	if err := t.closed(); err != nil {
		return err
	}
	s := t.inWork(p.Ref.Path)
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
	return t.try(ctx, "write in", workDirectory, func() error { return s.add(p.Ref.Page, p.Status, t.enc.buf) })
}

// End ends a document. When it is done, partial or failed its result file
// stands, durably, once stands is called; a skipped or cancelled one leaves no
// result and an older result as it is, and what there is of its pages waits for
// the next run. The pages must all have come, and the counts must be theirs.
func (t *Tree) End(ctx context.Context, d orchestrator.DocumentResult, stands func(error)) error {
	if err := t.closed(); err != nil {
		return err
	}
	name, err := ResultName(d.Path)
	if err != nil {
		return err
	}
	s := t.inWork(d.Path)
	if d.Err != nil && d.Err.Category == orchestrator.CategoryUnreadable {
		t.unreadable = true
	}
	switch d.Status {
	case orchestrator.StatusDone, orchestrator.StatusPartial, orchestrator.StatusFailed:
		if s == nil {
			return fmt.Errorf("%s: it ends and never began", d.Path)
		}
		if err := s.check(d); err != nil {
			return fmt.Errorf("%s: accounts do not add up: %w", d.Path, err)
		}
		t.forget(d.Path)
		t.committer.add(&ending{ctx: ctx, doc: d, name: name, seg: s, stands: stands})
		return nil
	case orchestrator.StatusSkipped, orchestrator.StatusCancelled:
		if s != nil {
			t.forget(d.Path)
			s.leave(d.Path)
			t.committer.wake()
		}
		stands(nil)
		return nil
	}
	return fmt.Errorf("%s: a document cannot end as %q", d.Path, d.Status)
}

// Waiting tells why the tree waits for space on the disk, and since when; empty
// when it does not. It may be called from any goroutine and returns at once.
func (t *Tree) Waiting() (reason string, since time.Time) { return t.space.now() }

// Waited is how long the tree has waited for space on the disk in all. It may be
// called from any goroutine and returns at once.
func (t *Tree) Waited() time.Duration { return t.space.inAll() }

// Written is what has been written so far.
func (t *Tree) Written() Written {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.written
}

func (t *Tree) wrote(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.written.Documents++; t.written.Documents == 1 {
		t.written.First = time.Now()
	}
	t.written.Bytes += bytes
}

func (t *Tree) inWork(path string) *segment {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.docs[path]
}

func (t *Tree) forget(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.docs, path)
}

func (t *Tree) busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.docs) > 0
}

func (t *Tree) dirty() (segments []*segment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.docs {
		if s.dirty.Load() {
			segments = append(segments, s)
		}
	}
	return segments
}

// fail keeps the first failure; with one, the tree takes nothing more.
func (t *Tree) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failure == nil {
		t.failure = err
	}
}

func (t *Tree) broken() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failure
}

// closed is why the tree takes nothing, nil if it takes what comes.
func (t *Tree) closed() error {
	if err := t.broken(); err != nil || t.committer != nil {
		return err
	}
	return errNotStarted
}

var errNotStarted = errors.New("sink: the tree takes results after Start and before Finish or Close")

// stop ends what the tree does beside its caller, once all that has ended stands.
// The tree takes nothing more then.
func (t *Tree) stop() {
	if t.committer != nil {
		t.committer.close()
		t.flusher.close()
		t.committer = nil
	}
}

// Close gives the output directory free. Results that stand are not touched,
// and pages of documents that have not ended wait for the next run. It is
// idempotent.
func (t *Tree) Close() error {
	t.stop()
	for p, s := range t.docs {
		s.leave(p)
		delete(t.docs, p)
	}
	if t.ledger != nil {
		t.ledger.close()
		t.ledger = nil
	}
	var errs []error
	if t.lock != nil {
		errs = append(errs, t.lock.Close())
		t.lock = nil
	}
	for _, d := range []**disk{&t.work, &t.root} {
		if *d != nil {
			errs = append(errs, (*d).Close())
			*d = nil
		}
	}
	return errors.Join(errs...)
}

// tempName makes a name in the work directory that this run has not used.
func (t *Tree) tempName() string { return fmt.Sprintf("%s%08d", tempPrefix, t.serial.Add(1)) }

// replace writes a file below the output directory whole or not at all, and
// makes it last: written under another name, flushed to the disk, renamed, and
// the directory flushed too.
func (t *Tree) replace(name string, write func(*file) error) error {
	temp := path.Join(workDirectory, t.tempName())
	f, err := t.root.create(temp)
	if err != nil {
		return t.explain("write in", workDirectory, err)
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = t.put(temp, name)
	}
	if err != nil {
		_ = t.root.remove(temp)
		return t.explain("write", name, err)
	}
	if err := t.root.sync(path.Dir(name)); err != nil {
		return t.explain("write", path.Dir(name), err)
	}
	return nil
}

// put renames a file that is whole to its name, and makes the directories that
// it needs.
func (t *Tree) put(temp, name string) error {
	err := t.root.rename(temp, name)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := t.root.makeDirs(path.Dir(name)); err != nil {
		return err
	}
	return t.root.rename(temp, name)
}

// try does op, waits while the disk is full, and explains what fails. The tree
// takes nothing more then: what cannot be written now is for the next run.
func (t *Tree) try(ctx context.Context, verb, name string, op func() error) error {
	err := t.wait(ctx, op)
	if err != nil {
		err = t.explain(verb, name, err)
		t.fail(err)
	}
	return err
}

// wait does op, and waits while the disk is full; no more once the tree has failed,
// since that has been waited for.
func (t *Tree) wait(ctx context.Context, op func() error) error {
	if t.broken() != nil {
		return op()
	}
	return t.space.try(ctx, op)
}

// explain says in one line what could not be done where, why, and what helps.
func (t *Tree) explain(verb, name string, err error) error {
	if explained, ok := errors.AsType[*WriteError](err); ok {
		return explained
	}
	full := filepath.Join(t.cfg.Dir, filepath.FromSlash(name))
	hint := ""
	if waited, ok := errors.AsType[*stillFull](err); ok {
		hint = fmt.Sprintf(", for %v now", waited.after)
	}
	_, system := errors.AsType[syscall.Errno](err)
	switch {
	case isFull(err):
		hint += ": free some space and run the same command again, or name another directory with -o"
	case errors.Is(err, os.ErrPermission):
		hint = ": make it writable for this user, or name another directory with -o"
	case errors.Is(err, syscall.EXDEV):
		hint = ": the output directory must lie on one file system"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EEXIST):
		hint = ": move away what is there, or name another directory with -o"
	case orchestrator.TooManyOpenFiles(err): // no directory helps
	case system:
		hint = ": name another directory with -o"
	case t.leadsOut(name):
		hint = ": put a directory in the place of the link, or name another output directory with -o"
	}
	return &WriteError{Name: full, message: fmt.Sprintf("cannot %s %s: %v%s", verb, full, cause(err), hint), Err: err}
}

// leadsOut tells whether the way to a file goes through a link that leads out of
// the output directory.
func (t *Tree) leadsOut(name string) bool {
	for dir := path.Dir(name); t.root != nil && dir != "."; dir = path.Dir(dir) {
		if info, err := t.root.Lstat(dir); err == nil && info.Mode()&os.ModeSymlink != 0 {
			_, err := t.root.Stat(dir)
			return err != nil
		}
	}
	return false
}

// cause drops the path that os puts into its errors: the text names it already.
func cause(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
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
