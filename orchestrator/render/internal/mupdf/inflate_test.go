//go:build linux

package mupdf

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"math/rand/v2"
	"testing"

	"quire/orchestrator/render/internal/pdftest"
)

// predicted puts PNG's predictors before rows of pixels (PNG specification, 9.2):
// the first of hows before the first row, and so on, over and over.
func predicted(pixels []byte, stride, bpp int, hows ...int) []byte {
	var out []byte
	above := make([]byte, stride)
	for y := 0; y*stride < len(pixels); y++ {
		row := pixels[y*stride:][:stride]
		how := hows[y%len(hows)]
		out = append(out, byte(how))
		for i, v := range row {
			var left, corner byte
			if i >= bpp {
				left, corner = row[i-bpp], above[i-bpp]
			}
			switch how {
			case 1:
				v -= left
			case 2:
				v -= above[i]
			case 3:
				v -= byte((int(left) + int(above[i])) / 2)
			case 4:
				p := int(left) + int(above[i]) - int(corner)
				distance := func(b byte) int { return max(p-int(b), int(b)-p) }
				switch a, b, c := distance(left), distance(above[i]), distance(corner); {
				case a <= b && a <= c:
					v -= left
				case b <= c:
					v -= above[i]
				default:
					v -= corner
				}
			}
			out = append(out, v)
		}
		above = row
	}
	return out
}

// pictured draws a page that is one picture, of data that is deflated.
func pictured(t *testing.T, entries string, data []byte) []byte {
	t.Helper()
	return picturedBy(t, "FlateDecode", entries, data)
}

func picturedBy(t *testing.T, filter, entries string, data []byte) []byte {
	t.Helper()
	f := pdftest.Simple("", pdftest.Page{
		Attrs:   "/MediaBox[0 0 80 60]/Resources<</XObject<</I 5 0 R>>>>",
		Content: "q 80 0 0 60 0 0 cm /I Do Q",
	})
	f.Stream("/Type/XObject/Subtype/Image/Filter/"+filter+entries, data) // object 5
	e := newEngine(t)
	open(t, e, f.Bytes())
	rgb := make([]byte, 80*60*3)
	if _, err := e.Draw(0, 80, 60, false, rgb); err != nil {
		t.Fatal(err)
	}
	return rgb
}

func TestPredictors(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, kind := range []struct {
		space               string
		colors, bpc, stride int
	}{
		{"/DeviceRGB", 3, 8, 240}, {"/DeviceGray", 1, 8, 80}, {"/DeviceGray", 1, 1, 10}, {"/DeviceGray", 1, 4, 40},
		{"/DeviceCMYK", 4, 8, 320}, {"/DeviceRGB", 3, 16, 480},
	} {
		pixels := make([]byte, kind.stride*60)
		for i := range pixels {
			pixels[i] = byte(random.Uint32())
		}
		entries := fmt.Sprintf("/Width 80/Height 60/ColorSpace%s/BitsPerComponent %d", kind.space, kind.bpc)
		want := pictured(t, entries, pdftest.Deflate(pixels))
		if bytes.Count(want, []byte{255}) == len(want) {
			t.Fatalf("%s of %d bits was not drawn", kind.space, kind.bpc)
		}
		entries += fmt.Sprintf("/DecodeParms<</Predictor 15/Columns 80/Colors %d/BitsPerComponent %d>>", kind.colors, kind.bpc)
		for _, hows := range [][]int{{0}, {1}, {2}, {3}, {4}, {4, 3, 2, 1, 0, 2, 4, 1}} {
			data := predicted(pixels, kind.stride, max(1, kind.colors*kind.bpc/8), hows...)
			if !bytes.Equal(pictured(t, entries, pdftest.Deflate(data)), want) {
				t.Errorf("%s of %d bits, rows made by %v: another picture", kind.space, kind.bpc, hows)
			}
		}
	}
}

// What is there of a picture is drawn, also when its data ends in the middle of a
// row, and when the sum at their end is wrong.
func TestDamagedDeflate(t *testing.T) {
	pixels := bytes.Repeat([]byte{200, 30, 60}, 80*60)
	entries := "/Width 80/Height 60/ColorSpace/DeviceRGB/BitsPerComponent 8"
	parms := "/DecodeParms<</Predictor 12/Columns 80/Colors 3>>"
	whole := predicted(pixels, 240, 3, 2)

	rgb := pictured(t, entries+parms, pdftest.Deflate(whole[:241*30+100]))
	if got := at(rgb, 80, 70, 10); got != [3]byte{200, 30, 60} {
		t.Errorf("above the end of the data: %v", got)
	}
	data := pdftest.Deflate(whole)
	data[len(data)-1] ^= 0xFF
	if got := at(pictured(t, entries+parms, data), 80, 70, 55); got != [3]byte{200, 30, 60} {
		t.Errorf("with a wrong sum: %v", got)
	}
}

// deflated is data of all kinds, and they deflated in blocks of any size.
func deflated(t *testing.T, random *rand.Rand, size int) (raw, data []byte) {
	t.Helper()
	var to bytes.Buffer
	w, err := zlib.NewWriterLevel(&to, []int{zlib.DefaultCompression, zlib.BestSpeed, zlib.HuffmanOnly}[random.IntN(3)])
	if err != nil {
		t.Fatal(err)
	}
	for len(raw) < size {
		var more []byte
		switch n := 1 + random.IntN(400); random.IntN(4) {
		case 0:
			more = noise(random, n)
		case 1:
			more = bytes.Repeat(noise(random, 1+random.IntN(12)), n/4)
		default: // what was there, somewhere in zlib's window
			at := max(0, len(raw)-1-random.IntN(1<<(1+random.IntN(15))))
			more = bytes.Clone(raw[at:min(len(raw), at+n)])
		}
		raw = append(raw, more...)
		w.Write(more)
		if random.IntN(20) == 0 {
			w.Flush()
		}
	}
	w.Close()
	return raw, to.Bytes()
}

func TestInflate(t *testing.T) {
	random := rand.New(rand.NewPCG(15, 16))
	for range 200 {
		raw, data := deflated(t, random, random.IntN(100_000))
		got, _ := readDeflated(false, data, 0, 1+random.IntN(5000), len(raw)+1)
		if !bytes.Equal(got, raw) {
			t.Fatalf("%d bytes are others", len(raw))
		}
	}
	// Wherever the data comes in two.
	for range 4 {
		raw, data := deflated(t, random, 6000)
		for first := range data {
			if got, _ := readDeflated(false, data, first, len(data), len(raw)+1); !bytes.Equal(got, raw) {
				t.Fatalf("%d bytes are others when the first %d of %d come first", len(raw), first, len(data))
			}
		}
	}
	for range 3000 {
		raw, data := deflated(t, random, random.IntN(10_000))
		for range 1 + random.IntN(3) {
			data[random.IntN(len(data))] = byte(random.Uint32())
		}
		piece := 1 + random.IntN(5000)
		ours, left := readDeflated(false, data, 0, piece, 2*len(raw))
		theirs, want := readDeflated(true, data, 0, piece, 2*len(raw))
		if !bytes.Equal(ours, theirs) || left != want {
			t.Fatalf("damaged: %d bytes are others than zlib's %d; %d and %d are left", len(ours), len(theirs), left, want)
		}
	}
}
