package measure

import (
	"math"
	"slices"
	"time"
)

// Latencies are durations of one kind of thing, in any order.
type Latencies []time.Duration

// Percentile is the least latency that q per cent of them do not exceed, by
// nearest rank; 0 when there are none. It does not change the order.
func (l Latencies) Percentile(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l))
	rank := int(math.Ceil(q / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Max is the longest; 0 when there are none.
func (l Latencies) Max() time.Duration {
	if len(l) == 0 {
		return 0
	}
	return slices.Max(l)
}

// Median is the middle of the values, or the mean of the two in the middle; NaN
// when there are none.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	switch n := len(sorted); {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return sorted[n/2]
	default:
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
}

// The rule for when a measurement may be believed: of the last StableWindows
// windows the largest is at most StableSpread times the smallest.
const (
	StableWindows = 3
	StableSpread  = 1.05
)

// Stable tells whether the last values agree well enough, and the spread of
// them: largest over smallest, 1 at best. Fewer than StableWindows values are
// never stable, and neither are any that are not above 0.
func Stable(values []float64) (spread float64, stable bool) {
	last := values[max(0, len(values)-StableWindows):]
	if len(last) == 0 || !(slices.Min(last) > 0) {
		return math.Inf(1), false
	}
	spread = slices.Max(last) / slices.Min(last)
	return spread, len(last) == StableWindows && spread <= StableSpread
}
