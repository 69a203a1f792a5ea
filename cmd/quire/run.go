package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/orchestrator/metrics"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/walk"
)

func runCommand(stop stops) *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "find the layout of every page of the PDFs in directories",
		ArgsUsage: "DIR|FILE…",
		Description: "Writes one JSON file of regions for each document into the output directory,\n" +
			"which mirrors the input, and failed.jsonl for what failed. The same command\n" +
			"again goes on where it stopped, and does again only what has changed. Every\n" +
			"flag can be set by the environment variable beside it; the flag wins.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, EnvVars: []string{"QUIRE_OUTPUT"}, Usage: "write results into `DIR` (required)"},
		}, serverFlags(), connectionFlags(), []cli.Flag{transportFlag(), serverWaitFlag()}, inputFlags(), []cli.Flag{
			&cli.Float64Flag{Name: "threshold", EnvVars: []string{"QUIRE_THRESHOLD"}, Usage: "keep regions that score above `SCORE`, 0 to 1", DefaultText: "what the served config says, 0.5"},
		}, engineFlags(), []cli.Flag{
			&cli.DurationFlag{Name: "page-timeout", EnvVars: []string{"QUIRE_PAGE_TIMEOUT"}, Usage: "give a page up that takes longer than `TIME` to draw", Value: 30 * time.Second},
			&cli.BoolFlag{Name: "retry-failed", EnvVars: []string{"QUIRE_RETRY_FAILED"}, Usage: "do again what failed before, and nothing else that stands"},
			&cli.BoolFlag{Name: "fresh", EnvVars: []string{"QUIRE_FRESH"}, Usage: "do everything again"},
			&cli.BoolFlag{Name: "checksum", EnvVars: []string{"QUIRE_CHECKSUM"}, Usage: "know a document that was done before by its content, not by its time; reads every file"},
			&cli.BoolFlag{Name: "prune", EnvVars: []string{"QUIRE_PRUNE"}, Usage: "remove results of documents that are not among the inputs any more"},
			&cli.DurationFlag{Name: "disk-wait", EnvVars: []string{"QUIRE_DISK_WAIT"}, Usage: "wait at most `TIME` for space when the disk is full", Value: 10 * time.Minute},
			&cli.BoolFlag{Name: "overlay", EnvVars: []string{"QUIRE_OVERLAY"}, Usage: "also write a picture of each page with its regions drawn in, like OUT/a.pdf.pages/0001.png"},
			&cli.BoolFlag{Name: "json", EnvVars: []string{"QUIRE_JSON"}, Usage: "write events for machines to standard output, one JSON object a line (docs/events.md)"},
			&cli.StringFlag{Name: "metrics", EnvVars: []string{"QUIRE_RUN_METRICS"}, Usage: "serve metrics for Prometheus at `HOST:PORT`, path /metrics; :PORT is for this machine alone (docs/metrics.md)", DefaultText: "off"},
			logLevelFlag(),
		}),
		Action: func(c *cli.Context) error { return run(c, stop) },
	}
}

// run does the main job.
func run(c *cli.Context, stop stops) (err error) {
	cfg, err := runConfigOf(c)
	if err != nil {
		return usageError{err}
	}
	begun := time.Now()
	screen := newScreen(c.App.ErrWriter)
	defer screen.hide()
	log := newLogger(cfg.logLevel, screen)

	// ctx ends at a hard stop, setup at a soft one: before there is a page to
	// finish, every stop is a hard one.
	ctx, cancel := untilStopped(c.Context, stop.hard)
	defer cancel(nil)
	setup, endSetup := untilStopped(ctx, stop.soft)
	defer endSetup(nil)

	walker, err := cfg.walker(setup, walk.Config{Output: cfg.output, Checksum: cfg.checksum, Log: log})
	if err != nil {
		return err
	}
	defer walker.Close()

	// Before anything that takes time: the address may be taken, and it may be that
	// nothing can be written.
	var scraped *metrics.Server
	if cfg.metrics != "" {
		if scraped, err = metrics.Listen(cfg.metrics); err != nil {
			return usageError{fmt.Errorf("--metrics: %w", err)}
		}
		defer scraped.Close()
	}
	tree, err := sink.Open(sink.Config{
		Dir: cfg.output, Tool: "quire", ToolVersion: version, Log: log, DiskWait: cfg.diskWait,
		Fresh: cfg.fresh, RetryFailed: cfg.retryFailed, Prune: cfg.prune, Passwords: len(cfg.passwords) > 0,
	})
	if err != nil {
		return err
	}
	defer func() { err = join(err, tree.Close()) }()

	g, err := startGuard(setup)
	if err != nil {
		return err
	}
	defer func() { err = join(err, g.Close()) }()
	served, err := connect(setup, cfg.server, cfg.threshold, g, screen, log)
	if err != nil {
		return interruptedOr(setup, err)
	}
	defer served.close()
	info, err := served.info()
	if err != nil {
		return err
	}
	if err := tree.Start(setup, info, answerOptions(served.model.Contract())); err != nil {
		return interruptedOr(setup, err)
	}

	rendering := cfg.rendering(g, log)
	rendering.PageTimeout = cfg.pageTimeout
	pool := render.New(rendering)
	detector, err := orchestrator.New(orchestrator.Config{
		Renderer:  pool,
		Endpoints: served.fleet.Endpoints(), Batch: cfg.batch, InFlight: cfg.inFlight, MaxAge: cfg.maxAge, Workers: cfg.workers,
		ServerWait: cfg.serverWait, SharedMemoryPrefix: g.ShmPrefix(), Logger: log,
	})
	if err != nil {
		return engineError(err)
	}
	defer detector.Close()
	// Before the detector takes its memory back from it, which a server that
	// hangs would hold up.
	defer served.endServer()
	served.supervise(ctx, g, func() int64 { return detector.Stats().Pages.Done }, cancel, log)
	defer served.follow(ctx, detector)()

	var progress orchestrator.Progress
	r := running{
		begun: begun, output: cfg.output, served: served, detector: detector, tree: tree, progress: &progress, count: walker.Count,
	}
	var report reporter = &text{running: r, screen: screen, out: c.App.Writer}
	if cfg.json {
		report = newEvents(r, c.App.Writer)
	}
	if err := report.begin(); err != nil {
		return err
	}
	results, finishPictures := orchestrator.Sink(tree), func() error { return nil }
	if cfg.overlay {
		o := newOverlay(ctx, cancel, stop.soft, tree, pool, max(1, detector.Settings().Workers/2), log)
		results, finishPictures = o, o.finish
	}
	if scraped != nil {
		screen.say("metrics at http://" + scraped.Addr() + "/metrics")
		scraped.Serve(metrics.Source{Stats: detector.Stats, Progress: progress.Now, Disk: func() (time.Duration, bool) {
			reason, _ := tree.Waiting()
			return tree.Waited(), reason != ""
		}}, metrics.Info{Version: version, Model: info.Name, ModelVersion: info.Version})
	}
	unfollow := report.follow(ctx)
	go onStop(ctx, stop.soft, func() { screen.say("stopping: finishing the pages that are drawn; interrupt again to end at once") })
	summary, runErr := detector.Run(ctx, orchestrator.Job{Source: walker, Sink: report.sink(results), Stop: stop.soft, Progress: &progress})
	runErr = join(runErr, finishPictures())
	vanished, err := tree.Finish(ctx, summary, runErr, report.vanished)
	if _, disk := errors.AsType[*sink.WriteError](runErr); !disk { // else it is the same disk again
		runErr = join(runErr, err)
	}
	unfollow()
	// A run with pictures is not as fast as one without.
	if !cfg.overlay && summary.Resumed == 0 && (runErr == nil || errors.Is(runErr, orchestrator.ErrInterrupted)) {
		recordRate(cfg.server, served.model.Info(), summary, tree.Written(), log)
	}
	if runErr == nil && someFailed(summary) {
		runErr = quietError{exitSomeFailed}
	}
	return join(runErr, report.end(summary, vanished, runErr))
}

// someFailed tells whether anything has failed, now or in the run that did what
// this one has skipped.
func someFailed(s orchestrator.Summary) bool {
	return s.Documents.Failed+s.Documents.Partial+s.DocumentsBefore.Failed+s.DocumentsBefore.Partial > 0
}

// answerOptions are the settings that change answers beside the model itself:
// a result that was made with others is made again.
func answerOptions(c *layout.Contract) map[string]any {
	return map[string]any{
		"threshold": c.ScoreThreshold, "nms_iou": c.IoUThreshold, "nms_candidates": c.MaxCandidates, "nms_keep": c.MaxKept,
		"width_px": c.Width, "height_px": c.Height, "labels": c.Labels, "precision": c.Precision,
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
