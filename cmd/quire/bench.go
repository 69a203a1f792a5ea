package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	benchpages "quire/bench/pages"
	"quire/orchestrator"
	"quire/orchestrator/bench"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/walk"
	"quire/tritonclient/embedded"
	"quire/tritonclient/guard"
)

func benchCommand(stop stops) *cli.Command {
	return &cli.Command{
		Name:      "bench",
		Usage:     "tell where the time goes, against the limit of this machine",
		ArgsUsage: "[DIR|FILE…]",
		Description: "Measures rendering alone, the server alone and the whole, in turns, on a sample\n" +
			"of the documents or on quire's own, and prints what a page costs where, how\n" +
			"close the whole comes to what the machine can do, and what holds it up.\n" +
			"docs/bench.md explains each line. Keep the machine quiet meanwhile.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "model", EnvVars: []string{"QUIRE_MODEL"}, Value: string(bench.KindLayout), Usage: "measure with `MODEL`: layout; instant, which computes nothing and answers at once, as a fast GPU would; or gpu-like, which takes 6 ms a batch and 0.8 ms a page"},
		}, serverFlags(), connectionFlags(), []cli.Flag{transportFlag()}, inputFlags(), engineFlags(), []cli.Flag{
			&cli.IntFlag{Name: "pages", EnvVars: []string{"QUIRE_PAGES"}, Usage: "sample documents until they have `N` pages; a curve goes up to so many", DefaultText: "200, or 10000 for a curve"},
			&cli.IntFlag{Name: "repeat", EnvVars: []string{"QUIRE_REPEAT"}, Usage: "take at least `N` rounds, and print medians", Value: 5},
			&cli.DurationFlag{Name: "min-time", EnvVars: []string{"QUIRE_MIN_TIME"}, Usage: "measure for about `TIME` in each window; a round has three", Value: 5 * time.Second},
			&cli.DurationFlag{Name: "budget", EnvVars: []string{"QUIRE_BUDGET"}, Usage: "take more rounds until three agree, for at most `TIME`", Value: 3 * time.Minute},
			&cli.StringFlag{Name: "perf-analyzer", EnvVars: []string{"QUIRE_PERF_ANALYZER"}, Usage: "also ask NVIDIA's perf_analyzer, the program in `FILE`, what the server does alone", DefaultText: "it is not asked"},
			&cli.BoolFlag{Name: "curve", EnvVars: []string{"QUIRE_CURVE"}, Usage: "measure instead what cost and memory do as documents and pages become more; with documents of its own, and with the instant model unless --model names another"},
			&cli.BoolFlag{Name: "json", EnvVars: []string{"QUIRE_JSON"}, Usage: "print one JSON object (docs/bench.md)"},
			logLevelFlag(),
		}),
		Action: func(c *cli.Context) error {
			err := benchRun(c, stop)
			if errors.Is(err, orchestrator.ErrInterrupted) {
				return interruption{"what was measured until then is not told, for it is not the whole"}
			}
			return err
		},
	}
}

// What a model that behaves like a GPU takes for a batch, and for each page of
// it.
const (
	gpuLikeBatch = 6 * time.Millisecond
	gpuLikePage  = 800 * time.Microsecond
)

// benchConfig is the command line, checked.
type benchConfig struct {
	inputs
	engineChoice
	server          serverChoice
	kind            bench.Kind
	pages, repeat   int
	minTime, budget time.Duration
	perfAnalyzer    string
	curve, json     bool
	logLevel        slog.Level
}

// benchConfigOf reads the command line. own is where quire's own documents are,
// for want of others.
func benchConfigOf(c *cli.Context, own string) (benchConfig, error) {
	cfg := benchConfig{
		kind: bench.Kind(c.String("model")), pages: c.Int("pages"), repeat: c.Int("repeat"),
		minTime: c.Duration("min-time"), budget: c.Duration("budget"), perfAnalyzer: c.String("perf-analyzer"), curve: c.Bool("curve"), json: c.Bool("json"),
	}
	paths := c.Args().Slice()
	if cfg.curve {
		if len(paths) > 0 {
			return cfg, errors.New("--curve makes its own documents: leave DIR out")
		}
		if !c.IsSet("model") && !c.IsSet("triton") && !c.IsSet("model-repository") {
			cfg.kind = bench.KindInstant
		}
	}
	if len(paths) == 0 {
		paths = []string{own}
	}
	var err error
	if cfg.inputs, err = inputsFrom(c, paths); err != nil {
		return cfg, err
	}
	if cfg.engineChoice, err = engineChoiceOf(c); err != nil {
		return cfg, err
	}
	if cfg.server, err = serverChoiceOf(c); err != nil {
		return cfg, err
	}
	if err := cfg.server.single("bench"); err != nil {
		return cfg, err
	}
	switch cfg.kind {
	case bench.KindLayout:
	case bench.KindInstant, bench.KindGPULike:
		if cfg.server.triton != "" || cfg.server.repository != "" {
			return cfg, fmt.Errorf("--model %s is quire's own: leave --triton and --model-repository out", cfg.kind)
		}
	default:
		return cfg, fmt.Errorf("--model %s: it is layout, instant or gpu-like", cfg.kind)
	}
	for _, name := range []string{"pages", "repeat"} {
		if n := c.Int(name); c.IsSet(name) && n < 1 {
			return cfg, fmt.Errorf("--%s %d: it must be at least 1", name, n)
		}
	}
	if cfg.minTime <= 0 {
		return cfg, fmt.Errorf("--min-time %v: it must be above 0", cfg.minTime)
	}
	if cfg.budget < 0 {
		return cfg, fmt.Errorf("--budget %v: it must not be negative", cfg.budget)
	}
	if cfg.perfAnalyzer != "" {
		if cfg.server.connection.TLS != nil || cfg.server.connection.Headers != nil {
			return cfg, errors.New("--perf-analyzer: it is not told how to connect with --tls or --triton-header: leave it out")
		}
		if cfg.perfAnalyzer, err = exec.LookPath(cfg.perfAnalyzer); err != nil {
			return cfg, fmt.Errorf("--perf-analyzer: %w", err)
		}
	}
	if cfg.budget == 0 {
		cfg.budget = -1
	}
	cfg.logLevel, err = logLevelOf(c)
	return cfg, err
}

func benchRun(c *cli.Context, stop stops) (err error) {
	scratch, err := scratchDirectory("bench")
	if err != nil {
		return err
	}
	defer func() { err = join(err, os.RemoveAll(scratch)) }()
	own := filepath.Join(scratch, "samples")
	cfg, err := benchConfigOf(c, own)
	if err != nil {
		return usageError{err}
	}
	if slices.Contains(cfg.paths, own) {
		if err := os.CopyFS(own, benchpages.Files); err != nil {
			return err
		}
	}
	screen := newScreen(c.App.ErrWriter)
	defer screen.hide()
	log := newLogger(cfg.logLevel, screen)
	ctx, cancel := untilStopped(c.Context, stop.soft)
	defer cancel(nil)

	walker, err := cfg.walker(ctx, walk.Config{Log: log})
	if err != nil {
		return err
	}
	defer walker.Close()
	g, err := startGuard(ctx)
	if err != nil {
		return err
	}
	defer func() { err = join(err, g.Close()) }()
	s, err := connectBench(ctx, cfg, g, screen, log)
	if err != nil {
		return interruptedOr(ctx, err)
	}
	defer s.close()
	s.supervise(ctx, g, nil, cancel, log)
	defer s.endServer()

	pool := render.New(cfg.rendering(g, log))
	what := bench.Config{
		Engine: orchestrator.Config{
			Renderer: pool, Model: s.model, Batch: cfg.batch, InFlight: cfg.inFlight, MaxAge: cfg.maxAge, Workers: cfg.workers,
			SharedMemoryPrefix: g.ShmPrefix(), Logger: log,
		},
		Kind: cfg.kind, Client: s.client, Where: s.where, Near: s.maybeHere(), ToolVersion: version,
		MuPDF:  func() time.Duration { return pool.Stats().CPU },
		Source: walker, Pages: cfg.pages, Results: benchResults(ctx, scratch, s.model.Info()),
		Repeat: cfg.repeat, MinTime: cfg.minTime, Budget: cfg.budget, PerfAnalyzer: cfg.perfAnalyzer,
		Progress: func(text string) { screen.doing("measuring: " + text) },
	}
	if s.server != nil {
		what.Server = s.server.Pid
	}
	var result interface{ Text(io.Writer) error }
	if cfg.curve {
		result, err = benchCurve(ctx, what, scratch, own, log)
	} else {
		result, err = bench.Run(ctx, what)
	}
	screen.hide()
	if err != nil {
		return interruptedOr(ctx, err)
	}
	if cfg.json {
		e := json.NewEncoder(c.App.Writer)
		e.SetIndent("", "  ")
		return e.Encode(result)
	}
	return result.Text(c.App.Writer)
}

// benchCurve measures what becomes of cost and memory as there is more to do.
func benchCurve(ctx context.Context, what bench.Config, scratch, own string, log *slog.Logger) (*bench.CurveResult, error) {
	dir := filepath.Join(scratch, "curve")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(own, "*.pdf"))
	if err != nil {
		return nil, err
	}
	return bench.Curve(ctx, bench.CurveConfig{
		Config: what, Dir: dir, Samples: names,
		Walk: func(path string) (orchestrator.Source, func() error, error) {
			w, err := walk.New([]string{path}, walk.Config{Log: log})
			if err != nil {
				return nil, nil, err
			}
			return w, w.Close, nil
		},
	})
}

// connectBench is connect, with the model that was asked for.
func connectBench(ctx context.Context, cfg benchConfig, g *guard.Guard, screen *screen, log *slog.Logger) (*served, error) {
	if cfg.kind != bench.KindLayout {
		var perBatch, perPage time.Duration
		if cfg.kind == bench.KindGPULike {
			perBatch, perPage = gpuLikeBatch, gpuLikePage
		}
		var err error
		if cfg.server.repository, err = embedded.BenchRepository(embedded.Options{Guard: g}, perBatch, perPage); err != nil {
			return nil, serverError{err}
		}
	}
	return connect(ctx, cfg.server, 0, g, screen, log)
}

// scratchDirectory makes a directory for what a command needs while it runs.
func scratchDirectory(command string) (string, error) {
	dir, err := os.MkdirTemp("", "quire-"+command+"-")
	if err != nil {
		return "", fmt.Errorf("%w: name another directory for temporary files with TMPDIR", err)
	}
	return dir, nil
}

// benchResults writes the results of each run below dir, as quire run does, into
// a directory of its own. They stay until all is over: removing them is no part
// of a run.
func benchResults(ctx context.Context, dir string, model orchestrator.ModelInfo) bench.Results {
	n := 0
	return func() (orchestrator.Sink, func(context.Context, orchestrator.Summary, error) error, error) {
		n++
		tree, err := sink.Open(sink.Config{Dir: filepath.Join(dir, fmt.Sprintf("results-%d", n)), Tool: "quire", ToolVersion: version})
		if err != nil {
			return nil, nil, err
		}
		if err := tree.Start(ctx, model, nil); err != nil {
			return nil, nil, errors.Join(err, tree.Close())
		}
		return tree, func(ctx context.Context, s orchestrator.Summary, err error) error {
			_, err = tree.Finish(ctx, s, err, nil)
			return errors.Join(err, tree.Close())
		}, nil
	}
}
