"""A page that is nothing but a picture of itself: set like the others, drawn as
dots, laid a little askew, made grey and noisy, and kept as a JPEG."""

import io
import math
import os
import random
import tempfile

import pypdfium2
from PIL import Image, ImageChops, ImageFilter
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from . import charts
from .typeset import Document, Style

WIDTH, HEIGHT = 595, 842
LEFT, COLUMN = 82, 431
DPI, ASKEW, QUALITY = 150, 0.45, 42  # ASKEW in degrees, anticlockwise
BODY = Style(size=12, leading=15.6)

OPENING = [
    "Dear Mr Vellum,",
    "Thank you for your letter of the third of May, and for the two boxes that came with it. We have looked through both. "
    "The first holds the accounts of the paper mill from 1871 to 1889, almost without a gap; the second holds letters "
    "to the owner of the mill, which nobody seems to have answered. All of it is dry, and most of it is legible.",
    "You ask whether the ledgers can be scanned without taking them apart. They can, but not on the machines that we "
    "have. Their backs are stiff, and a page that lies flat on one side stands up on the other. We should like to wait "
    "for the cradle, which the committee has promised us for the autumn, and begin with the letters in the meantime.",
]
MIDDLE = [
    "To give you an idea of what to expect we took forty leaves from the second box and measured how much of each was "
    "covered with writing. As you see below, the owner's friends wrote small and close at first and became brief with "
    "the years. The last letters are hardly more than a line and a name.",
]
ENDING = [
    "We shall send you the scans on a disk, together with a list of the leaves. The boxes stay on our shelf until you call "
    "for them. They stand between the estate of a clockmaker and the minutes of the choir, in good company and out of the "
    "sun.",
]


def make(path):
    with tempfile.TemporaryDirectory() as scratch:
        clean = os.path.join(scratch, "clean.pdf")
        doc = _letter(clean)
        picture = io.BytesIO()
        _scan(clean).save(picture, "JPEG", quality=QUALITY, optimize=True)
        canvas = Canvas(path, pagesize=(WIDTH, HEIGHT), invariant=1)
        canvas.setTitle("A letter, scanned")
        canvas.setAuthor("quire")
        canvas.setCreator("quire samples")
        canvas.drawImage(ImageReader(picture), 0, 0, WIDTH, HEIGHT)
        canvas.save()
    for region in doc.pages[0]["regions"]:
        region["bbox"] = _turned(region["bbox"])
    return doc


def _letter(path):
    doc = Document(path, WIDTH, HEIGHT, "A letter")
    doc.paragraph(LEFT, 70, COLUMN, "TOWN ARCHIVE", Style(size=20, leading=24, align="left", weight=1), "section_header")
    doc.paragraph(LEFT, 96, COLUMN, "Department of Paper, Mill Lane 1, Upper Deckle. Open Tuesday to Friday, nine to five,\n"
                  "and on the first Saturday of the month. Closed in August.", Style(size=9.5, leading=12.5, align="left"))
    doc.line(LEFT, 128, LEFT + COLUMN, 128, 0.8)
    y = 150
    for i, text in enumerate(OPENING + MIDDLE):
        y = doc.paragraph(LEFT, y, COLUMN, text, BODY) + (18 if i else 14)
    y = charts.lines(doc, LEFT + 40, y + 2, COLUMN - 80, 168, (1870, 1890, 5), (0, 60, 20), "year", "covered with writing (%)",
                     [("mean of two leaves", [(1871 + i, v) for i, v in enumerate(
                         (47, 51, 44, 46, 41, 43, 36, 38, 31, 33, 27, 25, 28, 21, 17, 18, 12, 9, 7))])], (1880, 54), 8.5)
    y = doc.paragraph(LEFT + 40, y + 10, COLUMN - 80, "Figure 1. Forty letters to the owner of the mill.",
                      Style(size=10, leading=12, align="centre"), "caption") + 22
    for text in ENDING:
        y = doc.paragraph(LEFT, y, COLUMN, text, BODY) + 18
    doc.text(LEFT + 250, y + 12, "Yours sincerely,", "Times-Roman", 12)
    doc.text(LEFT + 250, y + 48, "Ruth Colophon", "Times-Italic", 17)
    doc.region("text", LEFT + 250, y + 4, LEFT + 358, y + 52)
    doc.save()
    return doc


def _scan(path):
    """The page as a grey picture, askew and with the noise of a cheap sensor."""
    page = pypdfium2.PdfDocument(path)[0]
    picture = page.render(scale=DPI / 72, grayscale=True).to_pil().convert("L")
    picture = picture.rotate(ASKEW, Image.Resampling.BICUBIC, fillcolor=255)
    picture = picture.filter(ImageFilter.GaussianBlur(0.55))
    # Ink is not quite black and paper not quite white.
    picture = picture.point([46 + round(v * (238 - 46) / 255) for v in range(256)])
    noise = Image.frombytes("L", picture.size, random.Random(12).randbytes(picture.width * picture.height))
    noise = noise.filter(ImageFilter.GaussianBlur(0.9)).point([(v - 128) // 6 + 128 for v in range(256)])
    return ImageChops.add(picture, noise, 1, -128)


def _turned(bbox):
    """The box around a box that was turned with the page."""
    angle = math.radians(ASKEW)
    xs, ys = [], []
    for x in (bbox[0], bbox[2]):
        for y in (bbox[1], bbox[3]):
            dx, dy = x - WIDTH / 2, y - HEIGHT / 2
            xs.append(WIDTH / 2 + dx * math.cos(angle) + dy * math.sin(angle))
            ys.append(HEIGHT / 2 - dx * math.sin(angle) + dy * math.cos(angle))
    return [round(v, 2) for v in (min(xs), min(ys), max(xs), max(ys))]
