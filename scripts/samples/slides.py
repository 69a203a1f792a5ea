"""Slides: landscape pages with large type, bullet points, a chart and a table."""

from . import charts
from .typeset import Document, Style

WIDTH, HEIGHT = 960, 540
INK, TEAL, PALE = (0.13, 0.17, 0.22), (0.05, 0.42, 0.45), (0.93, 0.96, 0.96)
TITLE = Style("sans", 34, 40, "left", 1, INK)
BULLET = Style("sans", 19, 26, "left", 0, INK)
CAPTION = Style("sans", 13, 16, "left", 2, (0.3, 0.33, 0.38))

POINTS = [
    "A page that is cut off costs *four seconds* on the glass, two minutes at the desk and a letter later on.",
    "The program looks at blocks and edges only; it has never read a word and does not need to.",
    "Pages with faults fell from one in thirty-seven to one in sixty-six between April and December.",
]
CLOSING = (
    "Blue light brings back the ruled lines of the tax rolls, and with the lines come the columns. The lamp is on loan "
    "from the dentist in the market square. A second one would let both machines work on the rolls at once.")


def make(path):
    doc = Document(path, WIDTH, HEIGHT, "Looking at Pages")
    _frame(doc)
    y = doc.paragraph(70, 150, 780, "Looking at Pages\nBefore Anyone Reads Them", TITLE.but(size=46, leading=58), "section_header")
    doc.line(70, y + 26, 250, y + 26, 3, TEAL)
    doc.paragraph(70, y + 54, 780, "What the Town Archive learned in three years at the glass. A talk for the Society of "
                  "Friends of the Archive, given in the reading room on the first Friday in March. Questions are welcome "
                  "at any time, and there will be tea.", BULLET.but(size=20, leading=29, colour=(0.3, 0.33, 0.38)))
    doc.next_page()
    _frame(doc)
    doc.paragraph(70, 54, 820, "Check the page while it lies on the glass", TITLE, "section_header")
    y = 128
    for point in POINTS:
        doc.circle(77, y + 7, 4, fill=TEAL)
        y = doc.paragraph(98, y, 350, point, BULLET) + 30
    y = charts.bars(doc, 500, 124, 400, 280, (0, 80, 20), "quarter", "faults in 2,400 pages", ["I", "II", "III", "IV"],
                    [("large machine", [34, 22, 11, 10]), ("small machine", [52, 41, 19, 16])], 12, (200, 76))
    doc.paragraph(500, y + 14, 400, "Figure 1. Faults found among pages drawn by lot.", CAPTION, "caption")
    doc.next_page()
    _frame(doc)
    doc.paragraph(70, 54, 820, "Blue light finds the tables", TITLE, "section_header")
    doc.paragraph(70, 124, 820, "Table 1. Tables found on eighty pages of the tax rolls.", CAPTION, "caption")
    rows = [("Light", "Tables", "Found", "Columns right", "Rows right"), ("White", "94", "31", "12", "20"),
            ("Red", "94", "18", "5", "11"), ("Blue", "94", "83", "71", "76"), ("Blue and white", "94", "85", "74", "78")]
    y = doc.table(70, 150, [220, 130, 130, 170, 170], rows, Style("sans", 17, 20, colour=INK), ruled="bands", row_height=36)
    doc.paragraph(70, y + 36, 820, CLOSING, BULLET)
    doc.save()
    return doc


def _frame(doc):
    doc.rect(0, 0, 22, HEIGHT, fill=TEAL)
    x0, x1 = doc.text(70, 510, "Town Archive, Department of Paper", "Helvetica", 12, (0.42, 0.45, 0.5))
    doc.region("page_footer", x0, 501.3, x1, 512.6)
    x0, x1 = doc.text(890, 510, str(doc.number), "Helvetica", 12, (0.42, 0.45, 0.5), "right")
    doc.region("page_footer", x0, 501.3, x1, 510.2)
