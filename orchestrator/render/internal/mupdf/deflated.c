//go:build linux

#include <string.h>

#include "inside.h"

/* zlib's inner loop, which undoes deflate (RFC 1951) while there is enough of input
 * and room. zlib's own takes in a byte at a time and copies byte by byte; here it
 * is eight. It stops before what is not a literal or a sound match, and before the
 * ends, and leaves them to zlib's, so that the ends of blocks and damaged data are
 * zlib's to judge. */

/* The beginnings of zlib's structures are those of this version; with another one
 * zlib's own loop is taken. */
#define ZLIB "1.2.13"

typedef struct { unsigned char op, bits; uint16_t value; } code;

typedef struct {
	void *stream;
	int mode, last, wrap, dictionary, flags;
	unsigned most;
	unsigned long check, total;
	void *head;
	unsigned window_bits, window_size, window_have, window_next;
	unsigned char *window;
	unsigned long hold;
	unsigned bits, length, offset, extra;
	const code *lengths, *distances;
	unsigned length_bits, distance_bits;
} inflate_state;

typedef struct {
	const unsigned char *in;
	unsigned in_left;
	unsigned long in_total;
	unsigned char *out;
	unsigned out_left;
	unsigned long out_total;
	const char *message;
	inflate_state *state;
} z_stream;

static int known;

void engine_zlib(const char *version) { known = !strcmp(version, ZLIB); }

/* A turn of the loop takes in up to 15 bytes, and puts out up to two literals, a
 * match of 258 bytes and 7 that are put out anew. */
#define IN_MOST 16
#define OUT_MOST (2 + 258 + 7)

typedef struct {
	const unsigned char *in;
	uint64_t hold; /* the next bits, from the bottom */
	unsigned bits; /* how many */
} reader;

/* fill makes them 56 at least. */
static inline void fill(reader *r)
{
	uint64_t more;
	memcpy(&more, r->in, 8);
	r->hold |= more << r->bits;
	r->in += (63 - r->bits) / 8;
	r->bits |= 56;
}

static inline unsigned take(reader *r, unsigned n)
{
	unsigned v = r->hold & ((UINT64_C(1) << n) - 1);
	r->hold >>= n;
	r->bits -= n;
	return v;
}

/* take_code gives the code that the next bits begin with. */
static inline code take_code(reader *r, const code *table, unsigned bits)
{
	code c = table[r->hold & ((1u << bits) - 1)];
	take(r, c.bits);
	if (c.op && c.op < 16) { /* it goes on in another table */
		c = table[c.value + (r->hold & ((1u << c.op) - 1))];
		take(r, c.bits);
	}
	return c;
}

/* repeat copies n bytes from so far back, and up to 7 more. */
static inline void repeat(unsigned char *out, size_t back, size_t n)
{
	unsigned char *end = out + n;
	if (back >= 8)
		for (; out < end; out += 8)
			memcpy(out, out - back, 8);
	else if (back == 1)
		memset(out, out[-1], n);
	else
		for (; out < end; out++)
			*out = out[-back];
}

static void loop(z_stream *z, const unsigned char *begin)
{
	inflate_state *s = z->state;
	const unsigned char *in_last = z->in + z->in_left - IN_MOST;
	unsigned char *out = z->out, *out_last = out + z->out_left - OUT_MOST;
	reader r = { z->in, s->hold, s->bits }, kept;
	for (;;) {
		kept = r;
		if (r.in > in_last || out > out_last)
			break;
		fill(&r);
		code c = take_code(&r, s->lengths, s->length_bits);
		if (!c.op) {
			*out++ = c.value;
			kept = r;
			c = take_code(&r, s->lengths, s->length_bits);
			if (!c.op) {
				*out++ = c.value;
				continue;
			}
		}
		if (!(c.op & 16))
			break;
		size_t n = c.value + take(&r, c.op & 15);
		fill(&r);
		c = take_code(&r, s->distances, s->distance_bits);
		if (!(c.op & 16))
			break;
		size_t back = c.value + take(&r, c.op & 15), here = out - begin;
		if (back > here) {
			/* Some of it is in the window, which goes round. */
			size_t old = back - here, at = s->window_next;
			if (old > s->window_have)
				break;
			at = at >= old ? at - old : at + s->window_size - old;
			size_t part = n < old ? n : old, most = s->window_size - at;
			n -= part;
			if (part > most) {
				memcpy(out, s->window + at, most);
				out += most;
				part -= most;
				at = 0;
			}
			memcpy(out, s->window + at, part);
			out += part;
		}
		repeat(out, back, n);
		out += n;
	}
	/* Of what was taken in here, whole bytes that are not used are given back. */
	size_t unused = kept.bits / 8, taken = kept.in - z->in;
	unused = unused < taken ? unused : taken;
	kept.in -= unused;
	s->bits = kept.bits - 8 * unused;
	s->hold = kept.hold & ((UINT64_C(1) << s->bits) - 1);
	z->in_left -= kept.in - z->in;
	z->in = kept.in;
	z->out_left -= out - z->out;
	z->out = out;
}

/* start is how much room there was where the output begins. */
void __wrap_inflate_fast(z_stream *z, unsigned start)
{
	const unsigned char *begin = z->out - (start - z->out_left);
	if (known && z->in_left >= IN_MOST && z->out_left >= OUT_MOST)
		loop(z, begin);
	if (z->in_left >= 6 && z->out_left >= 258)
		__real_inflate_fast(z, start);
}
