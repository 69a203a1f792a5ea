package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
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
			&cli.StringSliceFlag{Name: "include", EnvVars: []string{"QUIRE_INCLUDE"}, Usage: "take files that match `GLOB`, such as '*.{pdf,png,epub}'; may be given several times", DefaultText: "*.pdf in any case"},
			&cli.StringSliceFlag{Name: "exclude", EnvVars: []string{"QUIRE_EXCLUDE"}, Usage: "leave out files and directories that match `GLOB`; may be given several times"},
			&cli.StringFlag{Name: "password-file", EnvVars: []string{"QUIRE_PASSWORD_FILE"}, Usage: "try the passwords in `FILE`, one a line, on encrypted documents"},
			&cli.Float64Flag{Name: "threshold", EnvVars: []string{"QUIRE_THRESHOLD"}, Usage: "keep regions that score above `SCORE`, 0 to 1", DefaultText: "what the served config says, 0.5"},
			&cli.IntFlag{Name: "workers", EnvVars: []string{"QUIRE_WORKERS"}, Usage: "draw `N` pages at once", DefaultText: "the CPUs of this machine"},
			&cli.IntFlag{Name: "batch", EnvVars: []string{"QUIRE_BATCH"}, Usage: "send at most `N` pages in a request", DefaultText: "quire.batch, else max_batch_size of the served config"},
			&cli.IntFlag{Name: "in-flight", EnvVars: []string{"QUIRE_IN_FLIGHT"}, Usage: "have at most `N` requests at the server", DefaultText: "quire.in_flight of the served config, else its instances + 1"},
			&cli.DurationFlag{Name: "max-age", EnvVars: []string{"QUIRE_MAX_AGE"}, Usage: "let the first page of a batch wait at most `TIME` for others; 0: not at all", DefaultText: "quire.max_age_ms of the served config, else 20ms"},
			&cli.DurationFlag{Name: "page-timeout", EnvVars: []string{"QUIRE_PAGE_TIMEOUT"}, Usage: "give a page up that takes longer than `TIME` to draw", Value: 30 * time.Second},
			&cli.BoolFlag{Name: "overlay", EnvVars: []string{"QUIRE_OVERLAY"}, Usage: "also write a picture of each page with its regions, OUT/….pdf.pages/0001.png"},
			logLevelFlag(),
		},
		Action: func(c *cli.Context) error { return run(c, stop) },
	}
}

// run does the main job.
func run(c *cli.Context, stop stops) (err error) {
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	cfg, err := runConfigOf(c)
	if err != nil {
		return usageError{err}
	}
	screen := newScreen(c.App.ErrWriter)
	defer screen.close()
	log := newLogger(cfg.logLevel, screen)

	walker, err := walk.New(cfg.inputs, walk.Config{Include: cfg.include, Exclude: cfg.exclude, Output: cfg.output, Log: log})
	if err != nil {
		return usageError{err}
	}
	defer walker.Close()
	if empty(ctx, walker) {
		return usageError{fmt.Errorf("no PDF found in %s: check the path, or --include", strings.Join(cfg.inputs, ", "))}
	}

	// Before there is a page to finish, a soft stop is a stop.
	go func() {
		select {
		case <-stop.hard:
			cancel(orchestrator.ErrInterrupted)
		case <-ctx.Done():
		}
	}()
	setup, endSetup := context.WithCancelCause(ctx)
	defer endSetup(nil)
	go func() {
		select {
		case <-stop.soft:
			endSetup(orchestrator.ErrInterrupted)
		case <-setup.Done():
		}
	}()

	g, err := guard.Start(setup, guard.Config{})
	if err != nil {
		return interruptedOr(setup, fmt.Errorf("start the guard process: %w", err))
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	served, err := connect(setup, cfg, g, screen, log)
	if err != nil {
		return interruptedOr(setup, err)
	}
	defer served.close()

	tree, err := sink.Open(sink.Config{
		Dir: cfg.output, Tool: "quire", ToolVersion: version, Model: served.model.Info(),
		Options: map[string]any{"threshold": served.model.Contract().ScoreThreshold},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()

	pool := render.New(render.Config{
		Guard: g, PageTimeout: cfg.pageTimeout, Passwords: cfg.passwords, Nice: workerNice, Logger: log,
		OtherFormats: cfg.otherFormats(),
	})
	detector, err := orchestrator.New(orchestrator.Config{
		Renderer: pool,
		Model:    served.model, Batch: cfg.batch, InFlight: cfg.inFlight, MaxAge: cfg.maxAge, Workers: cfg.workers,
		SharedMemoryPrefix: g.ShmPrefix(), Logger: log,
	})
	if err != nil {
		return usageError{err}
	}
	defer detector.Close()
	screen.say(describe(detector, served))

	var results orchestrator.Sink = tree
	var pictures *overlay
	if cfg.overlay {
		pictures = newOverlay(ctx, stop.soft, tree, pool, max(1, detector.Settings().Workers/2))
		results = pictures
	}

	var progress orchestrator.Progress
	follow := screen.follow(ctx, detector, &progress, walker.Count)
	summary, runErr := detector.Run(ctx, orchestrator.Job{Source: walker, Sink: results, Stop: stop.soft, Progress: &progress})
	follow()
	if pictures != nil {
		if err := pictures.finish(); runErr == nil {
			runErr = err
		}
	}
	if err := tree.Finish(); err != nil {
		runErr = errors.Join(runErr, err)
	}
	fmt.Fprintln(c.App.Writer, lastLine(summary, cfg.output))
	switch {
	case runErr != nil:
		return runErr
	case summary.Documents.Failed+summary.Documents.Partial > 0:
		return quietError{exitSomeFailed}
	}
	return nil
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

func empty(ctx context.Context, w *walk.Walker) bool {
	for range w.Documents(ctx) {
		return false
	}
	return true
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

// runConfig is the command line, checked.
type runConfig struct {
	inputs, include, exclude []string
	output                   string
	triton, repository       string
	passwords                []string
	threshold                float64 // as layout.Config has it
	workers, batch, inFlight int
	maxAge, pageTimeout      time.Duration
	overlay                  bool
	logLevel                 string
}

// otherFormats tells whether somebody asked for files of any name, with
// --include or by naming one: then those that are not called PDF are opened as
// what they are called.
func (c runConfig) otherFormats() bool {
	return len(c.include) > 0 || slices.ContainsFunc(c.inputs, func(in string) bool {
		info, err := os.Stat(in)
		return err == nil && !info.IsDir()
	})
}

func runConfigOf(c *cli.Context) (runConfig, error) {
	cfg := runConfig{
		inputs: c.Args().Slice(), include: c.StringSlice("include"), exclude: c.StringSlice("exclude"),
		output: c.String("output"), triton: c.String("triton"), repository: c.String("model-repository"),
		workers: c.Int("workers"), batch: c.Int("batch"), inFlight: c.Int("in-flight"),
		maxAge: c.Duration("max-age"), pageTimeout: c.Duration("page-timeout"),
		threshold: c.Float64("threshold"), logLevel: c.String("log-level"), overlay: c.Bool("overlay"),
	}
	if len(cfg.inputs) == 0 {
		return cfg, errors.New("no input: quire run DIR… -o OUT")
	}
	if cfg.output == "" {
		return cfg, errors.New("no output directory: add -o OUT")
	}
	for _, name := range []string{"workers", "batch", "in-flight"} {
		if n := c.Int(name); c.IsSet(name) && n < 1 {
			return cfg, fmt.Errorf("--%s %d: it must be at least 1", name, n)
		}
	}
	if cfg.pageTimeout <= 0 {
		return cfg, fmt.Errorf("--page-timeout %v: it must be above 0", cfg.pageTimeout)
	}
	// On the command line 0 means 0; in a Config that is what a negative
	// number says.
	if c.IsSet("max-age") {
		if cfg.maxAge < 0 {
			return cfg, fmt.Errorf("--max-age %v: it must not be negative", cfg.maxAge)
		}
		if cfg.maxAge == 0 {
			cfg.maxAge = -1
		}
	}
	if c.IsSet("threshold") {
		if cfg.threshold < 0 || cfg.threshold >= 1 {
			return cfg, fmt.Errorf("--threshold %v: it must be at least 0 and below 1", cfg.threshold)
		}
		if cfg.threshold == 0 {
			cfg.threshold = -1
		}
	}
	if cfg.triton != "" && cfg.repository != "" {
		return cfg, errors.New("--triton and --model-repository contradict each other: the server at --triton has a repository of its own")
	}
	if !validLogLevel(cfg.logLevel) {
		return cfg, fmt.Errorf("--log-level %s: it is debug, info, warn or error", cfg.logLevel)
	}
	if name := c.String("password-file"); name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			return cfg, fmt.Errorf("--password-file: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				cfg.passwords = append(cfg.passwords, line)
			}
		}
	}
	return cfg, nil
}
