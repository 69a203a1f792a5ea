package tune

import (
	"context"
	"errors"
	"slices"
)

// Sweep measures every setting of a grid once, to hold a search against: the
// batch sizes of the curve, one and two instances a device, and so many requests
// under way that none, one and several are ready when an instance is. The
// result's choice is the setting with the best window, whatever its margin.
func Sweep(ctx context.Context, cfg Config, bench Bench) (*Result, error) {
	s := &search{cfg: cfg.withDefaults(), bench: bench, known: map[Settings]*Trial{}, result: &Result{}}
	s.stage = "sweep"
	all := s.grid()
	s.cfg.Measurements = len(all)
	start := s.trial(s.cfg.Start)
	s.result.Start, s.result.Chosen, s.best = start, start, start
	alone, err := s.measure(ctx, start, Load{Kind: Saturated})
	if err != nil {
		return s.result, cannotStart(err)
	}
	s.result.OpenRate = peakShare * alone.PagesPerSecond
	for _, t := range all {
		trial := s.trial(t)
		for _, load := range slices.Compact([]Load{s.screening(), s.deciding()}) {
			_, err := s.measure(ctx, trial, load)
			if _, no := errors.AsType[*Infeasible](err); no {
				break
			} else if err != nil {
				return s.result, err
			}
		}
		trial.Deciding = trial.Alone
		if s.deciding().Kind == Pipeline {
			trial.Deciding = trial.Pipeline
		} else if s.deciding().Kind == Open {
			trial.Deciding = trial.Open
		}
		if chosen := s.result.Chosen; trial.Infeasible == "" && len(trial.Deciding) > 0 &&
			(len(chosen.Deciding) == 0 || mean(s.scores(trial.Deciding)) > mean(s.scores(chosen.Deciding))) {
			s.result.Chosen = trial
		}
	}
	if from, to := mean(s.scores(start.Deciding)), mean(s.scores(s.result.Chosen.Deciding)); from > 0 {
		s.result.Gain = to/from - 1
	}
	return s.result, nil
}

// grid is the settings of a sweep, the start first.
func (s *search) grid() []Settings {
	all := []Settings{s.cfg.Start}
	for _, n := range sizes(s.cfg.MaxBatch) {
		for _, instances := range []int{s.cfg.Devices, 2 * s.cfg.Devices} {
			for _, inFlight := range []int{instances, instances + 1, 2 * (instances + 1)} {
				t := Settings{MaxBatch: n, Instances: instances, Batch: n, MaxAge: s.cfg.Start.MaxAge, InFlight: inFlight}
				for _, f := range Fields() {
					if !s.may(f) {
						t = t.with(s.cfg.Start, f)
					}
				}
				if t.Batch <= t.MaxBatch && !slices.Contains(all, t) {
					all = append(all, t)
				}
			}
		}
	}
	return all
}
