package layout

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"quire/orchestrator"
	"quire/tritonclient"
)

// FleetConfig says which servers to use and how. Zero fields but Endpoints mean
// the default.
type FleetConfig struct {
	// Config is that of each server's model.
	Config
	// Endpoints are the servers, and Connection how they are talked to. With
	// TLS and without a ServerName, a server that was found by looking a name
	// up is expected to have a certificate for that name.
	Endpoints  tritonclient.Endpoints
	Connection tritonclient.Config
	// Grace is how long a start waits for servers that are not ready, when
	// there are several. Default 5 s.
	Grace time.Duration
	// ResolveEvery is how often names that stand for several servers are looked
	// up again. Default 10 s.
	ResolveEvery time.Duration
}

// leftOutPause is how often it is looked whether a server that was left out
// serves the right model by now.
const leftOutPause = 30 * time.Second

// Fleet is the same layout model on several servers: the [orchestrator.Endpoint]s
// of one Detector. Its methods may be called from any goroutine. Follow starts
// goroutines, and ends them before it returns.
type Fleet struct {
	cfg FleetConfig
	log *slog.Logger

	mu      sync.Mutex
	servers []*server
	first   *server // whose model the others must have
}

// server is one of a fleet.
type server struct {
	name   string
	client *tritonclient.Client
	model  *Model // nil until it is used; guarded by Fleet.mu

	// Set while Follow waits for it.
	cancel context.CancelFunc
	over   chan struct{}
}

// Server is a server that is used.
type Server struct {
	Name   string
	Client *tritonclient.Client
	Model  *Model
}

// OpenFleet opens the model of every server that is ready. One server alone is
// not waited for, of several those that are not ready are, for Grace; whoever is
// not ready then is left to Follow, unless nobody is. A model that differs from
// that of the first server, in the order of Endpoints, is an error that says in
// what. Every error but ctx's is an [*orchestrator.ModelError].
func OpenFleet(ctx context.Context, cfg FleetConfig) (_ *Fleet, err error) {
	cfg.Model = cmp.Or(cfg.Model, DefaultModel)
	cfg.Grace = cmp.Or(cfg.Grace, 5*time.Second)
	cfg.ResolveEvery = cmp.Or(cfg.ResolveEvery, 10*time.Second)
	f := &Fleet{cfg: cfg, log: cfg.Log}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	found, err := cfg.Endpoints.Resolve(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &orchestrator.ModelError{Action: orchestrator.ActionWait, Message: err.Error(), Err: err}
	}
	for _, e := range found {
		s, err := f.connect(e)
		if err != nil {
			return nil, stop(err, "%v", err)
		}
		f.servers = append(f.servers, s)
	}
	if _, one := cfg.Endpoints.Single(); one {
		return f, f.open(ctx, f.servers[0])
	}
	notReady := f.await(ctx)
	var reasons []string
	for i, s := range f.servers {
		err := notReady[i]
		if err == nil {
			if err = f.open(ctx, s); err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if me, ok := errors.AsType[*orchestrator.ModelError](err); ok && me.Action == orchestrator.ActionStop {
			return nil, me
		}
		reasons = append(reasons, err.Error())
		f.log.Warn("a server is not ready; it is used when it is", "server", s.name, "reason", err)
	}
	if f.first == nil {
		return nil, &orchestrator.ModelError{Action: orchestrator.ActionWait, Message: "no server is ready: " + strings.Join(reasons, "; ")}
	}
	return f, nil
}

// connect makes the client of a server.
func (f *Fleet) connect(e tritonclient.Endpoint) (*server, error) {
	client, err := tritonclient.New(e.Target, e.Secure(f.cfg.Connection))
	if err != nil {
		return nil, err
	}
	return &server{name: e.Target, client: client}, nil
}

// await waits for the servers' models for Grace and tells why each is not ready,
// nil for one that is.
func (f *Fleet) await(ctx context.Context) []error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Grace)
	defer cancel()
	errs := make([]error, len(f.servers))
	var group sync.WaitGroup
	for i, s := range f.servers {
		group.Go(func() { errs[i] = s.client.WaitModelReady(ctx, f.cfg.Model, f.cfg.Version, nil) })
	}
	group.Wait()
	return errs
}

// open opens the model of a server, which must be that of the first one.
func (f *Fleet) open(ctx context.Context, s *server) error {
	f.mu.Lock()
	first := f.first
	f.mu.Unlock()
	cfg := f.cfg.Config
	if first != nil {
		// Not its newest: the one that the others answer with.
		cfg.Version = first.model.Contract().Version
		meta, err := s.client.ModelMetadata(ctx, cfg.Model, "")
		if err != nil {
			return err
		}
		if served := meta.GetVersions(); len(served) > 0 && !slices.Contains(served, cfg.Version) {
			return stop(nil, "model %s at %s is not the one at %s: version %s, there %s: one run has one model",
				cfg.Model, s.name, first.name, strings.Join(served, ", "), cfg.Version)
		}
	}
	m, err := Open(ctx, s.client, cfg)
	if err != nil {
		return err
	}
	if first != nil {
		if differs := first.model.Contract().Differs(m.Contract()); differs != "" {
			m.Close()
			return stop(nil, "model %s at %s is not the one at %s: %s: one run has one model", cfg.Model, s.name, first.name, differs)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.model = m
	if f.first == nil {
		f.first = s
	}
	return nil
}

// Servers are those that are used, in the order in which they were found.
func (f *Fleet) Servers() []Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []Server
	for _, s := range f.servers {
		if s.model != nil {
			all = append(all, Server{s.name, s.client, s.model})
		}
	}
	return all
}

// Endpoints are the servers that are used, for [orchestrator.Config].
func (f *Fleet) Endpoints() []orchestrator.Endpoint {
	var all []orchestrator.Endpoint
	for _, s := range f.Servers() {
		all = append(all, orchestrator.Endpoint{Name: s.Name, Model: s.Model})
	}
	return all
}

// Members takes servers that come and go: an [*orchestrator.Detector].
type Members interface {
	Join(orchestrator.Endpoint) error
	Leave(name string)
}

// Follow waits for the servers that were not ready and joins them to members when
// they are, and looks names that stand for several servers up again and again. It
// returns when ctx ends, or when there is nothing to follow.
func (f *Fleet) Follow(ctx context.Context, members Members) {
	var group sync.WaitGroup
	defer group.Wait()
	bring := func(s *server) {
		var waiting context.Context
		waiting, s.cancel = context.WithCancel(ctx)
		s.over = make(chan struct{})
		group.Go(func() {
			defer close(s.over)
			f.bring(waiting, s, members)
		})
	}
	f.mu.Lock()
	for _, s := range f.servers {
		if s.model == nil {
			bring(s)
		}
	}
	f.mu.Unlock()
	if !f.cfg.Endpoints.Changing() {
		return
	}
	t := time.NewTicker(f.cfg.ResolveEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		found, err := f.lookUp(ctx)
		if err != nil {
			// What is used goes on being used.
			f.log.Debug("servers could not be looked up again", "err", err)
			continue
		}
		f.update(found, members, bring)
	}
}

func (f *Fleet) lookUp(ctx context.Context) ([]tritonclient.Endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.ResolveEvery)
	defer cancel()
	return f.cfg.Endpoints.Resolve(ctx)
}

// update lets servers go that are not among those found, and brings new ones.
func (f *Fleet) update(found []tritonclient.Endpoint, members Members, bring func(*server)) {
	f.mu.Lock()
	var stay, gone []*server
	for _, s := range f.servers {
		if slices.ContainsFunc(found, func(e tritonclient.Endpoint) bool { return e.Target == s.name }) {
			stay = append(stay, s)
		} else {
			gone = append(gone, s)
		}
	}
	var fresh []*server
	for _, e := range found {
		if slices.ContainsFunc(stay, func(s *server) bool { return s.name == e.Target }) {
			continue
		}
		s, err := f.connect(e)
		if err != nil {
			f.log.Warn("a server cannot be used", "server", e.Target, "reason", err)
			continue
		}
		fresh = append(fresh, s)
	}
	f.servers = append(stay, fresh...)
	f.mu.Unlock()
	for _, s := range fresh {
		f.log.Info("a server was found", "server", s.name)
		bring(s)
	}
	for _, s := range gone {
		f.log.Info("a server is not there any more", "server", s.name)
		if s.cancel != nil {
			s.cancel()
			<-s.over
		}
		members.Leave(s.name)
		f.close(s)
	}
}

// bring waits until a server can be used and joins it to the others.
func (f *Fleet) bring(ctx context.Context, s *server, members Members) {
	said := ""
	for ctx.Err() == nil {
		rest := time.Second
		err := s.client.WaitModelReady(ctx, f.cfg.Model, f.cfg.Version, nil)
		waited := err == nil
		if waited {
			err = f.open(ctx, s)
		}
		if err == nil {
			if err = members.Join(orchestrator.Endpoint{Name: s.name, Model: s.model}); err == nil {
				f.log.Info("a server has joined", "server", s.name)
				return
			}
			f.mu.Lock()
			m := s.model
			s.model = nil
			f.mu.Unlock()
			m.Close()
			rest = leftOutPause
		}
		if me, ok := errors.AsType[*orchestrator.ModelError](err); ok && me.Action == orchestrator.ActionStop || !waited {
			rest = leftOutPause
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			f.log.Warn("a server is left out", "server", s.name, "reason", said)
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
		}
	}
}

func (f *Fleet) close(s *server) {
	f.mu.Lock()
	m := s.model
	f.mu.Unlock()
	if m != nil {
		m.Close()
	}
	s.client.Close()
}

// Close lets go of all servers, as Model.Close does of one. Nobody uses them any
// more, and Follow has returned. It is idempotent.
func (f *Fleet) Close() error {
	for _, s := range f.servers {
		f.close(s)
	}
	return nil
}
