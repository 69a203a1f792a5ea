package endtoend

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"quire/orchestrator"
	"quire/orchestrator/internal/odd"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/tritontest"
)

// frail is a repository with the instant model, which takes some milliseconds an
// execution and does not survive some pages, see testdata/frail/model.py.
func frail(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	const instant = "../../scripts/bench_repository/instant"
	if err := os.CopyFS(root, os.DirFS(instant)); err != nil {
		t.Fatal(err)
	}
	write := func(from, to string, edits ...string) {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, "layout", to), []byte(strings.NewReplacer(edits...).Replace(string(text))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(instant+"/layout/1/model.py", "1/instant.py")
	write("testdata/frail/model.py", "1/model.py")
	write(instant+"/layout/configs/cpu.pbtxt", "configs/cpu.pbtxt",
		`"bench.batch_ms" value { string_value: "0"`, `"bench.batch_ms" value { string_value: "20"`,
		`"bench.page_ms" value { string_value: "0"`, `"bench.page_ms" value { string_value: "2"`,
		"max_batch_size: 16", "max_batch_size: 8")
	return root
}

// attentive makes a client notice within a second what takes it half a minute.
var attentive = tritonclient.Config{Silence: 300 * time.Millisecond, CallTimeout: 400 * time.Millisecond, MaxBackoff: 200 * time.Millisecond}

// outages is a supervised server for faults, with a second client that is there
// all the time and whose pages are all good.
type outages struct {
	*embedded.Server
	client *tritonclient.Client
	config *inferencepb.ModelConfig // as served at the start
	log    *slog.Logger
	second *orchestrator.Detector
	worked atomic.Int64 // pages done by the first clients
}

func startOutages(t *testing.T) *outages {
	t.Helper()
	server, err := embedded.Start(t.Context(), embedded.Config{Options: setup(), ModelRepository: frail(t)})
	if err != nil {
		t.Fatal(err)
	}
	o := &outages{Server: server, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	supervised := make(chan error, 1)
	go func() { supervised <- server.Supervise(ctx, o.log, o.worked.Load) }()
	t.Cleanup(func() {
		cancel()
		if err := <-supervised; err != nil {
			t.Error(err)
		}
		server.Kill()
	})
	if o.client, err = tritonclient.New(server.Addr(), tritonclient.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.client.Close() })
	if o.config, err = o.client.ModelConfig(t.Context(), "layout", ""); err != nil {
		t.Fatal(err)
	}
	o.second = detector(t, o.model(t, server.Addr()), orchestrator.Config{}, render.Config{})
	page := image.NewRGBA(image.Rect(0, 0, 608, 800))
	for i := range page.Pix {
		page.Pix[i] = 255
	}
	var calls sync.WaitGroup
	calls.Go(func() {
		for ctx.Err() == nil {
			if _, err := o.second.DetectBatch(ctx, []image.Image{page, page, page}); err != nil && ctx.Err() == nil {
				t.Errorf("the second client: %v", err)
			}
		}
	})
	t.Cleanup(func() { cancel(); calls.Wait() })
	return o
}

// model opens the served model for a client that notices soon what is wrong.
func (o *outages) model(t *testing.T, addr string) *layout.Model {
	t.Helper()
	client, err := tritonclient.New(addr, attentive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	// A run may end with the death of the server that shows which page did it.
	if err := client.WaitModelReady(t.Context(), "layout", "", nil); err != nil {
		t.Fatal(err)
	}
	m, err := layout.Open(t.Context(), client, layout.Config{SharedMemoryPrefix: theGuard.ShmPrefix(), Log: o.log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// load has the model loaded anew, with a changed config.
func (o *outages) load(t *testing.T, change func(*inferencepb.ModelConfig)) {
	t.Helper()
	config := proto.CloneOf(o.config)
	config.GetDynamicBatching().PreferredBatchSize = nil // filled in by the server, for the old size
	change(config)
	override, err := protojson.Marshal(config)
	if err == nil {
		err = o.client.LoadModel(t.Context(), "layout", override)
	}
	if err != nil {
		t.Error(err)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(2 * time.Minute)
	for !condition() {
		select {
		case <-tick.C:
		case <-late:
			t.Errorf("not in 2 minutes: %s", what)
			return
		}
	}
}

// TestOutages has a real server go away in every way while a run goes on. Each
// page of the run is done, or fails for what it did itself; so is each page of
// the second client.
func TestOutages(t *testing.T) {
	o := startOutages(t)
	dir := odd.MakeMany(t, 240)
	for _, tt := range []struct {
		name string
		cfg  orchestrator.Config
		// fault happens when 40 pages have ended.
		fault func(t *testing.T, d *orchestrator.Detector)
	}{
		{"server killed", orchestrator.Config{}, func(t *testing.T, d *orchestrator.Detector) {
			syscall.Kill(o.Pid(), syscall.SIGKILL)
			until(t, "a run that says it waits", func() bool { return d.Stats().Waiting != "" })
		}},
		{"model's process killed", orchestrator.Config{}, func(t *testing.T, d *orchestrator.Detector) {
			stubs := children(t, o.Pid())
			if len(stubs) == 0 {
				t.Error("the server has no child to kill")
			}
			for _, pid := range stubs {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			until(t, "a run that says it waits", func() bool { return d.Stats().Waiting != "" })
		}},
		{"server stopped and continued", orchestrator.Config{}, func(t *testing.T, d *orchestrator.Detector) {
			o.Signal(syscall.SIGSTOP)
			until(t, "a run that says it waits", func() bool { return d.Stats().Waiting != "" })
			o.Signal(syscall.SIGCONT)
		}},
		{"model unloaded and loaded", orchestrator.Config{}, func(t *testing.T, d *orchestrator.Detector) {
			if err := o.client.UnloadModel(t.Context(), "layout"); err != nil {
				t.Error(err)
			}
			until(t, "a run that says it waits", func() bool { return d.Stats().Waiting != "" })
			o.load(t, func(*inferencepb.ModelConfig) {})
		}},
		{"reloaded with smaller and larger batches", orchestrator.Config{RefreshEvery: 50 * time.Millisecond}, func(t *testing.T, d *orchestrator.Detector) {
			for _, batch := range []int{2, 8} {
				o.load(t, func(c *inferencepb.ModelConfig) { c.MaxBatchSize = int32(batch) })
				until(t, "a run that goes on with the new batch", func() bool { return d.Settings().Batch == batch })
			}
		}},
		{"queue of two", orchestrator.Config{InFlight: 8, Batch: 2, Attempts: 1}, func(t *testing.T, d *orchestrator.Detector) {
			o.load(t, func(c *inferencepb.ModelConfig) {
				c.GetDynamicBatching().DefaultQueuePolicy = &inferencepb.ModelQueuePolicy{MaxQueueSize: 2}
			})
			until(t, "a smaller window", func() bool { return d.Stats().Window < 8 })
			o.load(t, func(c *inferencepb.ModelConfig) { c.GetDynamicBatching().DefaultQueuePolicy = nil })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := o.model(t, o.Addr())
			d := detector(t, m, tt.cfg, render.Config{})
			s, out := o.run(t, d, m, dir, tt.fault)
			if s.Pages != (orchestrator.Counts{Done: 240}) || s.Documents != (orchestrator.Counts{Done: 240}) || len(results(t, out)) != 240 {
				t.Errorf("%+v, %d results", s, len(results(t, out)))
			}
		})
	}

	t.Run("a network that swallows everything", func(t *testing.T) {
		proxy := tritontest.StartProxy(t, o.Addr())
		m := o.model(t, proxy.Addr())
		d := detector(t, m, orchestrator.Config{}, render.Config{})
		s, _ := o.run(t, d, m, dir, func(t *testing.T, d *orchestrator.Detector) {
			proxy.Drop(true)
			until(t, "a run that says it waits", func() bool { return d.Stats().Waiting != "" })
			proxy.Drop(false)
		})
		if s.Pages != (orchestrator.Counts{Done: 240}) || s.Documents != (orchestrator.Counts{Done: 240}) {
			t.Errorf("%+v", s)
		}
	})

	for colour, what := range map[string]string{"1 0 1": "model's process", "0 1 1": "server"} {
		t.Run("a page that kills the "+what, func(t *testing.T) {
			dir := t.TempDir()
			for i := range 12 {
				colours := []string{"1 1 1", "1 1 1", "1 1 1"}
				if i == 4 {
					colours[1] = colour
				}
				writePages(t, filepath.Join(dir, fmt.Sprintf("%02d.pdf", i)), colours...)
			}
			m := o.model(t, o.Addr())
			d := detector(t, m, orchestrator.Config{Batch: 4}, render.Config{})
			s, out := o.run(t, d, m, dir, nil)
			if s.Pages != (orchestrator.Counts{Done: 35, Failed: 1}) || s.Documents != (orchestrator.Counts{Done: 11, Partial: 1}) {
				t.Errorf("%+v", s)
			}
			doc := results(t, out)["04.pdf"]
			if doc == nil || len(doc.Pages) != 3 || doc.Pages[1].Error == nil || doc.Pages[1].Error.Category != orchestrator.CategoryCrash {
				t.Errorf("the document with the page: %+v", doc)
			}
		})
	}
}

// run runs a directory, with a fault in the middle of it, and looks at what the
// second client did meanwhile.
func (o *outages) run(t *testing.T, d *orchestrator.Detector, m orchestrator.Model, dir string, fault func(*testing.T, *orchestrator.Detector)) (orchestrator.Summary, string) {
	t.Helper()
	before := o.second.Stats().Pages
	var progress orchestrator.Progress
	var faults sync.WaitGroup
	over := make(chan struct{})
	if fault != nil {
		faults.Go(func() {
			if !reach(t, &progress, 40, over) {
				t.Error("the run was over before anything happened")
				return
			}
			fault(t, d)
		})
	}
	out := t.TempDir()
	s, err := runWith(t, t.Context(), d, m, dir, out, &progress)
	close(over)
	faults.Wait()
	if err != nil {
		t.Error(err)
	}
	o.worked.Add(s.Pages.Done)
	if p := progress.Now(); p.Pages != s.Pages || p.Documents != s.Documents {
		t.Errorf("progress says %+v, the summary %+v", p, s)
	}
	until(t, "a page of the second client", func() bool { return o.second.Stats().Pages.Done > before.Done })
	if after := o.second.Stats().Pages; after.Failed+after.Cancelled > before.Failed+before.Cancelled {
		t.Errorf("of the second client: %+v, and %+v before", after, before)
	}
	return s, out
}

// writePages writes a PDF with a page for each colour, three numbers of the
// operator rg.
func writePages(t *testing.T, path string, colours ...string) {
	t.Helper()
	var b bytes.Buffer
	var at []int
	object := func(format string, args ...any) {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", len(at), fmt.Sprintf(format, args...))
	}
	b.WriteString("%PDF-1.4\n")
	kids := ""
	for i := range colours {
		kids += fmt.Sprintf("%d 0 R ", 3+2*i)
	}
	object("<< /Type /Catalog /Pages 2 0 R >>")
	object("<< /Type /Pages /Count %d /Kids [%s] /MediaBox [0 0 608 800] >>", len(colours), kids)
	for i, colour := range colours {
		object("<< /Type /Page /Parent 2 0 R /Contents %d 0 R >>", 4+2*i)
		content := colour + " rg 0 0 608 800 re f"
		object("<< /Length %d >>\nstream\n%s\nendstream", len(content), content)
	}
	xref := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, offset := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", offset)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, xref)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
