//go:build linux

#include <string.h>

#include "inside.h"

/* What every pixel of a picture goes through, with the same result as MuPDF's
 * own. */

/* A picture much larger than it is drawn is made smaller while it is read: each
 * square of 2, 4, 8… pixels a side becomes their mean. MuPDF adds up a square's
 * pixels one by one; here the rows of a band of squares are added up first,
 * which the compiler makes vectors of, and then the columns of each square. */

/* The sums of this many columns are held at a time. */
#define ROOM 2048

/* A sum of 16 times 16 bytes and of less fits 16 bits. */
#define MOST 4

typedef uint16_t four __attribute__((vector_size(8)));

__attribute__((optimize("O3")))
static void add_rows(uint16_t *restrict sums, const unsigned char *restrict s, ptrdiff_t stride, int rows, size_t n)
{
	const unsigned char *t = s + stride;
	if (rows == 1)
		for (size_t i = 0; i < n; i++)
			sums[i] = s[i];
	else
		for (size_t i = 0; i < n; i++)
			sums[i] = s[i] + t[i];
	for (int y = 2; y < rows; y++) {
		t += stride;
		for (size_t i = 0; i < n; i++)
			sums[i] += t[i];
	}
}

/* means adds up and divides the columns of whole squares. Four components of a
 * pixel are added at once, also where it has fewer. */
static inline __attribute__((always_inline)) void means(unsigned char *d, const uint16_t *sums, int squares, int n, int factor)
{
	for (; squares > 0; squares--, sums += n << factor, d += n)
		for (int k = 0; k < n; k += 4) {
			four sum = { 0 }, more;
			for (int x = 0; x < 1 << factor; x++) {
				memcpy(&more, sums + x * n + k, sizeof more);
				sum += more;
			}
			sum >>= 2 * factor;
			for (int i = k; i < n && i < k + 4; i++)
				d[i] = sum[i - k];
		}
}

__attribute__((optimize("O3")))
static void means_of_pairs(unsigned char *restrict d, const uint16_t *restrict sums, int squares)
{
	for (int i = 0; i < squares; i++)
		d[i] = (sums[2 * i] + sums[2 * i + 1]) / 4;
}

/* mean is of a square at the edge, that has fewer columns or rows. */
static void mean(unsigned char *d, const uint16_t *sums, int columns, int rows, int n)
{
	for (int k = 0; k < n; k++) {
		unsigned sum = 0;
		for (int x = 0; x < columns; x++)
			sum += sums[x * n + k];
		d[k] = sum / (columns * rows);
	}
}

/* In place: a square's mean is never behind where its first row begins. */
void __wrap_fz_subsample_pixblock(unsigned char *s, int w, int h, int n, int factor, ptrdiff_t stride)
{
	if (factor < 1 || factor > MOST || n < 1 || n > ROOM >> factor) {
		__real_fz_subsample_pixblock(s, w, h, n, factor, stride);
		return;
	}
	uint16_t sums[ROOM + 4];
	memset(sums + ROOM, 0, 4 * sizeof *sums);
	int f = 1 << factor, most = ROOM / (f * n) * f;
	unsigned char *d = s;
	for (; h > 0; h -= f, s += f * stride) {
		int rows = h < f ? h : f;
		for (int x = 0; x < w; x += most) {
			int columns = w - x < most ? w - x : most, whole = rows < f ? 0 : columns / f;
			add_rows(sums, s + (size_t)x * n, stride, rows, (size_t)columns * n);
			if (n == 1 && f == 2)
				means_of_pairs(d, sums, whole);
			else if (n == 1)
				means(d, sums, whole, 1, factor);
			else if (n == 3)
				means(d, sums, whole, 3, factor);
			else
				means(d, sums, whole, n, factor);
			d += whole * n;
			for (int i = whole * f; i < columns; i += f, d += n)
				mean(d, sums + i * n, columns - i < f ? columns - i : f, rows, n);
		}
	}
}

/* Pictures with a palette, which MuPDF reads as a whole, it makes smaller in a
 * function that stands beside the other one, where the linker does not come between.
 * A pixmap is MuPDF's, up to what is used of it. */
typedef struct {
	struct { int refs; void *drop, *droppable; } storable;
	int x, y, w, h;
	unsigned char n, s, alpha, flags;
	ptrdiff_t stride;
	void *seps;
	int xres, yres;
	fz_colorspace *colorspace;
	unsigned char *samples;
} pixmap;

void __wrap_fz_subsample_pixmap(fz_context *ctx, pixmap *p, int factor)
{
	if (!p)
		return;
	__wrap_fz_subsample_pixblock(p->samples, p->w, p->h, p->n, factor, p->stride);
	int f = 1 << factor;
	p->w = (p->w + f - 1) >> factor;
	p->h = (p->h + f - 1) >> factor;
	p->stride = p->w * (ptrdiff_t)p->n;
	p->samples = fz_realloc(ctx, p->samples, (size_t)p->h * p->stride);
}

/* Letters and shapes are painted a row of a mask at a time, which says of each
 * pixel how much of it is covered, mostly in the page's one colour. A row of a
 * letter is five pixels long, few of them clear or covered; one of a shape may be
 * as long as the page, most of it covered. So pixels are blended four at a time
 * whatever their mask, and eight that are all clear or all covered are not. */

typedef unsigned char bytes __attribute__((vector_size(16)));
typedef uint16_t eight __attribute__((vector_size(16)));
typedef uint64_t halves __attribute__((vector_size(16)));

/* Clang and newer compilers of GNU's have the one, older ones the other. The
 * shuffles are written so that each is one instruction also of the oldest amd64. */
#if defined __clang__ || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (__typeof__(a)){ __VA_ARGS__ })
#endif

/* wide puts each byte of v in 16 bits. */
static inline eight wide(uint64_t v)
{
	return (eight)SHUFFLE((bytes)(halves){ v }, (bytes){ 0 }, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

/* blend_four gives four pixels in the lower twelve bytes. c0 is the colour over
 * and over from its first component on, c2 from its third. */
static inline halves blend_four(const unsigned char *d, const unsigned char *mask, eight c0, eight c2)
{
	uint64_t d0;
	uint32_t d2, m4;
	memcpy(&d0, d, 8);
	memcpy(&d2, d + 8, 4);
	memcpy(&m4, mask, 4);
	eight m = wide(m4);
	m += m >> 7; /* 0 to 256 */
	eight a = SHUFFLE(m, m, 0, 0, 0, 1, 4, 5, 6, 7), b = SHUFFLE(m, m, 1, 1, 2, 2, 4, 5, 6, 7);
	eight m0 = (eight)SHUFFLE((halves)a, (halves)b, 0, 2);
	eight m2 = SHUFFLE(m, m, 2, 3, 3, 3, 4, 5, 6, 7);
	m0 = (c0 * m0 + wide(d0) * (256 - m0)) >> 8;
	m2 = (c2 * m2 + wide(d2) * (256 - m2)) >> 8;
	return (halves)SHUFFLE((bytes)m0, (bytes)m2, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}

static inline void put_four(unsigned char *d, halves four)
{
	uint64_t d0 = four[0];
	uint32_t d2 = four[1];
	memcpy(d, &d0, 8);
	memcpy(d + 8, &d2, 4);
}

static fz_span_color_painter_t *their_rgb;

static void paint_rgb(unsigned char *restrict d, const unsigned char *restrict mask, int n, int w, const unsigned char *restrict color, int alpha, const void *overprint)
{
	if (w < 4) {
		their_rgb(d, mask, n, w, color, alpha, overprint);
		return;
	}
	uint64_t c = color[0] | color[1] << 8 | color[2] << 16;
	uint64_t c0 = c | c << 24 | c << 48, c1 = c0 >> 8 | c0 << 40, c2 = c0 >> 16 | c0 << 32;
	eight wide0 = wide(c0), wide2 = wide(c2);
	while (w > 8) {
		uint64_t m;
		memcpy(&m, mask, 8);
		int done = 8;
		if (w < 12 || (m && m != UINT64_MAX)) {
			put_four(d, blend_four(d, mask, wide0, wide2));
			done = 4;
		} else if (m) {
			memcpy(d, &c0, 8);
			memcpy(d + 8, &c2, 8);
			memcpy(d + 16, &c1, 8);
		}
		w -= done;
		mask += done;
		d += 3 * done;
	}
	/* Of the four to eight that are left the first four and the last; some may
	 * be of both, so they are blended before either is put back. */
	int last = w - 4;
	halves a = blend_four(d, mask, wide0, wide2), b = blend_four(d + 3 * last, mask + last, wide0, wide2);
	put_four(d, a);
	put_four(d + 3 * last, b);
}

fz_span_color_painter_t *__wrap_fz_get_span_color_painter(int n, int alpha, const unsigned char *color, const void *overprint)
{
	if (!their_rgb)
		their_rgb = __real_fz_get_span_color_painter(3, 0, (const unsigned char[]){ 0, 0, 0, 255 }, NULL);
	fz_span_color_painter_t *theirs = __real_fz_get_span_color_painter(n, alpha, color, overprint);
	return theirs == their_rgb ? paint_rgb : theirs;
}
