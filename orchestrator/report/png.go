package report

import (
	"cmp"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"slices"
	"sort"
)

// maxError is the root mean square error of a channel, of 255, up to which 256
// colours stand for all those of a picture. Print and grey scans stay below 1;
// colour photographs are above, and would show bands.
const maxError = 2

// WritePNG writes a picture that has no transparent part. Where 256 colours are
// enough, as for most printed pages, it takes a third of the space by them.
func WritePNG(w io.Writer, picture *image.RGBA) error {
	if few := reduce(picture); few != nil {
		return png.Encode(w, few)
	}
	return png.Encode(w, picture)
}

// Colours are told apart by the upper cellBits bits of each channel.
const cellBits = 6

func cellOf(r, g, b uint8) int {
	const drop = 8 - cellBits
	return int(r>>drop)<<(2*cellBits) | int(g>>drop)<<cellBits | int(b>>drop)
}

// cell is the pixels of almost one colour: how many, and for each channel the
// sum and the sum of squares of their values.
type cell struct {
	at           int
	n            float64
	sum, squares [3]float64
}

// group is cells that will have one colour.
type group struct {
	cells        []cell
	n            float64
	sum, squares [3]float64
}

func newGroup(cells []cell) group {
	g := group{cells: cells}
	for _, c := range cells {
		g.n += c.n
		for i := range 3 {
			g.sum[i] += c.sum[i]
			g.squares[i] += c.squares[i]
		}
	}
	return g
}

// spread is the sum of squared distances from the mean in one channel.
func (g *group) spread(channel int) float64 {
	return max(0, g.squares[channel]-g.sum[channel]*g.sum[channel]/g.n)
}

// worst is the channel with the largest spread, and that spread; a group that
// cannot be split has none.
func (g *group) worst() (channel int, spread float64) {
	if len(g.cells) < 2 {
		return 0, -1
	}
	for i := range 3 {
		if s := g.spread(i); s > spread {
			channel, spread = i, s
		}
	}
	return channel, spread
}

// split divides a group at the mean of its worst channel.
func (g *group) split() (group, group) {
	channel, _ := g.worst()
	mean := g.sum[channel] / g.n
	cells := slices.Clone(g.cells)
	slices.SortFunc(cells, func(a, b cell) int {
		return cmp.Or(cmp.Compare(a.sum[channel]/a.n, b.sum[channel]/b.n), cmp.Compare(a.at, b.at))
	})
	k := sort.Search(len(cells), func(i int) bool { return cells[i].sum[channel]/cells[i].n >= mean })
	k = min(max(k, 1), len(cells)-1)
	return newGroup(cells[:k]), newGroup(cells[k:])
}

// reduce gives the picture in 256 colours at most, or nil when it would look
// different: colours are split in two where they lie furthest apart until there
// are as many as may be (Wan, Wong and Prusinkiewicz 1990, in the RGB cube).
func reduce(picture *image.RGBA) *image.Paletted {
	size := picture.Bounds()
	all := make([]cell, 1<<(3*cellBits))
	for y := size.Min.Y; y < size.Max.Y; y++ {
		row := picture.Pix[picture.PixOffset(size.Min.X, y):picture.PixOffset(size.Max.X, y)]
		for i := 0; i < len(row); i += 4 {
			c := &all[cellOf(row[i], row[i+1], row[i+2])]
			c.n++
			for k := range 3 {
				v := float64(row[i+k])
				c.sum[k] += v
				c.squares[k] += v * v
			}
		}
	}
	var used []cell
	for i := range all {
		if all[i].n > 0 {
			all[i].at = i
			used = append(used, all[i])
		}
	}
	groups := []group{newGroup(used)}
	for len(groups) < 256 {
		worst, most := -1, 0.0
		for i := range groups {
			if _, s := groups[i].worst(); s > most {
				worst, most = i, s
			}
		}
		if worst < 0 {
			break
		}
		a, b := groups[worst].split()
		groups[worst] = a
		groups = append(groups, b)
	}
	var squares, n float64
	index := make([]uint8, len(all))
	palette := make(color.Palette, len(groups))
	for i, g := range groups {
		for k := range 3 {
			squares += g.spread(k)
		}
		n += g.n
		mean := func(k int) uint8 { return uint8(math.Round(g.sum[k] / g.n)) }
		palette[i] = color.RGBA{mean(0), mean(1), mean(2), 255}
		for _, c := range g.cells {
			index[c.at] = uint8(i)
		}
	}
	if math.Sqrt(squares/(3*n)) > maxError {
		return nil
	}
	few := image.NewPaletted(size, palette)
	for y := size.Min.Y; y < size.Max.Y; y++ {
		row := picture.Pix[picture.PixOffset(size.Min.X, y):picture.PixOffset(size.Max.X, y)]
		to := few.Pix[few.PixOffset(size.Min.X, y):]
		for i := 0; i < len(row); i += 4 {
			to[i/4] = index[cellOf(row[i], row[i+1], row[i+2])]
		}
	}
	return few
}
