package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quire/orchestrator/bench"
	"quire/tritonclient/tritontest"
)

// near tells whether two numbers are the same but for rounding.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b)) }

// The numbers of a bench against a real server and a real model follow from each
// other.
func TestBench(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	code, stdout, stderr := call(t, "bench", "--json", "--repeat", "2", "--min-time", "1ms", "--budget", "0s", "--batch", "3", "../../examples")
	var r bench.Result
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != exitDone {
		t.Fatalf("code %d, %v:\n%s\n%s", code, err, stdout, stderr)
	}
	if r.Schema != bench.Schema || r.ToolVersion != version || r.Model.Kind != bench.KindLayout || !r.Model.Ours || r.Model.Near || r.Machine.Cores < 1 || r.Machine.CPU == "" || r.Machine.Kernel == "" {
		t.Errorf("%+v %+v %+v", r.Schema, r.Model, r.Machine)
	}
	if r.Settings.Batch != 3 || r.Settings.Workers < 1 || r.Settings.InFlight < 1 || r.Settings.Transport != "shm" || r.Settings.MaxAgeMS <= 0 {
		t.Errorf("%+v", r.Settings)
	}
	if r.Set != (bench.Set{Found: 5, Documents: 5, Pages: 16}) {
		t.Errorf("%+v", r.Set)
	}
	if len(r.Repeats) != 2 || r.Stable {
		t.Errorf("%d rounds, stable: %v", len(r.Repeats), r.Stable)
	}
	var wholes, pages []float64
	for _, round := range r.Repeats {
		for name, w := range map[string]bench.Window{"rendering": round.Rendering, "server": round.Server, "whole": round.Whole} {
			if w.Pages < 1 || w.Failed != 0 || w.Seconds <= 0 || w.CPU <= 0 || w.Others < 0 || !near(w.PagesPerSecond, float64(w.Pages)/w.Seconds) {
				t.Errorf("%s: %+v", name, w)
			}
			if (w.RequestMS != nil) != (name == "server") {
				t.Errorf("%s: requests %+v", name, w.RequestMS)
			}
		}
		if round.Whole.Pages%16 != 0 || round.Rendering.Pages%16 != 0 || round.Server.Pages%3 != 0 {
			t.Errorf("not whole sets, or not whole batches: %+v", round)
		}
		wholes, pages = append(wholes, round.Whole.PagesPerSecond), append(pages, float64(round.Whole.Pages))
	}
	if !near(r.Whole.PagesPerSecond, (wholes[0]+wholes[1])/2) {
		t.Errorf("the median of %v is given as %v", wholes, r.Whole.PagesPerSecond)
	}
	if r.Limit.Kind != bench.LimitCores || !near(r.Limit.PagesPerSecond, float64(r.Machine.Cores)*1000/(r.Rendering.CPU+r.Server.CPU)) {
		t.Errorf("limit %+v of %+v and %+v", r.Limit, r.Rendering, r.Server)
	}
	if !near(r.Fraction, r.Whole.PagesPerSecond/r.Limit.PagesPerSecond) {
		t.Errorf("fraction %v of %v", r.Fraction, r.Limit)
	}

	// Everything that was asked for was executed, in batches as large as asked, or
	// larger where the server has put together what waited, as it may.
	executed := 0
	for _, e := range r.Batches.Executed {
		executed += e.Size * e.Count
		if e.Size > 3*r.Settings.InFlight || e.Count < 1 {
			t.Errorf("%d batches of %d", e.Count, e.Size)
		}
	}
	if executed != r.Batches.Pages || float64(executed) != pages[0]+pages[1] {
		t.Errorf("%+v for %v pages", r.Batches, pages)
	}

	p := r.Parts
	for _, part := range []float64{p.MuPDF, p.Workers, p.Quire, p.Server, p.Model} {
		if part <= 0 {
			t.Errorf("a part that took nothing: %+v", p)
		}
	}
	if !near(p.Own, p.Workers+p.Quire+p.Guard) {
		t.Errorf("%+v", p)
	}
	// The parts are of both wholes together, each of which has its own cost.
	total, of := p.MuPDF+p.Own+p.Server+p.Model, 0.0
	for _, round := range r.Repeats {
		of += round.Whole.CPU * float64(round.Whole.Pages) / (pages[0] + pages[1])
	}
	if !near(total, of) {
		t.Errorf("the parts are %v ms, the wholes %v ms", total, of)
	}
	for name, share := range map[string]float64{"drawing": r.Use.Drawing, "executing": r.Use.Executing, "full": r.Use.Full, "starved": r.Use.Starved, "stalled": r.Use.Stalled} {
		if share < 0 || share > 1.05 { // the clocks are not the same
			t.Errorf("%s: %v", name, share)
		}
	}
	if r.Use.Executing == 0 || r.Bottleneck.What == "" || r.Bottleneck.Why == "" || r.Bottleneck.Remedy == "" {
		t.Errorf("%+v %+v", r.Use, r.Bottleneck)
	}
	m := r.Memory
	if m.Bound <= 0 || m.Quire < m.Bound || m.Workers <= 0 || m.Guard <= 0 || m.Peak != m.Quire+m.Workers+m.Guard {
		t.Errorf("%+v", m)
	}
	for name, l := range map[string]bench.Latency{"tick": r.Events.Tick, "request": r.Events.Request} {
		if l.Count < 1 || l.P50 < 0 || l.P50 > l.P99 || l.P99 > l.Max || l.Max <= 0 {
			t.Errorf("%s: %+v", name, l)
		}
	}
	if len(r.Warnings) == 0 {
		t.Error("two rounds are too few to be stable, and nothing says so")
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A server that is named with --triton may be on this machine: it maps this
// machine's memory, or its address is loopback.
func TestBenchServerHere(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	server := tritontest.Start(t, tritontest.Config{Models: []tritontest.Model{tritontest.Layout(80, 60, 4)}})
	code, stdout, stderr := call(t, "bench", "--json", "--repeat", "1", "--min-time", "1ms", "--budget", "0s", "--triton", server.Addr(), "--transport", "grpc", filepath.Join(examples, "form.pdf"))
	var r bench.Result
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != exitDone || !r.Model.Near || r.Model.Ours {
		t.Errorf("code %d, %v, %+v\n%s", code, err, r.Model, stderr)
	}
}

func TestBenchCurve(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	code, stdout, stderr := call(t, "bench", "--curve", "--json", "--pages", "20", "--transport", "grpc")
	var r bench.CurveResult
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != exitDone {
		t.Fatalf("code %d, %v:\n%s\n%s", code, err, stdout, stderr)
	}
	if r.Schema != bench.CurveSchema || r.Model.Kind != bench.KindInstant || r.Bound <= 0 || r.Workers < 1 {
		t.Errorf("%+v", r)
	}
	type size struct {
		what                   string
		documents, pages, runs int
	}
	var got []size
	for _, p := range r.Points {
		got = append(got, size{p.What, p.Documents, p.Pages, p.Runs})
		if p.Failed != 0 || p.Wall <= 0 || p.MuPDF <= 0 || p.Own <= 0 || p.Cost <= 0 || p.Memory <= 0 || !near(p.PagesPerSecond, 1000/p.Wall) {
			t.Errorf("%+v", p)
		}
	}
	want := []size{
		{"sample documents", 7, 49, 1},
		{"one-page documents", 10, 10, 2}, {"one-page documents", 20, 20, 1},
		{"one long document", 1, 10, 2},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if r.Points[0].Cost != 1 || r.Points[1].Cost != 1 {
		t.Errorf("the first points are not held against themselves: %+v", r.Points)
	}
}

func TestBenchInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	stop := make(chan struct{})
	close(stop)
	var out, errs bytes.Buffer
	code := execute(t.Context(), []string{"quire", "bench"}, &out, &errs, stops{soft: stop})
	if code != exitInterrupted || out.Len() > 0 || !strings.Contains(errs.String(), "interrupted: what was measured") {
		t.Errorf("code %d, %q, %q", code, out.String(), errs.String())
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
