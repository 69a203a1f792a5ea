package layout

import (
	"cmp"
	"slices"
)

// candidate is one detection above the threshold, in input pixels, unclipped.
type candidate struct {
	box   [4]float64 // x0, y0, x1, y1
	score float64
	class int
}

// byRank orders candidates best score first. Ties are settled by class and box,
// so that the order does not depend on the order the server gave them in.
func byRank(a, b candidate) int {
	return cmp.Or(
		cmp.Compare(b.score, a.score),
		cmp.Compare(a.class, b.class),
		cmp.Compare(a.box[0], b.box[0]),
		cmp.Compare(a.box[1], b.box[1]),
		cmp.Compare(a.box[2], b.box[2]),
		cmp.Compare(a.box[3], b.box[3]),
	)
}

// suppress is greedy non-maximum suppression class by class: of two boxes of
// one class whose IoU is above iou, the one with the lower score goes. At most
// maxCandidates boxes of a class are looked at and at most maxKept stay. The
// answer is in rank order and reuses cands.
func suppress(cands []candidate, iou float64, maxCandidates, maxKept int) []candidate {
	slices.SortFunc(cands, byRank)
	type tally struct{ seen, kept int }
	tallies := make(map[int]*tally)
	kept := cands[:0]
	for _, c := range cands {
		t := tallies[c.class]
		if t == nil {
			t = new(tally)
			tallies[c.class] = t
		}
		if t.seen == maxCandidates || t.kept == maxKept {
			continue
		}
		t.seen++
		// kept shares memory with cands but never runs ahead of c.
		covered := slices.ContainsFunc(kept, func(k candidate) bool {
			return k.class == c.class && overlap(k.box, c.box) > iou
		})
		if !covered {
			t.kept++
			kept = append(kept, c)
		}
	}
	return kept
}

// overlap is the intersection over union of two boxes, 0 when neither has area.
func overlap(a, b [4]float64) float64 {
	w := min(a[2], b[2]) - max(a[0], b[0])
	h := min(a[3], b[3]) - max(a[1], b[1])
	if w <= 0 || h <= 0 {
		return 0
	}
	inter := w * h
	return inter / (area(a) + area(b) - inter)
}

func area(b [4]float64) float64 { return (b[2] - b[0]) * (b[3] - b[1]) }
