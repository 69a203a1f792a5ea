//go:build linux

package mupdf

/*
#include <stdlib.h>
#include <string.h>
#include "inside.h"
void __wrap_fz_subsample_pixblock(unsigned char *samples, int w, int h, int n, int factor, ptrdiff_t stride);
void __wrap_fz_subsample_pixmap(fz_context *, void *, int factor);
void __real_fz_subsample_pixmap(fz_context *, void *, int factor);
fz_span_color_painter_t *__wrap_fz_get_span_color_painter(int n, int alpha, const unsigned char *color, const void *overprint);

static void paint(int theirs, unsigned char *d, const unsigned char *mask, int n, int w, const unsigned char *color)
{
	(theirs ? __real_fz_get_span_color_painter : __wrap_fz_get_span_color_painter)(n, 0, color, NULL)(d, mask, n, w, color, 0, NULL);
}

fz_stream *__wrap_fz_open_faxd(fz_context *, fz_stream *chain, int k, int end_of_line, int align, int columns, int rows, int end_of_block, int black_is_1);

static void say_nothing(void *user, const char *message) {}

static fz_context *quiet(void)
{
	static fz_context *ctx;
	if (!ctx) {
		ctx = fz_new_context_imp(NULL, NULL, 0, FITZ_VERSION);
		fz_set_warning_callback(ctx, say_nothing, NULL);
		fz_set_error_callback(ctx, say_nothing, NULL);
	}
	return ctx;
}

typedef struct { const unsigned char *data, *end; size_t first, piece; } pieces;

static int next_piece(fz_context *ctx, fz_stream *stm, size_t max)
{
	pieces *p = stm->state;
	if (p->data == p->end)
		return -1;
	size_t n = p->end - p->data;
	size_t most = p->first ? p->first : p->piece;
	n = n < most ? n : most;
	p->first = 0;
	// In a place of its own, so that what stood before it is not there.
	static unsigned char place[1 << 17];
	n = n < sizeof place - 8 ? n : sizeof place - 8;
	stm->rp = memcpy(place + 8, p->data, n);
	stm->wp = stm->rp + n;
	p->data += n;
	return *stm->rp++;
}

static void drop_pieces(fz_context *ctx, void *state) {}

// What is read of fax data, out_piece bytes at a time, and how much of the data is left.
static size_t read_fax(int theirs, const unsigned char *data, size_t n, size_t piece, int columns, int rows, int align, int end_of_block, int black,
	unsigned char *out, size_t room, size_t out_piece, size_t *left)
{
	fz_context *ctx = quiet();
	pieces p = { data, data + n, 0, piece };
	size_t got = 0;
	fz_try(ctx) {
		fz_stream *chain = fz_new_stream(ctx, &p, next_piece, drop_pieces);
		fz_stream *stm = (theirs ? __real_fz_open_faxd : __wrap_fz_open_faxd)(ctx, chain, -1, 0, align, columns, rows, end_of_block, black);
		while (got < room) {
			size_t want = room - got < out_piece ? room - got : out_piece, had = fz_read(ctx, stm, out + got, want);
			got += had;
			if (had < want)
				break;
		}
		fz_drop_stream(ctx, stm);
		*left = p.end - p.data + (chain->wp - chain->rp);
		fz_drop_stream(ctx, chain);
	}
	fz_catch(ctx)
		fz_convert_error(ctx, NULL);
	return got;
}

// What is read of deflated data, whose first piece has another size.
static size_t read_deflated(int theirs, const unsigned char *data, size_t n, size_t first, size_t piece, unsigned char *out, size_t room, size_t *left)
{
	fz_context *ctx = quiet();
	pieces p = { data, data + n, first, piece };
	size_t got = 0;
	fz_try(ctx) {
		fz_stream *chain = fz_new_stream(ctx, &p, next_piece, drop_pieces);
		fz_stream *stm = fz_open_flated(ctx, chain, 15);
		if (theirs)
			engine_zlib("");
		got = fz_read(ctx, stm, out, room);
		fz_drop_stream(ctx, stm);
		*left = p.end - p.data + (chain->wp - chain->rp);
		fz_drop_stream(ctx, chain);
	}
	fz_catch(ctx)
		fz_convert_error(ctx, NULL);
	return got;
}

void *fz_new_pixmap(fz_context *, fz_colorspace *, int w, int h, void *separations, int alpha);
unsigned char *fz_pixmap_samples(fz_context *, void *);
int fz_pixmap_width(fz_context *, void *);
int fz_pixmap_height(fz_context *, void *);
int fz_pixmap_stride(fz_context *, void *);

// Makes a picture of 3 components smaller, which is read and written at samples.
static void subsample_whole(int theirs, unsigned char *samples, int *w, int *h, int factor)
{
	fz_context *ctx = quiet();
	fz_try(ctx) {
		fz_pixmap *pix = fz_new_pixmap(ctx, fz_device_rgb(ctx), *w, *h, NULL, 0);
		memcpy(fz_pixmap_samples(ctx, pix), samples, (size_t)*w * *h * 3);
		(theirs ? __real_fz_subsample_pixmap : __wrap_fz_subsample_pixmap)(ctx, pix, factor);
		*w = fz_pixmap_width(ctx, pix);
		*h = fz_pixmap_height(ctx, pix);
		for (int y = 0; y < *h; y++)
			memcpy(samples + (size_t)y * *w * 3, fz_pixmap_samples(ctx, pix) + (size_t)y * fz_pixmap_stride(ctx, pix), (size_t)*w * 3);
		fz_drop_pixmap(ctx, pix);
	}
	fz_catch(ctx)
		fz_convert_error(ctx, NULL);
}

unsigned __wrap_FT_Get_Name_Index(FT_Face, const char *name);

// The letter that a name stands for in a font.
static unsigned letter(int theirs, const unsigned char *data, size_t n, const char *name)
{
	fz_context *ctx = quiet();
	volatile unsigned gid = 0;
	fz_try(ctx) {
		fz_font *font = fz_new_font_from_memory(ctx, NULL, data, n, 0, 0);
		gid = (theirs ? __real_FT_Get_Name_Index : __wrap_FT_Get_Name_Index)(fz_font_ft_face(ctx, font), name);
		fz_drop_font(ctx, font);
	}
	fz_catch(ctx)
		fz_convert_error(ctx, NULL);
	return gid;
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

// subsampleWhole does it to a whole picture of w×h pixels of 3 components, and gives
// what it has become.
func subsampleWhole(theirs bool, samples []byte, w, h, factor int) (smaller []byte, sw, sh int) {
	cw, ch := C.int(w), C.int(h)
	C.subsample_whole(truth(theirs), (*C.uchar)(unsafe.SliceData(samples)), &cw, &ch, C.int(factor))
	return samples[:cw*ch*3], int(cw), int(ch)
}

// paint paints len(mask) pixels of n components, at the start of d, in a colour
// of as many and its alpha.
func paint(theirs bool, d, mask []byte, n int, color []byte) {
	first := func(b []byte) *C.uchar { return (*C.uchar)(unsafe.SliceData(b)) }
	C.paint(truth(theirs), first(d), first(mask), C.int(n), C.int(len(mask)), first(color))
}

// readDeflated reads up to room bytes out of deflated data, of which there are
// first bytes at first and then always piece, and tells how much of it is left.
func readDeflated(theirs bool, data []byte, first, piece, room int) (out []byte, left int) {
	out = make([]byte, room)
	var cleft C.size_t
	n := C.read_deflated(truth(theirs), (*C.uchar)(unsafe.SliceData(data)), C.size_t(len(data)), C.size_t(first), C.size_t(piece),
		(*C.uchar)(unsafe.SliceData(out)), C.size_t(room), &cleft)
	return out[:n], int(cleft)
}

// fax is fax data of the fourth group and what is said of it.
type fax struct {
	data                    []byte
	columns, rows           int
	align, endOfBlock, dark bool
}

// read decodes up to room bytes, piece at a time, from data that comes in pieces
// too, and tells how much of the data is left.
func (f *fax) read(theirs bool, room, piece, dataPiece int) (out []byte, left int) {
	out = make([]byte, room)
	var cleft C.size_t
	n := C.read_fax(truth(theirs), (*C.uchar)(unsafe.SliceData(f.data)), C.size_t(len(f.data)), C.size_t(dataPiece), C.int(f.columns), C.int(f.rows),
		truth(f.align), truth(f.endOfBlock), truth(f.dark), (*C.uchar)(unsafe.SliceData(out)), C.size_t(room), C.size_t(piece), &cleft)
	return out[:n], int(cleft)
}

// letter tells which letter of a font has this name, 0 for none.
func letter(theirs bool, font []byte, name string) int {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return int(C.letter(truth(theirs), (*C.uchar)(unsafe.SliceData(font)), C.size_t(len(font)), cname))
}
