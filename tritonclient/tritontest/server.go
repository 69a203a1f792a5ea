package tritontest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"quire/tritonclient/inferencepb"
)

// Config is what a [Server] is like. The zero value serves Layout(800, 608, 4)
// on loopback TCP, in plaintext, with shared memory and model control.
type Config struct {
	// Models are served; nil means Layout(800, 608, 4).
	Models []Model
	// InMemory listens in memory instead of on TCP; clients connect by Dial.
	InMemory bool
	// TLS is the server's side of TLS; nil means plaintext.
	TLS *tls.Config
	// NoSharedMemory answers shared-memory calls as a server without
	// --allow-client-shm does.
	NoSharedMemory bool
	// NoModelControl answers load and unload as a server without explicit
	// model control does.
	NoModelControl bool
	// Restricted is a header name and value without which every call but the
	// health calls is refused; empty means none. The name is the part after
	// "triton-grpc-protocol-".
	RestrictedKey, RestrictedValue string
}

// Server is a fake Triton. Its methods may be called from any goroutine.
type Server struct {
	config   Config
	memory   *bufconn.Listener // nil on TCP
	addr     string
	regions  regions
	stopping sync.Mutex // held by Stop and Restart

	mu       sync.Mutex
	grpc     *grpc.Server // nil while stopped
	serving  chan struct{}
	listener *listener
	models   map[string]*served
	script   func(*Call) Fault
	calls    []Call
	arrived  map[string]int
	inFlight map[string]int
	changed  chan struct{} // closed and replaced when a call arrives or ends
}

// Start starts a server that ends with the test.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	if config.Models == nil {
		config.Models = []Model{Layout(800, 608, 4)}
	}
	s := &Server{
		config:   config,
		models:   map[string]*served{},
		arrived:  map[string]int{},
		inFlight: map[string]int{},
		changed:  make(chan struct{}),
		regions:  regions{byName: map[string]*region{}},
	}
	for _, m := range config.Models {
		s.models[m.Name] = &served{Model: m.withDefaults(), ready: true}
	}
	if err := s.Restart(); err != nil {
		tb.Fatalf("tritontest: %v", err)
	}
	tb.Cleanup(s.Stop)
	return s
}

// Addr is the target for a client: host and port, or a name that only Dial
// understands. It stays the same across Stop and Restart.
func (s *Server) Addr() string { return s.addr }

// Dial connects to the server, whatever the address says. It is meant for
// tritonclient.Config.Dial, and needed when the server is in memory.
func (s *Server) Dial(ctx context.Context, _ string) (net.Conn, error) {
	if !s.config.InMemory {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.addr)
	}
	s.mu.Lock()
	memory := s.memory
	s.mu.Unlock()
	if memory == nil {
		return nil, errors.New("connection refused")
	}
	return memory.DialContext(ctx)
}

// Stop ends the server as a crash would: connections are cut, calls in flight
// fail, registered regions are forgotten. Models and script stay; nothing else is
// left of it when it returns. It is idempotent.
func (s *Server) Stop() {
	s.stopping.Lock()
	defer s.stopping.Unlock()
	s.stopLocked()
}

func (s *Server) stopLocked() {
	s.mu.Lock()
	server, serving := s.grpc, s.serving
	s.grpc, s.memory, s.listener = nil, nil, nil
	s.mu.Unlock()
	if server == nil {
		return
	}
	server.Stop()
	<-serving
	s.regions.removeAll()
}

// Restart starts a stopped server on the same address; a running one is stopped
// first.
func (s *Server) Restart() error {
	s.stopping.Lock()
	defer s.stopping.Unlock()
	s.stopLocked()

	var l net.Listener
	var memory *bufconn.Listener
	if s.config.InMemory {
		memory = bufconn.Listen(256 << 10)
		l = memory
	} else {
		var err error
		if l, err = net.Listen("tcp", cmp.Or(s.addr, "127.0.0.1:0")); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
	if s.addr == "" {
		// The first start, which nobody else sees yet; it never changes again.
		s.addr = "passthrough:///tritontest"
		if memory == nil {
			s.addr = l.Addr().String()
		}
	}
	transport := insecure.NewCredentials()
	if s.config.TLS != nil {
		transport = credentials.NewTLS(s.config.TLS)
	}
	tracked := &listener{Listener: l, conns: map[net.Conn]struct{}{}}
	server := grpc.NewServer(
		grpc.Creds(transport),
		// Triton's own limits.
		grpc.MaxRecvMsgSize(1<<31-1), grpc.MaxSendMsgSize(1<<31-1),
		// Stop returns when the last handler has.
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(s.intercept),
	)
	inferencepb.RegisterGRPCInferenceServiceServer(server, service{s: s})
	serving := make(chan struct{})
	s.mu.Lock()
	s.grpc, s.serving, s.memory, s.listener = server, serving, memory, tracked
	s.mu.Unlock()
	go func() {
		defer close(serving)
		// It returns an error only for a listener that broke, which the
		// clients of the test will notice.
		_ = server.Serve(tracked)
	}()
	return nil
}

// Disconnect cuts all connections and goes on listening: what a lost route or a
// proxy does.
func (s *Server) Disconnect() {
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l != nil {
		l.cut()
	}
}

// Script makes hook decide how every call from now on goes; nil means no faults.
// It is called once a call, from many goroutines, before the call does anything.
func (s *Server) Script(hook func(*Call) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = hook
}

// SetModel adds a model or replaces one, as a reload does; its counters begin
// again at zero.
func (s *Server) SetModel(m Model) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models[m.Name] = &served{Model: m.withDefaults(), ready: true}
}

// SetReady says whether a model is loaded; while it is not, the server knows its
// name and refuses its requests.
func (s *Server) SetReady(model string, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.models[model]; m != nil {
		m.ready = ready
	}
}

// Call is one RPC as it arrived.
type Call struct {
	// Index counts the calls of this Method from 0, in order of arrival.
	Index int
	// Method is the RPC's name, such as "ModelInfer".
	Method string
	// Model and ID are empty where the RPC has none.
	Model, ID string
	// Batch is the size of a ModelInfer's first input, Bytes what its message
	// carries of it, Region the shared memory it names instead.
	Batch, Bytes int
	Region       string
	// Header is what came with it.
	Header metadata.MD
	// Deadline is the client's; zero for none.
	Deadline time.Time
	// InFlight is how many calls of this Method are under way, itself included.
	InFlight int
	// Request is the message, for the script only; recorded calls have none.
	Request any
}

// Calls are the calls of a method ("" for all) so far, in order of arrival.
func (s *Server) Calls(method string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.calls), func(c Call) bool { return method != "" && c.Method != method })
}

// Batches are the batch sizes of all ModelInfer calls so far.
func (s *Server) Batches() []int {
	var sizes []int
	for _, c := range s.Calls("ModelInfer") {
		sizes = append(sizes, c.Batch)
	}
	return sizes
}

// InFlight is how many calls of a method are under way.
func (s *Server) InFlight(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inFlight[method]
}

// WaitCalls returns when n calls of a method have arrived in all, or with ctx's
// error.
func (s *Server) WaitCalls(ctx context.Context, method string, n int) error {
	return s.waitFor(ctx, func() bool { return s.arrived[method] >= n })
}

// WaitIdle returns when no call of a method is under way, or with ctx's error.
func (s *Server) WaitIdle(ctx context.Context, method string) error {
	return s.waitFor(ctx, func() bool { return s.inFlight[method] == 0 })
}

// waitFor waits until a condition on the fields under mu holds.
func (s *Server) waitFor(ctx context.Context, condition func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := condition(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// announceLocked wakes those that wait for a change of calls or inFlight.
func (s *Server) announceLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Regions are the names of the registered shared-memory regions, sorted.
func (s *Server) Regions() []string { return s.regions.names() }

// listener remembers its connections so that they can be cut.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = struct{}{}
	return &trackedConn{Conn: c, l: l}, nil
}

func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if t, ok := c.(*net.TCPConn); ok {
			// A reset, not an orderly end.
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	}
}

type trackedConn struct {
	net.Conn
	l *listener
}

func (c *trackedConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c.Conn)
	c.l.mu.Unlock()
	return c.Conn.Close()
}
