package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pastOf is a document of so many pages of which some are done.
func pastOf(pages int, done ...int) Past {
	p := Past{PageCount: pages, Done: len(done)}
	for _, page := range done {
		p.Pages.Add(page)
	}
	return p
}

// Only what is missing is drawn, and the accounts are those of a run that did
// everything.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRenderer{pages: map[string]int{"half.pdf": 40, "whole.pdf": 3, "stands.pdf": 5, "grown.pdf": 4, "new.pdf": 2, "looped.pdf": 6, "again.pdf": 1}}
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 2})
		defer d.Close()
		sink, progress := newFakeSink(t), &Progress{}
		half := pastOf(40, 1, 2, 3, 17, 18, 40)
		half.Done, half.Failed = 5, 1
		sink.past["half.pdf"] = half
		sink.past["whole.pdf"] = pastOf(3, 1, 2, 3)
		sink.past["stands.pdf"] = Past{Result: &DocumentResult{Path: "stands.pdf", Status: StatusPartial, PageCount: 5, Done: 4, Failed: 1}}
		sink.past["unopened.pdf"] = Past{Result: &DocumentResult{Path: "unopened.pdf", Status: StatusFailed, PageCount: -1}}
		sink.past["grown.pdf"] = pastOf(3, 1, 2)
		why := &PageError{Stage: StageOpen, Category: CategoryCrashLoop, Message: "three crashes"}
		looped := pastOf(6, 2)
		looped.SetAside = why
		sink.past["looped.pdf"] = looped
		sink.past["never.pdf"] = Past{SetAside: why}
		sink.past["again.pdf"] = Past{Redone: RedoneModel}
		list := docs{"half.pdf", "whole.pdf", "stands.pdf", "unopened.pdf", "grown.pdf", "new.pdf", "looped.pdf", "never.pdf", "again.pdf"}
		sum, err := d.Run(t.Context(), Job{Source: list, Sink: sink, Progress: progress})
		if err != nil {
			t.Fatal(err)
		}
		checkAccounts(t, sink, sum, progress.Now())
		if sum.Documents != (Counts{Done: 4, Partial: 2, Failed: 1, Skipped: 2}) || sum.Pages != (Counts{Done: 39 + 3 + 4 + 2 + 1 + 1, Failed: 1 + 5, Skipped: 5}) {
			t.Errorf("%+v", sum)
		}
		if sum.Resumed != 6+3+6 || progress.Now().Resumed != sum.Resumed || progress.Now().Opened != int64(len(list)) {
			t.Errorf("%d pages resumed, progress %+v", sum.Resumed, progress.Now())
		}
		if sum.DocumentsBefore != (Counts{Partial: 1, Failed: 1}) || sum.PagesBefore != (Counts{Done: 4, Failed: 1}) {
			t.Errorf("before: %+v %+v", sum.DocumentsBefore, sum.PagesBefore)
		}
		if len(sum.Redone) != 1 || sum.Redone[RedoneModel] != 1 {
			t.Errorf("redone: %v", sum.Redone)
		}
		if n := len(r.drawn); n != 34+4+2+1 {
			t.Errorf("%d pages were drawn", n)
		}
		if r.opens > 4*2 {
			t.Errorf("%d documents were opened", r.opens)
		}
		for page := 1; page <= 6; page++ {
			p, ok := sink.pages[PageRef{"looped.pdf", page}]
			if page == 2 && ok || page != 2 && (p.Err == nil || p.Err.Category != CategoryCrashLoop || p.Err.Ref.Page != page) {
				t.Errorf("page %d of what was set aside: %+v", page, p)
			}
		}
		if e := sink.ends["never.pdf"]; e.Err != why || e.Status != StatusFailed || e.PageCount != -1 {
			t.Errorf("set aside unopened: %+v", e)
		}
		if e := sink.ends["stands.pdf"]; e.Status != StatusSkipped || e.Before == nil || e.Skipped != 5 {
			t.Errorf("what stands ended as %+v", e)
		}
	})
}

// A sink that contradicts itself about what was done ends the run, since the
// document would never end.
func TestPastThatContradictsItself(t *testing.T) {
	long := pastOf(3, 1, 2, 3)
	long.PageCount = 2
	few, many, failed := pastOf(3, 1, 2, 3), pastOf(3, 1), pastOf(3, 1, 2)
	few.Done, many.Done, failed.Failed = 0, 3, -1
	for _, past := range []Past{long, few, many, failed} {
		synctest.Test(t, func(t *testing.T) {
			d := newDetector(t, Config{Model: newFakeModel(), Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 3}}})
			defer d.Close()
			sink := newFakeSink(t)
			sink.past["a.pdf"] = past
			sum, err := d.Run(t.Context(), Job{Source: docs{"a.pdf"}, Sink: sink})
			if err == nil || !strings.Contains(err.Error(), "a.pdf: the sink says") || sum.Documents != (Counts{Cancelled: 1}) {
				t.Errorf("%+v: %+v, %v", past, sum.Documents, err)
			}
		})
	}
}

// A run ends when its documents stand, and knows of each whether it does.
func TestSinkThatTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, count := manyDocs(10, 3)
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: &fakeRenderer{pages: count}})
		defer d.Close()
		sink, full := newFakeSink(t), errors.New("no space left on device")
		sink.stand = func(r DocumentResult, stands func(error)) {
			var err error
			if r.Path == "d008.pdf" {
				err = full
			}
			time.AfterFunc(time.Minute, func() { stands(err) })
		}
		start := time.Now()
		sum, err := d.Run(t.Context(), Job{Source: list, Sink: sink})
		if !errors.Is(err, full) || time.Since(start) != time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if sum.Documents != (Counts{Done: 9, Cancelled: 1}) || sum.Pages != (Counts{Done: 27, Cancelled: 3}) {
			t.Errorf("%+v", sum)
		}
	})
}

// Of a document that does not stand nothing is counted but that, whatever was there
// of it before.
func TestNothingStandsOfWhatIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: &fakeRenderer{pages: map[string]int{"half.pdf": 3}}})
		defer d.Close()
		sink, progress, full := newFakeSink(t), &Progress{}, errors.New("no space left on device")
		half := pastOf(3, 1, 2)
		half.Redone = RedoneFailed
		sink.past["half.pdf"] = half
		sink.past["stands.pdf"] = Past{Result: &DocumentResult{Path: "stands.pdf", Status: StatusDone, PageCount: 5, Done: 5}}
		sink.stand = func(_ DocumentResult, stands func(error)) { time.AfterFunc(time.Minute, func() { stands(full) }) }
		sum, err := d.Run(t.Context(), Job{Source: docs{"half.pdf", "stands.pdf"}, Sink: sink, Progress: progress})
		if !errors.Is(err, full) || sum.Documents != (Counts{Cancelled: 2}) || sum.Pages != (Counts{Cancelled: 8}) {
			t.Errorf("%+v, %v", sum, err)
		}
		if sum.Resumed != 0 || len(sum.Redone) != 0 || sum.DocumentsBefore != (Counts{}) || sum.PagesBefore != (Counts{}) || progress.Now().Redone[RedoneFailed] != 0 {
			t.Errorf("%+v", sum)
		}
	})
}

// telling is a sink whose documents end as tell says.
type telling struct {
	*fakeSink
	tell func(stands func(error)) error
}

func (s telling) End(ctx context.Context, r DocumentResult, stands func(error)) error {
	s.stand = func(DocumentResult, func(error)) {}
	_ = s.fakeSink.End(ctx, r, nil)
	return s.tell(stands)
}

// A document ends once, however often its sink says so.
func TestSinkThatTellsTwice(t *testing.T) {
	full := errors.New("no space left on device")
	for name, c := range map[string]struct {
		tell func(stands func(error)) error
		want Counts
		err  error
	}{
		"and fails":       {func(stands func(error)) error { stands(full); return full }, Counts{Cancelled: 1}, full},
		"well, and fails": {func(stands func(error)) error { stands(nil); return full }, Counts{Done: 1}, full},
		"well":            {func(stands func(error)) error { stands(nil); stands(nil); return nil }, Counts{Done: 1}, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDetector(t, Config{Model: newFakeModel(), Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 1}}})
			defer d.Close()
			sum, err := d.Run(t.Context(), Job{Source: docs{"a.pdf"}, Sink: telling{newFakeSink(t), c.tell}})
			if sum.Documents != c.want || err != c.err {
				t.Errorf("%s: %+v, %v", name, sum.Documents, err)
			}
		})
	}
}

func TestTwoDocumentsOfOnePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel()
		m.ask = slow(time.Second)
		d := newDetector(t, Config{Model: m, Renderer: &fakeRenderer{pages: map[string]int{"a.pdf": 50}}})
		defer d.Close()
		sum, err := d.Run(t.Context(), Job{Source: docs{"a.pdf", "a.pdf"}, Sink: newFakeSink(t)})
		if err == nil || sum.Documents != (Counts{Cancelled: 2}) {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

// TestResumeAccountsHold resumes random pasts, and stops some of the runs.
func TestResumeAccountsHold(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			sink, count := newFakeSink(t), map[string]int{}
			var list docs
			drawn := 0
			for i := range 30 {
				name := fmt.Sprintf("%d.pdf", i)
				list = append(list, name)
				n := 1 + rnd.IntN(100)
				count[name] = n
				var done []int
				for page := range n {
					if rnd.IntN(3) > 0 {
						done = append(done, page+1)
					}
				}
				switch rnd.IntN(4) {
				case 0:
					drawn += n
				case 1:
					sink.past[name] = pastOf(n+1, done...) // void
					drawn += n
				default:
					sink.past[name] = pastOf(n, done...)
					drawn += n - len(done)
				}
			}
			m := newFakeModel()
			m.ask = slow(5 * time.Millisecond)
			r := &fakeRenderer{pages: count}
			r.draw = func(ctx context.Context, _ string, _ int) error { time.Sleep(time.Millisecond); return ctx.Err() }
			d := newDetector(t, Config{Model: m, Renderer: r, Workers: 1 + rnd.IntN(4)})
			defer d.Close()
			progress, stop := &Progress{}, make(chan struct{})
			if seed%2 == 1 {
				time.AfterFunc(time.Duration(rnd.IntN(300))*time.Millisecond, func() { close(stop) })
			}
			sum, err := d.Run(t.Context(), Job{Source: list, Sink: sink, Stop: stop, Progress: progress})
			checkAccounts(t, sink, sum, progress.Now())
			if seed%2 == 0 && (err != nil || len(r.drawn) != drawn || sum.Documents.Done != 30) {
				t.Errorf("seed %d: %d pages drawn, want %d; %+v, %v", seed, len(r.drawn), drawn, sum, err)
			}
			for ref, n := range r.drawn {
				if n != 1 {
					t.Errorf("seed %d: %v was drawn %d times", seed, ref, n)
				}
			}
		})
	}
}

func TestPageSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		var s PageSet
		in := map[int]bool{}
		for range rnd.IntN(200) {
			page := 1 + rnd.IntN(300)
			s.Add(page)
			in[page] = true
		}
		if s.Len() != len(in) {
			t.Fatalf("%d pages, want %d", s.Len(), len(in))
		}
		for range 50 {
			from := 1 + rnd.IntN(350)
			to := from + rnd.IntN(350)
			want := 0
			for page := from; page < to; page++ {
				if in[page] != s.Has(page) {
					t.Fatalf("page %d: %v", page, s.Has(page))
				}
				if in[page] {
					want++
				}
			}
			if got := s.between(from, to); got != want {
				t.Fatalf("[%d,%d): %d, want %d", from, to, got, want)
			}
		}
	}
}
