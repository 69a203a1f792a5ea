package tritonclient

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"quire/tritonclient/inferencepb"
)

// ModelStatistics are the counters that a server keeps for one version of a
// model since it was loaded. Pages of a batch count as inferences, batches as
// executions.
type ModelStatistics struct {
	Model, Version string
	// Inferences counts the items of successful requests, Executions how often
	// the model ran for them.
	Inferences, Executions uint64
	// LastInference is when the last request came; zero when none has.
	LastInference time.Time
	// Success and Fail are whole requests, from their arrival to their answer.
	Success, Fail Total
	// Queue is the time that requests waited, ComputeInput and ComputeOutput
	// what moving their tensors took, ComputeInfer the model itself. Each
	// request counts with the whole time of the execution that it was part of.
	Queue, ComputeInput, ComputeInfer, ComputeOutput Total
	// Batches tells executions by their size, smallest first.
	Batches []BatchStatistics
}

// BatchStatistics are the executions of one batch size. Count of each Total is
// the number of executions, not of requests.
type BatchStatistics struct {
	Size                                      uint64
	ComputeInput, ComputeInfer, ComputeOutput Total
}

// Total is how often something happened, and how long it took in all.
type Total struct {
	Count uint64
	Time  time.Duration
}

// Mean is the time of one; 0 when there was none.
func (t Total) Mean() time.Duration {
	if t.Count == 0 {
		return 0
	}
	return t.Time / time.Duration(t.Count)
}

// Statistics gives the counters of one version of a model; version "" is the
// newest that is served.
func (c *Client) Statistics(ctx context.Context, model, version string) (ModelStatistics, error) {
	const op = "ModelStatistics"
	if model == "" {
		return ModelStatistics{}, c.badRequest(op, model, "no model given")
	}
	res, err := call(ctx, c, op, model, c.config.CallTimeout, c.stub.ModelStatistics,
		&inferencepb.ModelStatisticsRequest{Name: model, Version: version})
	if err != nil {
		return ModelStatistics{}, err
	}
	all := res.GetModelStats()
	if len(all) == 0 {
		return ModelStatistics{}, c.badResponse(op, model, "it holds no statistics")
	}
	return statisticsOf(slices.MaxFunc(all, func(a, b *inferencepb.ModelStatistics) int {
		return cmp.Compare(versionNumber(a.GetVersion()), versionNumber(b.GetVersion()))
	})), nil
}

// versionNumber is a version for comparing; Triton's are numbers.
func versionNumber(version string) int64 {
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func statisticsOf(m *inferencepb.ModelStatistics) ModelStatistics {
	infer := m.GetInferenceStats()
	s := ModelStatistics{
		Model: m.GetName(), Version: m.GetVersion(),
		Inferences: m.GetInferenceCount(), Executions: m.GetExecutionCount(),
		Success: totalOf(infer.GetSuccess()), Fail: totalOf(infer.GetFail()), Queue: totalOf(infer.GetQueue()),
		ComputeInput: totalOf(infer.GetComputeInput()), ComputeInfer: totalOf(infer.GetComputeInfer()), ComputeOutput: totalOf(infer.GetComputeOutput()),
	}
	if ms := m.GetLastInference(); ms != 0 {
		s.LastInference = time.UnixMilli(int64(ms))
	}
	for _, b := range m.GetBatchStats() {
		s.Batches = append(s.Batches, BatchStatistics{
			Size: b.GetBatchSize(), ComputeInput: totalOf(b.GetComputeInput()),
			ComputeInfer: totalOf(b.GetComputeInfer()), ComputeOutput: totalOf(b.GetComputeOutput()),
		})
	}
	slices.SortFunc(s.Batches, func(a, b BatchStatistics) int { return cmp.Compare(a.Size, b.Size) })
	return s
}

func totalOf(d *inferencepb.StatisticDuration) Total {
	return Total{Count: d.GetCount(), Time: time.Duration(d.GetNs())}
}

// Since is what was counted after before was read. LastInference stays s's, and
// batch sizes that did not occur are left out. It is not ok when the two are of
// different models or versions, or when a counter went back: the model was
// loaded again in between, or the server started, and what came before that is
// lost. A reset that has been overtaken meanwhile is not noticed.
func (s ModelStatistics) Since(before ModelStatistics) (delta ModelStatistics, ok bool) {
	ok = s.Model == before.Model && s.Version == before.Version
	count := func(now, then uint64) uint64 {
		ok = ok && now >= then
		return now - then
	}
	total := func(now, then Total) Total {
		ok = ok && now.Time >= then.Time
		return Total{Count: count(now.Count, then.Count), Time: now.Time - then.Time}
	}
	delta = ModelStatistics{
		Model: s.Model, Version: s.Version, LastInference: s.LastInference,
		Inferences: count(s.Inferences, before.Inferences), Executions: count(s.Executions, before.Executions),
		Success: total(s.Success, before.Success), Fail: total(s.Fail, before.Fail), Queue: total(s.Queue, before.Queue),
		ComputeInput: total(s.ComputeInput, before.ComputeInput), ComputeInfer: total(s.ComputeInfer, before.ComputeInfer),
		ComputeOutput: total(s.ComputeOutput, before.ComputeOutput),
	}
	then := map[uint64]BatchStatistics{}
	for _, b := range before.Batches {
		then[b.Size] = b
	}
	for _, b := range s.Batches {
		old := then[b.Size]
		delete(then, b.Size)
		b.ComputeInput, b.ComputeInfer, b.ComputeOutput = total(b.ComputeInput, old.ComputeInput), total(b.ComputeInfer, old.ComputeInfer), total(b.ComputeOutput, old.ComputeOutput)
		if b.ComputeInfer.Count > 0 {
			delta.Batches = append(delta.Batches, b)
		}
	}
	if len(then) > 0 || !ok { // a batch size that was known is not forgotten
		return ModelStatistics{}, false
	}
	return delta, true
}
