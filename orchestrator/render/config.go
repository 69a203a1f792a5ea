package render

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"time"

	"quire/tritonclient/guard"
)

const (
	defaultPageTimeout = 30 * time.Second
	// Opening reads a file's cross-reference table; a damaged one makes MuPDF
	// read the whole file to find its objects.
	defaultOpenTimeout = time.Minute
	// A page of the largest scans in use (A0, 600 dpi, colour) takes 1.6 GB
	// decoded at once, but MuPDF reduces while it decodes; 1 GiB was not
	// reached by any of a thousand odd files that could be drawn at all.
	defaultMemoryLimit = 1 << 30
	// storeBytes is how much of a worker's memory keeps decoded images and fonts
	// of the open document. 8 MB cost 6 % of drawing time against 64 MB; 256 MB
	// gain nothing.
	storeBytes = 64 << 20

	// answerGrace is how long after its deadline a worker may take to answer
	// before it is killed: MuPDF is stopped between two operators, and one of
	// them may take this long.
	answerGrace = 2 * time.Second
	// cancelGrace is the same where somebody waits for nothing but the end.
	cancelGrace = 250 * time.Millisecond
	// startTimeout is for a copy of this program to start on a busy machine.
	startTimeout = time.Minute
	// runtimeBytes is what the Go runtime and the C library take beside
	// MuPDF's memory: heap, stacks of threads, and pieces too small to reuse.
	runtimeBytes = 512 << 20
)

// Config is how pages are drawn. In every field zero means the default and a
// negative value none.
type Config struct {
	// Guard starts the worker processes. It is required.
	Guard *guard.Guard
	// PageTimeout is how long one page may take. Default 30 s.
	PageTimeout time.Duration
	// OpenTimeout is how long opening one document may take. Default 1 min.
	OpenTimeout time.Duration
	// MemoryLimit is how many bytes MuPDF may hold in one worker, what it keeps of
	// the open document included. Default 1 GiB.
	MemoryLimit int64
	// OtherFormats has a document whose name says that it is of another format
	// than PDF (see the package comment) opened as that. Default: everything
	// is opened as PDF, whatever its name, so that no other reader of MuPDF's
	// can be reached.
	OtherFormats bool
	// Passwords are tried in order on encrypted documents, in UTF-8.
	Passwords []string
	// Sandbox says whether workers must be held in. Default [SandboxAuto].
	Sandbox SandboxMode
	// Nice is added to the niceness of the worker processes; default 0.
	Nice int
	// Logger gets what MuPDF says, at debug level, and as warnings crashes of
	// workers and, once a document, that no font is there for some of its text.
	// Default: nowhere.
	Logger *slog.Logger
}

// SandboxMode says what is done about holding worker processes in, see [Sandbox].
type SandboxMode string

// The modes.
const (
	// SandboxAuto holds workers in as far as the kernel can, and logs once what
	// it cannot.
	SandboxAuto SandboxMode = "auto"
	// SandboxRequire starts no worker without both Landlock and seccomp.
	SandboxRequire SandboxMode = "require"
	// SandboxOff leaves workers the rights of this process.
	SandboxOff SandboxMode = "off"
)

// ParseSandboxMode reads "auto", "require" or "off".
func ParseSandboxMode(word string) (SandboxMode, error) {
	switch mode := SandboxMode(word); mode {
	case SandboxAuto, SandboxRequire, SandboxOff:
		return mode, nil
	}
	return "", fmt.Errorf("sandbox %q: it is auto, require or off", word)
}

// Sandbox says what holds a worker process in beside its limits. A process
// that is held in by either can open no file; with both it can do nothing but
// compute, read the descriptors that it was handed, and answer.
type Sandbox struct {
	// Landlock is the version of the kernel's interface (its ABI), 0 when it is
	// not in force: no file can be opened, made, moved or removed, no TCP port
	// used (version 4), and nothing outside the process signalled (6).
	Landlock int `json:",omitempty"`
	// Seccomp tells whether system calls are filtered.
	Seccomp bool `json:",omitempty"`
	// Missing says for what is not in force why not.
	Missing []string `json:",omitempty"`
}

func (c Config) withDefaults() Config {
	c.Sandbox = cmp.Or(c.Sandbox, SandboxAuto)
	c.PageTimeout = orDefault(c.PageTimeout, defaultPageTimeout)
	c.OpenTimeout = orDefault(c.OpenTimeout, defaultOpenTimeout)
	switch {
	case c.MemoryLimit == 0:
		c.MemoryLimit = defaultMemoryLimit
	case c.MemoryLimit < 0:
		c.MemoryLimit = math.MaxInt64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// orDefault returns the duration to use, 0 standing for none.
func orDefault(d, byDefault time.Duration) time.Duration {
	if d == 0 {
		return byDefault
	}
	return max(d, 0)
}
