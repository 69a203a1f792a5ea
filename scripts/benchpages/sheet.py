"""Documents of several pages, written operator by operator: a PDF that shows
what the programs that write real ones leave in them. Points, y upwards."""

import random
import zlib

import pdfwriter
from pdfwriter import num

from .fonts import Font


class Book:
    """A document under construction. What several pages use is added once."""

    def __init__(self, seed, kind="type1", by_size=False):
        """With by_size a face has a font for each size, as in TeX."""
        self.file = pdfwriter.File()
        self.random = random.Random(seed)
        self.kind, self.by_size = kind, by_size
        self.fonts, self.pages, self.named = {}, [], {}

    def font(self, face, size, figure=""):
        """The name of a font, and the font. A figure that another program drew
        has fonts of its own."""
        name = face + (figure or (f"{size:.0f}" if self.by_size else ""))
        if name not in self.fonts:
            self.fonts[name] = Font(face, self.kind)
        return name, self.fonts[name]

    def page(self, width=612, height=792):
        self.pages.append(Page(self, width, height))
        return self.pages[-1]

    def add(self, kind, number):
        """Names an object among the resources: kind is XObject, Shading, ExtGState …"""
        names = self.named.setdefault(kind, {})
        return names.setdefault(number, f"{kind[0]}{len(names)}")

    def stream(self, data, entries=""):
        return self.file.stream(zlib.compress(data, 9), f"/Filter /FlateDecode {entries}")

    def save(self, path):
        contents = [self.stream(page.content()) for page in self.pages]
        fonts = " ".join(f"/{face} {font.write(self.file, i)} 0 R" for i, (face, font) in enumerate(self.fonts.items()))
        named = " ".join(
            f"/{kind} << " + " ".join(f"/{name} {number} 0 R" for number, name in names.items()) + " >>"
            for kind, names in self.named.items())
        resources = self.file.put(f"<< /Font << {fonts} >> {named} >>")
        root = self.file.tree([
            f"/MediaBox [0 0 {num(page.width)} {num(page.height)}] /Resources {resources} 0 R /Contents {content} 0 R"
            for page, content in zip(self.pages, contents)])
        with open(path, "wb") as out:
            out.write(self.file.dump(root))


class Page:
    def __init__(self, book, width, height):
        self.book, self.width, self.height = book, width, height
        self.ops = []
        self.figure = ""  # the name of the one that is being drawn

    def op(self, *parts):
        self.ops.append(" ".join(num(p) if isinstance(p, (int, float)) else p for p in parts))

    def content(self):
        return "\n".join(self.ops).encode("ascii") + b"\n"

    def text(self, x, y, text, face="roman", size=10, centre=False):
        name, font = self.book.font(face, size, self.figure)
        if centre:
            x -= font.width(text, size) / 2
        words = text.split(" ")
        gap = -font.advance(" ")
        shown = f" {gap:.0f} ".join(font.encode(word) for word in words)
        self.op("BT", f"/{name}", size, "Tf", x, y, "Td", f"[{shown}]", "TJ ET")
        return font.width(text, size)

    def paragraph(self, x, y, width, text, face="roman", size=10, leading=12, indent=0):
        """Sets text justified from baseline y down, as TeX does: words apart and
        pairs of letters together by numbers in TJ, and some words in another font.
        Returns the next baseline."""
        lines, line, used = [], [], indent
        space = self.book.font(face, size, self.figure)[1].width(" ", size)
        for word in text.split():
            name, font = self.book.font(self.book.random.choice(LEANING) if self.book.random.random() < 0.1 else face, size, self.figure)
            w = font.width(word, size)
            if line and used + w > width:
                lines.append((line, used - space))
                line, used = [], 0
            line.append((name, kerned(font, word)))
            used += w + space
        lines.append((line, None))
        self.op("BT", x + indent, y, "Td")
        current = None
        for i, (words, natural) in enumerate(lines):
            slack = (width - natural) / max(1, len(words) - 1) if natural else 0
            gap, shown = f"{-(space + slack) * 1000 / size:.0f}", ""
            for j, (name, word) in enumerate(words):
                if name != current:
                    shown += f"{']TJ' if j else ''}/{name} {num(size)} Tf["
                    current = name
                elif not j:
                    shown += "["
                shown += (gap if j else "") + word
            self.op(f"{shown}]TJ", -indent if i == 0 and indent else 0, -leading, "Td")
        self.op("ET")
        return y - leading * len(lines)

    def fill(self, *colour):
        self.op(*colour, "rg" if len(colour) == 3 else "g")

    def stroke(self, *colour):
        self.op(*colour, "RG" if len(colour) == 3 else "G")

    def line(self, points, width=0.6, end="S"):
        first, *rest = points
        self.op(width, "w", *first, "m")
        for p in rest:
            self.op(*p, "l")
        self.op(end)

    def rect(self, x, y, w, h, end="f"):
        self.op(x, y, w, h, "re", end)

    def place(self, number, x, y, w, h):
        """Shows an image that is an object of the file."""
        self.op("q", w, "0 0", h, x, y, "cm", "/" + self.book.add("XObject", number), "Do Q")


# What names and quantities in a paragraph are set in.
LEANING = ("italic", "italic", "bolditalic", "bold")

# Pairs that type designers move together, and by how much.
KERNS = {"AV": 80, "Wo": 60, "Te": 70, "wa": 15, "ov": 20, "ow": 20, "ve": 15, "ry": 10, "ta": 5, "fo": 10, "ay": 20, "ke": 10, "be": -10, "oc": -10}


def kerned(font, word):
    out, start = [], 0
    for i in range(1, len(word)):
        if word[i - 1:i + 1] in KERNS:
            out.append(font.encode(word[start:i]) + str(KERNS[word[i - 1:i + 1]]))
            start = i
    return "".join(out) + font.encode(word[start:])
