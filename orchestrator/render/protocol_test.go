//go:build linux

package render

import (
	"errors"
	"math"
	"reflect"
	"testing"
	"time"
)

func TestMessages(t *testing.T) {
	page := drawnPage{595.25, 841.5, 270, [4]float64{-1, 0.5, 594.25, 842}, 3 * time.Millisecond, 608, 800}
	for _, c := range []struct {
		name  string
		sent  interface{ pack() ([]byte, error) }
		got   interface{ unpack([]byte) error }
		first byte
	}{
		{"draw", &command{ID: 7, Draw: &drawCommand{Page: 41, Timeout: time.Minute, Second: true}}, &command{}, drawMark},
		{"open", &command{ID: math.MaxUint64, Open: &openCommand{Timeout: time.Second}}, &command{}, '{'},
		{"drawn", &reply{ID: math.MaxUint64, Page: &page}, &reply{}, drawnMark},
		{"drawn, and something said", &reply{ID: 8, Page: &page, Log: []string{"odd"}, Lost: 2}, &reply{}, '{'},
		{"not drawn", &reply{ID: 9, Page: &page, Reason: reasonMemory, Message: "no"}, &reply{}, '{'},
		{"opened", &reply{ID: 10, Pages: 3, CPU: 5}, &reply{}, '{'},
	} {
		data, err := c.sent.pack()
		if err != nil || data[0] != c.first {
			t.Errorf("%s: %q, %v", c.name, data, err)
			continue
		}
		if err := c.got.unpack(data); err != nil || !reflect.DeepEqual(c.got, c.sent) {
			t.Errorf("%s: came as %+v, %v", c.name, c.got, err)
		}
	}
}

// What a worker that was taken over may say costs the page, and nothing else.
func TestMessagesOfOtherForms(t *testing.T) {
	whole, err := (&reply{ID: 1, Page: &drawnPage{}}).pack()
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(whole); n++ {
		if (&reply{}).unpack(whole[:n]) == nil {
			t.Errorf("%d of %d bytes are taken for a page", n, len(whole))
		}
	}
	if (&reply{}).unpack(append(whole, 0)) == nil {
		t.Error("a page and a byte are taken for a page")
	}
	if (&reply{}).unpack([]byte{0}) == nil {
		t.Error("a byte is taken for a reply")
	}
	most := raster{width: 608, height: 800}
	good := drawnPage{WidthPt: 100, HeightPt: 100, Width: 608, Height: 800}
	if err := good.check(true, most); err != nil {
		t.Error(err)
	}
	for i, spoil := range []func(*drawnPage){
		func(p *drawnPage) { p.WidthPt = math.NaN() },
		func(p *drawnPage) { p.HeightPt = math.Inf(1) },
		func(p *drawnPage) { p.CropBox[0] = math.NaN() },
		func(p *drawnPage) { p.CropBox[3] = math.Inf(-1) },
		func(p *drawnPage) { p.Rotation = 45 },
		func(p *drawnPage) { p.Width = -608 },
		func(p *drawnPage) { p.CPU = -1 },
	} {
		bad := good
		spoil(&bad)
		if err := bad.check(true, most); !errors.Is(err, errDied) {
			t.Errorf("%d: %+v passes: %v", i, bad, err)
		}
	}
}
