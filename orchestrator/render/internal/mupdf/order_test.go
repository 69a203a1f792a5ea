//go:build linux

package mupdf

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"testing"

	"quire/bench/pages"
	"quire/examples"
	"quire/orchestrator/render/internal/pdftest"
)

// shared is a document whose pages show one picture, large and small, whole and
// in part, and one pattern that begins at several places in a pixel.
func shared() []byte {
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

// What a page looks like does not depend on the pages before it: forwards,
// backwards, and each page alone in a document that was just opened.
func TestOrder(t *testing.T) {
	documents := map[string][]byte{"shared": shared()}
	for dir, files := range map[string]fs.FS{"examples": examples.Files, "bench/pages": pages.Files} {
		names, err := fs.Glob(files, "*.pdf")
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		for _, name := range names {
			if documents[path.Join(dir, name)], err = fs.ReadFile(files, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, data := range documents {
		t.Run(name, func(t *testing.T) {
			const w, h = 152, 200
			e := newEngine(t)
			draw := func(page int) []byte {
				rgb := make([]byte, w*h*3)
				if _, err := e.Draw(page, w, h, false, rgb); err != nil {
					t.Fatalf("page %d: %v", page+1, err)
				}
				return rgb
			}
			n := open(t, e, data)
			alone := make([][]byte, n)
			for page := range n {
				open(t, e, data)
				alone[page] = draw(page)
			}
			same := func(order string, page int) {
				if !bytes.Equal(draw(page), alone[page]) {
					t.Errorf("page %d looks different, drawn %s", page+1, order)
				}
			}
			open(t, e, data)
			for page := range n {
				same("after those before it", page)
			}
			open(t, e, data)
			for page := n - 1; page >= 0; page-- {
				same("after those behind it", page)
			}
		})
	}
}
