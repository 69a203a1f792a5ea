package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"quire/orchestrator"
	"quire/orchestrator/internal/measure"
	"quire/tritonclient"
)

func TestLimit(t *testing.T) {
	rendering, server := Stage{PagesPerSecond: 140, CPU: 14}, Stage{PagesPerSecond: 35, CPU: 56}
	fast := Stage{PagesPerSecond: 500, CPU: 1}
	for _, c := range []struct {
		kind              LimitKind
		rendering, server Stage
		want              float64
	}{
		{LimitCores, rendering, server, 2000.0 / 70},
		{LimitRendering, rendering, server, 140},
		{LimitSlower, rendering, server, 35},
		{LimitSlower, rendering, fast, 140},
	} {
		if got := limit(c.kind, 2, c.rendering, c.server); got.PagesPerSecond != c.want || got.Kind != c.kind {
			t.Errorf("%s: %+v, want %v", c.kind, got, c.want)
		}
	}
}

func TestLimitKind(t *testing.T) {
	ours := func() int { return 1 }
	for _, c := range []struct {
		cfg  Config
		want LimitKind
	}{
		{Config{Kind: KindLayout, Server: ours}, LimitCores},
		{Config{Kind: KindLayout}, LimitSlower}, // its processor time is not known
		{Config{Kind: KindInstant, Server: ours}, LimitRendering},
		{Config{Kind: KindGPULike, Server: ours}, LimitSlower}, // it sleeps
	} {
		if got := c.cfg.limitKind(); got != c.want {
			t.Errorf("%s: %s, want %s", c.cfg.Kind, got, c.want)
		}
	}
}

func TestBottleneck(t *testing.T) {
	inference := Parts{MuPDF: 14, Own: 1, Server: 1, Model: 60}
	drawing := Parts{MuPDF: 14, Own: 1, Server: 0.5, Model: 0.1}
	two := Settings{Workers: 2, InFlight: 2, Transport: "shm"}
	inBand := Settings{Workers: 2, InFlight: 2, Transport: "grpc"}
	one := Settings{Workers: 1, InFlight: 2, Transport: "shm"}
	for _, c := range []struct {
		name     string
		use      Use
		parts    Parts
		settings Settings
		what     string
		remedy   string
	}{
		{"both cores infer", Use{Ours: 1.95, Executing: 0.97, Stalled: 0.9, Full: 0.9}, inference, two, "machine", "GPU"},
		{"both cores draw", Use{Ours: 1.95, Executing: 0.1, Drawing: 0.9}, drawing, two, "machine", "More cores"},
		{"somebody else's work", Use{Ours: 1.2, Others: 0.75, Executing: 0.97, Stalled: 0.9}, inference, two, "others", "nothing else"},
		{"a hypervisor's other guests", Use{Ours: 1.2, Stolen: 0.75}, inference, two, "others", "nothing else"},
		{"a GPU that is busy", Use{Ours: 0.6, Executing: 0.96, Stalled: 0.9, Full: 0.95}, drawing, two, "server", "quire tune"},
		{"pixels on a slow network", Use{Ours: 0.6, Executing: 0.3, Stalled: 0.9, Full: 0.95}, drawing, inBand, "transport", "Shared memory"},
		{"a server far away", Use{Ours: 0.6, Executing: 0.3, Stalled: 0.9, Full: 0.95}, drawing, two, "window", "--in-flight 3"},
		{"a server that tells nothing", Use{Ours: 0.6, Executing: -1, Stalled: 0.9, Full: 0.95}, drawing, two, "server", "faster server"},
		{"too few workers", Use{Ours: 1.1, Executing: 0.3, Starved: 0.6, Drawing: 0.97}, drawing, one, "rendering", "--workers 2"},
		{"as many as there are cores", Use{Ours: 1.8, Executing: 0.3, Starved: 0.6, Drawing: 0.88}, drawing, two, "rendering", "More cores"},
		{"a network that tells nothing", Use{Ours: 0.6, Executing: -1, Stalled: 0.9, Full: 0.95}, drawing, inBand, "server", "faster server"},
		{"a window that is not full", Use{Ours: 0.6, Executing: 0.3, Stalled: 0.9, Full: 0.2}, drawing, two, "server", "faster server"},
		{"a model that is busy, and nobody waits", Use{Ours: 0.6, Executing: 0.97, Stalled: 0.1, Full: 0.95}, drawing, two, "none", "min-time"},
		{"a network, and nobody waits", Use{Ours: 0.6, Executing: 0.3, Stalled: 0.1, Full: 0.2}, drawing, inBand, "none", "min-time"},
		{"others on a machine with room", Use{Ours: 0.6, Others: 0.7, Executing: 0.3, Stalled: 0.1}, drawing, two, "none", "min-time"},
		{"nothing is busy", Use{Ours: 0.5, Executing: 0.2, Starved: 0.6, Drawing: 0.2}, drawing, two, "none", "min-time"},
	} {
		r := &Result{Machine: Machine{Cores: 2}, Model: Model{Kind: KindLayout}, Settings: c.settings, Use: c.use, Parts: c.parts}
		got := bottleneck(r)
		if got.What != c.what || !strings.Contains(got.Remedy, c.remedy) || got.Why == "" {
			t.Errorf("%s: %+v, want %s and %q", c.name, got, c.what, c.remedy)
		}
		if bottleneckWords[got.What] == "" {
			t.Errorf("%s: no word for %q", c.name, got.What)
		}
	}
}

// The work of a server on this machine that quire has not started is not that of
// other programs, as far as anybody can tell.
func TestServerHere(t *testing.T) {
	idle := &Result{Machine: Machine{Cores: 2}, Model: Model{Kind: KindLayout, Near: true}, Settings: Settings{Workers: 2}, Use: Use{Ours: 0.6, Others: 0.3}}
	if got := bottleneck(idle); got.What != "none" {
		t.Errorf("a machine with room: %+v", got)
	}
	use := Use{Ours: 0.6, Others: 1.38, Executing: 0.97, Stalled: 0.9, Full: 0.9}
	for _, c := range []struct {
		near   bool
		stolen float64
		what   string
		warns  bool
	}{{false, 0, "others", true}, {true, 0, "machine", false}, {true, 0.5, "others", true}} {
		use.Stolen = c.stolen
		r := &Result{Machine: Machine{Cores: 2}, Model: Model{Kind: KindLayout, Near: c.near}, Settings: Settings{Workers: 2}, Use: use, Stable: true}
		if got := bottleneck(r); got.What != c.what {
			t.Errorf("near %t, stolen %v: %+v", c.near, c.stolen, got)
		}
		warnings := strings.Join((&bench{cores: runtime.NumCPU()}).warnings(r), "\n")
		if strings.Contains(warnings, "other programs kept") != c.warns {
			t.Errorf("near %t, stolen %v: %s", c.near, c.stolen, warnings)
		}
	}
}

// TestQuota: with fewer cores than it runs on, this program does not judge what
// others do there, and says so.
func TestQuota(t *testing.T) {
	for _, limited := range []bool{false, true} {
		b := &bench{cfg: Config{}.withDefaults(), cores: runtime.NumCPU()}
		if limited {
			b.cores--
		}
		now, err := b.read()
		if err != nil || (now.machine == measure.Machine{}) != limited {
			t.Errorf("limited %t: %+v, %v", limited, now.machine, err)
		}
		r := &Result{Machine: Machine{Cores: max(1, b.cores)}, Stable: true}
		if warnings := strings.Join(b.warnings(r), "\n"); strings.Contains(warnings, "is not known: quire has") != limited {
			t.Errorf("limited %t: %s", limited, warnings)
		}
	}
}

func TestSums(t *testing.T) {
	var s sums
	second := span{
		elapsed: time.Second,
		cpu:     measure.CPU{Quire: 5 * time.Millisecond, Guard: time.Millisecond, Render: 150 * time.Millisecond, Server: 10 * time.Millisecond, Model: 600 * time.Millisecond},
		machine: measure.Machine{Busy: 1766 * time.Millisecond, Stolen: 100 * time.Millisecond},
		mupdf:   140 * time.Millisecond,
	}
	flow := measure.Flow{Looks: 50, Full: 25, Idle: 5, Stalled: 40}
	executions := func(count uint64) tritonclient.ModelStatistics {
		ms := func(n uint64) tritonclient.Total {
			return tritonclient.Total{Count: count, Time: time.Duration(count*n) * time.Millisecond}
		}
		return tritonclient.ModelStatistics{Batches: []tritonclient.BatchStatistics{
			{Size: 1, ComputeInput: ms(1), ComputeInfer: ms(28), ComputeOutput: ms(1)},
			{Size: 4, ComputeInput: ms(2), ComputeInfer: ms(106), ComputeOutput: ms(2)},
		}}
	}
	for range 2 {
		s.add(second, flow, 10)
		s.count(executions(5), true)
	}
	want := Parts{MuPDF: 14, Workers: 1, Quire: 0.5, Guard: 0.1, Server: 1, Model: 60, Own: 1.6}
	near := func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 }
	if p := s.parts(); !near(p.MuPDF, want.MuPDF) || !near(p.Workers, want.Workers) || !near(p.Quire, want.Quire) || !near(p.Guard, want.Guard) ||
		!near(p.Server, want.Server) || !near(p.Model, want.Model) || !near(p.Own, want.Own) {
		t.Errorf("%+v, want %+v", p, want)
	}
	u := s.use(2, 1)
	if !near(u.Ours, 0.766) || !near(u.Others, 1) || !near(u.Stolen, 0.1) || !near(u.Drawing, 0.075) || !near(u.Executing, 0.7) ||
		!near(u.Full, 0.5) || !near(u.Starved, 0.1) || !near(u.Stalled, 0.8) {
		t.Errorf("%+v", u)
	}
	if b := s.batches(); b.Pages != 20 || !slices.Equal(b.Executed, []Executed{{1, 10}, {4, 10}}) {
		t.Errorf("%+v", b)
	}
	s.count(tritonclient.ModelStatistics{}, false)
	if b, u := s.batches(), s.use(2, 1); b.Executed != nil || u.Executing != -1 {
		t.Errorf("a reset was not noticed: %+v, %+v", b, u)
	}
}

// sampleResult is one to look at.
func sampleResult() *Result {
	stage := Stage{PagesPerSecond: 28.4, CPU: 71.9}
	r := &Result{
		Machine:   Machine{CPU: "A processor of some kind", Cores: 2, Kernel: "Linux 6.18"},
		Model:     Model{Name: "layout", Version: "1", Kind: KindLayout, Server: "127.0.0.1:1 (started by quire)", Ours: true},
		Settings:  Settings{Workers: 2, Batch: 4, InFlight: 2, MaxAgeMS: 20, Instances: 1, Transport: "shm", WindowSeconds: 5},
		Set:       Set{Found: 5, Documents: 5, Pages: 16},
		Rendering: Stage{146.1, 13.4}, Server: Stage{34.3, 57.3}, Whole: stage,
		Limit: Limit{LimitCores, 28.3}, Fraction: 1.0035, Stable: true, Spread: 1.012,
		Parts:   Parts{MuPDF: 13.2, Workers: 0.2, Quire: 0.4, Server: 0.5, Model: 57.6, Own: 0.6},
		Use:     Use{Ours: 1.96},
		Batches: Batches{Pages: 16, Executed: []Executed{{1, 4}, {4, 3}}},
		Memory:  Memory{Peak: 171e6, Quire: 100e6, Workers: 69e6, Guard: 2e6, Bound: 20e6},
		Events:  Events{Tick: Latency{P50: 0.06, P99: 1.8, Max: 6.3}},
		Repeats: make([]Repeat, 5),
	}
	r.Bottleneck = bottleneck(r)
	return r
}

// wholeText is what sampleResult is told as.
const wholeText = `model     layout version 1 at 127.0.0.1:1 (started by quire)
machine   A processor of some kind, 2 cores, Linux 6.18
settings  2 workers, batches up to 4 pages, 20 ms old, 2 in flight, through
          shared memory
pages     16 pages of 5 documents, over and over; 5 rounds of windows of 5 s

                          pages/s    CPU-ms a page
  rendering alone           146.1             13.4
  the server alone           34.3             57.3
  the whole                  28.4             71.9

  the limit                  28.3   2 cores ÷ (13.4 + 57.3) CPU-ms
  achieved of it            1.004   stable: the last 3 wholes within 1.2 %

where a page's CPU time goes
  the model's process       57.60 ms  80.1 %  ████████████████████████
  tritonserver               0.50 ms   0.7 %  ▎
  drawing (MuPDF)           13.20 ms  18.4 %  █████▌
  render workers, else       0.20 ms   0.3 %  ▏
  quire                      0.40 ms   0.6 %  ▏
  guard                      0.00 ms   0.0 %
  together                  71.90 ms, 0.60 of it quire's, outside MuPDF

what holds it up: the machine
  The machine is full: 1.96 of 2 cores are busy, 81 % of that with inference,
  18 % with drawing. Cheaper inference moves it: a GPU behind --triton,
  quire.precision bf16 where the CPU has it; or more cores.

batches that the server executed
    1 page          4 ×  ██████████████████████████████████████████
   4 pages          3 ×  ███████████████████████████████▌
  2.3 pages on average

memory of quire's processes, the server apart
  171.0 MB at most: quire 100.0, 2 render workers 69.0, guard 2.0
  page buffers are bounded at 20.0 MB, and part of it; shared memory counts once

event path of quire's own process, in ms       p50       p99       max
  a timer of 1 ms is late by                  0.06      1.80      6.30
  a request for the counts takes              0.00      0.00      0.00

! one
! two
`

// Every line stands, with its number and its unit: docs/bench.md explains each.
func TestWholeText(t *testing.T) {
	tell := func(r *Result) string {
		var b bytes.Buffer
		if err := r.Text(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	r := sampleResult()
	r.Warnings = []string{"one", "two"}
	if got := tell(r); got != wholeText {
		t.Errorf("got\n%s\nwant\n%s", got, wholeText)
	}
	for want, change := range map[string]func(*Result){
		"16 pages of 5 documents (of 9), over and over; 1 round of": func(r *Result) { r.Set.Found, r.Repeats = 9, r.Repeats[:1] },
		"layout version 1 (instant: it computes nothing) at":        func(r *Result) { r.Model.Kind = KindInstant },
		"  the server alone           34.3        not known\n":      func(r *Result) { r.Model.Ours = false },
		"  the whole                  28.4             71.9\n":      func(r *Result) { r.Model.Ours = false },
		"    by perf_analyzer         35.1\n":                       func(r *Result) { r.PerfAnalyzer = &PerfAnalyzer{PagesPerSecond: 35.1} },
		"not stable: the last 3 wholes 25 % apart":                  func(r *Result) { r.Stable, r.Spread = false, 1.25 },
		"not known to be stable":                                    func(r *Result) { r.Stable, r.Repeats = false, r.Repeats[:2] },
		"not stable: a whole did no page":                           func(r *Result) { r.Stable, r.Spread = false, 0 },
		"batches that the server executed\n  not known\n":           func(r *Result) { r.Batches.Executed = nil },
		"14.20 ms, 0.60 of it quire's":                              func(r *Result) { r.Parts.Model, r.Parts.Server, r.Parts.Own, r.Parts.MuPDF = 0, 0, 0.6, 13.6 },
	} {
		r := sampleResult()
		change(r)
		if got := tell(r); !strings.Contains(got, want) || strings.Contains(got, "NaN") || strings.Contains(got, "!") {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestText(t *testing.T) {
	r := sampleResult()
	r.Warnings = []string{"a warning of so many words that it does not fit into one line of a terminal, so that it goes on"}
	var b bytes.Buffer
	if err := r.Text(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{
		"28.3   2 cores ÷ (13.4 + 57.3) CPU-ms", "1.004", "stable: the last 3 wholes within 1.2 %", "what holds it up: the machine",
		"171.0 MB at most", "2.3 pages on average", "! a warning", "71.90 ms, 0.60 of it quire's, outside MuPDF",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 || strings.HasSuffix(line, " ") {
			t.Errorf("too wide, or ends in spaces: %q", line)
		}
	}

	r.Model.Ours, r.Batches.Executed, r.Stable, r.Repeats = false, nil, false, r.Repeats[:2]
	b.Reset()
	if err := r.Text(&b); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); strings.Contains(text, "tritonserver") || !strings.Contains(text, "not known to be stable") {
		t.Errorf("about a server that tells nothing:\n%s", text)
	}
}

// What cannot be measured must not become something that JSON has no word for.
func TestResultIsJSON(t *testing.T) {
	r := sampleResult()
	r.Spread = finite(1 / zero)
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

var zero float64

// named is a model that is not asked.
type named struct{ orchestrator.Model }

func (named) Info() orchestrator.ModelInfo { return orchestrator.ModelInfo{Name: "layout"} }
func (named) Input() orchestrator.Input    { return orchestrator.Input{MaxBatch: 4, Instances: 1} }

// TestNoPages: stages that did no page have no limit, and no share of it, in text
// and in JSON.
func TestNoPages(t *testing.T) {
	did := Window{Pages: 10, Seconds: 1, PagesPerSecond: 10, CPU: 1}
	none := Window{Failed: 10, Seconds: 1}
	for name, round := range map[string]Repeat{
		"the server":    {Rendering: did, Server: none, Whole: none},
		"only in parts": {Rendering: did, Server: none, Whole: did},
		"nothing":       {none, none, none},
	} {
		for _, ours := range []func() int{nil, func() int { return 1 }} {
			b := &bench{cfg: Config{Engine: orchestrator.Config{Model: named{}}, Server: ours}.withDefaults(), cores: runtime.NumCPU(), settings: orchestrator.Config{Workers: 2}, rounds: []Repeat{round, round, round}}
			b.sum.add(span{elapsed: time.Second}, measure.Flow{}, 0)
			r := b.result()
			if _, err := json.Marshal(r); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			var text bytes.Buffer
			if err := r.Text(&text); err != nil {
				t.Fatal(err)
			}
			for _, bad := range []string{"Inf", "NaN", "-100 %"} {
				if strings.Contains(text.String(), bad) {
					t.Errorf("%s: %q in\n%s", name, bad, text.String())
				}
			}
			if known := r.Limit.PagesPerSecond > 0; strings.Contains(text.String(), "not known   a stage did no page") == known {
				t.Errorf("%s: limit %v in\n%s", name, r.Limit, text.String())
			}
			if (round.Whole == none) != strings.Contains(text.String(), "not stable: a whole did no page") {
				t.Errorf("%s: it says\n%s", name, text.String())
			}
		}
	}
}

func TestBar(t *testing.T) {
	for share, want := range map[float64]string{0: "", 1: "████", 0.5: "██", 0.53125: "██▏", 0.01: "", 0.25 - 1.0/32: "▉"} {
		if got := bar(share, 4); got != want {
			t.Errorf("%v: %q, want %q", share, got, want)
		}
	}
}

func TestAmounts(t *testing.T) {
	var got []string
	for _, a := range amounts(10_000, 16) {
		got = append(got, fmt.Sprintf("%s %d %d", a.what, a.documents, a.pages))
	}
	want := []string{
		"sample documents 7 0", "sample documents 63 0", "sample documents 625 0",
		"one-page documents 10 0", "one-page documents 100 0", "one-page documents 1000 0", "one-page documents 10000 0",
		"one long document 1 5000",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	got = nil
	for _, a := range amounts(10, 16) {
		got = append(got, fmt.Sprintf("%s %d %d", a.what, a.documents, a.pages))
	}
	if want := []string{"one-page documents 10 0", "one long document 1 5"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestParsePerf(t *testing.T) {
	// As perf_analyzer 2.51 writes it.
	got, err := parsePerf("Concurrency,Inferences/Second,Client Send,Client Recv,p50 latency\n2,28.5,9,4,2654154\n")
	if err != nil || got.PagesPerSecond != 28.5 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "Concurrency,Inferences/Second\n", "Concurrency\n2\n", "Inferences/Second\nmany\n", "a,b\n1\n"} {
		if got, err := parsePerf(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}
