//go:build linux

#include <string.h>

#include "inside.h"

/* MuPDF keeps a pattern that it has drawn for the next shape that is filled with
 * it, and knows it by its object number and its size. It does not look at where
 * in a pixel the pattern begins, nor at what else goes into it, how much shines
 * through for one. So the first page with a pattern would decide what it is on
 * all others. To draw it anew for every shape would make a page of charts or maps
 * many times as dear; here it is known by a number that says where it begins too,
 * and on which page. */

/* More than any number of an object. */
#define FIRST_NUMBER (1 << 30)

int __wrap_fz_begin_tile_id(fz_context *ctx, fz_device *dev, fz_rect area, fz_rect view, float xstep, float ystep, fz_matrix ctm, int id)
{
	if (id) {
		engine *e = fz_user_context(ctx);
		uint32_t at[2];
		memcpy(at, &ctm.e, sizeof at); /* e and f */
		engine_tile *t = &e->tiles[((uint32_t)id * 31 + at[0] * 2654435761u + at[1] * 2246822519u) >> 16 & (TILES - 1)];
		if (t->id != id || t->at[0] != at[0] || t->at[1] != at[1])
			*t = (engine_tile){ id, FIRST_NUMBER | (e->tiles_numbered++ & (FIRST_NUMBER - 1)), { at[0], at[1] } };
		id = t->number;
	}
	return __real_fz_begin_tile_id(ctx, dev, area, view, xstep, ystep, ctm, id);
}

void engine_forget_tiles(engine *e) { memset(e->tiles, 0, sizeof e->tiles); }
