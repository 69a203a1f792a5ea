package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	samplefiles "quire/examples"
	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/verify"
	"quire/orchestrator/walk"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
	"quire/tritonclient/guard"
)

func verifyCommand(stop stops) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "tell whether a server's answers can be trusted",
		ArgsUsage: "[DIR|FILE…]",
		Description: "Asks for the regions of some pages, each page alone, and compares with what\n" +
			"comes back for them in batches, among other pages, at the same time, and\n" +
			"through shared memory. The pages are those of the inputs, else samples that\n" +
			"quire carries; the samples are also compared with the answers of the pipeline\n" +
			"that the model comes from. Of several servers each that is ready is verified.\n" +
			"Code 3 means that answers differ by more than the tolerance, code 1 that there\n" +
			"was nothing to compare: batches of 1 in messages, and no reference.",
		Flags: slices.Concat(serverFlags(), connectionFlags(), []cli.Flag{transportFlag()}, inputFlags(), []cli.Flag{
			&cli.IntFlag{Name: "pages", EnvVars: []string{"QUIRE_PAGES"}, Usage: "verify with `N` pages, at most 4 of one of your documents", Value: 16},
			&cli.IntFlag{Name: "batch", EnvVars: []string{"QUIRE_BATCH"}, Usage: "verify batches of `N` pages", DefaultText: "quire.batch, else max_batch_size of the served config"},
			&cli.Float64Flag{Name: "tolerance", EnvVars: []string{"QUIRE_TOLERANCE"}, Usage: "let an edge of a box move by `PIXELS` of the model's input", Value: verify.DefaultTolerance.Pixels},
			&cli.Float64Flag{Name: "score-tolerance", EnvVars: []string{"QUIRE_SCORE_TOLERANCE"}, Usage: "let a score, 0 to 1, change by `D`, and regions that score no farther from the threshold come and go", Value: verify.DefaultTolerance.Score},
			&cli.BoolFlag{Name: "json", EnvVars: []string{"QUIRE_JSON"}, Usage: "print a JSON object for each server (docs/events.md)"},
			logLevelFlag(),
		}),
		Action: func(c *cli.Context) error { return verifyRun(c, stop) },
	}
}

// perDocument is the most pages of a document that are verified with.
const perDocument = 4

// verifyConfig is the command line, checked.
type verifyConfig struct {
	inputs
	server       serverChoice
	pages, batch int
	tolerance    verify.Tolerance
	logLevel     slog.Level
}

func verifyConfigOf(c *cli.Context) (cfg verifyConfig, err error) {
	cfg = verifyConfig{
		pages: c.Int("pages"), batch: c.Int("batch"),
		tolerance: verify.Tolerance{Pixels: c.Float64("tolerance"), Score: c.Float64("score-tolerance")},
	}
	if cfg.inputs, err = inputsFrom(c, c.Args().Slice()); err != nil {
		return cfg, err
	}
	if cfg.server, err = serverChoiceOf(c); err != nil {
		return cfg, err
	}
	if cfg.pages < 1 {
		return cfg, fmt.Errorf("--pages %d: it must be at least 1", cfg.pages)
	}
	if c.IsSet("batch") && cfg.batch < 1 {
		return cfg, fmt.Errorf("--batch %d: it must be at least 1", cfg.batch)
	}
	for name, v := range map[string]float64{"tolerance": cfg.tolerance.Pixels, "score-tolerance": cfg.tolerance.Score} {
		if !(v >= 0) {
			return cfg, fmt.Errorf("--%s %v: it must not be negative", name, v)
		}
		if math.IsInf(v, 1) {
			return cfg, fmt.Errorf("--%s %v: it must be finite", name, v)
		}
	}
	cfg.logLevel, err = logLevelOf(c)
	return cfg, err
}

func verifyRun(c *cli.Context, stop stops) (err error) {
	cfg, err := verifyConfigOf(c)
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := untilStopped(c.Context, stop.soft)
	defer cancel(nil)
	screen := newScreen(c.App.ErrWriter)
	defer screen.hide()
	log := newLogger(cfg.logLevel, screen)

	scratch, err := scratchDirectory("verify")
	if err != nil {
		return err
	}
	defer func() { err = join(err, os.RemoveAll(scratch)) }()
	own := filepath.Join(scratch, "samples")
	if err := os.CopyFS(own, samplefiles.Files); err != nil {
		return err
	}
	samples, err := walk.New([]string{own}, walk.Config{Log: log})
	if err != nil {
		return err
	}
	defer samples.Close()
	source := samples
	if len(cfg.paths) > 0 {
		if source, err = cfg.walker(ctx, walk.Config{Log: log}); err != nil {
			return err
		}
		defer source.Close()
	}
	g, err := startGuard(ctx)
	if err != nil {
		return err
	}
	defer func() { err = join(err, g.Close()) }()
	served, err := connect(ctx, cfg.server, 0, g, screen, log)
	if err != nil {
		return interruptedOr(ctx, err)
	}
	defer served.close()
	in := served.model.Input()
	screen.doing("drawing pages")
	pool := render.New(cfg.rendering(g, log))
	ours, _, err := verify.Draw(ctx, pool, samples, in, cfg.pages, 0)
	if err != nil {
		return interruptedOr(ctx, err)
	}
	pages := ours
	if len(cfg.paths) > 0 {
		var failed int
		if pages, failed, err = verify.Draw(ctx, pool, source, in, cfg.pages, perDocument); err != nil {
			return interruptedOr(ctx, err)
		}
		if len(pages) == 0 {
			return fmt.Errorf("no page could be drawn: %d documents or pages failed; see what quire run says of them", failed)
		}
	}
	reference, err := verify.ReadReference(samplefiles.Reference)
	if err != nil {
		return err
	}
	v := &verification{cfg: cfg, guard: g, screen: screen, log: log, pages: pages, samples: ours, reference: reference}
	within := true
	var nothing error
	for _, server := range served.fleet.Servers() {
		where := served.where
		if served.server == nil {
			where = server.Name // of several named, which
		}
		out, err := v.server(ctx, server, where)
		screen.hide()
		if _, ok := errors.AsType[*orchestrator.ModelError](err); ok {
			err = serverError{err}
		}
		if err != nil {
			return interruptedOr(ctx, err)
		}
		if out.Nothing() {
			nothing = errors.Join(nothing, fmt.Errorf("%s: nothing was compared: try --batch 2 or more, or --transport auto", where))
		} else {
			within = within && out.Within
		}
		if c.Bool("json") {
			err = json.NewEncoder(c.App.Writer).Encode(out)
		} else {
			err = out.print(c.App.Writer)
		}
		if err != nil {
			return err
		}
	}
	if !within {
		return quietError{exitSomeFailed}
	}
	return nothing
}

// verification is one call of quire verify.
type verification struct {
	cfg            verifyConfig
	guard          *guard.Guard
	screen         *screen
	log            *slog.Logger
	pages, samples []verify.Page
	reference      *verify.Reference // for the samples
}

// server verifies one server's answers.
func (v *verification) server(ctx context.Context, server layout.Server, where string) (*verified, error) {
	model, contract, in := server.Model, server.Model.Contract(), server.Model.Input()
	meta, err := server.Client.ServerMetadata(ctx)
	if err != nil {
		return nil, serverError{err}
	}
	inBand, err := layout.Open(ctx, server.Client, layout.Config{Version: contract.Version, Transport: layout.TransportInBand, Log: v.log})
	if err != nil {
		return nil, err
	}
	defer inBand.Close()
	if v.cfg.batch > in.MaxBatch {
		return nil, usageError{fmt.Errorf("--batch %d: the served model takes batches of at most %d (max_batch_size)", v.cfg.batch, in.MaxBatch)}
	}
	reference := v.reference
	unfit := reference.Unfit(contract.Source, in, contract.IoUThreshold)
	if unfit != "" {
		reference = nil
	}
	noSharedMemory := "--transport is grpc"
	if err := model.NoSharedMemory(); err != nil {
		noSharedMemory = err.Error()
	}
	report, err := verify.Run(ctx, v.pages, verify.Config{
		Model: model, InBand: inBand, NoSharedMemory: noSharedMemory, Batch: min(cmp.Or(v.cfg.batch, in.Batch, in.MaxBatch), in.MaxBatch),
		Threshold: contract.ScoreThreshold, Tolerance: v.cfg.tolerance, SharedMemoryPrefix: v.guard.ShmPrefix(),
		Statistics: func(ctx context.Context) (tritonclient.ModelStatistics, error) {
			return server.Client.Statistics(ctx, contract.Model, contract.Version)
		},
		Reference: reference, Samples: v.samples,
		Progress: func(done, total int) {
			v.screen.step(embedded.Progress{Text: "asking about pages", Done: int64(done), Total: int64(total)})
		},
	})
	if err != nil {
		return nil, err
	}
	out := &verified{
		Schema: "quire-verify/1", Model: contract.Model, Version: contract.Version, Server: where, ServerVersion: meta.GetVersion(),
		SamplePages: len(v.cfg.paths) == 0, NoReference: unfit, Report: report,
	}
	if reference != nil {
		out.Pipeline, out.Source = reference.Pipeline, reference.Source
	}
	return out, nil
}

// verified is what the command prints.
type verified struct {
	Schema  string `json:"schema"`
	Model   string `json:"model"`
	Version string `json:"version"`
	Server  string `json:"server"`
	// ServerVersion is Triton's.
	ServerVersion string `json:"server_version"`
	// SamplePages tells that the pages are those of the samples.
	SamplePages bool `json:"sample_pages"`
	// Pipeline gave the reference answers, with the network that has the SHA-256
	// in Source. Without them NoReference says why.
	Pipeline    string `json:"reference_pipeline,omitempty"`
	Source      string `json:"reference_source_sha256,omitempty"`
	NoReference string `json:"no_reference,omitempty"`
	*verify.Report
}

func (v verified) print(w io.Writer) error {
	var b strings.Builder
	what := "pages"
	if v.SamplePages {
		what = "pages of the samples"
	}
	fmt.Fprintf(&b, "model %s version %s, Triton %s at %s; %d %s, %d documents\n", v.Model, v.Version, v.ServerVersion, v.Server, v.Pages, what, v.Documents)
	if len(v.Batches) == 0 {
		b.WriteString("batches were not compared: the batch is 1\n")
	} else {
		b.WriteString("each page alone, against:\n")
		printComparisons(&b, v.Batches)
	}
	if len(v.Merged) > 0 {
		b.WriteString("of the requests at once the server made batches:")
		for i, e := range v.Merged {
			fmt.Fprintf(&b, "%s %d of %d", map[bool]string{true: ","}[i > 0], e.Count, e.Batch)
		}
		b.WriteString("\n")
	}
	if v.NoReference != "" {
		fmt.Fprintf(&b, "no reference for this model: %s\n", v.NoReference)
	} else if v.Reference != nil {
		fmt.Fprintf(&b, "%s (sha256 %.12s…), against:\n", v.Pipeline, v.Source)
		printComparisons(&b, []verify.Comparison{*v.Reference})
	}
	switch t := v.Transport; {
	case t.Compared == 0:
		fmt.Fprintf(&b, "transports were not compared: %s\n", oneLine(t.Reason))
	case t.Different > 0:
		fmt.Fprintf(&b, "shared memory gave OTHER bytes than messages for %d of %d requests\n", t.Different, t.Requests)
	case t.Unsteady > 0:
		fmt.Fprintf(&b, "%d of %d requests gave other bytes the second time in the same way: nothing can be said of the transports\n", t.Unsteady, t.Requests)
	default:
		fmt.Fprintf(&b, "shared memory gave the same bytes as messages: %d requests, %d pages\n", t.Requests, t.Compared)
	}
	if v.Regions == 0 {
		b.WriteString("no region was found on any page\n")
	}
	verdict := "all answers are within"
	if !v.Within {
		verdict = "answers differ by more than"
	}
	if v.Nothing() {
		b.WriteString("nothing was compared: whether the answers can be trusted is not known\n")
	} else {
		fmt.Fprintf(&b, "%s the tolerance: %v pixels of the input, %v of score\n", verdict, v.Tolerance.Pixels, v.Tolerance.Score)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printComparisons prints a table.
func printComparisons(b *strings.Builder, all []verify.Comparison) {
	var table strings.Builder
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tregions\tbox moved\tscore\tlabels\tlost\tnew\t")
	for _, c := range all {
		verdict := "within"
		switch {
		case c.Identical:
			verdict = "identical"
		case !c.Within:
			verdict = "BEYOND; worst is " + oneLine(c.Worst)
		}
		if c.Borderline > 0 {
			verdict += fmt.Sprintf("; %d borderline", c.Borderline)
		}
		if c.Failed > 0 {
			verdict += fmt.Sprintf("; %d pages failed", c.Failed)
		}
		fmt.Fprintf(t, "  %s\t%d\t%.2g px, %.2g pt\t%.2g\t%d\t%d\t%d\t%s\n", c.Name, c.Regions, c.ShiftPixels, c.ShiftPoints, c.ScoreDrift, c.LabelFlips, c.Lost, c.New, verdict)
	}
	_ = t.Flush() // to memory
	for line := range strings.Lines(table.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}
