package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"quire/tritonclient/guard"
	"quire/tritonclient/inferencepb"
)

// identity is a model that gives back its input; it imports what the layout
// model's backend does. It takes and gives arrays by DLPack: the stub's own
// conversion (as_numpy, Tensor) is of a time before NumPy 2 and hands over arrays
// of the right shape with the wrong strides.
var identity = map[string]string{
	"identity/config.pbtxt": `name: "identity"
backend: "python"
max_batch_size: 4
input [ { name: "in" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "out" data_type: TYPE_UINT8 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU } ]
`,
	"identity/1/model.py": `import sys
import numpy
import openvino
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        pb_utils.Logger.log_info("python %s numpy %s" % (sys.version.split()[0], numpy.__version__))

    def execute(self, requests):
        responses = []
        for r in requests:
            array = numpy.from_dlpack(pb_utils.get_input_tensor_by_name(r, "in")).copy()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("out", array)]))
        return responses
`,
	"broken/config.pbtxt": `name: "broken"
backend: "python"
max_batch_size: 4
input [ { name: "in" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "out" data_type: TYPE_UINT8 dims: [ -1 ] } ]
`,
	"broken/1/model.py": `class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("the reason it gives")
`,
}

func identityConfig(o Options, repository string) Config {
	return Config{Options: o, ModelRepository: repository, Models: []string{"identity"}}
}

func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, identity)
	return dir
}

func startServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantIdentity asks the server for one answer.
func wantIdentity(t *testing.T, addr string) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pixels := []byte{1, 2, 3, 255}
	r, err := inferencepb.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, &inferencepb.ModelInferRequest{
		ModelName:        "identity",
		Inputs:           []*inferencepb.ModelInferRequest_InferInputTensor{{Name: "in", Datatype: "UINT8", Shape: []int64{1, 4}}},
		RawInputContents: [][]byte{pixels},
	}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.GetRawOutputContents(); len(got) != 1 || !bytes.Equal(got[0], pixels) {
		t.Errorf("got %v, want %v", got, pixels)
	}
}

// A server cannot run from where nothing may.
func TestCacheThatIsNotToRunFrom(t *testing.T) {
	mount := t.TempDir()
	statfs = func(path string, st *unix.Statfs_t) error {
		err := unix.Statfs(path, st)
		if path == mount {
			st.Flags |= unix.ST_NOEXEC
		}
		return err
	}
	t.Cleanup(func() { statfs = unix.Statfs })
	for _, dir := range []string{mount, filepath.Join(mount, "not", "there")} {
		var setup *SetupError
		if _, err := Start(t.Context(), Config{Options: Options{Cache: dir, Guard: startGuard(t)}, ModelRepository: mount}); !errors.As(err, &setup) ||
			!strings.Contains(setup.Reason, "noexec") || !strings.Contains(setup.Remedy, EnvCache) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if err := usableCache(filepath.Join(t.TempDir(), "not", "there")); err != nil {
		t.Error(err)
	}
}

// Two servers of two configs run side by side, answer, restart on the same
// port, and leave nothing.
func TestTwoServers(t *testing.T) {
	o, repo := options(t), repository(t)
	cfg := identityConfig(o, repo)
	cfg.Metrics = true
	a, b := startServer(t, cfg), startServer(t, identityConfig(o, repo))
	if a.Addr() == b.Addr() || a.Pid() == b.Pid() {
		t.Fatalf("both at %s, process %d", a.Addr(), a.Pid())
	}
	wantIdentity(t, a.Addr())
	wantIdentity(t, b.Addr())
	wantMetrics(t, a.MetricsAddr())

	processes := append(children(t, a.Pid()), a.Pid(), b.Pid())
	if len(processes) != 3 {
		t.Errorf("server %d has processes %v, want one stub", a.Pid(), processes)
	}
	var wait []func()
	for _, pid := range processes {
		wait = append(wait, gone(t, pid))
	}
	addr := a.Addr()
	if err := a.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.Addr() != addr {
		t.Errorf("restarted on %s, was on %s", a.Addr(), addr)
	}
	wantIdentity(t, addr)
	wait = append(wait, gone(t, a.Pid()))

	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state := b.State(); !state.Success() {
		t.Errorf("the stopped server ended with %v", state)
	}
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if state := a.State(); state.Signal != syscall.SIGKILL {
		t.Errorf("the killed server ended with %v", state)
	}
	for _, w := range wait {
		w()
	}
	if left := shmObjects(t, o.Guard.ShmPrefix()+"t"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Errorf("Stop of a server that is gone: %v", err)
	}
}

func wantMetrics(t *testing.T, addr string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	r, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || !bytes.Contains(b, []byte("nv_inference_request_success")) {
		t.Errorf("metrics: %.200q, %v", b, err)
	}
}

// A program killed with SIGKILL leaves no server, no stub, no shared memory.
func TestKilledProgramLeavesNoServer(t *testing.T) {
	h := startHelper(t, "serve", repository(t))
	var server, guardPid int
	var prefix string
	if _, err := fmt.Sscan(strings.TrimPrefix(h.until(t, "serving"), "serving"), &server, &guardPid, &prefix); err != nil {
		t.Fatal(err)
	}
	stubs := children(t, server)
	if len(stubs) != 1 || len(shmObjects(t, prefix)) < 2 {
		t.Fatalf("stubs %v, shared memory %v", stubs, shmObjects(t, prefix))
	}
	waits := []func(){gone(t, server), gone(t, stubs[0]), gone(t, guardPid)}
	if err := h.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, wait := range waits {
		wait()
	}
	if left := shmObjects(t, prefix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A repository is served wherever it lies, though the server hands its path to a
// shell, and its user's name for it is the one that is told.
func TestPathThatAShellTakesApart(t *testing.T) {
	o := options(t)
	repo := filepath.Join(t.TempDir(), "w d & co")
	writeFiles(t, repo, identity)
	cfg := identityConfig(o, repo)
	cfg.ReadyTimeout = time.Minute
	said := make(chan string, 1000)
	cfg.Log = writerFunc(func(p []byte) (int, error) { said <- string(p); return len(p), nil })
	a, b := startServer(t, cfg), startServer(t, cfg) // the second finds the link there
	defer os.Remove(a.served)
	wantIdentity(t, a.Addr())
	wantIdentity(t, b.Addr())
	for _, s := range []*Server{a, b} {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Log, cfg.Models = nil, []string{"broken"}
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "the reason it gives") {
		t.Errorf("a broken model: %v", err)
	}
	cfg.Models = []string{"absent"}
	if _, err := Start(t.Context(), cfg); err == nil || strings.Contains(err.Error(), a.served) {
		t.Errorf("an absent model: %v", err)
	}
	close(said)
	for line := range said {
		if strings.Contains(line, a.served) {
			t.Errorf("the log has %q, which nobody knows", line)
		}
	}
}

// A server killed from outside is noticed, and its stub and memory go with it.
func TestKilledServer(t *testing.T) {
	o := options(t)
	s := startServer(t, identityConfig(o, repository(t)))
	stubs := children(t, s.Pid())
	if len(stubs) != 1 {
		t.Fatalf("stubs %v", stubs)
	}
	stubGone := gone(t, stubs[0])
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	stubGone()
	if left := shmObjects(t, o.Guard.ShmPrefix()+"t"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if s.State().Signal != syscall.SIGKILL {
		t.Errorf("state %v", s.State())
	}
}

func TestStartErrors(t *testing.T) {
	o := options(t)
	o.Cache = ""
	repo := repository(t)
	for name, test := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"broken model":        {func(c *Config) { c.Models = []string{"broken"} }, []string{"failed to load 'broken' version 1", "the reason it gives", "tritonserver.log"}},
		"unknown model":       {func(c *Config) { c.Models = []string{"absent"} }, []string{"failed to poll model 'absent'", "exit code 1"}},
		"bad flag":            {func(c *Config) { c.ExtraArgs = []string{"--no-such-flag"} }, []string{"no-such-flag"}},
		"no repository":       {func(c *Config) { c.ModelRepository = filepath.Join(repo, "none") }, []string{"none: no such directory", "--model-repository"}},
		"no repository named": {func(c *Config) { c.ModelRepository = "" }, []string{"ModelRepository is missing"}},
		"too slow":            {func(c *Config) { c.ReadyTimeout = time.Nanosecond }, []string{"not ready within 1ns"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := identityConfig(o, repo)
			test.change(&cfg)
			s, err := Start(t.Context(), cfg)
			if err == nil {
				_ = s.Kill()
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not contain %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is more than one line", err)
			}
		})
	}
	if left := shmObjects(t, o.Guard.ShmPrefix()+"t"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cfg := identityConfig(o, repo)
	cfg.Log = writerFunc(func(p []byte) (int, error) { cancel(why); return len(p), nil }) // at its first line
	if _, err := Start(ctx, cfg); !errors.Is(err, why) {
		t.Errorf("cancelled start: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A port that is taken is told from other failures, whether the server finds
// out or somebody else answers on it.
func TestBusyPort(t *testing.T) {
	o, repo := options(t), repository(t)
	first := startServer(t, identityConfig(o, repo))
	cfg := identityConfig(o, repo).withDefaults()
	second := &Server{cfg: cfg, env: first.env, backends: first.backends, cache: t.TempDir(), served: first.served, log: newTail(logLines), grpcPort: first.grpcPort}
	// Whoever is first to notice: it must not be taken for ready.
	if err := second.start(t.Context()); !errors.Is(err, errPortBusy) {
		t.Errorf("a second server on the port: %v", err)
	}
	wantIdentity(t, first.Addr())

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	second.grpcPort = l.Addr().(*net.TCPAddr).Port
	if err := second.start(t.Context()); !errors.Is(err, errPortBusy) || !strings.Contains(err.Error(), "already in use") {
		t.Errorf("a port with a listener that says nothing: %v", err)
	}
}

// Without a loopback interface nothing is started that could not be talked to.
func TestNoLoopback(t *testing.T) {
	ended := make(chan error)
	go func() {
		// The thread has a network of its own and ends with its goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Logf("no network of one's own without root: %v", err)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err == nil {
				l.Close()
				err = reachable(l.Addr().String())
			}
			ended <- err
			return
		}
		ended <- (&Server{}).pickPorts()
	}()
	var setup *SetupError
	if err := <-ended; !errors.As(err, &setup) || setup.Thing != "127.0.0.1" || !strings.HasPrefix(setup.Remedy, "ip link set lo up, ") {
		t.Errorf("got %v", err)
	}
	if err := (&Server{}).pickPorts(); err != nil {
		t.Error(err)
	}
}

// The server works with every Python version found on this machine.
func TestEachPython(t *testing.T) {
	found := map[int]Python{}
	consider := func(path string) {
		if py, err := FindPython(t.Context(), path); err != nil {
			t.Logf("not used: %v", err)
		} else if _, have := found[py.Minor]; !have {
			found[py.Minor] = py
		}
	}
	consider("") // what everybody else's test uses is not installed again
	var paths []string
	if home, err := os.UserHomeDir(); err == nil {
		paths, _ = filepath.Glob(filepath.Join(home, ".pyenv", "versions", "3.1*", "bin", "python3"))
	}
	for minor := minPython; minor <= maxPython; minor++ {
		if path, err := exec.LookPath(fmt.Sprintf("python3.%d", minor)); err == nil {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		consider(path)
	}
	if len(found) == 0 {
		t.Fatal("no usable Python")
	}
	repo := repository(t)
	for minor, py := range found {
		t.Run(fmt.Sprintf("3.%d", minor), func(t *testing.T) {
			o := options(t)
			o.Python = py.Path
			s := startServer(t, identityConfig(o, repo))
			wantIdentity(t, s.Addr())
			if log, want := strings.Join(s.Log(), "\n"), "python "+py.Version+" numpy "; !strings.Contains(log, want) {
				t.Errorf("the log does not say %q:\n%s", want, log)
			}
		})
	}
}

func TestStartReason(t *testing.T) {
	for want, log := range map[string]string{
		"failed to load 'm' version 1: why": "I1 1 a.cc:1] \"loading\"\nE1 1 b.cc:2] \"failed to load 'm' version 1: why\"\nI1 1 b.cc:3] \"failed to load 'm'\"\n+--+\nerror: creating server: more",
		"creating server: more":             "E1 1 b.cc:2] \"harmless\"\nerror: creating server: more",
		"no driver":                         "E1 1 b.cc:2] \"no driver\"\nbye",
		"failed to load 'm' version 1: warmup: no room; bye": "E1 1 b.cc:2] \"failed to load 'm' version 1: warmup: no room; no room; bye; no room; \"",
		"Segmentation fault":                  "I1 1 b.cc:2] \"fine\"\nSegmentation fault",
		"Signal (11) received.":               "I1 1 b.cc:2] \"fine\"\nSignal (11) received.\n 0# 0x0000A in tritonserver\n 1# 0x0000B in libc.so.6\n\n",
		"":                                    "I1 1 b.cc:2] \"Started\"\nW1128 11:50:43.2 7 b.cc:3] \"no metrics\"\n 0# 0x0000A in tritonserver",
		"failed to poll model 'm': no config": "E1 1 b.cc:2] \"failed to poll model 'm': no config\"\nerror: creating server: more",
		"no room":                             "E1 1 a.cc:1] \"CudaDriverHelper has not been initialized.\"\nno room\n+-------+---+\n| Model | 1 |\n+-------+---+",
		"failed to start GRPC service: Socket '127.0.0.1:8001' already in use": "E1 1 b.cc:2] \"failed to load 'm' version 1: why\"\nerror: failed to start GRPC service: Socket '127.0.0.1:8001' already in use",
	} {
		if got := startReason(strings.Split(log, "\n")); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestArgs(t *testing.T) {
	args := func(cfg Config) string {
		return strings.Join((&Server{cfg: cfg.withDefaults(), metrics: 9}).args("p-"), " ") + " "
	}
	for _, tt := range []struct {
		cfg       Config
		have, not string
	}{
		{Config{}, "--model-config-name=cpu ", "--metrics-port"},
		{Config{}, "--allow-metrics=false --load-model=layout ", "--load-model=a"},
		{Config{Models: []string{"a", "b"}}, "--load-model=a --load-model=b ", "--load-model=layout"},
		{Config{ModelConfigName: "gpu"}, "--model-config-name=gpu ", "cpu"},
		{Config{ModelConfigName: "-"}, "--disable-auto-complete-config ", "--model-config-name"},
		{Config{Metrics: true}, "--metrics-port=9 ", "--allow-metrics=false"},
		{Config{ExtraArgs: []string{"--grpc-address=0.0.0.0"}}, "--load-model=layout --grpc-address=0.0.0.0 ", "--metrics-port"},
	} {
		if got := args(tt.cfg); !strings.Contains(got, tt.have) || strings.Contains(got, tt.not) {
			t.Errorf("%+v: %s; want %q and no %q", tt.cfg, got, tt.have, tt.not)
		}
	}
}

// A server that a signal has ended says nothing about it.
func TestEndedBySignal(t *testing.T) {
	s := &Server{cache: t.TempDir(), log: newTail(logLines)}
	s.log.add(`I1128 11:50:43.2 7 b.cc:3] "loading: layout"`)
	err := s.explain(errEnded, guard.State{Code: -1, Signal: syscall.SIGKILL})
	if !strings.HasPrefix(err.Error(), "embedded Triton did not start (ended by signal 9 (killed)); ") || !strings.HasSuffix(err.Error(), "tritonserver.log") {
		t.Errorf("got %q", err)
	}
}

func TestTunables(t *testing.T) {
	for user, want := range map[string]string{
		"":                        "glibc.malloc.hugetlb=1",
		"glibc.malloc.hugetlb=0":  "glibc.malloc.hugetlb=1:glibc.malloc.hugetlb=0",
		"glibc.malloc.tcache_max": "glibc.malloc.hugetlb=1:glibc.malloc.tcache_max",
	} {
		if got := tunables(user); got != want {
			t.Errorf("tunables(%q) = %q, want %q", user, got, want)
		}
	}
}
