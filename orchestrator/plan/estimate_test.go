package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"quire/orchestrator"
)

// class is a stratum with so many documents of one size.
type class struct{ count, size int64 }

func strataOf(sample int, classes ...class) *strata {
	s := new(strata)
	for _, c := range classes {
		for i := range c.count {
			s.add(orchestrator.Document{Path: fmt.Sprintf("%d/%06d.pdf", c.size, i), Size: c.size}, sample)
		}
	}
	return s
}

// A sample has the size that was asked for and not more but for the few that a
// small class needs, and goes by the bytes.
func TestShare(t *testing.T) {
	for _, test := range []struct {
		name    string
		n       int
		classes []class
		want    []int64
	}{
		{"all", 100, []class{{60, 1 << 10}, {40, 1 << 20}}, []int64{60, 40}},
		{"by bytes", 40, []class{{300, 1 << 10}, {100, 9 << 10}}, []int64{10, 30}},
		{"what a class has not goes to the others", 40, []class{{1000, 1 << 10}, {10, 1 << 20}}, []int64{30, 10}},
		{"of three", 40, []class{{200, 1 << 10}, {100, 6 << 10}, {5, 1 << 20}}, []int64{9, 26, 5}},
		{"hardly any bytes", 40, []class{{1000, 1}, {1000, 1 << 20}}, []int64{leastLooked, 39}},
		{"hardly any bytes and documents", 40, []class{{3, 1}, {1000, 1 << 20}}, []int64{3, 39}},
		{"nothing", 40, nil, nil},
	} {
		s := strataOf(test.n, test.classes...)
		var got []int64
		for i, share := range s.share(test.n) {
			if s.classes[i].count > 0 {
				got = append(got, share)
			} else if share != 0 {
				t.Errorf("%s: %d of an empty class", test.name, share)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v; want %v", test.name, got, test.want)
		}
	}
}

// Memory does not grow with the number of documents, and the sample is the lowest
// ranks of all of them.
func TestSampleIsALottery(t *testing.T) {
	const sample = 20
	for _, n := range []int64{35, 5000} { // as they came, and cut down on the way
		s := strataOf(sample, class{n, 5000})
		var all []chosen
		for i := range n {
			path := fmt.Sprintf("5000/%06d.pdf", i)
			all = append(all, chosen{doc: orchestrator.Document{Path: path}, rank: rank(path)})
		}
		slices.SortFunc(all, byRank)
		var c *stratum
		for i := range s.classes {
			if s.classes[i].count > 0 {
				c = &s.classes[i]
			}
		}
		if len(c.kept) >= 2*sample || cap(c.kept) > 4*sample || c.count != n || c.bytes != 5000*n {
			t.Errorf("%d of %d documents are kept, there is room for %d", len(c.kept), n, cap(c.kept))
		}
		for _, gone := range c.kept[len(c.kept):cap(c.kept)] { // 5000 are just cut down
			if gone.doc.Path != "" {
				t.Errorf("%s is kept behind the list", gone.doc.Path)
			}
		}
		var got, want []string
		for i, one := range s.choose(sample) {
			got, want = append(got, one.doc.Path), append(want, all[i].doc.Path)
		}
		if !slices.Equal(got, want) {
			t.Errorf("of %d: %v; want %v", n, got, want)
		}
	}
}

// A class has its least number also where the whole sample is smaller, as far as
// its documents were kept.
func TestSmallSample(t *testing.T) {
	docs := strataOf(2, class{100, 1 << 10}, class{1, 1 << 20}).choose(2)
	for _, d := range docs {
		if d.doc.Path == "" || d.stratum == nil {
			t.Errorf("a document that there is not was chosen: %+v", d)
		}
	}
	if len(docs) < 2 {
		t.Errorf("%d chosen", len(docs))
	}
}

// When the time is over, what was opened until then has its part of each class.
func TestBeginningsHaveTheirPart(t *testing.T) {
	docs := strataOf(40, class{300, 1 << 10}, class{100, 9 << 10}).choose(40)
	if len(docs) != 40 {
		t.Fatalf("%d chosen", len(docs))
	}
	small := 0
	for i, d := range docs {
		if d.doc.Size == 1<<10 {
			small++
		}
		if want := float64(i+1) / 4; float64(small) < want-1 || float64(small) > want+1 {
			t.Errorf("%d of the first %d are small, want a quarter", small, i+1)
		}
	}
}

func TestEstimate(t *testing.T) {
	look := func(s *strata, size int64, pages ...int) {
		c := &s.classes[classOf(size)]
		for _, p := range pages {
			c.looked(max(p, 0), p < 0)
		}
	}
	// All were opened: nothing is a guess, whatever else is known.
	s := strataOf(100, class{3, 1 << 10}, class{2, 1 << 20})
	look(s, 1<<10, 1, 5, -1)
	look(s, 1<<20, 10, 20)
	s.known(7)
	if e, want := s.estimate(), (Estimate{Pages: 43, Low: 43, High: 43, Opened: 6, Of: 6, Failed: 1}); e != want || !e.Exact() {
		t.Errorf("%+v; want %+v", e, want)
	}
	// A tenth was, and half of those failed.
	s = strataOf(100, class{100, 1 << 10})
	look(s, 1<<10, 4, 4, 4, 4, 4, -1, -1, -1, -1, -1)
	s.known(7)
	e := s.estimate()
	if e.Pages != 207 || e.Opened != 11 || e.Of != 101 || e.Failed != 5 || e.MoreFailed != 45 || e.Low < 27 || e.Low >= 207 || e.High <= 207 || e.High-207 > 200 {
		t.Errorf("%+v; want 207 pages, 5 failed and 45 more", e)
	}
	// What differs more is less sure, and so is what was looked at less.
	alike, odd, fewer := strataOf(100, class{100, 1 << 10}), strataOf(100, class{100, 1 << 10}), strataOf(100, class{100, 1 << 10})
	look(alike, 1<<10, 10, 10, 10, 10, 10, 10, 10, 10)
	look(odd, 1<<10, 1, 19, 1, 19, 1, 19, 1, 19)
	look(fewer, 1<<10, 10, 10)
	a, o, f := alike.estimate(), odd.estimate(), fewer.estimate()
	if a.Pages != 1000 || o.Pages != 1000 || f.Pages != 1000 || o.High-o.Low <= a.High-a.Low || f.High-f.Low <= a.High-a.Low {
		t.Errorf("%+v, %+v, %+v", a, o, f)
	}
	// Two standard errors: 100 documents, 8 seen, with one of three times the mean.
	if a.High != 1000+480 || a.Low != 1000-480 {
		t.Errorf("%+v; want 480 more or less", a)
	}
	// Nothing is below what was counted.
	s = strataOf(100, class{3, 1 << 10})
	look(s, 1<<10, 50, 0)
	s.known(7)
	if e := s.estimate(); e.Low != 57 || e.Pages != 82 {
		t.Errorf("%+v; want 82 pages, 57 at least", e)
	}
	// A class that the time did not come to is like the others, and unsure.
	s = strataOf(100, class{10, 1 << 10}, class{100, 1 << 20})
	look(s, 1<<10, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3)
	if e := s.estimate(); e.Pages != 330 || e.Exact() || e.Low != 30 || e.High < 660 || e.MoreFailed != 0 {
		t.Errorf("%+v; want 330 pages and no certainty", e)
	}
	// Nothing was opened.
	s = strataOf(100, class{10, 1 << 10})
	if e := s.estimate(); e.Known() || e != (Estimate{Of: 10}) {
		t.Errorf("%+v", e)
	}
	if e := new(strata).estimate(); !e.Known() || e != (Estimate{}) {
		t.Errorf("%+v", e)
	}
}

func classOf(size int64) int {
	s := strataOf(1, class{1, size})
	return slices.IndexFunc(s.classes[:], func(c stratum) bool { return c.count > 0 })
}

// A worker that does not start ends it, and is not taken for documents that do
// not open.
func TestNoWorkerForTheSample(t *testing.T) {
	pdf := file(t, "%PDF-1.4", 5000)
	in, err := Look(t.Context(), Config{Source: list{file: pdf, paths: numbered(9)}, Renderer: noWorker{}})
	if !errors.Is(err, errNoWorker) || in.Problems() != 0 {
		t.Errorf("%+v, %v; want what NewWorker said", in, err)
	}
	synctest.Test(t, func(t *testing.T) {
		// One worker opens while the other does not start.
		half := &second{opener: &opener{open: func(ctx context.Context, _ string) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}}}
		if _, err := Look(t.Context(), Config{Source: list{file: pdf, paths: numbered(9)}, Renderer: half, Workers: 2}); !errors.Is(err, errNoWorker) {
			t.Errorf("%v; want what NewWorker said", err)
		}
		half.checkClosed(t)
	})
}

// second has one worker and no second one.
type second struct{ *opener }

func (s *second) NewWorker(ctx context.Context, width, height int) (orchestrator.RenderWorker, error) {
	s.mu.Lock()
	have := s.workers > 0
	s.mu.Unlock()
	if have {
		return nil, errNoWorker
	}
	return s.opener.NewWorker(ctx, width, height)
}
