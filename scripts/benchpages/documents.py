"""The documents, one function each. What they are made of follows real ones;
bench/pages/README.md says which."""

import os
import tempfile

import numpy as np
import pypdfium2
from PIL import Image, ImageFilter

from . import art, prose
from .sheet import Book

LEFT, COLUMN, GUTTER, TOP, FOOT = 54, 243, 18, 720, 66
ENTRY = "L. Plate, N. Roller and B. Platen. {}. In Proceedings of the Bindery, volume {}, pages {}-{}, {}."


def formula(page, x, y, number):
    """A displayed formula: letters of three faces, raised and lowered, and rules."""
    r = page.book.random
    at = x
    for term in range(r.randint(3, 5)):
        if term:
            at += page.text(at + 3, y, r.choice("+=≤−"), "roman", 10) + 6
        kind = r.randrange(3)
        if kind == 0:
            at += page.text(at, y - 2, r.choice("∑∏"), "large", 10)
            page.text(at - 11, y - 11, "i=1", "italic", 6)
        if kind == 1:
            page.text(at + 2, y + 6, r.choice("abcxyz") + "+" + r.choice("ijk"), "italic", 10)
            page.text(at + 2, y - 8, "1−" + r.choice("λμσ"), "italic", 10)
            page.line([(at, y + 2.6), (at + 26, y + 2.6)], 0.4)
            at += 28
            continue
        at += page.text(at, y, r.choice("fgwhxyz"), "italic", 10)
        at += page.text(at, y - 2.5, r.choice("ijkn"), "italic", 7)
        at += page.text(at, y, "(", "roman", 10)
        at += page.text(at, y, r.choice("xytABC"), "bolditalic", 10)
        at += page.text(at, y, ")", "roman", 10)
    page.text(x + COLUMN - 40, y, f"({number})", "roman", 10)


def column(page, x, top, foot, width=COLUMN, size=10, leading=12, formulas=True, headings=True):
    """Paragraphs, headings and formulas until the column is full."""
    r, y, face = page.book.random, top, "roman"
    while y > foot + 5 * leading:
        kind = r.random()
        if headings and kind < 0.14:
            y -= 8
            page.text(x, y, f"{r.randint(2, 7)}.{r.randint(1, 5)}  {prose.title(r)}", "bold", size + 1)
            y -= leading + 4
        elif formulas and kind < 0.36:
            y -= 10
            formula(page, x + 20, y, r.randint(1, 40))
            y -= 26
        else:
            room = (y - foot) / leading * width / (size * 0.46)
            y = page.paragraph(x, y, width, prose.paragraph(r, min(r.randint(150, 700), room * 0.75)), face, size, leading, indent=10) - 2
    return y


def caption(page, x, y, width, number):
    text = f"Figure {number}. " + prose.paragraph(page.book.random, 110)
    return page.paragraph(x, y, width, text, "roman", 9, 10.5)


def paper(path):
    """Two columns in Type 1 fonts with formulas, references, and plots in lines."""
    book = Book(1, by_size=True)
    right = LEFT + COLUMN + GUTTER
    figures = {
        2: lambda p, x: art.lines(p, x + 25, 560, COLUMN - 35, 140, 3, 300),
        4: lambda p, x: art.scatter(p, x + 25, 560, COLUMN - 35, 140, 500),
        5: lambda p, x: art.boxes(p, x, 540, COLUMN, 170),
        7: lambda p, x: (art.lines(p, x + 25, 615, COLUMN - 35, 85, 3, 350), art.lines(p, x + 25, 510, COLUMN - 35, 75, 3, 350)),
        8: lambda p, x: art.surface(p, x + 25, 540, COLUMN - 35, 160, 22),
        9: lambda p, x: p.place(art.flate(book, art.field(book.random, 1000, 700)), x, 530, COLUMN, 170),
    }
    for number in range(1, 12):
        page = book.page()
        page.text(LEFT, 748, prose.title(book.random), "italic", 8)
        page.text(306, 40, str(100 + number), "roman", 9, centre=True)
        top = TOP
        if number == 1:
            page.text(306, 700, prose.title(book.random), "bold", 18, centre=True)
            page.text(306, 670, "A. Quill    M. Vellum    R. Colophon", "roman", 11, centre=True)
            top = 630
        if number < 10:
            column(page, LEFT, top, FOOT)
            if number in figures:
                with art.figure(page):
                    figures[number](page, right)
                top = caption(page, right, 478, COLUMN, number) - 12
            column(page, right, top, FOOT)
        else:
            for x in (LEFT, right):
                y = TOP
                while y > FOOT + 40:
                    entry = f"[{book.random.randint(1, 90)}] " + ENTRY.format(prose.title(book.random, 8), 9, 10, 24, 2004)
                    y = page.paragraph(x, y, COLUMN, entry, "roman", 8, 9.5) - 3
    book.save(path)


def letters(path):
    """A short paper from another publisher: smaller type in CFF fonts, one
    picture with shades, a table."""
    book = Book(8, "cff", by_size=True)
    for number in range(1, 7):
        page = book.page(595, 792)
        page.text(297, 760, prose.title(book.random), "sans", 7, centre=True)
        top = 735
        if number == 1:
            page.text(48, 690, prose.title(book.random), "sansbold", 17)
            page.text(48, 668, "H. Margin, T. Gutter, O. Folio and P. Ligature", "sans", 10)
            top = page.paragraph(48, 640, 499, prose.paragraph(book.random, 700), "bold", 9, 11) - 12
        y = top
        if number in (2, 4):
            with art.figure(page):
                if number == 2:
                    art.surface(page, 70, 590, 215, 130, 18)
                else:
                    art.scatter(page, 70, 590, 215, 130, 350)
            y = caption(page, 48, 556, 240, number) - 10
        column(page, 48, y, 60, 240, 9, 10.5)
        column(page, 307, top, 60 if number < 6 else 420, 240, 9, 10.5)
        if number == 6:
            table(page, 307, 400, 240, 4, 16)
    book.save(path)


def table(page, x, y, width, columns, rows):
    r, w = page.book.random, width / columns
    for i in range(rows):
        page.op("0.93 g" if i % 2 else "0.8 g" if i == 0 else "1 g")
        page.rect(x, y - 13 * i - 12, width, 13)
        page.fill(0)
        for j in range(columns):
            page.text(x + 4 + w * j, y - 13 * i - 9, f"{r.random() * 100:.2f}" if i and j else prose.title(r, 1)[:10], "sans" if i else "sansbold", 8)
            page.line([(x + w * j, y - 13 * i + 1), (x + w * j, y - 13 * i - 12)], 0.3)


def thesis(path):
    """One column in Type 1 fonts: text, lists of programs, formulas, pages half empty."""
    book = Book(2, by_size=True)
    for number in range(1, 9):
        page = book.page(595, 842)
        page.text(297, 48, str(number), "roman", 10, centre=True)
        if number == 1:
            page.text(297, 560, prose.title(book.random), "bold", 22, centre=True)
            page.text(297, 500, "A thesis in nine gatherings", "italic", 13, centre=True)
            page.text(297, 300, "Institute of Margins", "roman", 13, centre=True)
        elif number == 2:
            for i in range(30):
                y = 720 - 20 * i
                page.text(90, y, f"{i // 5 + 1}.{i % 5 + 1}   {prose.title(book.random, 5)}", "roman", 11)
                page.text(480, y, str(3 * i + 5), "roman", 11)
                page.text(330, y, ". " * 24, "roman", 11)
        elif number % 4 == 0:
            y = column(page, 90, 760, 480, 415, 11, 14)
            for i in range(24):
                page.text(90 + 18 * (i % 5 > 1), y - 10 - 12 * i, f"for i in range({i}): total += weights[i] * sheet.area(i)"[: 30 + i % 9 * 3], "mono", 8.5)
        else:
            column(page, 90, 760, 420 if number in (3, 7) else 80, 415, 11, 14)
        if number == 7:
            with art.figure(page):
                art.lines(page, 130, 130, 340, 220, 3, 400)
            caption(page, 90, 100, 415, number)
    book.save(path)


def slides(path):
    """Shadings, shadows that let through, pictures with soft edges; TrueType."""
    book = Book(3, "truetype")
    function = "<< /FunctionType 2 /Domain [0 1] /C0 [0.93 0.95 1] /C1 [0.55 0.65 0.9] /N 1 >>"
    ground = book.file.put(f"<< /ShadingType 2 /ColorSpace /DeviceRGB /Coords [0 0 720 405] /Function {function} /Extend [true true] >>")
    ball = "<< /FunctionType 2 /Domain [0 1] /C0 [1 0.9 0.6] /C1 [0.8 0.3 0.1] /N 1.4 >>"
    radial = book.file.put(f"<< /ShadingType 3 /ColorSpace /DeviceRGB /Coords [0.4 0.6 0 0.5 0.5 0.5] /Function {ball} /Extend [true true] >>")
    shadow = book.file.put("<< /Type /ExtGState /ca 0.25 /CA 0.25 >>")
    whole = book.file.put("<< /Type /ExtGState /ca 1 /CA 1 >>")
    side = np.linspace(-1, 1, 420)
    vignette = ((1.3 - np.hypot(*np.meshgrid(side, side[::1])) ).clip(0, 1) * 255).astype(np.uint8)
    for number in range(1, 8):
        page = book.page(720, 405)
        if number in (1, 4):
            page.op("/" + book.add("Shading", ground), "sh")
        else:
            page.fill(0.16, 0.2, 0.32)
            page.rect(0, 365, 720, 40)
        page.fill(0.1, 0.1, 0.15) if number in (1, 4) else page.fill(1)
        page.text(40, 376, prose.title(book.random, 4), "sansbold", 20)
        page.fill(0.1)
        for i in range(4 if number in (4, 6) else 6):
            page.text(46, 320 - 42 * i, "•", "sans", 15)
            words = prose.title(book.random, 7 if number not in (4, 6) else 4)
            page.text(64, 320 - 42 * i, words, "sans", 14)
        if number == 4:
            for i in range(2):
                x, y, size = 390 + 70 * i, 90 + 60 * (i % 2), 130
                page.op("/" + book.add("ExtGState", shadow), "gs")
                page.fill(0)
                page.rect(x + 6, y - 6, size, size)
                page.op("/" + book.add("ExtGState", whole), "gs")
                page.op("q", x, y, size, size, "re W n", size, "0 0", size, x, y, "cm", "/" + book.add("Shading", radial), "sh Q")
        if number == 4:
            picture = art.dct(book, art.scene(book.random, 480, 320), 70)
            page.place(picture, 420, 220, 250, 140)
        if number == 6:
            mask = art.soft_mask(book, vignette)
            page.place(art.flate(book, art.screen(book.random, 420, 420), mask=mask), 440, 60, 240, 240)
        if number == 7:
            with art.figure(page):
                art.lines(page, 400, 80, 280, 200, 3, 250)
        page.op("/" + book.add("ExtGState", shadow), "gs")
        page.fill(0, 0, 0.3)
        page.rect(0, 0, 720, 20)
        page.op("/" + book.add("ExtGState", whole), "gs")
    book.save(path)


def manual(path):
    """Text in TrueType beside many small pictures, tables, screens as Flate."""
    book = Book(4, "truetype")
    icons = [art.indexed(book, art.scene(book.random, 48, 48), 16) for _ in range(10)]
    screens = [art.flate(book, art.screen(book.random, 900, 640)), art.indexed(book, art.screen(book.random, 1200, 860))]
    for number in range(1, 9):
        page = book.page(595, 842)
        page.fill(0)
        page.text(60, 790, prose.title(book.random, 4), "sansbold", 15)
        page.line([(60, 782), (535, 782)], 1)
        y = 755
        if number in (3, 6):
            page.place(screens[number // 6], 80, 470, 435, 300)
            y = 450
        for i in range(7 if y > 700 else 4):
            page.place(icons[(i * 3 + number) % len(icons)], 60, y - 34, 30, 30)
            y = page.paragraph(104, y - 8, 430, prose.paragraph(book.random, 190), "sans", 9, 12) - 10
        if number % 2:
            table(page, 60, y, 475, 6, int((y - 80) / 13))
        else:
            column(page, 60, y, 70, 475, 9, 12, formulas=False, headings=False)
        page.text(297, 40, f"{number}", "sans", 8, centre=True)
    book.save(path)


def report(path):
    """Photographs of 150 to 300 dots to the inch, and charts with fills."""
    book = Book(5, "cff")
    for number in range(1, 6):
        page = book.page()
        page.text(60, 740, prose.title(book.random, 5), "bold", 16)
        if number == 1:
            page.place(art.dct(book, art.scene(book.random, 1100, 620), 62), 60, 440, 492, 277)
            column(page, 60, 420, 70, 492, 10.5, 14, formulas=False)
        elif number == 3:
            page.place(art.dct(book, art.scene(book.random, 800, 600), 72), 60, 520, 240, 180)
            page.place(art.dct(book, art.scene(book.random, 800, 600), 72), 312, 520, 240, 180)
            column(page, 60, 500, 70, 492, 10.5, 14, formulas=False)
        elif number == 5:
            with art.figure(page):
                art.surface(page, 90, 90, 440, 175, 30)
            for i in range(2):
                page.place(art.flate(book, (art.field, art.screen)[i](book.random, 1500, 1000)), 110, 300 + 215 * i, 300, 200)
        else:
            with art.figure(page):
                art.scatter(page, 90, 530, 440, 180, 600)
            column(page, 60, 490, 70, 492, 10.5, 14, formulas=False)
    book.save(path)


def scans(path):
    """Old papers as they were scanned: Group 4 at 300 dots to the inch, and one
    page in grey; beneath each the text that a program has read, invisible."""
    with tempfile.TemporaryDirectory() as scratch:
        clean = os.path.join(scratch, "clean.pdf")
        old = Book(6)
        for _ in range(4):
            page = old.page()
            column(page, 84, 700, 80, 444, 11, 14)
        old.save(clean)
        pages = [page.render(scale=300 / 72, grayscale=True).to_pil().convert("L") for page in pypdfium2.PdfDocument(clean)]
    book = Book(7)
    for number, picture in enumerate(pages):
        r = art.numpy_random(book.random)
        picture = picture.rotate(0.3 - 0.2 * number, Image.Resampling.BICUBIC, fillcolor=255).filter(ImageFilter.GaussianBlur(1.1))
        dots = np.asarray(picture) + r.normal(0, 30, (picture.height, picture.width))
        page = book.page()
        if number < 3:
            image = art.fax(book, Image.fromarray(((dots > 140) * 255).astype(np.uint8)).convert("1", dither=Image.Dither.NONE))
        else:
            grey = Image.fromarray(dots.clip(0, 255).astype(np.uint8)).resize((1275, 1650), Image.Resampling.BOX)
            image = art.dct(book, np.asarray(grey.convert("RGB")), 45, grey=True)
        page.place(image, 0, 0, 612, 792)
        page.op("3 Tr")
        column(page, 84, 700, 80, 444, 11, 14)
    book.save(path)


MAKERS = {"paper": paper, "letters": letters, "thesis": thesis, "slides": slides, "manual": manual, "report": report, "scans": scans}
