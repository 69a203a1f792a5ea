package sink

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire/orchestrator"
)

const (
	// syncEvery is the least time between two flushes: what comes in between
	// is flushed together. A power cut takes the pages of that time, at most.
	syncEvery = time.Second
	// syncDocuments is how many documents that have ended are flushed together
	// at most, and without waiting for the time.
	syncDocuments = 64
	// syncAtOnce is how many flushes the system is asked for at once: it makes
	// one of them.
	syncAtOnce = 16
)

// ending is a document that has ended and whose result does not stand yet.
type ending struct {
	ctx    context.Context // of the call that ended it
	doc    orchestrator.DocumentResult
	name   string
	seg    *segment
	stands func(error)

	temp  string
	file  *file // while it is written
	bytes int64
	err   error
}

// committer makes results of documents that have ended, on a goroutine of its
// own, in groups. Of each it first flushes the result under another name, has the
// ledger forget an older one, removes the pictures of that, so that none is ever
// beside a result that it is not of, then renames it, flushes the directory, and
// notes it in the ledger, flushed too; only then the document's segment goes. Each
// step is done for the whole group at once, so that a flush costs many documents
// little more than one.
type committer struct {
	t     *Tree
	room  chan struct{} // a token for each document in the committer's hands
	kick  chan struct{} // of capacity 1: something has changed
	ended chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	waiting []*ending
	closing bool
}

func newCommitter(t *Tree) *committer {
	return &committer{
		t: t, room: make(chan struct{}, 2*syncDocuments), kick: make(chan struct{}, 1), ended: make(chan struct{}),
	}
}

// add hands a document over. It waits while there are too many.
func (c *committer) add(e *ending) {
	c.room <- struct{}{}
	c.mu.Lock()
	c.waiting = append(c.waiting, e)
	c.mu.Unlock()
	c.wake()
}

func (c *committer) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// close returns when everything that was handed over has ended.
func (c *committer) close() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.wake()
	<-c.ended
}

func (c *committer) run() {
	defer close(c.ended)
	var last time.Time
	for {
		c.mu.Lock()
		n, closing := len(c.waiting), c.closing
		c.mu.Unlock()
		switch wait := syncEvery - time.Since(last); {
		case n == 0 && closing:
			return
		case n == 0:
			<-c.kick
			continue
		// With no document in work nothing more will come soon.
		case !closing && n < syncDocuments && wait > 0 && c.t.busy():
			select {
			case <-time.After(wait):
			case <-c.kick:
			}
			continue
		}
		last = time.Now()
		c.mu.Lock()
		n = min(len(c.waiting), syncDocuments)
		group := c.waiting[:n:n]
		c.waiting = c.waiting[n:]
		c.mu.Unlock()
		c.commit(group)
		for _, e := range group {
			e.stands(e.err)
			<-c.room
		}
	}
}

// commit makes the results of a group stand, or says in each why it does not.
func (c *committer) commit(group []*ending) {
	t := c.t
	if err := t.broken(); err != nil {
		for _, e := range group {
			e.err = err
		}
	} else {
		c.write(group)
	}
	var err error
	for _, e := range group {
		switch {
		case e.err == nil:
			t.wrote(e.bytes)
			if e.doc.PageCount < 0 && len(e.seg.index) > 0 {
				e.seg.leave(e.doc.Path) // until a run in which it opens again
			} else {
				e.seg.remove()
			}
			continue
		case e.temp != "":
			_ = t.root.remove(e.temp) // not there when it was renamed
		}
		err = e.err
		e.seg.leave(e.doc.Path)
	}
	if err != nil {
		t.fail(err)
	}
}

func (c *committer) write(group []*ending) {
	t := c.t
	parallel(group, func(e *ending) {
		e.temp = path.Join(workDirectory, t.tempName())
		e.err = t.try(e.ctx, "write in", workDirectory, func() error { return c.result(e) })
	})
	parallel(group, func(e *ending) {
		if e.err != nil {
			return
		}
		e.err = t.try(e.ctx, "write in", workDirectory, func() error {
			if e.file == nil { // what could not be flushed is lost
				if err := c.result(e); err != nil {
					return err
				}
			}
			err := errors.Join(e.file.Sync(), e.file.Close())
			e.file = nil
			return err
		})
	})
	c.forget(group)
	dirs, pictures := map[string][]*ending{}, t.Pictures()
	for _, e := range group {
		if e.err != nil {
			continue
		}
		if _, err := t.root.Lstat(e.name); err == nil || e.seg.was != nil { // else they are not quire's
			e.err = pictures.Trim(e.doc.Path, 0)
		}
		if e.err == nil {
			e.err = t.try(e.ctx, "write", e.name, func() error { return t.put(e.temp, e.name) })
		}
		if e.err == nil {
			dirs[path.Dir(e.name)] = append(dirs[path.Dir(e.name)], e)
		}
	}
	var there []*ending // one of each directory
	for _, in := range dirs {
		there = append(there, in[0])
	}
	parallel(there, func(e *ending) {
		dir := path.Dir(e.name)
		err := t.try(e.ctx, "write", dir, func() error { return t.root.sync(dir) })
		for _, e := range dirs[dir] {
			e.err = err
		}
	})
	var records []record
	for _, e := range group {
		if e.err == nil {
			records = append(records, recordFor(e.doc, e.seg.id, e.bytes))
		}
	}
	if len(records) == 0 {
		return
	}
	err := t.try(group[0].ctx, "write in", workDirectory, func() error { return t.ledger.add(records, true) })
	for _, e := range group {
		if e.err == nil {
			e.err = err
		}
	}
}

// forget has the ledger say of older results that they do not stand any more: of a
// run that ends here it is not known which result is there.
func (c *committer) forget(group []*ending) {
	if c.t.cfg.RetryFailed { // the journal has what was good of the older result
		parallel(group, func(e *ending) {
			if e.err == nil && e.seg.was != nil {
				e.err = c.t.try(e.ctx, "flush in", workDirectory, e.seg.flush)
			}
		})
	}
	var records []record
	for _, e := range group {
		if e.err == nil && e.seg.was != nil {
			was := *e.seg.was
			was.Bytes = noBytes
			records = append(records, was)
		}
	}
	if len(records) == 0 {
		return
	}
	err := c.t.try(group[0].ctx, "write in", workDirectory, func() error { return c.t.ledger.add(records, true) })
	for _, e := range group {
		if e.err == nil && e.seg.was != nil {
			e.err = err
		}
	}
}

// result writes a document's result under its temporary name, and has the
// system begin to put it on the disk.
func (c *committer) result(e *ending) error {
	f, err := c.t.root.create(e.temp)
	if errors.Is(err, os.ErrExist) { // from a try before
		_ = c.t.root.remove(e.temp)
		f, err = c.t.root.create(e.temp)
	}
	if err != nil {
		return err
	}
	var info os.FileInfo
	if err = writeDocument(f, e.doc, e.seg, c.t.model); err == nil {
		info, err = f.Stat()
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	// A help to the flush that follows, and no more.
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	e.file, e.bytes = f, info.Size()
	return nil
}

// writeDocument writes a document's result.
func writeDocument(f *file, d orchestrator.DocumentResult, s *segment, model orchestrator.ModelInfo) error {
	w := bufio.NewWriterSize(f, 64<<10)
	var enc encoder
	enc.head(d, model)
	if enc.err != nil {
		return enc.err
	}
	if _, err := w.Write(enc.buf); err != nil {
		return err
	}
	var buf []byte
	pages := s.index[:max(0, d.PageCount)]
	for i, e := range pages {
		lead := ",\n"
		if i == 0 {
			lead = "\n"
		}
		record, err := s.read(e, &buf)
		if err != nil {
			return err
		}
		if _, err := w.WriteString(lead); err != nil {
			return err
		}
		if _, err := w.Write(record); err != nil {
			return err
		}
	}
	if len(pages) > 0 {
		if err := w.WriteByte('\n'); err != nil {
			return err
		}
	}
	if _, err := w.WriteString("]}\n"); err != nil {
		return err
	}
	return w.Flush()
}

// parallel calls do for each, some at a time.
func parallel[T any](each []T, do func(T)) {
	if len(each) == 1 {
		do(each[0])
		return
	}
	var group sync.WaitGroup
	turn := make(chan struct{}, syncAtOnce)
	for _, e := range each {
		turn <- struct{}{}
		group.Go(func() {
			defer func() { <-turn }()
			do(e)
		})
	}
	group.Wait()
}

// flusher flushes the segments of documents in work, on a goroutine of its own.
// Some file systems say only now that they are full; that is waited for, too.
type flusher struct {
	ctx   context.Context
	stop  context.CancelFunc
	ended chan struct{}
}

func newFlusher() *flusher {
	f := &flusher{ended: make(chan struct{})}
	f.ctx, f.stop = context.WithCancel(context.Background())
	return f
}

func (f *flusher) run(t *Tree) {
	defer close(f.ended)
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			return
		}
		dirty := t.dirty()
		if len(dirty) == 0 {
			continue
		}
		flush := func(op func() error) {
			if err := t.space.try(f.ctx, op); err != nil && f.ctx.Err() == nil {
				t.fail(t.explain("flush", workDirectory, err))
			}
		}
		parallel(dirty, func(s *segment) { flush(s.flush) })
		flush(func() error { return t.work.sync(".") })
	}
}

func (f *flusher) close() {
	f.stop()
	<-f.ended
}
