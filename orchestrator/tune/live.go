package tune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/measure"
	"quire/tritonclient"
	"quire/tritonclient/metrics"
)

// LiveConfig says what a [Live] measures.
type LiveConfig struct {
	// Client and Server are the server, Model the model on it. Required.
	Client *tritonclient.Client
	Server *Server
	Model  orchestrator.Model
	// Sample is what it is asked about. Required.
	Sample *Sample
	// Renderer draws; Workers is how many pages at once. Default: the CPUs.
	Renderer orchestrator.Renderer
	Workers  int
	// Window is how long a measurement counts. Default 5 s.
	Window time.Duration
	// SharedMemoryPrefix starts the names of shared-memory objects, as the
	// engine's.
	SharedMemoryPrefix string
	// Metrics reads the server's, which tell the use and the memory of its GPUs;
	// nil: nobody does.
	Metrics func(context.Context) (metrics.Metrics, error)
	// Log is told of windows that are thrown away; nil for nobody.
	Log *slog.Logger
}

// Live is a [Bench] for a server that runs.
type Live struct {
	cfg    LiveConfig
	log    *slog.Logger
	loader loader
	// warmed are the sizes of batches that the server has executed since it
	// serves as warmFor says.
	warmFor Settings
	warmed  []int
}

// NewLive returns a bench; it measures nothing yet.
func NewLive(cfg LiveConfig) *Live {
	if cfg.Workers == 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.Window == 0 {
		cfg.Window = 5 * time.Second
	}
	l := &Live{cfg: cfg, log: cfg.Log, loader: loader{
		model: cfg.Model, prefix: cfg.SharedMemoryPrefix, pages: cfg.Sample.pages,
		renderer: cfg.Renderer, documents: cfg.Sample.documents, workers: cfg.Workers,
	}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	return l
}

// Workers is how many pages it draws at once.
func (l *Live) Workers() int { return l.cfg.Workers }

const (
	// warmShare is the part of a window that goes before it and does not count.
	warmShare = 0.2
	// tries is how often a window is taken until one can be used.
	tries = 4
	// away is how long a server may be away, unready how long it may be there
	// without the model, which is then loaded anew.
	away, unready = time.Minute, 10 * time.Second
	// crashes is how often the server, or the model, has to go away under the
	// same settings until these are why.
	crashes = 2
	// countEvery is how often counters are read while they are not settled,
	// countLate when it is too late for that.
	countEvery, countLate = 5 * time.Millisecond, 2 * time.Second
)

// errUnusable is a window that says nothing about the settings.
type errUnusable struct {
	reason string
	// away tells that the server, or the model, was not there. If it is so
	// again, it is the settings.
	away bool
}

func (e errUnusable) Error() string { return e.reason }

// Curve implements [Bench].
func (l *Live) Curve(ctx context.Context, sizes []int) (Curve, error) {
	largest := sizes[len(sizes)-1]
	t := l.cfg.Server.start
	t.Batch, t.InFlight, t.Delay = 1, 1, 0
	var curve Curve
	for t.MaxBatch = largest; ; t.MaxBatch /= 2 {
		err := l.usable(ctx, func() error { return l.serve(ctx, t) })
		if err == nil {
			break
		}
		no, ok := errors.AsType[*Infeasible](err)
		if !ok || t.MaxBatch == 1 {
			return curve, err
		}
		curve.Stopped = no.Reason
	}
	c := curveTaker{live: l, curve: &curve, stop: time.Now().Add(max(curveWindows*l.cfg.Window, leastCurve)), largest: t.MaxBatch}
	// The powers of two tell where to look closer.
	if err := c.take(ctx, sizes, func(n int) bool { return n&(n-1) == 0 }); err != nil {
		return curve, err
	}
	if c.best > 0 {
		if err := c.take(ctx, sizes, func(n int) bool { return n&(n-1) != 0 && n > c.best/2 && n < 2*c.best && n < c.reached }); err != nil {
			return curve, err
		}
	}
	if len(curve.Points) == 0 {
		return curve, &Infeasible{Reason: curve.Stopped}
	}
	slices.SortFunc(curve.Points, func(a, b Point) int { return a.Size - b.Size })
	return curve, nil
}

const (
	// curveWindows is how many windows a curve may take, leastCurve how long in
	// any case.
	curveWindows = 2
	leastCurve   = 1500 * time.Millisecond
	// flat is how many doublings in a row have to gain nothing to end it.
	flat = 2
)

// curveTaker takes the points of a curve.
type curveTaker struct {
	live    *Live
	curve   *Curve
	stop    time.Time
	largest int // that is served
	reached int // the largest that worked
	best    int
	rate    float64 // of the best
}

// take adds the sizes that want says yes to, in order.
func (c *curveTaker) take(ctx context.Context, sizes []int, want func(int) bool) error {
	worse := 0
	for _, n := range sizes {
		if n > c.largest || !want(n) {
			continue
		}
		p, err := c.live.point(ctx, n)
		if no, ok := errors.AsType[*Infeasible](err); ok {
			c.curve.Stopped = fmt.Sprintf("batches of %d: %s", n, no.Reason)
			return nil
		} else if err != nil {
			return err
		}
		c.curve.Points = append(c.curve.Points, p)
		c.reached = max(c.reached, n)
		if r := p.rate(); r > c.rate*(1+worth) {
			c.best, c.rate, worse = n, r, 0
		} else if worse++; worse == flat && n > c.best {
			c.curve.Stopped = fmt.Sprintf("batches beyond %d gain nothing", c.best)
			return nil
		}
		if time.Now().After(c.stop) && len(c.curve.Points) >= 4 {
			if n < sizes[len(sizes)-1] {
				c.curve.Stopped = cmp.Or(c.curve.Stopped, "there was no time for other sizes")
			}
			return nil
		}
	}
	return nil
}

// pointReadings is how often a batch size is measured. The fastest counts: what
// makes an execution slower now and then says nothing about the size.
const pointReadings = 3

// point measures one batch size: each request is one execution.
func (l *Live) point(ctx context.Context, n int) (Point, error) {
	var p Point
	window := max(l.cfg.Window/20, 50*time.Millisecond) / pointReadings
	err := l.usable(ctx, func() error {
		p = Point{}
		serving, err := l.serving(ctx, n, 1)
		if err != nil {
			return err
		}
		defer serving.Close()
		for range pointReadings {
			before, err := l.counters(ctx)
			if err != nil {
				return err
			}
			a, err := l.ask(ctx, serving, window)
			if err != nil {
				return err
			}
			delta, err := l.counted(ctx, before, a.Requests)
			if err != nil {
				return err
			}
			for _, b := range delta.Batches {
				took := b.ComputeInput.Mean() + b.ComputeInfer.Mean() + b.ComputeOutput.Mean()
				if int(b.Size) == n && took > 0 && (p.Compute == 0 || took < p.Compute) {
					p = Point{Size: n, Compute: took}
				}
			}
		}
		if p.Compute <= 0 {
			return errUnusable{reason: fmt.Sprintf("the server counted no batch of %d", n)}
		}
		return nil
	})
	return p, err
}

// Measure implements [Bench].
func (l *Live) Measure(ctx context.Context, t Settings, load Load) (Window, error) {
	var w Window
	err := l.usable(ctx, func() error {
		if err := l.serve(ctx, t); err != nil {
			return err
		}
		if err := l.warm(ctx, t); err != nil {
			return err
		}
		var err error
		w, err = l.window(ctx, t, load)
		return err
	})
	return w, err
}

// Rendering implements [Bench].
func (l *Live) Rendering(ctx context.Context) (float64, error) {
	drawing, err := measure.NewRendering(ctx, l.cfg.Renderer, l.cfg.Model.Input(), l.cfg.Workers)
	if err != nil {
		return 0, err
	}
	defer drawing.Close()
	r := newRecord(time.Duration(warmShare*float64(l.cfg.Window)), l.cfg.Window)
	timed, stop := context.WithCancel(ctx)
	defer stop()
	var keeper sync.WaitGroup
	keeper.Go(func() {
		r.keep(timed)
		stop()
	})
	_, err = drawing.Draw(timed, l.cfg.Sample.documents, endlessly, func(measure.Document, int, []byte) { r.ended(time.Now(), 1) })
	stop()
	keeper.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return 0, err
	}
	if r.rate() == 0 {
		return 0, fmt.Errorf("not two pages were drawn in %v: give tune more time with --budget", longer*l.cfg.Window)
	}
	return r.rate(), nil
}

// usable takes a window again, as long as it says nothing about the settings.
func (l *Live) usable(ctx context.Context, take func() error) error {
	wentAway := 0
	for try := 1; ; try++ {
		err := take()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		unusable, ok := err.(errUnusable)
		if !ok {
			return err
		}
		l.log.Warn("a window is thrown away", "reason", unusable.reason, "try", try)
		// The server may have started anew.
		l.cfg.Server.Forget()
		l.warmed = nil
		if unusable.away {
			wentAway++
		}
		switch {
		case wentAway == crashes:
			return &Infeasible{Reason: unusable.reason}
		case try == tries:
			return fmt.Errorf("%d windows in a row cannot be used, the last because %s: run tune when the server has nothing else to do", tries, unusable.reason)
		}
	}
}

// serve has the server serve as t says, and the model know.
func (l *Live) serve(ctx context.Context, t Settings) error {
	err := l.cfg.Server.Apply(ctx, t)
	if err == nil {
		err = l.cfg.Model.Refresh(ctx)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return l.gone(ctx, err)
}

// gone waits for a server, or a model, that may have gone, as err says. The
// error is errUnusable if it is to be tried once more.
func (l *Live) gone(ctx context.Context, err error) error {
	kind := tritonclient.KindOf(err)
	what, most := "the server went away", away
	switch me := (*orchestrator.ModelError)(nil); {
	case kind == tritonclient.ModelNotReady:
		what, most = "the model was not ready", unready
	case kind != tritonclient.Unavailable && !(errors.As(err, &me) && me.Action == orchestrator.ActionWait):
		return err
	}
	l.log.Warn(what, "err", err)
	wait, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if l.cfg.Model.WaitReady(wait) != nil && kind != tritonclient.ModelNotReady {
		return err
	}
	return errUnusable{reason: what + ": " + messageOf(err), away: true}
}

// failed says what it means that a request failed with an error.
func (l *Live) failed(ctx context.Context, said error) error {
	var me *orchestrator.ModelError
	if errors.As(said, &me) {
		switch me.Action {
		case orchestrator.ActionWait:
			return l.gone(ctx, said)
		case orchestrator.ActionRefresh:
			return errUnusable{reason: "the model was loaded otherwise: " + messageOf(said)}
		}
	}
	return &Infeasible{Reason: messageOf(said)}
}

// warm has the server execute each size of batch that is about to come once:
// the first is slow.
func (l *Live) warm(ctx context.Context, t Settings) error {
	if !l.warmFor.sameServer(t) {
		l.warmed = nil // a reload makes it cold again
	}
	l.warmFor = t
	for _, n := range []int{t.Batch, t.MaxBatch} {
		if slices.Contains(l.warmed, n) {
			continue
		}
		serving, err := l.serving(ctx, n, t.Instances)
		if err != nil {
			return err
		}
		serving.Close()
		l.warmed = append(l.warmed, n)
	}
	return nil
}

// serving makes requests of n pages, so many at once, and asks each once: the
// first of a size is slow.
func (l *Live) serving(ctx context.Context, n, inFlight int) (*measure.Serving, error) {
	serving, err := measure.NewServing(measure.ServerConfig{
		Model: l.cfg.Model, Pages: l.cfg.Sample.pages, Batch: n, InFlight: inFlight, SharedMemoryPrefix: l.cfg.SharedMemoryPrefix,
	})
	if err != nil {
		return nil, &Infeasible{Reason: err.Error(), Err: err}
	}
	if _, err := l.ask(ctx, serving, 0); err != nil {
		serving.Close()
		return nil, err
	}
	return serving, nil
}

// ask asks for a while; no request may fail.
func (l *Live) ask(ctx context.Context, serving *measure.Serving, window time.Duration) (measure.Answered, error) {
	a, err := serving.Ask(ctx, window)
	if err == nil && a.Failed > 0 {
		err = l.failed(ctx, a.Err)
	}
	return a, err
}

// window takes one window and makes sure that it is about us alone.
func (l *Live) window(ctx context.Context, t Settings, load Load) (Window, error) {
	before, err := l.counters(ctx)
	if err != nil {
		return Window{}, err
	}
	heat := readHeat()
	// What is thrown away shall be long enough for batches to have formed.
	warm := time.Duration(warmShare * float64(l.cfg.Window))
	var r *record
	device := watchGPU(ctx, l.cfg.Metrics, warm, func() {
		if load.Kind == Pipeline {
			r, err = l.loader.runPipeline(ctx, t, warm, l.cfg.Window)
		} else {
			r, err = l.loader.run(ctx, t, load.Rate, warm, l.cfg.Window)
		}
	})
	if err != nil {
		return Window{}, err
	}
	if r.failed > 0 {
		return Window{}, l.failed(ctx, r.err)
	}
	delta, err := l.counted(ctx, before, r.requests)
	if err != nil {
		return Window{}, err
	}
	if err := l.cfg.Server.Confirm(ctx); err != nil {
		return Window{}, l.gone(ctx, err)
	}
	if reason := readHeat().since(heat); reason != "" {
		return Window{}, errUnusable{reason: reason}
	}
	if r.rate() == 0 {
		return Window{}, &Infeasible{Reason: fmt.Sprintf("not two batches were answered in %v", longer*l.cfg.Window)}
	}
	w := Window{
		PagesPerSecond: r.rate(),
		P50:            r.latencies.Percentile(50), P95: r.latencies.Percentile(95), P99: r.latencies.Percentile(99),
		GPUUtilization: device.utilization, GPUMemory: device.memory,
	}
	if whole := delta.Success.Time; whole > 0 {
		w.QueueShare = float64(delta.Queue.Time) / float64(whole)
		w.ServerShare = min(1, float64(whole)/float64(r.asking))
	}
	for _, b := range delta.Batches {
		w.Executed = append(w.Executed, Executed{Size: int(b.Size), Count: int64(b.ComputeInfer.Count)})
	}
	return w, nil
}

// counters reads the model's counters once they stand still: a server counts a
// moment after it has answered. Where others use the model they may never do,
// which the window will tell.
func (l *Live) counters(ctx context.Context) (tritonclient.ModelStatistics, error) {
	var last tritonclient.ModelStatistics
	for look := range 20 {
		now, err := l.cfg.Client.Statistics(ctx, l.cfg.Model.Info().Name, "")
		if err != nil {
			return now, l.gone(ctx, err)
		}
		if look > 0 && now.Success.Count == last.Success.Count && now.Fail.Count == last.Fail.Count {
			return now, nil
		}
		last = now
		if !measure.Pause(ctx, countEvery) {
			return now, context.Cause(ctx)
		}
	}
	return last, nil
}

// counted is what the server has counted since before, once all our requests
// are. One more is somebody else's.
func (l *Live) counted(ctx context.Context, before tritonclient.ModelStatistics, ours int) (tritonclient.ModelStatistics, error) {
	for late := time.Now().Add(countLate); ; {
		now, err := l.cfg.Client.Statistics(ctx, l.cfg.Model.Info().Name, "")
		if err != nil {
			return now, l.gone(ctx, err)
		}
		delta, ok := now.Since(before)
		counted := int(delta.Success.Count + delta.Fail.Count)
		switch {
		case !ok:
			return delta, errUnusable{reason: "the server's counters began anew: the model was loaded, or the server started"}
		case counted > ours:
			return delta, errUnusable{reason: fmt.Sprintf("%d requests of other clients came in between", counted-ours)}
		case counted == ours:
			return delta, nil
		case time.Now().After(late):
			return delta, errUnusable{reason: fmt.Sprintf("the server counted %d of our %d requests", counted, ours)}
		}
		if !measure.Pause(ctx, countEvery) {
			return delta, context.Cause(ctx)
		}
	}
}
