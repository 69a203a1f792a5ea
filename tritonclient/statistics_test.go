package tritonclient_test

import (
	"reflect"
	"testing"
	"time"

	"quire/tritonclient"
	"quire/tritonclient/tritontest"
)

func total(count uint64, ms int) tritonclient.Total {
	return tritonclient.Total{Count: count, Time: time.Duration(ms) * time.Millisecond}
}

func TestStatisticsSince(t *testing.T) {
	batch := func(size, count uint64, ms int) tritonclient.BatchStatistics {
		return tritonclient.BatchStatistics{Size: size, ComputeInput: total(count, 1), ComputeInfer: total(count, ms), ComputeOutput: total(count, 1)}
	}
	last := time.UnixMilli(1_700_000_000_000)
	before := tritonclient.ModelStatistics{
		Model: "layout", Version: "1", Inferences: 10, Executions: 4,
		Success: total(5, 100), Fail: total(1, 3), Queue: total(5, 10), ComputeInput: total(5, 1), ComputeInfer: total(5, 80), ComputeOutput: total(5, 1),
		Batches: []tritonclient.BatchStatistics{batch(1, 2, 20), batch(4, 2, 60)},
	}
	now := tritonclient.ModelStatistics{
		Model: "layout", Version: "1", Inferences: 22, Executions: 7, LastInference: last,
		Success: total(8, 190), Fail: total(1, 3), Queue: total(8, 15), ComputeInput: total(8, 2), ComputeInfer: total(8, 170), ComputeOutput: total(8, 2),
		Batches: []tritonclient.BatchStatistics{batch(1, 2, 20), batch(3, 1, 24), batch(4, 4, 126)},
	}
	want := tritonclient.ModelStatistics{
		Model: "layout", Version: "1", Inferences: 12, Executions: 3, LastInference: last,
		Success: total(3, 90), Queue: total(3, 5), ComputeInput: total(3, 1), ComputeInfer: total(3, 90), ComputeOutput: total(3, 1),
		Batches: []tritonclient.BatchStatistics{
			batch(3, 1, 24),
			{Size: 4, ComputeInput: total(2, 0), ComputeInfer: total(2, 66), ComputeOutput: total(2, 0)},
		},
	}
	got, ok := now.Since(before)
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, got\n%+v, want\n%+v", ok, got, want)
	}
	if mean := got.ComputeInfer.Mean(); mean != 30*time.Millisecond {
		t.Errorf("mean %v", mean)
	}
	if mean := got.Fail.Mean(); mean != 0 {
		t.Errorf("mean of nothing %v", mean)
	}

	for name, change := range map[string]func(*tritonclient.ModelStatistics){
		"another version":    func(s *tritonclient.ModelStatistics) { s.Version = "2" },
		"fewer inferences":   func(s *tritonclient.ModelStatistics) { s.Inferences = 9 },
		"fewer failures":     func(s *tritonclient.ModelStatistics) { s.Fail.Count = 0 },
		"less time in queue": func(s *tritonclient.ModelStatistics) { s.Queue.Time = 0 },
		"a size is gone":     func(s *tritonclient.ModelStatistics) { s.Batches = s.Batches[1:] },
		"fewer of a size": func(s *tritonclient.ModelStatistics) {
			s.Batches = []tritonclient.BatchStatistics{batch(1, 1, 1), batch(4, 4, 126)}
		},
	} {
		reset := now
		change(&reset)
		if delta, ok := reset.Since(before); ok || !reflect.DeepEqual(delta, tritonclient.ModelStatistics{}) {
			t.Errorf("%s: %+v, %v", name, delta, ok)
		}
	}
}

func TestStatisticsOfAReloadedModel(t *testing.T) {
	s, c := start(t, tritontest.Config{}, tritonclient.Config{})
	ctx := t.Context()
	infer := func(n int) {
		t.Helper()
		if _, err := c.Infer(ctx, request(n)); err != nil {
			t.Fatal(err)
		}
	}
	infer(8)
	before, err := c.Statistics(ctx, "layout", "1")
	if err != nil || before.LastInference.IsZero() {
		t.Fatalf("%+v, %v", before, err)
	}
	s.SetModel(tritontest.Layout(height, width, 8))
	infer(1)
	now, err := c.Statistics(ctx, "layout", "")
	if err != nil || now.Inferences != 1 {
		t.Fatalf("%+v, %v", now, err)
	}
	if delta, ok := now.Since(before); ok {
		t.Errorf("a reload was not noticed: %+v", delta)
	}
	_, err = c.Statistics(ctx, "", "")
	wantKind(t, err, tritonclient.InvalidArgument)
}
