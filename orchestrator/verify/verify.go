package verify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"quire/orchestrator"
	"quire/orchestrator/internal/slab"
	"quire/tritonclient"
)

// Model is a served model that can be asked for its outputs as they come.
type Model interface {
	orchestrator.Model
	// Raw runs pages [first, first+n) of the slab through the model in one
	// request, and returns all outputs as they came; shared tells whether the
	// pages went through shared memory.
	Raw(ctx context.Context, s *orchestrator.Slab, first, n int) (raw []byte, shared bool, err error)
}

// Config says what to verify.
type Config struct {
	// Model is the model as a run asks it: through shared memory where it can.
	Model Model
	// InBand is the same model, asked with the pages inside the requests. If
	// Model's Input offers no shared memory it is not used.
	InBand Model
	// NoSharedMemory says why Model does not go through shared memory, if it
	// does not.
	NoSharedMemory string
	// Batch is the batch size that is verified.
	Batch int
	// Threshold is the score that regions exceed.
	Threshold float64
	Tolerance Tolerance
	// SharedMemoryPrefix starts the name of the slab; empty for memory of this
	// process, with a Model that does not share.
	SharedMemoryPrefix string
	// Statistics, if set, reads the server's counters, to tell what it made of
	// requests that came at once.
	Statistics func(ctx context.Context) (tritonclient.ModelStatistics, error)
	// Reference is what the answers for Samples must be; nil for none.
	Reference *Reference
	// Samples are pages of the documents that Reference is about; pages of no
	// interest to it are passed over.
	Samples []Page
	// Progress, if set, is told how many pages were answered and how many will
	// be, from the goroutine that called Run.
	Progress func(done, total int)
}

// Report is what was found.
type Report struct {
	// Pages are compared with what each gets alone, Documents is of how many.
	// Regions were found on them, on each alone.
	Pages     int `json:"pages"`
	Documents int `json:"documents"`
	Regions   int `json:"regions"`
	// Batch is the batch size that was verified.
	Batch     int       `json:"batch"`
	Tolerance Tolerance `json:"tolerance"`
	// Threshold is the score that regions exceed.
	Threshold float64 `json:"score_threshold"`
	// Batches holds the answers of batches against those of each page alone.
	Batches []Comparison `json:"batches"`
	// Merged tells in what batches the server executed the requests of one page
	// that came at once; nil when it does not say.
	Merged []Executions `json:"merged,omitempty"`
	// Reference holds the answers for the samples against the reference
	// pipeline's; nil when there is none.
	Reference *Comparison `json:"reference,omitempty"`
	Transport Transport   `json:"transport"`
	// Within tells that something was compared, and nothing is beyond the
	// tolerance.
	Within bool `json:"within"`
}

// Nothing tells that nothing was compared, or nothing that tells anything: in
// batches of 1, with no reference, all pages going one way.
func (r *Report) Nothing() bool {
	return len(r.Batches) == 0 && r.Reference == nil && r.Transport.Unsteady == r.Transport.Requests
}

// Executions are how often a server ran batches of one size.
type Executions struct {
	Batch uint64 `json:"batch"`
	Count uint64 `json:"count"`
}

// Transport is what came of sending the same pages through shared memory and
// inside the request, and looking at every byte that came back.
type Transport struct {
	// Compared is how many pages went both ways; 0 with the reason in Reason.
	Compared int    `json:"compared"`
	Reason   string `json:"reason,omitempty"`
	// Different is how many requests gave other bytes the other way. Unsteady
	// ones, which already give other bytes the same way, tell nothing.
	Requests  int `json:"requests"`
	Different int `json:"different"`
	Unsteady  int `json:"unsteady"`
}

// mixes is how often the pages are shuffled.
const mixes = 2

// transportBatches is how many batches go both ways, three times over.
const transportBatches = 2

// Run asks the model about the pages in several ways and compares the answers
// with those for each page alone. The error is the model's, an
// [*orchestrator.ModelError], ctx's or one of this machine: that answers differ is
// in the report.
func Run(ctx context.Context, pages []Page, cfg Config) (*Report, error) {
	in := cfg.Model.Input()
	switch {
	case len(pages) == 0:
		return nil, errors.New("verify: no page to verify with")
	case cfg.Batch < 1 || cfg.Batch > in.MaxBatch:
		return nil, fmt.Errorf("verify: a batch of %d, the server takes 1 to %d", cfg.Batch, in.MaxBatch)
	}
	v := &verifier{cfg: cfg, in: in}
	v.compared = comparer{in: in, threshold: cfg.Threshold, tolerance: cfg.Tolerance}
	prefix := cfg.SharedMemoryPrefix
	if !in.SharedMemory {
		prefix = ""
	}
	pool, err := slab.New(slab.Config{Slabs: 1, Pages: cfg.Batch, PageBytes: in.PageBytes(), Prefix: prefix, Release: cfg.Model.Release})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if v.slab, err = pool.Get(); err != nil {
		return nil, err
	}
	defer pool.Put(v.slab)

	samples := sampled(cfg.Reference, cfg.Samples)
	filling := cycled(pages, cfg.Batch)
	v.total = len(pages) + len(samples)
	if cfg.Batch > 1 {
		v.total += (2 + mixes) * len(filling)
	}
	if in.SharedMemory {
		v.total += 3 * min(transportBatches*cfg.Batch, len(pages))
	}

	report := &Report{Pages: len(pages), Documents: documents(pages), Batch: cfg.Batch, Tolerance: cfg.Tolerance, Threshold: cfg.Threshold}
	alone, err := v.ask(ctx, pages, nil, 1)
	if err != nil {
		return nil, err
	}
	for _, a := range alone {
		report.Regions += len(a.regions)
	}
	if cfg.Batch > 1 {
		alone := cycled(alone, cfg.Batch)
		if report.Batches, err = v.batches(ctx, filling, alone); err != nil {
			return nil, err
		}
		merged, err := v.atOnce(ctx, filling, report)
		if err != nil {
			return nil, err
		}
		report.Batches = append(report.Batches, v.compared.compare(fmt.Sprintf("%d requests of 1 page at once", cfg.Batch), filling, alone, merged))
	}
	if report.Transport, err = v.transports(ctx, pages); err != nil {
		return nil, err
	}
	report.Within = true
	if cfg.Reference != nil && len(samples) > 0 {
		if report.Reference, err = v.reference(ctx, samples); err != nil {
			return nil, err
		}
		report.Within = report.Reference.Within
	}
	for _, c := range report.Batches {
		report.Within = report.Within && c.Within
	}
	report.Within = report.Within && report.Transport.Different == 0 && !report.Nothing()
	return report, nil
}

// cycled is a list with its own elements again, from the first on, until it has
// n: where there are fewer pages than a batch has, some come twice, so that what
// is called a batch of n was one.
func cycled[T any](list []T, n int) []T {
	list = slices.Clip(list)
	for i := 0; len(list) < n; i++ {
		list = append(list, list[i])
	}
	return list
}

func documents(pages []Page) int {
	seen := map[string]bool{}
	for _, p := range pages {
		seen[p.Ref.Path] = true
	}
	return len(seen)
}

// verifier is one Run.
type verifier struct {
	cfg         Config
	in          orchestrator.Input
	compared    comparer
	slab        *slab.Slab
	done, total int
}

func (v *verifier) answered(n int) {
	v.done += n
	if v.cfg.Progress != nil {
		v.cfg.Progress(v.done, v.total)
	}
}

// frames are coordinates of the input's own pixels for n pages.
func (v *verifier) frames(n int) []orchestrator.Frame {
	return slices.Repeat([]orchestrator.Frame{{Width: float64(v.in.Width), Height: float64(v.in.Height)}}, n)
}

func answerOf(verdict orchestrator.Verdict) answer {
	return answer{regions: verdict.Regions, failed: verdict.Err != nil}
}

// chunks calls do with pages that are in the slab, at most batch at a time; places
// tells where in pages they are. order is that of the pages; nil for their own.
func (v *verifier) chunks(ctx context.Context, pages []Page, order []int, batch int, do func(places []int) error) error {
	if order == nil {
		for i := range pages {
			order = append(order, i)
		}
	}
	for first := 0; first < len(order); first += batch {
		places := order[first:min(first+batch, len(order))]
		for i, place := range places {
			copy(v.slab.Page(i), pages[place].Pixels)
		}
		if err := do(places); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		v.answered(len(places))
	}
	return nil
}

// ask asks about all pages in batches, one after the other.
func (v *verifier) ask(ctx context.Context, pages []Page, order []int, batch int) ([]answer, error) {
	answers := make([]answer, len(pages))
	err := v.chunks(ctx, pages, order, batch, func(places []int) error {
		verdicts, err := v.cfg.Model.Infer(ctx, v.slab, 0, v.frames(len(places)))
		for i, verdict := range verdicts {
			answers[places[i]] = answerOf(verdict)
		}
		return err
	})
	return answers, err
}

// batches asks in full batches: in order, and then among other pages, at other
// places.
func (v *verifier) batches(ctx context.Context, pages []Page, alone []answer) (all []Comparison, err error) {
	answers, err := v.ask(ctx, pages, nil, v.cfg.Batch)
	if err != nil {
		return nil, err
	}
	all = append(all, v.compared.compare(fmt.Sprintf("batches of %d", v.cfg.Batch), pages, alone, answers))
	random := rand.New(rand.NewPCG(1, 2)) // the same at every call
	for range mixes {
		if answers, err = v.ask(ctx, pages, random.Perm(len(pages)), v.cfg.Batch); err != nil {
			return nil, err
		}
		all = append(all, v.compared.compare(fmt.Sprintf("batches of %d, mixed", v.cfg.Batch), pages, alone, answers))
	}
	return all, nil
}

// atOnce asks about a batch's pages in requests of their own at the same time,
// for the server to make batches of.
func (v *verifier) atOnce(ctx context.Context, pages []Page, report *Report) ([]answer, error) {
	var before tritonclient.ModelStatistics
	known := false
	if v.cfg.Statistics != nil {
		var err error
		before, err = v.cfg.Statistics(ctx)
		known = err == nil
	}
	answers := make([]answer, len(pages))
	err := v.chunks(ctx, pages, nil, v.cfg.Batch, func(places []int) error {
		errs := make([]error, len(places))
		var requests sync.WaitGroup
		for i, place := range places {
			requests.Go(func() {
				verdicts, err := v.cfg.Model.Infer(ctx, v.slab, i, v.frames(1))
				if err == nil {
					answers[place] = answerOf(verdicts[0])
				}
				errs[i] = err
			})
		}
		requests.Wait()
		return cmp.Or(errs...)
	})
	if err != nil || !known {
		return answers, err
	}
	if now, err := v.cfg.Statistics(ctx); err == nil {
		if delta, ok := now.Since(before); ok {
			for _, b := range delta.Batches {
				report.Merged = append(report.Merged, Executions{Batch: b.Size, Count: b.ComputeInfer.Count})
			}
		}
	}
	return answers, nil
}

// transports sends the same pages inside the request, through shared memory, and
// inside the request again, and compares what comes back.
func (v *verifier) transports(ctx context.Context, pages []Page) (t Transport, err error) {
	if !v.in.SharedMemory {
		return Transport{Reason: v.cfg.NoSharedMemory}, nil
	}
	most := min(transportBatches*v.cfg.Batch, len(pages))
	private := &orchestrator.Slab{Bytes: make([]byte, len(v.slab.Bytes)), Pages: v.slab.Pages, PageBytes: v.slab.PageBytes}
	err = v.chunks(ctx, pages[:most], nil, v.cfg.Batch, func(places []int) error {
		n := len(places)
		copy(private.Bytes, v.slab.Bytes)
		inBand, _, err := v.cfg.InBand.Raw(ctx, private, 0, n)
		if err != nil {
			return err
		}
		through, shared, err := v.cfg.Model.Raw(ctx, v.slab, 0, n)
		if err != nil {
			return err
		}
		again, _, err := v.cfg.InBand.Raw(ctx, private, 0, n)
		if err != nil {
			return err
		}
		v.answered(2 * n)
		if !shared {
			t.Reason = "the server stopped taking shared memory"
			return nil
		}
		t.Compared += n
		t.Requests++
		switch {
		case !bytes.Equal(inBand, again):
			t.Unsteady++
		case !bytes.Equal(inBand, through):
			t.Different++
		}
		return nil
	})
	return t, err
}
