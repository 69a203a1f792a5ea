package main

import (
	"context"
	"errors"
	"fmt"

	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"quire/orchestrator"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/walk"
	"quire/tritonclient/guard"
)

func runCommand(stop stops) *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "find the layout of every page of the PDFs in directories",
		ArgsUsage: "DIR|FILE…",
		Description: "Writes one JSON file of regions for each document into the output directory,\n" +
			"which mirrors the input, and failed.jsonl for what failed. Every flag can be\n" +
			"set by the environment variable beside it; the flag wins.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, EnvVars: []string{"QUIRE_OUTPUT"}, Usage: "write results into `DIR` (required)"},
			&cli.StringFlag{Name: "triton", EnvVars: []string{"QUIRE_TRITON"}, Usage: "use the server at `HOST:PORT` (its gRPC port)", DefaultText: "start one on the CPU"},
			&cli.StringFlag{Name: "model-repository", EnvVars: []string{"QUIRE_MODEL_REPOSITORY"}, Usage: "serve the models in `DIR` with the server that quire starts", DefaultText: "./model_repository if it is there, else quire's own copy"},
			&cli.StringSliceFlag{Name: "include", EnvVars: []string{"QUIRE_INCLUDE"}, Usage: "take files that match `GLOB`; may be given several times", DefaultText: "*.pdf in any case"},
			&cli.StringSliceFlag{Name: "exclude", EnvVars: []string{"QUIRE_EXCLUDE"}, Usage: "leave out files and directories that match `GLOB`; may be given several times"},
			&cli.StringFlag{Name: "password-file", EnvVars: []string{"QUIRE_PASSWORD_FILE"}, Usage: "try the passwords in `FILE`, one a line, on encrypted documents"},
			&cli.Float64Flag{Name: "threshold", EnvVars: []string{"QUIRE_THRESHOLD"}, Usage: "keep regions that score above `SCORE`, 0 to 1", DefaultText: "what the served config says, 0.5"},
			&cli.IntFlag{Name: "workers", EnvVars: []string{"QUIRE_WORKERS"}, Usage: "draw `N` pages at once", DefaultText: "the CPUs of this machine"},
			&cli.IntFlag{Name: "batch", EnvVars: []string{"QUIRE_BATCH"}, Usage: "send at most `N` pages in a request", DefaultText: "quire.batch, else max_batch_size of the served config"},
			&cli.IntFlag{Name: "in-flight", EnvVars: []string{"QUIRE_IN_FLIGHT"}, Usage: "have at most `N` requests at the server", DefaultText: "quire.in_flight of the served config, else its instances + 1"},
			&cli.DurationFlag{Name: "max-age", EnvVars: []string{"QUIRE_MAX_AGE"}, Usage: "let the first page of a batch wait at most `TIME` for others; 0: not at all", DefaultText: "quire.max_age_ms of the served config, else 20ms"},
			&cli.DurationFlag{Name: "page-timeout", EnvVars: []string{"QUIRE_PAGE_TIMEOUT"}, Usage: "give a page up that takes longer than `TIME` to draw", Value: 30 * time.Second},
			logLevelFlag(),
		},
		Action: func(c *cli.Context) error { return run(c, stop) },
	}
}

// run does the main job.
func run(c *cli.Context, stop stops) (err error) {
	cfg, err := runConfigOf(c)
	if err != nil {
		return usageError{err}
	}
	screen := newScreen(c.App.ErrWriter)
	defer screen.hide()
	log := newLogger(cfg.logLevel, screen)

	// ctx ends at a hard stop, setup at a soft one: before there is a page to
	// finish, every stop is a hard one.
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	setup, endSetup := context.WithCancelCause(ctx)
	defer endSetup(nil)
	go onStop(ctx, stop.hard, func() { cancel(orchestrator.ErrInterrupted) })
	go onStop(setup, stop.soft, func() { endSetup(orchestrator.ErrInterrupted) })

	walker, err := walk.New(cfg.inputs, walk.Config{Include: cfg.include, Exclude: cfg.exclude, Output: cfg.output, Log: log})
	if err != nil {
		return usageError{err}
	}
	defer walker.Close()
	if walker.Empty(setup) {
		return interruptedOr(setup, usageError{fmt.Errorf("no PDF found in %s: check the path, or --include", strings.Join(cfg.inputs, ", "))})
	}

	g, err := guard.Start(setup, guard.Config{})
	if err != nil {
		return interruptedOr(setup, fmt.Errorf("start the guard process: %w", err))
	}
	defer func() { err = join(err, g.Close()) }()
	served, err := connect(setup, cfg, g, screen, log)
	if err != nil {
		return interruptedOr(setup, err)
	}
	defer served.close()
	served.supervise(ctx, g, cancel, log)

	tree, err := sink.Open(sink.Config{
		Dir: cfg.output, Tool: "quire", ToolVersion: version, Model: served.model.Info(),
		Options: map[string]any{"threshold": served.model.Contract().ScoreThreshold},
	})
	if err != nil {
		return err
	}
	defer func() { err = join(err, tree.Close()) }()

	detector, err := orchestrator.New(orchestrator.Config{
		Renderer: render.New(render.Config{Guard: g, PageTimeout: cfg.pageTimeout, Passwords: cfg.passwords, Nice: workerNice, Logger: log}),
		Model:    served.model, Batch: cfg.batch, InFlight: cfg.inFlight, MaxAge: cfg.maxAge, Workers: cfg.workers,
		SharedMemoryPrefix: g.ShmPrefix(), Logger: log,
	})
	if err != nil {
		return usageError{err}
	}
	defer detector.Close()
	// Before the detector takes its memory back from it, which a server that
	// hangs would hold up.
	defer served.endServer()
	screen.say(describe(detector, served))

	var progress orchestrator.Progress
	unfollow := follow(ctx, screen, progress.Now, detector.Stats, walker.Count)
	go onStop(ctx, stop.soft, func() { screen.say("stopping: finishing the pages that are drawn; interrupt again to end at once") })
	summary, runErr := detector.Run(ctx, orchestrator.Job{Source: walker, Sink: tree, Stop: stop.soft, Progress: &progress})
	runErr = join(runErr, tree.Finish())
	unfollow()
	fmt.Fprintln(c.App.Writer, lastLine(summary, cfg.output))
	switch {
	case runErr != nil:
		return runErr
	case summary.Documents.Failed+summary.Documents.Partial > 0:
		return quietError{exitSomeFailed}
	}
	return nil
}

// onStop calls do when stop is closed before ctx ends.
func onStop(ctx context.Context, stop <-chan struct{}, do func()) {
	select {
	case <-stop:
		do()
	case <-ctx.Done():
	}
}

// join adds to an error what went wrong while tidying up, unless that is the
// same thing.
func join(err, more error) error {
	if more == nil || errors.Is(err, more) {
		return err
	}
	return errors.Join(err, more)
}

// workerNice keeps this program's own goroutines ahead of its workers, as the
// embedded server is.
const workerNice = 10

// interruptedOr is err, unless the reason for it is that somebody said stop.
func interruptedOr(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), orchestrator.ErrInterrupted) {
		return orchestrator.ErrInterrupted
	}
	return err
}

// describe says what will happen with how much of everything.
func describe(d *orchestrator.Detector, s *served) string {
	cfg, how := d.Settings(), "in the requests"
	if s.model.Input().SharedMemory {
		how = "in shared memory"
	}
	age := cfg.MaxAge.String()
	if cfg.MaxAge < 0 {
		age = "0s"
	}
	info := s.model.Info()
	return fmt.Sprintf("model %s version %s at %s; %d workers, batches up to %d pages, %s old, %d in flight; page buffers %.1f MB %s",
		info.Name, info.Version, s.where, cfg.Workers, cfg.Batch, age, cfg.InFlight, float64(d.MemoryBound())/1e6, how)
}

// lastLine is the account of a run; its numbers add up.
func lastLine(s orchestrator.Summary, output string) string {
	d, p := s.Documents, s.Pages
	var b strings.Builder
	fmt.Fprintf(&b, "documents: %d = %d done + %d partial + %d failed + %d skipped", d.Ended(), d.Done, d.Partial, d.Failed, d.Skipped)
	if d.Cancelled > 0 {
		fmt.Fprintf(&b, " + %d cancelled", d.Cancelled)
	}
	fmt.Fprintf(&b, "; pages: %d = %d done + %d failed + %d skipped + %d cancelled", p.Ended(), p.Done, p.Failed, p.Skipped, p.Cancelled)
	fmt.Fprintf(&b, "; %s", s.Elapsed.Round(100*time.Millisecond))
	if seconds := s.Elapsed.Seconds(); seconds > 0 {
		fmt.Fprintf(&b, ", %.1f pages/s", float64(p.Done+p.Failed)/seconds)
	}
	fmt.Fprintf(&b, "; results in %s", output)
	return b.String()
}
