package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A worker keeps a document open for the next call as long as the file at its path
// is the same.
func TestDetectOpensWhatHasChanged(t *testing.T) {
	path := file(t, "a.pdf")
	r := &fakeRenderer{pages: map[string]int{"a.pdf": 3}}
	d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1})
	defer d.Close()
	opens := 0
	detect := func(what string, again bool) {
		t.Helper()
		if _, err := d.Detect(t.Context(), path, 1); err != nil {
			t.Fatal(err)
		}
		if again {
			opens++
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.opens != opens {
			t.Errorf("%s: opened %d times, want %d", what, r.opens, opens)
			opens = r.opens
		}
	}
	then := time.Now().Add(-time.Hour).Truncate(time.Second)
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chtimes(path, then, then))
	detect("at first", true)
	detect("the same", false)
	must(os.Chtimes(path, then, then.Add(time.Second)))
	detect("another time", true)
	must(os.WriteFile(path, []byte("longer"), 0o600), os.Chtimes(path, then, then.Add(time.Second)))
	detect("another size", true)
	other := path + ".new"
	must(os.WriteFile(other, []byte("other."), 0o600), os.Chtimes(other, then, then.Add(time.Second)), os.Rename(other, path))
	detect("another file of the same size and time", true)
	detect("the same", false)
}

// What would not open is not taken for what was open before.
func TestNothingIsOpenAfterAFailure(t *testing.T) {
	good, bad := file(t, "a.pdf"), file(t, "broken.pdf")
	r := &fakeRenderer{pages: map[string]int{"a.pdf": 3}}
	d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1})
	defer d.Close()
	for page := range 3 {
		got, err := d.Detect(t.Context(), good, page+1)
		if err != nil || got.Regions[0].Label != fmt.Sprint(hash("a.pdf")) {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := d.Detect(t.Context(), bad, 1); err == nil {
			t.Error("a broken document has a page")
		}
	}
}

// A document that kills the worker that opens it has one try more, and one that
// breaks it has another worker for that; no more, or it would be opened for ever.
func TestTriesOfOpening(t *testing.T) {
	dead := &PageError{Stage: StageOpen, Category: CategoryCrash, Message: "the process ended"}
	broken := errors.New("it makes no sense")
	for _, tt := range []struct {
		name    string
		err     error
		times   int
		tries   int
		workers int
		want    Status
	}{
		{"killed once", dead, 1, 2, 1, StatusDone},
		{"killed each time", dead, 99, 2, 1, StatusFailed},
		{"broken once", broken, 1, 2, 2, StatusDone},
		{"broken each time", broken, 99, 2, 2, StatusFailed},
		{"refused", &PageError{Stage: StageOpen, Category: CategoryMalformed}, 99, 1, 1, StatusFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := file(t, "a.pdf")
			tries, workers := 0, 0
			r := &fakeRenderer{
				pages: map[string]int{"a.pdf": 1},
				start: func() error { workers++; return nil },
				open: func(string) error {
					if tries++; tries > 10 {
						return nil
					}
					if tries <= tt.times {
						return tt.err
					}
					return nil
				},
			}
			d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1})
			got, err := d.Detect(t.Context(), path, 1)
			d.Close()
			if got.Status != tt.want || tries != tt.tries || workers != tt.workers {
				t.Errorf("%s, %v after %d tries with %d workers", got.Status, err, tries, workers)
			}
		})
	}
}

// A worker goes on with the document that it has open; one that has none of those
// whose pages are left takes the one that was opened first.
func TestWorkersKeepToTheirDocuments(t *testing.T) {
	s := newSchedule()
	var tasks []*drawTask
	for range 3 {
		dt := newDrawTask(&openTask{}, 2*chunk)
		tasks = append(tasks, dt)
		s.addDraw(dt)
	}
	for i, turn := range []struct{ open, want *drawTask }{
		{tasks[1], tasks[1]}, {nil, tasks[0]}, {tasks[2], tasks[2]}, {tasks[1], tasks[1]}, {tasks[1], tasks[0]}, {tasks[0], tasks[2]},
	} {
		got, ok := s.next(openDocument{draw: turn.open})
		if !ok || got.draw != turn.want || got.to-got.from != chunk {
			t.Errorf("turn %d: pages %d to %d of document %d", i, got.from, got.to, slices.Index(tasks, got.draw))
		}
	}
}

// All workers share the last document.
func TestWorkersShareADocument(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 5
		r := &fakeRenderer{pages: map[string]int{"a.pdf": workers * chunk}, draw: func(context.Context, string, int) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		}}
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: workers})
		defer d.Close()
		start := time.Now()
		if _, err := d.Run(t.Context(), Job{Source: docs{"a.pdf"}, Sink: newFakeSink(t)}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != chunk*10*time.Millisecond {
			t.Errorf("%d workers took %v", workers, took)
		}
	})
}

func TestWorkersThatCannotStartEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, count := manyDocs(20, 5)
		no := errors.New("too many processes")
		r := &fakeRenderer{pages: count, start: func() error { return no }}
		d := newDetector(t, Config{Model: newFakeModel(), Renderer: r})
		defer d.Close()
		_, _, err := runDocs(t, d, list)
		if !errors.Is(err, no) {
			t.Fatal(err)
		}
	})
}

// A worker that breaks and one that dies have one more try each, in whatever order,
// when a page is drawn and when a document is opened.
func TestBrokenAndDead(t *testing.T) {
	path := file(t, "a.pdf")
	broke, died := errors.New("it makes no sense"), &PageError{Stage: StageRender, Category: CategoryCrash, Message: "the process ended"}
	for _, c := range []struct {
		tries []error
		want  Category
	}{
		{[]error{broke, died}, ""},
		{[]error{died, broke}, ""},
		{[]error{died, broke, died}, CategoryCrash},
		{[]error{broke, died, broke}, CategoryInternal},
	} {
		for _, opening := range []bool{true, false} {
			try := 0
			next := func() error {
				if try++; try <= len(c.tries) {
					return c.tries[try-1]
				}
				return nil
			}
			r := &fakeRenderer{pages: map[string]int{"a.pdf": 1}}
			if opening {
				r.open = func(string) error { return next() }
			} else {
				r.draw = func(context.Context, string, int) error { return next() }
			}
			d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 1})
			got := Category("")
			if _, err := d.Detect(t.Context(), path, 1); err != nil {
				got = CategoryInternal
				if pe, ok := errors.AsType[*PageError](err); ok {
					got = pe.Category
				}
			}
			if got != c.want || c.want == "" && try != 3 {
				t.Errorf("%v, opening %v: %q after %d tries, want %q", c.tries, opening, got, try, c.want)
			}
			d.Close()
		}
	}
}

// A worker that turns out broken has the page drawn by another one. When that
// breaks too, it is this machine: the run ends, and the page has not failed.
func TestBrokenWorkerIsNoPagesFault(t *testing.T) {
	for _, lasting := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			list, count := manyDocs(6, 40)
			no := errors.New("the guard process ended")
			broke := map[int]int{} // by page: two workers may share the document
			r := &fakeRenderer{pages: count}
			r.draw = func(_ context.Context, path string, page int) error {
				if path != list[3] || page < 20 {
					return nil
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				if broke[page] > 0 && !lasting {
					return nil
				}
				broke[page]++
				return no
			}
			d := newDetector(t, Config{Model: newFakeModel(), Renderer: r, Workers: 2})
			defer d.Close()
			_, sum, err := runDocs(t, d, list)
			if lasting != errors.Is(err, no) || sum.Pages.Failed > 0 || lasting == (sum.Pages.Cancelled == 0) {
				t.Errorf("lasting %v: %v, %+v", lasting, err, sum)
			}
			most, want := slices.Max(slices.Collect(maps.Values(broke))), 1
			if lasting {
				want = 2 // a page has a second worker before the run ends
			}
			if most != want || !lasting && len(broke) != 21 {
				t.Errorf("lasting %v: workers broke at %v, want %d times a page", lasting, broke, want)
			}
		})
	}
}
