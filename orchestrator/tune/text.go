package tune

import (
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
		best := slices.MaxFunc(points, func(a, b Point) int { return int(a.rate() - b.rate()) })
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
	r.table(&b)
	b.WriteString("\n")
	for _, line := range r.Explain() {
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
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

// columns are the table's, and cells what stands in them.
var columns = []string{"", "max_batch", "instances", "delay", "batch", "age", "in_flight", "run", "server", "p50", "p95", "p99", "p99@80%", "queue", "executed"}

// cells is one row: the settings; pages a second with rendering and of the
// server alone; its percentiles at its peak, and at 80 % of it, in milliseconds.
func (r *Report) cells(t *Trial) []string {
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
	blank := func(n int) {
		for range n {
			row = append(row, "")
		}
	}
	if w, ok := meanWindow(t.Pipeline); ok {
		row = append(row, number(w.PagesPerSecond))
	} else {
		blank(1)
	}
	shown, ok := meanWindow(t.Alone)
	if ok {
		row = append(row, number(shown.PagesPerSecond), number(inMS(shown.P50)), number(inMS(shown.P95)), number(inMS(shown.P99)))
	} else {
		blank(4)
		shown, ok = meanWindow(t.Open)
	}
	if w, ok := meanWindow(t.Open); ok {
		row = append(row, number(inMS(w.P99)))
	} else {
		blank(1)
	}
	if ok {
		row = append(row, fmt.Sprintf("%.0f %%", 100*shown.QueueShare), executedText(shown.Executed))
	} else {
		blank(2)
	}
	if t.Infeasible != "" {
		row[len(row)-1] = strings.TrimSpace(row[len(row)-1] + " " + t.Infeasible)
	}
	return row
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

func (r *Report) table(b *strings.Builder) {
	rows := [][]string{columns}
	gpu := false
	for _, t := range r.Result.Trials {
		rows = append(rows, r.cells(t))
		w, ok := meanWindow(t.Alone)
		gpu = gpu || ok && w.GPUUtilization >= 0
	}
	if gpu {
		rows[0] = append(slices.Clone(rows[0]), "GPU", "GPU memory")
		for i, t := range r.Result.Trials {
			w, ok := meanWindow(t.Alone)
			if ok && w.GPUUtilization >= 0 {
				rows[i+1] = append(rows[i+1], fmt.Sprintf("%.0f %%", 100*w.GPUUtilization), fmt.Sprintf("%.0f MB", float64(w.GPUMemory)/1e6))
			}
		}
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	const textColumn = 14 // executed, and what is behind it, begins at the left
	b.WriteString("pages/s of a run and of the server alone; milliseconds of a page at the server's peak and at 80 % of it; → chosen, · finalist\n")
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			switch {
			case i == len(row)-1 && i >= textColumn:
				line.WriteString("  " + cell)
			case i >= textColumn:
				line.WriteString("  " + cell + pad)
			case i == 0:
				line.WriteString(cell + pad)
			default:
				line.WriteString("  " + pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
