//go:build linux

#include <string.h>

#include "inside.h"

/* Fax data of the fourth group (ITU-T T.6), which is what scanned pages are mostly
 * kept in. MuPDF looks for each change of colour in the bits of the row above and
 * enters a try for each code. Here the changes of the row above are a list.
 *
 * What is read out of damaged data is the same to the byte. Other kinds of fax
 * data are MuPDF's to read. */

#define WIDEST (1 << 16) /* pixels of a row; the list takes memory */
#define END (-1)

/* Codes as T.4 and T.6 list them, after a 1 that says how long they are: runs of
 * 0 to 63 pixels, of 64, 128… to 1728, and of both colours those to 2560. */
static const uint16_t white_codes[] = {
	0x135, 0x47, 0x17, 0x18, 0x1B, 0x1C, 0x1E, 0x1F, 0x33, 0x34, 0x27, 0x28, 0x48, 0x43, 0x74, 0x75, 0x6A, 0x6B,
	0xA7, 0x8C, 0x88, 0x97, 0x83, 0x84, 0xA8, 0xAB, 0x93, 0xA4, 0x98, 0x102, 0x103, 0x11A, 0x11B, 0x112, 0x113,
	0x114, 0x115, 0x116, 0x117, 0x128, 0x129, 0x12A, 0x12B, 0x12C, 0x12D, 0x104, 0x105, 0x10A, 0x10B, 0x152, 0x153,
	0x154, 0x155, 0x124, 0x125, 0x158, 0x159, 0x15A, 0x15B, 0x14A, 0x14B, 0x132, 0x133, 0x134, 0x3B, 0x32, 0x57,
	0xB7, 0x136, 0x137, 0x164, 0x165, 0x168, 0x167, 0x2CC, 0x2CD, 0x2D2, 0x2D3, 0x2D4, 0x2D5, 0x2D6, 0x2D7, 0x2D8,
	0x2D9, 0x2DA, 0x2DB, 0x298, 0x299, 0x29A, 0x58, 0x29B,
};
static const uint16_t black_codes[] = {
	0x437, 0xA, 0x7, 0x6, 0xB, 0x13, 0x12, 0x23, 0x45, 0x44, 0x84, 0x85, 0x87, 0x104, 0x107, 0x218, 0x417, 0x418,
	0x408, 0x867, 0x868, 0x86C, 0x837, 0x828, 0x817, 0x818, 0x10CA, 0x10CB, 0x10CC, 0x10CD, 0x1068, 0x1069, 0x106A,
	0x106B, 0x10D2, 0x10D3, 0x10D4, 0x10D5, 0x10D6, 0x10D7, 0x106C, 0x106D, 0x10DA, 0x10DB, 0x1054, 0x1055, 0x1056,
	0x1057, 0x1064, 0x1065, 0x1052, 0x1053, 0x1024, 0x1037, 0x1038, 0x1027, 0x1028, 0x1058, 0x1059, 0x102B, 0x102C,
	0x105A, 0x1066, 0x1067, 0x40F, 0x10C8, 0x10C9, 0x105B, 0x1033, 0x1034, 0x1035, 0x206C, 0x206D, 0x204A, 0x204B,
	0x204C, 0x204D, 0x2072, 0x2073, 0x2074, 0x2075, 0x2076, 0x2077, 0x2052, 0x2053, 0x2054, 0x2055, 0x205A, 0x205B,
	0x2064, 0x2065,
};
static const uint16_t long_codes[] = {
	0x808, 0x80C, 0x80D, 0x1012, 0x1013, 0x1014, 0x1015, 0x1016, 0x1017, 0x101C, 0x101D, 0x101E, 0x101F,
};

/* How a change of colour lies to the one above: 3 to the left up to 3 to the right
 * of it; then that there is none yet, and that two runs follow. */
enum { PASS = 7, RUNS };
static const uint16_t mode_codes[] = { 0x82, 0x42, 0xA, 0x3, 0xB, 0x43, 0x83, 0x11, 0x9 };

#define RUN_BITS 13
#define MODE_BITS 7

/* What the next bits begin with: how long the code is (0: none) and what it says. */
typedef struct { int16_t bits, value; } code;
static code runs[2][1 << RUN_BITS], modes[1 << MODE_BITS];

static void list_code(code *table, int bits, int word, int value)
{
	int n = 31 - __builtin_clz(word), rest = bits - n;
	for (int i = 0; i < 1 << rest; i++)
		table[(word - (1 << n)) << rest | i] = (code){ n, value };
}

static void list_codes(void)
{
	for (int color = 0; color < 2; color++) {
		const uint16_t *codes = color ? black_codes : white_codes;
		for (int i = 0; i < 91; i++)
			list_code(runs[color], RUN_BITS, codes[i], i < 64 ? i : 64 * (i - 63));
		for (int i = 0; i < 13; i++)
			list_code(runs[color], RUN_BITS, long_codes[i], 1792 + 64 * i);
	}
	for (int i = 0; i <= RUNS; i++)
		list_code(modes, MODE_BITS, mode_codes[i], i);
}

typedef struct {
	fz_stream *chain;
	uint64_t word;       /* the next bits from the top, zeros after them */
	int have;            /* of them; below 0 where more were taken than there were */
	int ended;
	unsigned char *from; /* nothing before this can be put back */
	int columns, rows, stride, align, invert;
	int row, left;       /* rows that were read, and bytes of the last that were not given */
	int marks;           /* that no code stood between; two end the data */
	int done;

	/* The row being read: where it has come to, in which colour, and how many
	 * runs are to follow. */
	int at, black, runs;

	/* Where the colour changes, first from white to black: in the row above, where
	 * the width stands three times at the end, and in this row. Damaged data may go
	 * back and paint what is painted: this row is odd then, and the list wrong. */
	int *above, *changes;
	int n, odd;

	unsigned char *bits; /* this row */
	unsigned char out[4096];
	int room[];
} fax;

static void take(fax *f, int n)
{
	f->word <<= n;
	f->have -= n;
}

/* fill sees to it that the longest code is there. It reads ahead by no more than
 * drop_fax can put back into the chain's buffer. */
static void fill(fz_context *ctx, fax *f)
{
	fz_stream *s = f->chain;
	while (f->have <= RUN_BITS && !f->ended) {
		unsigned char c;
		if (s->wp - s->rp >= 8) {
			uint32_t four = (uint32_t)s->rp[0] << 24 | s->rp[1] << 16 | s->rp[2] << 8 | s->rp[3];
			s->rp += 4;
			f->have += 32;
			f->word |= (uint64_t)four << (64 - f->have);
			return;
		}
		if (s->rp == s->wp) {
			f->ended = fz_read(ctx, s, &c, 1) == 0;
			f->from = s->rp;
			if (f->ended)
				return;
			f->from--;
		} else {
			c = *s->rp++;
		}
		f->have += 8;
		f->word |= (uint64_t)c << (64 - f->have);
	}
}

static void paint(fax *f, int from, int to)
{
	unsigned char *b = f->bits;
	int first = 0xFF >> (from & 7), last = 0xFF00 >> (to & 7) & 0xFF, i = from >> 3, end = to >> 3;
	if (i == end) {
		b[i] |= first & last;
	} else {
		b[i] |= first;
		while (++i < end)
			b[i] = 0xFF;
		if (last)
			b[end] |= last;
	}
	int *c = f->changes + f->n;
	if (!f->n || c[-1] < from) {
		*c++ = from;
		*c++ = to;
	} else if (c[-1] == from) {
		c[-1] = to;
	} else {
		f->odd = 1;
	}
	f->n = c - f->changes;
}

/* change finds the first change above, behind where the row has come to, to the
 * other colour than this row's. */
static int *change(fax *f, int *c)
{
	int at = f->at == 0 && !f->black ? -1 : f->at;
	while (c > f->above && c[-1] > at)
		c--;
	while (*c <= at)
		c++;
	return ((c - f->above) & 1) == f->black ? c : c + 1;
}

enum { ROW, LAST, BROKEN };

static int read_row(fz_context *ctx, fax *f)
{
	int *c = f->above;
	for (;;) {
		fill(ctx, f);
		if (f->ended && f->have <= 0)
			return f->at > 0 ? ROW : LAST;
		code got = f->runs ? runs[f->black][f->word >> (64 - RUN_BITS)] : modes[f->word >> (64 - MODE_BITS)];
		if (!got.bits) {
			/* Zeros may stand before a mark. */
			unsigned mark = f->word >> 52;
			if (mark > 1)
				return BROKEN;
			take(f, mark ? 12 : 1);
			if (!mark)
				continue;
			f->marks++;
		} else {
			f->marks = 0;
			take(f, got.bits);
			int from = f->at, to;
			if (f->runs) {
				from = from < 0 ? 0 : from;
				to = from + got.value;
				if (to > f->columns)
					return BROKEN;
			} else if (got.value == RUNS) {
				f->runs = 2;
				continue;
			} else {
				c = change(f, c);
				to = got.value == PASS ? c[1] : *c + got.value - 3;
				to = to < 0 ? 0 : to > f->columns ? f->columns : to;
			}
			if (f->black && from < to)
				paint(f, from, to);
			f->at = to;
			if (!f->runs) {
				f->black ^= got.value != PASS;
			} else if (got.value < 64) {
				f->black ^= 1;
				f->runs--;
			}
		}
		if (f->runs)
			continue;
		if (f->at > 0 && (f->marks || f->at >= f->columns))
			return ROW;
		if (f->marks == 2)
			return LAST;
	}
}

/* end_row makes this row the one above. */
static void end_row(fax *f)
{
	if (f->odd) {
		f->n = 0;
		for (int x = 0, was = 0; x < f->columns; x++) {
			int is = f->bits[x >> 3] >> (7 - (x & 7)) & 1;
			if (is != was)
				f->changes[f->n++] = x;
			was = is;
		}
	}
	for (int i = 0; i < 3; i++)
		f->changes[f->n + i] = f->columns;
	int *c = f->above;
	f->above = f->changes;
	f->changes = c;
	f->n = f->odd = f->black = f->runs = 0;
	f->at = -1;
	if (f->align)
		take(f, f->have & 7);
}

/* give hands on so much of this row as there is room for. */
__attribute__((optimize("O3")))
static unsigned char *give(fax *f, unsigned char *restrict p, unsigned char *end)
{
	int n = f->left < end - p ? f->left : end - p;
	const unsigned char *restrict from = f->bits + f->stride - f->left;
	unsigned char invert = f->invert;
	for (int i = 0; i < n; i++)
		p[i] = from[i] ^ invert;
	f->left -= n;
	return p + n;
}

static int next_fax(fz_context *ctx, fz_stream *stm, size_t max)
{
	fax *f = stm->state;
	unsigned char *p = f->out, *end = p + (max < sizeof f->out ? max : sizeof f->out);
	while (!f->done) {
		if (f->left) {
			p = give(f, p, end);
			if (f->left)
				break;
			memset(f->bits, 0, f->stride);
			f->done = f->rows && f->row >= f->rows;
			if (f->done || p == end)
				break;
		}
		int got = read_row(ctx, f);
		if (got == LAST) {
			f->done = 1;
			break;
		}
		f->left = f->stride;
		if (got == ROW) {
			f->row++;
			end_row(f);
		} else {
			fz_warn(ctx, "damaged fax data");
			p = give(f, p, end);
			f->done = 1;
		}
	}
	stm->rp = f->out;
	stm->wp = p;
	stm->pos += p - f->out;
	return p == f->out ? END : *stm->rp++;
}

static void drop_fax(fz_context *ctx, void *state)
{
	fax *f = state;
	/* What was read ahead is put back: other data may follow. */
	int n = f->have > 0 ? f->have / 8 : 0;
	if (n > f->chain->rp - f->from)
		n = f->chain->rp - f->from;
	f->chain->rp -= n;
	fz_drop_stream(ctx, f->chain);
	fz_free(ctx, f);
}

fz_stream *__wrap_fz_open_faxd(fz_context *ctx, fz_stream *chain, int k, int end_of_line, int align, int columns, int rows, int end_of_block, int black_is_1)
{
	if (k >= 0 || end_of_line || columns < 1 || columns > WIDEST)
		return __real_fz_open_faxd(ctx, chain, k, end_of_line, align, columns, rows, end_of_block, black_is_1);
	if (!modes[1 << (MODE_BITS - 1)].bits)
		list_codes();
	/* At most a change at each pixel and the end, and three times the width. */
	size_t most = columns + 4, stride = (columns + 7) / 8;
	fax *f = fz_calloc(ctx, 1, sizeof *f + 2 * most * sizeof(int) + stride);
	f->columns = columns;
	f->rows = end_of_block ? 0 : rows;
	f->stride = stride;
	f->align = align;
	f->invert = black_is_1 ? 0 : 0xFF;
	f->above = f->room;
	f->changes = f->room + most;
	f->bits = (unsigned char *)(f->changes + most);
	f->at = -1;
	for (int i = 0; i < 3; i++)
		f->above[i] = columns;
	f->chain = fz_keep_stream(ctx, chain);
	f->from = chain->rp;
	return fz_new_stream(ctx, f, next_fax, drop_fax);
}
