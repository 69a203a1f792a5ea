package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/orchestrator/monitor"
	"quire/tritonclient/embedded"
	"quire/tritonclient/tritontest"
)

// TestStats watches a real server at work.
func TestStats(t *testing.T) {
	options := embedded.Options{Guard: startedGuard(t)}
	// The model that computes nothing: what it is asked is not the point.
	repository, err := embedded.BenchRepository(options, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	server, err := embedded.Start(t.Context(), embedded.Config{Options: options, ModelRepository: repository, Metrics: true})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	client := connected(t, server.Addr())
	model, err := layout.Open(t.Context(), client, layout.Config{Transport: layout.TransportInBand})
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	in := model.Input()
	slab := &orchestrator.Slab{Bytes: make([]byte, 2*in.PageBytes()), Pages: 2, PageBytes: in.PageBytes()}
	ctx, cancel := context.WithCancel(t.Context())
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		for ctx.Err() == nil {
			if _, _, err := model.Raw(ctx, slab, 0, 2); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	}()
	metrics := "http://" + server.MetricsAddr() + "/metrics"
	code, stdout, stderr := call(t, "stats", "--triton", server.Addr(), "--metrics", metrics, "--interval", "500ms", "--count", "3", "--json")
	cancel()
	<-worked
	if code != exitDone || strings.Count(stdout, "\n") != 3 || stderr != "" {
		t.Fatalf("code %d: %s%s", code, stdout, stderr)
	}
	pages := uint64(0)
	for line := range strings.Lines(stdout) {
		var r watchedLine
		unmarshal(t, line, &r)
		pages += r.Pages
		if r.Schema != "quire-stats/1" || r.Endpoint != server.Addr() || r.Model != "layout" || r.Since != monitor.SinceReading || r.Error != "" || r.MetricsError != "" || r.Pending == nil {
			t.Errorf("%s", line)
		}
		for _, e := range r.Batches {
			if e.Batch != 2 {
				t.Errorf("%s", line)
			}
		}
	}
	if pages == 0 {
		t.Errorf("no pages in\n%s", stdout)
	}
	// A person sees the same.
	code, stdout, _ = call(t, "stats", "--triton", server.Addr()+", "+strings.Replace(server.Addr(), "127.0.0.1", "localhost", 1), "--interval", "10ms", "--count", "1")
	if code != exitDone || strings.Count(stdout, "pages/s") != 3 || !strings.Contains(stdout, "all: ") {
		t.Errorf("code %d: %s", code, stdout)
	}
}

// A server that is loaded again, and one that goes away, are told and go on being
// watched; one that was never there is not.
func TestStatsOfServersThatChange(t *testing.T) {
	a, b := tritontest.Start(t, tritontest.Config{}), tritontest.Start(t, tritontest.Config{})
	client := connected(t, a.Addr())
	model, err := layout.Open(t.Context(), client, layout.Config{Transport: layout.TransportInBand})
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	slab := &orchestrator.Slab{Bytes: make([]byte, model.Input().PageBytes()), Pages: 1, PageBytes: model.Input().PageBytes()}
	for range 2 {
		if _, _, err := model.Raw(t.Context(), slab, 0, 1); err != nil {
			t.Fatal(err)
		}
	}
	a.Script(func(c *tritontest.Call) tritontest.Fault {
		if c.Method == "ModelStatistics" && c.Index == 1 {
			a.SetModel(tritontest.Layout(800, 608, 4))
		}
		return tritontest.Fault{}
	})
	b.Script(func(c *tritontest.Call) tritontest.Fault {
		if c.Method == "ModelStatistics" && c.Index == 1 {
			return tritontest.Stopping()
		}
		return tritontest.Fault{}
	})
	code, stdout, stderr := call(t, "stats", "--triton", a.Addr()+","+b.Addr(), "--interval", "20ms", "--count", "2")
	rows := strings.Split(stdout, "\n")
	if code != exitDone || len(rows) != 7 {
		t.Fatalf("code %d: %s%s", code, stdout, stderr)
	}
	for i, want := range []string{"the model was loaded again", "Server is stopping", "all: 0.0", "0.0 pages/s", "0.0 pages/s", "all: 0.0"} {
		if !strings.Contains(rows[i], want) {
			t.Errorf("no %q in %q", want, rows[i])
		}
	}
	a.Stop()
	b.Stop()
	if code, _, stderr := call(t, "stats", "--triton", a.Addr()+","+b.Addr(), "--count", "1"); code != exitServer || strings.Count(stderr, "\n") != 1 {
		t.Errorf("code %d: %s", code, stderr)
	}
}

// On a terminal it moves, until somebody has seen enough; the last of it stays.
func TestStatsOnATerminal(t *testing.T) {
	server := tritontest.Start(t, tritontest.Config{})
	v := openTerminal(t, 100)
	soft := make(chan struct{})
	var stdout bytes.Buffer
	code := make(chan int)
	go func() {
		code <- execute(t.Context(), []string{"quire", "stats", "--triton", server.Addr(), "--interval", "10ms"}, &stdout, v.slave, stops{soft: soft})
	}()
	v.await("0.0 pages/s")
	close(soft)
	if got := <-code; got != exitDone {
		t.Errorf("code %d", got)
	}
	if rows := v.close(); len(rows) != 0 {
		t.Errorf("left on the terminal: %q", rows)
	}
	if last := stdout.String(); !strings.HasPrefix(last, server.Addr()+": 0.0 pages/s") || strings.Count(last, "\n") != 1 {
		t.Errorf("last was %q", last)
	}
}

func TestReadingText(t *testing.T) {
	pending, cpu := 2, 0.93
	r := monitor.Reading{
		Endpoint: "a:8001", Since: monitor.SinceReading, Seconds: 2, Pages: 11, PagesPerSecond: 5.5, Requests: 3, Failed: 1, UnderWay: 1.96, Executing: 0.987,
		Batches: []monitor.Executions{{Batch: 1, Count: 1}, {Batch: 4, Count: 2}}, MeanBatch: 11.0 / 3, Latency: 0.3104,
		Shares:  monitor.Shares{Queue: 0.03, Input: 0.01, Infer: 0.95, Other: 0.01},
		Pending: &pending, CPU: &cpu, GPUs: []monitor.GPU{{Utilization: 0.8, MemoryUsed: 2_500_000_000, MemoryTotal: 80_000_000_000, Power: 301.4}},
	}
	want := `a:8001: 5.5 pages/s, 1.5 requests/s, 1 failed, 2.0 under way, 0.99 executing, 2 pending
  batches of 3.7 pages on average: 1 of 1, 2 of 4
  a request takes 310.4ms: 3 % in the queue, 1 % input, 95 % model, 0 % output, 1 % other
  CPU 93 %; GPU 80 %, 2.5 GB of 80.0 GB, 301 W`
	if got := readingText(r); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for want, r := range map[string]monitor.Reading{
		"a: away now":                           {Endpoint: "a", Error: "away\nnow", Since: monitor.SinceNothing},
		"a: model layout version 2":             {Endpoint: "a", Model: "layout", Version: "2", Since: monitor.SinceNothing},
		"a: model m version 1\n  no metrics: x": {Endpoint: "a", Model: "m", Version: "1", Since: monitor.SinceNothing, MetricsError: "x"},
	} {
		if got := readingText(r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := fmt.Sprint(len(strings.Split(statsText([]monitor.Reading{r, r}), "\n"))); got != "9" {
		t.Errorf("%s lines", got)
	}
}
