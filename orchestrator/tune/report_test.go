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
