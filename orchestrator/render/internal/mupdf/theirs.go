//go:build linux

package mupdf

/*
#include "fitz.h"
void __wrap_fz_subsample_pixblock(unsigned char *samples, int w, int h, int n, int factor, ptrdiff_t stride);
fz_span_color_painter_t *__wrap_fz_get_span_color_painter(int n, int alpha, const unsigned char *color, const void *overprint);

static void paint(int theirs, unsigned char *d, const unsigned char *mask, int n, int w, const unsigned char *color)
{
	(theirs ? __real_fz_get_span_color_painter : __wrap_fz_get_span_color_painter)(n, 0, color, NULL)(d, mask, n, w, color, 0, NULL);
}
*/
import "C"

import "unsafe"

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

// paint paints len(mask) pixels of n components, at the start of d, in a colour
// of as many and its alpha.
func paint(theirs bool, d, mask []byte, n int, color []byte) {
	var c C.int
	if theirs {
		c = 1
	}
	first := func(b []byte) *C.uchar { return (*C.uchar)(unsafe.SliceData(b)) }
	C.paint(c, first(d), first(mask), C.int(n), C.int(len(mask)), first(color))
}
