//go:build linux

#define _GNU_SOURCE
#include <string.h>

#include "inside.h"

/* A JPEG 2000 image holds itself at half its size, a quarter and so on, and the
 * time to decode it goes with the pixels. MuPDF decodes all of them, and then
 * scales a scan of 300 dpi down to the raster. Here the smallest is decoded that
 * is a third larger than the raster or more each way, so that one that fills the
 * page stays sharp. How it is shown is not known yet where it is decoded: one of
 * which the page shows a part, enlarged, is less sharp than it could be. */

static unsigned least_width, least_height;

/* Whether what is decoded just now may be decoded smaller, and whether it was. */
static int may_reduce, reduced;

void engine_expect_raster(int width, int height)
{
	least_width = width + width / 3;
	least_height = height + height / 3;
}

static uint32_t halved(uint32_t n, int times)
{
	return (uint32_t)((n + (UINT64_C(1) << times) - 1) >> times);
}

int __wrap_opj_decode(void *codec, void *stream, opj_image_t *image)
{
	int times = 0;
	if (may_reduce && least_width && !image->x0 && !image->y0)
		while (times < 5 && image->x1 >> (times + 1) >= least_width && image->y1 >> (times + 1) >= least_height)
			times++;
	/* It may hold fewer sizes than that. What is refused stays set all the same,
	 * and the decoder then reads what is not there, so that 0 is set, too. */
	while (!opj_set_decoded_resolution_factor(codec, times) && times > 0)
		times--;
	reduced = times > 0;
	if (!__real_opj_decode(codec, stream, image))
		return 0;
	image->x1 = halved(image->x1, times);
	image->y1 = halved(image->y1, times);
	return 1;
}

/* has_palette tells whether the image's own boxes, which stand before what is
 * coded, have a palette among them. */
static int has_palette(const unsigned char *data, size_t size)
{
	const unsigned char *coded = memmem(data, size, "jp2c", 4);
	return coded && memmem(data, coded - data, "pclr", 4);
}

/* What stands for colours of a palette has no halves: between two numbers there
 * is any other colour. And a part of an image may hold fewer sizes than its
 * beginning says; then all of it is decoded, unless that failed for want of time
 * or memory, of which there would be less. */
fz_pixmap *__wrap_fz_load_jpx(fz_context *ctx, const unsigned char *data, size_t size, fz_colorspace *space)
{
	engine *e = fz_user_context(ctx);
	fz_pixmap *volatile pix = NULL;
	volatile int again = 0;
	may_reduce = !fz_colorspace_is_indexed(ctx, space) && !has_palette(data, size);
	reduced = 0;
	fz_try(ctx)
		pix = __real_fz_load_jpx(ctx, data, size, space);
	fz_always(ctx)
		may_reduce = 0;
	fz_catch(ctx) {
		if (!reduced || aborted(e) || e->denied || e->pending)
			fz_rethrow(ctx);
		fz_convert_error(ctx, NULL);
		again = 1;
	}
	return again ? __real_fz_load_jpx(ctx, data, size, space) : pix;
}
