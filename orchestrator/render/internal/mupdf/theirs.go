//go:build linux

package mupdf

/*
#include "fitz.h"
void __wrap_fz_subsample_pixblock(unsigned char *samples, int w, int h, int n, int factor, ptrdiff_t stride);
*/
import "C"

// What tests compare: a function of ours, and MuPDF's that it is in the place of.

// subsample makes a picture of w×h pixels of n components smaller, in place.
func subsample(theirs bool, samples []byte, w, h, n, factor, stride int) {
	s := (*C.uchar)(&samples[0])
	if theirs {
		C.__real_fz_subsample_pixblock(s, C.int(w), C.int(h), C.int(n), C.int(factor), C.ptrdiff_t(stride))
		return
	}
	C.__wrap_fz_subsample_pixblock(s, C.int(w), C.int(h), C.int(n), C.int(factor), C.ptrdiff_t(stride))
}
