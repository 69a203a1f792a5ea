//go:build linux

package mupdf

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// jpx is a JPEG 2000 of one colour, in tiles, that holds itself at so many
// resolutions (ITU-T T.800, annex A), but for its last tile, which may hold
// fewer: all its packets are empty.
func jpx(side, tile, resolutions, last int) []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, binary.BigEndian, v)
		}
	}
	style := func(resolutions int) {
		levels := resolutions - 1
		put(uint16(0xFF52), uint16(12), []byte{0, 0, 0, 1, 0, byte(levels), 4, 4, 0, 1})
		put(uint16(0xFF5C), uint16(3+1+3*levels), byte(0x40), bytes.Repeat([]byte{0x48}, 1+3*levels))
	}
	tiles := (side + tile - 1) / tile
	put(uint16(0xFF4F), uint16(0xFF51), uint16(47), uint16(0))
	for _, n := range []int{side, side, 0, 0, tile, tile, 0, 0} {
		put(uint32(n))
	}
	put(uint16(3), []byte{7, 1, 1, 7, 1, 1, 7, 1, 1})
	style(resolutions)
	for n := range tiles * tiles {
		start, held := b.Len(), resolutions
		put(uint16(0xFF90), uint16(10), uint16(n), uint32(0), byte(0), byte(1))
		if n == tiles*tiles-1 && last < resolutions {
			held = last
			style(held)
		}
		put(uint16(0xFF93), make([]byte, 3*held))
		binary.BigEndian.PutUint32(b.Bytes()[start+6:], uint32(b.Len()-start))
	}
	put(uint16(0xFFD9))
	return b.Bytes()
}

// An image is drawn whole whatever it holds of itself: as many resolutions as are
// wanted, fewer, or one; in one tile fewer than in the others.
func TestResolutionsOfJPEG2000(t *testing.T) {
	const side = 800
	for _, resolutions := range []int{1, 2, 6} {
		for _, c := range []struct{ tile, last int }{{side, resolutions}, {300, resolutions}, {300, 1}} {
			t.Run(fmt.Sprintf("%d in tiles of %d, %d in the last", resolutions, c.tile, c.last), func(t *testing.T) {
				rgb := picturedBy(t, "JPXDecode", fmt.Sprintf("/Width %d/Height %d", side, side), jpx(side, c.tile, resolutions, c.last))
				if i := slices.IndexFunc(rgb, func(v byte) bool { return v != 128 }); i >= 0 {
					t.Errorf("pixel %d is %d, want grey", i/3, rgb[i])
				}
			})
		}
	}
}

// striped is a JPEG 2000 of 216×164 pixels and two resolutions, without loss:
// its columns are 0 and 200 in turns, and at half its size all is between them.
const striped = "/0//UQApAAAAAADYAAAApAAAAAAAAAAAAAAA2AAAAKQAAAAAAAAAAAABBwEB/1IADAAAAAEAAQQEAAH/XAAHQEBISFD/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5K" +
	"UEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAAD7AAH/k+H5y/5yv5yn5yYRUFSv/3++g39EIAAAAAAAAAMJCX//fxFQVK//f4dKY/ugAAAAAAAGEhL/fxFQVK//V8KQrzAAAAAA" +
	"AYSEv/9/EVBUr/8+WC8KAAAAAAGEhL//f+fwJf4Ef8B/+A8AFABcr8t8dBE4DdfAAAAAAAAAAMJCX/8IOYAAAAAAAADCQl//fxQAXK//f+7EH1AqAAAAAAAAAYSEv/z1oAAAAAA" +
	"AAYSEv/9/FABcr8t8fPMmlAAAAAAAAYSEv/dwEAAAAAAwkJf/fxQAXK//Zqw0bGAAAAAAAwkJf+IUQAAAAABhIS//f//Z"

// An image whose numbers stand for colours of a palette shows no colour but
// those that it has: blue here, for 0 and 200, and not red, for all others.
func TestPaletteOfJPEG2000(t *testing.T) {
	coded, err := base64.StdEncoding.DecodeString(striped)
	if err != nil {
		t.Fatal(err)
	}
	palette := bytes.Repeat([]byte{255, 0, 0}, 256)
	copy(palette, []byte{0, 0, 255})
	copy(palette[3*200:], []byte{0, 0, 255})

	// A JP2 file (ITU-T T.800, annex I) with a palette of its own.
	box := func(kind string, parts ...[]byte) []byte {
		body := bytes.Join(parts, nil)
		return append(append(binary.BigEndian.AppendUint32(nil, uint32(8+len(body))), kind...), body...)
	}
	jp2 := slices.Concat(
		box("jP  ", []byte("\r\n\x87\n")),
		box("ftyp", []byte("jp2 \x00\x00\x00\x00jp2 ")),
		box("jp2h",
			box("ihdr", []byte{0, 0, 0, 164, 0, 0, 0, 216, 0, 1, 7, 7, 0, 0}),
			box("colr", []byte{1, 0, 0, 0, 0, 0, 16}), // sRGB
			box("pclr", []byte{1, 0, 3, 7, 7, 7}, palette),
			box("cmap", []byte{0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 2})),
		box("jp2c", coded))

	for _, c := range []struct {
		name, space string
		data        []byte
	}{
		{"of the PDF", fmt.Sprintf("/ColorSpace[/Indexed/DeviceRGB 255<%x>]", palette), coded},
		{"of its own", "", jp2},
	} {
		t.Run(c.name, func(t *testing.T) {
			rgb := picturedBy(t, "JPXDecode", "/Width 216/Height 164/BitsPerComponent 8"+c.space, c.data)
			for i := 0; i < len(rgb); i += 3 {
				if got := [3]byte(rgb[i:]); got != blue {
					t.Fatalf("pixel %d is %v, want blue", i/3, got)
				}
			}
		})
	}
}
