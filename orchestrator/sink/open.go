package sink

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Open takes the output directory: it creates what is missing, and makes sure
// that nobody else writes there and that writing works, so that this is known
// before anything else is begun. Start must follow.
func Open(cfg Config) (_ *Tree, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("no output directory: name one with -o")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.DiskWait == 0 {
		cfg.DiskWait = 10 * time.Minute
	}
	t := &Tree{cfg: cfg, docs: make(map[string]*segment), left: make(map[string]bool)}
	t.space.limit, t.space.log = cfg.DiskWait, cfg.Log
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o777); err != nil {
		return nil, t.explain("create", "", err)
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return nil, t.explain("open", "", err)
	}
	t.root = &disk{Root: root}
	if err := t.owns(); err != nil { // before anything is left there
		return nil, err
	}
	if err := root.Mkdir(workDirectory, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, t.explain("create", workDirectory, err)
	}
	work, err := root.OpenRoot(workDirectory)
	if err != nil {
		return nil, t.explain("open", workDirectory, err)
	}
	t.work = &disk{Root: work}
	if err := t.acquire(); err != nil {
		return nil, err
	}
	if err := t.owns(); err != nil { // still, now that nobody else of ours writes there
		return nil, err
	}
	if err := t.sweep(); err != nil {
		return nil, err
	}
	return t, t.probe()
}

// owns refuses a directory whose run.json somebody else has written: it would be
// replaced.
func (t *Tree) owns() error {
	if info, err := t.root.Lstat(runName); err != nil || !info.Mode().IsRegular() {
		return nil // what is in the way otherwise is not replaced
	}
	data, err := t.root.ReadFile(runName)
	if err != nil {
		return t.explain("read", runName, err)
	}
	var is struct {
		Schema string `json:"schema"`
	}
	if json.Unmarshal(data, &is) != nil || !strings.HasPrefix(is.Schema, runSchema) {
		return fmt.Errorf("%s is there and not quire's: move it away, or name another output directory with -o", filepath.Join(t.cfg.Dir, runName))
	}
	return nil
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
		who := "it has just started"
		var pid int
		if _, err := fmt.Fscan(f, &pid); err == nil {
			who = fmt.Sprintf("process %d", pid)
		}
		_ = f.Close()
		return fmt.Errorf("output directory %s is in use by another run (%s): wait for it, or name another directory with -o", t.cfg.Dir, who)
	}
	if err != nil {
		_ = f.Close()
		return t.explain("lock", path.Join(workDirectory, lockName), err)
	}
	t.lock = f
	// Only a help to people; the lock itself is what counts.
	if err = f.Truncate(0); err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		return t.explain("write", path.Join(workDirectory, lockName), err)
	}
	return nil
}

// sweep removes what a killed run left half made in the work directory, and
// notes the segments.
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
		switch {
		case strings.HasPrefix(name, tempPrefix):
			if err := t.work.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return t.explain("remove", path.Join(workDirectory, name), err)
			}
		case strings.HasPrefix(name, segmentPrefix), strings.HasPrefix(name, leftPrefix):
			t.left[name] = true
		}
	}
	return nil
}

// probeBytes is what must be free for a run to begin.
const probeBytes = 1 << 20

// probe finds a disk that is full or that cannot be written.
func (t *Tree) probe() error {
	name := t.tempName()
	f, err := t.work.create(name)
	if err == nil {
		_, err = f.Write(make([]byte, probeBytes))
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close(), t.work.Remove(name))
	}
	if err != nil {
		return t.explain("write in", workDirectory, err)
	}
	return nil
}
