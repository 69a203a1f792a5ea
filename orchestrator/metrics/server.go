package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Info is what a scraper is told of the program once.
type Info struct{ Version, Model, ModelVersion string }

// Server answers scrapers at /metrics.
type Server struct {
	listener net.Listener
	http     *http.Server
	ended    chan struct{} // closed when Serve has ended; nil until it was called
}

// Listen takes an address, HOST:PORT. Without a host it is this machine alone
// that can ask: what the metrics tell is not for everybody, and nobody is asked
// for a password. Who asks before Serve waits for it. Close must follow.
func Listen(addr string) (*Server, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("%q is no address to listen at: it is HOST:PORT, or :PORT for this machine alone", addr)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, fmt.Errorf("cannot listen at %s: %w: name another address", addr, err)
	}
	return &Server{listener: l}, nil
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Serve begins to answer, and returns at once. It may be called once.
func (s *Server) Serve(from Source, info Info) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		NewCollector(from), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	about := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "quire_info", Help: "1; what answers, in labels.",
		ConstLabels: prometheus.Labels{"version": info.Version, "model": info.Model, "model_version": info.ModelVersion},
	})
	about.Set(1)
	registry.MustRegister(about)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	// A reader that does not read holds up itself alone, and not for ever.
	s.http = &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = s.http.Serve(s.listener) // ends with Close
	}()
}

// Close lets a scraper that is being answered have the rest, for a second, and
// ends the server.
func (s *Server) Close() error {
	if s.ended == nil {
		return s.listener.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	<-s.ended
	return err
}
