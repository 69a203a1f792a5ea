package tune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"quire/orchestrator/internal/measure"
)

// Objective is what the search makes large or small.
type Objective int

// The objectives.
const (
	// Throughput is the most pages a second.
	Throughput Objective = iota
	// Latency is the lowest 99th percentile of a page's time, at 80 % of the
	// rate that the server does as it is.
	Latency
)

// ParseObjective reads "throughput" or "latency".
func ParseObjective(word string) (Objective, error) {
	switch word {
	case "throughput":
		return Throughput, nil
	case "latency":
		return Latency, nil
	}
	return 0, fmt.Errorf("objective %q: it is throughput or latency", word)
}

func (o Objective) String() string { return [...]string{"throughput", "latency"}[o] }

// Config is what to search for, and within what. Zero means the default.
type Config struct {
	// Start is what is served now. Required.
	Start Settings
	// Objective is what counts.
	Objective Objective
	// MaxP99 is the most that the 99th percentile of a page's time may be, also
	// at the peak of what the server does when the objective is throughput; 0:
	// no limit.
	MaxP99 time.Duration
	// MaxGPUMemory is the most GPU memory that the server may be seen to use,
	// in bytes; 0: no limit.
	MaxGPUMemory int64
	// Fields are those that may change. Default: all.
	Fields []Field
	// MaxBatch is the largest max_batch_size to try. Default 64.
	MaxBatch int
	// Devices is by how many instances their number rises. Default 1; negative:
	// it stays.
	Devices int
	// Rendering has the choice made with rendering, as a run has it, so that a
	// gain is one that a run has. Without it the server alone counts.
	Rendering bool
	// Exhaustive has every setting of a grid tried, in the place of those that
	// look promising, under the load that decides: batch sizes and instances,
	// each in doublings up to the most, and so many requests under way that
	// none, one and several are ready when an instance is. [Measurements] and
	// Deadline do not count then.
	Exhaustive bool
	// Deadline is when the choice should be made; zero: when it is done. The
	// search leaves out what there is no time for.
	Deadline time.Time
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Progress is told before each measurement; nil for nobody.
	Progress func(Step)
}

// Step is a measurement that is about to be made.
type Step struct {
	// Stage says what is being looked for.
	Stage string
	// Number counts from 1 to Of at most.
	Number, Of int
	// Settings and Load are what is measured; nil settings are none.
	Settings *Settings
	Load     Load
}

// Measurements is the most windows and curves that a search takes.
const Measurements = 30

const (
	// instancesEach is the most instances to try on each device.
	instancesEach = 4
	// worth is the least gain that is worth a change, and what single windows
	// are taken to tell apart.
	worth = 0.02
	// stableWithin is how close the last three windows are when they are stable.
	stableWithin = measure.StableSpread - 1
	// peakShare is the part of the peak at which latency is looked at: a
	// server that is fed at its peak has a queue and no latency to speak of.
	peakShare = 0.8
	// shortAge is a wait for company that pages hardly notice.
	shortAge = 5 * time.Millisecond
	// renderingShare is the part of the rate of drawing alone from which on
	// drawing is the limit.
	renderingShare = 0.95
	// drawings is how often drawing alone is measured until it counts as the
	// limit.
	drawings = 3
	// ahead is how many times the rate of drawing alone the server does alone
	// when it is no limit: what it could do beyond that no run would have.
	ahead = 1.5
	// chance is the part of the start's rate below which, in a single window, a
	// trial is not worth being measured again.
	chance = 0.8
	// rounds are how often each finalist is measured, minRounds how often at
	// least when there is no time, and moreRounds how often the start and the
	// best finalist are measured once more when three windows leave a doubt.
	rounds, minRounds, moreRounds = 3, 2, 2
	// finalists are those that meet the start again, at most.
	finalists = 2
	// inFinals is how many windows the finals take at most, with those of show.
	inFinals = (finalists+1)*rounds + 2*moreRounds + 2
)

// exhaustiveMeasurements is more than any grid takes.
const exhaustiveMeasurements = 100_000

func (c Config) withDefaults() Config {
	if c.Exhaustive {
		c.Deadline = time.Time{}
	}
	c.MaxBatch = max(cmp.Or(c.MaxBatch, 64), c.Start.MaxBatch)
	c.Devices = cmp.Or(c.Devices, 1)
	if len(c.Fields) == 0 {
		c.Fields = Fields()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Progress == nil {
		c.Progress = func(Step) {}
	}
	return c
}

// Trial is settings and what was measured with them.
type Trial struct {
	Settings Settings
	// Stage says what was being looked for when they were tried first.
	Stage string
	// Infeasible says why they cannot be served, or are over a limit.
	Infeasible string
	// Alone, Pipeline and Open are the windows under each kind of load, in the
	// order in which they were taken.
	Alone, Pipeline, Open []Window
	// Deciding are those of them that the choice was made by.
	Deciding []Window

	// like is a trial that does the same at the peak, which was not measured
	// once more.
	like *Trial
}

// windows are those under one kind of load.
func (t *Trial) windows(k LoadKind) *[]Window {
	return [...]*[]Window{Saturated: &t.Alone, Pipeline: &t.Pipeline, Open: &t.Open}[k]
}

// Result is what a search found.
type Result struct {
	// Trials are all settings that were tried, in order; the start is first.
	Trials []*Trial
	// Start and Chosen are two of them, and the same one when there is nothing
	// to gain.
	Start, Chosen *Trial
	// Finalists are the trials that met the start again.
	Finalists []*Trial
	// Gain is how much better Chosen is than Start, in what the objective
	// counts: 0.5 is half as many pages a second again, or a p99 that is a
	// third lower.
	Gain float64
	// Spread is how far apart the windows of the start are that the choice was
	// made by, largest over smallest less 1.
	Spread float64
	// Needed is the gain that a change had to have: the largest spread of any
	// finalist, or more where windows were few; 0 when there was no choice.
	Needed float64
	// Stable tells whether the last three windows of the start, and those of
	// the choice, are within 5 %.
	Stable bool
	// Rendering is how many pages a second this machine draws; 0 when that was
	// not measured.
	Rendering float64
	// RenderingLimits tells that drawing was found to be the limit, and the
	// search ended.
	RenderingLimits bool
	// OpenRate is the rate of the Open loads that a latency was looked for at.
	OpenRate float64
	// Curve is compute time against batch size.
	Curve Curve
	// Measurements is how many were made.
	Measurements int
	// Unfinished is the stage that was cut short for want of measurements, or
	// of time; empty: none was.
	Unfinished string
	// OutOfTime tells that it was for want of time.
	OutOfTime bool
}

// Search looks for better settings than the start. It ends with what it has when
// the deadline comes, and with an error when bench fails or ctx ends; the result
// then has what was measured.
func Search(ctx context.Context, cfg Config, bench Bench) (*Result, error) {
	s := &search{cfg: cfg.withDefaults(), most: Measurements, bench: bench, known: map[Settings]*Trial{}, result: &Result{}}
	if cfg.Exhaustive {
		s.most = exhaustiveMeasurements
	}
	err := s.run(ctx)
	return s.result, err
}

type search struct {
	cfg    Config
	most   int // measurements
	bench  Bench
	result *Result
	stage  string
	known  map[Settings]*Trial
	best   *Trial  // of those that may be chosen, by their first window
	top    float64 // the best score of those that were best

	windows   int           // that were taken
	measuring time.Duration // what they took
}

// These end a stage.
var (
	errTime  = errors.New("no time left")
	errSpent = errors.New("no measurements left")
)

func (s *search) run(ctx context.Context) error {
	s.stage = "start"
	start := s.trial(s.cfg.Start)
	s.result.Start, s.result.Chosen, s.best = start, start, start
	if err := s.begin(ctx, start); err != nil || s.result.RenderingLimits {
		return err
	}
	explore := s.explore
	if s.cfg.Exhaustive {
		explore = s.sweep
	}
	if err := explore(ctx); err != nil && !s.cutShort(err) {
		return err
	}
	return s.finals(ctx)
}

// cutShort notes that the stage ends for want of something, if that is what err
// says.
func (s *search) cutShort(err error) bool {
	if !errors.Is(err, errTime) && !errors.Is(err, errSpent) {
		return false
	}
	if s.result.Unfinished == "" {
		s.result.Unfinished, s.result.OutOfTime = s.stage, errors.Is(err, errTime)
	}
	return true
}

// begin measures the start.
func (s *search) begin(ctx context.Context, start *Trial) error {
	alone, err := s.measure(ctx, start, Load{Kind: Saturated})
	if err != nil {
		return cannotStart(err)
	}
	if s.cfg.Objective == Latency {
		s.result.OpenRate = peakShare * alone.PagesPerSecond
		if _, err := s.measure(ctx, start, s.screening()); err != nil {
			return cannotStart(err)
		}
	}
	if !s.cfg.Rendering {
		return nil
	}
	pipeline, err := s.measure(ctx, start, Load{Kind: Pipeline})
	if err != nil {
		return cannotStart(err)
	}
	// One window of drawing that something else slowed down would make it the
	// limit.
	for again := 0; again == 0 || again < drawings && pipeline.PagesPerSecond >= renderingShare*s.result.Rendering; again++ {
		if err := s.draw(ctx); err != nil {
			return err
		}
	}
	if s.cfg.Objective != Throughput || s.cfg.Exhaustive || pipeline.PagesPerSecond < renderingShare*s.result.Rendering || start.Infeasible != "" {
		return nil
	}
	// Whatever the server does, there are no more pages for it.
	s.result.RenderingLimits = true
	for range 2 {
		if _, err := s.measure(ctx, start, Load{Kind: Pipeline}); err != nil {
			return cannotStart(err)
		}
	}
	start.Deciding = start.Pipeline
	s.result.Spread, s.result.Stable = spread(s.scores(start.Deciding)), stable(s.scores(start.Deciding))
	return nil
}

// draw measures drawing alone. What disturbs it makes it slower, so the fastest
// counts.
func (s *search) draw(ctx context.Context) error {
	s.result.Measurements++
	s.cfg.Progress(Step{Stage: "rendering", Number: s.result.Measurements, Of: s.most})
	rate, err := s.bench.Rendering(ctx)
	s.result.Rendering = max(s.result.Rendering, rate)
	return err
}

// cannotStart is the error of a server that does not do what it is set to do.
func cannotStart(err error) error {
	if no, ok := errors.AsType[*Infeasible](err); ok {
		return fmt.Errorf("the config that is served now cannot be measured: %w", no)
	}
	return err
}

// screening is the load of single windows: the steadiest one, or, when every
// setting is to be tried for what it is worth, the one that decides.
func (s *search) screening() Load {
	if s.cfg.Objective == Throughput && !s.cfg.Exhaustive {
		return Load{Kind: Saturated}
	}
	return s.deciding()
}

// deciding is the load of the windows that the choice is made by.
func (s *search) deciding() Load {
	switch {
	case s.cfg.Objective == Latency:
		return Load{Open, s.result.OpenRate}
	case s.cfg.Rendering:
		return Load{Kind: Pipeline}
	}
	return Load{Kind: Saturated}
}

// enough is the rate of the server alone from which on it is no limit to a run.
func (s *search) enough() float64 {
	if s.deciding().Kind != Pipeline || s.cfg.Exhaustive || s.result.Rendering <= 0 {
		return math.Inf(1)
	}
	return ahead * s.result.Rendering
}

// maxInstances is the most instances to try.
func (s *search) maxInstances() int {
	return max(instancesEach*max(1, s.cfg.Devices), s.cfg.Start.Instances)
}

func (s *search) may(f Field) bool {
	return slices.Contains(s.cfg.Fields, f) && (f != FieldInstances || s.cfg.Devices > 0)
}

// try measures the best settings with a change, once, and makes them the best
// if they are better.
func (s *search) try(ctx context.Context, change func(*Settings)) error {
	t := s.best.Settings
	change(&t)
	for _, f := range Fields() {
		if !s.may(f) {
			t = t.with(s.cfg.Start, f)
		}
	}
	t.InFlight = max(1, t.InFlight)
	if s.may(FieldBatch) {
		t.Batch = min(t.Batch, t.MaxBatch)
	}
	if t.Batch > t.MaxBatch || s.known[t] != nil {
		return nil
	}
	if err := s.another(1); err != nil {
		return err
	}
	trial := s.trial(t)
	w, err := s.measure(ctx, trial, s.screening())
	if infeasible(err) {
		return nil
	} else if err != nil {
		return err
	}
	if trial.Infeasible == "" && s.better(trial, w) {
		s.best = trial
	}
	s.top = max(s.top, s.score(s.first(s.best)))
	return nil
}

// better tells whether a trial's window beats the best trial: it is above it by
// more than noise, or as good as any and simpler.
func (s *search) better(t *Trial, w Window) bool {
	score, best := s.score(w), s.score(s.first(s.best))
	return s.best.Infeasible != "" || score > best*(1+worth) ||
		s.best != s.result.Start && score > s.top*(1-worth) && simpler(t.Settings, s.best.Settings) < 0
}

// first is the window that a trial was screened by.
func (s *search) first(t *Trial) Window {
	if t.like != nil {
		t = t.like
	}
	if windows := *t.windows(s.screening().Kind); len(windows) > 0 {
		return windows[0]
	}
	return Window{}
}

// score is what the objective counts, larger is better.
func (s *search) score(w Window) float64 {
	if s.cfg.Objective == Latency {
		if w.P99 <= 0 {
			return 0
		}
		return 1 / w.P99.Seconds()
	}
	return w.PagesPerSecond
}

func (s *search) scores(windows []Window) []float64 {
	list := make([]float64, len(windows))
	for i, w := range windows {
		list[i] = s.score(w)
	}
	return list
}

// trial is the one of these settings.
func (s *search) trial(t Settings) *Trial {
	if s.known[t] == nil {
		s.known[t] = &Trial{Settings: t, Stage: s.stage}
		s.result.Trials = append(s.result.Trials, s.known[t])
	}
	return s.known[t]
}

// measure takes one window and keeps it.
func (s *search) measure(ctx context.Context, t *Trial, load Load) (Window, error) {
	s.result.Measurements++
	s.cfg.Progress(Step{Stage: s.stage, Number: s.result.Measurements, Of: s.most, Settings: &t.Settings, Load: load})
	began := s.cfg.Now()
	w, err := s.bench.Measure(ctx, t.Settings, load)
	s.windows++
	s.measuring += s.cfg.Now().Sub(began)
	if err != nil {
		if no, ok := errors.AsType[*Infeasible](err); ok {
			t.Infeasible = no.Reason
		}
		return w, err
	}
	windows := t.windows(load.Kind)
	*windows = append(*windows, w)
	if t.Infeasible == "" && (load.Kind == s.screening().Kind || load.Kind == s.deciding().Kind) {
		t.Infeasible = s.over(w)
	}
	return w, nil
}

// over says which limit a window is over.
func (s *search) over(w Window) string {
	switch {
	case s.cfg.MaxP99 > 0 && w.P99 > s.cfg.MaxP99:
		return fmt.Sprintf("p99 of %v is over %v", w.P99.Round(100*time.Microsecond), s.cfg.MaxP99)
	case s.cfg.MaxGPUMemory > 0 && w.GPUMemory > s.cfg.MaxGPUMemory:
		return fmt.Sprintf("%d bytes of GPU memory are over %d", w.GPUMemory, s.cfg.MaxGPUMemory)
	}
	return ""
}

// another is an error when n more measurements would leave too little for the
// finals.
func (s *search) another(n int) error {
	if s.result.Measurements+n+inFinals > s.most {
		return errSpent
	}
	return s.inTime(n + (finalists+1)*minRounds + 1)
}

// room is an error when there is none for n more measurements.
func (s *search) room(n int) error {
	if s.result.Measurements+n > s.most {
		return errSpent
	}
	return s.inTime(n)
}

// inTime is errTime when n more measurements would go beyond the deadline, if
// they take as long as those before.
func (s *search) inTime(n int) error {
	if s.cfg.Deadline.IsZero() {
		return nil
	}
	each := s.measuring / time.Duration(max(1, s.windows))
	if s.cfg.Now().Add(time.Duration(n) * each).After(s.cfg.Deadline) {
		return errTime
	}
	return nil
}
