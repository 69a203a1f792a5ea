"""A small typesetter over reportlab's canvas that remembers where it put things.

Lengths are points and the origin is the top left of the page, as in the ground
truth that it writes. Only the standard 14 fonts are used, so that the documents
stay small and look alike everywhere.

Inline markup of a paragraph: *italic*, **bold**, $formula$ (see maths.py).
"""

import re
from dataclasses import dataclass, replace
from math import fsum

from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas

from . import maths

FAMILIES = {
    "serif": ("Times-Roman", "Times-Bold", "Times-Italic", "Times-BoldItalic"),
    "sans": ("Helvetica", "Helvetica-Bold", "Helvetica-Oblique", "Helvetica-BoldOblique"),
}
# How far ink reaches above and below the baseline, in font sizes.
ASCENT, DESCENT = 0.69, 0.215
DESCENDERS = set("gjpqyQ,;()[]/{}|§")


@dataclass(frozen=True)
class Style:
    """How text is set. indent is that of the first line; hang that of the others."""

    family: str = "serif"
    size: float = 10
    leading: float = 12
    align: str = "justify"  # justify, left, right or centre
    weight: int = 0  # 0 regular, 1 bold, 2 italic, 3 both
    colour: tuple = (0, 0, 0)
    indent: float = 0
    hang: float = 0

    def but(self, **changes):
        return replace(self, **changes)

    def font(self, bold=False, italic=False):
        return FAMILIES[self.family][self.weight ^ (1 if bold else 0) ^ (2 if italic else 0)]


@dataclass
class Piece:
    """Ink without a gap in it: text in one font, or a formula."""

    width: float
    font: str = ""
    text: str = ""
    formula: object = None


@dataclass
class Line:
    words: list  # each a list of pieces
    x: float  # offset from the block's left edge
    gap: float  # between words
    width: float  # of the ink

    def low(self):
        """Whether anything reaches below the baseline."""
        pieces = [piece for word in self.words for piece in word]
        return any(piece.formula or DESCENDERS & set(piece.text) for piece in pieces)


def words_of(text, style):
    """Splits marked-up text into words, each a list of pieces."""
    words, fresh = [], True
    bold = italic = False
    for part in re.split(r"(\*\*|\*|\$[^$]+\$|\s+)", text):
        if not part:
            continue
        if part == "**":
            bold = not bold
        elif part == "*":
            italic = not italic
        elif part.isspace():
            fresh = True
        else:
            if part[0] == "$" and part[-1] == "$" and len(part) > 1:
                formula = maths.parse(part[1:-1], style.size)
                piece = Piece(formula.width, formula=formula)
            else:
                font, plain = style.font(bold, italic), part.replace("~", " ")
                piece = Piece(stringWidth(plain, font, style.size), font, plain)
            if fresh:
                words.append([])
            words[-1].append(piece)
            fresh = False
    return words


def break_lines(text, style, width):
    """Breaks text into lines; a newline in it always breaks."""
    return [line for part in text.split("\n") for line in _total_fit(part, style, width)]


def _total_fit(text, style, width):
    """Breaks text into lines so that the sum of the squared looseness over all
    lines is least (the total fit of Knuth and Plass, without hyphens)."""
    words = words_of(text, style)
    widths = [fsum(piece.width for piece in word) for word in words]  # the same in every Python
    space = stringWidth(" ", style.font(), style.size)
    best = [(0.0, 0)] + [(float("inf"), 0)] * len(words)  # cost of words[:i], and where its last line starts
    for start in range(len(words)):
        room = width - (style.hang if start else style.indent)
        natural = -space
        for end in range(start + 1, len(words) + 1):
            natural += widths[end - 1] + space
            gaps = max(1, end - start - 1)
            tight = natural - 0.22 * space * gaps if style.align == "justify" else natural
            if tight > room and end > start + 1:
                break
            loose = (room - natural) / gaps / space
            last = end == len(words)
            cost = 0 if last and loose > 0 else loose * loose * (1 if loose > 0 else 9) * gaps + 0.5
            if last and end == start + 1 and start:
                cost += 40  # a single word on the last line
            if best[start][0] + cost < best[end][0]:
                best[end] = (best[start][0] + cost, start)
    cuts, end = [], len(words)
    while end:
        cuts.append((best[end][1], end))
        end = best[end][1]
    lines = []
    for start, end in reversed(cuts):
        left = style.hang if start else style.indent
        natural = fsum(widths[start:end]) + space * (end - start - 1)
        slack, gap = width - left - natural, space
        if style.align == "justify" and (end < len(words) or slack < 0) and end - start > 1:
            gap, slack = space + slack / (end - start - 1), 0
        x = left + {"centre": slack / 2, "right": slack}.get(style.align, 0)
        lines.append(Line(words[start:end], x, gap, width - left - slack if gap != space else natural))
    return lines


class Document:
    """A PDF being made, and its ground truth: regions of each page in the
    vocabulary of quire's results, boxes tight around the ink."""

    def __init__(self, path, width, height, title):
        # invariant: no date and no random identifier in the file.
        self.canvas = Canvas(path, pagesize=(width, height), invariant=1, pageCompression=1)
        self.canvas.setTitle(title)
        self.canvas.setCreator("quire samples")
        self.canvas.setAuthor("quire")
        self.width, self.height = width, height
        self.pages = []
        self._begin()

    def _begin(self):
        self.pages.append({
            "page_no": len(self.pages) + 1,
            "page": {"width_pt": self.width, "height_pt": self.height},
            "regions": [],
        })

    def next_page(self):
        self.canvas.showPage()
        self._begin()

    def save(self):
        self.canvas.save()

    @property
    def number(self):
        return len(self.pages)

    def region(self, label, x0, y0, x1, y1):
        """Notes where something stands on the current page."""
        bbox = [round(float(v), 2) for v in (x0, y0, x1, y1)]
        self.pages[-1]["regions"].append({"label": label, "bbox": bbox})

    # ---- drawing ----

    def fill(self, colour):
        self.canvas.setFillColorRGB(*colour)

    def text(self, x, baseline, text, font, size, colour=(0, 0, 0), anchor="left"):
        """One run of text; returns its left and right edge."""
        width = stringWidth(text, font, size)
        x -= {"left": 0, "centre": width / 2, "right": width}[anchor]
        self.canvas.setFont(font, size)
        self.fill(colour)
        self.canvas.drawString(x, self.height - baseline, text)
        return x, x + width

    def line(self, x0, y0, x1, y1, width=0.5, colour=(0, 0, 0), dash=None):
        c = self.canvas
        c.setLineWidth(width)
        c.setStrokeColorRGB(*colour)
        c.setDash(*(dash or ()))
        c.line(x0, self.height - y0, x1, self.height - y1)
        c.setDash()

    def curve(self, points, width=1.0, colour=(0, 0, 0), dash=None, close=False, fill=None):
        c = self.canvas
        path = c.beginPath()
        path.moveTo(points[0][0], self.height - points[0][1])
        for x, y in points[1:]:
            path.lineTo(x, self.height - y)
        if close:
            path.close()
        c.setLineWidth(width)
        c.setLineJoin(1)
        c.setStrokeColorRGB(*colour)
        if fill:
            self.fill(fill)
        c.setDash(*(dash or ()))
        c.drawPath(path, stroke=1 if width else 0, fill=1 if fill else 0)
        c.setDash()

    def rect(self, x0, y0, x1, y1, fill=None, stroke=None, width=0.5, radius=0):
        c = self.canvas
        c.setLineWidth(width)
        if fill:
            self.fill(fill)
        if stroke:
            c.setStrokeColorRGB(*stroke)
        c.roundRect(x0, self.height - y1, x1 - x0, y1 - y0, radius,
                    stroke=1 if stroke else 0, fill=1 if fill else 0)

    def circle(self, x, y, radius, fill=None, stroke=None, width=0.5):
        c = self.canvas
        c.setLineWidth(width)
        if fill:
            self.fill(fill)
        if stroke:
            c.setStrokeColorRGB(*stroke)
        c.circle(x, self.height - y, radius, stroke=1 if stroke else 0, fill=1 if fill else 0)

    # ---- blocks: each returns the bottom of its ink ----

    def lines(self, lines, x, top, style, label="text"):
        """Sets broken lines with the top of the first one's ink at top."""
        c = self.canvas
        baseline = top + ASCENT * style.size
        left, right = float("inf"), 0.0
        for line in lines:
            at = x + line.x
            left, right = min(left, at), max(right, at + line.width)
            run_x, run_font, run = at, None, ""
            for i, word in enumerate(line.words):
                for j, piece in enumerate(word):
                    glue = " " if i and j == 0 else ""
                    if piece.formula is None and piece.font == run_font:
                        run += glue + piece.text
                    else:
                        self._run(run_x, baseline, run, run_font, style, line.gap)
                        run, run_font = "", None
                        start = at + (line.gap if glue else 0)
                        if piece.formula is not None:
                            self.fill(style.colour)
                            piece.formula.draw(c, start, self.height - baseline)
                        else:
                            run_x, run_font, run = start, piece.font, piece.text
                    at += piece.width + (line.gap if glue else 0)
            self._run(run_x, baseline, run, run_font, style, line.gap)
            baseline += style.leading
        bottom = baseline - style.leading + (DESCENT * style.size if lines[-1].low() else 0)
        if label:
            self.region(label, left, top, right, bottom)
        return bottom

    def _run(self, x, baseline, text, font, style, gap):
        if not text:
            return
        self.canvas.setFont(font, style.size)
        self.fill(style.colour)
        extra = gap - stringWidth(" ", font, style.size)
        self.canvas.drawString(x, self.height - baseline, text, wordSpace=extra)

    def paragraph(self, x, top, width, text, style, label="text"):
        return self.lines(break_lines(text, style, width), x, top, style, label)

    def formula(self, x, top, width, source, size, number):
        """A displayed formula, centred, with its number at the right; the
        region is the formula's own."""
        formula = maths.parse(source, size, display=True)
        baseline = top + formula.height
        left = x + (width - formula.width) / 2
        self.fill((0, 0, 0))
        formula.draw(self.canvas, left, self.height - baseline)
        self.text(x + width, baseline, f"({number})", "Times-Roman", size, anchor="right")
        self.region("formula", left, top, left + formula.width, baseline + formula.depth)
        return baseline + formula.depth

    def table(self, x, top, widths, rows, style, head=1, ruled="rules", aligns=None, row_height=None):
        """A table; ruled is rules (book style), grid or bands."""
        height = row_height or style.leading + 3.5
        total = fsum(widths)
        aligns = aligns or ["left"] + ["right"] * (len(widths) - 1)
        bottom = top + height * len(rows)
        if ruled == "bands":
            self.rect(x, top, x + total, top + height * head, fill=(0.16, 0.27, 0.42))
            for i in range(head, len(rows), 2):
                self.rect(x, top + height * i, x + total, top + height * (i + 1), fill=(0.92, 0.94, 0.97))
        for i, row in enumerate(rows):
            baseline = top + height * i + height / 2 + 0.34 * style.size
            left = x
            for cell, width, align in zip(row, widths, aligns):
                font = style.font(bold=i < head)
                at = {"left": left + 5, "right": left + width - 6, "centre": left + width / 2}[align]
                colour = (1, 1, 1) if ruled == "bands" and i < head else style.colour
                self.text(at, baseline, cell, font, style.size, colour, align)
                left += width
        if ruled == "grid":
            for i in range(len(rows) + 1):
                self.line(x, top + height * i, x + total, top + height * i, 0.6)
            left = x
            for width in [0] + list(widths):
                left += width
                self.line(left, top, left, bottom, 0.6)
        elif ruled == "rules":
            for y, weight in ((top, 1.1), (top + height * head, 0.5), (bottom, 1.1)):
                self.line(x, y, x + total, y, weight)
        else:
            self.line(x, bottom, x + total, bottom, 0.8, (0.16, 0.27, 0.42))
        self.region("table", x, top, x + total, bottom)
        return bottom
