package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"os/exec"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"quire/orchestrator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPercentile(t *testing.T) {
	var l Latencies
	if l.Percentile(50) != 0 || l.Max() != 0 {
		t.Error("of nothing there is something")
	}
	for i := range 200 {
		l = append(l, time.Duration(200-i)*time.Millisecond)
	}
	before := slices.Clone(l)
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0, 1}, {0.1, 1}, {50, 100}, {99, 198}, {99.1, 199}, {99.9, 200}, {100, 200}} {
		if got := l.Percentile(c.q); got != c.want*time.Millisecond {
			t.Errorf("%v %%: %v, want %v ms", c.q, got, c.want)
		}
	}
	if l.Max() != 200*time.Millisecond || !slices.Equal(l, before) {
		t.Error("the order has changed, or the longest is not 200 ms")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(c.values); got != c.want {
			t.Errorf("%v: %v, want %v", c.values, got, c.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("nothing has a median")
	}
}

func TestStable(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		name   string
		values []float64
		spread float64
		stable bool
	}{
		{"nothing", nil, inf, false},
		{"one", []float64{5}, 1, false},
		{"two that agree", []float64{5, 5}, 1, false},
		{"three within 5 %", []float64{100, 105, 101}, 1.05, true},
		{"three beyond it", []float64{100, 106, 101}, 1.06, false},
		{"only the last three count", []float64{1, 100, 50, 50, 50}, 1, true},
		{"good ones before bad ones", []float64{50, 50, 50, 100, 50}, 2, false},
		{"a standstill", []float64{0, 0, 0}, inf, false},
	} {
		if spread, stable := Stable(c.values); spread != c.spread || stable != c.stable {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, spread, stable, c.spread, c.stable)
		}
	}
}

// A child that works and dies has its time counted before and after.
func TestReadCPU(t *testing.T) {
	const work = `i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; read wait`
	before, err := ReadCPU(0)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := ReadMachine()
	if err != nil {
		t.Fatal(err)
	}
	start := func(name string) (*exec.Cmd, func()) {
		sh := &exec.Cmd{Path: "/bin/sh", Args: []string{name, "-c", work}}
		in, err := sh.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := sh.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := sh.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadByte(); err != nil {
			t.Fatal(err)
		}
		return sh, func() {
			in.Close()
			if _, err := sh.Process.Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, endRender := start(renderName)
	server, endServer := start("tritonserver")
	alive, err := ReadCPU(server.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	took := alive.Sub(before)
	if took.Render <= 0 || took.Server <= 0 || took.Quire <= 0 || took.Guard != 0 || took.Model != 0 {
		t.Errorf("%+v", took)
	}
	if m, err := PeakMemory(server.Process.Pid); err != nil || m.Processes != 2 || m.Peak <= 0 || m.Peak != m.Quire+m.Workers+m.Guard || m.Workers <= 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if took.Total() != took.Render+took.Server+took.Quire+took.Other {
		t.Errorf("the sum of %+v is %v", took, took.Total())
	}
	endRender()
	endServer()
	dead, err := ReadCPU(0)
	if err != nil {
		t.Fatal(err)
	}
	if d := dead.Sub(before); d.Render != 0 || d.Server != 0 || d.Other <= 0 {
		t.Errorf("after the end: %+v", d)
	}
	now, err := ReadMachine()
	if err != nil {
		t.Fatal(err)
	}
	if now.Sub(machine).Busy <= 0 {
		t.Errorf("the machine did nothing: %+v", now.Sub(machine))
	}
}

// TestMachineOf: of a machine, what happened on the processors that this program
// may not run on does not count.
func TestMachineOf(t *testing.T) {
	const stat = "cpu  60 6 0 600 0 0 0 6 0 0\ncpu0 10 1 0 100 0 0 0 1 0 0\ncpu2 20 2 3 200 4 5 6 2 0 0\ncpu11 30 3 0 300 0 0 0 3 0 0\nintr 1 2\n"
	for _, c := range []struct {
		mine []int
		want Machine
	}{
		{[]int{0, 1, 2, 11}, Machine{80 * tick, 604 * tick, 6 * tick}},
		{[]int{2}, Machine{36 * tick, 204 * tick, 2 * tick}},
		{[]int{11, 12}, Machine{33 * tick, 300 * tick, 3 * tick}},
	} {
		if got, err := machineOf(stat, func(n int) bool { return slices.Contains(c.mine, n) }); err != nil || got != c.want {
			t.Errorf("%v: %+v, %v, want %+v", c.mine, got, err, c.want)
		}
	}
	if _, err := machineOf("cpu0 many\n", func(int) bool { return true }); err == nil {
		t.Error("nothing was read, and nobody told")
	}
}

// refusing fails every second request, and a page of each of the others.
type refusing struct {
	orchestrator.Model
	asked int
}

func (*refusing) Input() orchestrator.Input {
	return orchestrator.Input{Width: 1, Height: 1, MaxBatch: 8}
}
func (*refusing) Release(*orchestrator.Slab) {}
func (r *refusing) Infer(_ context.Context, _ *orchestrator.Slab, _ int, frames []orchestrator.Frame) ([]orchestrator.Verdict, error) {
	if r.asked++; r.asked%2 == 0 {
		return nil, errors.New("refused")
	}
	verdicts := make([]orchestrator.Verdict, len(frames))
	verdicts[0].Err = &orchestrator.PageError{Category: orchestrator.CategoryBadOutput}
	return verdicts, nil
}

// TestFailedPages: what fails is counted in pages, as what is answered.
func TestFailedPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := new(refusing)
		serving, err := NewServing(ServerConfig{Model: model, Pages: [][]byte{make([]byte, 3)}, Batch: 8, InFlight: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer serving.Close()
		for round, want := range []Answered{{Pages: 7, Requests: 1, Failed: 1}, {Failed: 8}} {
			a, err := serving.Ask(t.Context(), 0)
			if err != nil || a.Pages != want.Pages || a.Requests != want.Requests || a.Failed != want.Failed || a.Err == nil {
				t.Errorf("round %d: %+v, %v, want %+v", round, a, err, want)
			}
		}
	})
}

// The peak is the kernel's, so it holds what is gone again.
func TestPeakMemory(t *testing.T) {
	if err := ResetPeak(0); err != nil {
		t.Fatal(err)
	}
	before, err := PeakMemory(0)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	if err := touch(size); err != nil {
		t.Fatal(err)
	}
	peak, err := PeakMemory(0)
	if err != nil {
		t.Fatal(err)
	}
	if grown := peak.Quire - before.Quire; grown < size*9/10 || peak.Processes != 1 {
		t.Errorf("%d bytes more after %d were touched and given back: %+v", grown, size, peak)
	}
	if err := ResetPeak(0); err != nil {
		t.Fatal(err)
	}
	after, err := PeakMemory(0)
	if err != nil {
		t.Fatal(err)
	}
	if after.Peak >= peak.Peak {
		t.Errorf("a reset left %d of %d bytes", after.Peak, peak.Peak)
	}
}

// touch takes memory, uses it and gives it back to the system.
func touch(size int) error {
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	for i := 0; i < size; i += 4096 {
		m[i] = 1
	}
	return unix.Munmap(m)
}

func TestProbe(t *testing.T) {
	handled := make(chan struct{}, 100)
	p, err := StartProbe(func() { handled <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-handled
	}
	e := p.Stop()
	// The last one may still be on its way to the requester.
	if len(e.Requests) < 2 || len(e.Ticks) == 0 || slices.Min(e.Requests) <= 0 || slices.Min(e.Ticks) < 0 {
		t.Errorf("%+v", e)
	}
}

// listed is a source of documents that exist in name only.
type listed int

func (n listed) Documents(context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		for i := range int(n) {
			if !yield(orchestrator.Document{Path: fmt.Sprintf("%04d.pdf", i)}) {
				return
			}
		}
	}
}

func TestSample(t *testing.T) {
	few, found := Sample(t.Context(), listed(3), 10, 0)
	if len(few) != 3 || found != 3 {
		t.Errorf("%d of %d documents, all 3 were wanted", len(few), found)
	}
	many, found := Sample(t.Context(), listed(1000), 10, 0)
	again, _ := Sample(t.Context(), listed(1000), 10, 0)
	seen := map[string]bool{}
	for i, d := range many {
		seen[d.Path] = true
		if d.Path != again[i].Path {
			t.Errorf("another sample at the second time: %s, %s", d.Path, again[i].Path)
		}
	}
	if len(many) != 10 || len(seen) != 10 || found != 1000 {
		t.Errorf("%d different ones of %d documents", len(seen), found)
	}
	some, found := Sample(t.Context(), listed(1000), 10, 20)
	if len(some) != 10 || found != 20 || slices.ContainsFunc(some, func(d orchestrator.Document) bool { return d.Path >= "0020.pdf" }) {
		t.Errorf("of the first 20: %v of %d", some, found)
	}
}

func TestRepeatNamesDocumentsAnew(t *testing.T) {
	var docs []Document
	for _, name := range []string{"a.pdf", "b.pdf"} {
		d := Document{Pages: 1}
		d.Path, d.Open = name, func() (*os.File, error) { return nil, nil }
		docs = append(docs, d)
	}
	seen := map[string]bool{}
	for d := range Repeat(docs, 3).Documents(t.Context()) {
		if seen[d.Path] || d.Open == nil {
			t.Errorf("%s: twice, or not to be opened", d.Path)
		}
		seen[d.Path] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d documents", len(seen))
	}
}
