package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/measure"
	"quire/tritonclient"
)

// Kind is what the served model is.
type Kind string

// The kinds of model.
const (
	// KindLayout is a model that finds layout.
	KindLayout Kind = "layout"
	// KindInstant computes nothing and answers at once, as a very fast GPU
	// would.
	KindInstant Kind = "instant"
	// KindGPULike computes nothing and takes as long as a GPU might: a price a
	// batch and a little for each page.
	KindGPULike Kind = "gpu-like"
)

// Results makes a sink for one run, and finish, which is called with what became
// of the run.
type Results func() (sink orchestrator.Sink, finish func(context.Context, orchestrator.Summary, error) error, err error)

// Config is what to measure and how. Zero means the default.
type Config struct {
	// Engine is the engine's configuration, Renderer and Model included.
	Engine orchestrator.Config
	// Kind is what the model is. Default KindLayout.
	Kind Kind
	// Client asks the server for its statistics. Required.
	Client *tritonclient.Client
	// Where says where the server is, and ToolVersion what is measured.
	Where, ToolVersion string
	// Server gives the process ID of the server, if this program started it;
	// nil if not.
	Server func() int
	// Near tells that a server which this program did not start may run on this
	// machine, so that its work is among that of other programs.
	Near bool
	// MuPDF gives the processor time that the renderer's workers have spent
	// drawing; nil if nobody knows.
	MuPDF func() time.Duration

	// Documents are taken from Source, in a sample that does not depend on
	// chance, until they have at least Pages pages. Default 200. A document with
	// more than that is left out, unless there is no other.
	Source orchestrator.Source
	Pages  int
	// Results is where results go. Required.
	Results Results

	// Repeat is how many rounds of windows are taken at least. Default 5.
	Repeat int
	// MinTime is how long a window is, about: the set is drawn so many times as
	// took that long at first. Default 5 s.
	MinTime time.Duration
	// Budget is how long more rounds are taken for as long as they do not agree.
	// Default 3 minutes; negative: no more than Repeat.
	Budget time.Duration
	// PerfAnalyzer is a program to be asked about the server alone as well,
	// NVIDIA's perf_analyzer; empty for none.
	PerfAnalyzer string
	// Progress hears what is being done.
	Progress func(string)
}

func (c Config) withDefaults() Config {
	c.Kind = cmp.Or(c.Kind, KindLayout)
	c.Pages = cmp.Or(c.Pages, 200)
	c.Repeat = cmp.Or(c.Repeat, 5)
	c.MinTime = cmp.Or(c.MinTime, 5*time.Second)
	c.Budget = cmp.Or(c.Budget, 3*time.Minute)
	if c.MuPDF == nil {
		c.MuPDF = func() time.Duration { return 0 }
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	return c
}

func (c Config) server() int {
	if c.Server == nil {
		return 0
	}
	return c.Server()
}

// limitKind is what the whole is held against.
func (c Config) limitKind() LimitKind {
	switch {
	case c.Kind == KindInstant:
		return LimitRendering
	case c.Kind == KindGPULike || c.Server == nil:
		return LimitSlower
	}
	return LimitCores
}

// Run measures. It starts render workers and page buffers of its own, and ends
// them; the server, the model and the client stay the caller's. Its error is
// ctx's, or about what makes measuring impossible; nothing that was measured is
// returned with it.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Engine.Model == nil || cfg.Engine.Renderer == nil || cfg.Client == nil || cfg.Source == nil || cfg.Results == nil {
		return nil, errors.New("bench: Config has no Model, Renderer, Client, Source or Results")
	}
	b := &bench{cfg: cfg.withDefaults(), cores: cores()}
	defer b.close()
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	if err := b.repeats(ctx); err != nil {
		return nil, err
	}
	if cfg.PerfAnalyzer != "" {
		b.cfg.Progress("perf_analyzer")
		if b.perf, b.perfErr = b.perfAnalyzer(ctx); ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	if err := b.last(ctx); err != nil {
		return nil, err
	}
	return b.result(), nil
}

// bench is one measurement.
type bench struct {
	cfg   Config
	cores int

	set       []measure.Document
	found     int
	pages     int // of the set
	rendering *measure.Rendering
	serving   *measure.Serving
	detector  *orchestrator.Detector
	settings  orchestrator.Config
	bound     int64
	// How often the set is drawn in one window, so that each window has the
	// same pages and is long enough.
	renderTimes, wholeTimes int

	rounds []Repeat
	sum    sums
	ledger ledger
	events measure.Events
	memory measure.Memory

	perf    *PerfAnalyzer
	perfErr error
}

// shared tells whether pages go to the server through shared memory.
func (b *bench) shared() bool {
	return b.cfg.Engine.Model.Input().SharedMemory && b.cfg.Engine.SharedMemoryPrefix != ""
}

func (b *bench) close() {
	b.closeLoads()
	if b.detector != nil {
		b.detector.Close()
	}
}

func (b *bench) closeLoads() {
	if b.rendering != nil {
		b.rendering.Close()
	}
	if b.serving != nil {
		b.serving.Close()
	}
	b.rendering, b.serving = nil, nil
}

// prepare chooses the pages, makes the loads and runs each once, to warm it up
// and to learn how long it takes.
func (b *bench) prepare(ctx context.Context) error {
	cfg := b.cfg
	in := cfg.Engine.Model.Input()
	cfg.Progress("counting pages")
	candidates, found := measure.Sample(ctx, cfg.Source, cfg.Pages, 0)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	set, err := measure.Count(ctx, cfg.Engine.Renderer, in, candidates, cfg.Pages)
	if err != nil {
		return err
	}
	if len(set) == 0 {
		return fmt.Errorf("none of the %d documents tried can be opened: quire plan says why", len(candidates))
	}
	b.set, b.found = set, found
	for _, d := range b.set {
		b.pages += d.Pages
	}

	if b.detector, err = orchestrator.New(cfg.Engine); err != nil {
		return err
	}
	b.settings, b.bound = b.detector.Settings(), b.detector.MemoryBound()
	if b.rendering, err = measure.NewRendering(ctx, cfg.Engine.Renderer, in, b.cores); err != nil {
		return err
	}
	cfg.Progress("warming up: rendering")
	keep := &keeper{most: b.settings.Batch * b.settings.InFlight}
	drawn, err := b.rendering.Draw(ctx, b.set, 1, keep.add)
	if err != nil {
		return err
	}
	if drawn.Pages == 0 {
		return fmt.Errorf("none of %d pages can be drawn: quire run says why", b.pages)
	}
	b.renderTimes = timesFor(cfg.MinTime, drawn.Elapsed)

	cfg.Progress("warming up: the server")
	b.serving, err = measure.NewServing(measure.ServerConfig{
		Model: cfg.Engine.Model, Pages: keep.pages, Batch: b.settings.Batch, InFlight: b.settings.InFlight,
		SharedMemoryPrefix: cfg.Engine.SharedMemoryPrefix,
	})
	if err != nil {
		return err
	}
	keep = nil
	b.counted(ctx) // before the first request of ours
	answered, err := b.ask(ctx, cfg.MinTime/5)
	if err != nil {
		return err
	}
	if answered.Pages == 0 {
		return fmt.Errorf("the server answers no page: %w", answered.Err)
	}

	cfg.Progress("warming up: the whole")
	whole, err := b.run(ctx, 1)
	if err != nil {
		return err
	}
	b.wholeTimes = timesFor(cfg.MinTime, whole.Elapsed)
	return nil
}

func timesFor(least, once time.Duration) int {
	return max(1, int(math.Ceil(least.Seconds()/max(once.Seconds(), 1e-3))))
}

// repeats takes rounds until enough of them agree or the time is up.
func (b *bench) repeats(ctx context.Context) error {
	begin := time.Now()
	var rates []float64
	for {
		n := len(b.rounds) + 1
		round := fmt.Sprintf("round %d of %d", n, b.cfg.Repeat)
		if n > b.cfg.Repeat {
			round = fmt.Sprintf("round %d, until three agree", n)
		}
		r, err := b.round(ctx, round)
		if err != nil {
			return err
		}
		b.rounds = append(b.rounds, r)
		rates = append(rates, r.Whole.PagesPerSecond)
		_, stable := measure.Stable(rates)
		if n >= b.cfg.Repeat && (stable || b.cfg.Budget < 0 || time.Since(begin) > b.cfg.Budget) {
			return nil
		}
	}
}

// round takes one window of each kind, one right after the other, so that a
// machine that drifts hits all alike.
func (b *bench) round(ctx context.Context, name string) (r Repeat, err error) {
	b.cfg.Progress(name + ": rendering alone")
	r.Rendering, err = b.renderWindow(ctx)
	if err == nil {
		b.cfg.Progress(name + ": the server alone")
		r.Server, err = b.serverWindow(ctx)
	}
	if err == nil {
		b.cfg.Progress(name + ": the whole")
		r.Whole, err = b.wholeWindow(ctx)
	}
	return r, err
}

// result puts together what was measured.
func (b *bench) result() *Result {
	in, info := b.cfg.Engine.Model.Input(), b.cfg.Engine.Model.Info()
	transport := "grpc"
	if b.shared() {
		transport = "shm"
	}
	r := &Result{
		Schema: Schema, ToolVersion: b.cfg.ToolVersion, Measured: time.Now().UTC().Truncate(time.Second),
		Machine: machine(b.cores),
		Model:   Model{Name: info.Name, Version: info.Version, Kind: b.cfg.Kind, Server: b.cfg.Where, Ours: b.cfg.Server != nil, Near: b.cfg.Near && b.cfg.Server == nil},
		Settings: Settings{
			Workers: b.settings.Workers, Batch: b.settings.Batch, InFlight: b.settings.InFlight,
			MaxAgeMS: max(0, milliseconds(b.settings.MaxAge)), Instances: in.Instances,
			Transport: transport, WindowSeconds: b.cfg.MinTime.Seconds(),
		},
		Set:      Set{Found: b.found, Documents: len(b.set), Pages: b.pages},
		Warnings: []string{},
		Repeats:  b.rounds, PerfAnalyzer: b.perf,
		Memory: Memory{
			Peak: b.memory.Peak, Quire: b.memory.Quire, Workers: b.memory.Workers, Guard: b.memory.Guard, Bound: b.bound,
		},
		Events: Events{Tick: latency(b.events.Ticks), Request: latency(b.events.Requests)},
	}
	r.Rendering = median(b.rounds, func(r Repeat) Window { return r.Rendering })
	r.Server = median(b.rounds, func(r Repeat) Window { return r.Server })
	r.Whole = median(b.rounds, func(r Repeat) Window { return r.Whole })
	r.Limit = limit(b.cfg.limitKind(), b.cores, r.Rendering, r.Server)
	r.Limit.PagesPerSecond = finite(r.Limit.PagesPerSecond)
	r.Fraction = finite(r.Whole.PagesPerSecond / r.Limit.PagesPerSecond)
	var rates []float64
	for _, round := range b.rounds {
		rates = append(rates, round.Whole.PagesPerSecond)
	}
	r.Spread, r.Stable = measure.Stable(rates)
	r.Spread = finite(r.Spread)
	r.Parts, r.Use, r.Batches = b.sum.parts(), b.sum.use(b.settings.Workers, in.Instances), b.sum.batches()
	r.Bottleneck = bottleneck(r)
	r.Warnings = append(r.Warnings, b.warnings(r)...)
	return r
}

// warnings are the reasons to doubt the numbers.
func (b *bench) warnings(r *Result) (w []string) {
	if r.Model.Kind != KindLayout {
		w = append(w, fmt.Sprintf("the %s model finds no layout: it stands in for one that is faster, to measure everything else", r.Model.Kind))
	}
	if !r.Stable {
		if r.Spread == 0 {
			w = append(w, r.stableWords())
		} else if len(r.Repeats) < measure.StableWindows {
			w = append(w, fmt.Sprintf("not known to be stable: that takes %d rounds, see --repeat", measure.StableWindows))
		} else {
			w = append(w, r.stableWords()+" (at most 5 % would be stable)")
		}
	}
	if b.limited() {
		w = append(w, fmt.Sprintf("what other programs did is not known: quire has %d of the %d cores that it runs on (a CPU quota, or GOMAXPROCS)", b.cores, runtime.NumCPU()))
	}
	if other := r.foreign(); other > disturbance*float64(r.Machine.Cores) {
		w = append(w, fmt.Sprintf("other programs kept %.1f of %d cores busy meanwhile: measure again when the machine is quiet", other, r.Machine.Cores))
	}
	failed := 0
	for _, round := range r.Repeats {
		failed += round.Rendering.Failed + round.Server.Failed + round.Whole.Failed
	}
	if failed > 0 {
		w = append(w, fmt.Sprintf("%d pages failed in the windows, and are not counted", failed))
	}
	if b.perfErr != nil {
		w = append(w, fmt.Sprintf("perf_analyzer told nothing: %v", b.perfErr))
	}
	executed := 0
	for _, e := range r.Batches.Executed {
		executed += e.Size * e.Count
	}
	if r.Batches.Executed == nil {
		w = append(w, "the server's counters went back or did not answer: nothing is known of its batches")
	} else if executed != r.Batches.Pages {
		w = append(w, fmt.Sprintf("the server executed %d pages for %d of ours: others use it too, or it tried some again", executed, r.Batches.Pages))
	}
	return w
}

// median is the middle of the rounds, of rate and cost each.
func median(rounds []Repeat, of func(Repeat) Window) Stage {
	var rates, costs []float64
	for _, r := range rounds {
		rates, costs = append(rates, of(r).PagesPerSecond), append(costs, of(r).CPU)
	}
	return Stage{PagesPerSecond: measure.Median(rates), CPU: measure.Median(costs)}
}

func latency(l measure.Latencies) Latency {
	return Latency{P50: milliseconds(l.Percentile(50)), P99: milliseconds(l.Percentile(99)), Max: milliseconds(l.Max()), Count: len(l)}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
