package tune

import (
	"fmt"
	"math"
	"time"
)

// Explain says what came of it, a sentence or two in each string.
func (r *Report) Explain() []string {
	res := r.Result
	var text []string
	say := func(format string, args ...any) { text = append(text, fmt.Sprintf(format, args...)) }
	spread := fmt.Sprintf("%.1f %%", 100*res.Spread)
	switch r.Verdict() {
	case VerdictRendering:
		say("Rendering is the limit, so no batch setting will help, and none was tried. This machine draws %s pages/s by itself and does %s with the server, which can do %s alone.",
			number(res.Rendering), number(rate(res.Start.Pipeline)), number(rate(res.Start.Alone)))
		say("If more machines draw for this server, tune it with --server-only.")
		return text
	case VerdictNone:
		if len(res.Trials) == 1 {
			say("The settings in use are over a limit (%s), and no others were tried.", res.Start.Infeasible)
		} else {
			say("The settings in use are over a limit (%s), and nothing that was tried is within it.", res.Start.Infeasible)
		}
	case VerdictKeep:
		if len(res.Trials) == 1 {
			say("Keep the settings in use: no others were tried, so whether there are better ones is not known.")
		} else if len(res.Finalists) == 0 {
			say("Keep the settings in use: nothing that was tried did better.")
		} else {
			say("Keep the settings in use: nothing that was tried is better by more than noise. The windows of the settings in use differ by %s among themselves, and a change has to gain more than %.1f %%.", spread, 100*res.Needed)
		}
	case VerdictChange:
		if r.Objective == Latency {
			falls := "falls"
			if p99(res.Chosen.Deciding) > p99(res.Start.Deciding) {
				falls = "rises, to keep within the limit,"
			}
			say("Change the settings: the 99th percentile %s from %s to %s at %s pages/s. (The windows of the settings in use differ by %s among themselves.)",
				falls, latency(p99(res.Start.Deciding)), latency(p99(res.Chosen.Deciding)), number(res.OpenRate), spread)
		} else {
			with := "by the server alone"
			if len(res.Chosen.Pipeline) > 0 {
				with = "with rendering"
			}
			say("Change the settings: %s instead of %s pages/s %s, %s. (The windows of the settings in use differ by %s among themselves.)",
				number(rate(res.Chosen.Deciding)), number(rate(res.Start.Deciding)), with, gain(res.Gain), spread)
			if a, b := rate(res.Start.Alone), rate(res.Chosen.Alone); len(res.Chosen.Pipeline) > 0 && a > 0 && b > 0 {
				say("The server alone does %s instead of %s.", number(b), number(a))
			}
		}
		if res.Start.Infeasible != "" {
			say("The settings in use are over a limit: %s.", res.Start.Infeasible)
		}
		for _, f := range res.Start.Settings.changes(res.Chosen.Settings) {
			say("%s", r.why(f))
		}
	}
	if !res.Stable && r.Verdict() != VerdictNone {
		say("The measurements did not become stable (their last three windows within %.0f %%): something else was going on. Take the numbers with care, or run tune again on a quiet machine.", 100*stableWithin)
	}
	switch {
	case res.Unfinished != "" && res.OutOfTime:
		say("There was no time for everything: the stage %q was cut short. A larger --budget looks further.", res.Unfinished)
	case res.Unfinished != "":
		say("The %d measurements were used up in the stage %q. To look further, run tune again with the settings written.", res.Measurements, res.Unfinished)
	}
	if r.Objective == Throughput {
		say("%s", r.Limit().Text)
	}
	return text
}

// why says what a field's change does. Settings that were over a limit have to
// change, so what they would do else is no reason.
func (r *Report) why(f Field) string {
	from, to := r.Result.Start.Settings, r.Result.Chosen.Settings
	change, reason := "", ""
	switch f {
	case FieldMaxBatch:
		change = fmt.Sprintf("max_batch_size %d → %d", from.MaxBatch, to.MaxBatch)
		curve := r.Result.Curve
		if a, b := curve.compute(from.MaxBatch), curve.compute(to.MaxBatch); a > 0 && b > 0 {
			reason = fmt.Sprintf("a page computes in %s in a batch of %d, and in %s in one of %d",
				latency(b/time.Duration(to.MaxBatch)), to.MaxBatch, latency(a/time.Duration(from.MaxBatch)), from.MaxBatch)
		}
	case FieldInstances:
		change, reason = fmt.Sprintf("instances %d → %d", from.Instances, to.Instances), "more of them gain nothing here, and take memory"
		if to.Instances > from.Instances {
			reason = "while one copies, another computes"
		}
	case FieldDelay:
		change = fmt.Sprintf("max_queue_delay_microseconds %d → %d", from.Delay.Microseconds(), to.Delay.Microseconds())
		switch {
		case from.Delay < 0:
			change, reason = fmt.Sprintf("dynamic_batching with a delay of %v", to.Delay), "the server may merge requests"
		case to.Delay == 0:
			reason = "requests come full, so there is nothing to wait for"
		default:
			reason = "the server merges requests"
		}
	case FieldBatch:
		change, reason = fmt.Sprintf("quire.batch %d → %d", from.Batch, to.Batch), "pages in a request"
	case FieldMaxAge:
		change, reason = fmt.Sprintf("quire.max_age_ms %s → %s", milliseconds(from.MaxAge), milliseconds(to.MaxAge)), "how long the first page of a request waits for others"
	case FieldInFlight:
		change, reason = fmt.Sprintf("quire.in_flight %d → %d", from.InFlight, to.InFlight), "fewer requests under way do as much, and a page waits less"
		if to.InFlight > from.InFlight {
			reason = "more requests under way, so that one is ready whenever the model is"
		}
	}
	if reason == "" || r.Result.Start.Infeasible != "" {
		return change + "."
	}
	return change + ": " + reason + "."
}

func rate(windows []Window) float64 {
	w, _ := meanWindow(windows)
	return w.PagesPerSecond
}

func p99(windows []Window) time.Duration {
	w, _ := meanWindow(windows)
	return w.P99
}

// gain is a factor in words. Only a limit has what does less be chosen.
func gain(g float64) string {
	switch percent := math.Round(100 * g); {
	case g >= 1:
		return fmt.Sprintf("%s times as many", number(1+g))
	case percent < 0:
		return fmt.Sprintf("%.0f %% fewer, to keep within the limit", -percent)
	case percent == 0:
		return "as many"
	default:
		return fmt.Sprintf("%.0f %% more", percent)
	}
}

// number has three digits that matter.
func number(x float64) string {
	switch {
	case x == 0 || math.Abs(x) >= 99.95:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 9.995:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// latency is a time in milliseconds.
func latency(d time.Duration) string { return number(inMS(d)) + " ms" }
