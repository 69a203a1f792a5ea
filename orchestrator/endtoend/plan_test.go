package endtoend

import (
	"slices"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/internal/odd"
	"quire/orchestrator/plan"
	"quire/orchestrator/render"
	"quire/orchestrator/walk"
)

// TestPlanAgreesWithTheManifest looks at all odd documents: those that a run
// cannot open are told with a category that is right for them, the others are
// counted.
func TestPlanAgreesWithTheManifest(t *testing.T) {
	set := odd.Make(t)
	w, err := walk.New([]string{set.Dir}, walk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	told := map[string]*orchestrator.PageError{}
	in, err := plan.Look(t.Context(), plan.Config{
		Source:   w,
		Renderer: render.New(render.Config{Guard: theGuard, OpenTimeout: 5 * time.Second}),
		Time:     5 * time.Minute,
		Problem:  func(e *orchestrator.PageError) { told[e.Ref.Path] = e },
	})
	if err != nil {
		t.Fatal(err)
	}
	var pages int64
	exact := true
	for _, name := range set.Names() {
		d := set.Documents[name]
		opens := slices.ContainsFunc(d.Ends, func(end string) bool { return end == "done" || end == "partial" || end == "failed" })
		if e := told[name]; e != nil && !d.Ends.Allow("failed", string(e.Category)) {
			t.Errorf("%s (%s): %v is not among %v", name, d.What, e, d.Ends)
		} else if e == nil && !opens {
			t.Errorf("%s (%s) opens; it should end as %v", name, d.What, d.Ends)
		}
		switch {
		case told[name] != nil:
		case d.PageCount == nil:
			exact = false
		default:
			pages += int64(*d.PageCount)
		}
	}
	if !in.Pages.Exact() || in.Documents != int64(len(set.Documents)) || in.Problems() != int64(len(told)) {
		t.Errorf("%+v; %d documents, told of %d", in, len(set.Documents), len(told))
	}
	if in.Pages.Pages < pages || exact && in.Pages.Pages != pages {
		t.Errorf("%d pages, want %d", in.Pages.Pages, pages)
	}
}
