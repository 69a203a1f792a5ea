package layout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/tritonclient"
	"quire/tritonclient/tritontest"
)

// members notes who joins and leaves.
type members struct {
	news chan string // "+name", "-name"
	err  error       // of Join
}

func newMembers() *members { return &members{news: make(chan string, 10)} }

func (m *members) Join(e orchestrator.Endpoint) error { m.news <- "+" + e.Name; return m.err }
func (m *members) Leave(name string)                  { m.news <- "-" + name }

// want waits for what happens next.
func (m *members) want(t *testing.T, what string) {
	t.Helper()
	select {
	case got := <-m.news:
		if got != what {
			t.Fatalf("%s, want %s", got, what)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s in 20 s", what)
	}
}

// said is a log that can be waited for.
type said struct {
	slog.Handler
	lines chan string
}

func newSaid() *said { return &said{slog.DiscardHandler, make(chan string, 100)} }

func (s *said) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (s *said) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	s.lines <- line
	return nil
}

func (s *said) want(t *testing.T, parts ...string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case line := <-s.lines:
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
				return
			}
		case <-late:
			t.Fatalf("nothing was said of %q in 20 s", parts)
		}
	}
}

func fleetConfig(t *testing.T, list string) FleetConfig {
	t.Helper()
	endpoints, err := tritonclient.ParseEndpoints(list)
	if err != nil {
		t.Fatal(err)
	}
	return FleetConfig{
		Config: Config{SharedMemoryPrefix: prefix(t)}, Endpoints: endpoints,
		Connection: tritonclient.Config{MaxBackoff: 20 * time.Millisecond}, Grace: 300 * time.Millisecond, ResolveEvery: 20 * time.Millisecond,
	}
}

func openFleet(t *testing.T, cfg FleetConfig) *Fleet {
	t.Helper()
	f, err := OpenFleet(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// follow follows until the test ends.
func follow(t *testing.T, f *Fleet, m Members) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { f.Follow(ctx, m) })
	t.Cleanup(func() { cancel(); group.Wait() })
}

func serve(t *testing.T, m tritontest.Model, config tritontest.Config) *tritontest.Server {
	t.Helper()
	config.Models = []tritontest.Model{m}
	return tritontest.Start(t, config)
}

func names(f *Fleet) (names []string) {
	for _, e := range f.Endpoints() {
		names = append(names, e.Name)
	}
	return names
}

// A run starts with the servers that are ready, each with the transport that it
// takes; another joins when it is.
func TestFleetStartsWithThoseThatAreReady(t *testing.T) {
	a, b, c := serve(t, standIn(4), tritontest.Config{}), serve(t, standIn(4), tritontest.Config{}), serve(t, standIn(2), tritontest.Config{NoSharedMemory: true})
	b.Stop()
	cfg := fleetConfig(t, a.Addr()+","+b.Addr()+","+c.Addr())
	log := newSaid()
	cfg.Log = slog.New(log)
	f := openFleet(t, cfg)
	log.want(t, "a server is not ready; it is used when it is", b.Addr())
	if got := names(f); !slices.Equal(got, []string{a.Addr(), c.Addr()}) {
		t.Errorf("it starts with %v", got)
	}
	all := f.Servers()
	if first, last := all[0].Model.Input(), all[1].Model.Input(); !first.SharedMemory || last.SharedMemory || first.MaxBatch != 4 || last.MaxBatch != 2 {
		t.Errorf("%+v and %+v", first, last)
	}
	m := newMembers()
	follow(t, f, m)
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	m.want(t, "+"+b.Addr())
	if got := names(f); !slices.Equal(got, []string{a.Addr(), b.Addr(), c.Addr()}) {
		t.Errorf("then there are %v", got)
	}
}

// Without any server there is nothing to start with; each is named.
func TestFleetWithoutAServer(t *testing.T) {
	a, b := serve(t, standIn(4), tritontest.Config{}), serve(t, standIn(4), tritontest.Config{})
	a.Stop()
	b.SetReady("layout", false)
	_, err := OpenFleet(testContext(t), fleetConfig(t, a.Addr()+","+b.Addr()))
	if me := wantAction(t, err, orchestrator.ActionWait); !strings.Contains(me.Message, a.Addr()) || !strings.Contains(me.Message, b.Addr()) {
		t.Errorf("%v", me)
	}
	// One alone is not waited for, and its error is Open's.
	cfg := fleetConfig(t, a.Addr())
	cfg.Grace = time.Hour
	_, err = OpenFleet(testContext(t), cfg)
	wantAction(t, err, orchestrator.ActionWait)
}

// A server that is ready and does not tell of its model is one of those that are
// waited for, and no reason to end.
func TestFleetStartsWithoutOneThatFails(t *testing.T) {
	a, b := serve(t, standIn(4), tritontest.Config{}), serve(t, standIn(4), tritontest.Config{})
	a.Script(func(c *tritontest.Call) tritontest.Fault {
		if c.Method == "ModelConfig" {
			return tritontest.Stopping()
		}
		return tritontest.Fault{}
	})
	f := openFleet(t, fleetConfig(t, a.Addr()+","+b.Addr()))
	if got := names(f); !slices.Equal(got, []string{b.Addr()}) {
		t.Errorf("it starts with %v", got)
	}
	a.Script(nil)
	m := newMembers()
	follow(t, f, m)
	m.want(t, "+"+a.Addr())
}

// A start that is called off says so, and not that servers are away.
func TestFleetCalledOff(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, context.CancelFunc) FleetConfig{
		"while a name is looked up": func(t *testing.T, cancel context.CancelFunc) FleetConfig {
			cfg := fleetConfig(t, "dns:///fleet:8001")
			cfg.Endpoints.Lookup = func(ctx context.Context, _ string) ([]string, error) {
				cancel()
				return nil, errors.New("no such host")
			}
			return cfg
		},
		"while servers are waited for": func(t *testing.T, cancel context.CancelFunc) FleetConfig {
			cfg := fleetConfig(t, "127.0.0.1:1,127.0.0.1:2")
			cfg.Grace = time.Hour
			cfg.Connection.Dial = func(context.Context, string) (net.Conn, error) {
				cancel()
				return nil, errors.New("refused")
			}
			return cfg
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			if _, err := OpenFleet(ctx, prepare(t, cancel)); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want the context's error", err)
			}
		})
	}
}

// namedFleet is a fleet of the servers that lookup finds, by addresses.
func namedFleet(t *testing.T, servers map[string]*tritontest.Server, lookup func(context.Context, string) ([]string, error)) FleetConfig {
	t.Helper()
	cfg := fleetConfig(t, "dns:///fleet:8001")
	cfg.Endpoints.Lookup = lookup
	cfg.Connection.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		return servers[address].Dial(ctx, address)
	}
	return cfg
}

// Nothing has to be said about time.
func TestFleetDefaults(t *testing.T) {
	servers := map[string]*tritontest.Server{"10.0.0.1:8001": serve(t, standIn(4), tritontest.Config{})}
	cfg := namedFleet(t, servers, func(context.Context, string) ([]string, error) { return []string{"10.0.0.1"}, nil })
	cfg.Grace, cfg.ResolveEvery = 0, 0
	f := openFleet(t, cfg)
	if got := names(f); !slices.Equal(got, []string{"10.0.0.1:8001"}) {
		t.Errorf("it starts with %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Follow(ctx, newMembers())
}

// Where all servers are there and none can come or go, there is nothing to follow.
func TestNothingToFollow(t *testing.T) {
	a, b := serve(t, standIn(4), tritontest.Config{}), serve(t, standIn(4), tritontest.Config{})
	ctx := testContext(t)
	openFleet(t, fleetConfig(t, a.Addr()+","+b.Addr())).Follow(ctx, newMembers())
	if err := ctx.Err(); err != nil {
		t.Error(err)
	}
}

// A server that the engine does not take is not used.
func TestServerThatCannotJoin(t *testing.T) {
	a, b := serve(t, standIn(4), tritontest.Config{}), serve(t, standIn(4), tritontest.Config{})
	b.Stop()
	cfg := fleetConfig(t, a.Addr()+","+b.Addr())
	log := newSaid()
	cfg.Log = slog.New(log)
	f, m := openFleet(t, cfg), newMembers()
	m.err = errors.New("no memory for its slabs")
	follow(t, f, m)
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	log.want(t, "a server is left out", b.Addr(), "no memory for its slabs")
	if got := names(f); !slices.Equal(got, []string{a.Addr()}) {
		t.Errorf("there are %v", got)
	}
}

// slowMembers takes its time to take a server in, and uses it until it has left.
type slowMembers struct {
	*members
	model                 orchestrator.Model
	joining, joined, left chan struct{}
}

func (m *slowMembers) Join(e orchestrator.Endpoint) error {
	m.model = e.Model
	close(m.joining)
	select {
	case <-m.left:
	case <-time.After(100 * time.Millisecond):
	}
	close(m.joined)
	return m.members.Join(e)
}

func (m *slowMembers) Leave(name string) {
	select {
	case <-m.joined:
	default:
		name += " before it has joined"
	}
	close(m.left)
	if _, err := m.model.Infer(context.Background(), heapSlab(1), 0, frames(1)); err != nil {
		name = err.Error()
	}
	m.members.Leave(name)
}

// A server that goes while it joins leaves after that, and works until it has.
func TestServerThatGoesWhileItJoins(t *testing.T) {
	servers := map[string]*tritontest.Server{}
	for i := range 2 {
		servers[fmt.Sprintf("10.0.0.%d:8001", i)] = serve(t, standIn(4), tritontest.Config{})
	}
	m := &slowMembers{members: newMembers(), joining: make(chan struct{}), joined: make(chan struct{}), left: make(chan struct{})}
	first := true
	f := openFleet(t, namedFleet(t, servers, func(context.Context, string) ([]string, error) {
		select {
		case <-m.joining:
		default:
			if !first {
				return []string{"10.0.0.0", "10.0.0.1"}, nil
			}
		}
		first = false
		return []string{"10.0.0.0"}, nil
	}))
	follow(t, f, m)
	m.want(t, "+10.0.0.1:8001")
	m.want(t, "-10.0.0.1:8001")
	if got := names(f); !slices.Equal(got, []string{"10.0.0.0:8001"}) {
		t.Errorf("there are %v", got)
	}
}

// A look at a name that does not end keeps nobody from the next one.
func TestLookupThatHangs(t *testing.T) {
	servers := map[string]*tritontest.Server{}
	for i := range 2 {
		servers[fmt.Sprintf("10.0.0.%d:8001", i)] = serve(t, standIn(4), tritontest.Config{})
	}
	looks := 0
	f, m := openFleet(t, namedFleet(t, servers, func(ctx context.Context, _ string) ([]string, error) {
		switch looks++; looks {
		case 1:
			return []string{"10.0.0.0"}, nil
		case 2:
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return []string{"10.0.0.0", "10.0.0.1"}, nil
	})), newMembers()
	follow(t, f, m)
	m.want(t, "+10.0.0.1:8001")
}

// One run has one model: a server with another one is refused at the start, with
// its name and with what differs; one that comes later is left out.
func TestFleetHasOneModel(t *testing.T) {
	newer := standIn(4)
	newer.Version = "2"
	for _, tt := range []struct {
		name  string
		model tritontest.Model
		want  string
	}{
		{"raster", tritontest.Layout(2*height, width, 4), fmt.Sprintf("page height (%d, there %d)", 2*height, height)},
		{"version", newer, "version 2, there 1"},
		{"labels", standIn(4, "quire.labels", "a,b,c"), "labels (a,b,c, there text,"},
		{"threshold", standIn(4, "quire.score_threshold", "0.7"), "score threshold (0.7, there 0.5)"},
		{"precision", standIn(4, "quire.precision", "bf16"), "precision (bf16, there none)"},
		{"network", standIn(4, "quire.source_sha256", "beef"), "network (beef, there cafe)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := serve(t, standIn(8, "quire.source_sha256", "cafe"), tritontest.Config{}), serve(t, tt.model, tritontest.Config{})
			cfg := fleetConfig(t, a.Addr()+","+b.Addr())
			wants := []string{"at " + b.Addr() + " is not the one at " + a.Addr(), tt.want}
			_, err := OpenFleet(testContext(t), cfg)
			me := wantAction(t, err, orchestrator.ActionStop)
			for _, want := range wants {
				if !strings.Contains(me.Message, want) {
					t.Errorf("%q, want %q", me.Message, want)
				}
			}

			b.Stop()
			log := newSaid()
			cfg.Log = slog.New(log)
			f, m := openFleet(t, cfg), newMembers()
			follow(t, f, m)
			if err := b.Restart(); err != nil {
				t.Fatal(err)
			}
			log.want(t, append(wants, "a server is left out")...)
			if got := names(f); len(got) != 1 || len(m.news) != 0 {
				t.Errorf("there are %v", got)
			}
		})
	}
}

// The addresses of a name are servers that come and go; their certificates are
// for the name.
func TestFleetOfAName(t *testing.T) {
	authority := tritontest.NewAuthority(t)
	byAddress := map[string]*tritontest.Server{}
	for i := range 4 {
		byAddress[fmt.Sprintf("10.0.0.%d:8001", i)] = serve(t, standIn(4), tritontest.Config{TLS: authority.ServerTLS(false, "fleet")})
	}
	cfg := fleetConfig(t, "dns:///fleet:8001")
	cfg.Connection.TLS = &tritonclient.TLS{CA: authority.PEM}
	cfg.Connection.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		return byAddress[address].Dial(ctx, address)
	}
	var mu sync.Mutex
	now := []string{"10.0.0.1", "10.0.0.2"}
	looked := make(chan struct{}, 1)
	cfg.Endpoints.Lookup = func(context.Context, string) ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		select {
		case looked <- struct{}{}:
		default:
		}
		if now == nil {
			return nil, errors.New("no such host")
		}
		return slices.Clone(now), nil
	}
	set := func(addresses ...string) {
		mu.Lock()
		defer mu.Unlock()
		now = addresses
	}
	f, m := openFleet(t, cfg), newMembers()
	if got := names(f); !slices.Equal(got, []string{"10.0.0.1:8001", "10.0.0.2:8001"}) {
		t.Fatalf("%v", got)
	}
	follow(t, f, m)
	set("10.0.0.2", "10.0.0.3")
	m.want(t, "-10.0.0.1:8001")
	m.want(t, "+10.0.0.3:8001")
	// A name that cannot be looked up changes nothing.
	set()
	for range 3 {
		<-looked
	}
	// What vanishes while it is waited for is waited for no longer.
	byAddress["10.0.0.0:8001"].Stop()
	set("10.0.0.0", "10.0.0.2", "10.0.0.3")
	for range 3 {
		<-looked
	}
	set("10.0.0.3")
	m.want(t, "-10.0.0.2:8001")
	m.want(t, "-10.0.0.0:8001")
	if got := names(f); !slices.Equal(got, []string{"10.0.0.3:8001"}) {
		t.Errorf("%v", got)
	}
	set("10.0.0.3", "10.0.0.1")
	m.want(t, "+10.0.0.1:8001")
}

// The certificate of an address that was looked up is that of the name, unless
// another name was asked for.
func TestSecure(t *testing.T) {
	for _, tt := range []struct{ asked, host, want string }{{"", "fleet", "fleet"}, {"other", "fleet", "other"}, {"", "", ""}} {
		given := tritonclient.Config{TLS: &tritonclient.TLS{ServerName: tt.asked}}
		if got := (tritonclient.Endpoint{Host: tt.host}).Secure(given).TLS.ServerName; got != tt.want || given.TLS.ServerName != tt.asked {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}
