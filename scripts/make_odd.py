#!/usr/bin/env python3
"""Makes odd PDF documents for tests: pages that never finish, bombs, broken
and encrypted files, absurd pages, and twins (one page put down in several ways
that must all look the same).

    make_odd.py DIR [NAME...]     write the named documents, or all of them
    make_odd.py --list            print their names and what they are
    make_odd.py --many DIR N      N one-page documents with varied text, in sub-directories
    make_odd.py --long FILE N     one document of N pages

Beside the documents DIR gets manifest.json, which says how each one should end,
in the words of orchestrator/page.go; see describe() for its form. Needs Python
3.10 or later and nothing else. The same call writes the same bytes.
"""

import argparse
import json
import os
import sys

from pdfwriter import File, RC4Encryption, Canvas, bomb, box

WIDTH, HEIGHT = 612, 792

# ---- text ------------------------------------------------------------------

SUBJECTS = (
    "A reader", "The printer", "An editor", "Every page", "The column", "A wide margin", "The caption",
    "One long table", "The running head", "A careful clerk", "This chapter", "The second sheet")
VERBS = (
    "keeps", "measures", "follows", "separates", "repeats", "carries", "explains", "gathers", "divides",
    "marks", "holds", "counts")
OBJECTS = (
    "the white space", "each line of type", "a row of figures", "the order of the parts", "two kinds of notes",
    "the width of the block", "many small headings", "a drawing and its name", "the old proofs",
    "several loose leaves", "the foot of the sheet", "what the eye expects")
ENDINGS = (
    "before the ink is dry", "from left to right", "without a ruler", "in the usual way", "near the fold",
    "as the press allows", "under a plain rule", "once in every quire", "with great patience",
    "on both sides of the paper", "when the light is good", "and nothing more")


class Words:
    """Sentences drawn with a small generator of its own (Knuth's MMIX
    constants), so that they do not depend on the Python that draws them."""

    def __init__(self, seed):
        self.state = (seed * 2654435761 + 1) & (2**64 - 1)

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
        return (self.state >> 33) % n

    def pick(self, choices):
        return choices[self.below(len(choices))]

    def sentence(self):
        return f"{self.pick(SUBJECTS)} {self.pick(VERBS)} {self.pick(OBJECTS)} {self.pick(ENDINGS)}."

    def sentences(self, count):
        return " ".join(self.sentence() for _ in range(count))


def sheet(seed, heading, width=WIDTH, height=HEIGHT):
    """A page of text: a heading, four paragraphs, a page number."""
    canvas, words = Canvas(width, height), Words(seed)
    canvas.text(72, height - 86, heading, "B", 16)
    top = height - 112
    for _ in range(4):
        top = canvas.paragraph(72, top, width - 144, words.sentences(5 + words.below(6)), 11, 14) - 16
    canvas.centred(width / 2, 40, str(seed), "R", 9)
    return canvas


def twin():
    """The page that all twins show: two columns, a chart, a table, captions."""
    canvas, words = Canvas(WIDTH, HEIGHT), Words(7)
    canvas.text(54, 756, "Proceedings of the Bindery, volume 3", "R", 8)
    canvas.text(510, 756, "twin page", "R", 8)
    canvas.line(54, 750, 558, 750, 0.4)
    canvas.note("page_header", 54, 762, 546, 754)
    canvas.centred(306, 706, "One Page, Put Down in Many Ways", "B", 18)
    canvas.note("section_header", 140, 720, 472, 702)
    left, right, column = 54, 315, 243
    top = 676
    for heading, count in (("1  The sheet", 7), ("2  The turn", 8), ("3  The fold", 8)):
        canvas.text(left, top - 9, heading, "B", 11)
        canvas.note("section_header", left, top, left + 70, top - 11)
        top = canvas.paragraph(left, top - 20, column, words.sentences(count), 10, 12) - 18
    # A bar chart with its axes.
    for i, value in enumerate((40, 75, 58, 110, 92, 130, 66)):
        canvas.rect(right + 26 + i * 30, 530, 20, value, "f", 0.25 + 0.08 * i)
        canvas.centred(right + 36 + i * 30, 519, f"B{i + 1}", "R", 7)
    canvas.line(right + 18, 530, right + 238, 530)
    canvas.line(right + 18, 530, right + 18, 672)
    for tick in range(0, 141, 35):
        canvas.line(right + 15, 530 + tick, right + 18, 530 + tick)
        canvas.text(right, 527 + tick, str(tick), "R", 7)
    canvas.note("picture", right, 676, right + 238, 517)
    bottom = canvas.paragraph(
        right, 506, column, "Figure 1. Height of the stack after each fold, in sheets.", 9, 11, label="caption")
    # A ruled table under its caption.
    bottom = canvas.paragraph(
        right, bottom - 20, column, "Table 1. Leaves and pages for common folds.", 9, 11, label="caption")
    rows = (("Fold", "Leaves", "Pages", "Cuts"), ("Folio", "2", "4", "0"), ("Quarto", "4", "8", "1"),
            ("Octavo", "8", "16", "3"), ("Duodecimo", "12", "24", "5"), ("Sextodecimo", "16", "32", "7"))
    top = bottom - 8
    canvas.line(right, top, right + column, top, 1)
    for i, row in enumerate(rows):
        for x, cell in zip((8, 92, 146, 200), row):
            canvas.text(right + x, top - 12 - 15 * i, cell, "B" if i == 0 else "R", 9)
        if i == 0:
            canvas.line(right, top - 17, right + column, top - 17, 0.5)
    end = top - 15 * len(rows) - 3
    canvas.line(right, end, right + column, end, 1)
    canvas.note("table", right, top, right + column, end)
    canvas.paragraph(right, end - 20, column, words.sentences(9), 10, 12)
    canvas.centred(306, 36, "17", "R", 9)
    canvas.note("page_footer", 301, 44, 311, 35)
    return canvas


# ---- the documents ---------------------------------------------------------

KINDS = {}  # name -> (what it is, expectation, maker)


def done(count=1, **more):
    """The document is done and has count pages; more describes every page."""
    return {"status": "done", "page_count": count, "pages": [{"status": "done", **more}] * count}


def page_fails(*categories):
    """One page, which fails in rendering with one of the categories."""
    error = {"stage": "render", "categories": list(categories)}
    return {"status": "partial", "page_count": 1, "pages": [{"status": "failed", "error": error}]}


def document_fails(*categories):
    """The document as a whole fails when it is opened."""
    return {"status": "failed", "page_count": None, "pages": [],
            "error": {"stage": "open", "categories": list(categories)}}


def kind(name, what, expect):
    def register(maker):
        KINDS[name] = (what, expect, maker)
        return maker
    return register


def geometry(width, height, crop, rotation=0, same_as=None):
    page = {"width_pt": width, "height_pt": height, "rotation": rotation, "crop_box": crop}
    return {**page, "same_as": same_as} if same_as else page


def single(canvas, entries=None):
    """A one-page document."""
    file = File()
    return file.dump(file.tree([file.page(canvas, entries)]))


def placed(matrix, entries):
    """The twin page drawn through a matrix on a page with these entries."""
    canvas = twin()
    canvas.ops.insert(0, f"q {matrix} cm")
    canvas.ops.append("Q")
    return single(canvas, entries)


def endless(file):
    """A page whose nested forms ask for 16**12 small strokes. An operator is
    drawn at every step, so that a renderer which looks can stop."""
    form = file.stream(b"0 0 m 300 300 l S\n", "/Type /XObject /Subtype /Form /BBox [0 0 612 792]")
    for _ in range(12):
        resources = f"/Resources << /XObject << /F {form} 0 R >> >>"
        form = file.stream(b"/F Do " * 16, f"/Type /XObject /Subtype /Form /BBox [0 0 612 792] {resources}")
    content = file.stream(b"/F Do\n")
    return (f"/MediaBox [0 0 612 792] /Resources << /XObject << /F {form} 0 R >> >> "
            f"/Contents {content} 0 R")


@kind("good.pdf", "12 pages of text", done(12))
def good():
    file = File()
    return file.dump(file.tree([file.page(sheet(n, f"Leaf {n} of twelve")) for n in range(1, 13)]))


@kind("never_finishes.pdf", "one page whose nested forms double the work 48 times", page_fails("timeout"))
def never_finishes():
    file = File()
    return file.dump(file.tree([endless(file)]))


@kind("unstoppable.pdf", "one page with a pattern of so many tiles that a renderer does not look up for hours",
      page_fails("timeout"))
def unstoppable():
    file = File()
    pattern = file.stream(
        b"0 0 1 1 re f\n",
        "/Type /Pattern /PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 1 1] "
        "/XStep 0.0005 /YStep 0.0005 /Resources << >>")
    content = file.stream(b"/Pattern cs /P scn 0 0 612 792 re f\n")
    page = (f"/MediaBox [0 0 612 792] /Resources << /Pattern << /P {pattern} 0 R >> >> "
            f"/Contents {content} 0 R")
    return file.dump(file.tree([page]))


@kind("mixed.pdf", "5 pages of text, of which page 3 never finishes",
      {"status": "partial", "page_count": 5,
       "pages": [page_fails("timeout")["pages"][0] if n == 3 else {"status": "done"} for n in range(1, 6)]})
def mixed():
    file = File()
    return file.dump(file.tree([
        endless(file) if n == 3 else file.page(sheet(20 + n, f"Part {n}")) for n in range(1, 6)]))


def content_bomb(unit, size):
    file = File()
    content = file.stream(bomb(unit, size), "/Filter [/FlateDecode /FlateDecode]")
    return file.dump(file.tree([
        f"/MediaBox [0 0 612 792] /Resources {file.fonts()} /Contents {content} 0 R"]))


@kind("bomb.pdf", "content that inflates to 64 GB: one path without end", page_fails("memory", "timeout"))
def path_bomb():
    return content_bomb(b"9 9 l 8 8 l 9 8 l 8 9 l\n", 64 << 30)


@kind("bomb_states.pdf", "content that inflates to 8 GB: graphics states saved and never restored",
      page_fails("memory", "timeout", "malformed"))
def state_bomb():
    return content_bomb(b"q\n", 8 << 30)


@kind("bomb_space.pdf", "content that inflates to 64 GB of white space", page_fails("timeout"))
def space_bomb():
    return content_bomb(b" ", 64 << 30)


def image_page(file, width, height, size):
    image = file.stream(
        bomb(b"\x80", size),
        f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /BitsPerComponent 8 "
        "/ColorSpace /DeviceRGB /Filter [/FlateDecode /FlateDecode]")
    content = file.stream(b"q 500 0 0 500 56 146 cm /I Do Q\n")
    return f"/MediaBox [0 0 612 792] /Resources << /XObject << /I {image} 0 R >> >> /Contents {content} 0 R"


@kind("image_bomb.pdf", "an image of 100,000 by 100,000 pixels in a small file", page_fails("memory", "timeout"))
def image_bomb():
    file = File()
    return file.dump(file.tree([image_page(file, 100000, 100000, 30 * 10**9)]))


@kind("font_bomb.pdf", "an embedded font that inflates to 8 GB; readers give it up and use another", done())
def font_bomb():
    file = File()
    program = file.stream(bomb(b"\x00", 8 << 30), "/Filter [/FlateDecode /FlateDecode] /Length1 1000")
    descriptor = file.put(
        "<< /Type /FontDescriptor /FontName /Bomb /Flags 32 /FontBBox [0 0 1000 1000] /ItalicAngle 0 "
        f"/Ascent 800 /Descent -200 /CapHeight 700 /StemV 80 /FontFile2 {program} 0 R >>")
    content = file.stream(sheet(41, "Set in a font that is too large").content())
    fonts = " ".join(
        f"/{key} << /Type /Font /Subtype /TrueType /BaseFont /Bomb /FirstChar 32 /LastChar 33 "
        f"/Widths [250 300] /FontDescriptor {descriptor} 0 R /Encoding /WinAnsiEncoding >>" for key in "RB")
    return file.dump(file.tree([
        f"/MediaBox [0 0 612 792] /Resources << /Font << {fonts} >> >> /Contents {content} 0 R"]))


@kind("zero_byte.pdf", "no bytes at all", document_fails("empty"))
def zero_byte():
    return b""


@kind("not_pdf.pdf", "plain text under a PDF's name", document_fails("not_pdf"))
def not_pdf():
    return b"This is a letter, not a page description.\n" * 40


@kind("truncated.pdf", "the first 40 % of good.pdf, in which no page tree is left", document_fails("malformed", "no_pages"))
def truncated():
    whole = good()
    return whole[:len(whole) * 2 // 5]


@kind("no_pages.pdf", "a page tree without a page", {**document_fails("no_pages"), "page_count": 0})
def no_pages():
    file = File()
    return file.dump(file.tree([]))


@kind("broken_xref.pdf", "all offsets wrong, which readers repair; the page is the twins'",
      done(**geometry(WIDTH, HEIGHT, [0, 0, WIDTH, HEIGHT], same_as="twin_plain.pdf")))
def broken_xref():
    data = single(twin())
    start = data.rindex(b"\nxref\n")
    return data[:start].replace(b"%PDF-1.7\n", b"%PDF-1.7\n% a line that the table does not know of\n", 1) + data[start:]


@kind("encrypted_user.pdf", "3 pages that need the password quire", document_fails("encrypted"))
def encrypted_user():
    file = File()
    root = file.tree([file.page(sheet(30 + n, f"Locked leaf {n}")) for n in range(1, 4)])
    return file.dump(root, RC4Encryption("quire", "owner"))


@kind("encrypted_owner.pdf", "encrypted, but opens without a password; the page is the twins'",
      done(**geometry(WIDTH, HEIGHT, [0, 0, WIDTH, HEIGHT], same_as="twin_plain.pdf")))
def encrypted_owner():
    file = File()
    return file.dump(file.tree([file.page(twin())]), RC4Encryption("", "owner"))


@kind("encrypted_unknown.pdf", "encrypted by a handler that nobody knows", document_fails("encrypted", "malformed"))
def encrypted_unknown():
    return encrypted_user().replace(b"/Filter /Standard /V 2", b"/Filter /Quire.Own /V 2")


@kind("truncated_tail.pdf", "3 pages; cut off inside the table at the end, which readers repair", done(3))
def truncated_tail():
    file = File()
    data = file.dump(file.tree([file.page(sheet(50 + n, f"Cut leaf {n}")) for n in range(1, 4)]))
    return data[:data.rindex(b"\nxref\n") + 60]


@kind("junk_before.pdf", "a kilobyte of other things before the header; the page is the twins'",
      done(**geometry(WIDTH, HEIGHT, [0, 0, WIDTH, HEIGHT], same_as="twin_plain.pdf")))
def junk_before():
    return b"Received: by the post, in a brown envelope\r\n" * 22 + single(twin())


@kind("missing_page.pdf", "3 pages, of which the second is not in the file",
      {"status": "partial", "page_count": 3,
       "pages": [{"status": "done"}, page_fails("malformed", "no_such_page")["pages"][0], {"status": "done"}]})
def missing_page():
    file = File()
    data = file.dump(file.tree([file.page(sheet(60 + n, f"Leaf {n}")) for n in range(1, 4)]))
    first, second = data.index(b"/Kids ["), data.index(b"]", data.index(b"/Kids ["))
    kids = data[first + 7:second].split(b" 0 R")
    kids[1] = b" 9" if len(kids[1]) == 2 else b" 99"
    return data[:first + 7] + b" 0 R".join(kids) + data[second:]


@kind("count_lies.pdf", "a page tree that promises 50 pages and holds 2",
      {"status": "partial", "page_count": 50,
       "pages": [{"status": "done"}] * 2 + page_fails("malformed", "no_such_page")["pages"] * 48})
def count_lies():
    file = File()
    data = file.dump(file.tree([file.page(sheet(70 + n, f"Leaf {n} of fifty")) for n in (1, 2)]))
    return data.replace(b"/Count 2 ", b"/Count 50")


@kind("page_tree_loop.pdf", "a page tree whose only branch is its root", document_fails("malformed", "no_pages"))
def page_tree_loop():
    file = File()
    root = file.reserve()
    file.put(f"<< /Type /Pages /Count 1 /Kids [{root} 0 R] >>", root)
    return file.dump(file.put(f"<< /Type /Catalog /Pages {root} 0 R >>"))


@kind("page_tree_wide.pdf", "a page tree that leads to its one page by 8**12 ways", document_fails("timeout", "malformed"))
def page_tree_wide():
    file = File()
    node = file.put("<< /Type /Page /MediaBox [0 0 612 792] >>")
    for _ in range(12):
        node = file.put(f"<< /Type /Pages /Count 1 /Kids [{f'{node} 0 R ' * 8}] >>")
    return file.dump(file.put(f"<< /Type /Catalog /Pages {node} 0 R >>"))


@kind("recursive_form.pdf", "a form that shows itself", done())
def recursive_form():
    file = File()
    form = file.reserve()
    resources = f"/Resources << /XObject << /F {form} 0 R >> >>"
    file.stream(b"10 10 200 200 re f /F Do\n", f"/Type /XObject /Subtype /Form /BBox [0 0 612 792] {resources}", form)
    content = file.stream(b"/F Do\n")
    return file.dump(file.tree([f"/MediaBox [0 0 612 792] {resources} /Contents {content} 0 R"]))


@kind("deep_arrays.pdf", "a page with an array in an array, 200,000 deep", page_fails("malformed", "crash", "memory"))
def deep_arrays():
    file = File()
    deep = file.put("[" * 200000 + "]" * 200000)
    return file.dump(file.tree([f"/MediaBox {deep} 0 R"]))


@kind("deep_outline.pdf", "an outline 20,000 levels deep over one page of text", done())
def deep_outline():
    file = File()
    top = file.reserve()
    parent = top
    for n in range(20000):
        item = file.reserve()
        link = f"/First {item} 0 R /Last {item} 0 R /Count {20000 - n}"
        file.put(f"<< /Type /Outlines {link} >>" if parent == top else
                 f"<< /Title (Level {n}) /Parent {parent - 1 if n > 1 else top} 0 R {link} >>", parent)
        parent = item
    file.put(f"<< /Title (Level 20000) /Parent {parent - 1} 0 R >>", parent)
    return file.dump(file.tree([file.page(sheet(80, "Under a deep outline"))], f"/Outlines {top} 0 R"))


@kind("blank.pdf", "a page without content", done(**geometry(WIDTH, HEIGHT, [0, 0, WIDTH, HEIGHT])))
def blank():
    file = File()
    return file.dump(file.tree(["/MediaBox [0 0 612 792]"]))


@kind("garbage_content.pdf", "a page whose content is noise; readers show what they can", done())
def garbage_content():
    file, words = File(), Words(90)
    content = file.stream(bytes(words.below(256) for _ in range(20000)))
    return file.dump(file.tree([f"/MediaBox [0 0 612 792] /Resources {file.fonts()} /Contents {content} 0 R"]))


@kind("widget.pdf", "a page whose only ink is the appearance of a form field and of a stamp", done())
def widget():
    file = File()
    field, stamp = Canvas(300, 40), Canvas(300, 60)
    field.rect(0, 0, 300, 40, "S")
    field.text(10, 14, "A field that somebody filled in", "R", 14)
    stamp.rect(0, 0, 300, 60, "f", 0.3)
    forms = [
        file.stream(c.content(), f"/Type /XObject /Subtype /Form /BBox {box([0, 0, c.width, c.height])} "
                                 f"/Resources {file.fonts()}") for c in (field, stamp)]
    notes = [
        file.put(f"<< /Type /Annot /Subtype {subtype} /F 4 /Rect {rect} /AP << /N {form} 0 R >> >>")
        for subtype, rect, form in (
            ("/Widget /FT /Tx /T (field)", "[100 600 400 640]", forms[0]),
            ("/Stamp", "[100 300 400 360]", forms[1]))]
    return file.dump(file.tree(
        [f"/MediaBox [0 0 612 792] /Annots [{notes[0]} 0 R {notes[1]} 0 R]"],
        f"/AcroForm << /Fields [{notes[0]} 0 R] >>"))


# ---- page sizes ------------------------------------------------------------

def scaled(factor, entries):
    return placed(f"{factor:.8f} 0 0 {factor:.8f} 0 0", entries)


@kind("tiny_page.pdf", "the twins' page on one square point", done(**geometry(1, 1, [0, 0, 1, 1])))
def tiny_page():
    return placed("0.00163399 0 0 0.00126263 0 0", "/MediaBox [0 0 1 1]")


@kind("flat_page.pdf", "a page without height", page_fails("page_size"))
def flat_page():
    return single(twin(), "/MediaBox [0 0 612 0] /CropBox [0 0 612 0]")


@kind("huge_page.pdf", "200 inches square, the largest that many programs allow",
      done(**geometry(14400, 14400, [0, 0, 14400, 14400])))
def huge_page():
    return scaled(14400 / HEIGHT, "/MediaBox [0 0 14400 14400]")


@kind("monstrous_page.pdf", "70 metres by 70 metres", done(**geometry(200000, 200000, [0, 0, 200000, 200000])))
def monstrous_page():
    return scaled(200000 / HEIGHT, "/MediaBox [0 0 200000 200000]")


@kind("strip_page.pdf", "14,400 points wide and 10 high", done(**geometry(14400, 10, [0, 0, 14400, 10])))
def strip_page():
    return single(twin(), "/MediaBox [0 0 14400 10]")


@kind("absurd_page.pdf", "a page of 10**15 points square", page_fails("page_size"))
def absurd_page():
    return single(twin(), "/MediaBox [0 0 1000000000000000 1000000000000000]")


@kind("cropbox_outside.pdf", "a CropBox that does not meet the MediaBox", page_fails("page_size"))
def cropbox_outside():
    return single(twin(), "/MediaBox [0 0 612 792] /CropBox [1000 1000 1200 1300]")


@kind("no_mediabox.pdf", "a page without MediaBox, taken for Letter; the page is the twins'",
      done(**geometry(WIDTH, HEIGHT, [0, 0, WIDTH, HEIGHT], same_as="twin_plain.pdf")))
def no_mediabox():
    return single(twin(), "/Note (none)")


@kind("rotate_odd.pdf", "/Rotate 45, which no reader has to understand", done())
def rotate_odd():
    return single(twin(), "/MediaBox [0 0 612 792] /Rotate 45")


# ---- twins: one page, put down in many ways, all to be displayed alike --------

# What undoes a clockwise /Rotate: it maps the upright page into user space.
UNTURN = {
    0: "1 0 0 1 0 0",
    90: f"0 1 -1 0 {HEIGHT} 0",
    180: f"-1 0 0 -1 {WIDTH} {HEIGHT}",
    270: f"0 -1 1 0 0 {WIDTH}",
}


def twin_kind(name, what, entries, crop=(0, 0, WIDTH, HEIGHT), turn=0, shift=(0, 0), scale=1.0):
    """Registers twin_NAME.pdf: the page turned against /Rotate, then scaled,
    then shifted, on a page with these entries."""
    same = None if name == "plain" else "twin_plain.pdf"

    @kind(f"twin_{name}.pdf", what, done(**geometry(WIDTH, HEIGHT, list(crop), turn, same)))
    def maker():
        return placed(f"{scale} 0 0 {scale} {shift[0]} {shift[1]} cm {UNTURN[turn]}", entries)


LETTER = f"/MediaBox [0 0 {WIDTH} {HEIGHT}]"
SIDEWAYS = f"/MediaBox [0 0 {HEIGHT} {WIDTH}]"

twin_kind("plain", "the twins' page, plain", LETTER)
twin_kind("rotate90", "the twins' page, stored on its side", SIDEWAYS + " /Rotate 90", (0, 0, HEIGHT, WIDTH), 90)
twin_kind("rotate180", "the twins' page, stored upside down", LETTER + " /Rotate 180", turn=180)
twin_kind("rotate270", "the twins' page, stored on its other side", SIDEWAYS + " /Rotate 270", (0, 0, HEIGHT, WIDTH), 270)
twin_kind("rotate_minus90", "/Rotate -90, the same as 270", SIDEWAYS + " /Rotate -90", (0, 0, HEIGHT, WIDTH), 270)
twin_kind("rotate450", "/Rotate 450, the same as 90", SIDEWAYS + " /Rotate 450", (0, 0, HEIGHT, WIDTH), 90)
twin_kind("crop", "the twins' page in a CropBox inside a larger sheet",
          "/MediaBox [-50 -70 800 1000] /CropBox [37 53 649 845]", (37, 53, 649, 845), shift=(37, 53))
twin_kind("crop_beyond", "a CropBox larger than the sheet, which does not count",
          LETTER + " /CropBox [-200 -200 2000 2000]")
twin_kind("crop_rotate90", "a shifted CropBox, on its side",
          "/MediaBox [0 0 1000 1000] /CropBox [100 150 892 762] /Rotate 90", (100, 150, 892, 762), 90, (100, 150))
twin_kind("origin", "the twins' page on a sheet whose origin is not a corner",
          "/MediaBox [-100 -200 512 592]", (-100, -200, 512, 592), shift=(-100, -200))
twin_kind("inverted", "a MediaBox given from the upper right to the lower left", f"/MediaBox [{WIDTH} {HEIGHT} 0 0]")
twin_kind("userunit", "the twins' page at half size, in units of two points",
          f"/MediaBox [0 0 {WIDTH // 2} {HEIGHT // 2}] /UserUnit 2", (0, 0, WIDTH / 2, HEIGHT / 2), scale=0.5)
twin_kind("all", "on its other side, in a shifted CropBox, in units of two points",
          "/MediaBox [-10 -20 500 400] /CropBox [11 17 407 323] /Rotate 270 /UserUnit 2",
          (11, 17, 407, 323), 270, (11, 17), 0.5)


@kind("twin_inherited.pdf", "MediaBox, CropBox, Rotate and Resources all from the page tree's root",
      done(**geometry(WIDTH, HEIGHT, [100, 150, 892, 762], 90, "twin_plain.pdf")))
def twin_inherited():
    file, canvas = File(), twin()
    canvas.ops.insert(0, f"1 0 0 1 100 150 cm {UNTURN[90]} cm")
    content, root = file.stream(canvas.content()), file.reserve()
    page = file.put(f"<< /Type /Page /Parent {root} 0 R /Contents {content} 0 R >>")
    file.put(f"<< /Type /Pages /Count 1 /Kids [{page} 0 R] /MediaBox [0 0 1000 1000] "
             f"/CropBox [100 150 892 762] /Rotate 90 /Resources {file.fonts()} >>", root)
    return file.dump(file.put(f"<< /Type /Catalog /Pages {root} 0 R >>"))


# ---- the command -----------------------------------------------------------

def describe(names):
    """The manifest: for each name what it is, and how it should end.

    status and page_count are the document's (page_count null when it cannot be
    known); error, where there is one, has the stage and the categories of which
    any will do; pages has one record a page with status, perhaps error, and the
    geometry where it matters: width_pt, height_pt, rotation, crop_box. same_as
    names a document whose first page shows the same picture at the same place.
    """
    return {name: {"what": KINDS[name][0], **KINDS[name][1]} for name in names}


def write(path, data):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as out:
        out.write(data)


def write_kinds(directory, names):
    unknown = sorted(set(names) - set(KINDS))
    if unknown:
        sys.exit(f"make_odd.py: no document named {', '.join(unknown)}; --list prints the names")
    names = names or list(KINDS)
    for name in names:
        write(os.path.join(directory, name), KINDS[name][2]())
    manifest = json.dumps(describe(names), indent=1) + "\n"
    write(os.path.join(directory, "manifest.json"), manifest.encode())


def write_many(directory, count):
    """Documents of one page, a hundred to a directory."""
    for n in range(count):
        path = os.path.join(directory, f"box{n // 100:04d}", f"leaf{n:06d}.pdf")
        write(path, single(sheet(n, f"Leaf {n}, {Words(n + 1).pick(OBJECTS)}")))


def write_long(path, count):
    file = File()
    write(path, file.dump(file.tree([file.page(sheet(n, f"Page {n}")) for n in range(1, count + 1)])))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the names and what they are")
    parser.add_argument("--many", nargs=2, metavar=("DIR", "N"), help="write N one-page documents")
    parser.add_argument("--long", nargs=2, metavar=("FILE", "N"), help="write one document of N pages")
    parser.add_argument("dir", nargs="?", metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    if args.list:
        for name, (what, _, _) in KINDS.items():
            print(f"{name:24} {what}")
    elif args.many:
        write_many(args.many[0], int(args.many[1]))
    elif args.long:
        write_long(args.long[0], int(args.long[1]))
    elif args.dir:
        write_kinds(args.dir, args.names)
    else:
        parser.error("give a directory, --list, --many or --long")


if __name__ == "__main__":
    main()
