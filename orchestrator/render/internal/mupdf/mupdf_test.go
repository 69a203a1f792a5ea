//go:build linux

package mupdf

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quire/orchestrator/render/internal/pdftest"
)

const (
	mib   = 1 << 20
	limit = 512 * mib
	store = 64 * mib
)

func newEngine(t testing.TB) *Engine {
	t.Helper()
	e, err := New(limit, store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func file(t testing.TB, data []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.pdf")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t testing.TB, e *Engine, data []byte, passwords ...string) int {
	t.Helper()
	n, err := e.Open(file(t, data), PDF, passwords)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func reason(t *testing.T, err error) Reason {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want *Error", err)
	}
	return e.Reason
}

// corners is a drawing whose four corners of 100×50 units differ: red at the
// lower left, green lower right, blue upper left, black upper right.
func corners(x, y float64) string {
	return fmt.Sprintf("1 0 0 rg %[1]g %[2]g 50 25 re f 0 1 0 rg %[3]g %[2]g 50 25 re f 0 0 1 rg %[1]g %[4]g 50 25 re f 0 g %[3]g %[4]g 50 25 re f", x, y, x+50, y+25)
}

var (
	red   = [3]byte{255, 0, 0}
	green = [3]byte{0, 255, 0}
	blue  = [3]byte{0, 0, 255}
	black = [3]byte{0, 0, 0}
	white = [3]byte{255, 255, 255}
)

func at(rgb []byte, width, x, y int) [3]byte {
	return [3]byte(rgb[(y*width+x)*3:])
}

// quarters tells the colours in the middles of the four quarters of a raster:
// upper left, upper right, lower left, lower right.
func quarters(rgb []byte, w, h int) [4][3]byte {
	return [4][3]byte{at(rgb, w, w/4, h/4), at(rgb, w, 3*w/4, h/4), at(rgb, w, w/4, 3*h/4), at(rgb, w, 3*w/4, 3*h/4)}
}

func TestGeometryAndPixels(t *testing.T) {
	upright := [4][3]byte{blue, black, red, green}
	for _, c := range []struct {
		name, attrs  string
		x, y         float64
		width, hight float64
		rotation     int
		crop         [4]float64
		want         [4][3]byte
	}{
		{"plain", "/MediaBox[0 0 100 50]", 0, 0, 100, 50, 0, [4]float64{0, 0, 100, 50}, upright},
		{"corners in the other order", "/MediaBox[100 50 0 0]", 0, 0, 100, 50, 0, [4]float64{0, 0, 100, 50}, upright},
		{"rotated 90", "/MediaBox[0 0 100 50]/Rotate 90", 0, 0, 50, 100, 90, [4]float64{0, 0, 100, 50}, [4][3]byte{red, blue, green, black}},
		{"rotated 180", "/MediaBox[0 0 100 50]/Rotate 180", 0, 0, 100, 50, 180, [4]float64{0, 0, 100, 50}, [4][3]byte{green, red, black, blue}},
		{"rotated 270", "/MediaBox[0 0 100 50]/Rotate 270", 0, 0, 50, 100, 270, [4]float64{0, 0, 100, 50}, [4][3]byte{black, green, blue, red}},
		{"rotated -90", "/MediaBox[0 0 100 50]/Rotate -90", 0, 0, 50, 100, 270, [4]float64{0, 0, 100, 50}, [4][3]byte{black, green, blue, red}},
		{"rotated 450", "/MediaBox[0 0 100 50]/Rotate 450", 0, 0, 50, 100, 90, [4]float64{0, 0, 100, 50}, [4][3]byte{red, blue, green, black}},
		{"origin elsewhere", "/MediaBox[-500 1000 -400 1050]", -500, 1000, 100, 50, 0, [4]float64{-500, 1000, -400, 1050}, upright},
		{"cropped", "/MediaBox[0 0 300 300]/CropBox[70 90 170 140]", 70, 90, 100, 50, 0, [4]float64{70, 90, 170, 140}, upright},
		{"cropped and rotated", "/MediaBox[0 0 300 300]/CropBox[70 90 170 140]/Rotate 90", 70, 90, 50, 100, 90, [4]float64{70, 90, 170, 140}, [4][3]byte{red, blue, green, black}},
		{"crop box wider than the media box", "/MediaBox[0 0 100 50]/CropBox[-100 -100 200 200]", 0, 0, 100, 50, 0, [4]float64{0, 0, 100, 50}, upright},
		{"crop box half outside", "/MediaBox[0 0 100 50]/CropBox[50 -30 150 50]", 0, 0, 50, 50, 0, [4]float64{50, 0, 100, 50}, [4][3]byte{black, black, green, green}},
		{"crop box outside", "/MediaBox[0 0 100 50]/CropBox[500 500 600 600]", 0, 0, 100, 50, 0, [4]float64{0, 0, 100, 50}, upright},
		{"empty crop box", "/MediaBox[0 0 100 50]/CropBox[0 0 0 0]", 0, 0, 100, 50, 0, [4]float64{0, 0, 100, 50}, upright},
		{"crop box that is no box", "/MediaBox[0 0 100 50]/CropBox[/a 0 1]", 0, 0, 100, 50, 0, [4]float64{0, 0, 100, 50}, upright},
		{"user unit", "/MediaBox[0 0 100 50]/UserUnit 2", 0, 0, 200, 100, 0, [4]float64{0, 0, 100, 50}, upright},
		{"user unit, rotated, cropped", "/MediaBox[0 0 300 300]/CropBox[70 90 170 140]/Rotate 270/UserUnit 2.5", 70, 90, 125, 250, 270, [4]float64{70, 90, 170, 140}, [4][3]byte{black, green, blue, red}},
		{"user unit 0", "/MediaBox[0 0 100 50]/UserUnit 0", 0, 0, 100, 50, 0, [4]float64{0, 0, 100, 50}, upright},
		{"user unit below 0", "/MediaBox[0 0 100 50]/UserUnit -3", 0, 0, 100, 50, 0, [4]float64{0, 0, 100, 50}, upright},
		{"no media box", "", 0, 0, 612, 792, 0, [4]float64{0, 0, 612, 792}, [4][3]byte{white, white, white, white}},
		{"empty media box", "/MediaBox[10 10 10 10]", 0, 0, 612, 792, 0, [4]float64{0, 0, 612, 792}, [4][3]byte{white, white, white, white}},
		{"huge", "/MediaBox[0 0 14400 14400]", 0, 0, 14400, 14400, 0, [4]float64{0, 0, 14400, 14400}, [4][3]byte{white, white, white, white}},
		{"huge, in a user unit", "/MediaBox[0 0 100 50]/UserUnit 75000", 0, 0, 7500000, 3750000, 0, [4]float64{0, 0, 100, 50}, upright},
		{"less than a unit", "/MediaBox[0.25 0.25 0.75 0.5]", 0.25, 0.25, 0.5, 0.25, 0, [4]float64{0.25, 0.25, 0.75, 0.5}, [4][3]byte{red, red, red, red}},
		{"narrow strip", "/MediaBox[0 0 100 50]/CropBox[0 24.5 100 25.5]", 0, 0, 100, 1, 0, [4]float64{0, 24.5, 100, 25.5}, upright},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t)
			open(t, e, pdftest.Simple("", pdftest.Page{Attrs: c.attrs, Content: corners(c.x, c.y)}).Bytes())
			// Neither the page's shape nor square pixels.
			const w, h = 61, 80
			rgb := make([]byte, w*h*3)
			page, err := e.Draw(0, w, h, false, rgb)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(page.WidthPt-c.width) > 1e-9*c.width || math.Abs(page.HeightPt-c.hight) > 1e-9*c.hight {
				t.Errorf("size %g×%g, want %g×%g", page.WidthPt, page.HeightPt, c.width, c.hight)
			}
			if page.Rotation != c.rotation || page.CropBox != c.crop {
				t.Errorf("rotation %d crop %v, want %d %v", page.Rotation, page.CropBox, c.rotation, c.crop)
			}
			if got := quarters(rgb, w, h); got != c.want {
				t.Errorf("quarters %v, want %v", got, c.want)
			}
		})
	}
}

func TestBoxesAreInherited(t *testing.T) {
	f := &pdftest.File{}
	f.Add("<</Type/Catalog/Pages 2 0 R>>")
	f.Add("<</Type/Pages/Count 1/Kids[3 0 R]/MediaBox[0 0 300 300]/Rotate 90>>")
	f.Add("<</Type/Pages/Parent 2 0 R/Count 1/Kids[4 0 R]/CropBox[70 90 170 140]>>")
	f.Add("<</Type/Page/Parent 3 0 R/Contents 5 0 R>>")
	f.Stream("", []byte(corners(70, 90)))
	e := newEngine(t)
	open(t, e, f.Bytes())
	rgb := make([]byte, 40*40*3)
	page, err := e.Draw(0, 40, 40, false, rgb)
	if err != nil {
		t.Fatal(err)
	}
	if page.WidthPt != 50 || page.HeightPt != 100 || page.Rotation != 90 {
		t.Errorf("got %+v", page)
	}
	if got, want := quarters(rgb, 40, 40), [4][3]byte{red, blue, green, black}; got != want {
		t.Errorf("quarters %v, want %v", got, want)
	}
}

// TestStretching checks edges to the pixel where the page is scaled by 4 one
// way and by 2 the other.
func TestStretching(t *testing.T) {
	e := newEngine(t)
	open(t, e, pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 100 100]", Content: "1 0 0 rg 10 20 30 40 re f"}).Bytes())
	const w, h = 400, 200
	rgb := make([]byte, w*h*3)
	if _, err := e.Draw(0, w, h, false, rgb); err != nil {
		t.Fatal(err)
	}
	for y := range h {
		for x := range w {
			want := white
			if x >= 40 && x < 160 && y >= 80 && y < 160 {
				want = red
			}
			if got := at(rgb, w, x, y); got != want {
				t.Fatalf("pixel %d,%d is %v, want %v", x, y, got, want)
			}
		}
	}
}

func TestAnnotationsAndFormFields(t *testing.T) {
	f := &pdftest.File{}
	f.Add("<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[6 0 R]>>>>")
	f.Add("<</Type/Pages/Count 1/Kids[3 0 R]>>")
	f.Add("<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 50]/Annots[4 0 R 6 0 R]>>")
	f.Add("<</Type/Annot/Subtype/Stamp/Rect[0 0 50 25]/F 4/AP<</N 5 0 R>>>>")
	f.Stream("/Type/XObject/Subtype/Form/BBox[0 0 50 25]", []byte("1 0 0 rg 0 0 50 25 re f"))
	f.Add("<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/Rect[50 25 100 50]/F 4/AP<</N 7 0 R>>>>")
	f.Stream("/Type/XObject/Subtype/Form/BBox[0 0 50 25]", []byte("0 0 1 rg 0 0 50 25 re f"))
	e := newEngine(t)
	open(t, e, f.Bytes())
	const w, h = 100, 50
	rgb := make([]byte, w*h*3)
	if _, err := e.Draw(0, w, h, false, rgb); err != nil {
		t.Fatal(err)
	}
	if got, want := quarters(rgb, w, h), [4][3]byte{white, blue, red, white}; got != want {
		t.Errorf("quarters %v, want %v", got, want)
	}
}

func TestPassword(t *testing.T) {
	f := pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 100 50]", Content: corners(0, 0)})
	f.Encrypt("sesame")
	e := newEngine(t)
	for _, passwords := range [][]string{nil, {"a", "b"}} {
		_, err := e.Open(file(t, f.Bytes()), PDF, passwords)
		if reason(t, err) != Encrypted {
			t.Errorf("passwords %q: %v", passwords, err)
		}
	}
	if n := open(t, e, f.Bytes(), "wrong", "sesame"); n != 1 {
		t.Fatalf("%d pages", n)
	}
	rgb := make([]byte, 40*40*3)
	if _, err := e.Draw(0, 40, 40, false, rgb); err != nil {
		t.Fatal(err)
	}
	if got, want := quarters(rgb, 40, 40), [4][3]byte{blue, black, red, green}; got != want {
		t.Errorf("quarters %v, want %v", got, want)
	}
}

func TestEndlessPageIsStopped(t *testing.T) {
	e := newEngine(t)
	open(t, e, pdftest.Endless())
	rgb := make([]byte, 40*40*3)
	timer := time.AfterFunc(50*time.Millisecond, e.Abort)
	defer timer.Stop()
	_, err := e.Draw(0, 40, 40, false, rgb)
	if reason(t, err) != Aborted {
		t.Fatal(err)
	}
	e.Resume()
	open(t, e, pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 100 50]", Content: corners(0, 0)}).Bytes())
	if _, err := e.Draw(0, 40, 40, false, rgb); err != nil {
		t.Fatal(err)
	}
}

func TestMemory(t *testing.T) {
	e := newEngine(t)
	rgb := make([]byte, 40*40*3)
	before := e.Used()
	open(t, e, pdftest.Bomb(100_000)) // 1.25 GB
	_, err := e.Draw(0, 40, 40, false, rgb)
	if reason(t, err) != Memory {
		t.Fatal(err)
	}
	open(t, e, pdftest.Bomb(100))
	if _, err := e.Draw(0, 40, 40, false, rgb); err != nil {
		t.Fatal(err)
	}
	e.closeDocument()
	if grown := e.Used() - before; grown > mib {
		t.Errorf("%d bytes are still held", grown)
	}
}

func TestPageCounts(t *testing.T) {
	page := "<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 50]>>"
	for _, c := range []struct {
		name  string
		tree  []string // objects 2, 3, …
		want  int
		drawn int // how many of them can be drawn
	}{
		{"right", []string{"<</Type/Pages/Count 2/Kids[3 0 R 4 0 R]>>", page, page}, 2, 2},
		{"too high", []string{"<</Type/Pages/Count 2000000000/Kids[3 0 R 4 0 R]>>", page, page}, 2, 2},
		{"too low", []string{"<</Type/Pages/Count 1/Kids[3 0 R 4 0 R]>>", page, page}, 2, 2},
		{"below zero", []string{"<</Type/Pages/Count -7/Kids[3 0 R 4 0 R]>>", page, page}, 2, 2},
		{"missing", []string{"<</Type/Pages/Kids[3 0 R 4 0 R]>>", page, page}, 2, 2},
		{"inner counts wrong", []string{"<</Type/Pages/Count 9/Kids[3 0 R 4 0 R]>>", "<</Type/Pages/Count 5/Kids[5 0 R]>>", page, page}, 2, 2},
		{"no types", []string{"<</Count 3/Kids[3 0 R 4 0 R]>>", "<</Kids[5 0 R 6 0 R]/Count 1>>", "<</MediaBox[0 0 9 9]>>", "<</MediaBox[0 0 9 9]>>", page}, 3, 3},
		{"a kid that is not there", []string{"<</Type/Pages/Count 2/Kids[99 0 R 3 0 R]>>", page}, 2, 1},
		{"a page twice", []string{"<</Type/Pages/Count 2/Kids[3 0 R 3 0 R]>>", page}, 2, 2},
		{"a kid that is the root", []string{"<</Type/Pages/Count 3/Kids[3 0 R 2 0 R 4 0 R]>>", page, page}, 2, 2},
		{"a kid that leads back", []string{"<</Type/Pages/Count 3/Kids[3 0 R 4 0 R]>>", "<</Type/Pages/Kids[2 0 R 3 0 R 5 0 R]>>", page, page}, 2, 2},
		{"nothing but a loop", []string{"<</Type/Pages/Count 1/Kids[2 0 R]>>"}, 0, 0},
		{"none", []string{"<</Type/Pages/Count 0/Kids[]>>"}, 0, 0},
		{"none, says many", []string{"<</Type/Pages/Count 12/Kids[]>>"}, 0, 0},
		{"the tree is a page", []string{"<</Type/Page/MediaBox[0 0 100 50]>>"}, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &pdftest.File{}
			f.Add("<</Type/Catalog/Pages 2 0 R>>")
			for _, o := range c.tree {
				f.Add(o)
			}
			e := newEngine(t)
			n := open(t, e, f.Bytes())
			if n != c.want {
				t.Fatalf("%d pages, want %d", n, c.want)
			}
			drawn := 0
			for i := range n {
				if _, err := e.Draw(i, 10, 10, false, make([]byte, 300)); err == nil {
					drawn++
				} else if t.Log(err); reason(t, err) != Malformed {
					t.Error(err)
				}
			}
			if drawn != c.drawn {
				t.Errorf("%d pages drawn, want %d", drawn, c.drawn)
			}
		})
	}
}

// TestSharedKids has a page tree of 2^30 leaves in 31 objects.
func TestSharedKids(t *testing.T) {
	f := &pdftest.File{}
	f.Add("<</Type/Catalog/Pages 2 0 R>>")
	for i := range 30 {
		f.Add(fmt.Sprintf("<</Type/Pages/Count %d/Kids[%d 0 R %d 0 R]>>", 1<<(30-i), 3+i, 3+i))
	}
	f.Add("<</Type/Page/MediaBox[0 0 9 9]>>")
	e := newEngine(t)
	if n := open(t, e, f.Bytes()); n > 10_000 {
		t.Errorf("%d pages", n)
	}
}

func TestMessages(t *testing.T) {
	e := newEngine(t)
	open(t, e, pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 9 9]", Content: "/None Do"}).Bytes())
	e.Messages()
	if _, err := e.Draw(0, 10, 10, false, make([]byte, 300)); err != nil {
		t.Fatal(err)
	}
	if lines, lost := e.Messages(); len(lines) == 0 || lost != 0 {
		t.Errorf("got %q, %d lost", lines, lost)
	}
	if lines, _ := e.Messages(); len(lines) != 0 {
		t.Errorf("told twice: %q", lines)
	}
}

func TestNotAPDF(t *testing.T) {
	e := newEngine(t)
	for _, data := range []string{"", "hello", "%PDF-1.7\n"} {
		_, err := e.Open(file(t, []byte(data)), PDF, nil)
		if reason(t, err) != Malformed {
			t.Errorf("%q: %v", data, err)
		}
	}
}

// Messages that fill the room for them to the last byte are told, and those
// after them are counted.
func TestMessagesFillTheirRoom(t *testing.T) {
	const room = 8192 // messages of inside.h
	e := newEngine(t)
	said := func(names []string) ([]string, int) {
		content := ""
		for _, name := range names {
			content += "/" + name + " Do\n"
		}
		open(t, e, pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 9 9]", Content: content}).Bytes())
		e.Messages()
		if _, err := e.Draw(0, 10, 10, false, make([]byte, 300)); err != nil {
			t.Fatal(err)
		}
		return e.Messages()
	}
	one, _ := said([]string{"N"})
	if len(one) != 2 { // the page has something to say, too
		t.Fatalf("got %q", one)
	}
	around := len(one[0]) // an end of line comes, the name goes
	for _, more := range []int{-1, 0, 1} {
		var names, want []string
		for left := room + more; left > 0; {
			n := min(100, left-around)
			if rest := left - around - n; rest > 0 && rest < around+4 {
				n -= around + 4
			}
			names = append(names, fmt.Sprintf("%0*d", n, len(names)))
			left -= around + n
		}
		free, wantLost := room, 0
		for _, line := range append(slices.Clone(names), one[1]) {
			if line != one[1] {
				line = strings.Replace(one[0], "N", line, 1)
			}
			if len(line)+1 > free {
				wantLost++
				continue
			}
			free -= len(line) + 1
			want = append(want, line)
		}
		if lines, lost := said(names); !slices.Equal(lines, want) || lost != wantLost {
			t.Errorf("%d bytes: %d lines and %d lost, want %d and %d", room+more, len(lines), lost, len(want), wantLost)
		}
	}
	if lines, lost := said([]string{"N"}); !slices.Equal(lines, one) || lost != 0 {
		t.Errorf("afterwards: %q, %d lost", lines, lost)
	}
}

// What is kept of earlier pages makes way for what a page needs.
func TestStoreMakesWay(t *testing.T) {
	const pages, w, h = 20, 1200, 1600
	e, err := New(24*mib, store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	var list []pdftest.Page
	for i := range pages {
		list = append(list, pdftest.Page{Attrs: fmt.Sprintf("/MediaBox[0 0 600 800]/Resources<</XObject<</I %d 0 R>>>>", 3+2*pages+i), Content: "600 0 0 800 0 0 cm /I Do"})
	}
	f := pdftest.Simple("", list...)
	for i := range pages {
		f.Stream(fmt.Sprintf("/Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceRGB/BitsPerComponent 8/Filter/FlateDecode", w, h),
			pdftest.Deflate(bytes.Repeat([]byte{byte(i), 0, 0}, w*h)))
	}
	open(t, e, f.Bytes())
	most := int64(0)
	for i := range pages {
		rgb := make([]byte, 600*800*3)
		if _, err := e.Draw(i, 600, 800, false, rgb); err != nil || at(rgb, 600, 300, 400) != [3]byte{byte(i), 0, 0} {
			t.Errorf("page %d: %v, %v", i+1, err, at(rgb, 600, 300, 400))
		}
		most = max(most, e.Used())
	}
	if most < 12*mib {
		t.Errorf("no more than %d bytes were kept: this test shows nothing", most)
	}
}

// A document that is closed holds nothing: no fonts, no letters, no pictures.
func TestClosedDocumentHoldsNothing(t *testing.T) {
	e := newEngine(t)
	draw := func(data []byte) int64 {
		for page := range open(t, e, data) {
			if _, err := e.Draw(page, 304, 400, false, make([]byte, 304*400*3)); err != nil {
				t.Fatal(err)
			}
		}
		e.closeDocument()
		return e.Used()
	}
	all := orders(t)
	paper := all["examples/paper.pdf"]
	if paper == nil {
		t.Fatal("no paper.pdf")
	}
	before := draw(pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 9 9]"}).Bytes())
	for name, data := range all {
		if grown := draw(data) - before; grown > 64<<10 {
			t.Errorf("%s: %d bytes are still held", name, grown)
		}
	}
}
