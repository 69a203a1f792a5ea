package tune

import (
	"fmt"
	"math"
)

// LimitKind is what keeps the pages a second where they are.
type LimitKind string

// The limits.
const (
	LimitRendering LimitKind = "rendering"
	LimitServer    LimitKind = "server"
	LimitTransport LimitKind = "transport"
	// LimitProcessors: drawing and the server share this machine's processors.
	LimitProcessors LimitKind = "processors"
	LimitUnknown    LimitKind = "unknown"
)

// Limit is what keeps the pages a second where they are with the choice.
type Limit struct {
	Kind LimitKind
	// AtMost is how many times as many pages a second more tuning of batches
	// could bring: up to what this machine draws, or the server alone was seen
	// to do at best; 0 when that is not known.
	AtMost float64
	// Text says it in a sentence.
	Text string
}

// Shares of a part's own rate from which on the whole counts as limited by that
// part, and below which the server's share of a request counts as transport.
const (
	limitedShare   = 0.9
	transportShare = 0.5
)

// Limit says what the limit is with the choice.
func (r *Report) Limit() Limit {
	res := r.Result
	alone, _ := meanWindow(res.Chosen.Alone)
	whole, measured := meanWindow(res.Chosen.Pipeline)
	drawing := res.Rendering
	computed := 0.0
	for _, p := range res.Curve.Points {
		if p.Size <= res.Chosen.Settings.MaxBatch {
			computed = max(computed, p.rate())
		}
	}
	server := func() (LimitKind, string) {
		if alone.ServerShare > 0 && alone.ServerShare < transportShare {
			return LimitTransport, fmt.Sprintf("The way to the server is the limit: of the time of a request the server accounts for %.0f %%; the rest is transport (%s).", 100*alone.ServerShare, r.Transport)
		}
		text := fmt.Sprintf("The server is the limit, at %s pages/s alone", number(alone.PagesPerSecond))
		if computed > 0 && res.Chosen.Settings.Instances == 1 {
			text += fmt.Sprintf("; the model by itself computes %s", number(computed))
		}
		return LimitServer, text + "."
	}
	// What the server was seen to do at best, in whatever way that is within the
	// limits. Of a batch size alone it is not known whether it is.
	seen := 0.0
	if !r.limited() {
		seen = res.Curve.best()
	}
	for _, t := range res.Trials {
		if t.Infeasible == "" {
			seen = max(seen, rate(t.Alone))
		}
	}
	switch {
	case alone.PagesPerSecond <= 0:
		return Limit{Kind: LimitUnknown, Text: "What limits was not measured."}
	case !measured || drawing <= 0:
		kind, text := server()
		most, more := r.upTo(alone.PagesPerSecond, seen, math.Inf(1))
		return Limit{kind, most, text + more}
	case whole.PagesPerSecond >= limitedShare*drawing:
		return Limit{LimitRendering, max(1, drawing/whole.PagesPerSecond), fmt.Sprintf(
			"Rendering is the limit: this machine draws %s pages/s by itself and does %s with the server. No batch setting will help further; more processors for drawing (--workers, another machine) will.",
			number(drawing), number(whole.PagesPerSecond))}
	}
	most, more := r.upTo(whole.PagesPerSecond, seen, drawing)
	// Two that take turns on the same processors.
	both := 1 / (1/drawing + 1/alone.PagesPerSecond)
	switch {
	case whole.PagesPerSecond >= limitedShare*alone.PagesPerSecond:
		kind, text := server()
		return Limit{kind, most, text + more}
	case r.Local:
		return Limit{LimitProcessors, most, fmt.Sprintf(
			"Drawing (%s pages/s by itself) and the server (%s) share the processors of this machine, which would make %s if they took turns; together they do %s.%s",
			number(drawing), number(alone.PagesPerSecond), number(both), number(whole.PagesPerSecond), more)}
	}
	return Limit{LimitUnknown, most, fmt.Sprintf(
		"Neither drawing (%s pages/s by itself) nor the server (%s) is the limit of the %s that they do together.%s",
		number(drawing), number(alone.PagesPerSecond), number(whole.PagesPerSecond), more)}
}

// upTo is how many times as much as now more tuning can bring, when the server
// alone was seen to do so much at best and this machine draws so much, and a
// sentence that says so; nothing when nothing was tried.
func (r *Report) upTo(now, seen, drawing float64) (times float64, text string) {
	if len(r.Result.Trials) == 1 {
		return 0, ""
	}
	within := ""
	if r.limited() {
		within = " within the limit"
	}
	times = max(1, min(seen, drawing)/now)
	switch {
	case times <= 1+worth:
		return times, " No batch setting that was tried does more" + within + "."
	case drawing <= seen:
		return times, fmt.Sprintf(" More tuning of batches can bring %s times as much at most, the %s pages/s that this machine draws by itself.", number(times), number(drawing))
	}
	return times, fmt.Sprintf(" More tuning of batches can bring %s times as much at most, the %s pages/s that the server alone was seen to do at best%s.", number(times), number(seen), within)
}

// limited tells whether there are settings that are ruled out, whatever they do.
func (r *Report) limited() bool { return r.MaxP99 > 0 || r.MaxGPUMemory > 0 }
