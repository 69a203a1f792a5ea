//go:build linux

package mupdf

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func noise(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func TestSubsample(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	check := func(w, h, n, factor, more int) {
		t.Helper()
		stride := w*n + more
		ours := noise(random, stride*h)
		if random.IntN(8) == 0 {
			copy(ours, bytes.Repeat([]byte{255}, len(ours)))
		}
		theirs := bytes.Clone(ours)
		subsample(false, ours, w, h, n, factor, stride)
		subsample(true, theirs, w, h, n, factor, stride)
		if !bytes.Equal(ours, theirs) {
			t.Errorf("%d×%d pixels of %d, %d to 1, %d bytes between rows: another picture", w, h, n, 1<<factor, more)
		}
	}
	for n := 1; n <= 6; n++ {
		for factor := 1; factor <= 8; factor++ {
			for w := 1; w <= 18; w++ {
				for h := 1; h <= 18; h++ {
					check(w, h, n, factor, 0)
				}
			}
			for range 4 {
				check(1+random.IntN(5000), 1+random.IntN(3<<factor), n, factor, random.IntN(3))
			}
		}
	}
	for _, n := range []int{33, 129, 1025} {
		check(9, 9, n, 1, 0)
		check(70, 9, n, 3, 0)
	}
}

func TestSubsampleWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for factor := 1; factor <= 6; factor++ {
		for range 60 {
			w, h := 1+random.IntN(90), 1+random.IntN(90)
			samples := noise(random, w*h*3)
			ours, ow, oh := subsampleWhole(false, bytes.Clone(samples), w, h, factor)
			theirs, tw, th := subsampleWhole(true, samples, w, h, factor)
			if ow != tw || oh != th || !bytes.Equal(ours, theirs) {
				t.Errorf("%d×%d pixels, %d to 1: %d×%d and another picture than %d×%d", w, h, 1<<factor, ow, oh, tw, th)
			}
		}
	}
}

func TestPaint(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for round := range 100_000 {
		// Of three components and no alpha it is our painter, of others theirs.
		n, alpha := 3, byte(255)
		if round%10 == 0 {
			n, alpha = []int{1, 3, 4, 5}[random.IntN(4)], byte(1+random.IntN(255))
		}
		mask := noise(random, 1+random.IntN(60))
		for range random.IntN(4) { // runs that are clear or covered
			at := random.IntN(len(mask))
			copy(mask[at:], bytes.Repeat([]byte{byte(random.IntN(2) * 255)}, random.IntN(40)))
		}
		color := append(noise(random, n), alpha)
		ours := noise(random, len(mask)*n+16)
		theirs := bytes.Clone(ours)
		paint(false, ours, mask, n, color)
		paint(true, theirs, mask, n, color)
		if !bytes.Equal(ours, theirs) {
			t.Fatalf("mask %v, colour %v: got %v, want %v", mask, color, ours, theirs)
		}
	}
	// Every colour on every other, covered by any part.
	var mask [256]byte
	for i := range mask {
		mask[i] = byte(i)
	}
	for color := range 256 {
		for under := range 256 {
			ours := bytes.Repeat([]byte{byte(under)}, 3*len(mask))
			theirs := bytes.Clone(ours)
			c := []byte{byte(color), byte(color), byte(color), 255}
			paint(false, ours, mask[:], 3, c)
			paint(true, theirs, mask[:], 3, c)
			if !bytes.Equal(ours, theirs) {
				t.Fatalf("%d on %d: got %v, want %v", color, under, ours, theirs)
			}
		}
	}
}
