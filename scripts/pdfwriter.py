"""Writes PDF files byte by byte, right or wrong as the caller wants them.

Only the standard library of Python 3.10 or later is used, so that tests can
make their documents anywhere. Object syntax, cross-reference tables, page
geometry and encryption follow ISO 32000-1:2008 (sections 7.3, 7.5, 8.3 and 7.6).
"""

import hashlib
import zlib

# Advance widths of the printable ASCII characters (32 to 126) in thousandths
# of the font size, for the standard fonts that the documents use.
WIDTHS = {
    "Times-Roman": (
        250, 333, 408, 500, 500, 833, 778, 180, 333, 333, 500, 564, 250, 333, 250, 278,
        500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 278, 278, 564, 564, 564, 444,
        921, 722, 667, 667, 722, 611, 556, 722, 722, 333, 389, 722, 611, 889, 722, 722,
        556, 722, 667, 556, 611, 722, 722, 944, 722, 722, 611, 333, 278, 333, 469, 500,
        333, 444, 500, 444, 500, 444, 333, 500, 500, 278, 278, 500, 278, 778, 500, 500,
        500, 500, 333, 389, 278, 500, 500, 722, 500, 500, 444, 480, 200, 480, 541),
    "Helvetica-Bold": (
        278, 333, 474, 556, 556, 889, 722, 238, 333, 333, 389, 584, 278, 333, 278, 278,
        556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 333, 333, 584, 584, 584, 611,
        975, 722, 722, 722, 722, 667, 611, 778, 722, 278, 556, 722, 611, 833, 722, 778,
        667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 333, 278, 333, 584, 556,
        333, 556, 611, 556, 611, 556, 333, 611, 611, 278, 278, 556, 278, 889, 611, 611,
        611, 611, 389, 556, 333, 611, 556, 778, 556, 556, 500, 389, 280, 389, 584),
}
FONTS = {"R": "Times-Roman", "B": "Helvetica-Bold"}


def text_width(text, font, size):
    """Width of text in the units of size; font is a key of FONTS."""
    table = WIDTHS[FONTS[font]]
    return sum(table[ord(c) - 32] for c in text) * size / 1000


class Canvas:
    """A page's content stream, drawn with the origin at the lower left.

    blocks collects what was placed: (label, [x0, y0, x1, y1]) with the origin
    at the top left of a page `height` high, in the order of drawing.
    """

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.ops = []
        self.blocks = []

    def note(self, label, x0, top, x1, bottom):
        box = (x0, self.height - top, x1, self.height - bottom)
        self.blocks.append((label, [round(v, 2) for v in box]))

    def text(self, x, y, text, font="R", size=10, spacing=0.0):
        escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        self.ops.append(
            f"BT /{font} {num(size)} Tf {num(spacing)} Tw {num(x)} {num(y)} Td ({escaped}) Tj ET")

    def centred(self, x, y, text, font="R", size=10):
        self.text(x - text_width(text, font, size) / 2, y, text, font, size)

    def rect(self, x, y, width, height, paint="f", grey=0.0):
        self.ops.append(
            f"q {num(grey)} g {num(grey)} G {num(x)} {num(y)} {num(width)} {num(height)} re {paint} Q")

    def line(self, x0, y0, x1, y1, width=0.6):
        self.ops.append(f"{num(width)} w {num(x0)} {num(y0)} m {num(x1)} {num(y1)} l S")

    def paragraph(self, x, top, width, text, size=10, leading=12, font="R", label="text"):
        """Sets text justified below top and returns where its last line ends."""
        lines, line = [], []
        for word in text.split():
            if line and text_width(" ".join(line + [word]), font, size) > width:
                lines.append(line)
                line = []
            line.append(word)
        y = top - 0.72 * size
        right = 0.0
        for words in lines:
            slack = width - text_width(" ".join(words), font, size)
            self.text(x, y, " ".join(words), font, size, slack / max(1, len(words) - 1))
            right = width
            y -= leading
        self.text(x, y, " ".join(line), font, size)
        right = max(right, text_width(" ".join(line), font, size))
        bottom = y - 0.22 * size
        self.note(label, x, top, x + right, bottom)
        return bottom

    def content(self):
        return "\n".join(self.ops).encode("ascii") + b"\n"


def num(value):
    """A number as PDF writes it: no exponent, no trailing zeros."""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def box(values):
    return "[" + " ".join(num(v) for v in values) + "]"


class File:
    """A PDF under construction: numbered objects, then a table and a trailer."""

    def __init__(self, version="1.7"):
        self.version = version
        self.objects = []  # number n is objects[n - 1]: (dictionary text, stream bytes or None)

    def reserve(self):
        """A number to be filled later by put or stream with ref=number."""
        self.objects.append(None)
        return len(self.objects)

    def put(self, body, ref=None):
        return self._set((body, None), ref)

    def stream(self, data, entries="", ref=None):
        """Adds a stream object; entries go into its dictionary beside Length."""
        return self._set((entries, data), ref)

    def _set(self, value, ref):
        if ref is None:
            ref = self.reserve()
        self.objects[ref - 1] = value
        return ref

    def fonts(self):
        """The resources dictionary with the fonts that Canvas names."""
        fonts = " ".join(
            f"/{key} << /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>"
            for key, name in FONTS.items())
        return f"<< /Font << {fonts} >> >>"

    def tree(self, pages, extra=""):
        """Writes catalog and page tree. Each page is the text of its dictionary
        without Type and Parent. Returns the catalog's number; extra goes into it."""
        root = self.reserve()
        kids = [self.put(f"<< /Type /Page /Parent {root} 0 R {page} >>") for page in pages]
        refs = " ".join(f"{kid} 0 R" for kid in kids)
        self.put(f"<< /Type /Pages /Count {len(kids)} /Kids [{refs}] >>", root)
        return self.put(f"<< /Type /Catalog /Pages {root} 0 R {extra} >>")

    def page(self, canvas, entries=None):
        """The dictionary text of a page that shows the canvas; entries replace
        its MediaBox."""
        content = self.stream(canvas.content())
        entries = entries or f"/MediaBox {box([0, 0, canvas.width, canvas.height])}"
        return f"{entries} /Resources {self.fonts()} /Contents {content} 0 R"

    def dump(self, root, encryption=None):
        """The file's bytes: header, objects, cross-reference table, trailer."""
        out = bytearray(f"%PDF-{self.version}\n%\u00e2\u00e3\u00cf\u00d3\n".encode("latin-1"))
        offsets = []
        for number, entry in enumerate(self.objects, 1):
            body, data = entry
            offsets.append(len(out))
            if data is None:
                out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
                continue
            if encryption:
                data = encryption.apply(data, number)
            out += f"{number} 0 obj\n<< {body} /Length {len(data)} >>\nstream\n".encode("latin-1")
            out += data + b"\nendstream\nendobj\n"
        start = len(out)
        out += f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n".encode()
        for offset in offsets:
            out += f"{offset:010d} 00000 n \n".encode()
        trailer = f"/Size {len(offsets) + 1} /Root {root} 0 R"
        if encryption:
            trailer += " " + encryption.trailer()
        out += f"trailer\n<< {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode("latin-1")
        return bytes(out)


class RC4Encryption:
    """The standard security handler, revision 3 with a 128-bit RC4 key
    (ISO 32000-1, 7.6.3). Only streams are encrypted: the documents made here
    hold no strings outside of them."""

    PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    PERMISSIONS = -4  # everything allowed

    def __init__(self, user, owner):
        self.id = hashlib.md5(f"quire {user} {owner}".encode()).digest()
        padded_user, padded_owner = self._pad(user), self._pad(owner)
        owner_key = self._md5(padded_owner, 51)
        self.o = padded_user
        for i in range(20):
            self.o = rc4(bytes(b ^ i for b in owner_key), self.o)
        flags = self.PERMISSIONS.to_bytes(4, "little", signed=True)
        self.key = self._md5(padded_user + self.o + flags + self.id, 51)
        self.u = hashlib.md5(self.PAD + self.id).digest()
        for i in range(20):
            self.u = rc4(bytes(b ^ i for b in self.key), self.u)
        self.u += bytes(16)

    def _pad(self, password):
        return (password.encode("ascii") + self.PAD)[:32]

    @staticmethod
    def _md5(data, rounds):
        for _ in range(rounds):
            data = hashlib.md5(data).digest()
        return data

    def apply(self, data, number):
        salted = self.key + number.to_bytes(3, "little") + b"\0\0"
        return rc4(hashlib.md5(salted).digest(), data)

    def trailer(self):
        return (f"/Encrypt << /Filter /Standard /V 2 /R 3 /Length 128 /P {self.PERMISSIONS} "
                f"/O <{self.o.hex()}> /U <{self.u.hex()}> >> /ID [<{self.id.hex()}> <{self.id.hex()}>]")


def rc4(key, data):
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) & 255
        state[i], state[j] = state[j], state[i]
    out = bytearray(len(data))
    i = j = 0
    for k, byte in enumerate(data):
        i = (i + 1) & 255
        j = (j + state[i]) & 255
        state[i], state[j] = state[j], state[i]
        out[k] = byte ^ state[(state[i] + state[j]) & 255]
    return bytes(out)


def bomb(unit, size):
    """Stream data that inflates twice to at least size bytes of repeated unit:
    use it with /Filter [/FlateDecode /FlateDecode]. One piece is deflated and
    its block repeated (RFC 1951 lets blocks that refer to nothing before them
    follow each other), so that gigabytes cost no time to make."""
    piece = unit * (1 + (1 << 20) // len(unit))
    deflate = zlib.compressobj(9, wbits=-15)
    block = deflate.compress(piece) + deflate.flush(zlib.Z_FULL_FLUSH)
    count = -(-size // len(piece))
    # The Adler-32 sums of one piece, carried through count of them (RFC 1950, 8.2).
    whole = zlib.adler32(piece)
    step, weighted = (whole & 0xFFFF) - 1, (whole >> 16) - len(piece)
    a, b = 1, 0
    for _ in range(count):
        a, b = (a + step) % 65521, (b + len(piece) * a + weighted) % 65521
    inner = b"\x78\xda" + block * count + b"\x03\x00" + (b << 16 | a).to_bytes(4, "big")
    return zlib.compress(inner, 9)
