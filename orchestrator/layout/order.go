package layout

import (
	"cmp"
	"slices"

	"quire/orchestrator"
)

// sameColumn is how much of the narrower of two boxes must lie beside the other
// for the two to stand one above the other. Boxes of neighbouring columns touch
// or overlap by a few points without meaning it.
const sameColumn = 0.25

// setReadingOrder fills in Region.Order: 0 for what is read first.
//
// The method is the topological sort of T. M. Breuel, "High Performance Document
// Layout Analysis", Symposium on Document Image Understanding Technology, 2003:
// a comes before b when a stands above b and both share columns, or when a is
// wholly to the left of b and nothing that spans both stands between them in
// height. So columns are read down before the next one, and a figure or a
// heading across columns ends the columns above it. Running headers are read
// before, running footers after everything else, whatever column they stand in.
//
// What the relation leaves open is settled top to bottom, then left to right.
// Boxes that overlap oddly can make the relation contradict itself; then the
// region with the fewest others before it goes first. The answer depends on
// nothing but the boxes, and on the order of the regions only where two have the
// same box. Time is O(n³) for n regions, at most a few dozen on ordinary pages.
func setReadingOrder(regions []orchestrator.Region) {
	n := len(regions)
	before := make([]int, n)       // how many unread regions come before i
	after := make([][]int, n)      // which regions come after i
	position := make([]int, 0, n)  // tie-break: indices, top to bottom
	bands := make([]int, n)        // header, body, footer
	boxes := make([][4]float64, n) // shorthand
	for i, r := range regions {
		position = append(position, i)
		bands[i], boxes[i] = band(r.Label), r.BBox
	}
	slices.SortStableFunc(position, func(a, b int) int {
		return cmp.Or(cmp.Compare(bands[a], bands[b]), compareBoxes(boxes[a], boxes[b]))
	})
	height := heights(boxes)
	for a := range n {
		for b := range n {
			if a != b && bands[a] == bands[b] && precedes(a, b, boxes, bands, height) {
				after[a] = append(after[a], b)
				before[b]++
			}
		}
	}
	for order := range n {
		best := 0
		for p := range position {
			// Bands are in sequence; the first band left must be used up.
			if bands[position[p]] != bands[position[0]] {
				break
			}
			if before[position[p]] < before[position[best]] {
				best = p
			}
		}
		i := position[best]
		position = slices.Delete(position, best, best+1)
		regions[i].Order = order
		for _, b := range after[i] {
			before[b]--
		}
	}
}

// precedes is Breuel's relation between boxes a and b of one band.
func precedes(a, b int, boxes [][4]float64, bands, height []int) bool {
	if shareColumn(boxes[a], boxes[b]) {
		return height[a] < height[b]
	}
	if boxes[a][0]+boxes[a][2] >= boxes[b][0]+boxes[b][2] {
		return false // a is not to the left
	}
	for c := range boxes {
		if c == a || c == b || bands[c] != bands[a] {
			continue
		}
		between := (height[a] < height[c]) == (height[c] < height[b])
		if between && shareColumn(boxes[c], boxes[a]) && shareColumn(boxes[c], boxes[b]) {
			return false
		}
	}
	return true
}

// compareBoxes orders boxes from top to bottom, then from left to right.
func compareBoxes(a, b [4]float64) int {
	return cmp.Or(cmp.Compare(a[1], b[1]), cmp.Compare(a[0], b[0]), cmp.Compare(a[3], b[3]), cmp.Compare(a[2], b[2]))
}

// heights ranks boxes by the heights of their centres: the one that is above has
// the lower number. Of two at one height that is the one that begins higher, or
// further left.
func heights(boxes [][4]float64) []int {
	down, rank := make([]int, len(boxes)), make([]int, len(boxes))
	for i := range down {
		down[i] = i
	}
	slices.SortStableFunc(down, func(a, b int) int {
		return cmp.Or(cmp.Compare(boxes[a][1]+boxes[a][3], boxes[b][1]+boxes[b][3]), compareBoxes(boxes[a], boxes[b]))
	})
	for n, i := range down {
		rank[i] = n
	}
	return rank
}

func shareColumn(a, b [4]float64) bool {
	shared := min(a[2], b[2]) - max(a[0], b[0])
	return shared > sameColumn*min(a[2]-a[0], b[2]-b[0])
}

// band puts running headers first and running footers last.
func band(label string) int {
	switch label {
	case labelPageHeader:
		return 0
	case labelPageFooter:
		return 2
	}
	return 1
}
