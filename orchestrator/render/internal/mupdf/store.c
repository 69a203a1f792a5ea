//go:build linux

#include <string.h>

#include "inside.h"

/* What a page looks like must not depend on the pages that were drawn before
 * it. MuPDF keeps, for the pages that come, pictures as it decoded them and
 * tiles of patterns as it painted them, and takes what is nearly right. */

/* A picture that is shown small is decoded at a reduction, and one of which a
 * part is shown, that part. MuPDF looks for the part at its reduction, then at
 * each smaller one (what is larger can be made small), and then for the whole
 * picture in the same way; all that with one key on the stack, whose image,
 * factor and rect tell the questions apart. Here only the first of them is
 * asked. What is not found is decoded. */

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

void *__wrap_fz_find_item(fz_context *ctx, fz_store_drop_fn *drop, void *key, const fz_store_type *type)
{
	if (strcmp(type->name, "fz_image"))
		return __real_fz_find_item(ctx, drop, key, type);
	const image_key *k = key;
	int second = second_choice(k);
	asked.key = k;
	asked.image = k->image;
	asked.factor = k->factor;
	asked.rect = k->rect;
	if (second)
		return NULL;
	void *found = __real_fz_find_item(ctx, drop, key, type);
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
