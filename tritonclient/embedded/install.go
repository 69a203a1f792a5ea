package embedded

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"quire/scripts"
	"quire/tritonclient/guard"
)

// EnvCache names the environment variable with the cache directory to use.
const EnvCache = "QUIRE_CACHE"

// InstallBytes is the room that everything here takes in the cache directory,
// downloads included while they last.
const InstallBytes = 1 << 30

// layoutVersion changes when what Install leaves behind does.
const layoutVersion = "1"

// Options are what everything here needs.
type Options struct {
	// Guard starts all processes. Required.
	Guard *guard.Guard
	// Cache is the directory for environments. Default: $QUIRE_CACHE, else
	// quire in the user's cache directory.
	Cache string
	// Python is the interpreter to use; see FindPython. Default: search.
	Python string
	// Progress, when set, is called with what is being done, from one
	// goroutine at a time. Nothing is reported when there is nothing to do.
	Progress func(Progress)
}

// Progress is a step of something that takes long.
type Progress struct {
	// Text is one line for people, e.g. "downloading openvino 2026.4.1".
	Text string
	// Done and Total are bytes of a download; Total is 0 for other steps.
	Done, Total int64
}

func (o Options) report(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

// CacheDir is where this package keeps what it installs, and where others may
// keep small things beside it. It need not be there yet. With an error that comes
// with a directory, others may, and the server cannot.
func CacheDir(o Options) (dir string, err error) {
	if dir = cmp.Or(o.Cache, os.Getenv(EnvCache)); dir != "" {
		dir, err = filepath.Abs(dir)
	} else if dir, err = os.UserCacheDir(); err == nil {
		dir = filepath.Join(dir, "quire")
	}
	if err != nil {
		return "", &SetupError{Thing: "cache directory", Reason: err.Error(), Remedy: "set " + EnvCache + " to a directory, " + wayOut, Err: err}
	}
	return dir, usableCache(dir)
}

// Env is an installed virtual environment.
type Env struct {
	dir    string
	python Python
	lock   []byte // the requirements
}

// Dir is the environment's directory, absolute.
func (e *Env) Dir() string { return e.dir }

// Python is the environment's interpreter, absolute.
func (e *Env) Python() string { return filepath.Join(e.bin(), "python3") }

// SitePackages is where the environment's packages are, absolute.
func (e *Env) SitePackages() string {
	return filepath.Join(e.dir, "venv", "lib", fmt.Sprintf("python3.%d", e.python.Minor), "site-packages")
}

func (e *Env) bin() string { return filepath.Join(e.dir, "venv", "bin") }

// Run runs the environment's interpreter with args and calls line with each
// line that it writes. An exit code other than 0 is an error with its last line.
func (e *Env) Run(ctx context.Context, g *guard.Guard, line func(string), args ...string) error {
	var last string
	state, err := runLines(ctx, g, guard.Command{
		Path: e.Python(),
		Args: append([]string{"python3", "-I"}, args...),
		Env:  e.environ(),
	}, func(s string) {
		if s != "" {
			last = s
		}
		if line != nil {
			line(s)
		}
	})
	if err != nil {
		return err
	}
	if !state.Success() {
		return errors.New(cmp.Or(oneLine(last), state.String()))
	}
	return nil
}

func (e *Env) environ(set ...string) []string {
	return cleanEnv(append([]string{"PATH=" + e.bin() + ":" + os.Getenv("PATH") + ":/usr/bin:/bin", "PYTHONUNBUFFERED=1", "PYTHONNOUSERSITE=1"}, set...)...)
}

// Requirements is what to install.
type Requirements struct {
	// Name begins the environment's directory name, e.g. "server".
	Name string
	// Lock is a requirements file with the SHA-256 of every package.
	Lock []byte
	// Base, when set, is an environment whose packages are visible in this
	// one; what is locked alike in both is not installed again.
	Base *Env
}

// completeName is the marker in an environment's directory.
const completeName = "complete"

// Install makes the environment for req if it is not there, and returns it. It
// may be called from several processes at once: one installs, the others wait.
// What an installation that was killed left behind is thrown away.
func Install(ctx context.Context, o Options, req Requirements) (*Env, error) {
	e, err := locate(ctx, o, req)
	if err != nil {
		return nil, err
	}
	if e.complete() {
		return e, nil
	}
	lock, err := lockFile(ctx, e.cache(), e.dir+".lock", func() {
		o.report(Progress{Text: "waiting for another quire that is installing the same"})
	})
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if e.complete() {
		return e, nil
	}
	if err := e.build(ctx, o, req, lock); err != nil {
		return nil, err
	}
	return e, nil
}

// Installed returns where the server's environment is, and whether it is there,
// without changing anything. The error is a *[SetupError] when the machine lacks
// what it takes to install it.
func Installed(ctx context.Context, o Options) (dir string, installed bool, err error) {
	e, err := locate(ctx, o, Requirements{Name: "server", Lock: scripts.RequirementsServer})
	if err != nil {
		return "", false, err
	}
	if err := checkShell(); err != nil {
		return e.dir, false, err
	}
	return e.dir, e.complete(), nil
}

// locate finds out where the environment for req is, or would be.
func locate(ctx context.Context, o Options, req Requirements) (*Env, error) {
	cache, err := CacheDir(o)
	if err != nil {
		return nil, err
	}
	var py Python
	if req.Base != nil {
		py = req.Base.python
	} else if py, err = FindPython(ctx, o.Python); err != nil {
		return nil, err
	}
	parts := []string{layoutVersion, string(req.Lock), py.Path, fmt.Sprint(py.Minor)}
	if req.Base != nil {
		parts = append(parts, req.Base.dir)
	}
	return &Env{
		dir:    filepath.Join(cache, "env", req.Name+"-"+digest(parts...)),
		python: py,
		lock:   req.Lock,
	}, nil
}

func (e *Env) cache() string { return filepath.Dir(filepath.Dir(e.dir)) }

// complete tells whether the environment is there, whole.
func (e *Env) complete() bool {
	if _, err := os.Stat(filepath.Join(e.dir, completeName)); err != nil {
		return false
	}
	// A link: Python itself may have been removed.
	_, err := os.Stat(e.Python())
	return err == nil
}

// build makes the environment at its final place, since virtual environments
// hold absolute paths; the marker comes last.
func (e *Env) build(ctx context.Context, o Options, req Requirements, lock *os.File) error {
	cache := e.cache()
	// The marker goes first: a removal can be interrupted too.
	if err := os.Remove(filepath.Join(e.dir, completeName)); err != nil && !os.IsNotExist(err) {
		return cacheError(cache, err)
	}
	if err := os.RemoveAll(e.dir); err != nil {
		return cacheError(cache, err)
	}
	tmp := filepath.Join(e.dir, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return cacheError(cache, err)
	}
	p := &pip{options: o, env: e, base: req.Base, tmp: tmp, lock: lock}
	if err := p.open(filepath.Join(e.dir, "install.log")); err != nil {
		return cacheError(cache, err)
	}
	defer p.close()

	o.report(Progress{Text: fmt.Sprintf("making a virtual environment with %s (Python %s)", e.python.Path, e.python.Version)})
	if err := p.makeVenv(ctx); err != nil {
		return err
	}
	wanted := req.Lock
	if req.Base != nil {
		wanted = withoutLocked(req.Lock, req.Base.lock)
		// site adds every line of a .pth file to sys.path.
		if err := os.WriteFile(filepath.Join(e.SitePackages(), "quire-base.pth"), []byte(req.Base.SitePackages()+"\n"), 0o644); err != nil {
			return cacheError(cache, err)
		}
	}
	if len(wanted) > 0 {
		if err := p.install(ctx, wanted); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(tmp); err != nil {
		return cacheError(cache, err)
	}
	return e.markComplete()
}

// markComplete makes sure that everything is on disk before the marker is.
func (e *Env) markComplete() error {
	cache := e.cache()
	dir, err := os.Open(e.dir)
	if err != nil {
		return cacheError(cache, err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return cacheError(cache, err)
	}
	content, err := json.Marshal(map[string]string{
		"python": e.python.Path, "version": e.python.Version, "installed": time.Now().UTC().Format(time.RFC3339),
	})
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(e.dir, completeName), append(content, '\n'), 0o644); err != nil {
		return cacheError(cache, err)
	}
	return nil
}

func cacheError(cache string, err error) error {
	remedy := "make it writable or name another with " + EnvCache
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		remedy = "make room (1 GB) or name another directory with " + EnvCache
	}
	return &SetupError{Thing: "cache directory " + cache, Reason: err.Error(), Remedy: remedy + ", " + wayOut, Err: err}
}

// digest is short but long enough never to meet another by chance.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
