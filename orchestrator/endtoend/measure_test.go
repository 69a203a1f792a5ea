package endtoend

import (
	"slices"
	"sync"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/measure"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/walk"
	"quire/tritonclient"
)

// The loads that bench and tune are made of, on real pages and a real server.
func TestLoads(t *testing.T) {
	ctx := t.Context()
	m := model(t, theServer.Addr(), layout.Config{})
	pool := render.New(render.Config{Guard: theGuard})
	w, err := walk.New([]string{examples}, walk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	docs, err := measure.Count(ctx, pool, m.Input(), slices.Collect(w.Documents(ctx)), 1000)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, d := range docs {
		total += d.Pages
	}
	if len(docs) != 5 || total != 16 {
		t.Fatalf("%d documents, %d pages", len(docs), total)
	}
	// Until there are enough; too long a one only where there is no other.
	by := map[string]measure.Document{}
	for _, d := range docs {
		by[d.Path] = d
	}
	names := func(pages int, of ...string) (got []string) {
		t.Helper()
		var candidates []orchestrator.Document
		for _, name := range of {
			candidates = append(candidates, by[name].Document)
		}
		counted, err := measure.Count(ctx, pool, m.Input(), candidates, pages)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range counted {
			got = append(got, d.Path)
		}
		return got
	}
	for _, c := range []struct {
		pages    int
		of, want []string
	}{
		{1, []string{"form.pdf", "scan.pdf"}, []string{"form.pdf"}},
		{2, []string{"paper.pdf", "form.pdf", "scan.pdf"}, []string{"form.pdf", "scan.pdf"}},
		{2, []string{"paper.pdf", "report.pdf"}, []string{"paper.pdf"}},
	} {
		if got := names(c.pages, c.of...); !slices.Equal(got, c.want) {
			t.Errorf("%d pages of %v: %v, want %v", c.pages, c.of, got, c.want)
		}
	}

	rendering, err := measure.NewRendering(ctx, pool, m.Input(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer rendering.Close()
	var mu sync.Mutex
	var pages [][]byte
	before, err := measure.ReadCPU(theServer.Pid())
	if err != nil {
		t.Fatal(err)
	}
	drawn, err := rendering.Draw(ctx, docs, 2, func(_ measure.Document, _ int, pixels []byte) {
		mu.Lock()
		defer mu.Unlock()
		pages = append(pages, slices.Clone(pixels))
	})
	if err != nil || drawn.Pages != 32 || drawn.Failed != 0 || len(pages) != 32 {
		t.Fatalf("%+v, %d pages seen, %v", drawn, len(pages), err)
	}
	rendered, err := measure.ReadCPU(theServer.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if took := rendered.Sub(before); took.Render <= 0 || took.Guard < 0 {
		t.Errorf("rendering took %+v", took)
	}

	serving, err := measure.NewServing(measure.ServerConfig{
		Model: m, Pages: pages[:16], Batch: 2, InFlight: 2, SharedMemoryPrefix: theGuard.ShmPrefix() + "load-",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer serving.Close()
	client, err := tritonclient.New(theServer.Addr(), tritonclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stats, err := client.Statistics(ctx, "layout", "")
	if err != nil {
		t.Fatal(err)
	}
	a, err := serving.Ask(ctx, time.Millisecond)
	if err != nil || a.Failed != 0 || a.Err != nil || a.Requests < 2 || a.Pages != 2*a.Requests || len(a.Latencies) != a.Requests || a.Elapsed <= 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	// The server counts an execution a moment after it has answered.
	for poll := time.NewTicker(10 * time.Millisecond); ; <-poll.C {
		now, err := client.Statistics(ctx, "layout", "")
		if err != nil {
			t.Fatal(err)
		}
		if delta, ok := now.Since(stats); !ok || delta.Inferences > uint64(a.Pages) {
			t.Errorf("the server counted %+v for %+v", delta, a)
		} else if delta.Inferences < uint64(a.Pages) && ctx.Err() == nil {
			continue
		}
		break
	}
	asked, err := measure.ReadCPU(theServer.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if took := asked.Sub(rendered); took.Model <= 0 || took.Server <= 0 {
		t.Errorf("answering took %+v", took)
	}

	// The whole.
	d := detector(t, m, orchestrator.Config{}, render.Config{})
	stop := measure.Watch(d)
	out := t.TempDir()
	s, err := runSource(ctx, d, m, measure.Repeat(docs, 2), out, nil)
	flow := stop()
	if err != nil || s.Pages.Done != 32 || s.Documents.Done != 10 || s.Pages.Failed != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	written, regions := results(t, out), 0
	for _, doc := range written {
		for _, page := range doc.Pages {
			regions += len(page.Regions)
		}
	}
	if len(written) != 10 || regions == 0 {
		t.Errorf("%d documents with %d regions were written", len(written), regions)
	}
	if flow.Looks == 0 || flow.Full+flow.Idle > flow.Looks {
		t.Errorf("%+v", flow)
	}
}
