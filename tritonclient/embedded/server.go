package embedded

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quire/tritonclient/guard"
)

const (
	defaultNice         = 10
	defaultReadyTimeout = 3 * time.Minute
	stopTimeout         = 10 * time.Second
	// portTries: a port that was free a moment ago may be taken by now, and a
	// busy port ends the server.
	portTries = 5
	logLines  = 500
)

// Config is how a server is started.
type Config struct {
	Options
	// ModelRepository is the directory with the models. Required.
	ModelRepository string
	// ModelConfigName chooses configs/NAME.pbtxt of each model that has it.
	// Default: "cpu". "-" chooses nothing.
	ModelConfigName string
	// Models are loaded at start. Default: the layout model.
	Models []string
	// Nice is added to this program's niceness. Default 10, so that rendering
	// and inference leave the program itself responsive; negative: nothing.
	Nice int
	// ReadyTimeout is how long models may take to load. Default 3 minutes;
	// negative: for ever.
	ReadyTimeout time.Duration
	// Metrics has the server offer Prometheus metrics; see MetricsAddr.
	Metrics bool
	// Log, when set, gets every line of the server's log.
	Log io.Writer
	// ExtraArgs are handed to tritonserver and win over what is chosen here.
	ExtraArgs []string
}

func (c Config) withDefaults() Config {
	c.ModelConfigName = cmp.Or(c.ModelConfigName, "cpu")
	if c.Models == nil {
		c.Models = []string{LayoutModel}
	}
	c.Nice = max(0, cmp.Or(c.Nice, defaultNice))
	c.ReadyTimeout = cmp.Or(c.ReadyTimeout, defaultReadyTimeout)
	return c
}

// Server is a tritonserver. Its methods may be called from any goroutine,
// except that Stop, Kill and Restart must not overlap with Restart or Supervise.
type Server struct {
	cfg      Config
	env      *Env
	backends string // the directory
	cache    string
	served   string // the repository, as the server is told it
	grpcPort int
	metrics  int
	life     string // of the current or last start; no two are alike

	mu  sync.Mutex // held around run and log
	run *running
	log *tail
}

// running is one life of the server.
type running struct {
	process *guard.Process
	done    chan struct{} // closed when nothing of it is left
}

// Start installs the server if need be, starts it with ports of its own on
// 127.0.0.1 and waits until the models are ready. ctx bounds the start only;
// the server ends with Stop, or with the guard.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if cfg.Guard == nil {
		return nil, errors.New("embedded Triton: Config.Guard is missing")
	}
	if cfg.ModelRepository == "" {
		return nil, errors.New("embedded Triton: Config.ModelRepository is missing")
	}
	repository, err := filepath.Abs(cfg.ModelRepository)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(repository); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("embedded Triton: model repository %s: no such directory; name one with --model-repository", repository)
	}
	cfg.ModelRepository = repository
	s := &Server{cfg: cfg, log: newTail(logLines)}
	if s.cache, err = CacheDir(cfg.Options); err != nil {
		return nil, err
	}
	if s.served, err = servedPath(s.cache, repository); err != nil {
		return nil, err
	}
	if s.env, err = ServerEnv(ctx, cfg.Options); err != nil {
		return nil, err
	}
	if s.backends, err = layOut(ctx, cfg.Options, s.env); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		if err := s.pickPorts(); err != nil {
			return nil, err
		}
		err := s.start(ctx)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errPortBusy) || try == portTries {
			return nil, err
		}
	}
}

// pickPorts finds free ports. Triton does not take port 0.
func (s *Server) pickPorts() error {
	ports := []*int{&s.grpcPort}
	if s.cfg.Metrics {
		ports = append(ports, &s.metrics)
	}
	for _, p := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("embedded Triton: no free port on 127.0.0.1: %w", err)
		}
		defer l.Close() // after all are chosen, so that they differ
		if err := reachable(l.Addr().String()); err != nil {
			return err
		}
		*p = l.Addr().(*net.TCPAddr).Port
	}
	return nil
}

// reachable tells whether a connection to a listener on 127.0.0.1 can be made. Where
// it cannot, as in a network namespace that nobody has set up, a server starts and
// is waited for in vain.
func reachable(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, callLimit)
	if err != nil {
		reason := err
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			reason = errno
		}
		return &SetupError{Thing: "127.0.0.1", Reason: "no connection can be made to this machine itself: " + reason.Error(), Remedy: "ip link set lo up, " + wayOut, Err: err}
	}
	return conn.Close()
}

// tunables is the user's GLIBC_TUNABLES with huge pages for malloc before it:
// glibc takes them in order.
func tunables(user string) string {
	return strings.TrimSuffix("glibc.malloc.hugetlb=1:"+user, ":")
}

// start runs the server on the chosen ports until it is ready.
func (s *Server) start(ctx context.Context) error {
	s.life = s.cfg.Guard.ShmPrefix() + "t" + strings.ToLower(rand.Text()[:8])
	prefix := s.life + "-"
	s.mu.Lock()
	s.log = newTail(logLines)
	s.mu.Unlock()
	before := leftovers(environmentDirs)
	process, lines, err := spawnLines(s.cfg.Guard, guard.Command{
		Path: serverPath(s.env),
		Args: append([]string{"tritonserver"}, s.args(prefix)...),
		Env: s.env.environ(
			"LD_LIBRARY_PATH="+s.env.libraryPath(s.backends),
			"CUDA_VISIBLE_DEVICES=", // a GPU that is there is somebody else's
			// The model walks through tens of megabytes a page: malloc asks the
			// kernel for huge pages, which cost fewer misses of the TLB.
			"GLIBC_TUNABLES="+tunables(os.Getenv("GLIBC_TUNABLES")),
		),
		Dir:  s.backends,
		Nice: s.cfg.Nice,
	}, s.line)
	if err != nil {
		return fmt.Errorf("embedded Triton: %w", err)
	}
	run := &running{process: process, done: make(chan struct{})}
	var left atomic.Value // the directory that it has made, a string
	s.mu.Lock()
	s.run = run
	s.mu.Unlock()
	go func() {
		defer close(run.done)
		<-process.Done()
		// The stubs of models hold the log open; they are gone when it ends.
		<-lines
		unlinkShm(prefix)
		if dir, _ := left.Load().(string); dir != "" {
			_ = unix.Rmdir(dir) // gone if it ended by itself; a model's environment may be in it
		}
	}()

	wait := ctx
	if s.cfg.ReadyTimeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeoutCause(ctx, s.cfg.ReadyTimeout, fmt.Errorf("not ready within %v", s.cfg.ReadyTimeout))
		defer cancel()
	}
	err = waitReady(wait, s.Addr(), s.life, s.cfg.Models, process.Done())
	if err == nil {
		if len(s.cfg.Models) > 0 { // else no Python backend has made one
			left.Store(leftover(environmentDirs, before))
		}
		return nil
	}
	_ = process.Kill()
	<-run.done
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if guardErr := s.cfg.Guard.Err(); guardErr != nil {
		return guardErr
	}
	return s.explain(err, process.State())
}

func (s *Server) args(prefix string) []string {
	args := []string{
		"--id=" + s.life,
		"--model-repository=" + s.served,
		"--model-control-mode=explicit",
		"--backend-directory=" + s.backends,
		"--backend-config=python,shm-region-prefix-name=" + prefix,
		"--grpc-address=127.0.0.1", "--grpc-port=" + strconv.Itoa(s.grpcPort),
		"--allow-http=false", "--allow-sagemaker=false", "--allow-vertex-ai=false",
		"--exit-timeout-secs=5",
		// Completing configs costs more than a second a Python model: Triton
		// starts an interpreter just to ask.
		"--disable-auto-complete-config",
	}
	if s.cfg.ModelConfigName != "-" {
		args = append(args, "--model-config-name="+s.cfg.ModelConfigName)
	}
	if s.cfg.Metrics {
		args = append(args, "--allow-metrics=true", "--metrics-address=127.0.0.1", "--metrics-port="+strconv.Itoa(s.metrics))
	} else {
		args = append(args, "--allow-metrics=false")
	}
	for _, m := range s.cfg.Models {
		args = append(args, "--load-model="+m)
	}
	return append(args, s.cfg.ExtraArgs...)
}

// line takes one line of the server's log, and names the repository in it as the
// user does.
func (s *Server) line(line string) {
	if s.served != s.cfg.ModelRepository {
		line = strings.ReplaceAll(line, s.served, s.cfg.ModelRepository)
	}
	s.mu.Lock()
	s.log.add(line)
	s.mu.Unlock()
	if s.cfg.Log != nil {
		_, _ = io.WriteString(s.cfg.Log, line+"\n")
	}
}

// Addr is the gRPC endpoint, host:port; it stays the same over Restart.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.grpcPort)) }

// MetricsAddr is the host:port of /metrics, or empty without Config.Metrics.
func (s *Server) MetricsAddr() string {
	if !s.cfg.Metrics {
		return ""
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.metrics))
}

func (s *Server) current() *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run
}

// Pid is the server's process ID. Its Python stubs are children of it.
func (s *Server) Pid() int { return s.current().process.Pid() }

// Done is closed when the server has ended and nothing of it is left. Restart
// makes a new channel.
func (s *Server) Done() <-chan struct{} { return s.current().done }

// State says how the server ended, once Done is closed.
func (s *Server) State() guard.State { return s.current().process.State() }

// Log returns the last lines of the server's log, oldest first.
func (s *Server) Log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.all()
}

// Signal sends a signal to the server, e.g. SIGSTOP in a test.
func (s *Server) Signal(sig syscall.Signal) error { return s.current().process.Signal(sig) }

// Stop ends the server: it asks (SIGTERM), and after 10 s, or when ctx ends
// first, kills. It returns when nothing of the server is left.
func (s *Server) Stop(ctx context.Context) error {
	run := s.current()
	if err := run.process.Signal(syscall.SIGTERM); err == nil {
		timeout := time.NewTimer(stopTimeout)
		defer timeout.Stop()
		select {
		case <-run.done:
			return nil
		case <-timeout.C:
		case <-ctx.Done():
		}
	}
	return s.Kill()
}

// Kill ends the server at once. It returns when nothing of it is left.
func (s *Server) Kill() error {
	run := s.current()
	if err := run.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, guard.ErrClosed) && !errors.Is(err, guard.ErrLost) {
		return fmt.Errorf("embedded Triton: kill: %w", err)
	}
	<-run.done
	return nil
}

// Restart kills the server if it runs, starts it again on the same port, and
// waits until the models are ready.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return err
	}
	return s.start(ctx)
}

var errPortBusy = errors.New("its port is taken")

// explain makes one line of the log of a server that would not start, and
// leaves the log for who wants it all.
func (s *Server) explain(cause error, state guard.State) error {
	reason := startReason(s.Log())
	if reason != "" {
		reason = ": " + reason
	}
	how := cause.Error()
	if errors.Is(cause, errEnded) {
		how = state.String()
		if strings.Contains(reason, "already in use") {
			cause = errPortBusy
		}
	}
	const larger = "make it larger (a container: --shm-size=1g)"
	var shm unix.Statfs_t
	switch {
	case strings.Contains(reason, "shared memory pool") && strings.Contains(reason, "No space left on device"):
		// The backend's own words name a key, and an option of docker's.
		reason = ": /dev/shm is too small for the memory that its models share with it: " + larger
	case unix.Statfs("/dev/shm", &shm) == nil && shm.Blocks > 0 && shm.Blocks*uint64(shm.Bsize) < leastShm:
		// It may have ended before it could write that down.
		reason += fmt.Sprintf("; /dev/shm has %d MB: if nothing else helps, %s", shm.Blocks*uint64(shm.Bsize)>>20, larger)
	}
	text := fmt.Sprintf("embedded Triton did not start (%s)%s%s", how, reason, s.saveLog())
	return &startError{text: oneLine(text), err: cause}
}

// leastShm is what docker gives a container of which nothing was said; quire's own
// model runs with it.
const leastShm = 64 << 20

// saveLog leaves the server's log in the cache directory and returns where, as
// the tail of a sentence.
func (s *Server) saveLog() string {
	path := filepath.Join(s.cache, "logs", "tritonserver.log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return ""
	}
	if err := replaceFile(path, []byte(strings.Join(s.Log(), "\n")+"\n"), 0o644); err != nil {
		return ""
	}
	return "; log: " + path
}

type startError struct {
	text string
	err  error
}

func (e *startError) Error() string { return e.text }
func (e *startError) Unwrap() error { return e.err }

var (
	stackFrame = regexp.MustCompile(`^\d+# 0x`)
	harmless   = regexp.MustCompile(`^[IW]\d+ `) // levels
)

// startReason finds the line of Triton's log that says most, if one says anything.
func startReason(lines []string) string {
	var load, fatal, severe, last string
	for _, line := range lines {
		trimmed := strings.TrimSpace(line)
		_, message, isLog := strings.Cut(trimmed, "] ")
		message = strings.Trim(message, `"`)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "+") || strings.HasPrefix(trimmed, "|"):
			continue
		case stackFrame.MatchString(trimmed): // of a crash, which has said what it is
			continue
		case isLog && strings.HasPrefix(message, "failed to load '") && strings.Contains(message, "' version "):
			load = message
		case strings.HasPrefix(trimmed, "error: ") || strings.HasPrefix(trimmed, "tritonserver: ") || strings.Contains(trimmed, "already in use"):
			fatal = strings.TrimPrefix(trimmed, "error: ")
		case isLog && strings.HasPrefix(message, "failed to poll model '"):
			load = message
		case strings.Contains(message, "CudaDriverHelper"): // on every machine without a GPU
			continue
		case isLog && strings.HasPrefix(trimmed, "E"):
			severe = message
		case isLog && harmless.MatchString(trimmed): // what it was at
			continue
		}
		last = trimmed
	}
	if strings.Contains(fatal, "already in use") {
		return fatal
	}
	return withoutRepeats(cmp.Or(load, fatal, severe, last))
}

// withoutRepeats leaves out what stands in a list for each of several requests.
func withoutRepeats(reason string) string {
	var said []string
	for part := range strings.SplitSeq(reason, "; ") {
		if part = strings.TrimSpace(part); part != "" && !slices.ContainsFunc(said, func(s string) bool { return strings.HasSuffix(s, part) }) {
			said = append(said, part)
		}
	}
	return strings.Join(said, "; ")
}

// unlinkShm removes the shared-memory objects that begin with prefix.
func unlinkShm(prefix string) {
	names, err := filepath.Glob("/dev/shm/" + prefix + "*")
	if err != nil {
		return
	}
	for _, name := range names {
		_ = os.Remove(name)
	}
}
