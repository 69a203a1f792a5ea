/* What engine.c and page.c share of an engine. */
#ifndef QUIRE_INSIDE_H
#define QUIRE_INSIDE_H

#include <stdio.h>

#include "engine.h"
#include "fitz.h"

/* A letter as it was drawn: m is its size and slant, and where in a pixel it
 * stands; dx and dy are how far from there MuPDF wants it painted. */
typedef struct {
	fz_font *font; /* NULL: none */
	fz_glyph *glyph;
	fz_colorspace *model; /* what it was drawn for; NULL: it has no colours */
	float m[6], dx, dy;
	int gid, aa;
	float stroke[3]; /* how wide, how joined and how far at most, of an outline */
} engine_glyph;

/* How many letters are kept: those of a page in several fonts. */
#define GLYPHS 4096

/* A picture, or part of one, that was decoded or asked for on a page. */
typedef struct {
	const void *image; /* NULL: none */
	int factor;
	fz_irect rect;
	unsigned page;
} engine_picture;

/* How many are remembered: one after the other, so that which does not depend on
 * where in memory they are. */
#define PICTURES 64

struct engine {
	fz_context *ctx;
	fz_document *doc;
	FILE *file;
	char *read_buffer;
	int fd;
	int64_t pos;
	int read_errno;

	/* The allocator's account. MuPDF answers a refused allocation by emptying
	 * its store and asking again for the same size; only when that ends
	 * without success was the page really short of memory. */
	size_t used, limit, peak;
	size_t opened; /* used when the document was open */
	size_t pending;
	int denied;

	fz_cookie cookie;
	unsigned drawn; /* pages that were begun */

	engine_glyph glyphs[GLYPHS];
	fz_colorspace *purged_for; /* whose coloured letters MuPDF keeps, */
	unsigned purged_at; /* of this page */

	engine_picture pictures[PICTURES]; /* a ring */
	unsigned next_picture;

	int lent; /* a font was drawn with what is this page's */
	int missed_letters;

	char messages[8192];
	size_t messages_len;
	int messages_lost;
};

static inline int aborted(engine *e)
{
	return __atomic_load_n(&e->cookie.abort, __ATOMIC_RELAXED);
}

/* A call into MuPDF stands between the two. engine_begin clears the account of
 * what went wrong; engine_conclude tells from it, and from the code and message
 * of what was thrown, whether the call went well (0), or why not (-1). */
void engine_begin(engine *e);
int engine_conclude(engine *e, int code, const char *message, engine_error *err);

/* engine_expect_raster says how large pages are drawn, 0 for not known. */
void engine_expect_raster(int width, int height);

/* engine_zlib says which zlib MuPDF was built with. */
void engine_zlib(const char *version);

/* engine_drop_glyphs forgets the letters that were drawn. */
void engine_drop_glyphs(engine *e);

#endif
