package tune

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

// TestReport: each verdict is told in text, in a page and in JSON, and the three
// agree.
func TestReport(t *testing.T) {
	small := Settings{MaxBatch: 4, Instances: 1, Batch: 4, MaxAge: 20 * time.Millisecond, InFlight: 2}
	for _, c := range []struct {
		server  string
		cfg     Config
		local   bool
		verdict Verdict
		limit   LimitKind
		says    []string
	}{
		{"gpu", Config{Start: badByHand}, false, VerdictChange, LimitServer, []string{"Change the settings: ", " times as many", "max_batch_size 1 → 64: a page computes in 0.89 ms in a batch of 64, and in 6.80 ms in one of 1.", "max_queue_delay_microseconds 200000 → 0", "The server is the limit"}},
		{"drawing is the limit later", Config{Start: badByHand}, false, VerdictChange, LimitRendering, []string{"with rendering", "The server alone does", "Rendering is the limit", "No batch setting will help further"}},
		{"drawing is slow", Config{Start: delivered}, false, VerdictRendering, LimitRendering, []string{"Rendering is the limit, so no batch setting will help, and none was tried.", "--server-only"}},
		{"cpu", Config{Start: small}, true, VerdictKeep, LimitServer, []string{"Keep the settings in use", "No batch setting that was tried does more."}},
		{"gpu", Config{Start: delivered, MaxP99: time.Millisecond}, false, VerdictNone, LimitServer, []string{"over a limit", "nothing that was tried is within it"}},
		{"gpu", Config{Start: badByHand, Objective: Latency}, false, VerdictChange, LimitServer, []string{"the 99th percentile falls from"}},
	} {
		t.Run(c.server+" "+string(c.verdict), func(t *testing.T) {
			r := &Report{
				Tool: "quire", ToolVersion: "test", Model: "layout", Version: "1", Server: "2.51.0", Where: "h:1", Transport: "through shared memory",
				Local: c.local, Documents: 5, Pages: 16, Objective: c.cfg.Objective, MaxP99: c.cfg.MaxP99, Window: time.Second, Took: time.Minute,
				Result: searchOn(t, servers(0)[c.server], c.cfg),
			}
			if got := r.Verdict(); got != c.verdict {
				t.Errorf("verdict %s, want %s", got, c.verdict)
			}
			if got := r.Limit(); got.Kind != c.limit || got.Text == "" {
				t.Errorf("limit %+v, want %s", got, c.limit)
			}
			var text, html, machine bytes.Buffer
			if err := r.Text(&text); err != nil {
				t.Fatal(err)
			}
			if err := r.HTML(&html); err != nil {
				t.Fatal(err)
			}
			if err := r.JSON(&machine); err != nil {
				t.Fatal(err)
			}
			for _, want := range c.says {
				if !strings.Contains(text.String(), want) {
					t.Errorf("the text does not say %q:\n%s", want, text.String())
				}
			}
			// A row for each trial in both.
			if got := strings.Count(html.String(), "<tr"); got != len(r.Result.Trials)+1 {
				t.Errorf("%d rows in the page, %d trials", got, len(r.Result.Trials))
			}
			for _, out := range []string{text.String(), html.String(), machine.String()} {
				if strings.Contains(out, "NaN") || strings.Contains(out, "%!") || strings.Contains(out, "Inf") {
					t.Errorf("a number that is none:\n%s", out)
				}
			}
			if strings.Contains(html.String(), "ZgotmplZ") || strings.Count(html.String(), "<svg") != strings.Count(html.String(), "</svg>") {
				t.Errorf("the page is broken:\n%s", html.String())
			}
			var j struct {
				Verdict Verdict
				Text    []string
				Limit   struct{ By LimitKind }
				Trials  []json.RawMessage
			}
			if err := json.Unmarshal(machine.Bytes(), &j); err != nil || j.Verdict != c.verdict || j.Limit.By != c.limit || len(j.Trials) != len(r.Result.Trials) || len(j.Text) != len(r.Explain()) {
				t.Errorf("%v, verdict %s, limit %s, %d trials, text %q", err, j.Verdict, j.Limit.By, len(j.Trials), j.Text)
			}
		})
	}
}

// TestReportOfALimit: what is slower was chosen for the limit, and for nothing
// else; what the model does beyond the limit is nothing to hope for.
func TestReportOfALimit(t *testing.T) {
	start := Settings{MaxBatch: 64, Instances: 2, Delay: time.Millisecond, Batch: 64, MaxAge: 20 * time.Millisecond, InFlight: 8}
	cfg := Config{Start: start, MaxP99: ms(60)}
	r := &Report{MaxP99: cfg.MaxP99, Result: searchOn(t, servers(0)["gpu"], cfg)}
	text := strings.Join(r.Explain(), "\n")
	if r.Verdict() != VerdictChange || r.Result.Gain >= 0 {
		t.Fatalf("%s, gain %v:\n%s", r.Verdict(), r.Result.Gain, text)
	}
	for _, want := range []string{" % fewer, to keep within the limit.", "The settings in use are over a limit: p99 of", "max_batch_size 64 → ", "quire.in_flight 8 → "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, bad := range []string{" more", "do as much", "a page computes in", "gain nothing", "nothing to wait for"} {
		if strings.Contains(strings.ReplaceAll(text, "does more within the limit", ""), bad) {
			t.Errorf("%q in\n%s", bad, text)
		}
	}
	if most := r.Limit().AtMost; most > 1.1 {
		t.Errorf("%v times as much, of what is over the limit:\n%s", most, text)
	}
}

// TestNothingTried: a search that had no time to try anything says so, and not
// that nothing is better.
func TestNothingTried(t *testing.T) {
	for says, cfg := range map[string]Config{
		"Keep the settings in use: no others were tried": {Start: delivered},
		"and no others were tried.":                      {Start: delivered, MaxP99: time.Millisecond},
	} {
		s := servers(0)["gpu"]
		cfg.Deadline = s.now.Add(time.Second)
		r := &Report{MaxP99: cfg.MaxP99, Result: searchOn(t, s, cfg)}
		text := strings.Join(r.Explain(), "\n")
		if !strings.Contains(text, says) || !strings.Contains(text, "There was no time for everything") || strings.Contains(text, "that was tried") || r.Limit().AtMost != 0 {
			t.Errorf("at most %v times as much:\n%s", r.Limit().AtMost, text)
		}
	}
}

// TestGPUs: use and memory of the GPUs stand in table, page and JSON where the
// server tells them, and are left out where it does not.
func TestGPUs(t *testing.T) {
	for _, tells := range []bool{false, true} {
		w := Window{PagesPerSecond: 100, P50: time.Millisecond, P95: time.Millisecond, P99: time.Millisecond, Executed: []Executed{{4, 10}}, GPUUtilization: -1, GPUMemory: -1}
		blind := w
		if tells {
			w.GPUUtilization, w.GPUMemory = 0.77, 2_000_000_000
		}
		start := &Trial{Settings: delivered, Alone: []Window{w, blind}}
		r := &Report{Model: "layout", Result: &Result{Trials: []*Trial{start}, Start: start, Chosen: start}}
		for name, write := range map[string]func(io.Writer) error{"text": r.Text, "page": r.HTML, "JSON": r.JSON} {
			var out bytes.Buffer
			if err := write(&out); err != nil {
				t.Fatal(err)
			}
			want := []string{"77 %", "2000 MB"}
			if name == "JSON" {
				want = []string{"0.77", "2000000000"}
			}
			for _, text := range want {
				if strings.Contains(out.String(), text) != tells {
					t.Errorf("%s, tells %t:\n%s", name, tells, out.String())
				}
			}
		}
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.123: "0.12", 9.994: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 1234.5: "1234"} {
		if got := number(x); got != want {
			t.Errorf("%v: %s, want %s", x, got, want)
		}
	}
	for x, want := range map[float64]float64{0.25: 0.25, 192.5: 200, 278: 300, 1: 1, 0.0011: 0.0015, 81: 100} {
		if got := roundUp(x); math.Abs(got-want) > 1e-9*want {
			t.Errorf("%v up: %v, want %v", x, got, want)
		}
	}
	if got := bars([]float64{0, 1, 4, 8}); got != "▁▂▅█" {
		t.Errorf("%s", got)
	}
}

// TestLimitOf: what each set of rates is limited by, and how much more there is to
// hope for.
func TestLimitOf(t *testing.T) {
	at := func(rate float64) []Window { return []Window{{PagesPerSecond: rate, ServerShare: 0.9}} }
	far := []Window{{PagesPerSecond: 100, ServerShare: 0.3}}
	other := func(rate float64) *Trial { return &Trial{Settings: Settings{MaxBatch: 16}, Alone: at(rate)} }
	over := func(rate float64) *Trial { t := other(rate); t.Infeasible = "it is over"; return t }
	curve := Curve{Points: []Point{{8, 80 * time.Millisecond}, {16, 40 * time.Millisecond}}} // 100 and 400 pages/s
	for _, c := range []struct {
		name            string
		alone, pipeline []Window
		drawing         float64
		others          []*Trial
		change          func(*Report)
		kind            LimitKind
		most            float64
		says            string
	}{
		{"nothing measured", nil, at(50), 100, nil, nil, LimitUnknown, 0, "What limits was not measured."},
		{"the server alone", at(100), nil, 0, []*Trial{other(100)}, nil, LimitServer, 1, "The server is the limit, at 100 pages/s alone. No batch setting that was tried does more."},
		{"and its model", at(100), nil, 0, []*Trial{other(100)}, func(r *Report) { r.Result.Curve = curve }, LimitServer, 4,
			"The server is the limit, at 100 pages/s alone; the model by itself computes 100. More tuning of batches can bring 4.00 times as much at most, the 400 pages/s that the server alone was seen to do at best."},
		{"and its models", at(100), nil, 0, nil, func(r *Report) { r.Result.Curve, r.Result.Chosen.Settings.Instances = curve, 2 }, LimitServer, 0, "The server is the limit, at 100 pages/s alone."},
		{"another was better", at(100), nil, 0, []*Trial{other(150), over(500)}, nil, LimitServer, 1.5, "1.50 times as much at most, the 150 pages/s that the server alone was seen to do at best."},
		{"within a limit", at(100), nil, 0, []*Trial{other(150)}, func(r *Report) { r.MaxGPUMemory, r.Result.Curve = 1, curve }, LimitServer, 1.5, "the 150 pages/s that the server alone was seen to do at best within the limit."},
		{"the best within a limit", at(100), nil, 0, []*Trial{other(100)}, func(r *Report) { r.MaxP99 = 1 }, LimitServer, 1, "No batch setting that was tried does more within the limit."},
		{"the way to it", far, nil, 0, []*Trial{other(100)}, nil, LimitTransport, 1, "The way to the server is the limit: of the time of a request the server accounts for 30 %; the rest is transport (inside)."},
		{"a share that is not known", []Window{{PagesPerSecond: 100}}, nil, 0, []*Trial{other(100)}, nil, LimitServer, 1, "The server is the limit"},
		{"drawing", at(300), at(95), 100, nil, nil, LimitRendering, 100.0 / 95, "this machine draws 100 pages/s by itself and does 95.0 with the server."},
		{"drawing, slower alone", at(300), at(105), 100, nil, nil, LimitRendering, 1, "Rendering is the limit"},
		{"the server, with drawing", at(100), at(95), 200, []*Trial{other(300)}, nil, LimitServer, 200.0 / 95, "at 100 pages/s alone. More tuning of batches can bring 2.11 times as much at most, the 200 pages/s that this machine draws by itself."},
		{"processors", at(100), at(55), 100, []*Trial{other(100)}, func(r *Report) { r.Local = true }, LimitProcessors, 100.0 / 55, "(100 pages/s by itself) and the server (100) share the processors of this machine, which would make 50.0 if they took turns; together they do 55.0. More tuning"},
		{"nobody", at(100), at(55), 100, []*Trial{other(100)}, nil, LimitUnknown, 100.0 / 55, "Neither drawing (100 pages/s by itself) nor the server (100) is the limit of the 55.0 that they do together."},
	} {
		chosen := &Trial{Settings: Settings{MaxBatch: 8, Instances: 1}, Alone: c.alone, Pipeline: c.pipeline}
		r := &Report{Transport: "inside", Result: &Result{Start: chosen, Chosen: chosen, Trials: append([]*Trial{chosen}, c.others...), Rendering: c.drawing}}
		if c.change != nil {
			c.change(r)
		}
		if got := r.Limit(); got.Kind != c.kind || math.Abs(got.AtMost-c.most) > 1e-9 || !strings.Contains(got.Text, c.says) {
			t.Errorf("%s: %+v; want %s, %v times, %q", c.name, got, c.kind, c.most, c.says)
		}
	}
}

// TestWhy: each change is told with what it does, up and down.
func TestWhy(t *testing.T) {
	from := Settings{MaxBatch: 8, Instances: 2, Delay: time.Millisecond, Batch: 8, MaxAge: 20 * time.Millisecond, InFlight: 3}
	curve := Curve{Points: []Point{{8, 80 * time.Millisecond}, {16, 80 * time.Millisecond}}}
	for _, c := range []struct {
		field  Field
		change func(from, to *Settings)
		want   string
	}{
		{FieldMaxBatch, func(_, to *Settings) { to.MaxBatch = 16 }, "max_batch_size 8 → 16: a page computes in 5.00 ms in a batch of 16, and in 10.0 ms in one of 8."},
		{FieldMaxBatch, func(_, to *Settings) { to.MaxBatch = 32 }, "max_batch_size 8 → 32."},
		{FieldMaxBatch, func(from, _ *Settings) { from.MaxBatch = 4 }, "max_batch_size 4 → 8."},
		{FieldInstances, func(_, to *Settings) { to.Instances = 3 }, "instances 2 → 3: while one copies, another computes."},
		{FieldInstances, func(_, to *Settings) { to.Instances = 1 }, "instances 2 → 1: more of them gain nothing here, and take memory."},
		{FieldDelay, func(_, to *Settings) { to.Delay = 0 }, "max_queue_delay_microseconds 1000 → 0: requests come full, so there is nothing to wait for."},
		{FieldDelay, func(_, to *Settings) { to.Delay = 5 * time.Millisecond }, "max_queue_delay_microseconds 1000 → 5000: the server merges requests."},
		{FieldDelay, func(from, _ *Settings) { from.Delay = noBatcher }, "dynamic_batching with a delay of 1ms: the server may merge requests."},
		{FieldBatch, func(_, to *Settings) { to.Batch = 4 }, "quire.batch 8 → 4: pages in a request."},
		{FieldMaxAge, func(_, to *Settings) { to.MaxAge = 2500 * time.Microsecond }, "quire.max_age_ms 20 → 2.5: how long the first page of a request waits for others."},
		{FieldInFlight, func(_, to *Settings) { to.InFlight = 5 }, "quire.in_flight 3 → 5: more requests under way, so that one is ready whenever the model is."},
		{FieldInFlight, func(_, to *Settings) { to.InFlight = 2 }, "quire.in_flight 3 → 2: fewer requests under way do as much, and a page waits less."},
	} {
		start, chosen := from, from
		c.change(&start, &chosen)
		r := &Report{Result: &Result{Start: &Trial{Settings: start}, Chosen: &Trial{Settings: chosen}, Curve: curve}}
		if got := r.why(c.field); got != c.want {
			t.Errorf("%s: %q, want %q", c.field, got, c.want)
		}
	}
}

func TestGain(t *testing.T) {
	for g, want := range map[float64]string{2.5: "3.50 times as many", 1: "2.00 times as many", 0.5: "50 % more", 0.004: "as many", 0: "as many", -0.25: "25 % fewer, to keep within the limit"} {
		if got := gain(g); got != want {
			t.Errorf("%v: %q, want %q", g, got, want)
		}
	}
	for limited, falls := range map[time.Duration]string{ms(5): "falls from 10.0 ms to 5.00 ms at 40.0 pages/s", ms(50): "rises, to keep within the limit, from 10.0 ms to 50.0 ms"} {
		start := &Trial{Settings: delivered, Deciding: []Window{{P99: ms(10)}}}
		chosen := &Trial{Settings: badByHand, Deciding: []Window{{P99: limited}}}
		r := &Report{Objective: Latency, Result: &Result{Start: start, Chosen: chosen, Trials: []*Trial{start, chosen}, OpenRate: 40, Stable: true}}
		if text := strings.Join(r.Explain(), "\n"); !strings.Contains(text, "the 99th percentile "+falls) || strings.Contains(text, "is the limit") {
			t.Errorf("no %q in\n%s", falls, text)
		}
	}
}

// TestExplainDoubts: what makes the numbers doubtful is said, and nothing else.
func TestExplainDoubts(t *testing.T) {
	const unstable, noTime, spent = "did not become stable", "A larger --budget looks further", "were used up in the stage"
	for _, c := range []struct {
		name   string
		change func(*Result)
		want   string
	}{
		{"none", func(*Result) {}, ""},
		{"unstable", func(r *Result) { r.Stable = false }, unstable},
		{"no time", func(r *Result) { r.Unfinished, r.OutOfTime = "instances", true }, noTime},
		{"spent", func(r *Result) { r.Unfinished = "instances" }, spent},
		{"no finalists", func(r *Result) { r.Finalists = nil }, "nothing that was tried did better"},
		{"finalists", func(*Result) {}, "better by more than noise"},
	} {
		start, other := &Trial{Settings: delivered}, &Trial{Settings: badByHand}
		res := &Result{Start: start, Chosen: start, Trials: []*Trial{start, other}, Finalists: []*Trial{other}, Stable: true}
		c.change(res)
		text := strings.Join((&Report{Result: res}).Explain(), "\n")
		if !strings.Contains(text, c.want) {
			t.Errorf("%s: no %q in\n%s", c.name, c.want, text)
		}
		for _, doubt := range []string{unstable, noTime, spent} {
			if doubt != c.want && strings.Contains(text, doubt) {
				t.Errorf("%s: %q in\n%s", c.name, doubt, text)
			}
		}
	}
}
