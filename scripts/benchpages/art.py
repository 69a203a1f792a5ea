"""Pictures: plots of many segments, photographs, screens and scans, all made up."""

import contextlib
import io
import math

import numpy as np
from PIL import Image

from . import prose


def numpy_random(random):
    return np.random.Generator(np.random.PCG64(random.getrandbits(64)))


# ---- vectors ----

COLOURS = [(0.12, 0.47, 0.71), (1.0, 0.5, 0.05), (0.17, 0.63, 0.17), (0.84, 0.15, 0.16), (0.58, 0.4, 0.74)]


@contextlib.contextmanager
def figure(page):
    """What is drawn inside comes from another program, with its own fonts."""
    page.figure = f"f{len(page.book.pages)}"
    yield
    page.figure = ""


def axes(page, x, y, w, h, face="sans", size=6.5):
    page.op("q 0 G 0.6 w")
    page.rect(x, y, w, h, "S")
    page.text(x + w / 2, y - 20, prose.title(page.book.random, 4), face, size + 1, centre=True)
    page.text(x + w / 2, y + h + 4, prose.title(page.book.random, 5), "sansbold", size + 1, centre=True)
    for i in range(6):
        page.line([(x + w * i / 5, y), (x + w * i / 5, y - 3)])
        page.line([(x, y + h * i / 5), (x - 3, y + h * i / 5)])
        page.text(x + w * i / 5, y - 11, f"{i * 20}", face, size, centre=True)
        page.text(x - 17, y + h * i / 5 - 2, f"0.{i * 2}", face, size)
    page.op("Q")


def lines(page, x, y, w, h, series=3, points=400):
    """Noisy curves with a segment a point."""
    r = page.book.random
    axes(page, x, y, w, h)
    page.op("q", x, y, w, h, "re W n 1 j")
    for k in range(series):
        level, path = 0.2 + 0.6 * r.random(), []
        for i in range(points):
            level += (r.random() - 0.5) * 0.05 + (0.5 - level) * 0.01
            path.append((x + w * i / (points - 1), y + h * level))
        page.stroke(*COLOURS[k % len(COLOURS)])
        page.line(path, 0.8)
    page.op("Q")


def scatter(page, x, y, w, h, points=1000, size=1.6):
    """Circles of four curves each, filled and outlined."""
    r = page.book.random
    axes(page, x, y, w, h)
    page.op("q", x, y, w, h, "re W n 0.3 w 0.2 G")
    k = size * 0.5523
    for i in range(points):
        cx, cy = x + w * min(0.98, max(0.02, r.gauss(0.5, 0.2))), y + h * min(0.98, max(0.02, r.gauss(0.5, 0.18)))
        if i % 200 == 0:
            page.fill(*COLOURS[i // 200 % len(COLOURS)])
        page.op(cx + size, cy, "m", cx + size, cy + k, cx + k, cy + size, cx, cy + size, "c", cx - k, cy + size, cx - size, cy + k,
                cx - size, cy, "c", cx - size, cy - k, cx - k, cy - size, cx, cy - size, "c", cx + k, cy - size, cx + size, cy - k, cx + size, cy, "c b")
    page.op("Q")


def surface(page, x, y, w, h, cells=40):
    """A grid of small coloured quadrangles, as 3-D plots are."""
    axes(page, x, y, w, h)
    page.op("q 0.1 w 0.3 G")

    def at(i, j):
        z = math.sin(i / cells * 7) * math.cos(j / cells * 5)
        return x + w * (0.1 + 0.55 * i / cells + 0.3 * j / cells), y + h * (0.15 + 0.5 * j / cells + 0.2 * i / cells + 0.12 * z), z

    for j in reversed(range(cells)):
        for i in range(cells):
            a, b, c, d = at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)
            v = (a[2] + 1) / 2
            page.fill(v, 0.3 + 0.4 * (1 - abs(2 * v - 1)), 1 - v)
            page.op(*a[:2], "m", *b[:2], "l", *c[:2], "l", *d[:2], "l b")
    page.op("Q")


def boxes(page, x, y, w, h, columns=4, rows=3):
    """Boxes with words and arrows between them."""
    page.op("q 0 G 0.7 w")
    for j in range(rows):
        for i in range(columns):
            bx, by = x + w * (i + 0.1) / columns, y + h * (j + 0.2) / rows
            bw, bh = w * 0.75 / columns, h * 0.6 / rows
            page.fill(0.9, 0.94, 1)
            page.rect(bx, by, bw, bh, "B")
            page.fill(0)
            page.text(bx + bw / 2, by + bh / 2 - 2, prose.title(page.book.random, 2), ("sans", "sansbold")[j % 2], 7, centre=True)
            if i + 1 < columns:
                end = bx + bw + w * 0.25 / columns
                page.line([(bx + bw, by + bh / 2), (end, by + bh / 2)])
                page.line([(end - 4, by + bh / 2 + 2), (end, by + bh / 2), (end - 4, by + bh / 2 - 2)], end="f")
    page.op("Q")


# ---- dots ----


def scene(random, width, height):
    """A landscape of hills under a sky, with grain: what a photograph's numbers
    are like. uint8 [height, width, 3]"""
    r = numpy_random(random)
    noise = np.zeros((height, width))
    for octave in range(3, 9):
        n = 2 ** octave
        small = Image.fromarray(r.random((n * height // width + 2, n)).astype(np.float32))
        noise += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 2 ** (octave * 0.9)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    y = np.linspace(0, 1, height)[:, None]
    hills = (y > 0.45 + 0.25 * noise[height // 2][None, :] - 0.1).astype(float)
    out = np.empty((height, width, 3))
    for i, (sky, land) in enumerate(((0.55, 0.35), (0.7, 0.45), (0.95, 0.2))):
        out[..., i] = (1 - hills) * (sky + 0.3 * (1 - y) * noise) + hills * (land * (0.4 + 0.9 * noise))
    out += r.normal(0, 0.012, out.shape)
    return (out.clip(0, 1) * 255).astype(np.uint8)


def screen(random, width, height):
    """A program's window: bars, frames, rows of a list. uint8 [height, width, 3]"""
    out = np.full((height, width, 3), 240, np.uint8)
    out[: height // 14] = (60, 80, 120)
    out[height // 14 : height // 7] = (225, 228, 234)
    for row in range(height // 6, height - 16, 18):
        x = width // 5 + 12
        while x < width - 60:
            length = random.randint(10, 60)
            for letter in range(x, min(x + length, width - 20), 7):
                for bar in range(3):
                    px, py = letter + random.randint(0, 4), row + random.randint(0, 7)
                    out[py : py + random.randint(1, 6), px : px + random.randint(1, 3)] = 40
            x += length + 8
        if row // 18 % 5 == 0:
            out[row - 3 : row + 13, width // 5 : width - 10] = np.minimum(out[row - 3 : row + 13, width // 5 : width - 10], (200, 215, 245))
    out[height // 7 :, : width // 5] = np.linspace(250, 222, width // 5)[None, :, None]
    for row in range(height // 6, height - 40, 34):
        out[row : row + 20, 8:28] = [random.randint(60, 220) for _ in range(3)]
        out[row + 6 : row + 12, 36 : 36 + random.randint(20, max(21, width // 5 - 44))] = 90
    return out


def field(random, width, height, cells=90):
    """A matrix as a picture: squares of colour, enlarged by the program that drew
    it. uint8 [height, width, 3]"""
    r = numpy_random(random)
    values = np.cumsum(np.cumsum(r.normal(0, 1, (cells, cells)), 0), 1)
    values = (values - values.min()) / (values.max() - values.min())
    values = np.round(values * 60) / 60
    colours = np.stack([values, 0.2 + 0.7 * (1 - abs(2 * values - 1)), 1 - values], axis=-1)
    rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
    return (colours[rows][:, columns] * 255).astype(np.uint8)


def dct(book, pixels, quality=75, grey=False):
    image = Image.fromarray(pixels)
    if grey:
        image = image.convert("L")
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    space = "/DeviceGray" if grey else "/DeviceRGB"
    return book.file.stream(out.getvalue(), f"/Type /XObject /Subtype /Image /Width {image.width} /Height {image.height} "
                            f"/ColorSpace {space} /BitsPerComponent 8 /Filter /DCTDecode")


def predicted(pixels):
    """Rows with PNG's Up before them: the difference to the row above."""
    height = pixels.shape[0]
    rows = pixels.reshape(height, -1)
    up = rows.copy()
    up[1:] -= rows[:-1]
    return np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1).tobytes()


def flate(book, pixels, predictor=True, mask=None):
    height, width = pixels.shape[:2]
    data, parameters = pixels.tobytes(), ""
    if predictor:
        data, parameters = predicted(pixels), f"/DecodeParms << /Predictor 15 /Colors 3 /Columns {width} >>"
    soft = f"/SMask {mask} 0 R" if mask else ""
    return book.stream(data, f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB "
                       f"/BitsPerComponent 8 {parameters} {soft}")


def soft_mask(book, values):
    height, width = values.shape
    return book.stream(values.tobytes(), f"/Type /XObject /Subtype /Image /Width {width} /Height {height} "
                       "/ColorSpace /DeviceGray /BitsPerComponent 8")


def indexed(book, pixels, colours=32):
    image = Image.fromarray(pixels).quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette = bytes(image.getpalette()[: colours * 3]).ljust(colours * 3, b"\0").hex()
    return book.stream(image.tobytes(), f"/Type /XObject /Subtype /Image /Width {image.width} /Height {image.height} "
                       f"/ColorSpace [/Indexed /DeviceRGB {colours - 1} <{palette}>] /BitsPerComponent 8")


def fax(book, image):
    """A page of black and white as Group 4, from a picture of mode 1."""
    out = io.BytesIO()
    image.save(out, "TIFF", compression="group4", tiffinfo={278: image.height})
    tiff = Image.open(io.BytesIO(out.getvalue()))
    start, length = tiff.tag_v2[273][0], tiff.tag_v2[279][0]
    data = out.getvalue()[start : start + length]
    black = "true" if tiff.tag_v2[262] == 1 else "false"
    return book.file.stream(data, f"/Type /XObject /Subtype /Image /Width {image.width} /Height {image.height} /ColorSpace /DeviceGray "
                            f"/BitsPerComponent 1 /Filter /CCITTFaxDecode /DecodeParms << /K -1 /Columns {image.width} /Rows {image.height} /BlackIs1 {black} >>")
