package tune

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const testLargest = 64

// grid is every setting that the search could come to, with these ages.
func grid(ages ...time.Duration) (all []Settings) {
	for _, b := range sizes(testLargest) {
		for instances := 1; instances <= 4; instances++ {
			for _, batch := range slices.Compact([]int{b, max(1, b/2)}) {
				for _, inFlight := range []int{1, 2, 3, 4, 5, 6, 8, 10} {
					for _, delay := range []time.Duration{0, 100 * time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
						if batch == b && delay > 100*time.Microsecond {
							continue // it would wait for nothing: every request is full
						}
						for _, age := range ages {
							all = append(all, Settings{MaxBatch: b, Instances: instances, Delay: delay, Batch: batch, MaxAge: age, InFlight: inFlight})
						}
					}
				}
			}
		}
	}
	return all
}

// best is the best of all settings, found by trying each.
func (s *simulated) best(all []Settings, score func(Settings) float64) (at Settings, most float64) {
	for _, t := range all {
		if s.fits(t) {
			if v := score(t); v > most {
				at, most = t, v
			}
		}
	}
	return at, most
}

var (
	badByHand = Settings{MaxBatch: 1, Instances: 1, Delay: 200 * time.Millisecond, Batch: 1, MaxAge: 20 * time.Millisecond, InFlight: 2}
	delivered = Settings{MaxBatch: 8, Instances: 1, Batch: 8, MaxAge: 20 * time.Millisecond, InFlight: 2}
	oddOne    = Settings{MaxBatch: 12, Instances: 4, Delay: 50 * time.Millisecond, Batch: 3, MaxAge: 100 * time.Millisecond, InFlight: 1}
)

// search runs a search on a simulated server with its clock.
func searchOn(t *testing.T, s *simulated, cfg Config) *Result {
	t.Helper()
	cfg.Rendering = s.drawing > 0
	cfg.Now = func() time.Time { return s.now }
	r, err := Search(t.Context(), cfg, s)
	if err != nil {
		t.Fatal(err)
	}
	if r.Measurements > 30 {
		t.Errorf("%d measurements", r.Measurements)
	}
	if r.Chosen != r.Start && !slices.Contains(r.Finalists, r.Chosen) {
		t.Errorf("the choice was no finalist: %v", r.Chosen.Settings)
	}
	return r
}

// TestFindsTheBest: on each simulated server, from a bad start, the choice does
// within 5 % of the best of all settings, in at most 30 measurements.
func TestFindsTheBest(t *testing.T) {
	for name := range servers(0) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servers(0)[name]
			load := Load{Kind: Saturated}
			if s.drawing > 0 {
				load.Kind = Pipeline
			}
			rate := func(x Settings) float64 { return s.exact(x, load).PagesPerSecond }
			at, best := s.best(grid(20*time.Millisecond), rate)
			for _, start := range []Settings{badByHand, delivered, oddOne} {
				if !s.fits(start) {
					continue
				}
				for seed := range uint64(10) {
					r := searchOn(t, servers(seed)[name], Config{Start: start})
					got := rate(r.Chosen.Settings)
					if got < 0.95*best {
						t.Errorf("seed %d: from %v\nto   %v: %.1f pages/s\nbest %v: %.1f", seed, start, r.Chosen.Settings, got, at, best)
					}
					if got < rate(start)*(1-r.Spread) {
						t.Errorf("seed %d: %v is worse than the start, %v", seed, r.Chosen.Settings, start)
					}
				}
			}
		})
	}
}

// TestNoiseIsNoReason: from the best settings the search never goes to others,
// however much the windows differ.
func TestNoiseIsNoReason(t *testing.T) {
	for _, c := range []struct{ noise, drift float64 }{{0.01, 0}, {0.02, 0}, {0.01, -0.01}, {0.01, 0.01}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(100) {
				s := servers(0)["gpu"]
				s.noise, s.drift, s.rand = c.noise, c.drift, rand.New(rand.NewPCG(seed, 3))
				start := Settings{MaxBatch: testLargest, Instances: 1, Batch: testLargest, MaxAge: 20 * time.Millisecond, InFlight: 2}
				if r := searchOn(t, s, Config{Start: start}); r.Chosen != r.Start {
					t.Errorf("seed %d: %v for a gain of %.3f, spread %.3f", seed, r.Chosen.Settings, r.Gain, r.Spread)
				}
			}
		})
	}
}

// TestNothingToGain: where a batch has a price and no gain, and where drawing is
// the limit, the start stays.
func TestNothingToGain(t *testing.T) {
	small := Settings{MaxBatch: 4, Instances: 1, Batch: 4, MaxAge: 20 * time.Millisecond, InFlight: 2}
	if r := searchOn(t, servers(0)["cpu"], Config{Start: small}); r.Chosen != r.Start {
		t.Errorf("cpu: %v", r.Chosen.Settings)
	}
	r := searchOn(t, servers(0)["drawing is slow"], Config{Start: delivered})
	if r.Chosen != r.Start || !r.RenderingLimits || r.Measurements > 8 || len(r.Start.Pipeline) < 3 {
		t.Errorf("drawing: %v, limit %t, %d measurements", r.Chosen.Settings, r.RenderingLimits, r.Measurements)
	}
}

// disturbed has the first drawings slower than they are.
type disturbed struct {
	*simulated
	first int
}

func (d *disturbed) Rendering(ctx context.Context) (float64, error) {
	rate, err := d.simulated.Rendering(ctx)
	if d.first--; d.first >= 0 {
		rate *= 0.2
	}
	return rate, err
}

// TestDisturbedDrawing: a window of drawing that something else slowed down does
// not make it the limit.
func TestDisturbedDrawing(t *testing.T) {
	for first := range drawings {
		s := servers(0)["drawing is the limit later"]
		r, err := Search(t.Context(), Config{Start: badByHand, Rendering: true}, &disturbed{s, first})
		if err != nil || r.RenderingLimits || r.Chosen == r.Start || r.Rendering < 0.9*s.drawing {
			t.Errorf("%d disturbed: %v, rendering %.0f of %.0f, limit %t, chosen %v", first, err, r.Rendering, s.drawing, r.RenderingLimits, r.Chosen.Settings)
		}
	}
}

// TestEnough: where drawing is the limit, the choice is the smallest that keeps
// up with it, and not what the server would do best with.
func TestEnough(t *testing.T) {
	for seed := range uint64(10) {
		s := servers(seed)["drawing is the limit later"]
		r := searchOn(t, s, Config{Start: badByHand})
		chosen := r.Chosen.Settings
		if alone := s.exact(chosen, Load{Kind: Saturated}).PagesPerSecond; chosen.MaxBatch*chosen.Instances > 12 || alone < 1.2*s.drawing {
			t.Errorf("seed %d: %v, the server alone %.0f pages/s, drawing %.0f", seed, chosen, alone, s.drawing)
		}
	}
}

// TestLatency: the 99th percentile comes down to within 15 % of the lowest.
func TestLatency(t *testing.T) {
	// At this rate larger batches than some never fill.
	all := slices.DeleteFunc(grid(0, 5*time.Millisecond, 20*time.Millisecond), func(x Settings) bool {
		return x.MaxBatch > 24 || x.Delay > 0 || x.InFlight > 6 || x.Instances > 2
	})
	for _, name := range []string{"gpu", "cpu", "copies"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servers(0)[name]
			for _, start := range []Settings{badByHand, delivered, oddOne} {
				r := searchOn(t, servers(0)[name], Config{Start: start, Objective: Latency})
				p99 := func(x Settings) float64 { return s.exact(x, Load{Open, r.OpenRate}).P99.Seconds() }
				at, best := s.best(all, func(x Settings) float64 { return 1 / p99(x) })
				if got := p99(r.Chosen.Settings); got > 1.15/best {
					t.Errorf("from %v\nto   %v: p99 %.4f s\nbest %v: %.4f s", start, r.Chosen.Settings, got, at, 1/best)
				}
			}
		})
	}
}

// TestLimits: what is over a limit is not chosen, and what cannot be served is
// not tried again.
func TestLimits(t *testing.T) {
	s := servers(0)["gpu"]
	limit := ms(60)
	r := searchOn(t, s, Config{Start: badByHand, MaxP99: limit})
	if w := s.exact(r.Chosen.Settings, Load{Kind: Saturated}); w.P99 > limit || r.Chosen == r.Start {
		t.Errorf("%v: p99 %v", r.Chosen.Settings, w.P99)
	}
	at, best := s.best(grid(20*time.Millisecond), func(x Settings) float64 {
		if w := s.exact(x, Load{Kind: Saturated}); w.P99 <= limit {
			return w.PagesPerSecond
		}
		return 0
	})
	if got := s.exact(r.Chosen.Settings, Load{Kind: Saturated}).PagesPerSecond; got < 0.95*best {
		t.Errorf("%v: %.1f pages/s within the limit; best %v: %.1f", r.Chosen.Settings, got, at, best)
	}

	// A start that is over the limit gives way to anything that is not.
	slow := Settings{MaxBatch: 64, Instances: 1, Batch: 64, MaxAge: 20 * time.Millisecond, InFlight: 8}
	if r := searchOn(t, servers(0)["gpu"], Config{Start: slow, MaxP99: limit}); r.Start.Infeasible == "" || r.Chosen == r.Start || r.Chosen.Infeasible != "" {
		t.Errorf("from %q to %v", r.Start.Infeasible, r.Chosen.Settings)
	}

	// So it is with memory.
	s = servers(0)["gpu"]
	s.tells = true
	r = searchOn(t, s, Config{Start: delivered, MaxGPUMemory: 20})
	_, best = s.best(grid(20*time.Millisecond), func(x Settings) float64 {
		if x.MaxBatch*x.Instances > 20 {
			return 0
		}
		return s.exact(x, Load{Kind: Saturated}).PagesPerSecond
	})
	if got := s.exact(r.Chosen.Settings, Load{Kind: Saturated}).PagesPerSecond; r.Chosen.Settings.MaxBatch*r.Chosen.Settings.Instances > 20 || got < 0.95*best {
		t.Errorf("%v: %.1f pages/s within the limit of memory; best %.1f", r.Chosen.Settings, got, best)
	}

	r = searchOn(t, servers(0)["out of memory"], Config{Start: delivered})
	var infeasible []Settings
	for _, trial := range r.Trials {
		if trial.Infeasible != "" {
			infeasible = append(infeasible, trial.Settings)
		}
	}
	if len(infeasible) == 0 || r.Curve.Stopped == "" {
		t.Error("nothing ran out of memory")
	}
}

// TestFieldsStay: a field that may not change does not.
func TestFieldsStay(t *testing.T) {
	for _, f := range Fields() {
		fields := slices.DeleteFunc(Fields(), func(g Field) bool { return g == f })
		r := searchOn(t, servers(0)["gpu"], Config{Start: oddOne, Fields: fields})
		for _, trial := range r.Trials {
			if slices.Contains(oddOne.changes(trial.Settings), f) {
				t.Errorf("%s changed: %v", f, trial.Settings)
			}
		}
		if r.Chosen == r.Start {
			t.Errorf("without %s nothing was found", f)
		}
	}
}

// TestInstancesStay: where the config does not say the instances in one place,
// they stay, also when nothing else may change.
func TestInstancesStay(t *testing.T) {
	for _, fields := range [][]Field{nil, {FieldInstances}} {
		for _, exhaustive := range []bool{false, true} {
			s := servers(0)["copies"]
			r, err := Search(t.Context(), Config{Start: delivered, Fields: fields, Devices: -1, MaxBatch: 8, Exhaustive: exhaustive, Now: func() time.Time { return s.now }}, s)
			if err != nil {
				t.Fatal(err)
			}
			for _, trial := range r.Trials {
				if trial.Settings.Instances != delivered.Instances {
					t.Errorf("%v", trial.Settings)
				}
			}
			if (len(r.Trials) > 1) != (fields == nil) {
				t.Errorf("fields %v: %d trials", fields, len(r.Trials))
			}
		}
	}
}

// TestDeadline: a search with little time makes less, ends about in time, and
// does not take noise for a gain.
func TestDeadline(t *testing.T) {
	for _, budget := range []time.Duration{20 * time.Second, time.Minute, 90 * time.Second, 5 * time.Minute} {
		s := servers(0)["noisy"]
		began := s.now
		r := searchOn(t, s, Config{Start: badByHand, Deadline: began.Add(budget)})
		took := s.now.Sub(began)
		// The start and its two turns are measured whatever the time.
		if least := 5 * simulatedWindow; took > max(budget, least) {
			t.Errorf("%v took %v", budget, took)
		}
		if (r.Unfinished != "") != (budget < 3*time.Minute) {
			t.Errorf("%v: unfinished %q", budget, r.Unfinished)
		}
		if budget >= time.Minute && r.Chosen == r.Start {
			t.Errorf("%v: nothing found", budget)
		}
	}
}

// failing is a bench that fails.
type failing struct {
	*simulated
	after int
	err   error
}

func (f *failing) Measure(ctx context.Context, t Settings, l Load) (Window, error) {
	if f.after--; f.after < 0 {
		return Window{}, f.err
	}
	return f.simulated.Measure(ctx, t, l)
}

// TestBenchFails: the error comes back, with what was measured until then.
func TestBenchFails(t *testing.T) {
	gone := errors.New("gone")
	for _, after := range []int{0, 1, 5, 12, 20} {
		s := servers(0)["gpu"]
		r, err := Search(t.Context(), Config{Start: badByHand, Now: func() time.Time { return s.now }}, &failing{s, after, gone})
		if !errors.Is(err, gone) || r.Measurements != after+1 && r.Measurements != after+2 {
			t.Errorf("after %d: %v", after, err)
		}
	}
	s := servers(0)["gpu"]
	_, err := Search(t.Context(), Config{Start: badByHand}, &failing{s, 0, &Infeasible{Reason: "out of memory"}})
	if err == nil || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("a start that cannot be served: %v", err)
	}
}

func TestParseFields(t *testing.T) {
	got, err := ParseFields("max_batch, quire.batch,delay,batch")
	if want := []Field{FieldMaxBatch, FieldBatch, FieldDelay}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ParseFields("max_batch,colour"); err == nil || !strings.Contains(err.Error(), "colour") {
		t.Errorf("%v", err)
	}
}

// TestExhaustive: every setting of the grid is tried, and the choice is no worse
// than the search's.
func TestExhaustive(t *testing.T) {
	s := servers(0)["copies"]
	cfg := Config{Start: badByHand, Now: func() time.Time { return s.now }, Exhaustive: true, Deadline: s.now.Add(time.Second)}
	r, err := Search(t.Context(), cfg, s)
	if err != nil {
		t.Fatal(err)
	}
	if want := 7*3*3 + 1; len(r.Trials) != want || r.Unfinished != "" {
		t.Errorf("%d trials, want %d, unfinished %q", len(r.Trials), want, r.Unfinished)
	}
	rate := func(x Settings) float64 { return s.exact(x, Load{Kind: Saturated}).PagesPerSecond }
	if quick := searchOn(t, servers(0)["copies"], Config{Start: badByHand}); rate(r.Chosen.Settings) < 0.98*rate(quick.Chosen.Settings) {
		t.Errorf("exhaustive %v: %.1f, search %v: %.1f", r.Chosen.Settings, rate(r.Chosen.Settings), quick.Chosen.Settings, rate(quick.Chosen.Settings))
	}
}
