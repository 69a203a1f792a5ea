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
