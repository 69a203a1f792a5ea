// Package monitor follows what Triton servers do with a model while others use
// it: it reads their counters again and again, and tells what was in between.
package monitor

import (
	"context"
	"sync"
	"time"

	"quire/tritonclient"
	"quire/tritonclient/metrics"
)

// Endpoint is one server.
type Endpoint struct {
	Name string
	// Statistics reads the counters of the model.
	Statistics func(context.Context) (tritonclient.ModelStatistics, error)
	// Metrics reads the server's metrics; nil for a server whose metrics port
	// is not known.
	Metrics func(context.Context) (metrics.Metrics, error)
}

// Reading is what one server did since it was read before. Without anything to
// compare with, in Since, the counts are 0.
type Reading struct {
	Time     time.Time `json:"time"`
	Endpoint string    `json:"endpoint"`
	Model    string    `json:"model"`
	Version  string    `json:"version"`
	// Error says why the counters could not be read; the next reading that can
	// reaches back to the last one that could.
	Error string `json:"error,omitempty"`
	// Since tells what the counts reach back to.
	Since Since `json:"since"`
	// Seconds is how far.
	Seconds float64 `json:"seconds"`
	// Pages were answered, in Requests, and Failed requests were not.
	Pages          uint64  `json:"pages"`
	PagesPerSecond float64 `json:"pages_per_second"`
	Requests       uint64  `json:"requests"`
	Failed         uint64  `json:"failed"`
	// Batches are the executions by their size, and MeanBatch the pages of one.
	Batches   []Executions `json:"batches"`
	MeanBatch float64      `json:"mean_batch"`
	// Latency is the seconds that the server took for a request on average, and
	// Shares what became of them.
	Latency float64 `json:"latency_seconds"`
	Shares  Shares  `json:"shares"`
	// UnderWay is how many requests were at the server on average, all clients'
	// together: as much of their windows as they use.
	UnderWay float64 `json:"requests_under_way"`
	// Executing is how many executions were under way on average; as many as
	// the model has instances is all it can do.
	Executing float64 `json:"executing"`
	// Pending is how many requests wait at the moment, and CPU the share of the
	// machine's processor time in use; nil when the metrics do not tell.
	Pending *int     `json:"pending,omitempty"`
	CPU     *float64 `json:"cpu,omitempty"`
	GPUs    []GPU    `json:"gpus,omitempty"`
	// MetricsError says why the metrics could not be read.
	MetricsError string `json:"metrics_error,omitempty"`
}

// Since is what a reading reaches back to.
type Since string

// What a reading reaches back to.
const (
	SinceReading Since = "reading" // the one before
	SinceNothing Since = "nothing" // it is the first, or the counters could not be read
	SinceReload  Since = "reload"  // the model was loaded again, or the server started, meanwhile
)

// Executions are how often the model ran with a batch of one size.
type Executions struct {
	Batch uint64 `json:"batch"`
	Count uint64 `json:"count"`
}

// Shares are parts of the time that requests took in the server, and add up to 1.
type Shares struct {
	// Queue is waiting, Input and Output moving tensors, Infer the model, Other
	// the rest.
	Queue  float64 `json:"queue"`
	Input  float64 `json:"compute_input"`
	Infer  float64 `json:"compute_infer"`
	Output float64 `json:"compute_output"`
	Other  float64 `json:"other"`
}

// GPU is a GPU of the server's at the moment.
type GPU struct {
	ID          string  `json:"id"`
	Utilization float64 `json:"utilization"`
	MemoryUsed  int64   `json:"memory_used_bytes"`
	MemoryTotal int64   `json:"memory_total_bytes"`
	Power       float64 `json:"power_watts"`
}

// Monitor follows servers. Its methods are for one goroutine.
type Monitor struct{ endpoints []*followed }

type followed struct {
	Endpoint
	known bool
	last  tritonclient.ModelStatistics
	at    time.Time
}

// New returns a monitor that has read nothing yet.
func New(endpoints []Endpoint) *Monitor {
	m := &Monitor{}
	for _, e := range endpoints {
		m.endpoints = append(m.endpoints, &followed{Endpoint: e})
	}
	return m
}

// Read reads all servers at once and returns what each did since the last Read,
// in the order of New.
func (m *Monitor) Read(ctx context.Context) []Reading {
	readings := make([]Reading, len(m.endpoints))
	var reads sync.WaitGroup
	for i, e := range m.endpoints {
		reads.Go(func() { readings[i] = e.read(ctx) })
	}
	reads.Wait()
	return readings
}

func (e *followed) read(ctx context.Context) Reading {
	r := Reading{Endpoint: e.Name, Since: SinceNothing}
	var gauges sync.WaitGroup
	var seen metrics.Metrics
	var metricsErr error
	if e.Metrics != nil {
		gauges.Go(func() { seen, metricsErr = e.Metrics(ctx) })
	}
	now, err := e.Statistics(ctx)
	r.Time = time.Now()
	gauges.Wait()
	switch delta, ok := now.Since(e.last); {
	case err != nil:
		r.Error = err.Error()
	case !e.known:
	case !ok:
		r.Since = SinceReload
	default:
		r.Since = SinceReading
		r.count(delta, r.Time.Sub(e.at))
	}
	if err == nil {
		e.known, e.last, e.at = true, now, r.Time
	}
	r.Model, r.Version = e.last.Model, e.last.Version
	switch {
	case metricsErr != nil:
		r.MetricsError = metricsErr.Error()
	case e.Metrics != nil:
		r.gauge(seen)
	}
	return r
}

// count fills in what happened in an interval.
func (r *Reading) count(d tritonclient.ModelStatistics, interval time.Duration) {
	r.Seconds = interval.Seconds()
	r.Pages, r.Requests, r.Failed = d.Inferences, d.Success.Count, d.Fail.Count
	var executing time.Duration
	executions := uint64(0)
	for _, b := range d.Batches {
		r.Batches = append(r.Batches, Executions{Batch: b.Size, Count: b.ComputeInfer.Count})
		executions += b.ComputeInfer.Count
		executing += b.ComputeInput.Time + b.ComputeInfer.Time + b.ComputeOutput.Time
	}
	if interval > 0 {
		r.PagesPerSecond = float64(r.Pages) / r.Seconds
		r.Executing = executing.Seconds() / r.Seconds
		r.UnderWay = d.Success.Time.Seconds() / r.Seconds // Little's law
	}
	if executions > 0 {
		r.MeanBatch = float64(r.Pages) / float64(executions)
	}
	r.Latency = d.Success.Mean().Seconds()
	parts := d.Queue.Time + d.ComputeInput.Time + d.ComputeInfer.Time + d.ComputeOutput.Time
	if all := max(d.Success.Time, parts); all > 0 {
		share := func(t time.Duration) float64 { return float64(t) / float64(all) }
		r.Shares = Shares{
			Queue: share(d.Queue.Time), Input: share(d.ComputeInput.Time), Infer: share(d.ComputeInfer.Time),
			Output: share(d.ComputeOutput.Time), Other: share(all - parts),
		}
	}
}

// gauge fills in what is so at the moment.
func (r *Reading) gauge(m metrics.Metrics) {
	if n, ok := m.Pending(r.Model, r.Version); ok {
		r.Pending = &n
	}
	if m.CPU >= 0 {
		r.CPU = &m.CPU
	}
	for _, g := range m.GPUs {
		r.GPUs = append(r.GPUs, GPU(g))
	}
}
