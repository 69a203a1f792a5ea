package monitor

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quire/tritonclient"
	"quire/tritonclient/metrics"
)

// server is what a server would say.
type server struct {
	statistics tritonclient.ModelStatistics
	err        error
	metrics    string
}

func (s *server) endpoint(name string) Endpoint {
	return Endpoint{
		Name:       name,
		Statistics: func(context.Context) (tritonclient.ModelStatistics, error) { return s.statistics, s.err },
		Metrics:    func(context.Context) (metrics.Metrics, error) { return metrics.Parse(strings.NewReader(s.metrics)) },
	}
}

func total(n uint64, t time.Duration) tritonclient.Total {
	return tritonclient.Total{Count: n, Time: t}
}

func batch(size, n uint64, t time.Duration) tritonclient.BatchStatistics {
	return tritonclient.BatchStatistics{Size: size, ComputeInfer: total(n, t), ComputeInput: total(n, t/4), ComputeOutput: total(n, t/8)}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{metrics: "nv_inference_pending_request_count{model=\"layout\",version=\"1\"} 3\nnv_gpu_utilization{gpu_uuid=\"a\"} 0.5\n"}
		usual := s.metrics
		s.statistics = tritonclient.ModelStatistics{
			Model: "layout", Version: "1", Inferences: 100, Executions: 30, Success: total(40, time.Minute), Fail: total(1, 0),
			Batches: []tritonclient.BatchStatistics{batch(1, 5, time.Second), batch(4, 25, 20*time.Second)},
		}
		m := New([]Endpoint{s.endpoint("a:8001")})
		first := m.Read(t.Context())[0]
		if first.Since != SinceNothing || first.Pages != 0 || first.Endpoint != "a:8001" || first.Model != "layout" || *first.Pending != 3 || first.GPUs[0].Utilization != 0.5 || first.CPU != nil {
			t.Errorf("%+v", first)
		}

		time.Sleep(2 * time.Second)
		s.statistics = tritonclient.ModelStatistics{
			Model: "layout", Version: "1", Inferences: 125, Executions: 38, Success: total(50, time.Minute+4*time.Second), Fail: total(3, 0),
			Queue: total(50, time.Second), ComputeInput: total(50, 200*time.Millisecond), ComputeInfer: total(50, 2*time.Second), ComputeOutput: total(50, 400*time.Millisecond),
			Batches: []tritonclient.BatchStatistics{batch(1, 6, 1100*time.Millisecond), batch(4, 31, 22900*time.Millisecond)},
		}
		r := m.Read(t.Context())[0]
		if r.Since != SinceReading || r.Seconds != 2 || r.Pages != 25 || r.PagesPerSecond != 12.5 || r.Requests != 10 || r.Failed != 2 {
			t.Errorf("%+v", r)
		}
		if !slices.Equal(r.Batches, []Executions{{1, 1}, {4, 6}}) || !near(r.MeanBatch, 25.0/7) || !near(r.Executing, 1.375*1.5) || !near(r.UnderWay, 2) || !near(r.Latency, 0.4) {
			t.Errorf("%+v", r)
		}
		if h := r.Shares; !near(h.Queue, 0.25) || !near(h.Input, 0.05) || !near(h.Infer, 0.5) || !near(h.Output, 0.1) || !near(h.Other, 0.1) {
			t.Errorf("%+v", h)
		}

		// Nothing happens, but that the processor is told of, which does nothing,
		// and what waits no more.
		s.metrics = "nv_cpu_utilization 0\n"
		time.Sleep(time.Second)
		if r := m.Read(t.Context())[0]; r.CPU == nil || *r.CPU != 0 || r.Pending != nil || r.GPUs != nil || r.MetricsError != "" {
			t.Errorf("%+v", r)
		}
		s.metrics = usual
		time.Sleep(time.Second)
		if r := m.Read(t.Context())[0]; r.Since != SinceReading || r.Pages != 0 || r.MeanBatch != 0 || r.Batches != nil || r.Shares != (Shares{}) {
			t.Errorf("%+v", r)
		}

		// Away for a while; what was done meanwhile is not lost.
		s.err, s.metrics = errors.New("connection refused"), "garbage"
		time.Sleep(time.Second)
		if r := m.Read(t.Context())[0]; r.Since != SinceNothing || r.Error != "connection refused" || r.MetricsError == "" || r.Model != "layout" {
			t.Errorf("%+v", r)
		}
		s.err = nil
		s.statistics.Inferences += 30
		time.Sleep(time.Second)
		if r := m.Read(t.Context())[0]; r.Since != SinceReading || r.Pages != 30 || r.Seconds != 2 {
			t.Errorf("%+v", r)
		}

		// The counters begin again.
		s.statistics = tritonclient.ModelStatistics{Model: "layout", Version: "1", Inferences: 2}
		time.Sleep(time.Second)
		if r := m.Read(t.Context())[0]; r.Since != SinceReload || r.Pages != 0 {
			t.Errorf("%+v", r)
		}
		s.statistics.Inferences = 5
		time.Sleep(time.Second)
		if r := m.Read(t.Context())[0]; r.Since != SinceReading || r.Pages != 3 {
			t.Errorf("%+v", r)
		}
	})
}

// One server that is away takes nothing from the others.
func TestSeveralServers(t *testing.T) {
	good, bad := &server{statistics: tritonclient.ModelStatistics{Model: "layout"}}, &server{err: errors.New("away")}
	e := good.endpoint("good")
	e.Metrics = nil
	m := New([]Endpoint{bad.endpoint("bad"), e})
	m.Read(t.Context())
	good.statistics.Inferences = 7
	r := m.Read(t.Context())
	if len(r) != 2 || r[0].Endpoint != "bad" || r[0].Error != "away" || r[1].Endpoint != "good" || r[1].Pages != 7 || r[1].MetricsError != "" {
		t.Errorf("%+v", r)
	}
}
