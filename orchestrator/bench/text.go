package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"quire/orchestrator/internal/measure"
)

// width is that of a terminal.
const width = 80

// Text writes a result for people, for a terminal of 80 columns.
func (r *Result) Text(w io.Writer) error {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	head := func(title string) { p("\n%s\n", title) }

	m, s := r.Model, r.Settings
	kind := ""
	if m.Kind != KindLayout {
		kind = fmt.Sprintf(" (%s: it computes nothing)", m.Kind)
	}
	const label = 10
	line := func(name, text string) { p("%-*s%s", label, name, wrap(text, label)[label:]) }
	line("model", fmt.Sprintf("%s version %s%s at %s", m.Name, m.Version, kind, m.Server))
	line("machine", fmt.Sprintf("%s, %s, %s", r.Machine.CPU, count(r.Machine.Cores, "core"), r.Machine.Kernel))
	line("settings", fmt.Sprintf("%s, batches up to %s, %s ms old, %d in flight, %s",
		count(s.Workers, "worker"), count(s.Batch, "page"), trim(s.MaxAgeMS), s.InFlight, transportWords[s.Transport]))
	of := ""
	if r.Set.Found > r.Set.Documents {
		of = fmt.Sprintf(" (of %d)", r.Set.Found)
	}
	line("pages", fmt.Sprintf("%s of %s%s, over and over; %s of windows of %s s",
		count(r.Set.Pages, "page"), count(r.Set.Documents, "document"), of, count(len(r.Repeats), "round"), trim(s.WindowSeconds)))

	p("\n%-22s %10s %16s\n", "", "pages/s", "CPU-ms a page")
	row := func(name string, stage Stage, known bool) {
		cpu := "not known"
		if known {
			cpu = fmt.Sprintf("%.1f", stage.CPU)
		}
		p("  %-20s %10.1f %16s\n", name, stage.PagesPerSecond, cpu)
	}
	row("rendering alone", r.Rendering, true)
	row("the server alone", r.Server, m.Ours)
	if a := r.PerfAnalyzer; a != nil {
		p("  %-20s %10.1f\n", "  by perf_analyzer", a.PagesPerSecond)
	}
	row("the whole", r.Whole, true)
	if r.Limit.PagesPerSecond > 0 {
		p("\n  %-20s %10.1f   %s\n", "the limit", r.Limit.PagesPerSecond, r.limitWords())
		p("  %-20s %10.3f   %s\n", "achieved of it", r.Fraction, r.stableWords())
	} else {
		p("\n  %-20s %10s   a stage did no page\n", "the limit", "not known")
		p("  %-20s %10s   %s\n", "achieved of it", "not known", r.stableWords())
	}

	head("where a page's CPU time goes")
	b.WriteString(r.Parts.text(m.Ours))

	head("what holds it up: " + bottleneckWords[r.Bottleneck.What])
	b.WriteString(wrap(r.Bottleneck.Why+" "+r.Bottleneck.Remedy, 2))

	head("batches that the server executed")
	b.WriteString(r.Batches.text())

	head("memory of quire's processes, the server apart")
	mem := r.Memory
	p("  %s MB at most: quire %s, %s %s, guard %s\n", mega(mem.Peak), mega(mem.Quire), count(s.Workers, "render worker"), mega(mem.Workers), mega(mem.Guard))
	p("  page buffers are bounded at %s MB, and part of it; shared memory counts once\n", mega(mem.Bound))

	p("\n%-40s %9s %9s %9s\n", "event path of quire's own process, in ms", "p50", "p99", "max")
	latencies := func(name string, l Latency) {
		p("  %-38s %9.2f %9.2f %9.2f\n", name, l.P50, l.P99, l.Max)
	}
	latencies("a timer of 1 ms is late by", r.Events.Tick)
	latencies("a request for the counts takes", r.Events.Request)

	if len(r.Warnings) > 0 {
		b.WriteByte('\n')
	}
	for _, w := range r.Warnings {
		b.WriteString("! " + strings.TrimPrefix(wrap(w, 2), "  "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var transportWords = map[string]string{"shm": "through shared memory", "grpc": "inside the requests"}

var bottleneckWords = map[string]string{
	"machine": "the machine", "rendering": "rendering", "server": "the server", "transport": "the transport",
	"window": "the window", "others": "other programs", "none": "nothing in particular",
}

func (r *Result) limitWords() string {
	switch r.Limit.Kind {
	case LimitCores:
		return fmt.Sprintf("%s ÷ (%.1f + %.1f) CPU-ms", count(r.Machine.Cores, "core"), r.Rendering.CPU, r.Server.CPU)
	case LimitRendering:
		return "rendering alone: the model takes no time"
	}
	return "the slower of rendering and the server, alone"
}

func (r *Result) stableWords() string {
	switch {
	case r.Stable:
		return fmt.Sprintf("stable: the last 3 wholes within %.1f %%", 100*(r.Spread-1))
	case r.Spread == 0:
		return "not stable: a whole did no page"
	case len(r.Repeats) >= measure.StableWindows:
		return fmt.Sprintf("not stable: the last 3 wholes %.0f %% apart", 100*(r.Spread-1))
	}
	return "not known to be stable"
}

// text is a line a part, with a bar.
func (p Parts) text(ours bool) string {
	type part struct {
		name string
		cpu  float64
	}
	parts := []part{{"drawing (MuPDF)", p.MuPDF}, {"render workers, else", p.Workers}, {"quire", p.Quire}, {"guard", p.Guard}}
	if ours {
		parts = slices.Insert(parts, 0, part{"the model's process", p.Model}, part{"tritonserver", p.Server})
	}
	total := p.Model + p.Server + p.MuPDF + p.Own
	var b strings.Builder
	for _, part := range parts {
		share := 0.0
		if total > 0 {
			share = part.cpu / total
		}
		line := fmt.Sprintf("  %-20s %10.2f ms %5.1f %%  %s", part.name, part.cpu, 100*share, bar(share, 30))
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
	}
	fmt.Fprintf(&b, "  %-20s %10.2f ms, %.2f of it quire's, outside MuPDF\n", "together", total, p.Own)
	return b.String()
}

func (b Batches) text() string {
	if b.Executed == nil {
		return "  not known\n"
	}
	executions, pages, most := 0, 0, 1
	for _, e := range b.Executed {
		executions += e.Count
		pages += e.Size * e.Count
		most = max(most, e.Count)
	}
	var out strings.Builder
	for _, e := range b.Executed {
		line := fmt.Sprintf("  %8s %10d ×  %s", count(e.Size, "page"), e.Count, bar(float64(e.Count)/float64(most), 42))
		fmt.Fprintln(&out, strings.TrimRight(line, " "))
	}
	if executions > 0 {
		fmt.Fprintf(&out, "  %.1f pages on average\n", float64(pages)/float64(executions))
	}
	return out.String()
}

// bar is a share of so many columns, in eighths of one.
func bar(share float64, columns int) string {
	eighths := int(share*float64(columns)*8 + 0.5)
	bar := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		bar += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return bar
}

func mega(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/1e6) }

// trim is a number without zeros at its end.
func trim(x float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.1f", x), "0"), ".")
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// wrap breaks text into lines of at most width columns that begin with indent
// spaces.
func wrap(text string, indent int) string {
	var b strings.Builder
	column := 0
	// A number and its unit stay together.
	for word := range strings.SplitSeq(strings.ReplaceAll(text, " %", nbsp+"%"), " ") {
		n := len([]rune(word))
		switch {
		case column == 0:
			b.WriteString(strings.Repeat(" ", indent))
			column = indent
		case column+1+n > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return strings.ReplaceAll(b.String(), nbsp, " ") + "\n"
}

const nbsp = "\u00a0"
