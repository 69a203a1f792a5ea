package tune

import (
	"encoding/json"
	"io"
	"slices"
	"time"
)

// Report is a search with what it was about, for people and for programs.
type Report struct {
	// Tool and ToolVersion made it.
	Tool, ToolVersion string
	// Model, Version and Server name what was measured, Where where it is.
	Model, Version, Server, Where string
	// Transport is how pages went, in words.
	Transport string
	// Local tells that the server runs on this machine, whose processors draw.
	Local bool
	// Workers is how many pages were drawn at once.
	Workers int
	// Documents and Pages are the sample.
	Documents, Pages int
	// Objective, MaxP99 and MaxGPUMemory are what was looked for.
	Objective    Objective
	MaxP99       time.Duration
	MaxGPUMemory int64
	// Budget is the time there was, Window how long a measurement counted, Took
	// how long all took.
	Budget, Window, Took time.Duration
	Result               *Result
}

// Verdict says what came of the search.
type Verdict string

// The verdicts.
const (
	// VerdictChange: the choice is better than the start.
	VerdictChange Verdict = "change"
	// VerdictKeep: nothing is better than the start by more than noise.
	VerdictKeep Verdict = "keep"
	// VerdictRendering: drawing is the limit, and no settings can help.
	VerdictRendering Verdict = "rendering"
	// VerdictNone: nothing that was tried is within the limits that were set.
	VerdictNone Verdict = "none"
)

// Verdict is what came of the search.
func (r *Report) Verdict() Verdict {
	res := r.Result
	switch {
	case res.Chosen != res.Start:
		return VerdictChange
	case res.RenderingLimits:
		return VerdictRendering
	case res.Start.Infeasible != "":
		return VerdictNone
	}
	return VerdictKeep
}

// meanWindow is the mean of windows, field by field; batches are added up, and
// of memory it is the most.
func meanWindow(windows []Window) (w Window, ok bool) {
	w.GPUUtilization, w.GPUMemory = -1, -1
	n := len(windows)
	if n == 0 {
		return w, false
	}
	counts := map[int]int64{}
	var used []float64 // a short window may pass without a look at the GPUs
	for _, x := range windows {
		w.PagesPerSecond += x.PagesPerSecond / float64(n)
		w.P50 += x.P50 / time.Duration(n)
		w.P95 += x.P95 / time.Duration(n)
		w.P99 += x.P99 / time.Duration(n)
		w.QueueShare += x.QueueShare / float64(n)
		w.ServerShare += x.ServerShare / float64(n)
		if x.GPUUtilization >= 0 {
			used = append(used, x.GPUUtilization)
		}
		w.GPUMemory = max(w.GPUMemory, x.GPUMemory)
		for _, e := range x.Executed {
			counts[e.Size] += e.Count
		}
	}
	if len(used) > 0 {
		w.GPUUtilization = mean(used)
	}
	for size, count := range counts {
		w.Executed = append(w.Executed, Executed{size, count})
	}
	slices.SortFunc(w.Executed, func(a, b Executed) int { return a.Size - b.Size })
	return w, true
}

// The JSON of a report. Times are in the unit that the name ends with.
type (
	reportJSON struct {
		Schema      string       `json:"schema"`
		Tool        string       `json:"tool"`
		ToolVersion string       `json:"tool_version"`
		Model       string       `json:"model"`
		Version     string       `json:"model_version"`
		Server      string       `json:"server_version"`
		Where       string       `json:"server"`
		Transport   string       `json:"transport"`
		Local       bool         `json:"server_on_this_machine"`
		Workers     int          `json:"workers"`
		Documents   int          `json:"sample_documents"`
		Pages       int          `json:"sample_pages"`
		Objective   string       `json:"objective"`
		MaxP99      float64      `json:"max_p99_ms,omitempty"`
		Budget      float64      `json:"budget_seconds"`
		Window      float64      `json:"window_seconds"`
		Took        float64      `json:"took_seconds"`
		Measured    int          `json:"measurements"`
		Unfinished  string       `json:"unfinished,omitempty"`
		Verdict     Verdict      `json:"verdict"`
		Text        []string     `json:"text"`
		Start       Settings     `json:"start"`
		Chosen      Settings     `json:"chosen"`
		Changed     []Field      `json:"changed"`
		Gain        float64      `json:"gain"`
		Spread      float64      `json:"spread"`
		Stable      bool         `json:"stable"`
		Rendering   float64      `json:"rendering_pages_per_second,omitempty"`
		Limit       limitJSON    `json:"limit"`
		Curve       []pointJSON  `json:"curve"`
		CurveEnd    string       `json:"curve_stopped,omitempty"`
		Trials      []*trialJSON `json:"trials"`
	}
	limitJSON struct {
		By     LimitKind `json:"by"`
		AtMost *float64  `json:"more_tuning_at_most"`
		Text   string    `json:"text"`
	}
	pointJSON struct {
		Size    int     `json:"size"`
		Compute float64 `json:"compute_ms"`
		Rate    float64 `json:"pages_per_second"`
	}
	trialJSON struct {
		Settings   Settings     `json:"settings"`
		Stage      string       `json:"stage"`
		Infeasible string       `json:"infeasible,omitempty"`
		Finalist   bool         `json:"finalist"`
		Alone      []windowJSON `json:"server_alone,omitempty"`
		Pipeline   []windowJSON `json:"with_rendering,omitempty"`
		Open       []windowJSON `json:"open_loop,omitempty"`
	}
	windowJSON struct {
		Rate           float64    `json:"pages_per_second"`
		P50            float64    `json:"p50_ms"`
		P95            float64    `json:"p95_ms"`
		P99            float64    `json:"p99_ms"`
		Queue          float64    `json:"queue_share"`
		Server         float64    `json:"server_share"`
		Executed       []Executed `json:"executed"`
		GPUUtilization *float64   `json:"gpu_utilization"`
		GPUMemory      *int64     `json:"gpu_memory_bytes"`
	}
)

func inMS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func windowsJSON(windows []Window) (list []windowJSON) {
	for _, w := range windows {
		j := windowJSON{Rate: w.PagesPerSecond, P50: inMS(w.P50), P95: inMS(w.P95), P99: inMS(w.P99), Queue: w.QueueShare, Server: w.ServerShare, Executed: w.Executed}
		if w.GPUUtilization >= 0 {
			j.GPUUtilization, j.GPUMemory = &w.GPUUtilization, &w.GPUMemory
		}
		list = append(list, j)
	}
	return list
}

// JSON writes one object with everything that was measured.
func (r *Report) JSON(w io.Writer) error {
	res, limit := r.Result, r.Limit()
	j := reportJSON{
		Schema: "quire-tune/1", Tool: r.Tool, ToolVersion: r.ToolVersion, Model: r.Model, Version: r.Version, Server: r.Server, Where: r.Where,
		Transport: r.Transport, Local: r.Local, Workers: r.Workers, Documents: r.Documents, Pages: r.Pages,
		Objective: r.Objective.String(), MaxP99: inMS(r.MaxP99), Budget: r.Budget.Seconds(), Window: r.Window.Seconds(), Took: r.Took.Seconds(),
		Measured: res.Measurements, Unfinished: res.Unfinished, Verdict: r.Verdict(), Text: r.Explain(),
		Start: res.Start.Settings, Chosen: res.Chosen.Settings, Changed: res.Start.Settings.changes(res.Chosen.Settings),
		Gain: res.Gain, Spread: res.Spread, Stable: res.Stable, Rendering: res.Rendering,
		Limit: limitJSON{By: limit.Kind, Text: limit.Text}, CurveEnd: res.Curve.Stopped,
	}
	if limit.AtMost > 0 {
		more := limit.AtMost - 1
		j.Limit.AtMost = &more
	}
	for _, p := range res.Curve.Points {
		j.Curve = append(j.Curve, pointJSON{p.Size, inMS(p.Compute), p.rate()})
	}
	for _, t := range res.Trials {
		j.Trials = append(j.Trials, &trialJSON{
			Settings: t.Settings, Stage: t.Stage, Infeasible: t.Infeasible, Finalist: slices.Contains(res.Finalists, t),
			Alone: windowsJSON(t.Alone), Pipeline: windowsJSON(t.Pipeline), Open: windowsJSON(t.Open),
		})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(j)
}
