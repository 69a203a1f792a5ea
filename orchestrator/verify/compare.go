package verify

import (
	"cmp"
	"math"
	"slices"

	"quire/orchestrator"
)

// Tolerance is how far answers may be apart and still count as the same.
type Tolerance struct {
	// Pixels is for each edge of a box, in pixels of the model's input.
	Pixels float64 `json:"pixels"`
	// Score is for scores.
	Score float64 `json:"score"`
}

// DefaultTolerance is half a pixel, which no reader of boxes sees, and a hundredth
// of the scale of scores.
var DefaultTolerance = Tolerance{Pixels: 0.5, Score: 0.01}

// Comparison is one set of answers against another, which counts as right.
type Comparison struct {
	// Name says how the answers were got.
	Name string `json:"name"`
	// Pages were compared, with so many Regions in the answers that count as
	// right. Failed is how many pages have no usable answer in one of the two.
	// A page that was asked about twice, to fill a batch, counts twice.
	Pages   int `json:"pages"`
	Regions int `json:"regions"`
	Failed  int `json:"failed"`
	// ShiftPixels and ShiftPoints are the farthest that an edge of a box has
	// moved, in pixels of the model's input and in points of the page, and
	// ScoreDrift the largest change of a score, among regions that both have.
	ShiftPixels float64 `json:"shift_px"`
	ShiftPoints float64 `json:"shift_pt"`
	ScoreDrift  float64 `json:"score_drift"`
	// LabelFlips are regions that both have at one place under different
	// labels. Lost regions are in the right answers only, New ones in the others
	// only; Borderline is how many of these score no farther from the threshold
	// than scores may drift.
	LabelFlips int `json:"label_flips"`
	Lost       int `json:"lost"`
	New        int `json:"new"`
	Borderline int `json:"borderline"`
	// Identical tells that every region is the same to the last bit.
	Identical bool `json:"identical"`
	// Within tells that nothing is beyond the tolerance; borderline regions
	// are not.
	Within bool `json:"within"`
	// Worst is the page that is farthest off; empty when all are identical.
	Worst string `json:"worst_page,omitempty"`
}

// answer is what came back for a page; regions are in pixels of the input.
type answer struct {
	regions []orchestrator.Region
	failed  bool
}

// comparer compares answers page by page.
type comparer struct {
	in        orchestrator.Input
	threshold float64
	tolerance Tolerance
}

// compare holds got against right, page by page.
func (c comparer) compare(name string, pages []Page, right, got []answer) Comparison {
	all := Comparison{Name: name, Identical: true}
	worst := 0.0
	for i, page := range pages {
		one := c.page(page, right[i], got[i])
		all.Pages++
		all.Regions += one.Regions
		all.Failed += one.Failed
		all.ShiftPixels = max(all.ShiftPixels, one.ShiftPixels)
		all.ShiftPoints = max(all.ShiftPoints, one.ShiftPoints)
		all.ScoreDrift = max(all.ScoreDrift, one.ScoreDrift)
		all.LabelFlips += one.LabelFlips
		all.Lost += one.Lost
		all.New += one.New
		all.Borderline += one.Borderline
		all.Identical = all.Identical && one.Identical
		if off := c.off(one); !one.Identical && off > worst {
			worst, all.Worst = off, page.Ref.String()
		}
	}
	all.Within = all.Failed+all.LabelFlips == 0 && all.Lost+all.New == all.Borderline &&
		all.ShiftPixels <= c.tolerance.Pixels && all.ScoreDrift <= c.tolerance.Score
	return all
}

// off weighs how bad a page's difference is: regions that are not there count
// more than any shift.
func (c comparer) off(one Comparison) float64 {
	return one.ShiftPixels + one.ScoreDrift + 1e4*float64(one.Lost+one.New+one.LabelFlips) + 1e8*float64(one.Failed)
}

func (c comparer) page(page Page, right, got answer) Comparison {
	one := Comparison{Regions: len(right.regions), Identical: slices.Equal(right.regions, got.regions) && !right.failed && !got.failed}
	if right.failed || got.failed {
		one.Failed = 1
		return one
	}
	toPoints := [2]float64{page.Geometry.WidthPt / float64(c.in.Width), page.Geometry.HeightPt / float64(c.in.Height)}
	pairs, lost, added := match(right.regions, got.regions)
	for _, p := range pairs {
		for edge := range 4 {
			shift := math.Abs(p.right.BBox[edge] - p.got.BBox[edge])
			one.ShiftPixels = max(one.ShiftPixels, shift)
			one.ShiftPoints = max(one.ShiftPoints, shift*toPoints[edge%2])
		}
		one.ScoreDrift = max(one.ScoreDrift, math.Abs(p.right.Score-p.got.Score))
		if p.right.LabelRaw != p.got.LabelRaw {
			one.LabelFlips++
		}
	}
	one.Lost, one.New = len(lost), len(added)
	for _, r := range slices.Concat(lost, added) {
		if math.Abs(r.Score-c.threshold) <= c.tolerance.Score {
			one.Borderline++
		}
	}
	return one
}

// sameIoU is the overlap, intersection over union, from which on two boxes are
// of one region.
const sameIoU = 0.5

type pair struct{ right, got orchestrator.Region }

// match finds which regions of two answers are the same ones: those that overlap
// most first, and of one label before those of two.
func match(right, got []orchestrator.Region) (pairs []pair, lost, added []orchestrator.Region) {
	type candidate struct {
		i, j    int
		flipped bool
		iou     float64
	}
	var candidates []candidate
	for i, r := range right {
		for j, g := range got {
			if iou := overlap(r.BBox, g.BBox); iou >= sameIoU {
				candidates = append(candidates, candidate{i, j, r.LabelRaw != g.LabelRaw, iou})
			}
		}
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		switch {
		case a.flipped == b.flipped:
			return cmp.Compare(b.iou, a.iou)
		case a.flipped:
			return 1
		}
		return -1
	})
	takenRight, takenGot := make([]bool, len(right)), make([]bool, len(got))
	for _, c := range candidates {
		if !takenRight[c.i] && !takenGot[c.j] {
			takenRight[c.i], takenGot[c.j] = true, true
			pairs = append(pairs, pair{right[c.i], got[c.j]})
		}
	}
	for i, taken := range takenRight {
		if !taken {
			lost = append(lost, right[i])
		}
	}
	for j, taken := range takenGot {
		if !taken {
			added = append(added, got[j])
		}
	}
	return pairs, lost, added
}

// overlap is intersection over union.
func overlap(a, b [4]float64) float64 {
	w, h := min(a[2], b[2])-max(a[0], b[0]), min(a[3], b[3])-max(a[1], b[1])
	if w <= 0 || h <= 0 {
		return 0
	}
	area := func(r [4]float64) float64 { return (r[2] - r[0]) * (r[3] - r[1]) }
	return w * h / (area(a) + area(b) - w*h)
}
