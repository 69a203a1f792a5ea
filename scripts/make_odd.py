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

import oddhostile  # registers its documents
from oddkinds import KINDS, document_fails, done, kind, page, page_fails, pages
from oddpages import HEIGHT, OBJECTS, WIDTH, Words, sheet, twin
from pdfwriter import Canvas, File, RC4Encryption, bomb, box

# ---- the documents ---------------------------------------------------------

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
      pages(page("done"), page("done"), page("failed:timeout"), page("done"), page("done")))
def mixed():
    file = File()
    return file.dump(file.tree([
        endless(file) if n == 3 else file.page(sheet(20 + n, f"Part {n}")) for n in range(1, 6)]))


def content_bomb(unit, size):
    file = File()
    content = file.stream(bomb(unit, size), "/Filter [/FlateDecode /FlateDecode]")
    return file.dump(file.tree([
        f"/MediaBox [0 0 612 792] /Resources {file.fonts()} /Contents {content} 0 R"]))


@kind("bomb.pdf", "content that inflates to 64 GB: a string that is never closed", page_fails("memory", "timeout"))
def string_bomb():
    return content_bomb(b"(", 64 << 30)


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


@kind("no_pages.pdf", "a page tree without a page", document_fails("no_pages"))
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
      pages(page("done"), page("failed:malformed", "failed:no_such_page", "done"), page("done")))
def missing_page():
    file = File()
    data = file.dump(file.tree([file.page(sheet(60 + n, f"Leaf {n}")) for n in range(1, 4)]))
    first, second = data.index(b"/Kids ["), data.index(b"]", data.index(b"/Kids ["))
    kids = data[first + 7:second].split(b" 0 R")
    kids[1] = b" 9" if len(kids[1]) == 2 else b" 99"
    return data[:first + 7] + b" 0 R".join(kids) + data[second:]


@kind("count_lies.pdf", "a page tree that promises 50 pages and holds 2", done(2))
def count_lies():
    file = File()
    data = file.dump(file.tree([file.page(sheet(70 + n, f"Leaf {n} of fifty")) for n in (1, 2)]))
    return data.replace(b"/Count 2 ", b"/Count 50")


@kind("page_tree_loop.pdf", "a page tree whose only branch is its root",
      {**document_fails("malformed", "no_pages"), **page_fails("malformed", "no_such_page"), "page_count": None,
       "ends": ["partial", "failed", "failed:malformed", "failed:no_pages"]})
def page_tree_loop():
    file = File()
    root = file.reserve()
    file.put(f"<< /Type /Pages /Count 1 /Kids [{root} 0 R] >>", root)
    return file.dump(file.put(f"<< /Type /Catalog /Pages {root} 0 R >>"))


@kind("page_tree_wide.pdf", "a page tree that leads to its one page by 8**12 ways", {**pages(page("done", "failed:malformed", "failed:timeout")), "page_count": None})
def page_tree_wide():
    file = File()
    node = file.put("<< /Type /Page /MediaBox [0 0 612 792] >>")
    for _ in range(12):
        node = file.put(f"<< /Type /Pages /Count 1 /Kids [{f'{node} 0 R ' * 8}] >>")
    return file.dump(file.put(f"<< /Type /Catalog /Pages {node} 0 R >>"))


@kind("slow_open.pdf", "a cross-reference stream of 5,000,000,000 entries, which inflates from a small file",
      document_fails("timeout", "memory", "malformed"))
def slow_open():
    head = b"%PDF-1.7\n"
    sections = " ".join(["0 1000000"] * 5000)
    data = bomb(b"\0", 3 * 5 * 10**9)
    entries = (f"/Type /XRef /Size 1000000 /W [1 1 1] /Index [{sections}] /Root 2 0 R "
               f"/Filter [/FlateDecode /FlateDecode] /Length {len(data)}")
    return (head + f"1 0 obj\n<< {entries} >>\nstream\n".encode() + data +
            b"\nendstream\nendobj\nstartxref\n" + str(len(head)).encode() + b"\n%%EOF\n")


@kind("recursive_form.pdf", "a form that shows itself", done())
def recursive_form():
    file = File()
    form = file.reserve()
    resources = f"/Resources << /XObject << /F {form} 0 R >> >>"
    file.stream(b"10 10 200 200 re f /F Do\n", f"/Type /XObject /Subtype /Form /BBox [0 0 612 792] {resources}", form)
    content = file.stream(b"/F Do\n")
    return file.dump(file.tree([f"/MediaBox [0 0 612 792] {resources} /Contents {content} 0 R"]))


@kind("deep_arrays.pdf", "a page with an array in an array, 200,000 deep",
      pages(page("done", "failed:malformed", "failed:memory", "failed:crash")))
def deep_arrays():
    file = File()
    deep = file.put("[" * 200000 + "]" * 200000)
    return file.dump(file.tree([f"/MediaBox {deep} 0 R"]))


@kind("deep_outline.pdf", "an outline 5,000 levels deep over one page of text", done())
def deep_outline():
    file = File()
    top = file.reserve()
    parent = top
    for n in range(5000):
        item = file.reserve()
        link = f"/First {item} 0 R /Last {item} 0 R /Count {5000 - n}"
        file.put(f"<< /Type /Outlines {link} >>" if parent == top else
                 f"<< /Title (Level {n}) /Parent {parent - 1 if n > 1 else top} 0 R {link} >>", parent)
        parent = item
    file.put(f"<< /Title (Level 5000) /Parent {parent - 1} 0 R >>", parent)
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


@kind("flat_page.pdf", "a MediaBox without height, taken for Letter; the page is the twins'",
      done(**geometry(WIDTH, HEIGHT, [0, 0, WIDTH, HEIGHT], same_as="twin_plain.pdf")))
def flat_page():
    return single(twin(), "/MediaBox [0 0 612 0]")


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


@kind("absurd_page.pdf", "a page of 10**30 points square", pages(page("failed:page_size", "done")))
def absurd_page():
    return single(twin(), f"/MediaBox [0 0 {10**30} {10**30}]")


@kind("cropbox_outside.pdf", "a CropBox that does not meet the MediaBox, which is shown in its place",
      done(**geometry(WIDTH, HEIGHT, [0, 0, WIDTH, HEIGHT], same_as="twin_plain.pdf")))
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
    """The manifest: for each name what it is and how it should end.

    ends lists the ways that are right, any one of them: a status, or
    failed:CATEGORY; for a document with pages, failed alone means that all of
    them failed. page_count is null when the document does not open, or when
    there is no one right answer. pages has one record a page, from the first
    on: its ends and, where it matters, its geometry (width_pt, height_pt,
    rotation, crop_box) and same_as, a document whose first page shows the same
    picture at the same place.
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
