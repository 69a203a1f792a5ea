#include <float.h>
#include <math.h>
#include <string.h>

#include "inside.h"

/* Page sizes that float arithmetic can still scale to pixels, in points. The
 * largest page PDF allows is 14400 units of 75000 points. */
#define SIDE_MIN 1e-3
#define SIDE_MAX 1.2e9

/* get_box reads a rectangle of the page, its corners in any order. Fewer than
 * four numbers, and no area, are no rectangle. */
static int get_box(fz_context *ctx, pdf_obj *page, const char *key, fz_rect *box)
{
	pdf_obj *a = pdf_dict_gets_inheritable(ctx, page, key);
	float v[4];
	if (pdf_array_len(ctx, a) < 4)
		return 0;
	for (int i = 0; i < 4; i++) {
		pdf_obj *n = pdf_array_get(ctx, a, i);
		if (!pdf_is_number(ctx, n))
			return 0;
		v[i] = pdf_to_real(ctx, n);
		if (!isfinite(v[i]))
			return 0;
	}
	box->x0 = fminf(v[0], v[2]);
	box->y0 = fminf(v[1], v[3]);
	box->x1 = fmaxf(v[0], v[2]);
	box->y1 = fmaxf(v[1], v[3]);
	return box->x0 < box->x1 && box->y0 < box->y1;
}

static int same_box(fz_rect a, fz_rect b)
{
	return a.x0 == b.x0 && a.y0 == b.y0 && a.x1 == b.x1 && a.y1 == b.y1;
}

static void put_box(fz_context *ctx, pdf_document *pdf, pdf_obj *page, const char *key, fz_rect box)
{
	pdf_dict_puts_drop(ctx, page, key, pdf_new_rect(ctx, pdf, box));
}

/* measure works out what a viewer shows of the page (PDF 32000-1, 14.11.2):
 * the CropBox cut to the MediaBox; where they do not meet, the MediaBox; where
 * there is none, US Letter, which is what viewers take. MuPDF 1.24 takes the
 * CropBox as it stands and a page less than one unit wide as one unit, so
 * where the answer differs the page in memory gets the right CropBox. */
static void measure(fz_context *ctx, pdf_document *pdf, pdf_obj *obj, engine_page *page, fz_matrix *view)
{
	fz_rect media, crop;
	int has_media = get_box(ctx, obj, "MediaBox", &media);
	if (!has_media) {
		media = (fz_rect){ 0, 0, 612, 792 };
		put_box(ctx, pdf, obj, "MediaBox", media);
	}
	int has_crop = get_box(ctx, obj, "CropBox", &crop);
	fz_rect shown = media;
	if (has_crop) {
		shown.x0 = fmaxf(media.x0, crop.x0);
		shown.y0 = fmaxf(media.y0, crop.y0);
		shown.x1 = fminf(media.x1, crop.x1);
		shown.y1 = fminf(media.y1, crop.y1);
		if (shown.x0 >= shown.x1 || shown.y0 >= shown.y1)
			shown = media;
	}
	if (has_crop ? !same_box(shown, crop) : pdf_dict_gets_inheritable(ctx, obj, "CropBox") != NULL)
		put_box(ctx, pdf, obj, "CropBox", shown);

	double unit = 1;
	pdf_obj *u = pdf_dict_gets(ctx, obj, "UserUnit");
	if (pdf_is_number(ctx, u) && pdf_to_real(ctx, u) > 0 && isfinite(pdf_to_real(ctx, u)))
		unit = pdf_to_real(ctx, u);
	else if (u)
		pdf_dict_dels(ctx, obj, "UserUnit");

	/* From user space to the page as displayed, y down, in points. MuPDF's own
	 * origin may be elsewhere (its CropBox is one unit at least), its linear
	 * part is right. */
	fz_rect ignored;
	fz_matrix m;
	pdf_page_obj_transform(ctx, obj, &ignored, &m);
	double xs[2] = { (double)m.a * shown.x0 + (double)m.c * shown.y0, (double)m.a * shown.x1 + (double)m.c * shown.y1 };
	double ys[2] = { (double)m.b * shown.x0 + (double)m.d * shown.y0, (double)m.b * shown.x1 + (double)m.d * shown.y1 };
	*view = (fz_matrix){ 1, 0, 0, 1, -(fmin(xs[0], xs[1]) + m.e), -(fmin(ys[0], ys[1]) + m.f) };

	/* fz_scale(u,-u) after fz_rotate(-r): the first column tells r. */
	if (fabsf(m.a) >= fabsf(m.b))
		page->rotation = m.a > 0 ? 0 : 180;
	else
		page->rotation = m.b > 0 ? 90 : 270;
	double w = (double)shown.x1 - shown.x0, h = (double)shown.y1 - shown.y0;
	page->crop[0] = shown.x0;
	page->crop[1] = shown.y0;
	page->crop[2] = shown.x1;
	page->crop[3] = shown.y1;
	page->width = unit * (page->rotation % 180 ? h : w);
	page->height = unit * (page->rotation % 180 ? w : h);
}

/* shape shrinks one side of a raster to the page's shape, to one pixel at least. */
static void shape(const engine_page *page, int *width, int *height)
{
	double scale = fmin(*width / page->width, *height / page->height);
	*width = (int)fmax(1, fmin(*width, round(page->width * scale)));
	*height = (int)fmax(1, fmin(*height, round(page->height * scale)));
}

/* Of tagged pages MuPDF looks up, at both ends of each piece, which part of the
 * document's structure (chapter, paragraph, cell) it is, in objects that nothing
 * else reads. Drawing does not ask for it. */
pdf_obj *__wrap_pdf_lookup_number(fz_context *ctx, pdf_obj *tree, int number) { return NULL; }

int engine_draw(engine *e, int number, int width, int height, int fit, unsigned char *rgb, engine_page *out, engine_error *err)
{
	fz_context *ctx = e->ctx;
	fz_page *page = NULL;
	fz_pixmap *pix = NULL;
	fz_device *dev = NULL;
	pdf_obj *obj = NULL;
	volatile int bad_size = 0;
	pdf_document *pdf = pdf_specifics(ctx, e->doc);
	int repaired = pdf && pdf_was_repaired(ctx, pdf);
	int code = FITZ_ERROR_NONE;
	const char *message = "";

	memset(out, 0, sizeof *out);
	engine_begin(e);
	e->drawn++;
	e->lent = 0;
	e->cookie.progress = 0;
	e->cookie.progress_max = 0;
	e->cookie.errors = 0;
	e->cookie.incomplete = 0;

	fz_var(page);
	fz_var(pix);
	fz_var(dev);
	fz_var(obj);
	fz_try(ctx) {
		fz_matrix view = { 1, 0, 0, 1, 0, 0 };
		/* The other formats work out from the size of what was decoded how
		 * far it is to be scaled. */
		engine_expect_raster(pdf ? width : 0, pdf ? height : 0);
		if (pdf) {
			/* Kept, because changing it drops MuPDF's page map. */
			obj = pdf_keep_obj(ctx, pdf_lookup_page_obj(ctx, pdf, number));
			measure(ctx, pdf, obj, out, &view);
		}
		page = fz_load_page(ctx, e->doc, number);
		if (!pdf) {
			fz_rect b = fz_bound_page(ctx, page);
			/* The rectangle of an image that cannot be read is inside out,
			 * and that of a drawing may have no end. */
			out->width = out->crop[2] = fmin(FLT_MAX, fmax(0, (double)b.x1 - b.x0));
			out->height = out->crop[3] = fmin(FLT_MAX, fmax(0, (double)b.y1 - b.y0));
			view.e = -b.x0;
			view.f = -b.y0;
		}
		bad_size = !(out->width >= SIDE_MIN && out->width <= SIDE_MAX && out->height >= SIDE_MIN && out->height <= SIDE_MAX);
		if (!bad_size) {
			if (fit)
				shape(out, &width, &height);
			out->px_width = width;
			out->px_height = height;
			float sx = width / out->width, sy = height / out->height;
			view.a *= sx;
			view.e *= sx;
			view.d *= sy;
			view.f *= sy;
			fz_irect all = { 0, 0, width, height };
			pix = fz_new_pixmap_with_bbox_and_data(ctx, fz_device_rgb(ctx), all, NULL, 0, rgb);
			memset(rgb, 255, (size_t)width * height * 3);
			fz_matrix identity = { 1, 0, 0, 1, 0, 0 };
			dev = fz_new_draw_device(ctx, identity, pix);
			fz_run_page(ctx, page, dev, view, &e->cookie);
			fz_close_device(ctx, dev);
		}
		fz_flush_warnings(ctx);
	}
	fz_always(ctx) {
		fz_drop_device(ctx, dev);
		fz_drop_pixmap(ctx, pix);
		fz_drop_page(ctx, page);
		pdf_drop_obj(ctx, obj);
	}
	fz_catch(ctx)
		message = fz_convert_error(ctx, &code);

	if (e->lent)
		fz_empty_store(ctx); /* with the fonts that have this page's resources */
	/* Until it is closed the document holds on to each Type 3 font, and to each font
	 * that letters are kept of; these are not in the store, which has a limit. */
	out->heavy = e->used > e->limit / 2 && e->used > e->opened + e->limit / 4;
	out->repaired = pdf && pdf_was_repaired(ctx, pdf) != repaired;
	if (engine_conclude(e, code, message, err) < 0)
		return -1;
	if (bad_size) {
		err->code = ENGINE_PAGE_SIZE;
		err->message[0] = 0;
		return -1;
	}
	return 0;
}
