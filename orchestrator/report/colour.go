package report

import (
	"hash/fnv"
	"image/color"
	"math"
)

// The colours are Paul Tol's "muted" scheme, which people with any common
// colour-vision deficiency can tell apart (personal.sron.nl/~pault, fig. 4).
// No colour stands alone: each box also bears its label.
var (
	indigo = color.RGBA{0x33, 0x22, 0x88, 255}
	cyan   = color.RGBA{0x88, 0xcc, 0xee, 255}
	teal   = color.RGBA{0x44, 0xaa, 0x99, 255}
	green  = color.RGBA{0x11, 0x77, 0x33, 255}
	olive  = color.RGBA{0x99, 0x99, 0x33, 255}
	sand   = color.RGBA{0xdd, 0xcc, 0x77, 255}
	rose   = color.RGBA{0xcc, 0x66, 0x77, 255}
	wine   = color.RGBA{0x88, 0x22, 0x55, 255}
	purple = color.RGBA{0xaa, 0x44, 0x99, 255}
)

// Colour gives the colour of a label, the same in every picture. The labels
// that the usual model gives have one each; others share them.
func Colour(label string) color.RGBA {
	switch label {
	case "text":
		return indigo
	case "section_header":
		return rose
	case "picture":
		return teal
	case "table":
		return green
	case "caption":
		return olive
	case "page_header":
		return sand
	case "page_footer":
		return cyan
	case "reference":
		return purple
	case "formula":
		return wine
	}
	all := [...]color.RGBA{wine, purple, teal, olive, rose, cyan, green, sand, indigo}
	h := fnv.New32a()
	_, _ = h.Write([]byte(label)) // never fails
	return all[h.Sum32()%uint32(len(all))]
}

// ink gives black or white, whichever can be read better on a ground of this
// colour.
func ink(ground color.RGBA) color.RGBA {
	if contrast(ground, white) >= contrast(ground, black) {
		return white
	}
	return black
}

// contrast is the ratio of two colours' luminances, from 1 to 21 (WCAG 2.2,
// "contrast ratio").
func contrast(a, b color.RGBA) float64 {
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// luminance is WCAG 2.2's "relative luminance".
func luminance(c color.RGBA) float64 {
	linear := func(v uint8) float64 {
		s := float64(v) / 255
		if s <= 0.04045 {
			return s / 12.92
		}
		return math.Pow((s+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
}

// mix is the colour of a ground under a layer of this opacity, 0 to 1.
func mix(ground, layer color.RGBA, opacity float64) color.RGBA {
	part := func(a, b uint8) uint8 { return uint8(math.Round(float64(a)*(1-opacity) + float64(b)*opacity)) }
	return color.RGBA{part(ground.R, layer.R), part(ground.G, layer.G), part(ground.B, layer.B), 255}
}
