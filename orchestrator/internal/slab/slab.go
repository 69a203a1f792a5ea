// Package slab lends batch-sized page buffers under one byte ceiling.
package slab

// Slab is one batch-sized buffer. Whoever holds it owns its bytes until it is
// put back.
type Slab struct {
	// Bytes is the whole buffer, Pages × PageBytes long, page-aligned.
	Bytes []byte
	// Pages is how many pages fit.
	Pages int
	// PageBytes is the size of one page.
	PageBytes int
	// Key is the POSIX shared-memory name ("/quire-…"), empty for heap memory.
	Key string
}

// Page returns the bytes of page i.
func (s *Slab) Page(i int) []byte { return s.Bytes[i*s.PageBytes : (i+1)*s.PageBytes] }
