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

/* What the size of a letter says is another thing in a Type 3 font: it has a
 * scale of its own. Up to this size MuPDF draws a letter as a whole. */
#define LARGEST_TYPE3 256

/* Pixels of the largest letter that is kept. One of a Type 3 font may be as large
 * as the page. */
#define LARGEST_KEPT (64 * 64)

static float whole(float v) { return floorf(v + 0.5f); }
static float half(float v) { return whole(v * 2) / 2; }

static engine_glyph *place_of(engine *e, const engine_glyph *key)
{
	uint64_t m[3], h = (uintptr_t)key->font + (uint64_t)key->gid * 0x9E3779B97F4A7C15u + (key->stroke[1] != 0);
	memcpy(m, key->m, sizeof m);
	for (int i = 0; i < 3; i++)
		h = (h ^ m[i] ^ h >> 29) * 0xBF58476D1CE4E5B9u;
	return &e->glyphs[(h >> 32) % GLYPHS];
}

static void drop(fz_context *ctx, engine_glyph *kept)
{
	fz_drop_glyph(ctx, kept->glyph);
	fz_drop_font(ctx, kept->font);
	fz_drop_colorspace(ctx, kept->model);
}

static void purge(fz_context *ctx, engine *e, fz_colorspace *model)
{
	fz_purge_glyph_cache(ctx);
	fz_drop_colorspace(ctx, e->purged_for);
	e->purged_for = fz_keep_colorspace(ctx, model);
	e->purged_at = e->drawn;
}

/* draw has MuPDF draw a letter. A letter of a Type 3 font may have colours, which
 * are those of what it is drawn on; the keys of MuPDF's cache do not say of what,
 * so only those of this page and for one colour space are left there. */
static fz_glyph *draw(fz_context *ctx, fz_font *font, int gid, fz_matrix *trm, fz_colorspace *model, const fz_irect *scissor, int alpha, int aa)
{
	if (fz_font_ft_face(ctx, font))
		return __real_fz_render_glyph(ctx, font, gid, trm, model, scissor, alpha, aa);
	engine *e = fz_user_context(ctx);
	if (e->purged_for != model || e->purged_at != e->drawn)
		purge(ctx, e, model);
	fz_glyph *glyph = __real_fz_render_glyph(ctx, font, gid, trm, model, scissor, alpha, aa);
	if (e->purged_for != model) /* a letter inside this one was drawn for another */
		purge(ctx, e, model);
	return glyph;
}

/* MuPDF's fz_stroke_state, up to what is used of it. */
typedef struct {
	int refs, start_cap, dash_cap, end_cap, join;
	float width, miter, phase;
	int dashes;
} stroke_state;

/* render is for letters that are filled, and for the outlines of those that are not
 * of a Type 3 font, with stroke and the matrix that it is under. */
static fz_glyph *render(fz_context *ctx, fz_font *font, int gid, fz_matrix *trm, const fz_matrix *ctm, fz_colorspace *model, const stroke_state *stroke, const fz_irect *scissor, int alpha, int aa)
{
	int type3 = !fz_font_ft_face(ctx, font);
	float size = (fabsf(trm->a) + fabsf(trm->b) + fabsf(trm->c) + fabsf(trm->d)) / 2;
	if (!(size < (type3 ? LARGEST_TYPE3 : LARGEST)))
		return stroke ? __real_fz_render_stroked_glyph(ctx, font, gid, trm, *ctm, model, stroke, scissor, aa) : draw(ctx, font, gid, trm, model, scissor, alpha, aa);
	int across = trm->b == 0 && trm->c == 0, down = trm->a == 0 && trm->d == 0, large = size >= LARGEST;
	trm->e = down || large ? whole(trm->e) : half(trm->e);
	trm->f = across || large ? whole(trm->f) : half(trm->f);

	engine *e = fz_user_context(ctx);
	engine_glyph key = {
		.font = font, .gid = gid, .aa = aa, .model = type3 ? model : NULL,
		.m = { trm->a, trm->b, trm->c, trm->d, trm->e - floorf(trm->e), trm->f - floorf(trm->f) },
	};
	if (stroke) {
		/* As MuPDF has it, the line is as wide in every direction. */
		key.stroke[0] = stroke->width * sqrtf(fabsf(ctm->a * ctm->d - ctm->b * ctm->c));
		key.stroke[1] = 1 + stroke->join; /* not 0, which is no stroke; a letter's outlines have no ends */
		key.stroke[2] = stroke->miter;
	}
	engine_glyph *kept = place_of(e, &key);
	if (kept->font == font && kept->gid == gid && kept->aa == aa && kept->model == key.model && !memcmp(kept->m, key.m, sizeof key.m) && !memcmp(kept->stroke, key.stroke, sizeof key.stroke)) {
		trm->e += kept->dx;
		trm->f += kept->dy;
		return fz_keep_glyph(ctx, kept->glyph);
	}
	float x = trm->e, y = trm->f;
	fz_glyph *glyph = stroke ? __real_fz_render_stroked_glyph(ctx, font, gid, trm, *ctm, model, stroke, scissor, aa) : draw(ctx, font, gid, trm, model, scissor, alpha, aa);
	if (glyph && (int64_t)fz_glyph_width(ctx, glyph) * fz_glyph_height(ctx, glyph) <= LARGEST_KEPT) {
		drop(ctx, kept);
		*kept = key;
		kept->font = fz_keep_font(ctx, font);
		kept->model = fz_keep_colorspace(ctx, key.model);
		kept->glyph = fz_keep_glyph(ctx, glyph);
		kept->dx = trm->e - x; /* MuPDF has its own mind where it stands */
		kept->dy = trm->f - y;
	}
	return glyph;
}

fz_glyph *__wrap_fz_render_glyph(fz_context *ctx, fz_font *font, int gid, fz_matrix *trm, fz_colorspace *model, const fz_irect *scissor, int alpha, int aa)
{
	return render(ctx, font, gid, trm, NULL, model, NULL, scissor, alpha, aa);
}

/* MuPDF keeps no outlines of letters, and bold text is often made with them. To MuPDF
 * the strokes of a Type 3 letter are the letter; dashed ones it draws as a path. */
fz_glyph *__wrap_fz_render_stroked_glyph(fz_context *ctx, fz_font *font, int gid, fz_matrix *trm, fz_matrix ctm, fz_colorspace *model, const void *stroke, const fz_irect *scissor, int aa)
{
	const stroke_state *s = stroke;
	if (!fz_font_ft_face(ctx, font))
		return render(ctx, font, gid, trm, NULL, model, NULL, scissor, 1, aa);
	if (s->dashes > 0)
		return __real_fz_render_stroked_glyph(ctx, font, gid, trm, ctm, model, stroke, scissor, aa);
	return render(ctx, font, gid, trm, &ctm, model, s, scissor, 1, aa);
}

void engine_drop_glyphs(engine *e)
{
	for (int i = 0; i < GLYPHS; i++)
		drop(e->ctx, &e->glyphs[i]);
	memset(e->glyphs, 0, sizeof e->glyphs);
	fz_drop_colorspace(e->ctx, e->purged_for);
	e->purged_for = NULL;
}
