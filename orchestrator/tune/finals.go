package tune

import (
	"cmp"
	"context"
	"math"
	"slices"

	"quire/orchestrator/internal/measure"
)

// finals measures the start and the best trials in turns (A B C, C B A, …), so
// that what changes on the machine meanwhile meets all of them alike, and
// chooses one that beats the start by more than any of them differs from itself.
// Where that is in doubt, the start and the best one have more turns.
func (s *search) finals(ctx context.Context) error {
	s.stage = "finals"
	start := s.result.Start
	s.result.Finalists = s.finalists()
	order := append([]*Trial{start}, s.result.Finalists...)
	var taken []entry
	for round := range rounds + moreRounds {
		if round >= rounds {
			contender := s.contender(detrend(taken))
			if contender == nil {
				break
			}
			order = slices.DeleteFunc(order, func(t *Trial) bool { return t != start && t != contender })
		}
		if err := s.room(len(order)); round >= minRounds && err != nil {
			s.cutShort(err)
			break
		}
		for _, t := range order {
			w, err := s.measure(ctx, t, s.deciding())
			if infeasible(err) && t != start {
				continue
			} else if err != nil {
				return cannotStart(err)
			}
			t.Deciding = append(t.Deciding, w)
			taken = append(taken, entry{t, s.score(w)})
		}
		slices.Reverse(order)
	}
	s.choose(detrend(taken))
	return s.show(ctx)
}

// finalists are the best trial, and the simplest of those that came close to it
// or are no limit to a run, or else the second best.
func (s *search) finalists() []*Trial {
	start := s.result.Start
	score := func(t *Trial) float64 { return s.score(s.first(t)) }
	hopeless := 0.0
	if start.Infeasible == "" {
		// One window tells little on a machine whose speed changes, but that.
		hopeless = chance * score(start)
	}
	var list []*Trial
	for _, t := range s.result.Trials {
		if t != start && t.Infeasible == "" && score(t) > 0 && score(t) >= hopeless {
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, func(a, b *Trial) int {
		return cmp.Or(cmp.Compare(score(b), score(a)), simpler(a.Settings, b.Settings))
	})
	if i := slices.Index(list, s.best); i > 0 {
		list = slices.Insert(slices.Delete(list, i, i+1), 0, s.best)
	}
	if len(list) <= finalists {
		return list
	}
	least := min(score(list[0])*(1-worth), s.enough())
	close := slices.DeleteFunc(slices.Clone(list[1:]), func(t *Trial) bool {
		return score(t) < least || simpler(t.Settings, list[0].Settings) >= 0
	})
	if len(close) > 0 {
		return []*Trial{list[0], slices.MinFunc(close, func(a, b *Trial) int { return simpler(a.Settings, b.Settings) })}
	}
	return list[:finalists]
}

// entry is one window of the finals, in the order in which they were taken.
type entry struct {
	trial *Trial
	score float64
}

// contender is the finalist that did best, if it is in doubt whether that is
// better than the start, or the windows are not stable yet.
func (s *search) contender(groups map[*Trial][]float64) (best *Trial) {
	start := groups[s.result.Start]
	for _, t := range s.result.Finalists {
		if t.Infeasible == "" && len(groups[t]) > 0 && (best == nil || mean(groups[t]) > mean(groups[best])) {
			best = t
		}
	}
	if best == nil || s.result.Start.Infeasible != "" {
		return nil
	}
	gain, bar := mean(groups[best])/mean(start)-1, bar(groups)
	if gain < bar/2 || gain > max(2*bar, 3*stableWithin) && stable(start) && stable(groups[best]) {
		return nil
	}
	return best
}

// choose makes the choice.
func (s *search) choose(groups map[*Trial][]float64) {
	start := s.result.Start
	bar := bar(groups)
	s.result.Spread, s.result.Needed = spread(groups[start]), bar
	gain := func(t *Trial) float64 { return mean(groups[t])/mean(groups[start]) - 1 }
	var winners []*Trial
	for _, t := range s.result.Finalists {
		if t.Infeasible == "" && len(groups[t]) >= minRounds && (start.Infeasible != "" || gain(t) > bar) {
			winners = append(winners, t)
		}
	}
	if len(winners) > 0 {
		slices.SortStableFunc(winners, func(a, b *Trial) int { return cmp.Compare(gain(b), gain(a)) })
		chosen := winners[0]
		for _, t := range winners[1:] {
			// Of two that do equally well with rendering, the one that the
			// server does better with, as far as a run can have it; of two that
			// do equally well in all, the simpler.
			behind := mean(groups[chosen])/mean(groups[t]) - 1
			if behind > bar {
				continue
			}
			enough := s.enough()
			a, b := min(s.score(s.first(t)), enough), min(s.score(s.first(chosen)), enough)
			if a > b*(1+worth) || a > b*(1-worth) && behind <= stableWithin && simpler(t.Settings, chosen.Settings) < 0 {
				chosen = t
			}
		}
		s.result.Chosen, s.result.Gain = chosen, gain(chosen)
	}
	s.result.Stable = stable(groups[start]) && stable(groups[s.result.Chosen])
}

// show measures what the table lacks of start and choice, if there is time.
func (s *search) show(ctx context.Context) error {
	for _, t := range slices.Compact([]*Trial{s.result.Chosen, s.result.Start}) {
		for len(t.Alone) == 0 || len(t.Open) == 0 {
			load := Load{Kind: Saturated}
			if len(t.Alone) > 0 {
				load = Load{Open, peakShare * t.Alone[0].PagesPerSecond}
			}
			if s.room(1) != nil {
				return nil
			}
			_, err := s.measure(ctx, t, load)
			if infeasible(err) {
				break
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// bar is the gain that a finalist must have over the start: as much as any of
// them differs from itself. Few windows tell little about that.
func bar(groups map[*Trial][]float64) float64 {
	most := worth
	for _, g := range groups {
		most = max(most, spread(g))
		if len(g) < rounds {
			most = max(most, stableWithin)
		}
	}
	return most
}

// spread is how far apart the values are: largest over smallest, less 1.
func spread(values []float64) float64 {
	if len(values) < 2 || slices.Min(values) <= 0 {
		return 0
	}
	return slices.Max(values)/slices.Min(values) - 1
}

// stable tells whether the last three values are within stableWithin.
func stable(values []float64) bool {
	_, ok := measure.Stable(values)
	return ok
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(1, len(values)))
}

// detrend groups the scores by trial and takes out what changed for all of them
// alike in the course of the finals, as when a machine grows warm: one rate of
// change, the least-squares fit over all groups.
func detrend(taken []entry) map[*Trial][]float64 {
	log := func(score float64) float64 { return math.Log(max(score, math.SmallestNonzeroFloat64)) }
	times, logs := map[*Trial][]float64{}, map[*Trial][]float64{}
	for at, e := range taken {
		times[e.trial] = append(times[e.trial], float64(at))
		logs[e.trial] = append(logs[e.trial], log(e.score))
	}
	var xy, xx float64
	for at, e := range taken {
		x := float64(at) - mean(times[e.trial])
		xy += x * (log(e.score) - mean(logs[e.trial]))
		xx += x * x
	}
	slope := 0.0
	if xx > 0 {
		slope = xy / xx
	}
	middle := float64(len(taken)-1) / 2
	groups := map[*Trial][]float64{}
	for at, e := range taken {
		groups[e.trial] = append(groups[e.trial], e.score*math.Exp(-slope*(float64(at)-middle)))
	}
	return groups
}
