"""Odd documents that somebody would have to make on purpose: things that refer
to themselves, and small files that ask for much. make_odd.py writes them."""

import struct

from oddkinds import document_fails, done, kind, page, page_fails, pages
from oddpages import sheet
from pdfwriter import File, bomb

LETTER = "/MediaBox [0 0 612 792]"


def one_page(file, content, resources="", extra="", catalog=""):
    """A document of one page with this content (bytes)."""
    stream = file.stream(content)
    return file.dump(file.tree([f"{LETTER} /Resources << {resources} >> /Contents {stream} 0 R {extra}"], catalog))


# ---- what refers to itself ---------------------------------------------------

@kind("loop_pattern.pdf", "a tiling pattern that paints with itself", pages(page("done", "failed:malformed")))
def loop_pattern():
    file = File()
    pattern = file.reserve()
    resources = f"/Pattern << /P {pattern} 0 R >>"
    file.stream(b"/Pattern cs /P scn 0 0 50 50 re f\n",
                "/Type /Pattern /PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 50 50] "
                f"/XStep 50 /YStep 50 /Resources << {resources} >>", pattern)
    return one_page(file, b"/Pattern cs /P scn 0 0 612 792 re f\n", resources)


@kind("loop_glyph.pdf", "a glyph that shows itself", pages(page("done", "failed:malformed")))
def loop_glyph():
    file = File()
    font = file.reserve()
    glyph = file.stream(b"1000 0 d0 0 0 500 500 re f BT /F 1 Tf (a) Tj ET\n")
    file.put("<< /Type /Font /Subtype /Type3 /FontBBox [0 0 1000 1000] /FontMatrix [0.001 0 0 0.001 0 0] "
             f"/CharProcs << /a {glyph} 0 R >> /Encoding << /Type /Encoding /Differences [97 /a] >> "
             f"/FirstChar 97 /LastChar 97 /Widths [1000] /Resources << /Font << /F {font} 0 R >> >> >>", font)
    return one_page(file, b"BT /F 40 Tf 100 400 Td (aaa) Tj ET\n", f"/Font << /F {font} 0 R >>")


@kind("loop_mask.pdf", "a soft mask that is drawn through itself", done())
def loop_mask():
    file = File()
    state = file.reserve()
    resources = f"/ExtGState << /G {state} 0 R >>"
    group = file.stream(b"/G gs 100 100 300 300 re f\n",
                        "/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Group << /S /Transparency /CS /DeviceGray >> "
                        f"/Resources << {resources} >>")
    file.put(f"<< /Type /ExtGState /SMask << /Type /Mask /S /Luminosity /G {group} 0 R >> >>", state)
    return one_page(file, b"/G gs 0 0 612 792 re f\n", resources)


@kind("loop_space.pdf", "a colour space that is based on itself", pages(page("done", "failed:malformed")))
def loop_space():
    file = File()
    space = file.reserve()
    file.put(f"[/Indexed {space} 0 R 1 <0001>]", space)
    return one_page(file, b"/C cs 1 sc 0 0 300 300 re f\n", f"/ColorSpace << /C {space} 0 R >>")


@kind("loop_function.pdf", "a shading whose function is made of itself", pages(page("done", "failed:malformed")))
def loop_function():
    file = File()
    function = file.reserve()
    file.put(f"<< /FunctionType 3 /Domain [0 1] /Functions [{function} 0 R {function} 0 R] /Bounds [0.5] /Encode [0 1 0 1] >>",
             function)
    shading = file.put(f"<< /ShadingType 2 /ColorSpace /DeviceGray /Coords [0 0 612 0] /Function {function} 0 R >>")
    return one_page(file, b"/S sh\n", f"/Shading << /S {shading} 0 R >>")


@kind("loop_layer.pdf", "a layer that is visible when it is visible", done())
def loop_layer():
    file = File()
    rule = file.reserve()
    file.put(f"[/And {rule} 0 R {rule} 0 R]", rule)
    group = file.put("<< /Type /OCG /Name (Layer) >>")
    layer = file.put(f"<< /Type /OCMD /OCGs {group} 0 R /VE {rule} 0 R >>")
    return one_page(file, b"/OC /L BDC 0 0 300 300 re f EMC\n", f"/Properties << /L {layer} 0 R >>",
                    catalog=f"/OCProperties << /OCGs [{group} 0 R] /D << /Order [{rule} 0 R] /ON [{group} 0 R] >> >>")


@kind("loop_cmap.pdf", "a character map that uses itself", done())
def loop_cmap():
    file = File()
    cmap = file.reserve()
    file.stream(b"begincmap 1 begincodespacerange <00> <ff> endcodespacerange endcmap\n",
                f"/Type /CMap /CMapName /Loop /UseCMap {cmap} 0 R", cmap)
    descendant = file.put("<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Loop "
                          "/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>")
    font = file.put("<< /Type /Font /Subtype /Type0 /BaseFont /Loop "
                    f"/Encoding {cmap} 0 R /ToUnicode {cmap} 0 R /DescendantFonts [{descendant} 0 R] >>")
    return one_page(file, b"BT /F 40 Tf 100 400 Td (aaa) Tj ET\n", f"/Font << /F {font} 0 R >>")


@kind("loop_contents.pdf", "contents that are a part of themselves", pages(page("done", "failed:malformed")))
def loop_contents():
    file = File()
    parts = file.reserve()
    file.put(f"[{file.stream(sheet(91, 'Over and over').content())} 0 R {parts} 0 R]", parts)
    return file.dump(file.tree([f"{LETTER} /Resources {file.fonts()} /Contents {parts} 0 R"]))


@kind("loop_parent.pdf", "a page that is its own parent, from which it inherits its size", pages(page("done", "failed:malformed")))
def loop_parent():
    file = File()
    leaf, root = file.reserve(), file.reserve()
    file.put(f"<< /Type /Page /Parent {leaf} 0 R >>", leaf)
    file.put(f"<< /Type /Pages /Count 1 /Kids [{leaf} 0 R] >>", root)
    return file.dump(file.put(f"<< /Type /Catalog /Pages {root} 0 R >>"))


@kind("loop_prev.pdf", "a table of objects that continues an earlier one, which is itself", done())
def loop_prev():
    file = File()
    data = file.dump(file.tree([file.page(sheet(92, "The same again"))]))
    start = data[data.rindex(b"startxref\n") + 10:].split()[0]
    return data.replace(b"trailer\n<< ", b"trailer\n<< /Prev " + start + b" ", 1)


@kind("loop_length.pdf", "a stream whose length is written in itself", done())
def loop_length():
    file = File()
    data = file.dump(file.tree([file.page(sheet(93, "As long as it is"))]))
    at = data.index(b"/Length ")
    number = data[:at].rsplit(b" 0 obj", 1)[0].rsplit(b"\n", 1)[1]
    length = data[at + 8:].split()[0]
    return data.replace(b"/Length " + length, (b"/Length " + number + b" 0 R").ljust(8 + len(length)), 1)


@kind("loop_object_stream.pdf", "a page that lies in a stream of objects, which lies in itself",
      document_fails("malformed"))
def loop_object_stream():
    # 1 the catalog, 2 the pages, 3 the page; 4 holds 3 and 4; 5 is the table.
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>"]
    out, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    inside = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>"
    head = b"3 0 4 %d " % len(inside)
    data = head + inside + b" << /Type /ObjStm >>"
    offsets.append(len(out))
    out += b"4 0 obj\n<< /Type /ObjStm /N 2 /First %d /Extends 4 0 R /Length %d >>\nstream\n%s\nendstream\nendobj\n" % (
        len(head), len(data), data)
    rows = [(0, 0, 0), (1, offsets[0], 0), (1, offsets[1], 0), (2, 4, 0), (2, 4, 1)]
    return out + xref_stream(len(out), rows, 1, 10)


# ---- what asks for much -------------------------------------------------------

@kind("bomb_pages.pdf", "a page tree that leads to its one page by 8**8 ways, in a small file that claims 3,000,000 objects",
      {**pages(page("done", "failed:malformed", "failed:timeout")), "page_count": None})
def bomb_pages():
    out, offsets = b"%PDF-1.7\n", []

    def put(body):
        nonlocal out
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (len(offsets), body)

    put(b"<< /Type /Page /MediaBox [0 0 612 792] >>")
    for node in range(1, 9):
        put(b"<< /Type /Pages /Count 1 /Kids [" + b"%d 0 R " % node * 8 + b"] >>")
    put(b"<< /Type /Catalog /Pages 9 0 R >>")
    return out + xref_stream(len(out), [(0, 0, 0)] + [(1, at, 0) for at in offsets], 10, 3000000)


def xref_stream(start, rows, root, size):
    """A cross-reference stream of these rows, the number after them being its
    own, and one row more for the last of size objects (ISO 32000-1, 7.5.8)."""
    number = len(rows)
    rows = rows + [(1, start, 0), (0, 0, 0)]
    table = b"".join(struct.pack(">BIB", *row) for row in rows)
    return (b"%d 0 obj\n<< /Type /XRef /Size %d /Index [0 %d %d 1] /W [1 4 1] /Root %d 0 R /Length %d >>\nstream\n" % (
        number, size, number + 1, size - 1, root, len(table)) + table +
        b"\nendstream\nendobj\nstartxref\n%d\n%%%%EOF\n" % start)


@kind("bomb_groups.pdf", "3,000 transparent groups of the whole page, each in the one before",
      page_fails("memory", "timeout"))
def bomb_groups():
    file = File()
    form = file.stream(b"0 0 300 300 re f\n", "/Type /XObject /Subtype /Form /BBox [0 0 612 792]")
    for _ in range(3000):
        form = file.stream(b"/G gs /F Do\n",
                           "/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Group << /S /Transparency /I true /K true >> "
                           f"/Resources << /XObject << /F {form} 0 R >> /ExtGState << /G << /ca 0.9 /BM /Multiply >> >> >>")
    return one_page(file, b"/F Do\n", f"/XObject << /F {form} 0 R >>")


@kind("bomb_filters.pdf", "contents behind 5,000 filters", pages(page("done", "failed:malformed", "failed:memory")))
def bomb_filters():
    file = File()
    content = file.stream(b"0 0 300 300 re f\n>", f"/Filter [{'/ASCIIHexDecode ' * 5000}]")
    return file.dump(file.tree([f"{LETTER} /Contents {content} 0 R"]))


@kind("bomb_predictor.pdf", "contents whose rows are 2**31 - 1 values wide", page_fails("malformed", "memory"))
def bomb_predictor():
    file = File()
    content = file.stream(bomb(b"\0", 1 << 20), "/Filter [/FlateDecode /FlateDecode] "
                          f"/DecodeParms [null << /Predictor 15 /Colors 32 /BitsPerComponent 16 /Columns {2**31 - 1} >>]")
    return file.dump(file.tree([f"{LETTER} /Contents {content} 0 R"]))


@kind("bomb_mesh.pdf", "a shading of triangles that inflates to 16 GB", page_fails("memory", "timeout"))
def bomb_mesh():
    file = File()
    shading = file.stream(bomb(bytes(range(64)), 16 << 30),
                          "/ShadingType 5 /ColorSpace /DeviceRGB /BitsPerCoordinate 8 /BitsPerComponent 8 /VerticesPerRow 1000 "
                          "/Decode [0 612 0 792 0 1 0 1 0 1] /Filter [/FlateDecode /FlateDecode]")
    return one_page(file, b"/S sh\n", f"/Shading << /S {shading} 0 R >>")


def picture(data, width, height, filters):
    """A page that shows one image with this stream."""
    file = File()
    image = file.stream(data, f"/Type /XObject /Subtype /Image /Width {width} /Height {height} {filters}")
    return one_page(file, b"q 500 0 0 500 56 146 cm /I Do Q\n", f"/XObject << /I {image} 0 R >>")


@kind("bomb_jpeg.pdf", "a progressive JPEG of 65,500 by 65,500 pixels and no picture in it",
      page_fails("memory", "timeout", "malformed"))
def bomb_jpeg():
    # Start, quantisation, frame (SOF2, three components), one Huffman table,
    # 200 scans without data (ITU-T T.81, annex B).
    data = b"\xff\xd8\xff\xdb" + struct.pack(">HB", 67, 0) + b"\1" * 64
    data += b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, 65500, 65500, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    data += b"\xff\xc4" + struct.pack(">HB", 20, 0) + b"\1" + bytes(15) + b"\0"
    data += (b"\xff\xda" + struct.pack(">HB", 12, 3) + b"\1\0\2\0\3\0" + b"\0\0\0" + b"\0") * 200 + b"\xff\xd9"
    return picture(data, 65500, 65500, "/ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /DCTDecode")


@kind("bomb_jpeg2000.pdf", "a JPEG 2000 of 100,000 by 100,000 pixels and no picture in it",
      page_fails("memory", "timeout", "malformed"))
def bomb_jpeg2000():
    # Start, size with one tile, coding style, quantisation, tile, end (ITU-T
    # T.800, annex A).
    side = 100000
    data = b"\xff\x4f\xff\x51" + struct.pack(">HHIIIIIIIIH", 47, 0, side, side, 0, 0, side, side, 0, 0, 3) + b"\7\1\1" * 3
    data += b"\xff\x52" + struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 0, 5, 4, 4, 0, 1)
    data += b"\xff\x5c" + struct.pack(">HB", 19, 0x40) + b"\x48" * 16
    data += b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 0, 0, 1) + b"\xff\x93" + b"\0" * 64 + b"\xff\xd9"
    return picture(data, side, side, "/Filter /JPXDecode")


@kind("bomb_fax.pdf", "a fax of 200,000 by 200,000 points, all white in 25 kB",
      page_fails("memory", "timeout", "malformed"))
def bomb_fax():
    # In two-dimensional coding one bit says: as the row above (ITU-T T.6).
    side = 200000
    return picture(b"\xff" * (side // 8), side, side, "/ColorSpace /DeviceGray /BitsPerComponent 1 /Filter /CCITTFaxDecode "
                   f"/DecodeParms << /K -1 /Columns {side} /Rows {side} >>")


@kind("largest_page.pdf", "14,400 units of 75,000 points, the largest page there is",
      done(width_pt=1.08e9, height_pt=1.08e9, rotation=0, crop_box=[0, 0, 14400, 14400]))
def largest_page():
    file = File()
    content = file.stream(b"1000 1000 9000 9000 re f\n")
    return file.dump(file.tree([f"/MediaBox [0 0 14400 14400] /UserUnit 75000 /Contents {content} 0 R"]))


@kind("xref_widths.pdf", "a table of objects whose entries are a megabyte wide", document_fails("no_pages", "malformed"))
def xref_widths():
    file = File()
    data = file.dump(file.tree([file.page(sheet(94, "Found all the same"))]))
    table = len(data)
    data += b"99 0 obj\n<< /Type /XRef /Size 100 /W [1 1000000 1] /Root 1 0 R /Length 9 >>\nstream\n\1\1\1\1\1\1\1\1\1\nendstream\nendobj\n"
    return data + b"startxref\n%d\n%%%%EOF\n" % table
