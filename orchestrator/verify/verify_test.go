package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"quire/orchestrator"
	"quire/tritonclient"
)

// fake is a model whose pages carry a number in their first byte, and which
// answers with two regions that belong to that number. Its faults are what
// servers do.
type fake struct {
	in     orchestrator.Input
	shared bool // Raw says so

	// change may spoil the answer for the page at place of a batch of n.
	change func(number, place, n int, regions []orchestrator.Region) []orchestrator.Region
	// raw may spoil the bytes of the call'th request.
	raw  func(call int, shared bool, bytes []byte)
	fail error
	// request, if set, is asked before each request whether it fails.
	request func() error

	mu    sync.Mutex
	calls int
	sizes []int
}

const side = 4 // of a page, in pixels

func newFake() *fake {
	return &fake{in: orchestrator.Input{Width: side, Height: side, MaxBatch: 8, Instances: 1}}
}

func (f *fake) Info() orchestrator.ModelInfo {
	return orchestrator.ModelInfo{Name: "fake", Version: "1"}
}
func (f *fake) Input() orchestrator.Input                     { return f.in }
func (f *fake) WaitReady(context.Context) error               { return nil }
func (f *fake) Refresh(context.Context) error                 { return nil }
func (f *fake) Release(*orchestrator.Slab)                    {}
func (f *fake) page(s *orchestrator.Slab, i int) (number int) { return int(s.Page(i)[0]) }
func (f *fake) regions(number int) (regions []orchestrator.Region) {
	x := float64(number) / 100
	return []orchestrator.Region{
		{ID: 0, Label: "text", LabelRaw: "text", Score: 0.9, BBox: [4]float64{x, 0, x + 1, 2}},
		{ID: 1, Label: "table", LabelRaw: "table", Score: 0.505, BBox: [4]float64{x, 3, x + 2, 4}},
	}
}

func (f *fake) Infer(_ context.Context, s *orchestrator.Slab, first int, frames []orchestrator.Frame) ([]orchestrator.Verdict, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	if f.request != nil {
		if err := f.request(); err != nil {
			return nil, err
		}
	}
	f.sizes = append(f.sizes, len(frames))
	verdicts := make([]orchestrator.Verdict, len(frames))
	for i, frame := range frames {
		if frame != (orchestrator.Frame{Width: side, Height: side}) {
			return nil, fmt.Errorf("frame %v", frame)
		}
		verdicts[i].Regions = f.regions(f.page(s, first+i))
		if f.change != nil {
			verdicts[i].Regions = f.change(f.page(s, first+i), i, len(frames), verdicts[i].Regions)
		}
		if verdicts[i].Regions == nil {
			verdicts[i].Err = &orchestrator.PageError{Category: orchestrator.CategoryBadOutput}
		}
	}
	return verdicts, nil
}

func (f *fake) Raw(_ context.Context, s *orchestrator.Slab, first, n int) ([]byte, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.request != nil {
		if err := f.request(); err != nil {
			return nil, f.shared, err
		}
	}
	raw := bytes.Clone(s.Bytes[first*s.PageBytes : (first+n)*s.PageBytes])
	if f.raw != nil {
		f.raw(f.calls, f.shared, raw)
	}
	f.calls++
	return raw, f.shared, f.fail
}

// pages are n pages of two documents, 8 points wide.
func pages(n int) (all []Page) {
	for i := range n {
		pixels := make([]byte, side*side*3)
		pixels[0] = byte(i + 1)
		all = append(all, Page{
			Ref:      orchestrator.PageRef{Path: []string{"a.pdf", "b.pdf"}[i%2], Page: i/2 + 1},
			Geometry: orchestrator.Geometry{WidthPt: 2 * side, HeightPt: 4 * side}, Pixels: pixels,
		})
	}
	return all
}

func config(model *fake) Config {
	return Config{Model: model, InBand: model, Batch: 4, Threshold: 0.5, Tolerance: DefaultTolerance, NoSharedMemory: "none here"}
}

func mustRun(t *testing.T, all []Page, cfg Config) *Report {
	t.Helper()
	report, err := Run(t.Context(), all, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestSameAnswers(t *testing.T) {
	model := newFake()
	var done, total int
	cfg := config(model)
	cfg.Progress = func(d, of int) { done, total = d, of }
	r := mustRun(t, pages(6), cfg)
	if !r.Within || r.Pages != 6 || r.Documents != 2 || len(r.Batches) != 4 {
		t.Fatalf("%+v", r)
	}
	for _, c := range r.Batches {
		if !c.Identical || !c.Within || c.Pages != 6 || c.Regions != 12 || c.Worst != "" {
			t.Errorf("%+v", c)
		}
	}
	if done != total || total != 6*5 {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	if r.Transport.Compared != 0 || r.Transport.Reason != "none here" {
		t.Errorf("%+v", r.Transport)
	}
	// 6 pages alone, three times 4 and 2, and 6 at once.
	if want := []int{1, 1, 1, 1, 1, 1, 4, 2, 4, 2, 4, 2, 1, 1, 1, 1, 1, 1}; !slices.Equal(model.sizes, want) {
		t.Errorf("asked for %v, want %v", model.sizes, want)
	}
}

func TestBatchOfOne(t *testing.T) {
	cfg := config(newFake())
	cfg.Batch = 1
	var done, total int
	cfg.Progress = func(d, of int) { done, total = d, of }
	if r := mustRun(t, pages(2), cfg); r.Within || !r.Nothing() || len(r.Batches) != 0 || r.Regions != 4 || done != 2 || total != 2 {
		t.Errorf("nothing was compared: %+v, progress ended at %d of %d", r, done, total)
	}
	for _, r := range []Report{{Batches: make([]Comparison, 1)}, {Reference: &Comparison{}}, {Transport: Transport{Compared: 1, Requests: 1}}} {
		if r.Nothing() {
			t.Errorf("something was compared: %+v", r)
		}
	}
}

// TestFewerPagesThanABatch: what is called a batch of 8 is one, and a server that
// spoils only full batches is caught with 3 pages.
func TestFewerPagesThanABatch(t *testing.T) {
	model := newFake()
	cfg := config(model)
	cfg.Batch = 8
	var done, total int
	cfg.Progress = func(d, of int) { done, total = d, of }
	r := mustRun(t, pages(3), cfg)
	if want := []int{1, 1, 1, 8, 8, 8, 1, 1, 1, 1, 1, 1, 1, 1}; !slices.Equal(model.sizes, want) {
		t.Errorf("asked for %v, want %v", model.sizes, want)
	}
	if !r.Within || r.Pages != 3 || r.Regions != 6 || done != total {
		t.Errorf("%+v, %d of %d", r, done, total)
	}
	for _, c := range r.Batches {
		if !c.Identical || c.Pages != 8 || c.Regions != 16 {
			t.Errorf("%+v", c)
		}
	}
	model.change = func(_, place, n int, r []orchestrator.Region) []orchestrator.Region {
		if n == 8 && place == 7 {
			r[0].BBox[3] -= 0.625
		}
		return r
	}
	if r := mustRun(t, pages(3), cfg); r.Within || r.Batches[0].Within || r.Batches[0].ShiftPixels != 0.625 || r.Batches[0].Worst == "" || !r.Batches[3].Within {
		t.Errorf("%+v", r.Batches)
	}
}

// What a server may do to the pages of a batch, and what is said of it.
func TestAnswersThatDependOnTheBatch(t *testing.T) {
	type change = func(number, place, n int, r []orchestrator.Region) []orchestrator.Region
	inBatches := func(do func(r []orchestrator.Region) []orchestrator.Region) change {
		return func(_, _, n int, r []orchestrator.Region) []orchestrator.Region {
			if n == 1 {
				return r
			}
			return do(r)
		}
	}
	for _, test := range []struct {
		name   string
		change change
		within bool
		holds  func(c Comparison) bool
	}{
		{"boxes move", inBatches(func(r []orchestrator.Region) []orchestrator.Region {
			r[0].BBox[3] -= 0.625
			return r
		}), false, func(c Comparison) bool {
			return c.ShiftPixels == 0.625 && c.ShiftPoints == 4*0.625 && c.ScoreDrift == 0
		}},
		{"boxes move a little", inBatches(func(r []orchestrator.Region) []orchestrator.Region {
			r[0].BBox[0] += 0.25
			return r
		}), true, func(c Comparison) bool { return c.ShiftPixels == 0.25 && c.ShiftPoints == 2*0.25 && !c.Identical }},
		{"scores drift", inBatches(func(r []orchestrator.Region) []orchestrator.Region {
			r[0].Score -= 0.125
			return r
		}), false, func(c Comparison) bool { return c.ScoreDrift == 0.125 && c.ShiftPixels == 0 }},
		{"labels flip", inBatches(func(r []orchestrator.Region) []orchestrator.Region {
			r[0].LabelRaw = "title"
			return r
		}), false, func(c Comparison) bool { return c.LabelFlips == 6 && c.Lost == 0 && c.New == 0 }},
		{"a region goes", inBatches(func(r []orchestrator.Region) []orchestrator.Region { return r[1:] }), false,
			func(c Comparison) bool { return c.Lost == 6 && c.New == 0 && c.Borderline == 0 }},
		{"a borderline region goes", inBatches(func(r []orchestrator.Region) []orchestrator.Region { return r[:1] }), true,
			func(c Comparison) bool { return c.Lost == 6 && c.Borderline == 6 && !c.Identical }},
		{"a region comes", inBatches(func(r []orchestrator.Region) []orchestrator.Region {
			return append(r, orchestrator.Region{LabelRaw: "text", Score: 0.8, BBox: [4]float64{3, 0, 4, 1}})
		}), false, func(c Comparison) bool { return c.New == 6 && c.Lost == 0 }},
		{"pages fail", inBatches(func([]orchestrator.Region) []orchestrator.Region { return nil }), false,
			func(c Comparison) bool { return c.Failed == 6 && !c.Identical }},
		{"the last page of a batch leaks into the others", func(_, place, n int, r []orchestrator.Region) []orchestrator.Region {
			if place == 1 {
				r[0].BBox[2] += 0.625
			}
			return r
		}, false, func(c Comparison) bool { return c.ShiftPixels == 0.625 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			model := newFake()
			model.change = test.change
			r := mustRun(t, pages(6), config(model))
			for _, c := range r.Batches[:3] {
				if c.Within != test.within || !test.holds(c) || c.Worst == "" {
					t.Errorf("%+v", c)
				}
			}
			// Pages that come at once are alone for this model, which does
			// not merge.
			if c := r.Batches[3]; !c.Identical || r.Within != test.within {
				t.Errorf("%+v, within %v", c, r.Within)
			}
		})
	}
}

// A server that gives pages of a batch each other's answers is caught, also when
// it does so only when they stand elsewhere.
func TestMixedUp(t *testing.T) {
	model := newFake()
	model.change = func(number, place, n int, r []orchestrator.Region) []orchestrator.Region {
		if n == 4 && number != place+1 && number != place+5 {
			return model.regions(number + 70)
		}
		return r
	}
	r := mustRun(t, pages(8), config(model))
	if !r.Batches[0].Identical || r.Batches[1].Within || r.Batches[2].Within || r.Within {
		t.Errorf("%+v", r.Batches)
	}
}

// One page among many is enough, wherever it stands, and the one that is named is
// the one that is farthest off.
func TestOnePageDiffers(t *testing.T) {
	for odd := 1; odd <= 3; odd++ {
		model := newFake()
		model.change = func(number, _, n int, r []orchestrator.Region) []orchestrator.Region {
			switch {
			case n > 1 && number == odd:
				r[0].BBox[3] -= 0.625
			case n > 1 && number == 4:
				r[0].BBox[3] -= 0.125
			}
			return r
		}
		want := pages(8)[odd-1].Ref.String()
		for _, c := range mustRun(t, pages(8), config(model)).Batches[:3] {
			if c.Identical || c.Within || c.ShiftPixels != 0.625 || c.Worst != want {
				t.Errorf("page %d: %+v; want %s as the worst", odd, c, want)
			}
		}
	}
}

// A page that has no answer alone has none to compare with, whatever a batch says.
func TestPageFailsAlone(t *testing.T) {
	model := newFake()
	model.change = func(number, _, n int, r []orchestrator.Region) []orchestrator.Region {
		if n == 1 && number == 2 {
			return nil
		}
		return r
	}
	r := mustRun(t, pages(4), config(model))
	for _, c := range r.Batches {
		if c.Failed != 1 || c.Identical || c.Within || c.Regions != 6 || c.Lost+c.New != 0 || c.Worst != pages(4)[1].Ref.String() {
			t.Errorf("%+v", c)
		}
	}
	if r.Within || r.Regions != 6 {
		t.Errorf("%+v", r)
	}
}

func TestToleranceIsTheCallers(t *testing.T) {
	model := newFake()
	model.change = func(_, _, n int, r []orchestrator.Region) []orchestrator.Region {
		r[0].BBox[0] += float64(n-1) / 10
		return r
	}
	cfg := config(model)
	cfg.Tolerance.Pixels = 0.25
	if r := mustRun(t, pages(4), cfg); r.Within {
		t.Errorf("%+v", r.Batches)
	}
	cfg.Tolerance.Pixels = 0.3125
	if r := mustRun(t, pages(4), cfg); !r.Within || r.Batches[0].Identical {
		t.Errorf("%+v", r.Batches)
	}
}

func TestTransports(t *testing.T) {
	run := func(shared, inBand func(call int, shared bool, bytes []byte), takes bool) *Report {
		model, message := newFake(), newFake()
		model.in.SharedMemory, model.shared = true, takes
		model.raw, message.raw = shared, inBand
		cfg := config(model)
		cfg.InBand, cfg.SharedMemoryPrefix = message, fmt.Sprintf("quire-test-%s-", t.Name())
		return mustRun(t, pages(9), cfg)
	}
	if r := run(nil, nil, true); !r.Within || r.Transport != (Transport{Compared: 8, Requests: 2}) {
		t.Errorf("the same: %+v", r.Transport)
	}
	spoil := func(call int, _ bool, b []byte) { b[0] ^= byte(call % 2) }
	if r := run(spoil, nil, true); r.Within || r.Transport != (Transport{Compared: 8, Requests: 2, Different: 1}) {
		t.Errorf("one different: %+v", r.Transport)
	}
	if r := run(nil, spoil, true); !r.Within || r.Transport != (Transport{Compared: 8, Requests: 2, Unsteady: 2}) {
		t.Errorf("unsteady: %+v", r.Transport)
	}
	if r := run(spoil, nil, false); !r.Within || r.Transport.Compared != 0 || r.Transport.Reason == "" {
		t.Errorf("not shared: %+v", r.Transport)
	}
}

func TestMerged(t *testing.T) {
	cfg := config(newFake())
	reads := 0
	cfg.Statistics = func(context.Context) (tritonclient.ModelStatistics, error) {
		reads++
		count := tritonclient.Total{Count: uint64(90 + 7*reads)} // others were there before
		return tritonclient.ModelStatistics{Batches: []tritonclient.BatchStatistics{{Size: 3, ComputeInfer: count}}}, nil
	}
	if r := mustRun(t, pages(4), cfg); !slices.Equal(r.Merged, []Executions{{Batch: 3, Count: 7}}) {
		t.Errorf("%+v", r.Merged)
	}
	cfg.Statistics = func(context.Context) (tritonclient.ModelStatistics, error) {
		return tritonclient.ModelStatistics{}, errors.New("restricted")
	}
	if r := mustRun(t, pages(4), cfg); r.Merged != nil || !r.Within {
		t.Errorf("%+v", r)
	}
}

func TestReference(t *testing.T) {
	model := newFake()
	in := model.in
	reference := &Reference{Schema: ReferenceSchema, Source: "abc", Width: side, Height: side, ScoreThreshold: 0.5, IoU: 0.5}
	for _, p := range pages(3) {
		page := ReferencePage{Path: p.Ref.Path, Page: p.Ref.Page}
		for _, r := range model.regions(int(p.Pixels[0])) {
			page.Regions = append(page.Regions, ReferenceRegion{Label: r.LabelRaw, Score: r.Score, Box: r.BBox})
		}
		reference.Pages = append(reference.Pages, page)
	}
	if why := reference.Unfit("abc", in, 0.5); why != "" {
		t.Error(why)
	}
	for _, why := range []string{
		reference.Unfit("", in, 0.5), reference.Unfit("abd", in, 0.5), reference.Unfit("abc", in, 0.6),
		reference.Unfit("abc", orchestrator.Input{Width: side, Height: side + 1}, 0.5),
	} {
		if why == "" {
			t.Error("an answer for another model counts")
		}
	}
	cfg := config(model)
	cfg.Reference, cfg.Samples = reference, pages(5)
	if r := mustRun(t, pages(1), cfg); !r.Within || r.Reference == nil || r.Reference.Pages != 3 || r.Reference.Name != "batches of 3" || r.Reference.Regions != 6 || r.Reference.Lost+r.Reference.New != 0 {
		t.Errorf("%+v", r.Reference)
	}
	// What a higher threshold of the server's leaves out is not missing.
	cfg.Threshold = 0.6
	model.change = func(_, _, _ int, r []orchestrator.Region) []orchestrator.Region { return r[:1] }
	if r := mustRun(t, pages(1), cfg); !r.Within || r.Reference.Regions != 3 || r.Reference.Lost != 0 {
		t.Errorf("%+v", r.Reference)
	}
	// Nor is new what a lower one lets in.
	cfg.Threshold = 0.1
	model.change = func(_, _, _ int, r []orchestrator.Region) []orchestrator.Region {
		return append(r, orchestrator.Region{LabelRaw: "text", Score: 0.4, BBox: [4]float64{3, 0, 4, 1}})
	}
	if r := mustRun(t, pages(1), cfg); !r.Within || r.Reference.New != 0 {
		t.Errorf("%+v", r.Reference)
	}
	model.change = func(_, _, _ int, r []orchestrator.Region) []orchestrator.Region { return r[:1] }
	cfg.Threshold, cfg.Tolerance.Score = 0.5, 0.001
	if r := mustRun(t, pages(1), cfg); r.Within || r.Reference.Lost != 3 || !r.Batches[0].Identical {
		t.Errorf("%+v", r.Reference)
	}
	if _, err := ReadReference([]byte(`{"schema":"other"}`)); err == nil || !strings.Contains(err.Error(), ReferenceSchema) {
		t.Error(err)
	}
}

func TestRunFails(t *testing.T) {
	model := newFake()
	cfg := config(model)
	if _, err := Run(t.Context(), nil, cfg); err == nil {
		t.Error("no pages were verified")
	}
	cfg.Batch = 9
	if _, err := Run(t.Context(), pages(1), cfg); err == nil || !strings.Contains(err.Error(), "1 to 8") {
		t.Errorf("got %v", err)
	}
	cfg.Batch = 4
	model.fail = &orchestrator.ModelError{Action: orchestrator.ActionWait, Message: "away"}
	if _, err := Run(t.Context(), pages(1), cfg); !errors.Is(err, model.fail) {
		t.Errorf("got %v", err)
	}
	model.fail = nil
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(orchestrator.ErrInterrupted)
	if _, err := Run(ctx, pages(1), cfg); !errors.Is(err, orchestrator.ErrInterrupted) {
		t.Errorf("got %v", err)
	}
}

// A request that is not answered ends it, whichever of all it is: that answers are
// missing does not say that they differ.
func TestEachRequestCounts(t *testing.T) {
	lost := &orchestrator.ModelError{Action: orchestrator.ActionWait, Message: "away"}
	prefix := fmt.Sprintf("quire-test-%d-%s-", os.Getpid(), t.Name())
	run := func(at int) (requests int, r *Report, err error) {
		model, message := newFake(), newFake()
		model.in.SharedMemory, model.shared = true, true
		var mu sync.Mutex
		count := func() error {
			mu.Lock()
			defer mu.Unlock()
			if requests++; requests == at {
				return lost
			}
			return nil
		}
		model.request, message.request = count, count
		cfg := config(model)
		cfg.InBand, cfg.SharedMemoryPrefix, cfg.Samples = message, prefix, pages(2)
		cfg.Reference = &Reference{Pages: []ReferencePage{{Path: "a.pdf", Page: 1}, {Path: "b.pdf", Page: 1}}}
		cfg.Statistics = func(context.Context) (tritonclient.ModelStatistics, error) {
			return tritonclient.ModelStatistics{}, nil
		}
		done, total := 0, 0
		cfg.Progress = func(d, of int) { done, total = d, of }
		r, err = Run(t.Context(), pages(4), cfg)
		if err == nil && done != total {
			t.Errorf("progress ended at %d of %d", done, total)
		}
		return requests, r, err
	}
	all, _, err := run(0)
	// 4 pages alone, 3 batches, 4 at once, a batch three ways, the samples.
	if err != nil || all != 4+3+4+3+1 {
		t.Fatalf("%d requests, %v", all, err)
	}
	for at := 1; at <= all; at++ {
		if _, r, err := run(at); !errors.Is(err, lost) || r != nil {
			t.Errorf("request %d failed: %+v, %v", at, r, err)
		}
	}
	if left, _ := filepath.Glob("/dev/shm/" + prefix + "*"); len(left) != 0 {
		t.Errorf("left in shared memory: %v", left)
	}
}

func TestMatch(t *testing.T) {
	region := func(label string, x float64) orchestrator.Region {
		return orchestrator.Region{LabelRaw: label, BBox: [4]float64{x, 0, x + 10, 10}}
	}
	// Two regions at one place keep their labels, whatever overlaps more.
	pairs, lost, added := match(
		[]orchestrator.Region{region("text", 0), region("title", 1)},
		[]orchestrator.Region{region("title", 0), region("text", 1), region("text", 50)},
	)
	if len(pairs) != 2 || len(lost) != 0 || len(added) != 1 || pairs[0].right.LabelRaw != pairs[0].got.LabelRaw || pairs[1].right.LabelRaw != pairs[1].got.LabelRaw {
		t.Errorf("%+v, lost %v, new %v", pairs, lost, added)
	}
	// Of several, the best overlap.
	pairs, _, added = match([]orchestrator.Region{region("text", 0)}, []orchestrator.Region{region("text", 2), region("text", 1)})
	if len(pairs) != 1 || pairs[0].got.BBox[0] != 1 || len(added) != 1 {
		t.Errorf("%+v, new %v", pairs, added)
	}
	for _, got := range [][]orchestrator.Region{{region("title", 0), region("text", 2), region("text", 1)}, {region("text", 1), region("text", 2), region("title", 0)}} {
		pairs, _, added = match([]orchestrator.Region{region("text", 0)}, got)
		if len(pairs) != 1 || pairs[0].got.LabelRaw != "text" || pairs[0].got.BBox[0] != 1 || len(added) != 2 {
			t.Errorf("%+v, new %v", pairs, added)
		}
	}
	// What hardly overlaps is not the same, even if nothing else is there.
	pairs, lost, added = match([]orchestrator.Region{region("text", 0)}, []orchestrator.Region{region("text", 6)})
	if len(pairs) != 0 || len(lost) != 1 || len(added) != 1 {
		t.Errorf("%+v, lost %v, new %v", pairs, lost, added)
	}
	// One region has one partner.
	pairs, lost, added = match([]orchestrator.Region{region("text", 0), region("text", 1)}, []orchestrator.Region{region("text", 1)})
	if len(pairs) != 1 || pairs[0].right.BBox[0] != 1 || len(lost) != 1 || lost[0].BBox[0] != 0 || len(added) != 0 {
		t.Errorf("%+v, lost %v, new %v", pairs, lost, added)
	}
}

func TestOverlap(t *testing.T) {
	a := [4]float64{0, 0, 10, 10}
	for _, test := range []struct {
		b    [4]float64
		want float64
	}{
		{a, 1},
		{[4]float64{0, 5, 10, 15}, 1.0 / 3},
		{[4]float64{5, 0, 15, 10}, 1.0 / 3},
		{[4]float64{2, 2, 7, 7}, 0.25},
		{[4]float64{10, 0, 20, 10}, 0},  // side by side
		{[4]float64{0, 30, 10, 40}, 0},  // below
		{[4]float64{20, 30, 40, 50}, 0}, // below and beside: both gaps are negative
		{[4]float64{-20, 30, -10, 40}, 0},
	} {
		if got, back := overlap(a, test.b), overlap(test.b, a); math.Abs(got-test.want) > 1e-12 || got != back {
			t.Errorf("%v: %v and %v, want %v", test.b, got, back, test.want)
		}
	}
}
