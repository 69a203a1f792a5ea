package tune

import (
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// HTML writes the report as one page that needs nothing else, also no network:
// pictures of the curve, of the candidates and of the batches that the server
// executed, and the table.
func (r *Report) HTML(w io.Writer) error {
	columns, rows := r.table()
	return page.Execute(w, map[string]any{
		"Report": r, "Explain": r.Explain(), "Columns": columns, "Rows": rows,
		"Curve": r.curvePicture(), "Candidates": r.candidatesPicture(), "Executed": r.executedPicture(),
		"Took": r.Took.Round(1e9), "Window": r.Window.Round(1e8),
	})
}

var page = template.Must(template.New("tune").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>quire tune: {{.Report.Model}}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { text-align: right; padding: .15rem .5rem; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:last-child, td:last-child { text-align: left; white-space: normal; }
tr.chosen { background: #e6f4ea; } tr.finalist { background: #f3f6fb; }
svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #444; }
.grid { stroke: #e4e4e4; } .line { fill: none; stroke: #1f6feb; stroke-width: 2; } .dot { fill: #1f6feb; }
.server { fill: #9ec1f7; } .run { fill: #1f6feb; } .start { fill: #b9b9b9; } .range { stroke: #222; }
p.small { color: #666; font-size: 13px; }
</style>
</head>
<body>
<h1>quire tune: {{.Report.Model}} version {{.Report.Version}}</h1>
<p class="small">{{.Report.Tool}} {{.Report.ToolVersion}}; Triton {{.Report.Server}} at {{.Report.Where}}; pages go {{.Report.Transport}}; sample of {{.Report.Documents}} documents, {{.Report.Pages}} pages kept; {{.Report.Result.Measurements}} measurements of {{.Window}} in {{.Took}}.</p>
{{range .Explain}}<p>{{.}}</p>
{{end}}
{{with .Curve}}<h2>The model by batch size</h2>
<p class="small">Pages a second that one instance computes, by the server's own statistics, one batch at a time.</p>
{{.}}{{end}}
{{with .Candidates}}<h2>Candidates, in the order in which they were tried</h2>
<p class="small">Pale: the server alone; dark: with rendering; the line: from the slowest to the fastest window. A number is a row of the table.</p>
{{.}}{{end}}
{{with .Executed}}<h2>Batches that the server executed</h2>
<p class="small">Share of executions by size: grey with the settings in use, blue with the choice.</p>
{{.}}{{end}}
<h2>All measurements</h2>
<p class="small">run: pages/s with rendering; server: of the server alone; p50, p95, p99: milliseconds of a page at the server's peak; p99@80%: at 80 % of it, pages coming as they may; queue: the part of the server's time that requests waited in its queue; executed: batches by size.</p>
<table>
<tr><th>#</th>{{range .Columns}}<th>{{.}}</th>{{end}}</tr>
{{range $i, $row := .Rows}}<tr{{if eq (index $row 0) "→"}} class="chosen"{{else if eq (index $row 0) "·"}} class="finalist"{{end}}><td>{{$i}}</td>{{range $row}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table>
</body>
</html>
`))

// The size of a picture in pixels, and of the room for its scales.
const (
	pictureWidth, pictureHeight = 900.0, 260.0
	scaleLeft, scaleBelow       = 60.0, 34.0
	plotWidth, plotHeight       = pictureWidth - scaleLeft - 10, pictureHeight - scaleBelow - 10
	scaleSteps                  = 4
)

// svg draws into a plot whose y axis goes from 0 to most.
type svg struct {
	strings.Builder
	most float64
}

// newSVG draws the scale, in round steps up to the least that most is within.
func newSVG(most float64, format func(float64) string) *svg {
	s := &svg{most: scaleSteps * roundUp(most/scaleSteps)}
	most = s.most
	fmt.Fprintf(s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img">`, pictureWidth, pictureHeight, pictureWidth, pictureHeight)
	for i := range scaleSteps + 1 {
		value := most * float64(i) / scaleSteps
		y := s.y(value)
		fmt.Fprintf(s, `<line class="grid" x1="%g" y1="%.1f" x2="%g" y2="%.1f"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`,
			scaleLeft, y, pictureWidth-10, y, scaleLeft-6, y+4, template.HTMLEscapeString(format(value)))
	}
	return s
}

// roundUp is the next number with one digit that matters, or a half behind it.
func roundUp(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, round := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8} {
		if x <= round*power*(1+1e-9) {
			return round * power
		}
	}
	return 10 * power
}

func (s *svg) y(value float64) float64 { return 10 + plotHeight*(1-value/s.most) }

func (s *svg) label(x float64, text string) {
	fmt.Fprintf(s, `<text x="%.1f" y="%g" text-anchor="middle">%s</text>`, x, pictureHeight-14, template.HTMLEscapeString(text))
}

func (s *svg) bar(class string, x, width, value float64, title string) {
	y := s.y(value)
	fmt.Fprintf(s, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s</title></rect>`, class, x, y, width, s.y(0)-y, template.HTMLEscapeString(title))
}

func (s *svg) done() template.HTML {
	s.WriteString("</svg>")
	return template.HTML(s.String()) // what is not a number in it is escaped
}

// curvePicture is the rate by batch size, sizes on a scale of doublings.
func (r *Report) curvePicture() template.HTML {
	points := r.Result.Curve.Points
	if len(points) < 2 {
		return ""
	}
	most := 0.0
	for _, p := range points {
		most = max(most, p.rate())
	}
	s := newSVG(most, number)
	first, last := math.Log2(float64(points[0].Size)), math.Log2(float64(points[len(points)-1].Size))
	x := func(p Point) float64 {
		return scaleLeft + plotWidth*(math.Log2(float64(p.Size))-first)/(last-first)*0.97 + 10
	}
	var line []string
	for _, p := range points {
		line = append(line, fmt.Sprintf("%.1f,%.1f", x(p), s.y(p.rate())))
		s.label(x(p), fmt.Sprint(p.Size))
	}
	fmt.Fprintf(s, `<polyline class="line" points="%s"/>`, strings.Join(line, " "))
	for _, p := range points {
		fmt.Fprintf(s, `<circle class="dot" cx="%.1f" cy="%.1f" r="4"><title>batch of %d: %s, %s pages/s</title></circle>`, x(p), s.y(p.rate()), p.Size, latency(p.Compute), number(p.rate()))
	}
	return s.done()
}

// candidatesPicture is pages a second of each candidate, the server alone and
// with rendering, or the 99th percentile when that is what counts.
func (r *Report) candidatesPicture() template.HTML {
	trials := r.Result.Trials
	if len(trials) < 2 {
		return ""
	}
	value, format := func(w Window) float64 { return w.PagesPerSecond }, number
	groups := []struct {
		class string
		of    func(*Trial) []Window
	}{{"server", func(t *Trial) []Window { return t.Alone }}, {"run", func(t *Trial) []Window { return t.Pipeline }}}
	if r.Objective == Latency {
		value, format = func(w Window) float64 { return inMS(w.P99) }, func(x float64) string { return number(x) + " ms" }
		groups = groups[:1]
		groups[0].of = func(t *Trial) []Window { return t.Open }
	}
	most := 0.0
	for _, t := range trials {
		for _, g := range groups {
			for _, w := range g.of(t) {
				most = max(most, value(w))
			}
		}
	}
	if most == 0 {
		return ""
	}
	s := newSVG(most, format)
	step := plotWidth / float64(len(trials))
	width := 0.8 * step / float64(len(groups))
	for i, t := range trials {
		left := scaleLeft + float64(i)*step + 0.1*step
		s.label(left+0.4*step, fmt.Sprint(i))
		for j, g := range groups {
			values := []float64{}
			for _, w := range g.of(t) {
				values = append(values, value(w))
			}
			if len(values) == 0 {
				continue
			}
			x := left + float64(j)*width
			s.bar(g.class, x, width, mean(values), fmt.Sprintf("%v: %s", t.Settings, format(mean(values))))
			if len(values) > 1 {
				fmt.Fprintf(s, `<line class="range" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, x+width/2, s.y(slices.Min(values)), x+width/2, s.y(slices.Max(values)))
			}
		}
	}
	return s.done()
}

// executedPicture is the batches of start and choice, by their share.
func (r *Report) executedPicture() template.HTML {
	res := r.Result
	sizes := map[int]bool{}
	shares := func(t *Trial) map[int]float64 {
		executed := shownWindow(t).Executed
		var all int64
		for _, e := range executed {
			all += e.Count
		}
		list := map[int]float64{}
		for _, e := range executed {
			list[e.Size] = float64(e.Count) / float64(all)
			sizes[e.Size] = true
		}
		return list
	}
	type kind struct {
		class string
		share map[int]float64
	}
	kinds := []kind{{"start", shares(res.Start)}}
	if res.Chosen != res.Start {
		kinds = append(kinds, kind{"run", shares(res.Chosen)})
	}
	all := slices.Sorted(maps.Keys(sizes))
	if len(all) == 0 {
		return ""
	}
	s := newSVG(1, func(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) })
	step := plotWidth / float64(len(all))
	width := 0.6 * min(step, 120) / float64(len(kinds))
	for i, size := range all {
		middle := scaleLeft + (float64(i)+0.5)*step
		s.label(middle, fmt.Sprint(size))
		for j, k := range kinds {
			if share := k.share[size]; share > 0 {
				s.bar(k.class, middle+(float64(j)-float64(len(kinds))/2)*width, width, share, fmt.Sprintf("%d pages: %.0f %%", size, 100*share))
			}
		}
	}
	return s.done()
}
