//go:build linux

package mupdf

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// bits are put one after another, the first on top of the first byte.
type bits struct {
	data []byte
	n    int
}

func (b *bits) put(code string) {
	for _, c := range code {
		if b.n%8 == 0 {
			b.data = append(b.data, 0)
		}
		b.data[b.n/8] |= byte(c-'0') << (7 - b.n%8)
		b.n++
	}
}

// faxModes are T.6's codes: straight below, one to three to the right and to the
// left, and no change.
var faxModes = []string{"1", "011", "000011", "0000011", "010", "000010", "0000010", "0001"}

const (
	faxRuns = "001"
	faxMark = "000000000001"
)

// sameFax compares what we read of fax data with what MuPDF reads.
func sameFax(t *testing.T, random *rand.Rand, f *fax) (out []byte, left int) {
	t.Helper()
	const room = 4 << 10
	piece := []int{(f.columns + 7) / 8, 1 + random.IntN(100), room}[random.IntN(3)]
	dataPiece := []int{len(f.data) + 1, 1 + random.IntN(20)}[random.IntN(2)]
	ours, left := f.read(false, room, piece, dataPiece)
	theirs, _ := f.read(true, room, piece, dataPiece)
	if !bytes.Equal(ours, theirs) {
		t.Fatalf("%d columns, %d rows, align %v, end %v, %d bytes at a time, data %x:\ngot  %x\nwant %x",
			f.columns, f.rows, f.align, f.endOfBlock, piece, f.data, ours, theirs)
	}
	return ours, left
}

// TestFaxRuns has every code that a run of either colour can begin with.
func TestFaxRuns(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for word := range 1 << 13 {
		for _, white := range []string{"", "0111"} { // with it the word is of the black run
			var b bits
			b.put(faxRuns + white)
			for i := range 13 {
				b.put(string('0' + rune(word>>(12-i)&1)))
			}
			b.put("1010111011111") // other runs, straight below
			sameFax(t, random, &fax{data: b.data, columns: 4000, dark: true, endOfBlock: true})
		}
	}
}

func TestFax(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	runs := []string{"0111", "10", "11", "1000", "010", "00110101", "0000110111", "11011", "0000001111"} // of both colours
	longest := 0
	for range 10_000 {
		var b bits
		oddity := 1 + random.IntN(200)
		for range random.IntN(1500) {
			switch {
			case random.IntN(oddity) == 0:
				b.put([]string{faxMark, "0", "0000", "00000000", "01", "0000001"}[random.IntN(6)])
			case random.IntN(12) == 0:
				b.put(faxRuns + runs[random.IntN(len(runs))] + runs[random.IntN(len(runs))])
			default:
				b.put(faxModes[min(random.IntN(20), random.IntN(20))%len(faxModes)])
			}
		}
		if random.IntN(3) == 0 {
			b.put(faxMark + faxMark)
		}
		f := &fax{data: b.data, columns: 1 + random.IntN(200), align: random.IntN(2) == 0, endOfBlock: random.IntN(2) == 0, dark: random.IntN(2) == 0}
		if random.IntN(4) == 0 {
			f.columns = 1 + random.IntN(3000)
		}
		if random.IntN(2) == 0 {
			f.rows = random.IntN(40) - 2
		}
		for range random.IntN(3) {
			if len(f.data) > 0 {
				f.data[random.IntN(len(f.data))] = byte(random.Uint32())
			}
		}
		out, _ := sameFax(t, random, f)
		longest = max(longest, len(out)/((f.columns+7)/8))
	}
	for range 10_000 {
		sameFax(t, random, &fax{data: noise(random, random.IntN(300)), columns: 1 + random.IntN(100), align: random.IntN(2) == 0})
	}
	if longest < 50 {
		t.Errorf("no more than %d rows were read", longest)
	}
}

// What stands behind fax data is still there when it was read: an image within a
// page's content goes on there.
func TestFaxPutsBack(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	for n := range 60 {
		var b bits
		for range n {
			b.put("1")
		}
		b.put(faxMark + faxMark)
		f := &fax{data: append(b.data, " EI Q and so on"...), columns: 8, endOfBlock: true}
		if _, left := sameFax(t, random, f); left != len(" EI Q and so on") {
			t.Errorf("%d rows: %d bytes are left", n, left)
		}
	}
}
