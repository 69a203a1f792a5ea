//go:build linux

#include <string.h>

#include "inside.h"

/* What loading a font is spared. The linker puts these functions in the way of
 * MuPDF's and FreeType's own (see mupdf.go). */

/* What characters a letter stands for is for those who copy text. To draw, it
 * is only asked for where a font that is not in the file is stood in for, and
 * its letters are known by number (strings is NULL then). */
void __wrap_pdf_load_to_unicode(fz_context *ctx, pdf_document *doc, pdf_font_desc *font, const char **strings, char *collection, pdf_obj *cmap)
{
	if (!strings && fz_font_flags(font->font)->ft_substitute)
		__real_pdf_load_to_unicode(ctx, doc, font, strings, collection, cmap);
}

/* The letters that MuPDF brings along are Latin, Greek and Cyrillic. It draws
 * text of the formats without fonts of their own without the others, and says
 * nothing. Marks, which belong to no script or to any, are not missed. */

#define SCRIPT_COMMON 0
#define SCRIPT_INHERITED 40
#define SCRIPT_UNKNOWN 102

int __wrap_fz_encode_character_with_fallback(fz_context *ctx, fz_font *font, int unicode, int script, int language, fz_font **out)
{
	int gid = __real_fz_encode_character_with_fallback(ctx, font, unicode, script, language, out);
	if (gid <= 0) {
		int own = ucdn_get_script(unicode);
		if (own != SCRIPT_COMMON && own != SCRIPT_INHERITED && own != SCRIPT_UNKNOWN)
			((engine *)fz_user_context(ctx))->missed_letters = 1;
	}
	return gid;
}

/* FreeType finds a letter by its name in going through all names of the font,
 * and MuPDF asks it up to 256 times a font and more. A table of the names is
 * made when a font is asked for the first time; one font at a time is loaded,
 * so there is one table. */

#define NAMES 4096            /* letters that a font may have for this */
#define NAME_BYTES 128        /* of a name that is found */
#define FT_INVALID_GLYPH 0x10 /* what FreeType says at the end of a font's glyphs */

static struct {
	FT_Face face;
	int usable;
	struct { uint32_t hash, letter; } slot[2 * NAMES]; /* letter is its number and 1, or 0 where it is free */
} names;

static uint32_t hash_of(const char *name)
{
	uint32_t h = 2166136261u;
	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h;
}

static int has_name(FT_Face face, unsigned gid, const char *name)
{
	char own[NAME_BYTES];
	return FT_Get_Glyph_Name(face, gid, own, sizeof own) == 0 && !strcmp(own, name);
}

/* list_names fills the table. A name that is listed twice is found where it
 * stands first. That may be letter 0, which is what is drawn for letters that are
 * not there, and FreeType's answer for such. */
static void list_names(FT_Face face)
{
	memset(&names, 0, sizeof names);
	names.face = face;
	for (unsigned gid = 0; gid < NAMES; gid++) {
		char name[NAME_BYTES];
		int err = FT_Get_Glyph_Name(face, gid, name, sizeof name);
		if (err) {
			names.usable = err == FT_INVALID_GLYPH;
			return;
		}
		uint32_t h = hash_of(name), i = h;
		while (names.slot[i % (2 * NAMES)].letter)
			i++;
		names.slot[i % (2 * NAMES)].hash = h;
		names.slot[i % (2 * NAMES)].letter = gid + 1;
	}
}

unsigned __wrap_FT_Get_Name_Index(FT_Face face, const char *name)
{
	if (names.face != face)
		list_names(face);
	if (!names.usable || strlen(name) >= NAME_BYTES - 1)
		return __real_FT_Get_Name_Index(face, name);
	uint32_t h = hash_of(name);
	for (uint32_t i = h; names.slot[i % (2 * NAMES)].letter; i++)
		if (names.slot[i % (2 * NAMES)].hash == h && has_name(face, names.slot[i % (2 * NAMES)].letter - 1, name))
			return names.slot[i % (2 * NAMES)].letter - 1;
	return 0;
}

int __wrap_FT_Done_Face(FT_Face face)
{
	if (names.face == face)
		names.face = NULL; /* another face may get its address */
	return __real_FT_Done_Face(face);
}
