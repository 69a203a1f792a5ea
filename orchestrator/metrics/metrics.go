// Package metrics tells Prometheus how a run, or whatever else uses a Detector,
// is getting on.
//
// Everything is read when somebody asks, from counts that the engine keeps in
// any case; nothing is told to this package while pages move, and nothing waits
// for who reads.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quire/orchestrator"
)

// Source is where the numbers come from. Each function must answer at once, to
// any goroutine.
type Source struct {
	// Stats is required.
	Stats func() orchestrator.Stats
	// Progress is of the run, or of all runs together; nil where there is none.
	Progress func() orchestrator.ProgressNow
	// Disk is how long results have waited for space on the disk in all, and
	// whether they do now; nil where nothing is written.
	Disk func() (waited time.Duration, waiting bool)
}

// collector makes metrics of a Source. Names and labels are only ever added.
type collector struct{ from Source }

// NewCollector returns a collector for a registry.
func NewCollector(from Source) prometheus.Collector { return collector{from} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("quire_"+name, help, labels, nil)
}

var (
	pages     = desc("pages_total", "Pages that have ended, by how.", "status")
	resumed   = desc("pages_resumed_total", "Pages among them that an earlier run had done or failed, or that were set aside.")
	known     = desc("pages_known", "Pages of the documents that have been opened.")
	documents = desc("documents_total", "Documents that have ended, by how.", "status")
	redone    = desc("documents_redone_total", "Documents that were done before and done again, by why.", "reason")
	listed    = desc("documents_listed", "Documents that have been found.")

	inFlight = desc("requests_in_flight", "Requests at the servers.")
	window   = desc("requests_window", "Requests that may be at the servers at once; fewer after a queue was full.")
	failed   = desc("requests_failed_total", "Requests that were not answered, by what was done about it.", "action")
	batches  = desc("batches_total", "Batches that were sealed, by what sealed them.", "sealed_by")
	sizes    = desc("batch_pages", "Pages of the batches that were sealed.")
	filling  = desc("batch_filling_pages", "Pages in the batch that is open.")
	blocked  = desc("pages_waiting_for_batch", "Pages that are drawn and wait for a place in a batch.")

	admitted = desc("queue_pages", "Pages of single calls that hold a place in the queue.")
	limit    = desc("queue_limit_pages", "Places that the queue has.")
	queued   = desc("queue_pages_untaken", "Pages of single calls that nobody has begun to draw.")

	endpointUp       = desc("endpoint_up", "1 while pages are sent to the server.", "server")
	endpointInFlight = desc("endpoint_requests_in_flight", "Requests at the server.", "server")
	endpointWindow   = desc("endpoint_requests_window", "Requests that may be at the server at once.", "server")
	endpointPages    = desc("endpoint_pages_total", "Pages that the server has answered.", "server")

	waited  = desc("waiting_seconds_total", "Seconds that everything has waited, by what for.", "for")
	waiting = desc("waiting", "1 while everything waits, by what for.", "for")
	stalled = desc("stalled", "1 when no page has ended for a minute though there is work.")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		pages, resumed, known, documents, redone, listed,
		inFlight, window, failed, batches, sizes, filling, blocked,
		endpointUp, endpointInFlight, endpointWindow, endpointPages,
		admitted, limit, queued, waited, waiting, stalled,
	} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.from.Stats()
	if c.from.Progress != nil {
		p := c.from.Progress()
		for status, n := range byStatus(p.Pages) {
			if status != orchestrator.StatusPartial { // pages never are
				count(pages, float64(n), string(status))
			}
		}
		for status, n := range byStatus(p.Documents) {
			count(documents, float64(n), string(status))
		}
		for reason, n := range p.Redone {
			count(redone, float64(n), string(reason))
		}
		count(resumed, float64(p.Resumed))
		gauge(known, float64(p.Known))
		gauge(listed, float64(p.Listed))
	}
	gauge(inFlight, float64(s.InFlight))
	gauge(window, float64(s.Window))
	for action, n := range s.Failed {
		count(failed, float64(n), action)
	}
	for reason, n := range s.Sealed {
		count(batches, float64(n), reason)
	}
	ch <- batchSizes(s.Sizes)
	for _, e := range s.Endpoints {
		gauge(endpointUp, one(e.State == orchestrator.EndpointUp), e.Name)
		gauge(endpointInFlight, float64(e.InFlight), e.Name)
		gauge(endpointWindow, float64(e.Window), e.Name)
		count(endpointPages, float64(e.Pages), e.Name)
	}
	gauge(filling, float64(s.Filling))
	gauge(blocked, float64(s.Stalled))
	gauge(admitted, float64(s.Admitted))
	gauge(limit, float64(s.QueueLimit))
	gauge(queued, float64(s.Queued))
	count(waited, s.Waited.Seconds(), "server")
	gauge(waiting, one(s.Waiting != ""), "server")
	if c.from.Disk != nil {
		took, now := c.from.Disk()
		count(waited, took.Seconds(), "disk")
		gauge(waiting, one(now), "disk")
	}
	gauge(stalled, one(s.Stall != ""))
}

func byStatus(c orchestrator.Counts) map[orchestrator.Status]int64 {
	return map[orchestrator.Status]int64{
		orchestrator.StatusDone: c.Done, orchestrator.StatusPartial: c.Partial, orchestrator.StatusFailed: c.Failed,
		orchestrator.StatusSkipped: c.Skipped, orchestrator.StatusCancelled: c.Cancelled,
	}
}

// batchSizes is a histogram with a bucket for each power of two; sizes[n] counts
// batches of n pages.
func batchSizes(counts []int64) prometheus.Metric {
	var total uint64
	var sum float64
	buckets := map[float64]uint64{}
	bound := 1
	for size, n := range counts {
		if size > bound {
			bound *= 2
		}
		total += uint64(n)
		sum += float64(size) * float64(n)
		buckets[float64(bound)] = total // cumulative: the last one of a bucket stays
	}
	return prometheus.MustNewConstHistogram(sizes, total, sum, buckets)
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
