package report

import (
	"image"
	"image/color"
	"image/draw"
	"math"
	"strings"
	"testing"

	"quire/orchestrator"
)

// sheet is a page of one colour, in a shade that no other part of a picture has.
var sheet = color.RGBA{253, 254, 252, 255}

func blank(width, height int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.Draw(m, m.Bounds(), image.NewUniform(sheet), image.Point{}, draw.Src)
	return m
}

func region(label string, order int, box ...float64) orchestrator.Region {
	return orchestrator.Region{Label: label, Score: 0.875, BBox: [4]float64(box), Order: order}
}

// find gives the smallest rectangle that holds all pixels of a colour.
func find(m *image.RGBA, c color.RGBA) image.Rectangle {
	var r image.Rectangle
	for y := range m.Bounds().Max.Y {
		for x := range m.Bounds().Max.X {
			if m.RGBAAt(x, y) == c {
				r = r.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return r
}

func want(t *testing.T, m *image.RGBA, x, y int, c color.RGBA, what string) {
	t.Helper()
	if got := m.RGBAAt(x, y); got != c {
		t.Errorf("%s, pixel %d,%d: %v, want %v", what, x, y, got, c)
	}
}

// A page of 700×1400 pixels stands for 350×700 points here: lengths have the
// size they are given in, and a point is two pixels.
func TestBoxEdges(t *testing.T) {
	m := Picture(Page{Image: blank(700, 1400), Width: 350, Height: 700, Regions: []orchestrator.Region{region("table", 0, 50, 100, 300, 400)}})
	page := find(m, sheet)
	if page.Dx() != 700 || page.Dy() != 1400 {
		t.Fatalf("the page takes %v, want 700×1400", page)
	}
	left, top, right, bottom := page.Min.X+100, page.Min.Y+200, page.Min.X+600, page.Min.Y+800
	colour, inner := Colour("table"), mix(sheet, Colour("table"), tint)
	for x := left; x < right; x++ {
		want(t, m, x, top, inner, "upper edge")
		want(t, m, x, bottom-1, inner, "lower edge")
		for i := 1; i <= 3; i++ {
			want(t, m, x, bottom-1+i, colour, "lower border")
		}
		want(t, m, x, bottom-1+4, sheet, "below")
	}
	for y := top; y < bottom; y++ {
		want(t, m, left, y, inner, "left edge")
		want(t, m, right-1, y, inner, "right edge")
		for i := 1; i <= 3; i++ {
			want(t, m, left-i, y, colour, "left border")
			want(t, m, right-1+i, y, colour, "right border")
		}
		want(t, m, left-4, y, sheet, "left of it")
		want(t, m, right-1+4, y, sheet, "right of it")
	}
	// The tag stands on the border's upper left corner.
	want(t, m, left-3, top-4, colour, "tag")
	want(t, m, right+2, top-4, sheet, "above the right corner")
	light := 0
	for y := top - 25; y < top-3; y++ {
		for x := left; x < left+150; x++ {
			if p := m.RGBAAt(x, y); contrast(p, colour) > 4 && p != sheet {
				light++
			}
		}
	}
	if light < 100 {
		t.Errorf("%d pixels of writing on the tag", light)
	}
}

// A region at the edge of the page, beyond it, or without area still shows.
func TestBoxesAreCutToThePage(t *testing.T) {
	for _, c := range []struct {
		name string
		box  []float64
	}{
		{"all of it", []float64{0, 0, 100, 100}},
		{"beyond it", []float64{-50, -50, 500, 500}},
		{"outside", []float64{200, 200, 300, 300}},
		{"nothing", []float64{50, 50, 50, 50}},
		{"no number", []float64{math.NaN(), 0, 50, math.Inf(1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			page := Page{Image: blank(400, 400), Width: 100, Height: 100, Regions: []orchestrator.Region{region("formula", 0, c.box...)}}
			m := Picture(page)
			if found := find(m, Colour("formula")); found.Empty() {
				t.Error("there is no box")
			}
		})
	}
}

func TestLegendAndTags(t *testing.T) {
	labels := []string{"text", "section_header", "picture", "table", "caption", "page_header", "page_footer", "reference", "formula"}
	var regions []orchestrator.Region
	for i, l := range labels[:7] {
		y := float64(20 + 90*i)
		regions = append(regions, region(l, i, 20, y, 330, y+60))
	}
	m := Picture(Page{Image: blank(700, 1400), Width: 350, Height: 700, Regions: regions, Title: "a.pdf", About: "model"})
	page := find(m, sheet)
	legend := image.Rect(0, page.Max.Y+2, m.Bounds().Max.X, m.Bounds().Max.Y)
	below := m.SubImage(legend).(*image.RGBA)
	seen := map[color.RGBA]bool{}
	for i, l := range labels {
		c := Colour(l)
		if seen[c] {
			t.Errorf("%s shares its colour", l)
		}
		seen[c] = true
		if contrast(ink(c), c) < 4.5 {
			t.Errorf("%s: writing has a contrast of %.1f, WCAG wants 4.5", l, contrast(ink(c), c))
		}
		n := 0
		for y := legend.Min.Y; y < legend.Max.Y; y++ {
			for x := range legend.Max.X {
				if below.RGBAAt(x, y) == c {
					n++
				}
			}
		}
		if (n > 100) != (i < 7) {
			t.Errorf("%s: %d pixels in the legend", l, n)
		}
	}
}

// Tags stay off each other, and off print where there is room beside it.
func TestTagsKeepOff(t *testing.T) {
	page := blank(1400, 1400)
	print := image.Rect(200, 60, 800, 97) // above the box
	draw.Draw(page, print, image.NewUniform(color.Black), image.Point{}, draw.Src)
	m := Picture(Page{Image: page, Width: 1400, Height: 1400, Regions: []orchestrator.Region{
		region("text", 0, 200, 100, 800, 300),
		region("table", 1, 200, 700, 800, 900), region("picture", 2, 200, 700, 801, 900), region("caption", 3, 201, 700, 801, 900),
	}})
	at := find(m, sheet).Min
	for y := print.Min.Y; y < print.Max.Y; y++ {
		for x := print.Min.X; x < print.Max.X; x++ {
			want(t, m, at.X+x, at.Y+y, color.RGBA{A: 255}, "print")
			if t.Failed() {
				return
			}
		}
	}
	for _, l := range []string{"table", "picture", "caption"} {
		// Tags are the only places where a colour is this tall.
		if tall := tallest(m, Colour(l)); tall < 15 {
			t.Errorf("the tag of %s is covered: its colour is at most %d pixels tall", l, tall)
		}
	}
}

// tallest is the height of the tallest block of 3×n pixels of one colour on the
// page, as far as it does not go on for ever as borders do.
func tallest(m *image.RGBA, c color.RGBA) int {
	most := 0
	for x := 0; x+8 < m.Bounds().Max.X; x++ {
		run := 0
		for y := range m.Bounds().Max.Y {
			if m.RGBAAt(x, y) == c && m.RGBAAt(x+4, y) == c {
				run++
				continue
			}
			if run < 100 {
				most = max(most, run)
			}
			run = 0
		}
	}
	return most
}

func TestNoteInPlaceOfAPage(t *testing.T) {
	m := Picture(Page{Note: strings.Repeat("This page failed for a reason of many words. ", 20), Regions: []orchestrator.Region{region("text", 0, 0, 0, 1, 1)}, Title: "a.pdf"})
	if !find(m, Colour("text")).Empty() {
		t.Error("a region of a page that is not shown")
	}
	if words := find(m, black); words.Dx() < 500 || words.Dy() < 200 {
		t.Errorf("the note takes %v", words)
	}
}

// Whatever the page's shape, all of the title and the legend is there.
func TestShapes(t *testing.T) {
	for _, size := range []image.Point{{1, 1}, {1, 1400}, {1400, 1}, {1400, 1400}, {30, 20}} {
		m := Picture(Page{Image: blank(size.X, size.Y), Width: 10, Height: 10, Title: strings.Repeat("a long name/", 40) + "a.pdf", About: "model",
			Regions: []orchestrator.Region{region("text", 0, 1, 1, 9, 9), region("a label that is not known", 1, 0, 0, 2, 2)}})
		if b := m.Bounds(); b.Dx() < 300 || b.Dx() > 1500 || b.Dy() > 1700 {
			t.Errorf("page of %v: a picture of %v", size, b)
		}
		for _, l := range []string{"text", "a label that is not known"} {
			if find(m, Colour(l)).Empty() {
				t.Errorf("page of %v: no %s", size, l)
			}
		}
		right := m.Bounds().Max.X - 1
		for y := range m.Bounds().Max.Y {
			want(t, m, right, y, paper, "right margin")
		}
	}
}

func TestShorten(t *testing.T) {
	h := newHand(20)
	for _, text := range []string{"", "a", "short.pdf", strings.Repeat("ü", 200) + ".pdf"} {
		got := h.shorten(text, true, 150)
		if h.width(run{got, true}) > 150 {
			t.Errorf("%q does not fit", got)
		}
		if len(text) < 10 && got != text {
			t.Errorf("%q became %q", text, got)
		}
		if len(text) > 10 && !strings.HasSuffix(got, ".pdf") {
			t.Errorf("%q lost its end", got)
		}
	}
}

// A note is broken between words, and nothing of it is lost.
func TestLines(t *testing.T) {
	h := newHand(20)
	wide := h.width(run{text: "one two"})
	for text, want := range map[string]string{
		"": "", "  ": "", "one": "one", "word-that-is-much-wider b": "word-that-is-much-wider|b", "one two": "one two", "one two three\n four": "one two|three|four",
		"one twofold": "one|twofold", "a word-that-is-much-wider b c": "a|word-that-is-much-wider|b c",
	} {
		if got := h.lines(text, wide); strings.Join(got, "|") != want || want == "" && len(got) != 0 {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	// The middle goes, and no more of it than must.
	full := "some/directory/paper.pdf"
	short := h.shorten(full, false, h.width(run{text: full})-1)
	before, after, cut := strings.Cut(short, "…")
	if !cut || !strings.HasPrefix(full, before) || !strings.HasSuffix(full, after) || len(before)+len(after) < len(full)-4 || len(before)-len(after) > 1 || len(after)-len(before) > 1 {
		t.Errorf("%q of %q", short, full)
	}
	if got := h.shorten("abc", false, 1); got != "a…" {
		t.Errorf("%q where nothing fits", got)
	}
	if got := h.shorten(full, false, h.width(run{text: full})); got != full {
		t.Errorf("%q of %q, which fits", got, full)
	}
}

// In the legend the most frequent label stands first, and those that are as frequent
// by their names.
func TestLegendOrder(t *testing.T) {
	order := []string{"text", "caption", "formula", "picture", "table"}
	regions := []orchestrator.Region{region("text", 0, 1, 1, 2, 2)}
	for i, label := range []string{"table", "picture", "text", "formula", "caption"} {
		regions = append(regions, region(label, i+1, 3, 3, 4, 4))
	}
	m := Picture(Page{Image: blank(600, 400), Width: 10, Height: 10, Regions: regions, Title: "a.pdf"})
	legend := m.SubImage(image.Rect(0, find(m, sheet).Max.Y+2, m.Bounds().Max.X, m.Bounds().Max.Y)).(*image.RGBA)
	last := image.Point{}
	for _, label := range order {
		at := find(legend, Colour(label)).Min
		if at.X <= last.X || last.Y != 0 && at.Y != last.Y {
			t.Errorf("%s is at %v, what comes before it at %v", label, at, last)
		}
		last = at
	}
}
