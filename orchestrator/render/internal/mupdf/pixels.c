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
