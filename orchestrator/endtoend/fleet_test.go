package endtoend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/walk"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
)

// gated is a source whose last documents come when a gate opens.
type gated struct {
	orchestrator.Source
	last string // the first of them
	gate <-chan struct{}
}

func (g gated) Documents(ctx context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		for doc := range g.Source.Documents(ctx) {
			if doc.Path == g.last {
				select {
				case <-g.gate:
				case <-ctx.Done():
				}
			}
			if !yield(doc) {
				return
			}
		}
	}
}

// TestTwoServersOneKilled: a run on two real servers, of which one is killed in
// the middle and comes back, does every page, on both, before and after; its
// results are those of a run on one server, byte by byte.
func TestTwoServersOneKilled(t *testing.T) {
	in := t.TempDir()
	const docs = 24
	for i := range docs {
		text, err := os.ReadFile(filepath.Join(examples, []string{"slides.pdf", "paper.pdf", "form.pdf"}[i%3]))
		if err == nil {
			err = os.WriteFile(filepath.Join(in, fmt.Sprintf("%02d.pdf", i)), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var supervising sync.WaitGroup
	t.Cleanup(supervising.Wait)
	t.Cleanup(cancel)
	var servers [2]*embedded.Server
	var starting sync.WaitGroup
	for i := range servers {
		starting.Go(func() {
			s, err := embedded.Start(t.Context(), embedded.Config{Options: setup(), ModelRepository: repository})
			if err != nil {
				t.Error(err)
				return
			}
			servers[i] = s
			supervising.Go(func() {
				defer s.Kill()
				if err := s.Supervise(ctx, log, nil); err != nil {
					t.Error(err)
				}
			})
		})
	}
	starting.Wait()
	if t.Failed() {
		return
	}
	endpoints, err := tritonclient.ParseEndpoints(servers[0].Addr() + "," + servers[1].Addr())
	if err != nil {
		t.Fatal(err)
	}
	fleet, err := layout.OpenFleet(t.Context(), layout.FleetConfig{
		Config: layout.Config{SharedMemoryPrefix: theGuard.ShmPrefix(), Log: log}, Endpoints: endpoints, Connection: attentive,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fleet.Close() })
	d := detector(t, nil, orchestrator.Config{Endpoints: fleet.Endpoints(), Batch: 2}, render.Config{})
	go fleet.Follow(ctx, d) // nothing to follow: all are there, and have no name

	gate, over := make(chan struct{}), make(chan struct{})
	var progress orchestrator.Progress
	var faults sync.WaitGroup
	var before, after orchestrator.Stats
	faults.Go(func() {
		defer close(gate)
		if !reach(t, &progress, 8, over) {
			t.Error("the run was over before anything happened")
			return
		}
		first := func() orchestrator.EndpointStats { return d.Stats().Endpoints[0] }
		until(t, "a request at the first server", func() bool { return first().InFlight > 0 && first().Pages > 0 })
		syscall.Kill(servers[0].Pid(), syscall.SIGKILL)
		until(t, "a server that is away", func() bool { return first().State == orchestrator.EndpointAway })
		before = d.Stats()
		if before.Waiting != "" {
			t.Errorf("the run waits, though a server works: %s", before.Waiting)
		}
		until(t, "a server that is back", func() bool { return first().State == orchestrator.EndpointUp })
	})
	run := func(d *orchestrator.Detector, m orchestrator.Model, out string, gate <-chan struct{}, p *orchestrator.Progress) orchestrator.Summary {
		w, err := walk.New([]string{in}, walk.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		tree, err := sink.Open(sink.Config{Dir: out, Tool: "quire", ToolVersion: "test"})
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		if err := tree.Start(t.Context(), m.Info(), nil); err != nil {
			t.Fatal(err)
		}
		s, err := d.Run(t.Context(), orchestrator.Job{Source: gated{w, fmt.Sprintf("%02d.pdf", docs/2), gate}, Sink: tree, Progress: p})
		_, finishErr := tree.Finish(t.Context(), s, err, nil)
		if err := errors.Join(err, finishErr); err != nil {
			t.Error(err)
		}
		return s
	}
	out, plain := t.TempDir(), t.TempDir()
	s := run(d, fleet.Servers()[0].Model, out, gate, &progress)
	close(over)
	faults.Wait()
	after = d.Stats()

	open := make(chan struct{})
	close(open)
	m := model(t, theServer.Addr(), layout.Config{})
	one := run(detector(t, m, orchestrator.Config{Batch: 2}, render.Config{}), m, plain, open, nil)
	if s.Documents != (orchestrator.Counts{Done: docs}) || s.Pages.Failed != 0 || s.Pages != one.Pages || progress.Now().Pages != s.Pages {
		t.Errorf("%+v; on one server %+v", s, one)
	}
	answered := int64(0)
	for i, e := range after.Endpoints {
		answered += e.Pages
		if e.Pages <= before.Endpoints[i].Pages || before.Endpoints[i].Pages == 0 {
			t.Errorf("%s answered %d pages before and %d after", e.Name, before.Endpoints[i].Pages, e.Pages)
		}
		client := fleet.Servers()[i].Client
		statistics, err := client.Statistics(t.Context(), "layout", "")
		// The one that was killed counts anew, and a blank page too.
		if want := e.Pages - before.Endpoints[i].Pages; err != nil || int64(statistics.Inferences) < want {
			t.Errorf("%s says that it answered %d pages, at least %d are ours: %v", e.Name, statistics.Inferences, want, err)
		}
	}
	if answered != s.Pages.Done {
		t.Errorf("the servers answered %d pages, and %d are done", answered, s.Pages.Done)
	}
	for i := range docs {
		name := fmt.Sprintf("%02d.pdf.json", i)
		a, err := os.ReadFile(filepath.Join(out, name))
		b, otherErr := os.ReadFile(filepath.Join(plain, name))
		if err != nil || otherErr != nil || !bytes.Equal(a, b) || len(a) == 0 {
			t.Errorf("%s differs from that of one server, or is missing: %v, %v", name, err, otherErr)
		}
	}
}
