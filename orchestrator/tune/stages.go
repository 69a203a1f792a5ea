package tune

import (
	"context"
	"slices"
	"time"
)

// explore tries one thing after the other, each from the best so far.
func (s *search) explore(ctx context.Context) error {
	type stage struct {
		name string
		do   func(context.Context) error
	}
	age := stage{"age", s.ages}
	stages := []stage{
		{"batch size", s.batchSizes},
		{"instances", s.instances},
		{"feeding", s.feeding},
		{"queue delay", s.delays},
		{"batch size again", s.neighbours},
		age,
	}
	if s.cfg.Objective == Latency {
		// It is what a page waits for, so it is not left for the last.
		stages = slices.Insert(stages[:len(stages)-1], 3, age)
	}
	for _, stage := range stages {
		s.stage = stage.name
		if err := stage.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sizes are the batch sizes worth trying: twice and one and a half times the
// last power of two.
func sizes(largest int) []int {
	var list []int
	for n := 1; n <= largest; n *= 2 {
		list = append(list, n)
		if half := n + n/2; n > 1 && half <= largest {
			list = append(list, half)
		}
	}
	return list
}

// The shares of the best rate of the curve that a smaller batch must reach to be
// tried: a small batch costs less memory and latency.
var kneeShares = []float64{1, 0.95, 0.85}

func (s *search) batchSizes(ctx context.Context) error {
	largest := s.cfg.MaxBatch
	if !s.may(FieldMaxBatch) {
		largest = s.cfg.Start.MaxBatch
	}
	if err := s.another(1); err != nil {
		return err
	}
	s.result.Measurements++
	s.cfg.Progress(Step{Stage: s.stage, Number: s.result.Measurements, Of: s.most})
	curve, err := s.bench.Curve(ctx, sizes(largest))
	s.result.Curve = curve
	if err != nil {
		return err
	}
	if s.cfg.Objective == Latency {
		// Larger batches would not fill: the load is below the peak.
		n := curve.smallest(kneeShares[len(kneeShares)-1] * curve.best())
		for _, age := range []time.Duration{0, shortAge} {
			if err := s.tryBatch(ctx, n, func(t *Settings) { t.MaxAge = age }); err != nil {
				return err
			}
		}
		return nil
	}
	var try []int
	add := func(n int) {
		if n > 0 && !slices.Contains(try, n) {
			try = append(try, n)
		}
	}
	for _, share := range kneeShares {
		add(curve.smallest(share * curve.best()))
	}
	add(curve.smallest(s.enough()))
	for _, n := range try {
		if err := s.tryBatch(ctx, n, func(*Settings) {}); err != nil {
			return err
		}
	}
	// Where all of them are over a limit, smaller ones: as small as the curve
	// says when they keep a page for too long.
	for range 3 {
		last := s.result.Trials[len(s.result.Trials)-1]
		if last.Infeasible == "" {
			break
		}
		n := last.Settings.MaxBatch / 2
		if w := s.first(last); s.cfg.MaxP99 > 0 && w.P99 > s.cfg.MaxP99 {
			n = curve.within(time.Duration(float64(curve.compute(last.Settings.MaxBatch)) * 0.9 * float64(s.cfg.MaxP99) / float64(w.P99)))
		}
		if n == 0 {
			break
		}
		if err := s.tryBatch(ctx, n, func(*Settings) {}); err != nil {
			return err
		}
	}
	return nil
}

// tryBatch tries full batches of n pages, one of them always ready.
func (s *search) tryBatch(ctx context.Context, n int, also func(*Settings)) error {
	return s.try(ctx, func(t *Settings) {
		t.MaxBatch, t.Batch, t.Delay, t.InFlight = n, n, 0, max(2, t.Instances+1)
		also(t)
	})
}

func (s *search) instances(ctx context.Context) error {
	if !s.may(FieldInstances) {
		return nil
	}
	try := func(n int) error {
		return s.try(ctx, func(t *Settings) {
			t.Instances, t.InFlight = n, max(t.InFlight, n+1)
		})
	}
	step := s.cfg.Devices
	for n := step; n <= 2*step && n < s.best.Settings.Instances; n += step {
		if err := try(n); err != nil {
			return err
		}
	}
	for n := s.best.Settings.Instances + step; n <= s.maxInstances(); n += step {
		if err := try(n); err != nil {
			return err
		}
		if s.best.Settings.Instances != n {
			return nil // one more did not help, so two more will not
		}
	}
	return nil
}

func (s *search) feeding(ctx context.Context) error {
	changes := []func(t *Settings){
		func(t *Settings) { t.InFlight = 2 * (t.Instances + 1) },
		func(t *Settings) { t.InFlight = t.Instances },
		// Requests that the server puts together: more of them under way hide
		// what the wire and quire take.
		func(t *Settings) { t.Batch, t.InFlight = max(1, t.MaxBatch/2), 2*(t.Instances+1) },
	}
	if w := s.first(s.best); s.cfg.MaxP99 > 0 && s.cfg.Objective == Throughput && w.P99 > 0 {
		// A page waits for the requests under way and for its own: with fewer of
		// them, they may be larger.
		best, curve := s.best.Settings, s.result.Curve
		room := float64(s.cfg.MaxP99) / float64(w.P99) * float64(best.InFlight+best.Instances) / float64(2*best.Instances)
		if n := curve.within(time.Duration(0.95 * room * float64(curve.compute(best.MaxBatch)))); n > best.MaxBatch {
			changes = append(changes, func(t *Settings) { t.MaxBatch, t.Batch, t.InFlight = n, n, t.Instances })
		}
	}
	for _, change := range changes {
		if err := s.try(ctx, change); err != nil {
			return err
		}
	}
	return nil
}

func (s *search) delays(ctx context.Context) error {
	// Any delay at all lets the server merge batches that it has formed ahead.
	delays := []time.Duration{100 * time.Microsecond}
	if s.best.Settings.Batch < s.best.Settings.MaxBatch && s.cfg.Objective == Throughput {
		delays = append(delays, time.Millisecond, 5*time.Millisecond)
	}
	for _, d := range delays {
		if s.cfg.MaxP99 > 0 && d > s.cfg.MaxP99/4 {
			break
		}
		if err := s.try(ctx, func(t *Settings) { t.Delay = d }); err != nil {
			return err
		}
	}
	return nil
}

// neighbours are the batch sizes beside the best one, now that the rest is
// chosen: the curve knows nothing of what a request costs outside the model.
func (s *search) neighbours(ctx context.Context) error {
	points := s.result.Curve.Points
	at := slices.IndexFunc(points, func(p Point) bool { return p.Size == s.best.Settings.MaxBatch })
	if at < 0 {
		return nil
	}
	for _, step := range []int{1, -1} {
		for i := at + step; i >= 0 && i < len(points); i += step {
			if points[i].rate() < kneeShares[2]*points[i-step].rate() {
				break
			}
			if err := s.try(ctx, func(t *Settings) {
				t.Batch = max(1, t.Batch*points[i].Size/t.MaxBatch)
				t.MaxBatch = points[i].Size
			}); err != nil {
				return err
			}
			if s.best.Settings.MaxBatch != points[i].Size {
				break
			}
		}
	}
	return nil
}

// ages compares what a page waits under a load that leaves the server some
// room: at its peak no page waits for company.
func (s *search) ages(ctx context.Context) error {
	if !s.may(FieldMaxAge) || s.best.Settings.Batch == 1 {
		return nil
	}
	if s.cfg.Objective == Latency {
		for _, age := range []time.Duration{0, shortAge} {
			if err := s.try(ctx, func(t *Settings) { t.MaxAge = age }); err != nil {
				return err
			}
		}
		return nil
	}
	if s.best == s.result.Start || len(s.best.Alone) == 0 {
		return nil
	}
	load := Load{Open, peakShare * s.best.Alone[0].PagesPerSecond}
	was, p99 := s.best, time.Duration(0)
	for _, age := range []time.Duration{was.Settings.MaxAge, 0} {
		t := was.Settings
		t.MaxAge = age
		if known := s.known[t]; known != nil && (len(known.Open) > 0 || known.Infeasible != "") {
			continue
		}
		if err := s.another(1); err != nil {
			return err
		}
		trial := s.trial(t)
		w, err := s.measure(ctx, trial, load)
		if infeasible(err) {
			continue
		} else if err != nil {
			return err
		}
		if keepsUp := w.PagesPerSecond > 0.95*load.Rate; p99 == 0 || keepsUp && float64(w.P99) < 0.9*float64(p99) {
			if trial != was && len(trial.Alone) == 0 {
				trial.like = was
			}
			s.best, p99 = trial, w.P99
		}
	}
	return nil
}

// sweep tries every setting of a grid.
func (s *search) sweep(ctx context.Context) error {
	s.stage = "sweep"
	var grid []Settings
	for n := 1; n <= s.cfg.MaxBatch; n *= 2 {
		for instances := max(1, s.cfg.Devices); instances <= s.maxInstances(); instances *= 2 {
			for _, inFlight := range []int{instances, instances + 1, 2 * (instances + 1)} {
				grid = append(grid, Settings{MaxBatch: n, Instances: instances, Batch: n, MaxAge: s.cfg.Start.MaxAge, InFlight: inFlight})
			}
		}
	}
	s.most = s.result.Measurements + len(grid) + inFinals
	for _, t := range grid {
		if err := s.try(ctx, func(to *Settings) { *to = t }); err != nil {
			return err
		}
	}
	return nil
}
