//go:build linux

package mupdf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// jpx is a JPEG 2000 of one colour, in tiles, that holds itself at so many
// resolutions (ITU-T T.800, annex A): all its packets are empty.
func jpx(side, tile, resolutions int) []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, binary.BigEndian, v)
		}
	}
	levels := resolutions - 1
	tiles := (side + tile - 1) / tile
	put(uint16(0xFF4F), uint16(0xFF51), uint16(47), uint16(0))
	for _, n := range []int{side, side, 0, 0, tile, tile, 0, 0} {
		put(uint32(n))
	}
	put(uint16(3), []byte{7, 1, 1, 7, 1, 1, 7, 1, 1})
	put(uint16(0xFF52), uint16(12), []byte{0, 0, 0, 1, 0, byte(levels), 4, 4, 0, 1})
	put(uint16(0xFF5C), uint16(3+1+3*levels), byte(0x40), bytes.Repeat([]byte{0x48}, 1+3*levels))
	for n := range tiles * tiles {
		body := make([]byte, 3*resolutions)
		put(uint16(0xFF90), uint16(10), uint16(n), uint32(14+len(body)), byte(0), byte(1), uint16(0xFF93), body)
	}
	put(uint16(0xFFD9))
	return b.Bytes()
}

// An image is drawn whole whatever it holds of itself: as many resolutions as are
// wanted, fewer, or one.
func TestResolutionsOfJPEG2000(t *testing.T) {
	const side = 800
	for _, resolutions := range []int{1, 2, 6} {
		for _, tile := range []int{side, 300} {
			t.Run(fmt.Sprintf("%d in tiles of %d", resolutions, tile), func(t *testing.T) {
				rgb := picturedBy(t, "JPXDecode", fmt.Sprintf("/Width %d/Height %d", side, side), jpx(side, tile, resolutions))
				if i := slices.IndexFunc(rgb, func(v byte) bool { return v != 128 }); i >= 0 {
					t.Errorf("pixel %d is %d, want grey", i/3, rgb[i])
				}
			})
		}
	}
}
