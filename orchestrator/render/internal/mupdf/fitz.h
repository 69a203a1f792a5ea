/*
 * The part of MuPDF's C interface that quire calls, declared here so that this
 * package builds with plain "go build": the archive comes with go-fitz, whose
 * headers are not on the include path of other packages. Everything is as in
 * MuPDF 1.24.9 (include/mupdf/fitz and include/mupdf/pdf); fz_new_context_imp
 * refuses to make a context when the archive's version is another one, so a
 * newer go-fitz cannot be linked against these declarations by accident.
 */
#ifndef QUIRE_FITZ_H
#define QUIRE_FITZ_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define FITZ_VERSION "1.24.9"

typedef struct fz_context fz_context;
typedef struct fz_document fz_document;
typedef struct fz_page fz_page;
typedef struct fz_stream fz_stream;
typedef struct fz_device fz_device;
typedef struct fz_pixmap fz_pixmap;
typedef struct fz_colorspace fz_colorspace;
typedef struct fz_separations fz_separations;
typedef struct fz_archive fz_archive;
typedef struct fz_document_handler fz_document_handler;
typedef struct fz_font fz_font;
typedef struct fz_glyph fz_glyph;
typedef struct FT_FaceRec *FT_Face;
typedef struct pdf_document pdf_document;
typedef struct pdf_obj pdf_obj;

typedef struct { float x0, y0, x1, y1; } fz_rect;
typedef struct { int x0, y0, x1, y1; } fz_irect;
typedef struct { float a, b, c, d, e, f; } fz_matrix;

typedef struct {
	void *user;
	void *(*malloc)(void *, size_t);
	void *(*realloc)(void *, void *, size_t);
	void (*free)(void *, void *);
} fz_alloc_context;

typedef struct {
	int abort;
	int progress;
	size_t progress_max;
	int errors;
	int incomplete;
} fz_cookie;

/* enum fz_error_type */
enum {
	FITZ_ERROR_NONE,
	FITZ_ERROR_GENERIC,
	FITZ_ERROR_SYSTEM,
	FITZ_ERROR_LIBRARY,
	FITZ_ERROR_ARGUMENT,
	FITZ_ERROR_LIMIT,
	FITZ_ERROR_UNSUPPORTED,
	FITZ_ERROR_FORMAT,
	FITZ_ERROR_SYNTAX,
	FITZ_ERROR_TRYLATER,
	FITZ_ERROR_ABORT,
};

typedef void fz_message_cb(void *user, const char *message);

/* Contexts and exceptions. MuPDF throws with siglongjmp; a frame between
 * fz_try and the throw must hold nothing that needs cleaning up. */
fz_context *fz_new_context_imp(const fz_alloc_context *, const void *locks, size_t max_store, const char *version);
void fz_drop_context(fz_context *);
void fz_disable_icc(fz_context *);
void fz_set_user_context(fz_context *, void *user);
void *fz_user_context(fz_context *);
void fz_empty_store(fz_context *);
typedef void fz_store_drop_fn(fz_context *, void *);
typedef struct {
	const char *name;
	/* More follows that is not used here. */
} fz_store_type;
void fz_set_warning_callback(fz_context *, fz_message_cb *, void *user);
void fz_set_error_callback(fz_context *, fz_message_cb *, void *user);
void fz_flush_warnings(fz_context *);
const char *fz_convert_error(fz_context *, int *code);
sigjmp_buf *fz_push_try(fz_context *);
int fz_do_try(fz_context *);
int fz_do_always(fz_context *);
int fz_do_catch(fz_context *);
void fz_var_imp(void *);
_Noreturn void fz_rethrow(fz_context *);

#define fz_var(v) fz_var_imp((void *)&(v))
#define fz_try(ctx) if (!sigsetjmp(*fz_push_try(ctx), 0)) if (fz_do_try(ctx)) do
#define fz_always(ctx) while (0); if (fz_do_always(ctx)) do
#define fz_catch(ctx) while (0); if (fz_do_catch(ctx))

/* Documents. */
typedef fz_document *fz_document_open_fn(fz_context *, const fz_document_handler *, fz_stream *, fz_stream *accel, fz_archive *dir, void *state);
struct fz_document_handler {
	void *recognize; /* a function that is not called here */
	fz_document_open_fn *open;
	/* More follows that is not used here. */
};
extern fz_document_handler pdf_document_handler, xps_document_handler, epub_document_handler,
	fb2_document_handler, mobi_document_handler, cbz_document_handler, img_document_handler,
	svg_document_handler, txt_document_handler, html_document_handler;
fz_stream *fz_open_file_ptr_no_close(fz_context *, FILE *);
void fz_drop_stream(fz_context *, fz_stream *);
void fz_drop_document(fz_context *, fz_document *);
int fz_needs_password(fz_context *, fz_document *);
int fz_authenticate_password(fz_context *, fz_document *, const char *);
int fz_is_document_reflowable(fz_context *, fz_document *);
void fz_layout_document(fz_context *, fz_document *, float w, float h, float em);
int fz_count_pages(fz_context *, fz_document *);

/* Pages. */
fz_page *fz_load_page(fz_context *, fz_document *, int number);
void fz_drop_page(fz_context *, fz_page *);
fz_rect fz_bound_page(fz_context *, fz_page *);
void fz_run_page(fz_context *, fz_page *, fz_device *, fz_matrix, fz_cookie *);

/* Drawing. */
fz_colorspace *fz_device_rgb(fz_context *);
int fz_colorspace_is_indexed(fz_context *, fz_colorspace *);
fz_pixmap *fz_new_pixmap_with_bbox_and_data(fz_context *, fz_colorspace *, fz_irect, fz_separations *, int alpha, unsigned char *samples);
fz_colorspace *fz_keep_colorspace(fz_context *, fz_colorspace *);
void fz_drop_colorspace(fz_context *, fz_colorspace *);
void fz_drop_pixmap(fz_context *, fz_pixmap *);
fz_device *fz_new_draw_device(fz_context *, fz_matrix, fz_pixmap *);
void fz_close_device(fz_context *, fz_device *);
void fz_drop_device(fz_context *, fz_device *);

/* Fonts. */
typedef struct {
	unsigned is_mono : 1, is_serif : 1, is_bold : 1, is_italic : 1;
	unsigned ft_substitute : 1;
	/* More follows that is not used here. */
} fz_font_flags_t;
typedef struct {
	struct { int refs; void *drop, *droppable; } storable;
	size_t size;
	fz_font *font;
	/* More follows that is not used here. */
} pdf_font_desc;
fz_font *fz_keep_font(fz_context *, fz_font *);
void fz_drop_font(fz_context *, fz_font *);
fz_font_flags_t *fz_font_flags(fz_font *);
fz_font *fz_new_font_from_memory(fz_context *, const char *name, const unsigned char *data, int len, int index, int use_glyph_bbox);
void *fz_font_ft_face(fz_context *, fz_font *);
void fz_purge_glyph_cache(fz_context *);
int fz_glyph_width(fz_context *, fz_glyph *);
int fz_glyph_height(fz_context *, fz_glyph *);
fz_glyph *fz_keep_glyph(fz_context *, fz_glyph *);
void fz_drop_glyph(fz_context *, fz_glyph *);
int ucdn_get_script(uint32_t code);
int FT_Get_Glyph_Name(FT_Face, unsigned gid, void *name, unsigned size);

/* OpenJPEG. */
typedef struct {
	uint32_t x0, y0, x1, y1;
	/* More follows that is not used here. */
} opj_image_t;
int opj_set_decoded_resolution_factor(void *codec, uint32_t factor);

/* Streams. */
struct fz_stream {
	int refs, error, eof, progressive;
	int64_t pos;
	int avail, bits;
	unsigned char *rp, *wp;
	void *state, *next, *drop, *seek;
};
typedef int fz_stream_next_fn(fz_context *, fz_stream *, size_t max);
typedef void fz_stream_drop_fn(fz_context *, void *state);
fz_stream *fz_new_stream(fz_context *, void *state, fz_stream_next_fn *, fz_stream_drop_fn *);
fz_stream *fz_keep_stream(fz_context *, fz_stream *);
size_t fz_read(fz_context *, fz_stream *, unsigned char *data, size_t len);
fz_stream *fz_open_flated(fz_context *, fz_stream *chain, int window_bits);
void fz_warn(fz_context *, const char *format, ...);
void *fz_realloc(fz_context *, void *, size_t);
void *fz_calloc(fz_context *, size_t count, size_t size);
void fz_free(fz_context *, void *);

/* zlib. */
int inflateValidate(void *z, int check);

/* Functions that the linker has replaced with ours, under __wrap_ names, and
 * theirs (mupdf.go has the list). */
int __real_fz_encode_character_with_fallback(fz_context *, fz_font *, int unicode, int script, int language, fz_font **out);
fz_glyph *__real_fz_render_glyph(fz_context *, fz_font *, int gid, fz_matrix *, fz_colorspace *, const fz_irect *scissor, int alpha, int aa);
fz_glyph *__real_fz_render_stroked_glyph(fz_context *, fz_font *, int gid, fz_matrix *trm, fz_matrix ctm, fz_colorspace *, const void *stroke, const fz_irect *scissor, int aa);
void __real_pdf_load_to_unicode(fz_context *, pdf_document *, pdf_font_desc *, const char **strings, char *collection, pdf_obj *cmap);
unsigned __real_FT_Get_Name_Index(FT_Face, const char *name);
int __real_FT_Done_Face(FT_Face);
fz_stream *__real_fz_open_predict(fz_context *, fz_stream *chain, int predictor, int columns, int colors, int bpc);
fz_stream *__real_fz_open_faxd(fz_context *, fz_stream *chain, int k, int end_of_line, int align, int columns, int rows, int end_of_block, int black_is_1);
void __real_inflate_fast(void *z, unsigned start);
int __real_inflateInit2_(void *z, int bits, const char *version, int size);
void *__real_fz_store_item(fz_context *, void *key, void *val, size_t size, const fz_store_type *);
void *__real_fz_find_item(fz_context *, fz_store_drop_fn *, void *key, const fz_store_type *);
int __real_fz_begin_tile_id(fz_context *, fz_device *, fz_rect area, fz_rect view, float xstep, float ystep, fz_matrix, int id);
pdf_font_desc *__real_pdf_load_font(fz_context *, pdf_document *, pdf_obj *resources, pdf_obj *dict);
pdf_obj *__real_pdf_dict_get(fz_context *, pdf_obj *dict, pdf_obj *key);
int __real_opj_decode(void *codec, void *stream, opj_image_t *);
fz_pixmap *__real_fz_load_jpx(fz_context *, const unsigned char *data, size_t size, fz_colorspace *);
typedef void fz_span_color_painter_t(unsigned char *d, const unsigned char *mask, int n, int w, const unsigned char *color, int alpha, const void *overprint);
fz_span_color_painter_t *__real_fz_get_span_color_painter(int n, int alpha, const unsigned char *color, const void *overprint);
void __real_fz_subsample_pixblock(unsigned char *samples, int w, int h, int n, int factor, ptrdiff_t stride);

/* PDF objects. */
pdf_document *pdf_specifics(fz_context *, fz_document *);
int pdf_was_repaired(fz_context *, pdf_document *);
int pdf_xref_len(fz_context *, pdf_document *);
pdf_obj *pdf_trailer(fz_context *, pdf_document *);
pdf_obj *pdf_lookup_page_obj(fz_context *, pdf_document *, int number);
void pdf_page_obj_transform(fz_context *, pdf_obj *page, fz_rect *box, fz_matrix *ctm);
pdf_obj *pdf_keep_obj(fz_context *, pdf_obj *);
void pdf_drop_obj(fz_context *, pdf_obj *);
int pdf_is_number(fz_context *, pdf_obj *);
float pdf_to_real(fz_context *, pdf_obj *);
int pdf_is_dict(fz_context *, pdf_obj *);
int pdf_to_int(fz_context *, pdf_obj *);
const char *pdf_to_name(fz_context *, pdf_obj *);
pdf_obj *pdf_new_name(fz_context *, const char *);
pdf_obj *pdf_new_int(fz_context *, int64_t);
pdf_obj *pdf_new_rect(fz_context *, pdf_document *, fz_rect);
int pdf_is_array(fz_context *, pdf_obj *);
int pdf_array_len(fz_context *, pdf_obj *);
pdf_obj *pdf_array_get(fz_context *, pdf_obj *, int);
void pdf_array_delete(fz_context *, pdf_obj *, int);
int pdf_to_num(fz_context *, pdf_obj *);
pdf_obj *pdf_dict_gets(fz_context *, pdf_obj *, const char *key);
pdf_obj *pdf_dict_gets_inheritable(fz_context *, pdf_obj *, const char *key);
void pdf_dict_puts_drop(fz_context *, pdf_obj *, const char *key, pdf_obj *value);
void pdf_dict_dels(fz_context *, pdf_obj *, const char *key);

#endif
