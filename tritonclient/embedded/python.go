package embedded

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// EnvPython names the environment variable with the python3 to use.
const EnvPython = "QUIRE_PYTHON"

// What the pinned wheels support.
const (
	minPython, maxPython       = 10, 13 // of Python 3
	minGlibcMajor, minGlibcMin = 2, 35
	// bundledLibpython is the Python 3 minor version whose libpython is in the
	// server's wheel; the stubs for others link to the system's.
	bundledLibpython = 13
)

// Python is an interpreter that environments can be made with.
type Python struct {
	// Path is the interpreter itself: no shim, no virtual environment.
	Path string
	// Version is like "3.11.2".
	Version string
	// Minor is the 11 of it.
	Minor int
	// Libpython is the shared library that the server's Python stub needs;
	// empty when the server's wheel brings its own.
	Libpython string
}

// probe.py tells what an interpreter has, as JSON.
//
//go:embed probe.py
var probeScript string

type probe struct {
	Version        string
	Implementation string
	Executable     string
	Machine        string
	Libc           string // "glibc 2.36", or empty
	Venv, Ensure   bool
	Libpython      string // path, or empty
	Prefix         string
}

// systemPython is there also where PATH has another one.
var systemPython = "/usr/bin/python3" // tests have others

const probeTimeout = 30 * time.Second

// FindPython returns the first usable interpreter among want (a path or a name
// on PATH; only that one when it is given), the one named by QUIRE_PYTHON
// (likewise), python3, python3.13 to python3.10 on PATH and /usr/bin/python3.
// When there is none it returns the *SetupError of the one that lacks least.
func FindPython(ctx context.Context, want string) (Python, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return Python{}, &SetupError{
			Thing:  "this machine",
			Reason: fmt.Sprintf("is %s/%s, and the server's wheel is for linux/amd64 only", runtime.GOOS, runtime.GOARCH),
			Remedy: otherServer,
		}
	}
	names := []string{cmp.Or(want, os.Getenv(EnvPython))}
	named := names[0] != ""
	if !named {
		names = []string{"python3"}
		for minor := maxPython; minor >= minPython; minor-- {
			names = append(names, fmt.Sprintf("python3.%d", minor))
		}
		names = append(names, systemPython)
	}
	var nearest *SetupError
	farthest := -1
	seen := map[string]bool{}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			if named {
				return Python{}, &SetupError{Thing: name, Reason: lookReason(err), Remedy: "name a python3 of 3.10 to 3.13, " + wayOut, Err: err}
			}
			continue
		}
		if seen[path] {
			continue
		}
		seen[path] = true
		py, passed, lack := checkPython(ctx, path)
		if lack == nil {
			return py, nil
		}
		if err := context.Cause(ctx); err != nil {
			return Python{}, err
		}
		if errors.Is(lack, syscall.EMFILE) || errors.Is(lack, syscall.ENFILE) { // no other Python is better
			return Python{}, lack.Err
		}
		if passed > farthest {
			farthest, nearest = passed, lack
		}
	}
	if nearest == nil {
		return Python{}, &SetupError{
			Thing:  "python3",
			Reason: "not on PATH",
			Remedy: installCommand("python3 python3-venv", "python3") + ", " + wayOut,
		}
	}
	return Python{}, nearest
}

// lookReason is why there is no program to run, without the name.
func lookReason(err error) string {
	if errors.Is(err, exec.ErrNotFound) {
		return "no such program"
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return err.Error()
}

// checkPython asks an interpreter and counts the checks it passed.
func checkPython(ctx context.Context, path string) (py Python, passed int, lack *SetupError) {
	p, err := runProbe(ctx, path)
	if err != nil {
		return py, 0, &SetupError{Thing: path, Reason: "does not run: " + err.Error(), Remedy: "name another with " + EnvPython + ", " + wayOut, Err: err}
	}
	thing := fmt.Sprintf("%s (Python %s)", path, p.Version)
	minor := pythonMinor(p.Version)
	another := "name another python3 with " + EnvPython + ", " + wayOut

	checks := []struct {
		ok             bool
		reason, remedy string
	}{
		{p.Implementation == "cpython", "is " + p.Implementation + ", not CPython", another},
		{minor >= minPython && minor <= maxPython, fmt.Sprintf("wanted Python 3.%d to 3.%d", minPython, maxPython),
			"install one, e.g. " + installCommand("python3 python3-venv", "python3") + " on a current system, and name it with " + EnvPython + ", " + wayOut},
		{p.Machine == "x86_64", "runs as " + p.Machine + ", and the server's wheel is for x86_64 only", otherServer},
		{strings.HasPrefix(p.Libc, "glibc "), "its C library is not glibc (musl?)", otherServer},
		{glibcAtLeast(p.Libc), fmt.Sprintf("the system has %s, wanted glibc %d.%d or newer (Debian 12, Ubuntu 22.04 and later)", p.Libc, minGlibcMajor, minGlibcMin), otherServer},
		{len(missing(p, minor)) == 0, strings.Join(missing(p, minor), " and ") + " not there", missingRemedy(p, minor)},
	}
	for i, c := range checks {
		if !c.ok {
			return py, i + 1, &SetupError{Thing: thing, Reason: c.reason, Remedy: c.remedy}
		}
	}
	py = Python{Path: p.Executable, Version: p.Version, Minor: minor, Libpython: p.Libpython}
	if minor == bundledLibpython {
		py.Libpython = ""
	}
	return py, len(checks) + 1, nil
}

func runProbe(ctx context.Context, path string) (probe, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-I", "-c", probeScript)
	cmd.Env = cleanEnv()
	cmd.WaitDelay = time.Second // a shim's child may hold the pipes
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return probe{}, fmt.Errorf("no answer within %v", probeTimeout)
		}
		if text := lastLine(stderr.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return probe{}, err
	}
	var p probe
	if err := json.Unmarshal(stdout.Bytes(), &p); err != nil || !filepath.IsAbs(p.Executable) {
		return probe{}, errors.New("it does not answer like Python")
	}
	return p, nil
}

// missing lists what an interpreter of the right kind lacks.
func missing(p probe, minor int) (what []string) {
	if !p.Venv {
		what = append(what, "module venv")
	}
	if !p.Ensure {
		what = append(what, "module ensurepip")
	}
	if p.Libpython == "" && minor != bundledLibpython {
		what = append(what, libpythonName(minor))
	}
	return what
}

func libpythonName(minor int) string { return fmt.Sprintf("libpython3.%d.so.1.0", minor) }

// missingRemedy is one command for all that is missing.
func missingRemedy(p probe, minor int) string {
	if system := strings.HasPrefix(p.Prefix, "/usr") && !strings.HasPrefix(p.Prefix, "/usr/local"); !system {
		return fmt.Sprintf("build it whole and with --enable-shared (PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.%d), or name another python3 with %s, %s", minor, EnvPython, wayOut)
	}
	var debian []string
	if !p.Venv || !p.Ensure {
		debian = append(debian, fmt.Sprintf("python3.%d-venv", minor))
	}
	if p.Libpython == "" {
		debian = append(debian, fmt.Sprintf("libpython3.%d", minor))
	}
	return installCommand(strings.Join(debian, " "), "python3-libs python3-pip") + ", " + wayOut
}

// installCommand is how this system installs packages, by their Debian and
// their Fedora names.
func installCommand(debian, fedora string) string {
	if _, err := exec.LookPath("dnf"); err == nil {
		if _, err := exec.LookPath("apt-get"); err != nil {
			return "dnf install " + fedora
		}
	}
	return "apt-get install " + debian
}

// pythonMinor is the second number of a version 3.X…, else -1.
func pythonMinor(version string) int {
	parts := strings.Split(version, ".")
	if len(parts) < 2 || parts[0] != "3" {
		return -1
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return -1
	}
	return n
}

func glibcAtLeast(libc string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(libc, "glibc %d.%d", &major, &minor); err != nil {
		return false
	}
	return major > minGlibcMajor || major == minGlibcMajor && minor >= minGlibcMin
}

// cleanEnv is this program's environment without what would point Python or pip
// at somebody else's packages, plus set, which are NAME=VALUE. Where packages
// come from (PIP_INDEX_URL, proxies, certificates, pip.conf) is the user's.
func cleanEnv(set ...string) []string {
	foreign := []string{
		"PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONEXECUTABLE", "PYTHONPLATLIBDIR",
		"VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "CONDA_PREFIX",
		"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_DRY_RUN", "PIP_REPORT",
		"PIP_REQUIREMENT", "PIP_CONSTRAINT", "PIP_EDITABLE", "PIP_PYTHON", "PIP_LOG", "PIP_QUIET", "PIP_VERBOSE",
		"PIP_ONLY_BINARY", "PIP_NO_BINARY", "PIP_IMPLEMENTATION", "PIP_PLATFORM", "PIP_PYTHON_VERSION", "PIP_ABI", "PIP_UPGRADE",
	}
	for _, v := range set {
		name, _, _ := strings.Cut(v, "=")
		foreign = append(foreign, name)
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(foreign, name)
	})
	return append(env, set...)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
