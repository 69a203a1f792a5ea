package plan

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"quire/orchestrator"
)

func measured(where string, pages int64, at time.Time) Rate {
	return Rate{
		Where: where, Host: "here", Model: "layout", ModelVersion: "1",
		Pages: pages, Seconds: float64(pages) / 20, ResultDocuments: 10, ResultBytes: 1000 * pages, Measured: at,
	}
}

func TestRates(t *testing.T) {
	day := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := Rates{Dir: filepath.Join(t.TempDir(), "not", "there")}
	if r, ok := s.Last("embedded", "here"); ok {
		t.Fatalf("%+v before anything was measured", r)
	}
	keep := func(r Rate) {
		t.Helper()
		if err := s.Record(r); err != nil {
			t.Fatal(err)
		}
	}
	want := func(where string, r Rate) {
		t.Helper()
		if got, ok := s.Last(where, "here"); !ok || got != r {
			t.Errorf("%s: %+v, %v; want %+v", where, got, ok, r)
		}
	}
	first := measured("embedded", 16, day)
	keep(first)
	want("embedded", first)
	long := measured("embedded", 100_000, day.Add(time.Hour))
	keep(long)
	want("embedded", long)
	keep(measured("embedded", 16, day.Add(2*time.Hour)))
	want("embedded", long) // 16 pages say less
	fair := measured("embedded", 500, day.Add(3*time.Hour))
	keep(fair)
	want("embedded", fair)

	keep(Rate{Where: "embedded", Host: "here", Measured: day.Add(4 * time.Hour)}) // nothing ran
	want("embedded", fair)

	other := measured("10.0.0.1:8001", 10, day)
	keep(other)
	want("10.0.0.1:8001", other)
	want("embedded", fair)
	if _, ok := s.Last("embedded", "there"); ok {
		t.Error("another machine's rate was taken")
	}

	model := measured("embedded", 300, day.Add(5*time.Hour))
	model.Model = "other"
	keep(model)
	want("embedded", model)
	// The latest of two models, whichever file it is in.
	again := measured("embedded", 300, day.Add(6*time.Hour))
	keep(again)
	want("embedded", again)
	model.Measured = day.Add(7 * time.Hour)
	keep(model)
	want("embedded", model)

	// Few pages give way to more of them.
	more := measured("10.0.0.1:8001", 20, day.Add(-time.Hour))
	keep(more)
	want("10.0.0.1:8001", more)

	if err := os.WriteFile(filepath.Join(s.Dir, "torn.json"), []byte(`{"where":"embedded","ho`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, nothing := range map[string]string{"pages": `"seconds":1`, "time": `"pages":1`, "bytes": `"pages":1,"seconds":1,"result_bytes":-1`} {
		text := `{"where":"embedded","host":"here","measured":"2027-01-02T03:04:05Z",` + nothing + `}`
		if err := os.WriteFile(filepath.Join(s.Dir, "no "+name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want("embedded", model)

	if err := (Rates{Dir: filepath.Join(s.Dir, "torn.json", "below")}).Record(model); err == nil {
		t.Error("kept where there is no directory")
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir, ".tmp-*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestCosts(t *testing.T) {
	r := measured("embedded", 1000, time.Time{})
	if got := r.Time(7200); got != 6*time.Minute {
		t.Errorf("7200 pages at 20 a second take %v", got)
	}
	if got := (Forecast{Rate: &r, Inputs: Inputs{Documents: 10, Pages: Estimate{Pages: 500}}}).Results(); got != 500_000+10*4096 {
		t.Errorf("%d bytes", got)
	}
	if got := (Forecast{Inputs: Inputs{Pages: Estimate{Pages: 2}}}).Results(); got != 2*DefaultBytesPerPage {
		t.Errorf("%d bytes", got)
	}
}

func TestFits(t *testing.T) {
	free := int64(10_000)
	f := Forecast{Inputs: Inputs{Documents: 1, Pages: Estimate{Pages: 3, Opened: 1, Of: 1}}, Free: &free}
	if !f.Fits() || f.Problems() {
		t.Errorf("%+v does not fit", f)
	}
	f.Inputs.Pages.Pages = 100
	if f.Fits() || !f.Problems() {
		t.Errorf("%+v fits", f)
	}
	f.Inputs.Unreadable = map[orchestrator.Category]int64{orchestrator.CategoryEmpty: 1}
	f.Free = nil
	if !f.Fits() || !f.Problems() {
		t.Error("too little space although nobody said how much there is, or no problem although one does not open")
	}
	free = 0
	if f := (Forecast{Inputs: Inputs{Documents: 1, Pages: Estimate{Of: 1}}, Free: &free}); !f.Fits() {
		t.Error("too little space although nobody knows the pages")
	}
}
