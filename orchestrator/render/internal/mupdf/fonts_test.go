//go:build linux

package mupdf

import (
	"slices"
	"testing"
)

// named is a font in CFF whose letters are empty and have these names, by their
// numbers among CFF's own; letter 0 is before them and is .notdef.
func named(names ...byte) []byte {
	short := func(n int) []byte { return []byte{byte(n >> 8), byte(n)} }
	index := func(items ...[]byte) []byte {
		out, at := append(short(len(items)), 1), 1
		for _, item := range items {
			out, at = append(out, byte(at)), at+len(item)
		}
		return append(append(out, byte(at)), slices.Concat(items...)...)
	}
	none := short(0)
	head := slices.Concat([]byte{1, 0, 4, 1}, index([]byte("A")))
	const topSize = 5 + 2*6 // of an index of one table with two offsets
	charset := len(head) + topSize + 2*len(none)
	ids, letters := []byte{0}, [][]byte{{14}}
	for _, n := range names {
		ids, letters = append(ids, 0, n), append(letters, []byte{14})
	}
	place := func(at int, key byte) []byte { return append(append([]byte{29, 0, 0}, short(at)...), key) }
	top := index(slices.Concat(place(charset, 15), place(charset+len(ids), 17)))
	return slices.Concat(head, top, none, none, ids, index(letters...))
}

func TestNamesOfLetters(t *testing.T) {
	font := named(34, 35, 34, 0, 36) // A, B, A, .notdef, C
	for name, want := range map[string]int{"A": 1, "B": 2, "C": 5, ".notdef": 0, "D": 0, "": 0} {
		if got, theirs := letter(false, font, name), letter(true, font, name); got != want || theirs != want {
			t.Errorf("%q is letter %d, to FreeType %d, want %d", name, got, theirs, want)
		}
	}
}
