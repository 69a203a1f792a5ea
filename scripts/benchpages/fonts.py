"""Fonts as real documents have them: subsets, embedded as Type 1 (what TeX
does), as CFF (publishers) or as TrueType (office programs).

The letters are those of STIX and DejaVu, which come with matplotlib's wheel;
matplotlib itself is never imported. Both licences allow embedding (NOTICE).
"""

import functools
import importlib.util
import io
import os
import zlib

from fontTools import subset
from fontTools.fontBuilder import FontBuilder
from fontTools.misc.eexec import encrypt
from fontTools.pens.basePen import BasePen
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.pens.transformPen import TransformPen
from fontTools.ttLib import TTFont

FILES = {
    "roman": "STIXGeneral.ttf", "bold": "STIXGeneralBol.ttf", "italic": "STIXGeneralItalic.ttf",
    "bolditalic": "STIXGeneralBolIta.ttf", "large": "STIXSizOneSymReg.ttf",
    "sans": "DejaVuSans.ttf", "sansbold": "DejaVuSans-Bold.ttf", "mono": "DejaVuSansMono.ttf",
}
# What a Type 1 font's encrypted part begins with, before it is encrypted.
RANDOM = b"\0\0\0\0"


@functools.cache
def opened(face):
    folder = importlib.util.find_spec("matplotlib").submodule_search_locations[0]
    return TTFont(os.path.join(folder, "mpl-data", "fonts", "ttf", FILES[face]), recalcTimestamp=False)


class Type1Pen(BasePen):
    """Writes a letter as a Type 1 charstring (Adobe Type 1 Font Format, 6)."""

    def __init__(self, glyphs, width):
        super().__init__(glyphs)
        self.at = (0, 0)
        self.code = self.numbers(0, width) + b"\x0d"  # hsbw

    @staticmethod
    def numbers(*values):
        out = b""
        for v in values:
            if -107 <= v <= 107:
                out += bytes([v + 139])
            elif 108 <= v <= 1131:
                out += bytes([(v - 108 >> 8) + 247, v - 108 & 255])
            elif -1131 <= v <= -108:
                out += bytes([(-v - 108 >> 8) + 251, -v - 108 & 255])
            else:
                out += b"\xff" + v.to_bytes(4, "big", signed=True)
        return out

    def _steps(self, *points):
        values = []
        for x, y in points:
            x, y = round(x), round(y)
            values += [x - self.at[0], y - self.at[1]]
            self.at = (x, y)
        return self.numbers(*values)

    def _moveTo(self, p):
        self.code += self._steps(p) + b"\x15"

    def _lineTo(self, p):
        self.code += self._steps(p) + b"\x05"

    def _curveToOne(self, a, b, c):
        self.code += self._steps(a, b, c) + b"\x08"

    def _closePath(self):
        self.code += b"\x09"


class Font:
    """A face of which the letters that are set get into the file. kind is
    type1, cff or truetype. Codes are given as letters come."""

    def __init__(self, face, kind):
        self.face, self.kind = face, kind
        self.source = opened(face)
        self.cmap = self.source.getBestCmap()
        self.upem = self.source["head"].unitsPerEm
        self.codes = {}  # letter -> code

    def advance(self, letter):
        return self.source["hmtx"][self.cmap[ord(letter)]][0] * 1000 / self.upem

    def width(self, text, size):
        return sum(map(self.advance, text)) * size / 1000

    def encode(self, text):
        """The bytes of a string, as PDF writes them in hexadecimal or in brackets."""
        out = []
        for letter in text:
            code = self.codes.setdefault(letter, len(self.codes) + 33)
            if code > 255:
                raise ValueError("too many letters for one font")
            out.append(f"\\{code:03o}" if chr(code) in "()\\" or code > 126 else chr(code))
        return "(" + "".join(out) + ")"

    def names(self):
        return [self.cmap[ord(letter)] for letter in self.codes]

    def write(self, file, number):
        """Adds the font to a pdfwriter.File; returns the number of its object."""
        name = f"QUIR{chr(65 + number // 26)}{chr(65 + number % 26)}+{self.face.title()}"
        if self.kind == "truetype":
            key, data = "FontFile2", self._truetype()
            extra = f"/Length1 {len(data)}"
        elif self.kind == "cff":
            key, data, extra = "FontFile3", self._cff(name), "/Subtype /Type1C"
        else:
            key = "FontFile"
            data, parts = self._type1(name)
            extra = " ".join(f"/Length{i + 1} {n}" for i, n in enumerate(parts))
        packed = file.stream(zlib.compress(data, 9), f"/Filter /FlateDecode {extra}")
        descriptor = file.put(
            f"<< /Type /FontDescriptor /FontName /{name} /Flags 4 /FontBBox [{self._bounds()}] /ItalicAngle 0 /Ascent 750 "
            f"/Descent -250 /CapHeight 660 /StemV 80 /{key} {packed} 0 R >>")
        last = 32 + len(self.codes)
        widths = " ".join(f"{self.advance(letter):.0f}" for letter in self.codes)
        if self.kind == "truetype":
            subtype, encoding = "TrueType", ""
        else:
            subtype = "Type1"
            encoding = "/Encoding << /Type /Encoding /Differences [33 " + " ".join(f"/{n}" for n in self.names()) + "] >>"
        return file.put(f"<< /Type /Font /Subtype /{subtype} /BaseFont /{name} /FirstChar 33 /LastChar {last} "
                        f"/Widths [{widths}] /FontDescriptor {descriptor} 0 R {encoding} >>")

    def _bounds(self):
        head = self.source["head"]
        return " ".join(str(round(v * 1000 / self.upem)) for v in (head.xMin, head.yMin, head.xMax, head.yMax))

    def _wide(self, glyph):
        return round(self.source["hmtx"][glyph][0] * 1000 / self.upem)

    def _scaled(self, pen):
        """Type 1 and CFF have a thousand units to the em."""
        return TransformPen(pen, (1000 / self.upem, 0, 0, 1000 / self.upem, 0, 0))

    def _truetype(self):
        """A subset with the codes in a cmap for symbols, as writers of PDF do."""
        font = TTFont(self.source.reader.file.name, recalcTimestamp=False)
        options = subset.Options(hinting=True, notdef_outline=True, drop_tables=["DSIG", "GPOS", "GSUB", "GDEF", "kern", "FFTM", "name"])
        cut = subset.Subsetter(options)
        cut.populate(text="".join(self.codes))
        cut.subset(font)
        best = font.getBestCmap()
        table = font["cmap"].tables[0]
        table.platformID, table.platEncID, table.format, table.language = 3, 0, 4, 0
        table.cmap = {0xF000 + code: best[ord(letter)] for letter, code in self.codes.items()}
        font["cmap"].tables = [table]
        out = io.BytesIO()
        font.save(out, reorderTables=True)
        return out.getvalue()

    def _cff(self, name):
        glyphs = self.source.getGlyphSet()
        strings = {}
        order = [".notdef", *dict.fromkeys(self.names())]
        for glyph in order:
            pen = T2CharStringPen(self._wide(glyph), glyphs)
            glyphs[glyph].draw(self._scaled(pen))
            strings[glyph] = pen.getCharString()
        builder = FontBuilder(1000, isTTF=False)
        builder.setupGlyphOrder(order)
        builder.setupCharacterMap({})
        private = {"BlueValues": [-14, 0, 450, 460, 662, 676], "StdHW": 40, "StdVW": 80}
        builder.setupCFF(name, {"FullName": name}, strings, private)
        builder.setupHorizontalMetrics({glyph: (self._wide(glyph), 0) for glyph in order})
        builder.setupHorizontalHeader(ascent=750, descent=-250)
        builder.setupPost()
        return builder.font.getTableData("CFF ")

    def _type1(self, name):
        glyphs = self.source.getGlyphSet()
        strings = {}
        for glyph in [".notdef", *dict.fromkeys(self.names())]:
            pen = Type1Pen(glyphs, self._wide(glyph))
            glyphs[glyph].draw(self._scaled(pen))
            strings[glyph] = encrypt(RANDOM + pen.code + b"\x0e", 4330)[0]
        encoding = "".join(f"dup {code} /{self.cmap[ord(letter)]} put\n" for letter, code in self.codes.items())
        clear = (
            f"%!PS-AdobeFont-1.0: {name} 1.0\n11 dict begin\n/FontInfo 2 dict dup begin\n/FullName ({name}) readonly def\nend readonly def\n"
            f"/FontName /{name} def\n/PaintType 0 def\n/FontType 1 def\n/FontMatrix [0.001 0 0 0.001 0 0] readonly def\n"
            f"/Encoding 256 array\n0 1 255 {{1 index exch /.notdef put}} for\n{encoding}readonly def\n"
            f"/FontBBox {{{self._bounds()}}} readonly def\ncurrentdict end\ncurrentfile eexec\n"
        ).encode()
        private = (
            b"dup /Private 8 dict dup begin\n/RD {string currentfile exch readstring pop} executeonly def\n/ND {noaccess def} executeonly def\n"
            b"/NP {noaccess put} executeonly def\n/BlueValues [-14 0 450 460 662 676] def\n/MinFeature {16 16} def\n/password 5839 def\n"
            b"/StdHW [40] def\n/StdVW [80] def\n2 index /CharStrings %d dict dup begin\n" % len(strings)
        )
        for glyph, code in strings.items():
            private += f"/{glyph} {len(code)} RD ".encode() + code + b" ND\n"
        private += b"end\nend\nreadonly put\nnoaccess put\ndup /FontName get exch definefont pop\nmark currentfile closefile\n"
        secret = encrypt(RANDOM + private, 55665)[0]
        tail = (b"0" * 64 + b"\n") * 8 + b"cleartomark\n"
        return clear + secret + tail, (len(clear), len(secret), len(tail))
