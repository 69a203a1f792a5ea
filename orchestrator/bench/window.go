package bench

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/measure"
	"quire/tritonclient"
)

// reading is what is read before and after a window.
type reading struct {
	when    time.Time
	cpu     measure.CPU
	machine measure.Machine
	mupdf   time.Duration
}

func (b *bench) read() (r reading, err error) {
	if r.cpu, err = measure.ReadCPU(b.cfg.server()); err != nil {
		return r, err
	}
	if !b.limited() {
		if r.machine, err = measure.ReadMachine(); err != nil {
			return r, err
		}
	}
	r.mupdf, r.when = b.cfg.MuPDF(), time.Now()
	return r, nil
}

// limited tells that this program may use fewer cores than it runs on. What
// others do on these is then no disturbance.
func (b *bench) limited() bool { return b.cores < runtime.NumCPU() }

func (r reading) sub(before reading) span {
	return span{r.when.Sub(before.when), r.cpu.Sub(before.cpu), r.machine.Sub(before.machine), r.mupdf - before.mupdf}
}

// span is what happened between two readings.
type span struct {
	elapsed time.Duration
	cpu     measure.CPU
	machine measure.Machine
	mupdf   time.Duration
}

func (s *span) add(t span) {
	s.elapsed += t.elapsed
	s.cpu = s.cpu.Add(t.cpu)
	s.machine = s.machine.Add(t.machine)
	s.mupdf += t.mupdf
}

// others is how many cores programs that are not quire's kept busy.
func (s span) others() float64 {
	return max(0, (s.machine.Busy-s.cpu.Total()).Seconds()/s.elapsed.Seconds())
}

func (s span) stolen() float64 { return s.machine.Stolen.Seconds() / s.elapsed.Seconds() }

// window makes a Window of a span; cpu is the part of it that the window is
// about, elapsed what its pages took.
func (s span) window(pages, failed int, elapsed, cpu time.Duration) Window {
	return Window{
		Pages: pages, Failed: failed, Seconds: elapsed.Seconds(), PagesPerSecond: float64(pages) / elapsed.Seconds(),
		CPU: perPage(cpu.Seconds(), pages), Others: s.others(), Stolen: s.stolen(),
	}
}

func (b *bench) renderWindow(ctx context.Context) (Window, error) {
	before, err := b.read()
	if err != nil {
		return Window{}, err
	}
	drawn, err := b.rendering.Draw(ctx, b.set, b.renderTimes, nil)
	if err != nil {
		return Window{}, err
	}
	after, err := b.read()
	s := after.sub(before)
	return s.window(drawn.Pages, drawn.Failed, drawn.Elapsed, s.cpu.Render), err
}

func (b *bench) serverWindow(ctx context.Context) (Window, error) {
	before, err := b.read()
	if err != nil {
		return Window{}, err
	}
	answered, err := b.ask(ctx, b.cfg.MinTime)
	if err != nil {
		return Window{}, err
	}
	after, err := b.read()
	s := after.sub(before)
	w := s.window(answered.Pages, answered.Failed, answered.Elapsed, s.cpu.Server+s.cpu.Model)
	l := latency(answered.Latencies)
	w.RequestMS = &l
	return w, err
}

// ask loads the server alone.
func (b *bench) ask(ctx context.Context, window time.Duration) (measure.Answered, error) {
	a, err := b.serving.Ask(ctx, window)
	b.ledger.pages += a.Pages
	return a, err
}

func (b *bench) wholeWindow(ctx context.Context) (Window, error) {
	countedBefore, ok := b.counted(ctx)
	before, err := b.read()
	if err != nil {
		return Window{}, err
	}
	stop := measure.Watch(b.detector)
	summary, err := b.run(ctx, b.wholeTimes)
	flow := stop()
	if err != nil {
		return Window{}, err
	}
	after, err := b.read()
	if err != nil {
		return Window{}, err
	}
	s := after.sub(before)
	pages, failed := int(summary.Pages.Done), int(summary.Pages.Failed)
	b.sum.add(s, flow, pages)
	countedAfter, told := b.counted(ctx)
	executed, went := countedAfter.Since(countedBefore)
	b.sum.count(executed, ok && told && went)
	return s.window(pages, failed, summary.Elapsed, s.cpu.Total()), nil
}

// run sends the set through the detector so many times.
func (b *bench) run(ctx context.Context, times int) (orchestrator.Summary, error) {
	s, err := run(ctx, b.detector, measure.Repeat(b.set, times), b.cfg.Results)
	b.ledger.pages += int(s.Pages.Done)
	return s, err
}

func run(ctx context.Context, d *orchestrator.Detector, source orchestrator.Source, results Results) (orchestrator.Summary, error) {
	sink, finish, err := results()
	if err != nil {
		return orchestrator.Summary{}, err
	}
	summary, err := d.Run(ctx, orchestrator.Job{Source: source, Sink: sink})
	if endErr := finish(ctx, summary, err); err == nil {
		err = endErr
	}
	return summary, err
}

// last takes one more window, of the whole, for what would disturb the others
// or be disturbed by them: the event path, which is probed a thousand times a
// second, and memory, for which the other loads are gone.
func (b *bench) last(ctx context.Context) error {
	b.cfg.Progress("the event path, and memory")
	b.closeLoads()
	debug.FreeOSMemory()
	if err := measure.ResetPeak(b.cfg.server()); err != nil {
		return err
	}
	probe, err := measure.StartProbe(func() { b.detector.Stats() })
	if err != nil {
		return err
	}
	_, err = b.run(ctx, 2*b.wholeTimes)
	b.events = probe.Stop()
	if err != nil {
		return err
	}
	b.memory, err = measure.PeakMemory(b.cfg.server())
	return err
}

// A server counts an execution a moment after it has answered.
const (
	settlePoll = 10 * time.Millisecond
	settleTime = 2 * time.Second
)

// ledger knows what the server has counted, and what it should have.
type ledger struct {
	first tritonclient.ModelStatistics
	pages int // answered since
	known bool
}

// counted is what the server has counted, once that is all that it has answered.
// It is not ok when the server does not tell, or forgot what it had counted.
func (b *bench) counted(ctx context.Context) (now tritonclient.ModelStatistics, ok bool) {
	info := b.cfg.Engine.Model.Info()
	poll := time.NewTicker(settlePoll)
	defer poll.Stop()
	l := &b.ledger
	for start := time.Now(); ; {
		now, err := b.cfg.Client.Statistics(ctx, info.Name, info.Version)
		if err != nil {
			return now, false
		}
		delta, ok := now.Since(l.first)
		if !l.known || !ok {
			*l = ledger{first: now, known: true}
			return now, ok
		}
		if delta.Inferences >= uint64(l.pages) || time.Since(start) > settleTime {
			return now, true
		}
		<-poll.C
	}
}

// sums add the wholes up.
type sums struct {
	span
	pages    int
	flow     measure.Flow
	executed map[uint64]uint64
	compute  time.Duration // of all executions
	unknown  bool          // the server did not tell, at least once
}

func (s *sums) add(t span, flow measure.Flow, pages int) {
	s.span.add(t)
	s.pages += pages
	s.flow = s.flow.Add(flow)
}

func (s *sums) count(delta tritonclient.ModelStatistics, ok bool) {
	if !ok {
		s.unknown = true
		return
	}
	if s.executed == nil {
		s.executed = map[uint64]uint64{}
	}
	for _, batch := range delta.Batches {
		s.executed[batch.Size] += batch.ComputeInfer.Count
		s.compute += batch.ComputeInput.Time + batch.ComputeInfer.Time + batch.ComputeOutput.Time
	}
}

func (s *sums) parts() Parts {
	per := func(d time.Duration) float64 { return perPage(d.Seconds(), s.pages) }
	p := Parts{
		MuPDF: per(s.mupdf), Workers: per(max(0, s.cpu.Render-s.mupdf)), Quire: per(s.cpu.Quire + s.cpu.Other), Guard: per(s.cpu.Guard),
		Server: per(s.cpu.Server), Model: per(s.cpu.Model),
	}
	p.Own = p.Workers + p.Quire + p.Guard
	return p
}

func (s *sums) use(workers, instances int) Use {
	seconds, looks := s.elapsed.Seconds(), float64(max(1, s.flow.Looks))
	u := Use{
		Ours: s.cpu.Total().Seconds() / seconds, Others: s.others(), Stolen: s.stolen(),
		Drawing: s.cpu.Render.Seconds() / seconds / float64(workers), Executing: -1,
		Full: float64(s.flow.Full) / looks, Starved: float64(s.flow.Idle) / looks, Stalled: float64(s.flow.Stalled) / looks,
	}
	if !s.unknown {
		u.Executing = s.compute.Seconds() / seconds / float64(instances)
	}
	return u
}

func (s *sums) batches() Batches {
	b := Batches{Pages: s.pages}
	if s.unknown {
		return b
	}
	b.Executed = []Executed{}
	for size, count := range s.executed {
		b.Executed = append(b.Executed, Executed{Size: int(size), Count: int(count)})
	}
	slices.SortFunc(b.Executed, func(a, b Executed) int { return a.Size - b.Size })
	return b
}

// keeper keeps the first drawn pages for the server to be asked about.
type keeper struct {
	mu    sync.Mutex
	most  int
	pages [][]byte
}

func (k *keeper) add(_ measure.Document, _ int, pixels []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.pages) < k.most {
		k.pages = append(k.pages, slices.Clone(pixels))
	}
}
