"""Figures: each draws into a frame of a Document's page and notes one picture
region around all of its ink, axis labels and legend included."""

import math

from reportlab.pdfbase.pdfmetrics import stringWidth

INK = (0.15, 0.15, 0.18)
GREY = (0.62, 0.64, 0.68)
PALETTE = [(0.13, 0.36, 0.60), (0.84, 0.43, 0.16), (0.25, 0.55, 0.34), (0.55, 0.32, 0.58), (0.72, 0.62, 0.20)]
FONT = "Helvetica"


class Axes:
    """A plot's frame and its scales. x and y are (low, high, step)."""

    def __init__(self, doc, x0, top, width, height, x, y, xlabel, ylabel, size=7.5, categories=None, grid=True):
        self.doc, self.x, self.y, self.size = doc, x, y, size
        form = (lambda v: f"{v:g}")
        labels = [form(v) for v in steps(*y)]
        self.outer = (x0, top, x0 + width, top + height)
        self.left = x0 + 1.25 * size + max(stringWidth(s, FONT, size) for s in labels) + 6
        self.right = x0 + width - 4
        self.top, self.bottom = top + 0.4 * size, top + height - 2.6 * size - 2
        for value, label in zip(steps(*y), labels):
            at = self.py(value)
            if grid:
                doc.line(self.left, at, self.right, at, 0.35, (0.86, 0.87, 0.89))
            doc.line(self.left - 3, at, self.left, at, 0.5, INK)
            doc.text(self.left - 5, at + 0.35 * size, label, FONT, size, INK, "right")
        if categories:
            slot = (self.right - self.left) / len(categories)
            for i, name in enumerate(categories):
                doc.text(self.left + slot * (i + 0.5), self.bottom + 1.25 * size, name, FONT, size, INK, "centre")
        else:
            for value in steps(*x):
                at = self.px(value)
                doc.line(at, self.bottom, at, self.bottom + 3, 0.5, INK)
                doc.text(at, self.bottom + 3 + size, form(value), FONT, size, INK, "centre")
        doc.line(self.left, self.top, self.left, self.bottom, 0.8, INK)
        doc.line(self.left, self.bottom, self.right, self.bottom, 0.8, INK)
        doc.text((self.left + self.right) / 2, top + height - 0.25 * size, xlabel, FONT, size, INK, "centre")
        canvas = doc.canvas
        canvas.saveState()
        canvas.translate(x0 + 0.75 * size, doc.height - (self.top + self.bottom) / 2)
        canvas.rotate(90)
        canvas.setFont(FONT, size)
        doc.fill(INK)
        canvas.drawCentredString(0, 0, ylabel)
        canvas.restoreState()

    def px(self, value):
        return self.left + (value - self.x[0]) / (self.x[1] - self.x[0]) * (self.right - self.left)

    def py(self, value):
        return self.bottom - (value - self.y[0]) / (self.y[1] - self.y[0]) * (self.bottom - self.top)

    def legend(self, names, x, top, marks="line"):
        for i, name in enumerate(names):
            y = top + i * 1.45 * self.size
            if marks == "line":
                self.doc.line(x, y, x + 14, y, 1.4, PALETTE[i])
            else:
                self.doc.rect(x + 5, y - 3, x + 12, y + 3, fill=PALETTE[i])
            self.doc.text(x + 18, y + 0.35 * self.size, name, FONT, self.size, INK)


def steps(low, high, step):
    return [low + i * step for i in range(int(round((high - low) / step)) + 1)]


def lines(doc, x0, top, width, height, x, y, xlabel, ylabel, series, legend_at, size=7.5, marks=True):
    """A line chart; series is [(name, [(x, y), ...]), ...]."""
    axes = Axes(doc, x0, top, width, height, x, y, xlabel, ylabel, size)
    for i, (_, points) in enumerate(series):
        path = [(axes.px(a), axes.py(b)) for a, b in points]
        doc.curve(path, 1.3, PALETTE[i])
        for px, py in path if marks else ():
            doc.circle(px, py, 1.9, fill=(1, 1, 1), stroke=PALETTE[i], width=1)
    axes.legend([name for name, _ in series], axes.px(legend_at[0]), axes.py(legend_at[1]))
    doc.region("picture", *axes.outer)
    return top + height


def bars(doc, x0, top, width, height, y, xlabel, ylabel, categories, series, size=7.5, legend_at=None):
    """Grouped bars; series is [(name, [value per category]), ...]."""
    axes = Axes(doc, x0, top, width, height, None, y, xlabel, ylabel, size, categories)
    slot = (axes.right - axes.left) / len(categories)
    bar = slot * 0.72 / len(series)
    for i, (_, values) in enumerate(series):
        for j, value in enumerate(values):
            left = axes.left + slot * (j + 0.14) + bar * i
            doc.rect(left, axes.py(value), left + bar * 0.94, axes.bottom, fill=PALETTE[i])
    if legend_at:
        axes.legend([name for name, _ in series], axes.left + legend_at[0], axes.py(legend_at[1]), "box")
    doc.region("picture", *axes.outer)
    return top + height


def scatter(doc, x0, top, width, height, x, y, xlabel, ylabel, groups, legend_at, size=7.5):
    axes = Axes(doc, x0, top, width, height, x, y, xlabel, ylabel, size)
    for i, (_, points) in enumerate(groups):
        for a, b in points:
            doc.circle(axes.px(a), axes.py(b), 2, fill=PALETTE[i])
    axes.legend([name for name, _ in groups], axes.px(legend_at[0]), axes.py(legend_at[1]), "box")
    doc.region("picture", *axes.outer)
    return top + height


def heat(doc, x0, top, width, height, names, values, size=7.5):
    """A square of shaded cells with their values, rows and columns named."""
    left = x0 + max(stringWidth(n, FONT, size) for n in names) + 5
    cell, tall = (x0 + width - left) / len(names), (height - 1.6 * size) / len(names)
    for i, row in enumerate(values):
        doc.text(left - 4, top + tall * (i + 0.5) + 0.35 * size, names[i], FONT, size, INK, "right")
        for j, value in enumerate(row):
            shade = tuple(1 - value * (1 - c) for c in PALETTE[0])
            doc.rect(left + cell * j, top + tall * i, left + cell * (j + 1), top + tall * (i + 1),
                     fill=shade, stroke=(1, 1, 1), width=1)
            ink = (1, 1, 1) if value > 0.5 else INK
            doc.text(left + cell * (j + 0.5), top + tall * (i + 0.5) + 0.35 * size, f"{value:.2f}", FONT, size, ink, "centre")
    for j, name in enumerate(names):
        doc.text(left + cell * (j + 0.5), top + height - 0.3 * size, name, FONT, size, INK, "centre")
    doc.region("picture", x0, top, x0 + width, top + height)
    return top + height


def pie(doc, x0, top, height, shares, size=8):
    """A pie with its legend at the right of it; shares is [(name, fraction), ...]."""
    labels = [f"{name}, {share:.0%}" for name, share in shares]
    width = height + 36 + max(stringWidth(label, FONT, size) for label in labels)
    radius = height / 2
    cx, cy, angle = x0 + radius, top + radius, -math.pi / 2
    for i, (_, share) in enumerate(shares):
        turn = 2 * math.pi * share
        arc = [(cx + radius * math.cos(angle + turn * k / 40), cy + radius * math.sin(angle + turn * k / 40))
               for k in range(41)]
        doc.curve([(cx, cy)] + arc, 1, (1, 1, 1), close=True, fill=PALETTE[i])
        angle += turn
        y = top + height / 2 + (i - len(shares) / 2 + 0.5) * 2 * size
        doc.rect(x0 + height + 22, y - 4, x0 + height + 30, y + 4, fill=PALETTE[i])
        doc.text(x0 + height + 36, y + 0.35 * size, labels[i], FONT, size, INK)
    doc.region("picture", x0, top, x0 + width, top + height)
    return top + height


def flow(doc, x0, top, width, height, rows, arrows, size=8, fills=None):
    """Boxes in rows joined by arrows; rows hold names, arrows pairs of (row, column)."""
    places = {}
    tall = height / (len(rows) * 1.7 - 0.7)
    for i, names in enumerate(rows):
        wide = width / (max(len(r) for r in rows) * 1.3 - 0.3)
        start = x0 + (width - wide * (len(names) * 1.3 - 0.3)) / 2
        for j, name in enumerate(names):
            left, y = start + wide * 1.3 * j, top + tall * 1.7 * i
            colour = (fills or PALETTE)[i % len(fills or PALETTE)]
            pale = tuple(1 - 0.18 * (1 - c) for c in colour)
            doc.rect(left, y, left + wide, y + tall, fill=pale, stroke=colour, width=1, radius=4)
            for k, part in enumerate(name.split("\n")):
                lift = (k - (name.count("\n")) / 2) * 1.2 * size
                doc.text(left + wide / 2, y + tall / 2 + 0.35 * size + lift, part, FONT, size, INK, "centre")
            places[i, j] = (left, y, wide)
    for a, b in arrows:
        (ax, ay, aw), (bx, by, bw) = places[a], places[b]
        if a[0] == b[0]:
            near, far = (ax + aw, bx) if bx > ax else (ax, bx + bw)
            start, end = (near, ay + tall / 2), (far, by + tall / 2)
        else:
            start, end = (ax + aw / 2, ay + tall), (bx + bw / 2, by)
        arrow(doc, *start, *end)
    doc.region("picture", x0, top, x0 + width, top + height)
    return top + height


def arrow(doc, x0, y0, x1, y1, width=0.9, colour=INK):
    angle = math.atan2(y1 - y0, x1 - x0)
    doc.line(x0, y0, x1 - 4 * math.cos(angle), y1 - 4 * math.sin(angle), width, colour)
    head = [(x1, y1)] + [
        (x1 - 6 * math.cos(angle + turn), y1 - 6 * math.sin(angle + turn)) for turn in (0.42, -0.42)]
    doc.curve(head, 0, colour, close=True, fill=colour)


def sketch(doc, x0, top, width, height, pages, order=None):
    """Small drawings of page layouts side by side, with the reading order."""
    gap = 14
    wide = (width - gap * (len(pages) - 1)) / len(pages)
    for i, blocks in enumerate(pages):
        left = x0 + (wide + gap) * i
        doc.rect(left, top, left + wide, top + height, fill=(1, 1, 1), stroke=GREY, width=0.8)
        centres = []
        for kind, bx, by, bw, bh in blocks:
            a, b = left + wide * bx, top + height * by
            c, d = left + wide * (bx + bw), top + height * (by + bh)
            pale = tuple(1 - 0.35 * (1 - v) for v in PALETTE[kind])
            doc.rect(a, b, c, d, fill=pale, stroke=PALETTE[kind], width=0.7)
            centres.append(((a + c) / 2, (b + d) / 2))
        for k in range(len(centres) - 1) if order else ():
            arrow(doc, *centres[k], *centres[k + 1], width=0.7)
        for k, (cx, cy) in enumerate(centres):
            doc.circle(cx, cy, 5, fill=(1, 1, 1), stroke=INK, width=0.6)
            doc.text(cx, cy + 2.3, str(k + 1), "Helvetica-Bold", 6.5, INK, "centre")
    doc.region("picture", x0, top, x0 + width, top + height)
    return top + height
