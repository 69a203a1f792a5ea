package endtoend

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/tune"
	"quire/orchestrator/walk"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
)

// tunable is a server of its own with a model that behaves like a GPU, and what
// searches for better settings of it.
type tunable struct {
	config string // its file
	client *tritonclient.Client
	model  *layout.Model
	server *tune.Server
	live   *tune.Live
}

// startTunable makes the config bad by hand.
func startTunable(t *testing.T) *tunable {
	t.Helper()
	like, err := embedded.BenchRepository(setup(), 10*time.Millisecond, 500*time.Microsecond)
	if err != nil {
		t.Fatal(err)
	}
	repository := t.TempDir()
	if err := os.CopyFS(repository, os.DirFS(like)); err != nil {
		t.Fatal(err)
	}
	s := &tunable{config: filepath.Join(repository, "layout", "configs", "cpu.pbtxt")}
	edit(t, s.config, "max_batch_size: 16", "max_batch_size: 1", "dynamic_batching { }", "dynamic_batching { max_queue_delay_microseconds: 200000 }")
	server, err := embedded.Start(t.Context(), embedded.Config{Options: setup(), ModelRepository: repository})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Kill() })
	if s.client, err = tritonclient.New(server.Addr(), tritonclient.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.client.Close() })
	s.model = model(t, server.Addr(), layout.Config{})
	if s.server, err = tune.Take(t.Context(), s.client, "layout", time.Minute, func(text string) { t.Error(text) }); err != nil {
		t.Fatal(err)
	}
	w, err := walk.New([]string{examples}, walk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	pool := render.New(render.Config{Guard: theGuard})
	sample, err := tune.Draw(t.Context(), w, pool, s.model.Input(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if sample.Documents() != 5 || sample.Pages() != 16 || sample.Listed != 5 {
		t.Errorf("sample: %d documents of %d, %d pages", sample.Documents(), sample.Listed, sample.Pages())
	}
	s.live = tune.NewLive(tune.LiveConfig{
		Client: s.client, Server: s.server, Model: s.model, Sample: sample, Renderer: pool, Workers: 2,
		Window: 100 * time.Millisecond, SharedMemoryPrefix: theGuard.ShmPrefix(),
	})
	return s
}

// edit replaces texts of a file, which it must have, in pairs.
func edit(t *testing.T, path string, pairs ...string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.NewReplacer(pairs...).Replace(string(text))
	if edited == string(text) {
		t.Fatalf("%s has none of %q", path, pairs)
	}
	if err := os.WriteFile(path, []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (s *tunable) search(ctx context.Context, progress func(tune.Step)) (*tune.Result, error) {
	return tune.Search(ctx, tune.Config{
		Start: s.server.Start(s.model.Input()), Devices: s.server.Devices(), Rendering: true, MaxBatch: 8,
		Deadline: time.Now().Add(time.Minute), Progress: progress, // more than a busy machine takes
	}, s.live)
}

// TestTune searches on a real server, which is what it was afterwards: also in
// that it still takes a file that is edited and loaded.
func TestTune(t *testing.T) {
	s := startTunable(t)
	ctx := t.Context()
	before, err := s.client.ModelConfig(ctx, "layout", "")
	if err != nil {
		t.Fatal(err)
	}
	noted := 0
	r, err := s.search(ctx, func(step tune.Step) {
		if l, err := tune.Find(ctx, s.client, "layout"); err != nil {
			t.Error(err)
		} else if l != nil && l.Alive && l.Note.Pid == os.Getpid() {
			noted++
		} else if step.Number > 1 {
			t.Errorf("measurement %d: no note: %+v", step.Number, l)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if noted < r.Measurements-1 || len(r.Trials) < 3 || len(r.Curve.Points) < 3 || r.Rendering <= 0 {
		t.Errorf("%d measurements, %d with a note, %d trials, curve %v, rendering %v", r.Measurements, noted, len(r.Trials), r.Curve, r.Rendering)
	}
	for _, trial := range r.Trials {
		if trial.Infeasible != "" {
			t.Errorf("%v: %s", trial.Settings, trial.Infeasible)
		}
		for _, windows := range [][]tune.Window{trial.Alone, trial.Pipeline, trial.Open} {
			for _, w := range windows {
				if w.PagesPerSecond <= 0 || w.P50 <= 0 || w.P50 > w.P99 || w.QueueShare < 0 || w.QueueShare > 1 || w.ServerShare <= 0 || w.GPUMemory >= 0 {
					t.Errorf("%v: %+v", trial.Settings, w)
				}
				for _, e := range w.Executed {
					if e.Size > trial.Settings.MaxBatch || e.Count < 1 {
						t.Errorf("%v: executed %+v", trial.Settings, w.Executed)
					}
				}
			}
		}
	}

	serves := func() int {
		t.Helper()
		config, err := s.client.ModelConfig(ctx, "layout", "")
		if err != nil {
			t.Fatal(err)
		}
		return int(config.GetMaxBatchSize())
	}
	if err := s.server.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.client.LoadModel(ctx, "layout", nil); err != nil {
		t.Fatal(err)
	}
	after, err := s.client.ModelConfig(ctx, "layout", "")
	if err != nil || !proto.Equal(before, after) {
		t.Errorf("before: %v\nafter:  %v, %v", before, after, err)
	}
	edit(t, s.config, "max_batch_size: 1", "max_batch_size: 3")
	if err := s.client.LoadModel(ctx, "layout", nil); err != nil || serves() != 3 {
		t.Errorf("an edited file was loaded, and the batch is %d: %v", serves(), err)
	}
}

// TestTuneNoticesOthers: windows in which others use the model say nothing; one
// who does so all the time ends the search, and the server is put back.
func TestTuneNoticesOthers(t *testing.T) {
	s := startTunable(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before, err := s.client.ModelConfig(ctx, "layout", "")
	if err != nil {
		t.Fatal(err)
	}
	var other sync.WaitGroup
	other.Go(func() {
		page := make([]byte, s.model.Input().PageBytes())
		request := &tritonclient.InferRequest{Model: "layout", Inputs: []tritonclient.Input{{Name: "pages", Datatype: "UINT8", Shape: []int64{1, 800, 608, 3}, Raw: page}}}
		for ctx.Err() == nil {
			_, _ = s.client.Infer(ctx, request) // a reload may refuse one
		}
	})
	_, err = s.search(ctx, nil)
	cancel()
	other.Wait()
	if err == nil || !strings.Contains(err.Error(), "other clients") {
		t.Errorf("%v", err)
	}
	if err := s.server.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := s.client.ModelConfig(t.Context(), "layout", ""); err != nil || !proto.Equal(before, after) {
		t.Errorf("before: %v\nafter:  %v, %v", before, after, err)
	}
}
