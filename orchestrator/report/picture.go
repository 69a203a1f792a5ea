package report

import (
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"slices"

	"quire/orchestrator"
)

var (
	white = color.RGBA{255, 255, 255, 255}
	black = color.RGBA{20, 20, 20, 255}
	grey  = color.RGBA{110, 110, 110, 255}
	frame = color.RGBA{190, 190, 190, 255}
	paper = color.RGBA{244, 244, 244, 255} // around the page
)

// tint is how opaque the inside of a region is.
const tint = 0.10

// Page is what a picture is made of.
type Page struct {
	// Image is the page as displayed, of the page's own shape. It is nil when
	// there is none to show.
	Image image.Image
	// Width and Height are the lengths that the whole of Image stands for, in
	// the unit of the regions' boxes.
	Width, Height float64
	Regions       []orchestrator.Region
	// Title says what is shown, About where the regions come from.
	Title, About string
	// Note is shown in the place of the page when Image is nil.
	Note string
}

// Picture draws a page with its regions: a box in the colour of its label, with
// its place in reading order (from 1), label and score; below it a title and a
// legend. Boxes are drawn around their regions and tags where they cover least,
// so that what was found can still be read.
func Picture(p Page) *image.RGBA {
	if p.Image == nil || !(p.Width > 0 && p.Height > 0) {
		p.Regions = nil // nowhere to draw them
	}
	size := image.Pt(800, 600)
	if p.Image != nil {
		size = p.Image.Bounds().Size()
	}
	// Lengths go with the picture, so that it looks the same at any size.
	unit := max(float64(max(size.X, size.Y))/1400, 0.5)
	c := &canvas{
		unit: unit,
		tags: newHand(17 * unit), words: newHand(21 * unit),
		page: p, border: length(3, unit), gap: length(14, unit),
	}
	c.lay(size)
	c.ground()
	c.boxes()
	c.below()
	return c.to
}

func length(pixels, unit float64) int { return max(1, int(math.Round(pixels*unit))) }

// canvas is a picture in the making.
type canvas struct {
	unit        float64
	tags, words *hand
	page        Page
	border, gap int

	to     *image.RGBA
	at     image.Rectangle // where the page is
	legend []entry         // with their places
	title  image.Point
}

// entry is a label in the legend.
type entry struct {
	label string
	count int
	at    image.Point
}

// lay finds a place for everything and makes the canvas.
func (c *canvas) lay(size image.Point) {
	width := max(size.X, length(600, c.unit)) + 2*c.gap
	c.at = image.Rectangle{Max: size}.Add(image.Pt((width-size.X)/2, c.gap))
	y := c.at.Max.Y + c.gap
	c.title = image.Pt(c.gap, y)
	y += c.words.height + c.gap/2

	counts := map[string]int{}
	for _, r := range c.page.Regions {
		counts[r.Label]++
	}
	for label, n := range counts {
		c.legend = append(c.legend, entry{label: label, count: n})
	}
	slices.SortFunc(c.legend, func(a, b entry) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.label, b.label))
	})
	x := c.gap
	for i := range c.legend {
		e := &c.legend[i]
		w := c.swatch().X + c.gap/2 + c.words.width(e.runs()...)
		if x > c.gap && x+w > width-c.gap {
			x = c.gap
			y += c.words.height + c.gap/2
		}
		e.at = image.Pt(x, y)
		x += w + 2*c.gap
	}
	if len(c.legend) > 0 {
		y += c.words.height + c.gap/2
	}
	c.to = image.NewRGBA(image.Rect(0, 0, width, y+c.gap/2))
}

func (e *entry) runs() []run {
	return []run{{text: e.label + " "}, {text: fmt.Sprint(e.count), bold: true}}
}

// swatch is the size of a colour in the legend.
func (c *canvas) swatch() image.Point { return image.Pt(c.words.height*3/2, c.words.height) }

// ground draws what lies under the regions.
func (c *canvas) ground() {
	draw.Draw(c.to, c.to.Bounds(), image.NewUniform(paper), image.Point{}, draw.Src)
	line := length(1, c.unit)
	draw.Draw(c.to, c.at.Inset(-line), image.NewUniform(frame), image.Point{}, draw.Src)
	draw.Draw(c.to, c.at, image.NewUniform(white), image.Point{}, draw.Src)
	if c.page.Image != nil {
		draw.Draw(c.to, c.at, c.page.Image, c.page.Image.Bounds().Min, draw.Over)
		return
	}
	at := c.at.Min.Add(image.Pt(2*c.gap, 2*c.gap))
	for _, line := range c.words.lines(c.page.Note, c.at.Dx()-4*c.gap) {
		c.words.write(c.to, at, black, run{text: line})
		at.Y += c.words.height * 5 / 4
	}
}

// boxes draws the regions and their tags.
func (c *canvas) boxes() {
	regions := slices.Clone(c.page.Regions)
	// Small ones last: they may lie inside large ones.
	slices.SortStableFunc(regions, func(a, b orchestrator.Region) int {
		return cmp.Compare(area(b.BBox), area(a.BBox))
	})
	under := image.NewRGBA(c.to.Bounds())
	copy(under.Pix, c.to.Pix)
	for _, r := range regions {
		c.box(c.place(r.BBox), Colour(r.Label))
	}
	slices.SortStableFunc(regions, func(a, b orchestrator.Region) int { return cmp.Compare(a.Order, b.Order) })
	var taken []image.Rectangle
	for _, r := range regions {
		taken = append(taken, c.tag(under, r, taken))
	}
}

func area(b [4]float64) float64 { return (b[2] - b[0]) * (b[3] - b[1]) }

// place is where a box lies on the canvas, cut to the page.
func (c *canvas) place(b [4]float64) image.Rectangle {
	on := func(v, of float64, low, high int) int {
		share := v / of
		if !(share > 0) { // nor a number, maybe
			share = 0
		}
		return low + int(math.Round(min(share, 1)*float64(high-low)))
	}
	x := func(v float64) int { return on(v, c.page.Width, c.at.Min.X, c.at.Max.X) }
	y := func(v float64) int { return on(v, c.page.Height, c.at.Min.Y, c.at.Max.Y) }
	return image.Rect(x(b[0]), y(b[1]), x(b[2]), y(b[3]))
}

// box tints a region and draws its border, around and not inside it.
func (c *canvas) box(r image.Rectangle, colour color.RGBA) {
	outer := r.Inset(-c.border).Intersect(c.to.Bounds())
	for y := outer.Min.Y; y < outer.Max.Y; y++ {
		for x := outer.Min.X; x < outer.Max.X; x++ {
			if image.Pt(x, y).In(r) {
				c.to.SetRGBA(x, y, mix(c.to.RGBAAt(x, y), colour, tint))
			} else {
				c.to.SetRGBA(x, y, colour)
			}
		}
	}
}

// tag writes what a region is and returns where.
func (c *canvas) tag(under *image.RGBA, r orchestrator.Region, taken []image.Rectangle) image.Rectangle {
	runs := []run{{text: fmt.Sprint(r.Order+1) + " ", bold: true}, {text: fmt.Sprintf("%s %.2f", r.Label, r.Score)}}
	pad := length(5, c.unit)
	size := image.Pt(c.tags.width(runs...)+2*pad, c.tags.height+length(1, c.unit))
	at := c.spot(under, c.place(r.BBox).Inset(-c.border), size, taken)
	colour := Colour(r.Label)
	draw.Draw(c.to, at, image.NewUniform(colour), image.Point{}, draw.Src)
	c.tags.write(c.to, at.Min.Add(image.Pt(pad, 0)), ink(colour), runs...)
	return at
}

// spot finds the place along a box's edge, outside or inside, where a tag
// covers least: of other tags, then of what is printed on the page.
func (c *canvas) spot(under *image.RGBA, box image.Rectangle, size image.Point, taken []image.Rectangle) image.Rectangle {
	left, right := box.Min.X, box.Max.X-size.X
	above, below := box.Min.Y-size.Y, box.Max.Y
	top, bottom := box.Min.Y, box.Max.Y-size.Y
	best, least := image.Rectangle{}, math.MaxInt
	// In order of preference.
	for i, p := range []image.Point{
		{left, above}, {right, above}, {left, below}, {right, below},
		{box.Max.X, top}, {box.Min.X - size.X, top},
		{left, top}, {right, top}, {left, bottom}, {right, bottom},
	} {
		r := image.Rectangle{p, p.Add(size)}
		r = r.Add(image.Pt(inside(r.Min.X, r.Max.X, 0, c.to.Bounds().Max.X), inside(r.Min.Y, r.Max.Y, 0, c.at.Max.Y)))
		cost := 2*i + c.printed(under, r)
		for _, t := range taken {
			if o := r.Intersect(t); !o.Empty() {
				cost += 10 * o.Dx() * o.Dy()
			}
		}
		if cost < least {
			best, least = r, cost
		}
	}
	return best
}

// inside is by how much to move from..to so that it lies in low..high, or
// begins at low where it is longer.
func inside(from, to, low, high int) int {
	move := min(0, high-to)
	return max(move, low-from)
}

// printed counts the pixels in a rectangle that differ from paper.
func (c *canvas) printed(under *image.RGBA, r image.Rectangle) int {
	n := 0
	r = r.Intersect(c.at)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		row := under.Pix[under.PixOffset(r.Min.X, y):under.PixOffset(r.Max.X, y)]
		for i := 0; i < len(row); i += 4 {
			if int(row[i])+int(row[i+1])+int(row[i+2]) < 3*200 {
				n++
			}
		}
	}
	return n
}

// below writes the title and the legend.
func (c *canvas) below() {
	room := c.to.Bounds().Dx() - 2*c.gap
	about := c.words.shorten(c.page.About, false, room/2)
	w := c.words.width(run{text: about})
	title := c.words.shorten(c.page.Title, true, room-w-c.gap)
	c.words.write(c.to, c.title, black, run{text: title, bold: true})
	c.words.write(c.to, c.title.Add(image.Pt(room-w, 0)), grey, run{text: about})
	for _, e := range c.legend {
		colour := Colour(e.label)
		at := image.Rectangle{e.at, e.at.Add(c.swatch())}
		draw.Draw(c.to, at, image.NewUniform(colour), image.Point{}, draw.Src)
		draw.Draw(c.to, at.Inset(c.border), image.NewUniform(mix(white, colour, tint)), image.Point{}, draw.Src)
		c.words.write(c.to, image.Pt(at.Max.X+c.gap/2, e.at.Y), black, e.runs()...)
	}
}
