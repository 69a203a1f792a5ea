/* One MuPDF context with one open document, and nothing that can throw. */
#ifndef QUIRE_ENGINE_H
#define QUIRE_ENGINE_H

#include <stddef.h>

typedef struct engine engine;

/* Why a call failed; mupdf.go has the same list. */
enum {
	ENGINE_OK,
	ENGINE_MALFORMED, /* MuPDF gave up on the content */
	ENGINE_MEMORY,    /* an allocation was refused */
	ENGINE_ABORTED,   /* engine_abort was called */
	ENGINE_ENCRYPTED, /* no password fits, or no way to decrypt it */
	ENGINE_READ,      /* reading the descriptor failed */
	ENGINE_PAGE_SIZE, /* the page has no area that can be drawn */
};

/* What a document is read as; mupdf.go has the same list. */
enum {
	ENGINE_PDF,
	ENGINE_XPS,
	ENGINE_EPUB,
	ENGINE_FB2,
	ENGINE_MOBI,
	ENGINE_CBZ,
	ENGINE_IMAGE,
	ENGINE_SVG,
	ENGINE_TEXT,
	ENGINE_HTML,
};

typedef struct {
	int code;
	char message[256];
} engine_error;

/* A page as displayed: points after UserUnit, CropBox cut to the MediaBox. */
typedef struct {
	double width, height;
	int rotation;
	double crop[4];
	int px_width, px_height; /* the raster that was drawn */
	int heavy; /* the document has come to hold so much that it had better be closed */
	int repaired; /* MuPDF made the document's table of objects anew meanwhile */
} engine_page;

engine *engine_new(size_t memory, size_t store);
void engine_free(engine *);

/* engine_open makes the file behind fd, read as format, the open document and
 * returns its page count, or -1. fd stays the caller's and must stay open until
 * engine_close. */
int engine_open(engine *, int fd, int format, const char *const *passwords, int n, engine_error *);
void engine_close(engine *);

/* engine_draw draws page number (from 0) to width x height RGB; with fit, to the
 * largest raster of the page's shape within that. It returns 0, or -1 with the
 * reason; page holds the geometry as soon as width is not 0. */
int engine_draw(engine *, int number, int width, int height, int fit, unsigned char *rgb, engine_page *page, engine_error *);

/* engine_mend puts right in the page tree, once more, what engine_open did. It
 * returns -1 where that cannot be done. */
int engine_mend(engine *);

/* engine_abort, from any thread, makes the running call fail soon with
 * ENGINE_ABORTED; the flag stays up until engine_resume. */
void engine_abort(engine *);
void engine_resume(engine *);

/* engine_messages hands over what MuPDF said since the last call: lines, each
 * ended by '\n', and how many more there were than fit. */
const char *engine_messages(engine *, size_t *len, int *lost);

/* engine_missed_letters tells whether, since the last call, there was text for
 * which neither the document has a font nor MuPDF. */
int engine_missed_letters(engine *);

size_t engine_used(engine *);

#endif
