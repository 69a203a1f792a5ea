//go:build linux

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "inside.h"

/* What reading deflated pictures and tables is spared. */

/* MuPDF goes on when the sum at the end of deflated data is wrong. So it need
 * not be worked out. */
int __wrap_inflateInit2_(void *z, int bits, const char *version, int size)
{
	engine_zlib(version);
	int err = __real_inflateInit2_(z, bits, version, size);
	if (!err)
		inflateValidate(z, 0);
	return err;
}

/* PNG's predictors (PNG specification, 9.2): before each row stands how its bytes
 * were made out of those to the left and above. MuPDF undoes that byte by byte
 * and hands it on in pieces; here it is done row by row, and a row is handed on
 * as it stands. */

#define PNG_FIRST 10
#define PNG_LAST 15
#define MAX_COLORS 32
#define END (-1)

typedef struct {
	fz_stream *chain;
	size_t stride;
	int bpp;                /* bytes from a pixel to the next, 1 at least */
	unsigned char *in;      /* what is read: how, and a row */
	unsigned char *out, *above;
	unsigned char room[];
} rows;

/* So that the compiler makes vectors of the loop, whatever else it is told. */
__attribute__((optimize("O3")))
static void add(unsigned char *restrict out, const unsigned char *restrict in, const unsigned char *restrict above, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = in[i] + above[i];
}

static unsigned char paeth(int left, int above, int corner)
{
	int a = abs(above - corner), b = abs(left - corner), c = abs(left + above - 2 * corner);
	return a <= b && a <= c ? left : b <= c ? above : corner;
}

static void undo(int how, unsigned char *restrict out, const unsigned char *restrict in, const unsigned char *restrict above, size_t n, size_t bpp)
{
	if (bpp > n)
		bpp = n;
	switch (how) {
	case 1:
		memcpy(out, in, bpp);
		for (size_t i = bpp; i < n; i++)
			out[i] = in[i] + out[i - bpp];
		break;
	case 2:
		add(out, in, above, n);
		break;
	case 3:
		for (size_t i = 0; i < bpp; i++)
			out[i] = in[i] + above[i] / 2;
		for (size_t i = bpp; i < n; i++)
			out[i] = in[i] + (out[i - bpp] + above[i]) / 2;
		break;
	case 4:
		for (size_t i = 0; i < bpp; i++)
			out[i] = in[i] + above[i];
		for (size_t i = bpp; i < n; i++)
			out[i] = in[i] + paeth(out[i - bpp], above[i], above[i - bpp]);
		break;
	default:
		memcpy(out, in, n);
	}
}

static int next_row(fz_context *ctx, fz_stream *stm, size_t max)
{
	rows *r = stm->state;
	size_t n = fz_read(ctx, r->chain, r->in, r->stride + 1);
	if (n < 2)
		return END;
	unsigned char *row = r->above;
	r->above = r->out;
	r->out = row;
	undo(r->in[0], row, r->in + 1, r->above, n - 1, r->bpp);
	stm->rp = row;
	stm->wp = row + n - 1;
	stm->pos += n - 1;
	return *stm->rp++;
}

static void drop_rows(fz_context *ctx, void *state)
{
	rows *r = state;
	fz_drop_stream(ctx, r->chain);
	fz_free(ctx, r);
}

fz_stream *__wrap_fz_open_predict(fz_context *ctx, fz_stream *chain, int predictor, int columns, int colors, int bpc)
{
	int known = predictor >= PNG_FIRST && predictor <= PNG_LAST && columns > 0 && colors > 0 && colors <= MAX_COLORS
		&& (bpc == 1 || bpc == 2 || bpc == 4 || bpc == 8 || bpc == 16) && columns < INT_MAX / (bpc * colors) - 8;
	if (!known)
		return __real_fz_open_predict(ctx, chain, predictor, columns, colors, bpc);
	size_t stride = ((size_t)bpc * colors * columns + 7) / 8;
	rows *r = fz_calloc(ctx, 1, sizeof *r + 3 * stride + 1);
	r->stride = stride;
	r->bpp = (bpc * colors + 7) / 8;
	r->out = r->room;
	r->above = r->out + stride;
	r->in = r->above + stride;
	r->chain = fz_keep_stream(ctx, chain);
	return fz_new_stream(ctx, r, next_row, drop_rows);
}
