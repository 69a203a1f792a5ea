package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/measure"
)

// CurveConfig is what to measure a curve of.
type CurveConfig struct {
	// Config is as Run has it, but for Pages, which is how many documents or
	// pages the curve goes up to (default 10,000), and Source, Repeat, MinTime
	// and Budget, which have no meaning here.
	Config
	// Dir is an empty directory for the documents.
	Dir string
	// Samples are documents of several pages each, for the memory.
	Samples []string
	// Walk makes a source of a document, or of all below a directory, and what to
	// call when it has been read.
	Walk func(path string) (orchestrator.Source, func() error, error)
}

// CurveResult is cost and memory against how much there is to do.
type CurveResult struct {
	Schema      string    `json:"schema"`
	ToolVersion string    `json:"tool_version"`
	Measured    time.Time `json:"measured"`
	Machine     Machine   `json:"machine"`
	Model       Model     `json:"model"`
	// Bound is what quire promises for page buffers, in bytes; Workers is how
	// many processes draw.
	Bound   int64   `json:"page_buffers_bound_bytes"`
	Workers int     `json:"workers"`
	Points  []Point `json:"points"`
}

// CurveSchema names the form of a CurveResult as JSON.
const CurveSchema = "quire-bench-curve/1"

// Point is one amount of work.
type Point struct {
	// What the documents are: "sample documents", "one-page documents" or "one
	// long document".
	What      string `json:"what"`
	Documents int    `json:"documents"`
	Pages     int    `json:"pages"`
	// Runs is how often that was run; everything else is of all of them.
	Runs           int     `json:"runs"`
	PagesPerSecond float64 `json:"pages_per_second"`
	// Wall, MuPDF and Own are milliseconds a page: by the clock, and processor
	// time of drawing and of quire's processes besides.
	Wall  float64 `json:"wall_ms_per_page"`
	MuPDF float64 `json:"mupdf_ms_per_page"`
	Own   float64 `json:"quire_outside_mupdf_ms_per_page"`
	// Cost is MuPDF and Own against those of the first point with documents of
	// the same pages (the long document's are the one-page ones').
	Cost float64 `json:"cost_against_first"`
	// Memory is the peak of quire's processes, the server apart, in bytes.
	Memory int64 `json:"peak_bytes"`
	// Failed pages are not counted in Pages.
	Failed int `json:"failed"`
}

// The kinds of documents in a curve.
const (
	whatSamples = "sample documents"
	whatOnePage = "one-page documents"
	whatLong    = "one long document"
)

// amount is a point to be measured.
type amount struct {
	what      string
	documents int // for samples: how often each
	pages     int // of a long document
}

// leastPages make a cost; what has less is done several times over.
const leastPages = 2000

// amounts are the points of a curve that goes up to so many documents or pages:
// powers of ten, and half as many pages in one document. A set of samples has
// so many pages.
func amounts(most, samplePages int) (all []amount) {
	for n := 100; n < 10*most; n *= 10 {
		all = append(all, amount{what: whatSamples, documents: (min(n, most) + samplePages - 1) / samplePages})
	}
	for n := 10; n < 10*most; n *= 10 {
		all = append(all, amount{what: whatOnePage, documents: min(n, most)})
	}
	return append(all, amount{what: whatLong, documents: 1, pages: (most + 1) / 2})
}

// Curve measures what memory and a page's cost do as there is more to do. Each
// point has an engine of its own, so that no memory is another's.
func Curve(ctx context.Context, cfg CurveConfig) (*CurveResult, error) {
	most := cmp.Or(cfg.Pages, 10_000)
	cfg.Config = cfg.Config.withDefaults()
	b := &bench{cfg: cfg.Config}
	info := cfg.Engine.Model.Info()
	r := &CurveResult{
		Schema: CurveSchema, ToolVersion: cfg.ToolVersion, Measured: time.Now().UTC().Truncate(time.Second),
		Model: Model{Name: info.Name, Version: info.Version, Kind: cfg.Kind, Server: cfg.Where, Ours: cfg.Server != nil},
	}
	samplePages, err := b.countSamples(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for i, a := range amounts(most, samplePages) {
		dir := filepath.Join(cfg.Dir, fmt.Sprintf("point-%d", i))
		if err := a.layOut(dir, cfg.Samples); err != nil {
			return nil, err
		}
		p, err := b.point(ctx, cfg, a, dir, min(most, leastPages), r)
		if err != nil {
			return nil, err
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		first := slices.IndexFunc(r.Points, func(q Point) bool { return q.What == p.What || p.What == whatLong && q.What == whatOnePage })
		p.Cost = 1
		if first >= 0 {
			p.Cost = (p.MuPDF + p.Own) / (r.Points[first].MuPDF + r.Points[first].Own)
		}
		r.Points = append(r.Points, p)
	}
	r.Machine = machine(cores())
	return r, nil
}

// countSamples is how many pages the samples have together.
func (b *bench) countSamples(ctx context.Context, cfg CurveConfig) (int, error) {
	var docs []orchestrator.Document
	for _, name := range cfg.Samples {
		docs = append(docs, orchestrator.Document{Path: filepath.Base(name), Open: func() (*os.File, error) { return os.Open(name) }})
	}
	counted, err := measure.Count(ctx, cfg.Engine.Renderer, cfg.Engine.Model.Input(), docs, math.MaxInt)
	pages := 0
	for _, d := range counted {
		pages += d.Pages
	}
	if err == nil && pages == 0 {
		err = errors.New("bench: the samples have no pages")
	}
	return pages, err
}

// layOut makes the documents of a point.
func (a amount) layOut(dir string, samples []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if a.what == whatLong {
		return writePDF(filepath.Join(dir, "long.pdf"), a.pages)
	}
	if a.what == whatOnePage {
		// Beside the directory, to be linked into it.
		page := dir + ".pdf"
		if err := writePDF(page, 1); err != nil {
			return err
		}
		defer os.Remove(page)
		samples = []string{page}
	}
	const perDirectory = 1000
	for i := range a.documents {
		sub := filepath.Join(dir, fmt.Sprintf("%04d", i/perDirectory))
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return err
		}
		for _, sample := range samples {
			if err := os.Link(sample, filepath.Join(sub, fmt.Sprintf("%04d-%s", i%perDirectory, filepath.Base(sample)))); err != nil {
				return err
			}
		}
	}
	return nil
}

// point measures one amount of work.
func (b *bench) point(ctx context.Context, cfg CurveConfig, a amount, dir string, least int, r *CurveResult) (Point, error) {
	p := Point{What: a.what}
	debug.FreeOSMemory() // what the point before has left
	d, err := orchestrator.New(cfg.Engine)
	if err != nil {
		return p, err
	}
	defer d.Close()
	r.Workers, r.Bound = d.Settings().Workers, d.MemoryBound()
	do := func(path string) (orchestrator.Summary, error) {
		source, done, err := cfg.Walk(path)
		if err != nil {
			return orchestrator.Summary{}, err
		}
		s, err := run(ctx, d, source, cfg.Results)
		if doneErr := done(); err == nil {
			err = doneErr
		}
		return s, err
	}
	// The first page of a worker process costs what its start costs, which has
	// nothing to do with how many there are.
	warm := filepath.Join(cfg.Dir, "warm.pdf")
	if err := writePDF(warm, min(least, 64)); err != nil {
		return p, err
	}
	defer os.Remove(warm)
	if _, err := do(warm); err != nil {
		return p, err
	}
	if err := measure.ResetPeak(b.cfg.server()); err != nil {
		return p, err
	}
	before, err := b.read()
	if err != nil {
		return p, err
	}
	var elapsed time.Duration
	for p.Pages < least {
		cfg.Progress(fmt.Sprintf("%s, %d of them: %d pages so far", a.what, a.documents, p.Pages))
		s, err := do(dir)
		if err != nil {
			return p, err
		}
		if s.Pages.Done == 0 {
			return p, fmt.Errorf("no page of %s is done", a.what)
		}
		p.Runs++
		p.Documents = int(s.Documents.Ended())
		p.Pages += int(s.Pages.Done)
		p.Failed += int(s.Pages.Failed)
		elapsed += s.Elapsed
	}
	after, err := b.read()
	if err != nil {
		return p, err
	}
	m, err := measure.PeakMemory(b.cfg.server())
	if err != nil {
		return p, err
	}
	s := after.sub(before)
	p.PagesPerSecond = float64(p.Pages) / elapsed.Seconds()
	p.Wall, p.MuPDF = perPage(elapsed.Seconds(), p.Pages), perPage(s.mupdf.Seconds(), p.Pages)
	p.Own = perPage((s.cpu.Render - s.mupdf + s.cpu.Quire + s.cpu.Other + s.cpu.Guard).Seconds(), p.Pages)
	p.Memory = m.Peak
	p.Pages /= p.Runs
	p.Failed /= p.Runs
	return p, nil
}

// Text writes a curve for people.
func (r *CurveResult) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "model     %s version %s (%s) at %s\nmachine   %s, %s, %s\n", r.Model.Name, r.Model.Version, r.Model.Kind, r.Model.Server,
		r.Machine.CPU, count(r.Machine.Cores, "core"), r.Machine.Kernel)
	fmt.Fprintf(&b, "memory    of quire's processes, the server apart; page buffers are bounded at %s MB, %s\n", mega(r.Bound), count(r.Workers, "render worker"))
	what := ""
	for _, p := range r.Points {
		if p.What != what {
			what = p.What
			fmt.Fprintf(&b, "\n%-20s %6s %9s   %-24s %9s %8s\n%10s %9s %6s %9s %8s %8s %6s %9s %8s\n",
				what, "", "", "   CPU-ms a page", "against", "memory",
				"documents", "pages", "runs", "pages/s", "drawing", "quire", "", "first", "MB")
		}
		fmt.Fprintf(&b, "%10d %9d %6d %9.1f %8.2f %8.2f %6s %9.3f %8s\n",
			p.Documents, p.Pages, p.Runs, p.PagesPerSecond, p.MuPDF, p.Own, "", p.Cost, mega(p.Memory))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
