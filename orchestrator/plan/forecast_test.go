package plan

import (
	"bytes"
	"encoding/json"
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

	if err := os.WriteFile(filepath.Join(s.Dir, "torn.json"), []byte(`{"where":"embedded","ho`), 0o600); err != nil {
		t.Fatal(err)
	}
	want("embedded", model)
}

func TestCosts(t *testing.T) {
	r := measured("embedded", 1000, time.Time{})
	if got := r.Time(7200); got != 6*time.Minute {
		t.Errorf("7200 pages at 20 a second take %v", got)
	}
	if got := Disk(&r, 10, 500); got != 500_000+10*4096 {
		t.Errorf("%d bytes", got)
	}
	if got := Disk(nil, 0, 2); got != 2*DefaultBytesPerPage {
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
	f.Free = nil
	if !f.Fits() {
		t.Error("too little space although nobody said how much there is")
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	j := JSON{W: &b}
	line := func() map[string]any {
		t.Helper()
		var m map[string]any
		if err := json.Unmarshal(b.Bytes(), &m); err != nil || bytes.Count(b.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("%v: %s", err, b.Bytes())
		}
		b.Reset()
		return m
	}
	if err := j.Unreadable(&orchestrator.PageError{
		Ref: orchestrator.PageRef{Path: "50%/\xff\n.pdf"}, Stage: orchestrator.StageOpen, Category: orchestrator.CategoryEmpty, Message: "the file is empty",
	}); err != nil {
		t.Fatal(err)
	}
	m := line()
	for k, want := range map[string]any{
		"message_type": "unreadable", "path": "50%25/%FF\n.pdf", "path_encoding": "percent",
		"stage": "open", "category": "empty", "message": "the file is empty",
	} {
		if m[k] != want {
			t.Errorf("%s is %v, want %v", k, m[k], want)
		}
	}

	free, r := int64(5e9), measured("embedded", 1000, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	err := j.Forecast(Forecast{
		Inputs: Inputs{
			Documents: 12, Bytes: 3456, Unreadable: map[orchestrator.Category]int64{orchestrator.CategoryEmpty: 2},
			Pages: Estimate{Pages: 100, Low: 80, High: 120, Opened: 5, Of: 10, Failed: 1, MoreFailed: 1},
		},
		Rate: &r, Where: "embedded", Output: "out", Free: &free,
	})
	if err != nil {
		t.Fatal(err)
	}
	m = line()
	pages, seconds, disk := m["pages"].(map[string]any), m["seconds"].(map[string]any), m["disk"].(map[string]any)
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"message_type", m["message_type"], "plan"},
		{"documents", m["documents"], 12.0},
		{"unreadable", m["unreadable"].(map[string]any)["empty"], 2.0},
		{"pages", pages["estimate"], 100.0},
		{"exact", pages["exact"], false},
		{"opened", pages["documents_opened"], 5.0},
		{"more", pages["more_unreadable_estimate"], 1.0},
		{"seconds", seconds["estimate"], 5.0},
		{"high", seconds["high"], 6.0},
		{"bytes", disk["bytes"], 100_000.0 + 12*4096},
		{"measured", disk["measured"], true},
		{"free", disk["free_bytes"], 5e9},
		{"fits", disk["fits"], true},
		{"rate", m["rate"].(map[string]any)["pages_per_second"], 20.0},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}

	if err := j.Forecast(Forecast{Inputs: Inputs{Documents: 1, Pages: Estimate{Of: 1}}}); err != nil {
		t.Fatal(err)
	}
	m = line()
	if m["rate"] != nil || m["seconds"] != nil || m["pages"].(map[string]any)["estimate"] != nil {
		t.Errorf("what is not known is not null: %v", m)
	}
}
