//go:build linux

#include "inside.h"

/* A JPEG 2000 image holds itself at half its size, a quarter and so on, and the
 * time to decode it goes with the pixels. MuPDF decodes all of them, and then
 * scales a scan of 300 dpi down to the raster. Here the smallest is decoded that
 * is a third larger than the raster or more each way, so that it stays sharp. */

static unsigned least_width, least_height;

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
	if (least_width && !image->x0 && !image->y0)
		while (times < 5 && image->x1 >> (times + 1) >= least_width && image->y1 >> (times + 1) >= least_height)
			times++;
	/* It may hold fewer sizes than that. What is refused stays set all the same,
	 * and the decoder then reads what is not there, so that 0 is set, too. */
	while (!opj_set_decoded_resolution_factor(codec, times) && times > 0)
		times--;
	if (!__real_opj_decode(codec, stream, image))
		return 0;
	image->x1 = halved(image->x1, times);
	image->y1 = halved(image->y1, times);
	return 1;
}
