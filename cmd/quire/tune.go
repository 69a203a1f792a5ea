package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	samplefiles "quire/examples"
	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/tune"
	"quire/orchestrator/walk"
	"quire/tritonclient/guard"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/metrics"
	"quire/tritonclient/modelconfig"
)

func tuneCommand(stop stops) *cli.Command {
	return &cli.Command{
		Name:      "tune",
		Usage:     "measure batch settings on your pages, and write the best into the model's config",
		ArgsUsage: "[DIR|FILE…]",
		Description: "Draws a sample of the documents, or of quire's own, and tries largest batch,\n" +
			"instances and queue delay of the served model together with quire's batch, age\n" +
			"and requests in flight, live, by loading the model with other settings. Says\n" +
			"what limits, and prints what to change in the config; --write changes it. The\n" +
			"server is put back to what it was in any case. docs/tuning.md tells how to read\n" +
			"what it prints. Keep the server and this machine quiet meanwhile.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "triton", EnvVars: []string{"QUIRE_TRITON"}, Usage: "tune the model of the server at `HOST:PORT` (its gRPC port)", DefaultText: "start one on the CPU"},
			&cli.StringFlag{Name: "model-repository", EnvVars: []string{"QUIRE_MODEL_REPOSITORY"}, Usage: "the config to change is in `DIR`, which the server that quire starts serves", DefaultText: "./model_repository if it is there, else quire's own copy; none with --triton"},
			&cli.StringFlag{Name: "config-name", EnvVars: []string{"QUIRE_CONFIG_NAME"}, Usage: "change configs/`NAME`.pbtxt of the model, as the server's --model-config-name says", DefaultText: "cpu for the server that quire starts, else config.pbtxt"},
			&cli.BoolFlag{Name: "write", EnvVars: []string{"QUIRE_WRITE"}, Usage: "write the config, keeping a copy of the old one, and have the server load it"},
			&cli.StringFlag{Name: "objective", EnvVars: []string{"QUIRE_OBJECTIVE"}, Usage: "look for the most pages a second (throughput) or the lowest 99th percentile of a page at 80 % of what the server does now (latency): `WORD`", Value: "throughput"},
			&cli.DurationFlag{Name: "max-p99", EnvVars: []string{"QUIRE_MAX_P99"}, Usage: "choose nothing by which 1 % of the pages take longer than `TIME`, at the server's peak too", DefaultText: "no limit"},
			&cli.Float64Flag{Name: "max-gpu-mem", EnvVars: []string{"QUIRE_MAX_GPU_MEM"}, Usage: "choose nothing by which the server is seen to use more than `GB` of GPU memory", DefaultText: "no limit"},
			&cli.IntFlag{Name: "largest-batch", EnvVars: []string{"QUIRE_LARGEST_BATCH"}, Usage: "try batches of at most `N` pages", Value: 64},
			&cli.StringFlag{Name: "fields", EnvVars: []string{"QUIRE_FIELDS"}, Usage: "change only these `FIELDS`, separated by commas: max_batch, instances, delay, batch, max_age, in_flight", DefaultText: "all"},
			&cli.DurationFlag{Name: "budget", EnvVars: []string{"QUIRE_BUDGET"}, Usage: "measure for about `TIME`", Value: 10 * time.Minute},
			&cli.BoolFlag{Name: "server-only", EnvVars: []string{"QUIRE_SERVER_ONLY"}, Usage: "choose by the server alone, for one that several machines draw for"},
			&cli.BoolFlag{Name: "exhaustive", EnvVars: []string{"QUIRE_EXHAUSTIVE"}, Usage: "try every setting of a grid, which takes as long as it takes; to see what the search is worth"},
			&cli.StringFlag{Name: "metrics", EnvVars: []string{"QUIRE_METRICS"}, Usage: "read the use of the GPU from the server's metrics at `URL`", DefaultText: "http://HOST:8002/metrics with the host in --triton, if a GPU is in it"},
			&cli.StringFlag{Name: "html", EnvVars: []string{"QUIRE_HTML"}, Usage: "also write the report, with pictures, into `FILE`", DefaultText: "none"},
			&cli.BoolFlag{Name: "json", EnvVars: []string{"QUIRE_JSON"}, Usage: "print one JSON object (docs/tuning.md)"},
			&cli.IntFlag{Name: "workers", EnvVars: []string{"QUIRE_WORKERS"}, Usage: "draw `N` pages at once", DefaultText: "the CPUs of this machine"},
			transportFlag(),
		}, connectionFlags(), inputFlags(), []cli.Flag{logLevelFlag()}),
		Action: func(c *cli.Context) error { return tuneRun(c, stop) },
	}
}

// tuneConfig is the command line, checked.
type tuneConfig struct {
	inputs
	server                    serverChoice
	configName, html, metrics string
	search                    tune.Config
	budget                    time.Duration
	workers                   int
	write, serverOnly, json   bool
	logLevel                  slog.Level
}

// tuneConfigOf reads the command line. own is where quire's own documents are,
// for want of others.
func tuneConfigOf(c *cli.Context, own string) (tuneConfig, error) {
	cfg := tuneConfig{
		configName: c.String("config-name"), html: c.String("html"), metrics: c.String("metrics"), budget: c.Duration("budget"),
		workers: c.Int("workers"), write: c.Bool("write"), serverOnly: c.Bool("server-only"), json: c.Bool("json"),
	}
	paths := c.Args().Slice()
	if len(paths) == 0 {
		paths = []string{own}
	}
	var err error
	if cfg.inputs, err = inputsFrom(c, paths); err != nil {
		return cfg, err
	}
	if cfg.server, err = serverFlagsOf(c); err != nil {
		return cfg, err
	}
	if cfg.server.single("tune") != nil {
		return cfg, fmt.Errorf("--triton %s: tune one server, and give the others its config", cfg.server.triton)
	}
	s := &cfg.search
	if s.Objective, err = tune.ParseObjective(c.String("objective")); err != nil {
		return cfg, fmt.Errorf("--objective: %w", err)
	}
	if text := c.String("fields"); text != "" {
		if s.Fields, err = tune.ParseFields(text); err != nil {
			return cfg, fmt.Errorf("--fields: %w", err)
		}
	}
	s.Exhaustive = c.Bool("exhaustive")
	s.MaxP99, s.MaxGPUMemory, s.MaxBatch = c.Duration("max-p99"), int64(c.Float64("max-gpu-mem")*1e9), c.Int("largest-batch")
	switch {
	case cfg.budget < leastBudget:
		return cfg, fmt.Errorf("--budget %v: it must be at least %v", cfg.budget, leastBudget)
	case c.IsSet("workers") && cfg.workers < 1:
		return cfg, fmt.Errorf("--workers %d: it must be at least 1", cfg.workers)
	case s.MaxBatch < 1:
		return cfg, fmt.Errorf("--largest-batch %d: it must be at least 1", s.MaxBatch)
	case c.IsSet("max-p99") && s.MaxP99 <= 0:
		return cfg, fmt.Errorf("--max-p99 %v: it must be above 0", s.MaxP99)
	case c.IsSet("max-gpu-mem") && s.MaxGPUMemory <= 0:
		return cfg, fmt.Errorf("--max-gpu-mem %v: it must be above 0", c.Float64("max-gpu-mem"))
	case s.MaxGPUMemory > 0 && cfg.server.triton == "" && cfg.metrics == "":
		return cfg, errors.New("--max-gpu-mem needs the server's metrics, and the one that quire starts, on the CPU, has none: add --triton, or --metrics")
	case cfg.write && cfg.server.triton != "" && cfg.server.repository == "":
		return cfg, errors.New("--write needs --model-repository: the directory, as this machine sees it, that the server at --triton serves")
	}
	cfg.logLevel, err = logLevelOf(c)
	return cfg, err
}

// exhaustiveTime is more than any grid takes.
const exhaustiveTime = 24 * time.Hour

// lasts is how long the search will not take longer than, for others to know by
// when it has ended. Every setting of a grid takes as long as it takes.
func (c tuneConfig) lasts() time.Duration {
	if c.search.Exhaustive {
		return max(c.budget, exhaustiveTime)
	}
	return c.budget
}

// file is the config to change.
func (c tuneConfig) file() (*modelconfig.File, error) {
	f, err := modelconfig.Open(c.server.repository, layout.DefaultModel, c.configName)
	if err == nil {
		return f, nil
	}
	err = fmt.Errorf("the config to change: %w", err)
	if c.configName == "" && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: if the server was started with --model-config-name, give that name with --config-name", err)
	}
	return nil, err
}

// isServed refuses a file that is not what the server has the config from. A
// server fills in what a file does not say.
func isServed(f *modelconfig.File, served *inferencepb.ModelConfig) error {
	says, serves := f.Config().GetMaxBatchSize(), served.GetMaxBatchSize()
	if says == serves || says == 0 {
		return nil
	}
	return fmt.Errorf("%s says max_batch_size %d, and the server serves with %d: if it was started with --model-config-name, give that name with --config-name; else have it load that file first",
		f.Path(), says, serves)
}

const (
	leastBudget = 10 * time.Second
	// A measurement should count for so long; what it takes beside that is for
	// loading the model and warming up.
	longestWindow, shortestWindow = 10 * time.Second, 300 * time.Millisecond
	windowShare                   = 0.5
	// restoreTime is how long putting a server back may take: a model may build
	// engines while it loads.
	restoreTime = 10 * time.Minute
)

func tuneRun(c *cli.Context, stop stops) (err error) {
	scratch, err := scratchDirectory("tune")
	if err != nil {
		return err
	}
	defer func() { err = join(err, os.RemoveAll(scratch)) }()
	own := filepath.Join(scratch, "samples")
	cfg, err := tuneConfigOf(c, own)
	if err != nil {
		return usageError{err}
	}
	if slices.Contains(cfg.paths, own) {
		if err := os.CopyFS(own, samplefiles.Files); err != nil {
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
	s, err := connect(ctx, cfg.server, 0, g, screen, log)
	if err != nil {
		return interruptedOr(ctx, err)
	}
	if s.server != nil {
		cfg.server.repository, cfg.configName = s.repository, cmp.Or(cfg.configName, "cpu")
	}
	defer s.close()
	if cfg.server.repository != "" {
		// Better said now than after ten minutes.
		if _, err := cfg.file(); err != nil {
			return usageError{err}
		}
	}
	s.supervise(ctx, g, nil, cancel, log)
	defer s.endServer()

	t := &tuning{cfg: cfg, served: s, screen: screen, log: log, guard: g, hard: stop.hard}
	report, err := t.measure(ctx, walker)
	screen.hide()
	if err != nil {
		if errors.Is(interruptedOr(ctx, err), orchestrator.ErrInterrupted) {
			return t.interrupted()
		}
		return err
	}
	return t.tell(ctx, c, report)
}

// tuning is one call of quire tune with a server.
type tuning struct {
	cfg    tuneConfig
	served *served
	screen *screen
	log    *slog.Logger
	guard  *guard.Guard
	hard   <-chan struct{}
	server *tune.Server
	left   error // why the server is not what it was
}

// interrupted tells what became of the server when somebody said stop.
func (t *tuning) interrupted() error {
	switch {
	case t.left != nil:
		return interruption{t.left.Error()}
	case t.served.server != nil: // ends with quire
		return interruption{"nothing is proposed"}
	}
	return interruption{"nothing is proposed, and the server is what it was"}
}

// measure takes the server, searches, and puts the server back.
func (t *tuning) measure(ctx context.Context, source orchestrator.Source) (report *tune.Report, err error) {
	cfg, s := t.cfg, t.served
	meta, err := s.client.ServerMetadata(ctx)
	if err != nil {
		return nil, serverError{err}
	}
	if t.server, err = tune.Take(ctx, s.client, s.model.Info().Name, cfg.lasts(), t.screen.say); err != nil {
		return nil, serverError{err}
	}
	if cfg.server.repository != "" {
		file, err := cfg.file()
		if err == nil {
			err = isServed(file, t.server.Original())
		}
		if err != nil {
			return nil, usageError{err}
		}
	}
	pool := render.New(cfg.rendering(t.guard, t.log))
	t.screen.doing("drawing sample pages")
	sample, err := tune.Draw(ctx, source, pool, s.model.Input(), cfg.workers)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	search := cfg.search
	search.Start, search.Devices = t.server.Start(s.model.Input()), t.server.Devices()
	search.Rendering = !cfg.serverOnly
	search.Deadline = began.Add(cfg.budget)
	search.Progress = t.step
	gpus, err := t.metrics(ctx)
	if err != nil {
		return nil, err
	}
	window := min(max(time.Duration(windowShare*float64(cfg.budget)/tune.Measurements), shortestWindow), longestWindow)
	live := tune.NewLive(tune.LiveConfig{
		Client: s.client, Server: t.server, Model: s.model, Sample: sample, Renderer: pool, Workers: cfg.workers,
		Window: window, SharedMemoryPrefix: t.guard.ShmPrefix(), Metrics: gpus, Log: t.log,
	})
	defer func() {
		t.left = t.restore()
		err = withLeft(err, t.left)
	}()
	result, err := tune.Search(ctx, search, live)
	if err != nil {
		return nil, t.explain(err)
	}
	info := s.model.Info()
	transport := "in gRPC messages"
	if s.model.Input().SharedMemory {
		transport = "through shared memory"
	}
	return &tune.Report{
		Tool: "quire", ToolVersion: version, Model: info.Name, Version: info.Version, Server: meta.GetVersion(), Where: s.where,
		Transport: transport, Local: s.server != nil || s.model.Input().SharedMemory, Workers: live.Workers(), Documents: sample.Documents(), Pages: sample.Pages(),
		Objective: search.Objective, MaxP99: search.MaxP99, MaxGPUMemory: search.MaxGPUMemory, Budget: cfg.budget, Window: window, Took: time.Since(began), Result: result,
	}, nil
}

// explain tells errors of the server from others.
func (t *tuning) explain(err error) error {
	if _, model := errors.AsType[*orchestrator.ModelError](err); model || errors.Is(err, tune.ErrReplaced) {
		return serverError{err}
	}
	return err
}

// restore puts the server back, whatever has ended the search. One that quire
// has started ends with it.
func (t *tuning) restore() error {
	if t.served.server != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), restoreTime)
	defer cancel()
	go onStop(ctx, t.hard, cancel)
	t.screen.doing("putting the server back to what it was")
	if err := t.server.Restore(ctx); err != nil {
		return notBack(err, t.cfg.server.triton)
	}
	return nil
}

// notBack is the error of a server that could not be put back. Whoever loaded
// something else meanwhile has the last word, and there is nothing left to do.
func notBack(err error, triton string) error {
	if errors.Is(err, tune.ErrReplaced) {
		return serverError{err}
	}
	return serverError{fmt.Errorf("the server is not back to what it was: %w; quire doctor --triton %s puts it back", err, triton)}
}

// withLeft is what ended the search and why the server is not what it was, which
// may be the same.
func withLeft(err, left error) error {
	if errors.Is(err, tune.ErrReplaced) && errors.Is(left, tune.ErrReplaced) {
		return err
	}
	return join(err, left)
}

// step shows what is being measured.
func (t *tuning) step(s tune.Step) {
	text := fmt.Sprintf("measuring %d of at most %d: %s", s.Number, s.Of, s.Stage)
	if s.Settings != nil {
		text += fmt.Sprintf(": %s: %s", s.Load.Kind, s.Settings)
	}
	t.screen.doing(text)
}

// metrics is how to look at the server's GPUs; nil when it tells of none, which
// is an error when a limit depends on it.
func (t *tuning) metrics(ctx context.Context) (func(context.Context) (metrics.Metrics, error), error) {
	url, limited := t.cfg.metrics, t.cfg.search.MaxGPUMemory > 0
	if url == "" && t.cfg.server.triton != "" {
		if host, _, err := net.SplitHostPort(t.cfg.server.triton); err == nil {
			url = "http://" + net.JoinHostPort(host, "8002") + "/metrics"
		}
	}
	if url == "" {
		return nil, nil // there is no limit then
	}
	m, err := metrics.Read(ctx, url)
	if err == nil && len(m.GPUs) == 0 {
		err = fmt.Errorf("%s: there is no GPU in it", url)
	}
	switch {
	case err == nil:
		return func(ctx context.Context) (metrics.Metrics, error) { return metrics.Read(ctx, url) }, nil
	case limited:
		return nil, usageError{fmt.Errorf("--max-gpu-mem: nobody tells how much GPU memory is in use: %w; see --metrics", err)}
	case t.cfg.metrics != "":
		t.log.Warn("the use of the GPU is not known", "err", err)
	}
	return nil, nil
}

// tell prints the report, and writes or prints the change. A page that cannot be
// written is no reason to keep the rest.
func (t *tuning) tell(ctx context.Context, c *cli.Context, r *tune.Report) (err error) {
	if t.cfg.html != "" {
		defer func(failed error) { err = join(err, failed) }(writePage(t.cfg.html, r))
	}
	if t.cfg.json {
		err = r.JSON(c.App.Writer)
	} else {
		err = r.Text(c.App.Writer)
	}
	if err != nil {
		return err
	}
	if r.Verdict() != tune.VerdictChange {
		return nil
	}
	// The report alone is on standard output when it is for a program.
	out := c.App.Writer
	if t.cfg.json {
		out = t.screen
	}
	if t.cfg.server.repository == "" {
		fmt.Fprintf(out, "\nin the config of model %s, in the repository of %s, set:\n\n%s\n--model-repository DIR, that repository as this machine sees it, prints the change, and --write makes it.\n",
			r.Model, t.cfg.server.triton, tune.Instructions(t.server.Original(), r.Result.Chosen.Settings))
		return nil
	}
	file, err := t.cfg.file()
	if err != nil {
		return err
	}
	edited, err := tune.Propose(file, t.server.Original(), r.Result.Chosen.Settings)
	if err != nil {
		return err
	}
	diff := file.Diff(edited)
	if diff == "" {
		fmt.Fprintf(out, "\n%s says so already; it is not what the server serves: load the model.\n", file.Path())
		return nil
	}
	fmt.Fprintf(out, "\n%s", diff)
	if !t.cfg.write {
		fmt.Fprintln(out, "\n--write makes this change.")
		return nil
	}
	backup, err := file.Replace(edited)
	if errors.Is(err, modelconfig.ErrReadOnly) {
		return fmt.Errorf("%w, and load the model then", err)
	} else if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nwritten: %s; the old one is %s\n", file.Path(), backup)
	return t.load(ctx, r.Result.Chosen.Settings)
}

func writePage(name string, r *tune.Report) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(r.HTML(f), f.Close())
}

// load has a server that goes on running take the file that was written.
func (t *tuning) load(ctx context.Context, chosen tune.Settings) error {
	if t.served.server != nil {
		return nil
	}
	model := t.served.model.Info().Name
	t.screen.doing("loading the model with the new config")
	if err := t.served.client.LoadModel(ctx, model, nil); err != nil {
		return serverError{fmt.Errorf("the config is written, and the server did not load it: %w", err)}
	}
	serves, err := tune.Serves(ctx, t.served.client, model, chosen)
	if err != nil {
		return serverError{err}
	}
	if !serves {
		t.screen.say("the server was asked to load the model and serves what it did before: is --model-repository the directory that it serves, and --config-name its --model-config-name? Unload and load the model, or start the server anew")
	}
	return nil
}
