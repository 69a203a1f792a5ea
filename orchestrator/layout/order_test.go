package layout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quire/orchestrator"
)

// piece is a region of a drawn page: its name and its box on a 100×100 page.
type piece struct {
	name string
	box  [4]float64
}

// readNames gives the names of the pieces in reading order. A name that starts
// with "header" or "footer" is of that class.
func readNames(pieces []piece) string {
	regions := make([]orchestrator.Region, len(pieces))
	for i, p := range pieces {
		label := labelText
		switch {
		case strings.HasPrefix(p.name, "header"):
			label = labelPageHeader
		case strings.HasPrefix(p.name, "footer"):
			label = labelPageFooter
		}
		regions[i] = orchestrator.Region{ID: i, Label: label, BBox: p.box}
	}
	setReadingOrder(regions)
	names := make([]string, len(pieces))
	for i, r := range regions {
		names[r.Order] = pieces[i].name
	}
	return strings.Join(names, " ")
}

func TestReadingOrder(t *testing.T) {
	tests := []struct {
		name   string
		pieces []piece
		want   string
	}{
		{"nothing", nil, ""},
		{"one column", []piece{
			{"title", [4]float64{20, 5, 80, 10}}, {"a", [4]float64{10, 15, 90, 40}}, {"b", [4]float64{10, 45, 90, 90}},
		}, "title a b"},
		{"two columns", []piece{
			{"l1", [4]float64{5, 10, 48, 40}}, {"l2", [4]float64{5, 45, 48, 90}},
			{"r1", [4]float64{52, 10, 95, 30}}, {"r2", [4]float64{52, 35, 95, 90}},
		}, "l1 l2 r1 r2"},
		{"two columns whose paragraphs end at one height", []piece{
			{"l1", [4]float64{5, 10, 48, 40}}, {"l2", [4]float64{5, 45, 48, 90}},
			{"r1", [4]float64{52, 10, 95, 40}}, {"r2", [4]float64{52, 45, 95, 90}},
		}, "l1 l2 r1 r2"},
		{"title over two columns, right column starts higher", []piece{
			{"title", [4]float64{15, 3, 85, 8}}, {"l1", [4]float64{5, 20, 48, 90}},
			{"r1", [4]float64{52, 12, 95, 90}},
		}, "title l1 r1"},
		{"columns that touch and overlap a little", []piece{
			{"l1", [4]float64{5, 10, 51, 40}}, {"l2", [4]float64{5, 39, 51, 90}},
			{"r1", [4]float64{49, 8, 95, 42}}, {"r2", [4]float64{49, 41, 95, 90}},
		}, "l1 l2 r1 r2"},
		{"figure across columns in mid-page", []piece{
			{"l1", [4]float64{5, 10, 48, 30}}, {"r1", [4]float64{52, 10, 95, 30}},
			{"figure", [4]float64{10, 35, 90, 60}}, {"caption", [4]float64{10, 61, 90, 64}},
			{"l2", [4]float64{5, 68, 48, 90}}, {"r2", [4]float64{52, 68, 95, 90}},
		}, "l1 r1 figure caption l2 r2"},
		{"figure across columns at the top", []piece{
			{"figure", [4]float64{10, 5, 90, 30}}, {"l1", [4]float64{5, 35, 48, 90}},
			{"r1", [4]float64{52, 35, 95, 60}}, {"r2", [4]float64{52, 62, 95, 90}},
		}, "figure l1 r1 r2"},
		{"figure in one column", []piece{
			{"l1", [4]float64{5, 10, 48, 30}}, {"figure", [4]float64{5, 32, 48, 60}}, {"l2", [4]float64{5, 62, 48, 90}},
			{"r1", [4]float64{52, 10, 95, 90}},
		}, "l1 figure l2 r1"},
		{"three columns", []piece{
			{"c1", [4]float64{66, 12, 95, 50}}, {"b1", [4]float64{35, 11, 64, 90}}, {"a1", [4]float64{5, 14, 33, 50}},
			{"a2", [4]float64{5, 52, 33, 90}}, {"c2", [4]float64{66, 52, 95, 90}},
		}, "a1 a2 b1 c1 c2"},
		{"headers and footers stand in columns but frame the page", []piece{
			{"header-r", [4]float64{60, 1, 95, 3}}, {"header-l", [4]float64{5, 1, 30, 3}},
			{"l1", [4]float64{5, 10, 48, 90}}, {"r1", [4]float64{52, 10, 95, 90}},
			{"footer-l", [4]float64{5, 95, 30, 98}}, {"footer-r", [4]float64{80, 95, 95, 98}},
		}, "header-l header-r l1 r1 footer-l footer-r"},
		{"a header found below its text is a header still", []piece{
			{"a", [4]float64{5, 10, 95, 50}}, {"header", [4]float64{5, 60, 95, 63}},
		}, "header a"},
		{"slide: title, two blocks, source line", []piece{
			{"title", [4]float64{5, 5, 60, 15}}, {"left", [4]float64{5, 25, 45, 80}},
			{"right", [4]float64{55, 20, 95, 80}}, {"source", [4]float64{5, 90, 95, 95}},
		}, "title left right source"},
		{"boxes of one column whose centres are at one height", []piece{
			{"inside", [4]float64{10, 25, 40, 35}}, {"figure", [4]float64{5, 10, 60, 50}}, {"beside", [4]float64{30, 10, 80, 50}},
		}, "figure beside inside"},
		{"text inside a figure's box", []piece{
			{"figure", [4]float64{5, 10, 95, 60}}, {"inside", [4]float64{10, 40, 40, 45}}, {"a", [4]float64{5, 65, 95, 90}},
		}, "figure inside a"},
		{"above is what has its middle above", []piece{
			{"figure", [4]float64{50, 30, 70, 80}}, {"across", [4]float64{40, 40, 90, 50}},
		}, "across figure"},
		{"what spans both stands between also where the left one is below", []piece{
			{"right", [4]float64{80, 30, 120, 40}}, {"across", [4]float64{40, 40, 100, 70}}, {"left", [4]float64{60, 30, 70, 90}},
		}, "right across left"},
		{"text makes no order among headers", []piece{
			{"header-r", [4]float64{60, 20, 70, 70}}, {"a", [4]float64{40, 40, 70, 100}}, {"header-l", [4]float64{0, 70, 60, 120}},
		}, "header-l header-r a"},
		{"a header between two columns does not part them", []piece{
			{"right", [4]float64{60, 10, 80, 40}}, {"header", [4]float64{50, 50, 80, 70}}, {"left", [4]float64{10, 90, 60, 100}},
		}, "header left right"},
		{"boxes that contradict: the one with the fewest before it", []piece{
			{"a", [4]float64{70, 20, 80, 50}}, {"b", [4]float64{10, 40, 70, 70}}, {"c", [4]float64{0, 60, 20, 120}},
			{"d", [4]float64{10, 50, 20, 110}}, {"e", [4]float64{50, 30, 80, 60}},
		}, "e b d c a"},
		{"headers that contradict are headers still", []piece{
			{"header-a", [4]float64{40, 40, 90, 90}}, {"header-b", [4]float64{80, 0, 120, 10}}, {"text", [4]float64{40, 40, 50, 80}},
			{"header-c", [4]float64{70, 10, 90, 30}}, {"header-d", [4]float64{40, 90, 60, 120}},
		}, "header-b header-c header-a header-d text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := readNames(tt.pieces); got != tt.want {
				t.Errorf("read as %q, want %q", got, tt.want)
			}
			// The order must not depend on the order of detection.
			rng := rand.New(rand.NewPCG(1, 2))
			for range 20 {
				shuffled := slices.Clone(tt.pieces)
				rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
				if got := readNames(shuffled); got != tt.want {
					t.Fatalf("shuffled to %v: read as %q, want %q", shuffled, got, tt.want)
				}
			}
		})
	}
}

// Whatever the boxes, each region gets one place and no place is left empty.
func TestReadingOrderIsPermutation(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 300 {
		n := rng.IntN(40)
		regions := make([]orchestrator.Region, n)
		labels := []string{labelText, labelPageHeader, labelPageFooter, labelPicture}
		for i := range regions {
			x, y := rng.Float64()*100, rng.Float64()*100
			regions[i] = orchestrator.Region{
				Label: labels[rng.IntN(len(labels))],
				BBox:  [4]float64{x, y, x + rng.Float64()*60, y + rng.Float64()*60},
			}
		}
		setReadingOrder(regions)
		seen := make([]bool, n)
		for _, r := range regions {
			if r.Order < 0 || r.Order >= n || seen[r.Order] {
				t.Fatalf("order %d given twice or out of range in %v", r.Order, regions)
			}
			seen[r.Order] = true
		}
	}
}

// Boxes on a coarse grid are level in every way that there is.
func TestReadingOrderDependsOnTheBoxesAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var pieces []piece
		for range rng.IntN(12) {
			x, y := float64(rng.IntN(4)), float64(rng.IntN(4))
			box := [4]float64{x, y, x + 1 + float64(rng.IntN(3)), y + 1 + float64(rng.IntN(3))}
			if !slices.ContainsFunc(pieces, func(p piece) bool { return p.box == box }) {
				pieces = append(pieces, piece{fmt.Sprint(box), box})
			}
		}
		want := readNames(pieces)
		rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		if got := readNames(pieces); got != want {
			t.Fatalf("shuffled to %v: read as %q, want %q", pieces, got, want)
		}
	}
}

func BenchmarkReadingOrderWorstPage(b *testing.B) {
	rng := rand.New(rand.NewPCG(7, 7))
	regions := make([]orchestrator.Region, 300)
	for i := range regions {
		x, y := rng.Float64()*600, rng.Float64()*800
		regions[i].BBox = [4]float64{x, y, x + 10, y + 10}
	}
	for b.Loop() {
		setReadingOrder(regions)
	}
}
