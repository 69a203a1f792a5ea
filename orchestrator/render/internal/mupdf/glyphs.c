//go:build linux

#include <math.h>
#include <string.h>

#include "inside.h"

/* MuPDF draws a letter of text anew for each of four positions within a pixel,
 * and for eight or sixteen where it is small, each time from the font's program:
 * a third of what a page of text takes. Here there are two positions along a
 * line of text and one across. The letters of a word are off by a quarter of a
 * pixel at most then, and those that were drawn are used more often.
 *
 * They are kept in front of MuPDF's own cache, whose keys are dear to make. */

/* Letters of this size and more are rare, and MuPDF places them otherwise. */
#define LARGEST 48

static float whole(float v) { return floorf(v + 0.5f); }
static float half(float v) { return whole(v * 2) / 2; }

static engine_glyph *place_of(engine *e, const engine_glyph *key)
{
	uint64_t m[3], h = (uintptr_t)key->font + (uint64_t)key->gid * 0x9E3779B97F4A7C15u;
	memcpy(m, key->m, sizeof m);
	for (int i = 0; i < 3; i++)
		h = (h ^ m[i] ^ h >> 29) * 0xBF58476D1CE4E5B9u;
	return &e->glyphs[(h >> 32) % GLYPHS];
}

fz_glyph *__wrap_fz_render_glyph(fz_context *ctx, fz_font *font, int gid, fz_matrix *trm, fz_colorspace *model, const fz_irect *scissor, int alpha, int aa)
{
	if (!(fabsf(trm->a) + fabsf(trm->b) + fabsf(trm->c) + fabsf(trm->d) < 2 * LARGEST))
		return __real_fz_render_glyph(ctx, font, gid, trm, model, scissor, alpha, aa);
	int across = trm->b == 0 && trm->c == 0, down = trm->a == 0 && trm->d == 0;
	trm->e = down ? whole(trm->e) : half(trm->e);
	trm->f = across ? whole(trm->f) : half(trm->f);

	engine *e = fz_user_context(ctx);
	engine_glyph key = {
		.font = font, .gid = gid, .aa = aa,
		.m = { trm->a, trm->b, trm->c, trm->d, trm->e - floorf(trm->e), trm->f - floorf(trm->f) },
	};
	engine_glyph *kept = place_of(e, &key);
	if (kept->font == font && kept->gid == gid && kept->aa == aa && !memcmp(kept->m, key.m, sizeof key.m)) {
		trm->e += kept->dx;
		trm->f += kept->dy;
		return fz_keep_glyph(ctx, kept->glyph);
	}
	float x = trm->e, y = trm->f;
	fz_glyph *glyph = __real_fz_render_glyph(ctx, font, gid, trm, model, scissor, alpha, aa);
	if (glyph) {
		fz_drop_glyph(ctx, kept->glyph);
		fz_drop_font(ctx, kept->font);
		*kept = key;
		kept->font = fz_keep_font(ctx, font);
		kept->glyph = fz_keep_glyph(ctx, glyph);
		kept->dx = trm->e - x; /* MuPDF has its own mind where it stands */
		kept->dy = trm->f - y;
	}
	return glyph;
}

void engine_drop_glyphs(engine *e)
{
	for (int i = 0; i < GLYPHS; i++) {
		fz_drop_glyph(e->ctx, e->glyphs[i].glyph);
		fz_drop_font(e->ctx, e->glyphs[i].font);
	}
	memset(e->glyphs, 0, sizeof e->glyphs);
}
