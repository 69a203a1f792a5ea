//go:build linux

#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inside.h"

/* MuPDF reads in pieces of 4 KiB and seeks between them; this much is read
 * ahead of it. */
#define READ_BUFFER (32 << 10)

/* MuPDF takes and frees the same large pieces for page after page. Left to
 * itself the C library gets them from the system each time and has them
 * cleared; instead up to so much of what is free is kept, until a document is
 * closed that used more. */
#define KEEP_FREE ((size_t)64 << 20)
#define MAP_ABOVE (32 << 20)

/* Formats without pages of their own are laid out on pages of A5, 11 points to
 * the em: what MuPDF's own viewer takes, and near the rasters of models that
 * were trained on pages of print. */
#define LAYOUT_WIDTH 420
#define LAYOUT_HEIGHT 595
#define LAYOUT_EM 11

/* Allocation */

static int grant(engine *e, size_t old, size_t size)
{
	/* Between two operators MuPDF looks at the cookie; in the middle of one,
	 * the next allocation is where it can be stopped. */
	int granted = !aborted(e) && size <= e->limit && e->used - old <= e->limit - size;
	if (e->pending && e->pending != size)
		e->denied++;
	e->pending = granted ? 0 : size;
	return granted;
}

static void account(engine *e, size_t old, void *p)
{
	e->used += malloc_usable_size(p) - old;
	if (e->used > e->peak)
		e->peak = e->used;
}

static void *engine_malloc(void *user, size_t size)
{
	engine *e = user;
	if (!grant(e, 0, size))
		return NULL;
	void *p = malloc(size);
	if (!p) {
		e->pending = size;
		return NULL;
	}
	account(e, 0, p);
	return p;
}

static void *engine_realloc(void *user, void *old_p, size_t size)
{
	engine *e = user;
	size_t old = malloc_usable_size(old_p);
	if (!grant(e, old, size))
		return NULL;
	void *p = realloc(old_p, size);
	if (!p) {
		e->pending = size;
		return NULL;
	}
	account(e, old, p);
	return p;
}

static void engine_free_block(void *user, void *p)
{
	engine *e = user;
	e->used -= malloc_usable_size(p);
	free(p);
}

/* Reading. The descriptor's own offset is never touched: it is shared with
 * whoever passed it. */

static ssize_t engine_read(void *cookie, char *buf, size_t size)
{
	engine *e = cookie;
	if (aborted(e)) {
		errno = ECANCELED;
		return -1;
	}
	if (e->pos > INT64_MAX - (int64_t)size)
		return 0; /* no file is that long, and pread would call it an error */
	for (;;) {
		ssize_t n = pread(e->fd, buf, size, e->pos);
		if (n >= 0) {
			e->pos += n;
			return n;
		}
		if (errno != EINTR) {
			e->read_errno = errno;
			return -1;
		}
	}
}

static int engine_seek(void *cookie, off_t *offset, int whence)
{
	engine *e = cookie;
	int64_t base = 0;
	if (whence == SEEK_CUR) {
		base = e->pos;
	} else if (whence == SEEK_END) {
		struct stat st;
		if (fstat(e->fd, &st) < 0)
			return -1;
		base = st.st_size;
	}
	int64_t to;
	if (__builtin_add_overflow(base, *offset, &to) || to < 0) {
		errno = EINVAL;
		return -1;
	}
	e->pos = *offset = to;
	return 0;
}

/* Messages */

static void on_message(void *user, const char *message)
{
	engine *e = user;
	size_t n = strlen(message);
	if (strstr(message, "cannot find builtin CJK font"))
		e->missed_letters = 1;
	if (n + 1 > sizeof e->messages - e->messages_len) {
		e->messages_lost++;
		return;
	}
	char *to = e->messages + e->messages_len;
	for (size_t i = 0; i < n; i++)
		to[i] = message[i] == '\n' ? ' ' : message[i];
	to[n] = '\n';
	e->messages_len += n + 1;
}

const char *engine_messages(engine *e, size_t *len, int *lost)
{
	*len = e->messages_len;
	*lost = e->messages_lost;
	e->messages_len = 0;
	e->messages_lost = 0;
	return e->messages;
}

int engine_missed_letters(engine *e)
{
	int missed = e->missed_letters;
	e->missed_letters = 0;
	return missed;
}

/* Errors */

void engine_begin(engine *e)
{
	e->denied = 0;
	e->pending = 0;
	e->read_errno = 0;
}

/* engine_conclude tells whether the call since engine_begin went well. MuPDF goes
 * on without a font or an image that it could not allocate or read, so the
 * account is looked at also when nothing was thrown. */
int engine_conclude(engine *e, int code, const char *message, engine_error *err)
{
	if (aborted(e))
		err->code = ENGINE_ABORTED;
	else if (e->denied || e->pending)
		err->code = ENGINE_MEMORY;
	else if (e->read_errno)
		err->code = ENGINE_READ;
	else if (code == FITZ_ERROR_NONE)
		return 0;
	else if (strstr(message, "compression bomb"))
		err->code = ENGINE_MEMORY;
	else
		err->code = ENGINE_MALFORMED;
	if (err->code == ENGINE_READ)
		message = strerror(e->read_errno);
	snprintf(err->message, sizeof err->message, "%s", message);
	return -1;
}

/* Context */

static void keep_free(void)
{
#ifdef __GLIBC__
	mallopt(M_MMAP_THRESHOLD, MAP_ABOVE);
	mallopt(M_TRIM_THRESHOLD, KEEP_FREE);
#endif
}

static void give_back(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

engine *engine_new(size_t memory, size_t store)
{
	engine *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	keep_free();
	e->limit = memory;
	e->fd = -1;
	e->read_buffer = malloc(READ_BUFFER);
	fz_alloc_context alloc = { e, engine_malloc, engine_realloc, engine_free_block };
	/* MuPDF copies the structure, not what user points at. */
	fz_context *ctx = e->read_buffer ? fz_new_context_imp(&alloc, NULL, store, FITZ_VERSION) : NULL;
	if (!ctx) {
		free(e->read_buffer);
		free(e);
		return NULL;
	}
	e->ctx = ctx;
	fz_set_user_context(ctx, e);
	fz_set_warning_callback(ctx, on_message, e);
	fz_set_error_callback(ctx, on_message, e);
	fz_try(ctx)
		fz_disable_icc(ctx);
	fz_catch(ctx) {
		fz_convert_error(ctx, NULL);
		engine_free(e);
		return NULL;
	}
	return e;
}

void engine_free(engine *e)
{
	if (!e)
		return;
	engine_close(e);
	fz_drop_context(e->ctx);
	free(e->read_buffer);
	free(e);
}

void engine_abort(engine *e) { __atomic_store_n(&e->cookie.abort, 1, __ATOMIC_RELAXED); }
void engine_resume(engine *e) { __atomic_store_n(&e->cookie.abort, 0, __ATOMIC_RELAXED); }
size_t engine_used(engine *e) { return e->used; }

/* Documents */

void engine_close(engine *e)
{
	fz_context *ctx = e->ctx;
	/* Dropping frees; an allocation it makes on the way must not fail because
	 * of a flag that was meant for the page before. */
	int flag = aborted(e);
	engine_resume(e);
	engine_drop_glyphs(e);
	fz_try(ctx) {
		fz_drop_document(ctx, e->doc);
		fz_empty_store(ctx);
	}
	fz_catch(ctx)
		fz_convert_error(ctx, NULL);
	e->doc = NULL;
	if (e->file)
		fclose(e->file);
	e->file = NULL;
	e->fd = -1;
	if (e->peak > KEEP_FREE)
		give_back();
	e->peak = e->used;
	if (flag)
		engine_abort(e);
}

/* ancestor is a node of the page tree on the way down to another. */
typedef struct ancestor {
	int num; /* its object number, 0 when it has none of its own */
	const struct ancestor *up;
} ancestor;

static int among(const ancestor *a, int num)
{
	for (; a; a = a->up)
		if (a->num == num)
			return num != 0;
	return 0;
}

/* walk counts the pages under node as MuPDF will number them. The counts in a
 * file may be anything; where one is wrong, or a node lacks the type that
 * MuPDF's page map insists on, the object in memory is put right, never the
 * file. A kid that leads back up is taken off: it has no pages of its own, and
 * MuPDF would refuse the pages after it. budget bounds the walk where nodes
 * share children. */
static int walk(fz_context *ctx, pdf_obj *node, const ancestor *up, int depth, int *budget)
{
	if (--*budget < 0 || depth > 64)
		return 0;
	const char *type = pdf_to_name(ctx, pdf_dict_gets(ctx, node, "Type"));
	pdf_obj *kids = pdf_dict_gets(ctx, node, "Kids");
	int pages = !strcmp(type, "Pages")
		|| (strcmp(type, "Page") && pdf_is_array(ctx, kids) && !pdf_dict_gets(ctx, node, "MediaBox"));
	const char *want = pages ? "Pages" : "Page";
	if (pdf_is_dict(ctx, node) && strcmp(type, want))
		pdf_dict_puts_drop(ctx, node, "Type", pdf_new_name(ctx, want));
	if (!pages)
		return 1;
	ancestor here = { pdf_to_num(ctx, node), up };
	int count = 0;
	for (int i = 0; i < pdf_array_len(ctx, kids) && *budget > 0; i++) {
		pdf_obj *kid = pdf_array_get(ctx, kids, i);
		if (among(&here, pdf_to_num(ctx, kid)))
			pdf_array_delete(ctx, kids, i--);
		else
			count += walk(ctx, kid, &here, depth + 1, budget);
	}
	if (pdf_to_int(ctx, pdf_dict_gets(ctx, node, "Count")) != count)
		pdf_dict_puts_drop(ctx, node, "Count", pdf_new_int(ctx, count));
	return count;
}

static int count_once(fz_context *ctx, pdf_document *pdf, int64_t size)
{
	pdf_obj *root = pdf_dict_gets(ctx, pdf_trailer(ctx, pdf), "Root");
	pdf_obj *tree = pdf_dict_gets(ctx, root, "Pages");
	if (!pdf_is_dict(ctx, tree))
		return 0;
	/* A tree whose nodes have one parent each visits an object once; kids that
	 * are listed twice are odd but drawn by every viewer. The table of objects
	 * may claim any number of them; none takes less than a byte of the file. */
	int budget = (int)fmin(4.0 * pdf_xref_len(ctx, pdf), (double)size) + 1024;
	int n = walk(ctx, tree, NULL, 0, &budget);
	/* A catalog may name a page where the tree should be. */
	if (pdf_to_int(ctx, pdf_dict_gets(ctx, tree, "Count")) != n)
		pdf_dict_puts_drop(ctx, tree, "Count", pdf_new_int(ctx, n));
	return n;
}

static int count_pages(engine *e)
{
	fz_context *ctx = e->ctx;
	pdf_document *pdf = pdf_specifics(ctx, e->doc);
	if (!pdf)
		return fz_count_pages(ctx, e->doc);
	struct stat st;
	int64_t size = fstat(e->fd, &st) < 0 ? 0 : st.st_size;
	int n, repaired;
	/* On the way MuPDF may find that the table of objects is wrong. It makes
	 * another one then, once, of which nothing has been put right. */
	do {
		repaired = pdf_was_repaired(ctx, pdf);
		n = count_once(ctx, pdf, size);
	} while (pdf_was_repaired(ctx, pdf) != repaired);
	return n;
}

/* handler gives what reads a format. It is called directly and none is
 * registered, so that only what a document's name says it is reads it, whatever
 * its content looks like. */
static const fz_document_handler *handler(int format)
{
	switch (format) {
	case ENGINE_XPS: return &xps_document_handler;
	case ENGINE_EPUB: return &epub_document_handler;
	case ENGINE_FB2: return &fb2_document_handler;
	case ENGINE_MOBI: return &mobi_document_handler;
	case ENGINE_CBZ: return &cbz_document_handler;
	case ENGINE_IMAGE: return &img_document_handler;
	case ENGINE_SVG: return &svg_document_handler;
	case ENGINE_TEXT: return &txt_document_handler;
	case ENGINE_HTML: return &html_document_handler;
	}
	return &pdf_document_handler;
}

int engine_open(engine *e, int fd, int format, const char *const *passwords, int n, engine_error *err)
{
	fz_context *ctx = e->ctx;
	fz_stream *stm = NULL;
	volatile int pages = 0, locked = 0;
	int code = FITZ_ERROR_NONE;
	const char *message = "";

	engine_close(e);
	engine_begin(e);
	e->fd = fd;
	e->pos = 0;
	cookie_io_functions_t io = { .read = engine_read, .seek = engine_seek };
	e->file = fopencookie(e, "r", io);
	if (!e->file) {
		err->code = ENGINE_MEMORY;
		snprintf(err->message, sizeof err->message, "%s", strerror(errno));
		return -1;
	}
	setvbuf(e->file, e->read_buffer, _IOFBF, READ_BUFFER);

	fz_var(stm);
	fz_try(ctx) {
		stm = fz_open_file_ptr_no_close(ctx, e->file);
		const fz_document_handler *h = handler(format);
		e->doc = h->open(ctx, h, stm, NULL, NULL, NULL);
		if (fz_needs_password(ctx, e->doc)) {
			locked = 1;
			for (int i = 0; i < n && locked; i++)
				locked = !fz_authenticate_password(ctx, e->doc, passwords[i]);
		}
		if (!locked && fz_is_document_reflowable(ctx, e->doc))
			fz_layout_document(ctx, e->doc, LAYOUT_WIDTH, LAYOUT_HEIGHT, LAYOUT_EM);
		if (!locked)
			pages = count_pages(e);
		fz_flush_warnings(ctx);
	}
	fz_always(ctx)
		fz_drop_stream(ctx, stm);
	fz_catch(ctx)
		message = fz_convert_error(ctx, &code);

	if (engine_conclude(e, code, message, err) < 0) {
		if (err->code == ENGINE_MALFORMED && strstr(err->message, "ncryption"))
			err->code = ENGINE_ENCRYPTED;
		engine_close(e);
		return -1;
	}
	if (locked) {
		err->code = ENGINE_ENCRYPTED;
		err->message[0] = 0;
		engine_close(e);
		return -1;
	}
	e->opened = e->used;
	return pages;
}

int engine_mend(engine *e)
{
	fz_context *ctx = e->ctx;
	int code = FITZ_ERROR_NONE;
	const char *message = "";
	engine_error err;

	engine_begin(e);
	fz_try(ctx)
		count_pages(e);
	fz_catch(ctx)
		message = fz_convert_error(ctx, &code);
	return engine_conclude(e, code, message, &err);
}
