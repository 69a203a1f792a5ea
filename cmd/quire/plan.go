package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"quire/orchestrator"
	"quire/orchestrator/plan"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/walk"
	"quire/tritonclient/embedded"
)

func planCommand(stop stops) *cli.Command {
	return &cli.Command{
		Name:      "plan",
		Usage:     "tell what a run would meet and take, without running it",
		ArgsUsage: "DIR|FILE…",
		Description: "Counts the documents, lists those that cannot be opened, and estimates the\n" +
			"pages from a sample, the time from the last run with the same server, and the\n" +
			"disk that results take. Nothing is written and no server is asked. Code 3 means\n" +
			"that a run would not get through whole: inputs that do not open, or no space.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, EnvVars: []string{"QUIRE_OUTPUT"}, Usage: "look at the space where `DIR` is or would be, and leave DIR out of the inputs"},
			&cli.StringFlag{Name: "triton", EnvVars: []string{"QUIRE_TRITON"}, Usage: "tell the time by the last run that was given the same `HOST:PORT`", DefaultText: "by the last one with a server that quire started"},
			&cli.StringFlag{Name: "model-repository", EnvVars: []string{"QUIRE_MODEL_REPOSITORY"}, Usage: "tell the time by the last run that was given the same `DIR`", DefaultText: "by one that was given none"},
		}, inputFlags(), []cli.Flag{
			&cli.IntFlag{Name: "sample", EnvVars: []string{"QUIRE_SAMPLE"}, Usage: "open about `N` documents to count their pages", Value: 500},
			&cli.DurationFlag{Name: "sample-time", EnvVars: []string{"QUIRE_SAMPLE_TIME"}, Usage: "open documents for at most `TIME`", Value: 20 * time.Second},
			&cli.BoolFlag{Name: "json", EnvVars: []string{"QUIRE_JSON"}, Usage: "print JSON, one object a line: each input that cannot be opened, then the plan (docs/events.md)"},
			logLevelFlag(),
		}),
		Action: func(c *cli.Context) error { return planRun(c, stop) },
	}
}

// unreadableNames is how many unreadable inputs the text names.
const unreadableNames = 20

func planRun(c *cli.Context, stop stops) (err error) {
	in, err := inputsOf(c, "quire plan DIR…")
	if err != nil {
		return usageError{err}
	}
	server, err := serverChoiceOf(c)
	if err != nil {
		return usageError{err}
	}
	if n := c.Int("sample"); n < 1 {
		return usageError{fmt.Errorf("--sample %d: it must be at least 1", n)}
	}
	if d := c.Duration("sample-time"); d <= 0 {
		return usageError{fmt.Errorf("--sample-time %v: it must be above 0", d)}
	}
	level, err := logLevelOf(c)
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := untilStopped(c.Context, stop.soft)
	defer cancel(nil)
	screen := newScreen(c.App.ErrWriter)
	defer screen.hide()
	log := newLogger(level, screen)
	walker, err := in.walker(ctx, walk.Config{Output: c.String("output"), Log: log})
	if err != nil {
		return err
	}
	defer walker.Close()
	g, err := startGuard(ctx)
	if err != nil {
		return err
	}
	defer func() { err = join(err, g.Close()) }()

	rendering := in.rendering(g, log)
	rendering.Nice = 0 // there is no server, and nothing else to do, that they could hold up
	machine := json.NewEncoder(c.App.Writer)
	var names []string
	forecast := plan.Forecast{Where: server.where(), Output: c.String("output")}
	forecast.Inputs, err = plan.Look(ctx, plan.Config{
		Source: walker, Renderer: render.New(rendering), Sample: c.Int("sample"), Time: c.Duration("sample-time"),
		Problem: func(e *orchestrator.PageError) {
			if c.Bool("json") {
				_ = machine.Encode(unreadableOf(e))
			} else if len(names) < unreadableNames {
				names = append(names, fmt.Sprintf("  %s: %s: %s", oneLine(e.Ref.Path), e.Category, oneLine(e.Message)))
			}
		},
		Progress: func(found, opened, sample int64) {
			if !screen.tty() {
				return
			}
			text := fmt.Sprintf("%d documents found", found)
			if sample > 0 {
				text += fmt.Sprintf(", %d of %d opened to count their pages", opened, sample)
			}
			screen.doing(text)
		},
	})
	screen.hide()
	if err != nil {
		return interruptedOr(ctx, err)
	}
	if rates, host, err := rates(); err == nil {
		if r, ok := rates.Last(forecast.Where, host); ok {
			forecast.Rate = &r
		}
	}
	if forecast.Output != "" {
		forecast.Free = freeSpace(forecast.Output)
	}
	if c.Bool("json") {
		err = machine.Encode(planEventOf(forecast))
	} else {
		err = printPlan(c.App.Writer, forecast, names)
	}
	if err == nil && forecast.Problems() {
		err = quietError{exitSomeFailed}
	}
	return err
}

// freeSpace is what this user may still write where a directory is, or would be
// made; nil when nobody tells.
func freeSpace(dir string) *int64 {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil
	}
	for {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil {
			free := int64(st.Bavail) * st.Bsize
			return &free
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

func printPlan(w io.Writer, f plan.Forecast, names []string) error {
	var b strings.Builder
	in, e := f.Inputs, f.Inputs.Pages
	fmt.Fprintf(&b, "documents: %d, %s", in.Documents, size(in.Bytes))
	if n := in.Problems(); n > 0 {
		fmt.Fprintf(&b, "; %d cannot be opened:", n)
		for i, category := range in.Categories() {
			fmt.Fprintf(&b, "%s %d %s", map[bool]string{true: ","}[i > 0], in.Unreadable[category], category)
		}
		fmt.Fprintf(&b, "\n%s", strings.Join(names, "\n"))
		if more := n - int64(len(names)); more > 0 {
			fmt.Fprintf(&b, "\n  and %d more: --json lists all", more)
		}
	}
	switch {
	case !e.Known():
		fmt.Fprintf(&b, "\npages: not known: none of %d documents was opened in time, see --sample-time", e.Of)
	case e.Exact():
		if e.Failed > 0 {
			fmt.Fprintf(&b, "\npages: %d, counted in the %d of %d documents that open", e.Pages, e.Opened-e.Failed, e.Of)
		} else {
			fmt.Fprintf(&b, "\npages: %d, counted in all %d documents", e.Pages, e.Of)
		}
	default:
		fmt.Fprintf(&b, "\npages: about %d, likely %d to %d, from %d of %d documents", e.Pages, e.Low, e.High, e.Opened, e.Of)
		if e.Failed > 0 {
			fmt.Fprintf(&b, " (%d of them did not open; about %d of the rest will not)", e.Failed, e.MoreFailed)
		}
	}
	if r := f.Rate; r == nil {
		fmt.Fprintf(&b, "\ntime: not known: no rate measured yet with this server (%s): run once", f.Where)
	} else {
		if e.Known() {
			fmt.Fprintf(&b, "\ntime: about %s", duration(r.Time(e.Pages)))
			if !e.Exact() {
				fmt.Fprintf(&b, ", likely %s to %s", duration(r.Time(e.Low)), duration(r.Time(e.High)))
			}
		} else {
			b.WriteString("\ntime: not known")
		}
		fmt.Fprintf(&b, ", at the %.1f pages/s of the last run with this server (%s, model %s version %s, %d pages, %s)",
			r.PagesPerSecond(), r.Where, r.Model, r.ModelVersion, r.Pages, r.Measured.Local().Format("2006-01-02"))
	}
	if e.Known() {
		fmt.Fprintf(&b, "\ndisk: about %s of results, at ", size(f.Results()))
		if r := f.Rate; r != nil {
			fmt.Fprintf(&b, "the last run's %s a page", size(int64(r.BytesPerPage())))
		} else {
			fmt.Fprintf(&b, "a usual %s a page", size(plan.DefaultBytesPerPage))
		}
		fmt.Fprintf(&b, " and %s a document", size(plan.DocumentBytes))
	}
	if f.Free != nil {
		fmt.Fprintf(&b, "\nspace: %s free at %s", size(*f.Free), f.Output)
		if !f.Fits() {
			b.WriteString(", too little: free some, or name another directory with -o")
		}
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// size is a number of bytes for people.
func size(n int64) string {
	f, unit := float64(n), 0
	for f >= 1000 && unit < 5 {
		f, unit = f/1000, unit+1
	}
	if unit == 0 || f >= 99.5 {
		return fmt.Sprintf("%.0f %s", f, []string{"bytes", "kB", "MB", "GB", "TB", "PB"}[unit])
	}
	return fmt.Sprintf("%.1f %s", f, []string{"bytes", "kB", "MB", "GB", "TB", "PB"}[unit])
}

// rates is where runs leave their rates, and this machine's name in them.
func rates() (plan.Rates, string, error) {
	dir, err := embedded.CacheDir(embedded.Options{})
	if dir == "" {
		return plan.Rates{}, "", err
	}
	host, err := os.Hostname()
	return plan.Rates{Dir: filepath.Join(dir, "rates")}, host, err
}

// recordRate keeps what a run has measured for the next plan. That it cannot is
// worth a line in the log and no more.
func recordRate(server serverChoice, model orchestrator.ModelInfo, s orchestrator.Summary, w sink.Written, log *slog.Logger) {
	rates, host, err := rates()
	if err == nil {
		err = rates.Record(plan.Rate{
			Where: server.where(), Host: host, Model: model.Name, ModelVersion: model.Version,
			Pages: s.Pages.Done + s.Pages.Failed, Seconds: s.Elapsed.Seconds(),
			ResultDocuments: w.Documents, ResultBytes: w.Bytes, Measured: time.Now().UTC().Truncate(time.Second),
		})
	}
	if err != nil {
		log.Info("the rate of this run could not be kept for quire plan", "err", err)
	}
}
