//go:build linux

#include <string.h>

#include "inside.h"

/* What a page looks like must not depend on the pages that were drawn before
 * it. MuPDF keeps, for the pages that come, pictures as it decoded them and
 * tiles of patterns as it painted them, and takes what is nearly right; and fonts. */

/* A picture that is shown small is decoded at a reduction, and one of which a
 * part is shown, that part. MuPDF looks for the part at its reduction, then at
 * each smaller one (what is larger can be made small), and then for the whole
 * picture in the same way; all that with one key on the stack, whose image,
 * factor and rect tell the questions apart. Here the others are asked only about
 * what this page has come by itself. What is not found is decoded. */

typedef struct { int refs; void *image; int factor; fz_irect rect; } image_key;

static struct { const void *key, *image; int factor; fz_irect rect; } asked;

static int same_rect(fz_irect a, fz_irect b)
{
	return a.x0 == b.x0 && a.y0 == b.y0 && a.x1 == b.x1 && a.y1 == b.y1;
}

static int within(fz_irect a, fz_irect b)
{
	return a.x0 >= b.x0 && a.y0 >= b.y0 && a.x1 <= b.x1 && a.y1 <= b.y1;
}

/* second_choice tells whether MuPDF asks for what would only nearly do. Where it
 * errs, a picture is decoded once more, and looks no different. */
static int second_choice(const image_key *k)
{
	if (k != asked.key || k->image != asked.image)
		return 0;
	if (same_rect(k->rect, asked.rect))
		return k->factor == asked.factor - 1;
	return asked.factor == 0 && within(asked.rect, k->rect);
}

static int own(engine *e, const image_key *k)
{
	for (int i = 0; i < PICTURES; i++) {
		engine_picture *p = &e->pictures[i];
		if (p->page == e->drawn && p->image == k->image && p->factor == k->factor && same_rect(p->rect, k->rect))
			return 1;
	}
	return 0;
}

static void come_by(engine *e, const image_key *k)
{
	if (!own(e, k))
		e->pictures[e->next_picture++ % PICTURES] = (engine_picture){ k->image, k->factor, k->rect, e->drawn };
}

/* What is stored may be larger than what was asked for: not every format can be
 * decoded in part. */
void *__wrap_fz_store_item(fz_context *ctx, void *key, void *val, size_t size, const fz_store_type *type)
{
	if (!strcmp(type->name, "fz_image"))
		come_by(fz_user_context(ctx), key);
	return __real_fz_store_item(ctx, key, val, size, type);
}

void *__wrap_fz_find_item(fz_context *ctx, fz_store_drop_fn *drop, void *key, const fz_store_type *type)
{
	if (strcmp(type->name, "fz_image"))
		return __real_fz_find_item(ctx, drop, key, type);
	engine *e = fz_user_context(ctx);
	const image_key *k = key;
	int second = second_choice(k);
	asked.key = k;
	asked.image = k->image;
	asked.factor = k->factor;
	asked.rect = k->rect;
	if (second && !own(e, k))
		return NULL;
	void *found = __real_fz_find_item(ctx, drop, key, type);
	if (found && !second)
		come_by(e, k);
	if (found)
		asked.key = NULL;
	return found;
}

/* A pattern's tile is known by the number of its object and by how it is scaled
 * and turned, and not by where in a pixel it begins or what the page has set
 * besides. Here the page is part of the number. */
int __wrap_fz_begin_tile_id(fz_context *ctx, fz_device *dev, fz_rect area, fz_rect view, float xstep, float ystep, fz_matrix ctm, int id)
{
	engine *e = fz_user_context(ctx);
	if (id)
		id = (int)((unsigned)id + e->drawn * 0x9E3779B1u);
	return __real_fz_begin_tile_id(ctx, dev, area, view, xstep, ystep, ctm, id);
}

/* A Type 3 font that has no resources of its own draws its letters with those of
 * the page on which it is first met, and is kept. lent are those of the page while
 * a font is loaded; what asks for them makes the font this page's. */
static const pdf_obj *lent;

pdf_font_desc *__wrap_pdf_load_font(fz_context *ctx, pdf_document *doc, pdf_obj *resources, pdf_obj *dict)
{
	const pdf_obj *before = lent; /* a letter may use another font */
	pdf_font_desc *font = NULL;
	fz_var(font);
	lent = resources;
	fz_try(ctx)
		font = __real_pdf_load_font(ctx, doc, resources, dict);
	fz_always(ctx)
		lent = before;
	fz_catch(ctx)
		fz_rethrow(ctx);
	return font;
}

pdf_obj *__wrap_pdf_dict_get(fz_context *ctx, pdf_obj *dict, pdf_obj *key)
{
	if (lent && dict == lent)
		((engine *)fz_user_context(ctx))->lent = 1;
	return __real_pdf_dict_get(ctx, dict, key);
}
