package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
	"quire/tritonclient/guard"
)

// served is a model that is ready, on one server or several, and what has to be
// closed for it.
type served struct {
	fleet       *layout.Fleet
	model       *layout.Model        // of the first server
	client      *tritonclient.Client // of the first server
	where       string
	server      *embedded.Server // nil with --triton
	repository  string           // that the server of quire's own serves
	unsupervise func()           // nil when nobody supervises the server
}

// endServer ends the server if quire has started it. It is killed: it holds
// nothing that would be lost, and takes seconds to end by itself.
func (s *served) endServer() {
	if s.unsupervise != nil {
		s.unsupervise()
	}
	if s.server != nil {
		_ = s.server.Kill() // what is left of it goes with the guard
	}
}

// close lets go of everything. It is idempotent.
func (s *served) close() {
	s.endServer()
	if s.fleet != nil {
		s.fleet.Close()
	}
}

// follow has servers join the detector and leave it until the function that it
// returns is called.
func (s *served) follow(ctx context.Context, d *orchestrator.Detector) (stop func()) {
	return background(ctx, func(ctx context.Context) { s.fleet.Follow(ctx, d) })
}

// connect finds servers or starts one and reads the model's contract; threshold
// is as layout.Config has it.
func connect(ctx context.Context, choice serverChoice, threshold float64, g *guard.Guard, screen *screen, log *slog.Logger) (_ *served, err error) {
	s := &served{where: choice.triton}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if choice.triton == "" {
		if s.server, s.repository, err = startEmbedded(ctx, choice.repository, g, screen); err != nil {
			return nil, serverError{err}
		}
		s.where = s.server.Addr() + " (started by quire)"
		if choice.endpoints, err = tritonclient.ParseEndpoints(s.server.Addr()); err != nil {
			return nil, err
		}
	}
	s.fleet, err = layout.OpenFleet(ctx, layout.FleetConfig{
		Config:    layout.Config{ScoreThreshold: threshold, Transport: choice.transport, SharedMemoryPrefix: g.ShmPrefix(), Log: log},
		Endpoints: choice.endpoints, Connection: choice.connection,
	})
	if err != nil {
		return nil, serverError{err}
	}
	first := s.fleet.Servers()[0]
	s.model, s.client = first.Model, first.Client
	return s, nil
}

// maybeHere tells whether a server that quire has not started may run on this
// machine: it maps memory of this machine, or its address is loopback, which may
// also be the near end of a tunnel.
func (s *served) maybeHere() bool {
	if s.server != nil {
		return false
	}
	host, _, _ := net.SplitHostPort(s.where)
	return s.model.Input().SharedMemory || host == "localhost" || net.ParseIP(host).IsLoopback()
}

// supervise keeps the server that quire has started alive until close, and
// calls giveUp when it cannot; done counts the work that the server has done, and
// may be nil.
func (s *served) supervise(ctx context.Context, g *guard.Guard, done func() int64, giveUp func(error), log *slog.Logger) {
	if s.server == nil {
		return
	}
	s.unsupervise = background(ctx, func(ctx context.Context) {
		err := s.server.Supervise(ctx, log, done)
		switch {
		case err != nil && g.Err() == nil:
			giveUp(serverError{err})
		case err != nil:
			giveUp(err)
		}
	})
}

// startGuard starts the process that is the parent of all others.
func startGuard(ctx context.Context) (*guard.Guard, error) {
	g, err := guard.Start(ctx, guard.Config{})
	if err != nil {
		return nil, interruptedOr(ctx, fmt.Errorf("start the guard process: %w", err))
	}
	return g, nil
}

// startEmbedded starts a server of quire's own, with everything that it needs.
func startEmbedded(ctx context.Context, named string, g *guard.Guard, screen *screen) (_ *embedded.Server, repository string, err error) {
	options := embedded.Options{Guard: g, Progress: screen.step}
	if repository, err = findRepository(named, options); err != nil {
		return nil, "", err
	}
	if err := embedded.PrepareModel(ctx, options, repository); err != nil {
		return nil, "", err
	}
	screen.doing("starting a Triton Inference Server on the CPU")
	server, err := embedded.Start(ctx, embedded.Config{Options: options, ModelRepository: repository})
	return server, repository, err
}

// info names the model that answers. Of one that quire serves itself it knows
// the content too.
func (s *served) info() (orchestrator.ModelInfo, error) {
	info := s.model.Info()
	if s.repository == "" || info.Digest != "" {
		return info, nil
	}
	digest, err := contentOf(os.DirFS(filepath.Join(s.repository, info.Name, info.Version)))
	if err != nil {
		return info, fmt.Errorf("read the model: %w", err)
	}
	info.Digest = digest
	return info, nil
}

// contentOf is a digest of a model's files, but not of what those who serve or
// write it leave beside them: compiled Python, and files that are not whole yet,
// whose names begin with a dot.
func contentOf(files fs.FS) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != "." && (e.Name() == "__pycache__" || strings.HasPrefix(e.Name(), ".")) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		f, err := files.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		size := int64(0)
		if info, err := f.Stat(); err == nil {
			size = info.Size()
		}
		fmt.Fprintf(h, "%q %d\n", path, size)
		_, err = io.Copy(h, f)
		return err
	})
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), err
}

// findRepository returns the model repository to serve: the one that was named,
// else the one here, else a copy of the one inside this program.
func findRepository(named string, options embedded.Options) (string, error) {
	if named != "" {
		return named, nil
	}
	if info, err := os.Stat("model_repository/" + layout.DefaultModel); err == nil && info.IsDir() {
		return "model_repository", nil
	}
	return embedded.BundledRepository(options)
}
