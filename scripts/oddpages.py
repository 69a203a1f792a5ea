"""The pages that make_odd.py puts into its documents: text in any amount, and
the one dense page that all twins show. Standard library only."""

from pdfwriter import Canvas

WIDTH, HEIGHT = 612, 792  # points; US Letter

SUBJECTS = (
    "A reader", "The printer", "An editor", "Every page", "The column", "A wide margin", "The caption",
    "One long table", "The running head", "A careful clerk", "This chapter", "The second sheet")
VERBS = (
    "keeps", "measures", "follows", "separates", "repeats", "carries", "explains", "gathers", "divides",
    "marks", "holds", "counts")
OBJECTS = (
    "the white space", "each line of type", "a row of figures", "the order of the parts", "two kinds of notes",
    "the width of the block", "many small headings", "a drawing and its name", "the old proofs",
    "several loose leaves", "the foot of the sheet", "what the eye expects")
ENDINGS = (
    "before the ink is dry", "from left to right", "without a ruler", "in the usual way", "near the fold",
    "as the press allows", "under a plain rule", "once in every quire", "with great patience",
    "on both sides of the paper", "when the light is good", "and nothing more")


class Words:
    """Sentences drawn with a small generator of its own (Knuth's MMIX
    constants), so that they do not depend on the Python that draws them."""

    def __init__(self, seed):
        self.state = (seed * 2654435761 + 1) & (2**64 - 1)

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
        return (self.state >> 33) % n

    def pick(self, choices):
        return choices[self.below(len(choices))]

    def sentence(self):
        return f"{self.pick(SUBJECTS)} {self.pick(VERBS)} {self.pick(OBJECTS)} {self.pick(ENDINGS)}."

    def sentences(self, count):
        return " ".join(self.sentence() for _ in range(count))


def sheet(seed, heading, width=WIDTH, height=HEIGHT):
    """A page of text: a heading, four paragraphs, a page number."""
    canvas, words = Canvas(width, height), Words(seed)
    canvas.text(72, height - 86, heading, "B", 16)
    top = height - 112
    for _ in range(4):
        top = canvas.paragraph(72, top, width - 144, words.sentences(5 + words.below(6)), 11, 14) - 16
    canvas.centred(width / 2, 40, str(seed), "R", 9)
    return canvas


def twin():
    """The page that all twins show: two columns, a chart, a table, captions."""
    canvas, words = Canvas(WIDTH, HEIGHT), Words(7)
    canvas.text(54, 756, "Proceedings of the Bindery, volume 3", "R", 8)
    canvas.text(510, 756, "twin page", "R", 8)
    canvas.line(54, 750, 558, 750, 0.4)
    canvas.note("page_header", 54, 762, 546, 754)
    canvas.centred(306, 706, "One Page, Put Down in Many Ways", "B", 18)
    canvas.note("section_header", 140, 720, 472, 702)
    left, right, column = 54, 315, 243
    top = 676
    for heading, count in (("1  The sheet", 7), ("2  The turn", 8), ("3  The fold", 8)):
        canvas.text(left, top - 9, heading, "B", 11)
        canvas.note("section_header", left, top, left + 70, top - 11)
        top = canvas.paragraph(left, top - 20, column, words.sentences(count), 10, 12) - 18
    # A bar chart with its axes.
    for i, value in enumerate((40, 75, 58, 110, 92, 130, 66)):
        canvas.rect(right + 26 + i * 30, 530, 20, value, "f", 0.25 + 0.08 * i)
        canvas.centred(right + 36 + i * 30, 519, f"B{i + 1}", "R", 7)
    canvas.line(right + 18, 530, right + 238, 530)
    canvas.line(right + 18, 530, right + 18, 672)
    for tick in range(0, 141, 35):
        canvas.line(right + 15, 530 + tick, right + 18, 530 + tick)
        canvas.text(right, 527 + tick, str(tick), "R", 7)
    canvas.note("picture", right, 676, right + 238, 517)
    bottom = canvas.paragraph(
        right, 506, column, "Figure 1. Height of the stack after each fold, in sheets.", 9, 11, label="caption")
    # A ruled table under its caption.
    bottom = canvas.paragraph(
        right, bottom - 20, column, "Table 1. Leaves and pages for common folds.", 9, 11, label="caption")
    rows = (("Fold", "Leaves", "Pages", "Cuts"), ("Folio", "2", "4", "0"), ("Quarto", "4", "8", "1"),
            ("Octavo", "8", "16", "3"), ("Duodecimo", "12", "24", "5"), ("Sextodecimo", "16", "32", "7"))
    top = bottom - 8
    canvas.line(right, top, right + column, top, 1)
    for i, row in enumerate(rows):
        for x, cell in zip((8, 92, 146, 200), row):
            canvas.text(right + x, top - 12 - 15 * i, cell, "B" if i == 0 else "R", 9)
        if i == 0:
            canvas.line(right, top - 17, right + column, top - 17, 0.5)
    end = top - 15 * len(rows) - 3
    canvas.line(right, end, right + column, end, 1)
    canvas.note("table", right, top, right + column, end)
    canvas.paragraph(right, end - 20, column, words.sentences(9), 10, 12)
    canvas.centred(306, 36, "17", "R", 9)
    canvas.note("page_footer", 301, 44, 311, 35)
    return canvas
