//go:build linux

package mupdf

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"quire/bench/pages"
	"quire/examples"
	"quire/orchestrator/render/internal/pdftest"
)

// orders are documents whose pages use one thing in ways that are all but the
// same: what MuPDF keeps of it for one page is not right for another. And those
// like real ones.
func orders(t *testing.T) map[string][]byte {
	t.Helper()
	const (
		a4      = "/MediaBox[0 0 595 842]"
		hatch   = "/Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 7 7]/XStep 7/YStep 7/Resources<<>>"
		strokes = "1 0 0 rg 1 1 3.3 2.7 re f 0 0 1 RG 0 0 m 7 7 l S"
		letters = "/FontBBox[0 0 20 20]/FirstChar 0/LastChar 0/Widths[2.3]/Encoding<</Type/Encoding/Differences[0/a]>>/CharProcs<</a 8 0 R>>"
	)
	all := map[string][]byte{"one picture": onePicture()}
	for dir, files := range map[string]fs.FS{"examples": examples.Files, "bench/pages": pages.Files} {
		names, err := fs.Glob(files, "*.pdf")
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		for _, name := range names {
			if all[path.Join(dir, name)], err = fs.ReadFile(files, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	each := func(attrs, content string, values ...float64) *pdftest.File {
		var list []pdftest.Page
		for _, v := range values {
			put := func(text string) string { return strings.ReplaceAll(text, "V", fmt.Sprintf("%.6f", v)) }
			list = append(list, pdftest.Page{Attrs: put(attrs), Content: put(content)})
		}
		return pdftest.Simple("", list...)
	}

	f := each(a4+"/Resources<</XObject<</F 9 0 R>>>>", "q 1 0 0 1 V V cm /F Do Q", 50, 50.37, 51.9)
	f.Stream("/Type/XObject/Subtype/Form/BBox[0 0 500 500]/Resources<</Pattern<</P 10 0 R>>>>", []byte("/Pattern cs /P scn 0 0 400 400 re f"))
	f.Stream(hatch, []byte(strokes))
	all["a pattern in a form that stands elsewhere"] = f.Bytes()

	f = each(a4+"/Resources<</Pattern<</P 9 0 R>>/ExtGState<</G<</ca V>>>>>>", "/G gs /Pattern cs /P scn 50 50 400 400 re f", 1, 0.5, 0.2)
	f.Stream(hatch, []byte(strokes))
	all["a pattern that shines through"] = f.Bytes()

	// Large ones go another way than small ones, and small ones that are drawn large
	// are kept elsewhere.
	for _, as := range []struct{ size, drawn float64 }{{10, 10}, {200, 10}, {10, 1}} {
		size := as.size
		for mode, name := range []string{"filled", "stroked"} {
			text := fmt.Sprintf("BT %d Tr /F 1 Tf %g 0 0 %[2]g 100 100 Tm <00> Tj ET", mode, size)
			f = pdftest.Simple("",
				pdftest.Page{Attrs: a4 + "/Resources<</Font<</F 7 0 R>>>>", Content: text},
				pdftest.Page{Attrs: a4 + "/Resources<</XObject<</G 9 0 R>>>>", Content: "/G Do"})
			f.Add(fmt.Sprintf("<</Type/Font/Subtype/Type3/FontMatrix[%g 0 0 %[1]g 0 0]%s>>", as.drawn/size, letters))
			f.Stream("", []byte("2 0 d0 1 0 0 rg 0 0 m 13.3 17.1 l 4 0 l f 0 1 0 rg 5 5 4 4 re f"))
			f.Stream("/Type/XObject/Subtype/Form/BBox[0 0 500 500]/Group<</S/Transparency/CS/DeviceGray/I true>>/Resources<</Font<</F 7 0 R>>>>", []byte(text))
			all[fmt.Sprintf("letters of %g in colour and in a grey group, %s, drawn as of %g", size, name, as.drawn)] = f.Bytes()
		}
	}

	// One letter, filled and in outlines of every kind.
	ways := []string{"1 Tr 4 w", "1 Tr 4 w 2 M", "1 Tr 4 w 1 j", "1 Tr 4 w 2 j", "1 Tr 4 w 1 J", "1 Tr 4 w [3 1] 0 d", "0 Tr", "1 Tr", "2 Tr", "2 Tr 0.5 w", "1 Tr 4 w"}
	var outlines []pdftest.Page
	for i := range 2 * len(ways) {
		scale := float64(1 + i/len(ways))
		outlines = append(outlines, pdftest.Page{
			Attrs:   fmt.Sprintf("%s/Resources<</Font<</F %d 0 R>>>>", a4, 3+2*2*len(ways)),
			Content: fmt.Sprintf("%g 0 0 %[1]g 0 0 cm BT /F %g Tf %s %g %[4]g Td (W) Tj ET", scale, 80/scale, ways[i%len(ways)], 100/scale),
		})
	}
	f = pdftest.Simple("", outlines...)
	f.Add("<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
	all["letters in outlines"] = f.Bytes()

	f = each(a4+"/Resources<</Font<</F 9 0 R>>/ExtGState<</G<</ca V>>>>>>", "BT /F 1 Tf 10 0 0 10 100 100 Tm <00> Tj ET", 1, 0.5, 0.2)
	f.Add("<</Type/Font/Subtype/Type3/FontMatrix[1 0 0 1 0 0]" + strings.Replace(letters, "8 0 R", "10 0 R", 1) + ">>")
	f.Stream("", []byte("2 0 d0 /G gs 0 0 m 13.3 17.1 l 4 0 l f"))
	all["letters that use what is the page's"] = f.Bytes()
	all["a repair on the way"] = repairedAtTheThird(1)
	return all
}

// onePicture is a document whose pages show one picture, large and small, whole and
// in part, and one pattern that begins at several places in a pixel.
func onePicture() []byte {
	const w, h = 640, 832
	resources := "/Resources<</XObject<</I 15 0 R>>/Pattern<</P 16 0 R>>>>"
	whole := "q 152 0 0 200 0 0 cm /I Do Q"
	small := "q 70 0 0 90 20 30 cm /I Do Q"
	part := "q 10 10 80 100 re W n 152 0 0 200 0 0 cm /I Do Q"
	pattern := "/Pattern cs /P scn 5 5 140 190 re f"
	at := "/MediaBox[%[1]g %[1]g %[2]g %[3]g]" + resources
	page := func(origin float64, content string) pdftest.Page {
		return pdftest.Page{Attrs: fmt.Sprintf(at, origin, origin+152, origin+200), Content: content}
	}
	f := pdftest.Simple("", page(0, whole), page(0, small), page(0, part), page(0, pattern), page(0.4, pattern), page(2.7, pattern+" "+small))
	f.Stream(fmt.Sprintf("/Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceRGB/BitsPerComponent 8/Filter/FlateDecode", w, h),
		pdftest.Deflate(noise(rand.New(rand.NewPCG(7, 8)), w*h*3))) // object 15
	f.Stream("/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 7 7]/XStep 7/YStep 7/Resources<<>>", []byte("1 0 0 rg 1 1 3 3 re f")) // object 16
	return f.Bytes()
}

// A page's pixels are its own, whatever was drawn before it.
func TestPagesDoNotDependOnTheirOrder(t *testing.T) {
	const w, h = 304, 400
	for name, data := range orders(t) {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			n := open(t, e, data)
			draw := func(page int) []byte {
				rgb := make([]byte, w*h*3)
				if _, err := e.Draw(page, w, h, false, rgb); err != nil {
					t.Errorf("page %d: %v", page+1, err)
				}
				return rgb
			}
			alone := make([][]byte, n)
			for page := range n {
				open(t, e, data)
				alone[page] = draw(page)
				if !slices.ContainsFunc(alone[page], func(v byte) bool { return v != 255 }) {
					t.Errorf("page %d is empty", page+1)
				}
			}
			order := make([]int, n)
			for i := range order {
				order[i] = i
			}
			for range 2 {
				open(t, e, data)
				for _, page := range order {
					got, differ := draw(page), 0
					for i := range got {
						if got[i] != alone[page][i] {
							differ++
						}
					}
					if differ > 0 {
						t.Errorf("in the order %v page %d has %d bytes that it does not have alone", order, page+1, differ)
					}
				}
				slices.Reverse(order)
			}
		})
	}
}

// A letter that is drawn in colour and in a grey group of one page is in each what
// it is there, whichever comes first, and whether it is small enough to be kept or not.
func TestLettersInTwoColourSpaces(t *testing.T) {
	const w, h = 600, 800
	for _, size := range []float64{1, 10} { // of 14×18 and of 140×180 pixels
		text := func(x float64) string {
			return fmt.Sprintf("BT /F 1 Tf %g 0 0 %[1]g %g 100 Tm <00> Tj ET", size, x)
		}
		const group = "/G Do"
		f := pdftest.Simple("",
			pdftest.Page{Attrs: "/MediaBox[0 0 600 800]/Resources<</Font<</F 7 0 R>>/XObject<</G 9 0 R>>>>", Content: text(100) + " " + group},
			pdftest.Page{Attrs: "/MediaBox[0 0 600 800]/Resources<</Font<</F 7 0 R>>/XObject<</G 9 0 R>>>>", Content: group + " " + text(100)})
		f.Add("<</Type/Font/Subtype/Type3/FontMatrix[1 0 0 1 0 0]/FontBBox[0 0 14 18]/FirstChar 0/LastChar 0/Widths[2]/Encoding<</Type/Encoding/Differences[0/a]>>/CharProcs<</a 8 0 R>>/Resources<<>>>>")
		f.Stream("", []byte("2 0 d0 1 0 0 rg 0 0 14 18 re f"))
		f.Stream("/Type/XObject/Subtype/Form/BBox[0 0 600 800]/Group<</S/Transparency/CS/DeviceGray/I true>>/Resources<</Font<</F 7 0 R>>>>", []byte(text(300)))
		e := newEngine(t)
		for page := range open(t, e, f.Bytes()) {
			rgb := make([]byte, w*h*3)
			if _, err := e.Draw(page, w, h, false, rgb); err != nil {
				t.Fatal(err)
			}
			in := int(7 * size) // the middle of the letter
			coloured, grey := at(rgb, w, 100+in, h-100-in), at(rgb, w, 300+in, h-100-in)
			if coloured != red || grey[0] != grey[1] || grey[1] != grey[2] || grey == white || grey == black {
				t.Errorf("size %g, page %d: %v in colour and %v in grey", size, page+1, coloured, grey)
			}
		}
	}
}

// The letters of a Type 3 font may be as large as the page; they are not kept.
func TestLargeLettersAreNotKept(t *testing.T) {
	const letters, w, h = 64, 152, 200
	var list []pdftest.Page
	for i := range letters {
		list = append(list, pdftest.Page{Attrs: fmt.Sprintf("/MediaBox[0 0 595 842]/Resources<</Font<</F %d 0 R>>>>", 3+2*letters), Content: fmt.Sprintf("BT /F 1 Tf <%02x> Tj ET", i)})
	}
	f := pdftest.Simple("", list...)
	var procs, names strings.Builder
	for i := range letters {
		fmt.Fprintf(&procs, "/g%d %d 0 R", i, 4+2*letters)
		fmt.Fprintf(&names, "/g%d", i)
	}
	f.Add(fmt.Sprintf("<</Type/Font/Subtype/Type3/FontBBox[0 0 595 842]/FontMatrix[1 0 0 1 0 0]/FirstChar 0/LastChar %d/Widths[%s]/Encoding<</Type/Encoding/Differences[0%s]>>/CharProcs<<%s>>>>",
		letters-1, strings.Repeat("1 ", letters), &names, &procs))
	f.Stream("", []byte("1 0 d0 1 0 0 rg 50 50 500 700 re f"))
	e := newEngine(t)
	open(t, e, f.Bytes())
	var before int64
	for i := range letters {
		rgb := make([]byte, w*h*3)
		if _, err := e.Draw(i, w, h, false, rgb); err != nil {
			t.Fatal(err)
		}
		if at(rgb, w, w/2, h/2) != red {
			t.Errorf("page %d is %v", i+1, at(rgb, w, w/2, h/2))
		}
		if i == 0 {
			before = e.Used()
		}
	}
	if grown := e.Used() - before; grown > 10*w*h*4 {
		t.Errorf("%d bytes are held after the last page that were not after the first", grown)
	}
}

// A document does not take ever more memory for fonts that had a page's resources,
// and is opened again for that as seldom as it can be.
func TestFontsWithAPagesResources(t *testing.T) {
	const memory, pages = 16 << 20, 4000
	e, err := New(memory, memory/4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	f := pdftest.Simple("", pdftest.Page{
		Attrs:   "/MediaBox[0 0 200 100]/Resources<</Font<</F 5 0 R>>/ExtGState<</G<</ca 0.5>>>>>>",
		Content: "BT /F 1 Tf 9 0 0 9 9 9 Tm <00> Tj ET",
	})
	f.Add("<</Type/Font/Subtype/Type3/FontMatrix[1 0 0 1 0 0]/FontBBox[0 0 20 20]/FirstChar 0/LastChar 0/Widths[2]/Encoding<</Differences[0/a]>>/CharProcs<</a 6 0 R>>>>")
	f.Stream("", []byte("2 0 d0 /G gs 0 0 5 5 re f"))
	open(t, e, f.Bytes())
	again, rgb := 0, make([]byte, 20*10*3)
	for range pages {
		if _, err := e.Draw(0, 20, 10, false, rgb); err != nil {
			t.Fatal(err)
		}
		if e.Used() > memory*3/4 {
			t.Fatalf("%d bytes are used", e.Used())
		}
		if e.tainted {
			again++
		}
	}
	if again == 0 || again > pages/100 {
		t.Errorf("opened again %d times", again)
	}
}

// Nor for fonts of all its pages, which the document holds on to until it is closed.
func TestFontsOfEachPage(t *testing.T) {
	const memory, pages, letters = 16 << 20, 300, 60
	e, err := New(memory, memory/4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	var list []pdftest.Page
	for i := range pages {
		list = append(list, pdftest.Page{
			Attrs:   fmt.Sprintf("/MediaBox[0 0 200 100]/Resources<</Font<</F %d 0 R>>>>", 3+2*pages+i),
			Content: "BT /F 1 Tf 9 0 0 9 9 9 Tm <00> Tj ET",
		})
	}
	f := pdftest.Simple("", list...)
	var procs, names strings.Builder
	for l := range letters {
		fmt.Fprintf(&procs, "/a%d %d 0 R", l, 3+3*pages)
		fmt.Fprintf(&names, "/a%d", l)
	}
	for range pages {
		f.Add(fmt.Sprintf("<</Type/Font/Subtype/Type3/Resources<<>>/FontMatrix[1 0 0 1 0 0]/FontBBox[0 0 20 20]/FirstChar 0/LastChar %d/Widths[%s]/Encoding<</Differences[0%s]>>/CharProcs<<%s>>>>",
			letters-1, strings.Repeat("2 ", letters), &names, &procs))
	}
	f.Stream("", []byte("2 0 d0 0 0 5 5 re f"))
	open(t, e, f.Bytes())
	again, rgb := 0, make([]byte, 20*10*3)
	for i := range pages {
		if _, err := e.Draw(i, 20, 10, false, rgb); err != nil {
			t.Fatalf("page %d: %v; %d bytes are used", i+1, err, e.Used())
		}
		if e.tainted {
			again++
		}
	}
	if again == 0 || again > pages/10 {
		t.Errorf("opened again %d times", again)
	}
}
