package report

import (
	"image"
	"image/color"
	"strings"
	"sync"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// fonts are parsed once; they are read-only and carried in the binary.
var fonts = sync.OnceValue(func() (f struct{ regular, bold *opentype.Font }) {
	f.regular, f.bold = parse(goregular.TTF), parse(gobold.TTF)
	return f
})

func parse(ttf []byte) *opentype.Font {
	f, err := opentype.Parse(ttf)
	if err != nil {
		panic("report: a font of this program's own does not parse: " + err.Error())
	}
	return f
}

// hand writes in one size. It is for one goroutine.
type hand struct {
	regular, bold font.Face
	ascent        int
	height        int // of a line of capitals with what goes below, in pixels
}

func newHand(pixels float64) *hand {
	f := fonts()
	h := &hand{regular: face(f.regular, pixels), bold: face(f.bold, pixels)}
	m := h.regular.Metrics()
	h.ascent, h.height = m.Ascent.Ceil(), m.Ascent.Ceil()+m.Descent.Ceil()
	return h
}

func face(f *opentype.Font, pixels float64) font.Face {
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: pixels, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		panic("report: " + err.Error()) // only for options that are none
	}
	return face
}

// run is text in one face.
type run struct {
	text string
	bold bool
}

func (h *hand) face(r run) font.Face {
	if r.bold {
		return h.bold
	}
	return h.regular
}

// width is how many pixels the runs take, one after another.
func (h *hand) width(runs ...run) int {
	var w fixed.Int26_6
	for _, r := range runs {
		w += font.MeasureString(h.face(r), r.text)
	}
	return w.Ceil()
}

// write puts the runs with their upper left corner at a point.
func (h *hand) write(dst *image.RGBA, at image.Point, c color.RGBA, runs ...run) {
	d := font.Drawer{Dst: dst, Src: image.NewUniform(c), Dot: fixed.P(at.X, at.Y+h.ascent)}
	for _, r := range runs {
		d.Face = h.face(r)
		d.DrawString(r.text)
	}
}

// shorten takes characters from the middle of a text until it fits.
func (h *hand) shorten(text string, bold bool, width int) string {
	const gap = "…"
	runes := []rune(text)
	for cut := 1; h.width(run{text, bold}) > width && cut < len(runes); cut++ {
		left := (len(runes) - cut + 1) / 2
		text = string(runes[:left]) + gap + string(runes[left+cut:])
	}
	return text
}

// lines breaks a text between words so that no line is wider than width, if
// its words are not.
func (h *hand) lines(text string, width int) []string {
	var all []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		longer := word
		if line != "" {
			longer = line + " " + word
		}
		if line != "" && h.width(run{text: longer}) > width {
			all = append(all, line)
			longer = word
		}
		line = longer
	}
	if line != "" {
		all = append(all, line)
	}
	return all
}
