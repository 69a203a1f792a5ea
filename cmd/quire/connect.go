package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"quire/orchestrator/layout"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
	"quire/tritonclient/guard"
)

// served is a model that is ready, and what has to be closed for it.
type served struct {
	model  *layout.Model
	where  string
	client *tritonclient.Client
	server *embedded.Server // nil with --triton
}

func (s *served) close() {
	if s.model != nil {
		s.model.Close()
	}
	if s.client != nil {
		s.client.Close()
	}
	if s.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.server.Stop(ctx)
	}
}

// connect finds or starts a server and reads its model's contract.
func connect(ctx context.Context, cfg runConfig, g *guard.Guard, screen *screen, log *slog.Logger) (_ *served, err error) {
	s := &served{where: cfg.triton}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if cfg.triton == "" {
		if s.server, err = startEmbedded(ctx, cfg.repository, g, screen); err != nil {
			return nil, serverError{err}
		}
		s.where = s.server.Addr() + " (started by quire)"
		cfg.triton = s.server.Addr()
	}
	if s.client, err = tritonclient.New(cfg.triton, tritonclient.Config{}); err != nil {
		return nil, usageError{fmt.Errorf("--triton: %w", err)}
	}
	s.model, err = layout.Open(ctx, s.client, layout.Config{
		ScoreThreshold: cfg.threshold, SharedMemoryPrefix: g.ShmPrefix(), Log: log,
	})
	if err != nil {
		return nil, serverError{err}
	}
	return s, nil
}

// startEmbedded starts a server of quire's own, with everything that it needs.
func startEmbedded(ctx context.Context, repository string, g *guard.Guard, screen *screen) (*embedded.Server, error) {
	options := embedded.Options{Guard: g, Progress: screen.step}
	repository, err := findRepository(repository, options)
	if err != nil {
		return nil, err
	}
	if err := embedded.PrepareModel(ctx, options, repository); err != nil {
		return nil, err
	}
	screen.status("starting a Triton Inference Server on the CPU")
	return embedded.Start(ctx, embedded.Config{Options: options, ModelRepository: repository})
}

// findRepository returns the model repository to serve: the one that was named,
// else the one here, else a copy of the one inside this program.
func findRepository(named string, options embedded.Options) (string, error) {
	if named != "" {
		if info, err := os.Stat(named); err != nil || !info.IsDir() {
			return "", fmt.Errorf("--model-repository %s: no such directory", named)
		}
		return named, nil
	}
	if info, err := os.Stat("model_repository/" + layout.DefaultModel); err == nil && info.IsDir() {
		return "model_repository", nil
	}
	return embedded.BundledRepository(options)
}
