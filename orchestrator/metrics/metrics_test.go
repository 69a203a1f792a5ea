package metrics

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"quire/orchestrator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source has a number of its own in each place.
func source() Source {
	return Source{
		Stats: func() orchestrator.Stats {
			return orchestrator.Stats{
				Admitted: 1, QueueLimit: 2, Queued: 3, Filling: 4, Stalled: 5, InFlight: 6, Window: 7,
				Sealed: map[string]int64{"size": 8, "age": 9}, Sizes: []int64{0, 2, 0, 3, 4},
				Failed: map[string]int64{"wait": 10, "retry": 11},
				Endpoints: []orchestrator.EndpointStats{
					{Name: "a:1", State: orchestrator.EndpointUp, InFlight: 30, Window: 31, Pages: 32},
					{Name: "b:1", State: orchestrator.EndpointAway, Window: 33, Pages: 34},
				},
				Waiting: "draining", Waited: 12500 * time.Millisecond,
			}
		},
		Progress: func() orchestrator.ProgressNow {
			return orchestrator.ProgressNow{
				Listed: 13, Known: 14, Resumed: 15,
				Documents: orchestrator.Counts{Done: 16, Partial: 17, Failed: 18, Skipped: 19, Cancelled: 20},
				Pages:     orchestrator.Counts{Done: 21, Failed: 22, Skipped: 23, Cancelled: 24},
				Redone:    map[orchestrator.Redone]int64{orchestrator.RedoneInput: 25, orchestrator.RedoneFailed: 26},
			}
		},
		Disk: func() (time.Duration, bool) { return 1500 * time.Millisecond, false },
	}
}

func TestCollector(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(source()))
	const want = `
# HELP quire_batch_filling_pages Pages in the batch that is open.
# TYPE quire_batch_filling_pages gauge
quire_batch_filling_pages 4
# HELP quire_batch_pages Pages of the batches that were sealed.
# TYPE quire_batch_pages histogram
quire_batch_pages_bucket{le="1"} 2
quire_batch_pages_bucket{le="2"} 2
quire_batch_pages_bucket{le="4"} 9
quire_batch_pages_bucket{le="+Inf"} 9
quire_batch_pages_sum 27
quire_batch_pages_count 9
# HELP quire_batches_total Batches that were sealed, by what sealed them.
# TYPE quire_batches_total counter
quire_batches_total{sealed_by="age"} 9
quire_batches_total{sealed_by="size"} 8
# HELP quire_documents_listed Documents that have been found.
# TYPE quire_documents_listed gauge
quire_documents_listed 13
# HELP quire_documents_redone_total Documents that were done before and done again, by why.
# TYPE quire_documents_redone_total counter
quire_documents_redone_total{reason="failed"} 26
quire_documents_redone_total{reason="input"} 25
# HELP quire_documents_total Documents that have ended, by how.
# TYPE quire_documents_total counter
quire_documents_total{status="cancelled"} 20
quire_documents_total{status="done"} 16
quire_documents_total{status="failed"} 18
quire_documents_total{status="partial"} 17
quire_documents_total{status="skipped"} 19
# HELP quire_endpoint_pages_total Pages that the server has answered.
# TYPE quire_endpoint_pages_total counter
quire_endpoint_pages_total{server="a:1"} 32
quire_endpoint_pages_total{server="b:1"} 34
# HELP quire_endpoint_requests_in_flight Requests at the server.
# TYPE quire_endpoint_requests_in_flight gauge
quire_endpoint_requests_in_flight{server="a:1"} 30
quire_endpoint_requests_in_flight{server="b:1"} 0
# HELP quire_endpoint_requests_window Requests that may be at the server at once.
# TYPE quire_endpoint_requests_window gauge
quire_endpoint_requests_window{server="a:1"} 31
quire_endpoint_requests_window{server="b:1"} 33
# HELP quire_endpoint_up 1 while pages are sent to the server.
# TYPE quire_endpoint_up gauge
quire_endpoint_up{server="a:1"} 1
quire_endpoint_up{server="b:1"} 0
# HELP quire_pages_known Pages of the documents that have been opened.
# TYPE quire_pages_known gauge
quire_pages_known 14
# HELP quire_pages_resumed_total Pages among them that an earlier run had done or failed, or that were set aside.
# TYPE quire_pages_resumed_total counter
quire_pages_resumed_total 15
# HELP quire_pages_total Pages that have ended, by how.
# TYPE quire_pages_total counter
quire_pages_total{status="cancelled"} 24
quire_pages_total{status="done"} 21
quire_pages_total{status="failed"} 22
quire_pages_total{status="skipped"} 23
# HELP quire_pages_waiting_for_batch Pages that are drawn and wait for a place in a batch.
# TYPE quire_pages_waiting_for_batch gauge
quire_pages_waiting_for_batch 5
# HELP quire_queue_limit_pages Places that the queue has.
# TYPE quire_queue_limit_pages gauge
quire_queue_limit_pages 2
# HELP quire_queue_pages Pages of single calls that hold a place in the queue.
# TYPE quire_queue_pages gauge
quire_queue_pages 1
# HELP quire_queue_pages_untaken Pages of single calls that nobody has begun to draw.
# TYPE quire_queue_pages_untaken gauge
quire_queue_pages_untaken 3
# HELP quire_requests_failed_total Requests that were not answered, by what was done about it.
# TYPE quire_requests_failed_total counter
quire_requests_failed_total{action="retry"} 11
quire_requests_failed_total{action="wait"} 10
# HELP quire_requests_in_flight Requests at the servers.
# TYPE quire_requests_in_flight gauge
quire_requests_in_flight 6
# HELP quire_requests_window Requests that may be at the servers at once; fewer after a queue was full.
# TYPE quire_requests_window gauge
quire_requests_window 7
# HELP quire_stalled 1 when no page has ended for a minute though there is work.
# TYPE quire_stalled gauge
quire_stalled 0
# HELP quire_waiting 1 while everything waits, by what for.
# TYPE quire_waiting gauge
quire_waiting{for="disk"} 0
quire_waiting{for="server"} 1
# HELP quire_waiting_seconds_total Seconds that everything has waited, by what for.
# TYPE quire_waiting_seconds_total counter
quire_waiting_seconds_total{for="disk"} 1.5
quire_waiting_seconds_total{for="server"} 12.5
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	// Without a run and a disk, what is about them is not there.
	registry = prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(Source{Stats: source().Stats}))
	if n, err := testutil.GatherAndCount(registry, "quire_pages_total", "quire_documents_total"); err != nil || n != 0 {
		t.Errorf("%d metrics of no run, %v", n, err)
	}
	if n, err := testutil.GatherAndCount(registry, "quire_waiting"); err != nil || n != 1 {
		t.Errorf("waiting for %d things, %v", n, err)
	}
}

func TestServer(t *testing.T) {
	s, err := Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	host, _, err := net.SplitHostPort(s.Addr())
	if err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("it listens at %s", s.Addr())
	}
	if other, err := Listen(s.Addr()); err == nil || err.Error() != "cannot listen at "+s.Addr()+": bind: address already in use: name another address" {
		t.Errorf("a second one: %v, %v", other, err)
	}
	// Who asks before there is anything to tell waits for it.
	type answer struct {
		body string
		code int
		err  error
	}
	asked, answered := make(chan struct{}), make(chan answer)
	go func() {
		conn, err := net.Dial("tcp", s.Addr())
		close(asked)
		if err != nil {
			answered <- answer{err: err}
			return
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		r, err := client.Get("http://" + s.Addr() + "/metrics")
		if err != nil {
			answered <- answer{err: err}
			return
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		answered <- answer{string(body), r.StatusCode, err}
	}()
	<-asked
	s.Serve(source(), Info{Version: "1.2", Model: "layout", ModelVersion: "3"})
	a := <-answered
	if a.err != nil || a.code != http.StatusOK {
		t.Fatalf("%d, %v", a.code, a.err)
	}
	for _, line := range []string{
		`quire_info{model="layout",model_version="3",version="1.2"} 1`, `quire_pages_total{status="done"} 21`, "go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(a.body, "\n"+line) {
			t.Errorf("no line %q in\n%s", line, a.body)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		conn.Close()
		t.Error("it listens after Close")
	}
}

func TestListen(t *testing.T) {
	for _, addr := range []string{"", "9464", "nowhere.invalid:1", "127.0.0.1:x"} {
		if s, err := Listen(addr); err == nil {
			s.Close()
			t.Errorf("%q was taken", addr)
		}
	}
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // without Serve
		t.Error(err)
	}
}
