package endtoend

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	samplefiles "quire/examples"
	"quire/orchestrator"
	"quire/orchestrator/internal/odd"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/verify"
	"quire/scripts"
	"quire/tritonclient/embedded"
)

func samples(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(examples + "/*.pdf")
	if err != nil || len(names) < 5 {
		t.Fatalf("%d samples in %s, %v", len(names), examples, err)
	}
	return names
}

// rasters draws every page of every sample as the engine does.
func rasters(t *testing.T, width, height int) (pages [][]byte, refs []orchestrator.PageRef) {
	t.Helper()
	w, err := render.New(render.Config{Guard: theGuard}).NewWorker(t.Context(), width, height)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, name := range samples(t) {
		n, err := w.Open(t.Context(), orchestrator.Document{Path: name, Open: func() (*os.File, error) { return os.Open(name) }})
		if err != nil {
			t.Fatal(err)
		}
		for page := 1; page <= n; page++ {
			pixels, _, err := w.Draw(t.Context(), page)
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, bytes.Clone(pixels))
			refs = append(refs, orchestrator.PageRef{Path: filepath.Base(name), Page: page})
		}
	}
	return pages, refs
}

// ask sends rasters through the model in batches of n, boxes in raster pixels.
func ask(t *testing.T, m *layout.Model, pages [][]byte, n int) [][]orchestrator.Region {
	t.Helper()
	in := m.Input()
	slab := &orchestrator.Slab{Bytes: make([]byte, n*in.PageBytes()), Pages: n, PageBytes: in.PageBytes()}
	var all [][]orchestrator.Region
	for batch := range slices.Chunk(pages, n) {
		frames := make([]orchestrator.Frame, len(batch))
		for i, p := range batch {
			copy(slab.Page(i), p)
			frames[i] = orchestrator.Frame{Width: float64(in.Width), Height: float64(in.Height)}
		}
		verdicts, err := m.Infer(t.Context(), slab, 0, frames)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range verdicts {
			if v.Err != nil {
				t.Fatal(v.Err)
			}
			all = append(all, v.Regions)
		}
	}
	return all
}

// TestRegionsEqualTheReferencePipeline holds quire against the rapid-layout
// package itself (ONNX Runtime, its own pre- and post-processing) on the same
// rasters of every sample page.
func TestRegionsEqualTheReferencePipeline(t *testing.T) {
	m := model(t, theServer.Addr(), layout.Config{})
	in := m.Input()
	pages, refs := rasters(t, in.Width, in.Height)
	file := filepath.Join(t.TempDir(), "pages.rgb")
	if err := os.WriteFile(file, slices.Concat(pages...), 0o600); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "reference_layout.py")
	if err := os.WriteFile(script, scripts.ReferenceLayout, 0o600); err != nil {
		t.Fatal(err)
	}
	env, err := embedded.Install(t.Context(), setup(), embedded.Requirements{Name: "reference", Lock: scripts.RequirementsReference})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	if err := env.Run(t.Context(), theGuard, func(line string) { out = append(out, line) }, script, file); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(out, "\n"))
	}
	var reference [][]verify.ReferenceRegion
	if err := json.Unmarshal([]byte(strings.Join(out, "")), &reference); err != nil {
		t.Fatalf("%v in %.300s", err, strings.Join(out, "\n"))
	}
	checkStoredReference(t, m, refs, reference)
	total := 0
	for i, regions := range ask(t, m, pages, 4) {
		want := reference[i]
		if len(regions) != len(want) {
			t.Errorf("%v: %d regions, the reference has %d", refs[i], len(regions), len(want))
		}
		for _, w := range want {
			total++
			best, at := 0.0, -1
			for j, r := range regions {
				if r.LabelRaw == w.Label && iou(r.BBox, w.Box) > best {
					best, at = iou(r.BBox, w.Box), j
				}
			}
			if at < 0 || best < 0.99 || math.Abs(regions[at].Score-w.Score) > 0.001 {
				t.Errorf("%v: no match for the reference's %+v (best IoU %.4f)", refs[i], w, best)
			}
		}
	}
	t.Logf("%d regions on %d pages", total, len(pages))
	if total < 100 {
		t.Errorf("only %d regions to compare", total)
	}
}

var update = flag.Bool("update", false, "write examples/reference.json anew")

// checkStoredReference holds the answers that quire verify carries against those
// that the reference pipeline gave just now.
func checkStoredReference(t *testing.T, m *layout.Model, refs []orchestrator.PageRef, answers [][]verify.ReferenceRegion) {
	t.Helper()
	contract := m.Contract()
	want := &verify.Reference{
		Schema: verify.ReferenceSchema, Pipeline: "rapid-layout 1.2.1, layout_cdla.onnx, ONNX Runtime", Source: contract.Source,
		Width: contract.Width, Height: contract.Height, ScoreThreshold: contract.ScoreThreshold, IoU: contract.IoUThreshold,
	}
	for i, ref := range refs {
		page := verify.ReferencePage{Path: ref.Path, Page: ref.Page, Regions: []verify.ReferenceRegion{}}
		for _, r := range answers[i] {
			r.Score = math.Round(r.Score*1e5) / 1e5
			for edge := range r.Box {
				r.Box[edge] = math.Round(r.Box[edge]*1e3) / 1e3
			}
			page.Regions = append(page.Regions, r)
		}
		want.Pages = append(want.Pages, page)
	}
	if *update {
		// A page a line.
		var pages []string
		for _, page := range want.Pages {
			line, _ := json.Marshal(page)
			pages = append(pages, string(line))
		}
		want.Pages = nil
		head, _ := json.Marshal(want)
		text := strings.TrimSuffix(string(head), "null}") + "[\n" + strings.Join(pages, ",\n") + "\n]}\n"
		if err := os.WriteFile(examples+"/reference.json", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	stored, err := verify.ReadReference(samplefiles.Reference)
	if err != nil {
		t.Fatal(err)
	}
	close := func(a, b verify.ReferenceRegion) bool {
		near := a.Label == b.Label && math.Abs(a.Score-b.Score) < 5e-4
		for edge := range a.Box {
			near = near && math.Abs(a.Box[edge]-b.Box[edge]) < 0.05
		}
		return near
	}
	head := func(r verify.Reference) string { r.Pages = nil; return fmt.Sprintf("%+v", r) }
	if head(*stored) != head(*want) || len(stored.Pages) != len(want.Pages) {
		t.Fatalf("examples/reference.json is %s, %d pages; wanted %s, %d: run this test with -update", head(*stored), len(stored.Pages), head(*want), len(want.Pages))
	}
	for i, page := range want.Pages {
		got := stored.Pages[i]
		if got.Path != page.Path || got.Page != page.Page || !slices.EqualFunc(got.Regions, page.Regions, close) {
			t.Errorf("examples/reference.json: %s page %d is not what the reference pipeline answers now: run this test with -update", got.Path, got.Page)
		}
	}
}

// TestAnswersDoNotDependOnTheBatchOrTheTransport compares results bit by bit.
func TestAnswersDoNotDependOnTheBatchOrTheTransport(t *testing.T) {
	m := model(t, theServer.Addr(), layout.Config{Transport: layout.TransportInBand})
	pages, refs := rasters(t, m.Input().Width, m.Input().Height)
	want := ask(t, m, pages, 1)
	for _, n := range []int{2, 3, 4} {
		for i, got := range ask(t, m, pages, n) {
			if !slices.Equal(got, want[i]) {
				t.Errorf("%v: batch %d gives other regions than batch 1", refs[i], n)
			}
		}
	}
	// And the whole way, with and without shared memory: the same bytes.
	trees := map[string]map[string][]byte{}
	for _, c := range []struct {
		name      string
		transport layout.Transport
		batch     int
		workers   int
	}{{"shared", layout.TransportShared, 4, 2}, {"in-band", layout.TransportInBand, 3, 1}} {
		m := model(t, theServer.Addr(), layout.Config{Transport: c.transport})
		d := detector(t, m, orchestrator.Config{Batch: c.batch, Workers: c.workers}, render.Config{})
		out := t.TempDir()
		if s, err := runTo(t, t.Context(), d, m, examples, out); err != nil || s.Documents.Done != 5 {
			t.Fatalf("%s: %+v, %v", c.name, s, err)
		}
		trees[c.name] = map[string][]byte{}
		files, _ := filepath.Glob(out + "/*.pdf.json")
		for _, f := range files {
			trees[c.name][filepath.Base(f)], _ = os.ReadFile(f)
		}
	}
	for name, a := range trees["shared"] {
		if b := trees["in-band"][name]; !bytes.Equal(a, b) {
			t.Errorf("%s: %d bytes by shared memory, %d others in-band", name, len(a), len(b))
		}
	}
}

type truth struct {
	Pages []struct {
		PageNo  int `json:"page_no"`
		Regions []struct {
			Label string     `json:"label"`
			BBox  [4]float64 `json:"bbox"`
		} `json:"regions"`
	} `json:"pages"`
}

// TestGroundTruth asks whether what stands on the samples is found, in points of
// the displayed page.
func TestGroundTruth(t *testing.T) {
	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{}, render.Config{})
	out := t.TempDir()
	if _, err := runTo(t, t.Context(), d, m, examples, out); err != nil {
		t.Fatal(err)
	}
	found, there := map[string]int{}, map[string]int{}
	for path, doc := range results(t, out) {
		var want truth
		readJSON(t, filepath.Join(examples, strings.TrimSuffix(path, ".pdf")+".truth.json"), &want)
		if len(want.Pages) != len(doc.Pages) {
			t.Fatalf("%s: %d pages, the truth has %d", path, len(doc.Pages), len(want.Pages))
		}
		for i, page := range want.Pages {
			used := map[int]bool{} // a region answers for one box of the truth
			for _, w := range page.Regions {
				there[w.Label]++
				for j, r := range doc.Pages[i].Regions {
					if !used[j] && r.Label == w.Label && iou(r.BBox, w.BBox) >= 0.5 {
						used[j] = true
						found[w.Label]++
						break
					}
				}
			}
		}
	}
	for _, label := range sortedKeys(there) {
		t.Logf("%-16s %d of %d", label, found[label], there[label])
	}
	for _, label := range []string{"text", "table", "picture"} {
		if there[label] < 5 {
			t.Errorf("only %d %s regions in the truth", there[label], label)
		}
		if recall := float64(found[label]) / float64(there[label]); recall < 0.9 {
			t.Errorf("recall of %s is %.2f, wanted 0.9", label, recall)
		}
	}
}

// TestTwins: the same page, put into the file in different ways, has the same
// regions in displayed points.
func TestTwins(t *testing.T) {
	names := []string{
		"twin_plain.pdf", "twin_rotate90.pdf", "twin_rotate180.pdf", "twin_rotate270.pdf", "twin_rotate_minus90.pdf", "twin_rotate450.pdf",
		"twin_crop.pdf", "twin_crop_beyond.pdf", "twin_crop_rotate90.pdf", "twin_origin.pdf", "twin_inverted.pdf", "twin_inherited.pdf", "twin_userunit.pdf", "twin_all.pdf",
	}
	set := odd.Make(t, names...)
	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{}, render.Config{})
	detect := func(name string) orchestrator.PageResult {
		r, err := d.Detect(t.Context(), set.Path(name), 1)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	plain := detect(names[0])
	if len(plain.Regions) < 5 {
		t.Fatalf("only %d regions on the plain twin", len(plain.Regions))
	}
	for _, name := range names[1:] {
		twin := detect(name)
		if math.Abs(twin.Geometry.WidthPt-plain.Geometry.WidthPt) > 0.01 || math.Abs(twin.Geometry.HeightPt-plain.Geometry.HeightPt) > 0.01 {
			t.Errorf("%s shows %v × %v points, the plain one %v × %v", name, twin.Geometry.WidthPt, twin.Geometry.HeightPt, plain.Geometry.WidthPt, plain.Geometry.HeightPt)
		}
		if len(twin.Regions) != len(plain.Regions) {
			t.Errorf("%s has %d regions, the plain one %d", name, len(twin.Regions), len(plain.Regions))
		}
		for _, want := range plain.Regions {
			best := 0.0
			for _, r := range twin.Regions {
				if r.Label == want.Label {
					best = max(best, iou(r.BBox, want.BBox))
				}
			}
			if best < 0.98 {
				t.Errorf("%s: %s at %.1f of the plain twin is matched with IoU %.3f only", name, want.Label, want.BBox, best)
			}
		}
	}
}

// TestResultsOfADirectory looks at one result as a reader would.
func TestResultsOfADirectory(t *testing.T) {
	m := model(t, theServer.Addr(), layout.Config{})
	d := detector(t, m, orchestrator.Config{}, render.Config{})
	out := t.TempDir()
	if _, err := runTo(t, t.Context(), d, m, examples, out); err != nil {
		t.Fatal(err)
	}
	doc := results(t, out)["paper.pdf"]
	if doc == nil || doc.Schema != sink.Schema || doc.Status != "done" || doc.PageCount == nil || *doc.PageCount != 4 || doc.BBoxOrigin != "top-left" {
		t.Fatalf("%+v", doc)
	}
	for _, p := range doc.Pages {
		order := make([]bool, len(p.Regions))
		for i, r := range p.Regions {
			if r.ID != i || i > 0 && r.Score > p.Regions[i-1].Score {
				t.Errorf("page %d: region %d is not in order of score", p.PageNo, i)
			}
			if order[r.Order] {
				t.Errorf("page %d: two regions are number %d in reading order", p.PageNo, r.Order)
			}
			order[r.Order] = true
			if b := r.BBox; b[0] < 0 || b[1] < 0 || b[2] > p.Geometry.WidthPt || b[3] > p.Geometry.HeightPt || b[0] >= b[2] || b[1] >= b[3] {
				t.Errorf("page %d: box %v on a page of %v × %v", p.PageNo, b, p.Geometry.WidthPt, p.Geometry.HeightPt)
			}
		}
	}
	// Reading order respects the columns: on page 1 of the paper, the left
	// column's text comes before the right column's.
	first := doc.Pages[0]
	lastLeft, firstRight := -1, math.MaxInt
	for _, r := range first.Regions {
		if r.Label != "text" || r.BBox[1] < 230 {
			continue // above the columns
		}
		if r.BBox[2] < first.Geometry.WidthPt/2+5 {
			lastLeft = max(lastLeft, r.Order)
		} else if r.BBox[0] > first.Geometry.WidthPt/2-5 {
			firstRight = min(firstRight, r.Order)
		}
	}
	if lastLeft < 0 || firstRight == math.MaxInt || lastLeft > firstRight {
		t.Errorf("the left column ends at %d in reading order, the right one begins at %d", lastLeft, firstRight)
	}
	if left := readDir(t, filepath.Join(out, ".quire")); !slices.Equal(left, []string{"finished.jsonl", "lock"}) {
		t.Errorf("in the work directory: %q", left)
	}
}

func readDir(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
