package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire/tritonclient/guard"
)

// pip makes one virtual environment. Everything it runs says goes to a log.
type pip struct {
	options Options
	env     *Env
	base    *Env     // may be nil
	tmp     string   // for downloads
	lock    *os.File // of the environment; the processes hold it too
	log     *os.File

	mu       sync.Mutex // held around report and what it needs
	download Progress
	recent   *tail
}

func (p *pip) open(path string) (err error) {
	p.recent = newTail(400)
	p.log, err = os.Create(path)
	return err
}

func (p *pip) close() { p.log.Close() }

// run runs the environment's or the base interpreter. When this program is
// killed, the lock is free only once the child is gone as well.
func (p *pip) run(ctx context.Context, python string, args ...string) error {
	fmt.Fprintf(p.log, "\n$ %s %s\n", python, strings.Join(args, " "))
	state, err := runLines(ctx, p.options.Guard, guard.Command{
		Path: python,
		Args: append([]string{python}, args...),
		Env: cleanEnv("TMPDIR="+p.tmp, "PYTHONUNBUFFERED=1", "PYTHONNOUSERSITE=1", "LC_ALL=C.UTF-8",
			"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1", "PIP_NO_COLOR=1", "PIP_USER=0", "PIP_REQUIRE_VIRTUALENV=0"),
		Dir:   p.tmp, // nothing to import here by accident
		Files: []*os.File{p.lock},
		Nice:  5,
	}, p.line)
	if err != nil {
		return err
	}
	if !state.Success() {
		return &exitError{state}
	}
	return nil
}

type exitError struct{ state guard.State }

func (e *exitError) Error() string { return e.state.String() }

// makeVenv makes the virtual environment, with a pip of its own unless there is
// a base whose pip can serve: that halves the time.
func (p *pip) makeVenv(ctx context.Context) error {
	base := p.env.python
	args := []string{"-I", "-m", "venv"}
	if p.base != nil {
		args = append(args, "--without-pip")
	}
	err := p.run(ctx, base.Path, append(args, filepath.Join(p.env.dir, "venv"))...)
	if exit, ok := errors.AsType[*exitError](err); ok {
		return p.explain("virtual environment with "+base.Path, exit,
			installCommand(fmt.Sprintf("python3.%d-venv", base.Minor), "python3-libs python3-pip"))
	}
	return err
}

// install installs a lock, of which nothing is taken on trust.
func (p *pip) install(ctx context.Context, lock []byte) error {
	file := filepath.Join(p.env.dir, "requirements.txt")
	if err := os.WriteFile(file, lock, 0o644); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.watch(watching)
	}()
	python, args := p.env.Python(), []string{"-I", "-m", "pip"}
	if p.base != nil {
		python, args = p.base.Python(), append(args, "--python", p.env.Python())
	}
	err := p.run(ctx, python, append(args, "install", "--no-deps", "--require-hashes", "--only-binary", ":all:",
		"--progress-bar", "off", "--no-compile", "-r", file)...)
	stop()
	<-watched
	if exit, ok := errors.AsType[*exitError](err); ok {
		return p.explain("pip install", exit, "")
	}
	return err
}

var downloadLine = regexp.MustCompile(`^\s*Downloading (?:\S*/)?([^/\s]+?)-(\d[^-\s]*)-\S*\.whl(?:\.metadata)? \(([\d.]+) ([kKMG]?B)\)`)

// line takes one line of output.
func (p *pip) line(s string) {
	fmt.Fprintln(p.log, s)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent.add(s)
	switch m := downloadLine.FindStringSubmatch(s); {
	case m != nil && !strings.Contains(s, ".metadata "):
		p.download = Progress{
			Text:  fmt.Sprintf("downloading %s %s (%s %s)", strings.ReplaceAll(m[1], "_", "-"), m[2], m[3], m[4]),
			Total: sizeBytes(m[3], m[4]),
		}
		p.options.report(p.download)
	case strings.HasPrefix(s, "Installing collected packages:"):
		p.download = Progress{}
		p.options.report(Progress{Text: "installing" + strings.TrimPrefix(s, "Installing collected packages:")})
	}
}

// sizeBytes reads pip's sizes, which count in thousands.
func sizeBytes(number, unit string) int64 {
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0
	}
	switch unit {
	case "kB", "KB":
		f *= 1e3
	case "MB":
		f *= 1e6
	case "GB":
		f *= 1e9
	}
	return int64(f)
}

// watch reports how far the current download is, by the size of the file that
// grows: older versions of pip tell nobody but a terminal.
func (p *pip) watch(ctx context.Context) {
	if p.options.Progress == nil {
		return
	}
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		size := newestSize(p.tmp)
		p.mu.Lock()
		if p.download.Total > 0 && size > p.download.Done {
			p.download.Done = min(size, p.download.Total)
			p.options.report(p.download)
		}
		p.mu.Unlock()
	}
}

// newestSize is the size of the file below dir that was written to last.
func newestSize(dir string) (size int64) {
	var newest time.Time
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil && info.ModTime().After(newest) {
			newest, size = info.ModTime(), info.Size()
		}
		return nil
	})
	return size
}

// explain turns a failed step into one line that says what to do.
func (p *pip) explain(thing string, exit *exitError, remedy string) error {
	p.mu.Lock()
	lines := p.recent.all()
	p.mu.Unlock()
	reason, better := diagnose(lines)
	if reason == "" && p.full() {
		reason, better = diskFull()
	}
	if reason == "" {
		reason = exit.Error()
	}
	if better != "" {
		remedy = better
	}
	if remedy != "" {
		remedy += ", "
	}
	return &SetupError{Thing: thing, Reason: reason, Remedy: fmt.Sprintf("%s%s; log: %s", remedy, wayOut, p.log.Name()), Err: exit}
}

// leastRoom is less than any step of an installation needs.
const leastRoom = 64 << 20

// full tells whether the disk is: venv keeps to itself why its pip could not be
// installed.
func (p *pip) full() bool {
	var st unix.Statfs_t
	return statfs(p.env.dir, &st) == nil && int64(st.Bavail)*st.Bsize < leastRoom
}

func diskFull() (reason, remedy string) {
	return "no space left on device", "make room (1 GB) or name another directory with " + EnvCache
}

// diagnose finds the reason and the remedy in what pip said.
func diagnose(lines []string) (reason, remedy string) {
	text := strings.Join(lines, "\n")
	for _, line := range lines {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), "ERROR: "); ok {
			reason = oneLine(s)
		}
	}
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	const index = "check the network, or name a mirror with PIP_INDEX_URL or a proxy with HTTPS_PROXY"
	switch {
	case has("No space left on device"):
		return diskFull()
	case has("DO NOT MATCH THE HASHES"):
		return "a downloaded package does not match its pinned hash", "check the package index (PIP_INDEX_URL, pip.conf) and try again"
	case has("CERTIFICATE_VERIFY_FAILED"):
		return "the package index's certificate is not trusted", "name your certificates with PIP_CERT"
	case has("NewConnectionError", "Max retries exceeded", "Temporary failure in name resolution", "Name or service not known", "ReadTimeoutError", "ConnectTimeoutError", "ProxyError", "Network is unreachable", "ConnectionResetError", "Connection refused"):
		return "cannot reach the package index", index
	case has("No matching distribution found"):
		if reason == "" {
			reason = "the package index lacks a pinned package"
		}
		if has("(from versions: none)") {
			reason += " (the package index is unreachable, or has nothing of that name)"
		}
		return reason, index
	}
	return reason, ""
}

// withoutLocked returns the entries of a lock that base does not have exactly
// alike. An entry is a line that begins with a name, and the lines after it
// that are indented.
func withoutLocked(lock, base []byte) []byte {
	have := map[string]bool{}
	for _, entry := range lockEntries(base) {
		have[entry] = true
	}
	var b bytes.Buffer
	for _, entry := range lockEntries(lock) {
		if !have[entry] {
			b.WriteString(entry)
		}
	}
	return b.Bytes()
}

func lockEntries(lock []byte) []string {
	var entries []string
	for line := range strings.Lines(string(lock)) {
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			if n := len(entries); n > 0 {
				entries[n-1] += line
			}
		default:
			entries = append(entries, line)
		}
	}
	return entries
}
