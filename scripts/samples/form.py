"""A form to be filled in: fields with appearances of their own in a ruled table,
check boxes, a signature line."""

from reportlab.lib.colors import Color, black

from .typeset import Document, Style

WIDTH, HEIGHT = 595, 842
LEFT, COLUMN = 64, 467
BODY = Style("serif", 11, 14.4)
SECTION = Style("sans", 12.5, 16, "left", 1)

INTRODUCTION = [
    "Readers who wish to see an original in place of its scan may ask for it with this form. Originals are shown in the "
    "reading room from Tuesday to Friday. Maps, glass plates and everything bound before 1700 are shown by appointment "
    "only, and a member of the department stays in the room.",
    "Please fill in every field of the first table. The number of the box is found in the lower right corner of the scan; "
    "where there is none, describe what you are looking for in the second table as well as you can, and somebody will "
    "look for it.",
]
DECLARATION = (
    "I have read the rules of the reading room. I shall use a pencil, turn one leaf at a time and leave the order of the "
    "leaves as I found it. I know that a page which I find loose is to be shown to the person at the desk and not to be put "
    "back by myself.")
NOTICE = (
    "What you write here is kept for one year, so that we know which boxes were opened and in which order, and is then "
    "destroyed together with the list of those who were late. Nobody outside the department is told what you read, and nobody "
    "in it will ask you why.")


def make(path):
    doc = Document(path, WIDTH, HEIGHT, "Request for an Original")
    x0, x1 = doc.text(LEFT, 46, "Town Archive, Department of Paper", "Helvetica", 9)
    doc.region("page_header", x0, 39.7, x1, 48)
    x0, x1 = doc.text(LEFT + COLUMN, 46, "Form 12 b", "Helvetica", 9, anchor="right")
    doc.region("page_header", x0, 39.7, x1, 46.2)
    y = doc.paragraph(LEFT, 76, COLUMN, "Request for an Original", Style("sans", 22, 26, "left", 1), "section_header")
    y += 22
    for text in INTRODUCTION:
        y = doc.paragraph(LEFT, y, COLUMN, text, BODY) + 20
    y = doc.paragraph(LEFT, y + 4, COLUMN, "1~~Who asks and for what", SECTION, "section_header")
    y = _fields(doc, y + 12, [("Name", "Iris Papyrus", "Reader's card", "4 117"), ("Street", "Mill Lane 3", "Town", "Upper Deckle"),
                              ("Box", "L-0382", "Leaf", "12 to 19"), ("Date of visit", "14 March", "Hour", "10.30")])
    y = doc.paragraph(LEFT, y + 26, COLUMN, "2~~What you are looking for", SECTION, "section_header")
    y = _choices(doc, y + 12)
    y = doc.paragraph(LEFT, y + 26, COLUMN, "3~~Declaration", SECTION, "section_header")
    y = doc.paragraph(LEFT, y + 12, COLUMN, DECLARATION, BODY)
    y = doc.paragraph(LEFT, y + 20, COLUMN, NOTICE, BODY.but(weight=2))
    doc.line(LEFT, y + 58, LEFT + 180, y + 58, 0.6)
    doc.line(LEFT + 250, y + 58, LEFT + COLUMN, y + 58, 0.6)
    for x, text in ((LEFT, "Place and date"), (LEFT + 250, "Signature of the reader")):
        x0, x1 = doc.text(x, y + 69, text, "Helvetica", 8.5)
        doc.region("text", x0, y + 62.9, x1, y + 70.9)
    x0, x1 = doc.text(WIDTH / 2, 806, "Page 1 of 1", "Helvetica", 9, anchor="centre")
    doc.region("page_footer", x0, 799.6, x1, 808)
    doc.save()
    return doc


def _field(doc, name, x, top, width, height, value):
    doc.canvas.acroForm.textfield(
        name=name, tooltip=name, value=value, x=x, y=doc.height - top - height, width=width, height=height,
        fontName="Helvetica", fontSize=10, borderWidth=0.5, borderColor=Color(0.55, 0.6, 0.7), textColor=black,
        fillColor=Color(0.95, 0.97, 1), borderStyle="solid", forceBorder=True)


def _fields(doc, top, rows):
    """A ruled table whose second and fourth columns are text fields."""
    height, widths = 27, (82, 158, 82, 145)
    for i, (name, value, other, second) in enumerate(rows):
        y = top + height * i
        doc.text(LEFT + 6, y + 17, name, "Helvetica", 10)
        doc.text(LEFT + widths[0] + widths[1] + 6, y + 17, other, "Helvetica", 10)
        _field(doc, name, LEFT + widths[0] + 4, y + 4, widths[1] - 8, height - 8, value)
        _field(doc, other, LEFT + sum(widths[:3]) + 4, y + 4, widths[3] - 8, height - 8, second)
    return _grid(doc, top, height, len(rows), widths)


def _choices(doc, top):
    """A ruled table of check boxes."""
    rows = [("Loose leaves", True, "Photographs", False), ("Bound volume", False, "Maps and drawings", True),
            ("Newspapers", False, "Something else", False)]
    height, widths = 25, (34, 206, 34, 193)
    for i, (left, ticked, right, other) in enumerate(rows):
        y = top + height * i
        for x, name, value in ((LEFT, left, ticked), (LEFT + widths[0] + widths[1], right, other)):
            doc.canvas.acroForm.checkbox(
                name=name, tooltip=name, checked=value, x=x + 11, y=doc.height - y - 18.5, size=12, buttonStyle="check",
                borderWidth=0.6, borderColor=black, fillColor=Color(1, 1, 1), textColor=black, forceBorder=True)
            doc.text(x + widths[0] + 6, y + 16, name, "Helvetica", 10)
    return _grid(doc, top, height, len(rows), widths)


def _grid(doc, top, height, count, widths):
    bottom, x = top + height * count, LEFT
    for i in range(count + 1):
        doc.line(LEFT, top + height * i, LEFT + COLUMN, top + height * i, 0.7)
    for width in (0, *widths):
        x += width
        doc.line(x, top, x, bottom, 0.7)
    doc.region("table", LEFT, top, LEFT + COLUMN, bottom)
    return bottom
