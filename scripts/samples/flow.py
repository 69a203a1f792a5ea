"""Flows blocks through the columns of a document, page after page."""

from .typeset import DESCENT, break_lines


class Flow:
    """Fills frames from top to bottom.

    frames(page number) gives the page's columns, each (x, top, width, bottom);
    furniture(page number) draws headers and footers. A float that does not fit
    goes to the top of the next column while the text runs on.
    """

    def __init__(self, doc, frames, furniture):
        self.doc, self.frames, self.furniture = doc, frames, furniture
        self.waiting = []
        self._page()

    def _page(self):
        self.furniture(self.doc.number)
        self.columns = list(self.frames(self.doc.number))
        self._column()

    def _column(self):
        self.x, self.y, self.width, self.bottom = self.columns.pop(0)
        self.at_top = True
        while self.waiting and self._fits(self.waiting[0][0]):
            self._draw(*self.waiting.pop(0))

    def next(self):
        """Goes on in the next column."""
        if self.columns:
            self._column()
            return
        self.doc.next_page()
        self._page()

    def _fits(self, height):
        return self.y + height <= self.bottom

    def _draw(self, height, draw, after):
        bottom = draw(self.x, self.y, self.width)
        if bottom - self.y > height + 0.5:
            raise ValueError(f"a float of {bottom - self.y:.1f} points said it had {height}")
        self.y = bottom + after
        self.at_top = False

    def skip(self, points):
        if not self.at_top:
            self.y += points

    def float(self, height, draw, after=14, before=5):
        """draw(x, top, width) returns the bottom; it takes at most height."""
        self.skip(before)
        if self._fits(height) and not self.waiting:
            self._draw(height, draw, after)
        else:
            self.waiting.append((height, draw, after))

    @staticmethod
    def _foot(lines, style, ink):
        """Where a block ends for the spacing: as if its last line had a descender."""
        return ink if lines[-1].low() else ink + DESCENT * style.size

    def flush(self):
        """Puts down the floats that still wait."""
        while self.waiting:
            self.next()

    def heading(self, text, style, before=10, after=5, room=40):
        """A heading that keeps room below it for the text that follows."""
        lines = break_lines(text, style, self.width)
        self.skip(before)
        if not self._fits(style.leading * len(lines) + after + room):
            self.next()
        self.y = self._foot(lines, style, self.doc.lines(lines, self.x, self.y, style, "section_header")) + after
        self.at_top = False

    def list(self, items, style, gap=3, after=10, label="text"):
        """Items below each other, never parted; those of one column are one region."""
        boxes = []
        for text in items:
            lines = break_lines(text, style, self.width)
            if not self._fits(style.leading * (len(lines) - 1) + style.size):
                self._close(boxes, label)
                self.next()
            x0 = self.x + min(line.x for line in lines)
            x1 = self.x + max(line.x + line.width for line in lines)
            bottom = self.doc.lines(lines, self.x, self.y, style, None)
            boxes.append((x0, self.y, x1, bottom))
            self.y, self.at_top = bottom + gap, False
        self._close(boxes, label)
        self.y += after - gap

    def _close(self, boxes, label):
        if boxes:
            left, top, right, bottom = zip(*boxes)
            self.doc.region(label, min(left), min(top), max(right), max(bottom))
            boxes.clear()

    def paragraph(self, text, style, after=13, label="text", x=0.0):
        """A paragraph, parted between columns at least two lines from its ends."""
        lines = break_lines(text, style, self.width - x)
        while lines:
            room = int((self.bottom - self.y - style.size) // style.leading) + 1 if self._fits(style.size) else 0
            count = len(lines)
            if room < count:
                count = min(room, count - 2)
                if count < 2:
                    self.next()
                    continue
            ink = self.doc.lines(lines[:count], self.x + x, self.y, style, label)
            self.y = self._foot(lines[:count], style, ink) + after
            self.at_top = False
            lines = lines[count:]
            if lines:
                self.next()

    def formula(self, source, size, number, after=8, height=34):
        self.skip(2)
        if not self._fits(height):
            self.next()
        self.y = self.doc.formula(self.x, self.y, self.width, source, size, number) + after
        self.at_top = False


def caption_height(text, style, width):
    lines = break_lines(text, style, width)
    return style.leading * (len(lines) - 1) + style.size


def captioned(doc, text, style, draw, height, gap=7, above=False):
    """A float of a figure, or a table, and its caption: (height, draw)."""
    def both(x, top, width):
        if above:
            y = doc.paragraph(x, top, width, text, style, "caption") + gap
            return draw(x, y, width)
        y = draw(x, top, width) + gap
        return doc.paragraph(x, y, width, text, style, "caption")

    return both, lambda width: height + gap + caption_height(text, style, width) + 1
