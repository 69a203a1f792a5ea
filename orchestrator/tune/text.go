package tune

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Text writes the report for people: a table of all candidates, a picture of
// them, and what follows.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	res := r.Result
	fmt.Fprintf(&b, "model %s version %s, Triton %s, %s; pages go %s\n", r.Model, r.Version, r.Server, r.Where, r.Transport)
	fmt.Fprintf(&b, "sample: %d documents, %d pages kept; %d measurements of %v in %v\n\n", r.Documents, r.Pages, res.Measurements, r.Window.Round(100*time.Millisecond), r.Took.Round(time.Second))
	if points := res.Curve.Points; len(points) > 0 {
		var rates []float64
		for _, p := range points {
			rates = append(rates, p.rate())
		}
		best := slices.MaxFunc(points, func(a, b Point) int { return cmp.Compare(a.rate(), b.rate()) })
		fmt.Fprintf(&b, "the model by batch size: %s  from %d (%s pages/s) to %d (%s); best %d (%s)", bars(rates),
			points[0].Size, number(rates[0]), points[len(points)-1].Size, number(rates[len(rates)-1]), best.Size, number(best.rate()))
		if res.Curve.Stopped != "" {
			fmt.Fprintf(&b, "; %s", res.Curve.Stopped)
		}
		b.WriteString("\n")
	}
	var rates []float64
	for _, t := range res.Trials {
		rates = append(rates, r.shown(t))
	}
	if len(rates) > 1 {
		fmt.Fprintf(&b, "the candidates, in order: %s\n", bars(rates))
	}
	if len(res.Curve.Points) > 0 || len(rates) > 1 {
		b.WriteString("\n")
	}
	r.writeTable(&b)
	b.WriteString("\n")
	for _, line := range r.Explain() {
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// bars draws values as a line of bars, the lowest at the smallest value or at 0.
func bars(values []float64) string {
	signs := []rune("▁▂▃▄▅▆▇█")
	most := slices.Max(values)
	var b strings.Builder
	for _, v := range values {
		i := 0
		if most > 0 && v > 0 {
			i = min(len(signs)-1, int(v/most*float64(len(signs)-1)+0.5))
		}
		b.WriteRune(signs[i])
	}
	return b.String()
}

// shown is what a candidate is compared by in a picture: pages a second of the
// server alone, or what else there is.
func (r *Report) shown(t *Trial) float64 {
	if r.Objective == Latency {
		if w, ok := meanWindow(t.Open); ok && w.P99 > 0 {
			return 1 / w.P99.Seconds()
		}
		return 0
	}
	if x := rate(t.Alone); x > 0 {
		return x
	}
	return rate(t.Pipeline)
}

// table is all candidates: the settings; pages a second with rendering and of
// the server alone; percentiles at the server's peak, and at 80 % of it, in
// milliseconds; what the server did, and its GPUs where it tells.
func (r *Report) table() (columns []string, rows [][]string) {
	columns = []string{"", "max_batch", "instances", "delay", "batch", "age", "in_flight", "run", "server", "p50", "p95", "p99", "p99@80%", "queue"}
	gpu := slices.ContainsFunc(r.Result.Trials, func(t *Trial) bool { return shownWindow(t).GPUUtilization >= 0 })
	if gpu {
		columns = append(columns, "GPU", "GPU memory")
	}
	for _, t := range r.Result.Trials {
		rows = append(rows, r.row(t, gpu))
	}
	return append(columns, "executed"), rows
}

// shownWindow is what the table says of what the server did: at its peak, or at
// 80 % of it when there is nothing else.
func shownWindow(t *Trial) Window {
	for _, windows := range [][]Window{t.Alone, t.Open} {
		if w, ok := meanWindow(windows); ok {
			return w
		}
	}
	w, _ := meanWindow(t.Pipeline)
	return w
}

func (r *Report) row(t *Trial, gpu bool) []string {
	res := r.Result
	mark := " "
	switch {
	case t == res.Chosen:
		mark = "→"
	case slices.Contains(res.Finalists, t) || t == res.Start:
		mark = "·"
	}
	s := t.Settings
	delay := "none"
	if s.Delay >= 0 {
		delay = s.Delay.String()
	}
	row := []string{mark, fmt.Sprint(s.MaxBatch), fmt.Sprint(s.Instances), delay, fmt.Sprint(s.Batch), s.MaxAge.String(), fmt.Sprint(s.InFlight)}
	// What was not measured is left blank.
	cell := func(known bool, text string) {
		if !known {
			text = ""
		}
		row = append(row, text)
	}
	run, ran := meanWindow(t.Pipeline)
	alone, fed := meanWindow(t.Alone)
	open, opened := meanWindow(t.Open)
	cell(ran, number(run.PagesPerSecond))
	cell(fed, number(alone.PagesPerSecond))
	for _, p := range []time.Duration{alone.P50, alone.P95, alone.P99} {
		cell(fed, number(inMS(p)))
	}
	cell(opened, number(inMS(open.P99)))
	shown := shownWindow(t)
	cell(ran || fed || opened, fmt.Sprintf("%.0f %%", 100*shown.QueueShare))
	if gpu {
		cell(shown.GPUUtilization >= 0, fmt.Sprintf("%.0f %%", 100*shown.GPUUtilization))
		cell(shown.GPUUtilization >= 0, fmt.Sprintf("%.0f MB", float64(shown.GPUMemory)/1e6))
	}
	return append(row, strings.TrimSpace(executedText(shown.Executed)+" "+t.Infeasible))
}

// executedText is a histogram in a few words: the commonest sizes first.
func executedText(list []Executed) string {
	list = slices.Clone(list)
	var all int64
	for _, e := range list {
		all += e.Count
	}
	slices.SortStableFunc(list, func(a, b Executed) int { return int(b.Count - a.Count) })
	var words []string
	for i, e := range list {
		if i == 3 {
			words = append(words, "…")
			break
		}
		words = append(words, fmt.Sprintf("%d:%.0f%%", e.Size, 100*float64(e.Count)/float64(all)))
	}
	return strings.Join(words, " ")
}

func (r *Report) writeTable(b *strings.Builder) {
	columns, rows := r.table()
	rows = append([][]string{columns}, rows...)
	widths := make([]int, len(columns))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	b.WriteString("pages/s of a run and of the server alone; milliseconds of a page at the server's peak and at 80 % of it; → chosen, · finalist\n")
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			switch i {
			case 0:
				line.WriteString(cell + pad)
			case len(row) - 1:
				line.WriteString("  " + cell)
			default:
				line.WriteString("  " + pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
