package report

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"testing"
)

func written(t *testing.T, m *image.RGBA) ([]byte, image.Image) {
	t.Helper()
	var b bytes.Buffer
	if err := WritePNG(&b, m); err != nil {
		t.Fatal(err)
	}
	data := b.Bytes()
	back, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return data, back
}

// furthest is the largest difference in any channel.
func furthest(t *testing.T, a *image.RGBA, b image.Image) int {
	t.Helper()
	if a.Bounds() != b.Bounds() {
		t.Fatalf("%v became %v", a.Bounds(), b.Bounds())
	}
	most := 0
	for y := range a.Bounds().Max.Y {
		for x := range a.Bounds().Max.X {
			p, q := a.RGBAAt(x, y), color.RGBAModel.Convert(b.At(x, y)).(color.RGBA)
			if q.A != 255 {
				t.Fatal("not opaque")
			}
			for _, d := range []int{int(p.R) - int(q.R), int(p.G) - int(q.G), int(p.B) - int(q.B)} {
				most = max(most, d, -d)
			}
		}
	}
	return most
}

func TestWritePNG(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	fill := func(f func(x, y int) color.RGBA) *image.RGBA {
		m := image.NewRGBA(image.Rect(0, 0, 128, 128))
		for y := range 128 {
			for x := range 128 {
				m.SetRGBA(x, y, f(x, y))
			}
		}
		return m
	}
	for _, c := range []struct {
		name    string
		m       *image.RGBA
		reduced bool
		error   int
	}{
		{"one colour", fill(func(x, y int) color.RGBA { return color.RGBA{1, 2, 3, 255} }), true, 0},
		{"256 colours", fill(func(x, y int) color.RGBA { return color.RGBA{uint8(x / 8 * 16), uint8(y / 8 * 16), 7, 255} }), true, 0},
		{"all greys", fill(func(x, y int) color.RGBA { v := uint8(x*2 + y%2); return color.RGBA{v, v, v, 255} }), true, 4},
		{"print on a tint", fill(func(x, y int) color.RGBA {
			v := uint8(255 - min(255, (x*x+y*y)%400))
			return mix(color.RGBA{v, v, v, 255}, Colour([]string{"text", "table", "formula"}[y%3]), tint)
		}), true, 8},
		{"a photograph", fill(func(x, y int) color.RGBA {
			return color.RGBA{uint8(random.Uint32()), uint8(random.Uint32()), uint8(random.Uint32()), 255}
		}), false, 0},
		{"one pixel", image.NewRGBA(image.Rect(0, 0, 1, 1)), true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := 3; i < len(c.m.Pix); i += 4 {
				c.m.Pix[i] = 255
			}
			data, back := written(t, c.m)
			if _, paletted := back.(*image.Paletted); paletted != c.reduced {
				t.Errorf("reduced to a palette: %v", paletted)
			}
			if got := furthest(t, c.m, back); got > c.error {
				t.Errorf("a colour is off by %d", got)
			}
			if again, _ := written(t, c.m); !bytes.Equal(data, again) {
				t.Error("the same picture gave other bytes")
			}
		})
	}
}
