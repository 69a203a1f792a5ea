package endtoend

import (
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"quire/orchestrator"
	"quire/orchestrator/internal/odd"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/tritonclient"
	"quire/tritonclient/embedded"
)

// TestReloadInMidRun reloads the served model with smaller and then with larger
// batches while a run goes on: the run notices both and loses nothing.
func TestReloadInMidRun(t *testing.T) {
	server, err := embedded.Start(t.Context(), embedded.Config{Options: setup(), ModelRepository: repository})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	m := model(t, server.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{RefreshEvery: 100 * time.Millisecond}, render.Config{})
	client, err := tritonclient.New(server.Addr(), tritonclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	var progress orchestrator.Progress
	over := make(chan struct{})
	var reloads sync.WaitGroup
	reloads.Go(func() {
		for i, batch := range []int32{2, 4} {
			if !reach(t, &progress, int64(20+40*i), over) {
				return
			}
			config, err := client.ModelConfig(t.Context(), "layout", "")
			if err != nil {
				t.Error(err)
				return
			}
			config.MaxBatchSize = batch
			config.GetDynamicBatching().PreferredBatchSize = nil // filled in by the server, for the old size
			config.ModelWarmup = config.GetModelWarmup()[:1]
			override, err := protojson.Marshal(config)
			if err == nil {
				err = client.LoadModel(t.Context(), "layout", override)
			}
			if err != nil {
				t.Error(err)
				return
			}
			tick := time.NewTicker(10 * time.Millisecond)
			for d.Settings().Batch != int(batch) {
				select {
				case <-tick.C:
				case <-over:
					t.Errorf("the run ended before batch %d was noticed", batch)
					return
				}
			}
			tick.Stop()
		}
	})
	s, err := runWith(t, t.Context(), d, m, odd.MakeMany(t, 110), t.TempDir(), &progress)
	close(over)
	reloads.Wait()
	if err != nil || s.Pages != (orchestrator.Counts{Done: 110}) || s.Documents != (orchestrator.Counts{Done: 110}) {
		t.Errorf("%+v, %v", s, err)
	}
}
