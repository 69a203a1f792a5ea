"""A two-column paper: title, authors, abstract, sections, numbered formulas,
figures, tables, footnote, references, running heads."""

import math

from . import charts
from .flow import Flow, captioned
from .typeset import Document, Style

WIDTH, HEIGHT = 612, 792
LEFT, COLUMN, GUTTER, BOTTOM = 50, 246, 20, 738
BODY = Style(size=10, leading=12.2)
SECTION = Style(size=11.5, leading=14, weight=1, align="left")
SUBSECTION = Style(size=10.5, leading=13, weight=1, align="left")
CAPTION = Style(size=8.8, leading=10.8)
REFERENCE = Style(size=8.4, leading=10.2, hang=15)

TITLE = "Before the Words: Finding the Blocks of a Page by the White Space Around Them"
AUTHORS = "Ada Quill, Marten Vellum and Ruth Colophon"
PLACE = "*Institute for the Study of the Printed Sheet, Department of Margins*"
ABSTRACT = (
    "**Abstract.** A reader who opens a book sees a page before reading a word of it: two columns, a picture, a note at "
    "the foot. We ask how much of that first glance can be had from the white space alone. A page is cut along its "
    "widest empty bands, the pieces are cut again, and each piece is named by the shape of its lines. On a set of 1,240 "
    "pages that we printed and measured ourselves the method finds nine blocks of ten, and the blocks that it misses "
    "are mostly those that a person would argue about as well. It needs no training and one pass over the ink.")

INTRODUCTION = [
    "Printers have always thought in blocks. A compositor sets a paragraph, locks it into the forme beside another, "
    "and only then worries about the whole. Programs that read pages go the other way: they are handed the whole, as "
    "a grid of dots or a list of letters, and have to find out what the compositor did. Most of what is later done "
    "with the text depends on that step. If two columns are taken for one, every sentence is broken in the middle, "
    "and no amount of cleverness further on will mend it.",
    "There are two schools. The first draws boxes from above, by cutting the page where it is empty [1, 4]. The second "
    "grows them from below, by joining letters to words, words to lines and lines to blocks [2, 7]. A third and more "
    "recent one shows a network many thousands of pages and lets it find its own way [9, 11]. The third school wins "
    "most contests today, but it is hard to say why it was wrong when it was wrong.",
    "This paper goes back to the first school with a question that can be answered: *how far does white space carry?* "
    "We define a score for an empty band, cut in the order of the scores, and stop when the best band left is no better "
    "than the space between two lines. What remains are the blocks. Figure 1 shows three pages and the blocks that "
    "we would like to find on them, in the order in which they should be read.",
]
EARLIER = [
    "The oldest programs for this purpose were made for newspapers, whose columns are ruled off from each other and whose "
    "headings are larger than anything near them [1]. Rules made it easy. When newspapers gave up their rules the "
    "programs were taught to look at gaps instead, and it was found that a gap means little by itself: the space between "
    "two words of a headline can be wider than the gutter between two columns of notes [4, 8].",
    "Growing from below avoids the question, since it only ever asks which letters are close to which. It pays for this "
    "with a number for every kind of closeness, and with the trouble that large and small type on one page want "
    "different numbers [7]. Methods that learn have the numbers chosen for them [9, 11]. How much of what they learn is "
    "about ink, and how much about the gaps in it, has not been measured as far as we know.",
]
METHOD = [
    "Let a page be a rectangle of width $W$ and height $H$ with ink at the points of a set $I$. We write $\\rho(y)$ for "
    "the share of the line at height $y$ that is covered with ink, and call it the profile of the page. The profile "
    "integrates to the share of the page that is black:",
    "A band is an interval of heights in which the profile stays below a small bound $\\epsilon$. Its score grows with its "
    "height $h_i$ and with the weight $w_i$ of the neighbours, since a gap beside a long block says more than one beside a "
    "single line. With $b_i$ for the band and $c_i$ for its distance from the centre, we take",
    "in which $\\lambda$ keeps the number of cuts small. We set $\\lambda = 0.35$ for every page in this paper. The same score "
    "is used for vertical bands, with width in place of height. The page is cut along the best band of either kind, and "
    "the two halves are treated in the same way, until no band scores above the threshold $\\tau$. Figure 2 shows the whole path of a page.",
]
NAMING = [
    "A block is named by four numbers: the height of its lines, how much they vary, how ragged its right edge is, and how "
    "far it stands from the edge of the page. Lines of equal height with a straight right edge make a paragraph. A single "
    "tall line is a heading. A block with hardly any regular line is a picture. The variation is measured in the usual way,",
    "where $h_i$ is the height of line $i$ and $\\mu$ their mean. A table is the one kind that needs a second look, because its "
    "cells are blocks of their own; we join blocks whose left edges agree in three rows or more.",
]
ORDER = [
    "Two blocks are compared by where they begin. If one ends above the other it is read first, unless a vertical cut "
    "of higher rank stands between them, in which case the left one is. The rank of a cut is the depth at which it was "
    "made, so that a title across both columns comes before either column, and a footnote after both. The comparison "
    "is not a total order in theory. On the pages that we printed it never failed to be one.",
]
DATA = [
    "We wrote 1,240 pages of our own, set them in four ways, and printed each at 72, 150 and 300 dots to the inch. Because "
    "the program that set them also wrote down where it put every block, nothing had to be marked by hand. Table 1 lists "
    "what is on them. A tenth of the pages were turned by up to half a degree, as happens on the glass of a copier.",
    "A block counts as found when a box of the same name covers it well enough. With $a$ for the box and $b$ for the block, "
    "the measure is the share of their union that both have in common,",
    "and we ask for at least one half, which is the custom. Where two boxes cover the same block only the better one counts.",
]
RESULTS = [
    "Figure 3 shows how the share of blocks found depends on the threshold. It rises quickly, is flat between 0.2 and 0.5, "
    "and falls when real gaps are no longer cut. The flat part is wide, which is the best that can be said of a method "
    "with one number to set. Pages with two columns are harder than pages with one only at the far right, where the gutter "
    "itself is lost.",
    "By kind of block the picture is less even. Paragraphs and pictures are found almost always. Captions suffer when they "
    "stand close under their picture, because nothing but the habit of printers tells that the two are not one. Table 2 "
    "gives the numbers, together with those of a method that grows boxes from below and of a reader who was given two "
    "seconds a page.",
    "The reader was better with captions and worse with formulas. Asked about it, she said that a formula in the middle of "
    "a paragraph did not look like a block to her. We are inclined to agree, but the compositor had set it as one.",
    "Noise matters less than we feared. Specks smaller than a full stop were dropped before the profile was taken, and the "
    "pages turned by half a degree lost one block in fifty. The loss grows with the width of the column, since a turned "
    "line closes the gap below its lower end. Cutting the page into vertical strips first, and taking a profile of each, "
    "wins most of it back.",
]
SETTINGS = [
    "How tightly a page is set matters more than what is on it. We set the same 200 pages again with every leading from "
    "solid to double, and Figure 4 shows the share of blocks found against the space between two paragraphs, in lines. "
    "Half a line is enough for most of the method's work, and beyond a whole line nothing more is won. Pages that show a "
    "new paragraph by an indent alone are the exception: there the blocks found are columns, not paragraphs.",
    "We tried two remedies. The first takes an indent as a cut of the lowest rank; it finds the paragraphs and breaks one "
    "list in three. The second leaves the columns whole and lets a later step part them, when the words are known. We "
    "prefer the second, because a step should not guess what the next one will know.",
]
MISTAKES = [
    "Most mistakes are of one kind. A heading that stands close to the paragraph below it is joined to it, and the block "
    "that results is a little taller than the paragraph alone. The box is still good enough to count for the paragraph, "
    "but the heading is lost. Figure 5 shows how the names are confused. Headings go to text in nine cases of a hundred, "
    "and captions go to text in twelve.",
    "The rest are tables without rules. When their columns stand wide apart each column becomes a block, and when their "
    "rows stand wide apart each row does. Both errors could be mended by looking at the words, but then the method would "
    "no longer be one that works before the words.",
]
COST = [
    "The profile of a page is a sum over its dots and can be taken while the page is being drawn. A cut costs one pass over "
    "the profile of its piece. With $k$ cuts on a page the whole costs at most $k$ passes over $W + H$ numbers, which is "
    "nothing beside the drawing. On an ordinary desk machine a page took two thousandths of a second.",
]
CLOSING = [
    "White space carries further than we had thought. It finds what a first glance finds, and where it fails the glance "
    "fails too. It does not replace a method that knows the words, nor one that has seen many pages; it is a floor that "
    "such methods should be measured against, and it is cheap enough to be run beside them as a check.",
    "We thank the printers of the Institute, who let us spoil nine reams of good paper, and the reader, who asked not to "
    "be named and was paid in coffee.",
]
REFERENCES = [
    "[1] H. Margin and T. Gutter. Cutting pages along their emptiness. *Annals of the Printed Sheet*, 4(2):101-119, 1987.",
    "[2] P. Ligature. From letters to lines and back. In *Workshop on Small Type*, pages 12-20, 1991.",
    "[3] O. Folio. *The Compositor's Eye: Blocks, Formes and Habits*. Recto Press, 1978.",
    "[4] H. Margin. A score for white bands. *Annals of the Printed Sheet*, 6(1):7-25, 1989.",
    "[5] J. Verso and S. Recto. What a reader sees in two seconds. *Reading and Looking*, 11(3):233-250, 2003.",
    "[6] M. Vellum. Pages that a program set. In *Proceedings of the Bindery*, volume 2, pages 55-63, 2015.",
    "[7] P. Ligature and E. Kern. Growing blocks from words. *Journal of Type and Image*, 19:301-322, 1996.",
    "[8] E. Kern. On the raggedness of right edges. *Journal of Type and Image*, 22:14-29, 1999.",
    "[9] L. Plate and N. Roller. Ten thousand pages later: learning to look at layout. In *Proceedings of the Bindery*, "
    "volume 5, pages 1-14, 2019.",
    "[10] A. Quill. Margins, measured. *Institute Notes* 17, Department of Margins, 2012.",
    "[11] N. Roller, B. Platen and L. Plate. Boxes without rules. In *Proceedings of the Bindery*, volume 7, pages 88-101, 2021.",
    "[12] R. Colophon. *The Last Page First*. Recto Press, 2008.",
    "[13] B. Platen. How much of a page is white? *Institute Notes* 31, Department of Margins, 2020.",
]


def make(path):
    doc = Document(path, WIDTH, HEIGHT, "Before the Words")

    def furniture(page):
        if page == 1:
            _ends(doc, 40, "Proceedings of the Bindery, volume 9, number 2", "pages 41-44")
        elif page % 2:
            _ends(doc, 40, "Finding the Blocks of a Page", "A. Quill, M. Vellum, R. Colophon")
        else:
            _ends(doc, 40, "A. Quill, M. Vellum, R. Colophon", "Finding the Blocks of a Page")
        doc.line(LEFT, 45, WIDTH - LEFT, 45, 0.4)
        if page == 2:
            _wide(doc)
        number = str(40 + page)
        x0, x1 = doc.text(WIDTH / 2, 762, number, "Times-Roman", 9, anchor="centre")
        doc.region("page_footer", x0, 762 - 6.1, x1, 762.2)

    def frames(page):
        top = {1: 240, 2: 218}.get(page, 62)
        right = LEFT + COLUMN + GUTTER
        foot = BOTTOM - 34 if page == 1 else BOTTOM
        return [(LEFT, top, COLUMN, foot), (right, top, COLUMN, BOTTOM)]

    flow = Flow(doc, frames, furniture)
    _front(doc)
    flow.heading("1~~Introduction", SECTION)
    flow.paragraph(INTRODUCTION[0], BODY)
    _float(flow, "**Figure 1.** Three pages and their blocks in reading order: one column with a picture, two columns "
           "under a title, and a letter.", CAPTION, _pages, 118)
    for text in INTRODUCTION[1:]:
        flow.paragraph(text, BODY)
    flow.heading("2~~Earlier work", SECTION)
    for text in EARLIER:
        flow.paragraph(text, BODY)
    flow.heading("3~~Method", SECTION)
    flow.paragraph("The method has three steps: cutting, naming and ordering. Each of them looks at the ink alone and can be "
                   "used without the others.", BODY)
    flow.heading("3.1~~Cutting", SUBSECTION)
    flow.paragraph(METHOD[0], BODY)
    flow.formula(r"\int_{0}^{H} \rho(y) \, dy = \frac{|I|}{W H}", 10, 1)
    flow.paragraph(METHOD[1], BODY)
    flow.formula(r"S(b) = \sum_{i=1}^{n} w_i \, \log \frac{h_i}{1 + c_i^{2}} - \lambda \, n", 10, 2, height=44)
    flow.paragraph(METHOD[2], BODY)
    flow.heading("3.2~~Naming", SUBSECTION)
    flow.paragraph(NAMING[0], BODY)
    flow.formula(r"\sigma = \sqrt{\frac{1}{n-1} \sum_{i=1}^{n} (h_i - \mu)^{2}}", 10, 3, height=44)
    flow.paragraph(NAMING[1], BODY)
    flow.heading("3.3~~Reading order", SUBSECTION)
    flow.paragraph(ORDER[0], BODY)
    flow.heading("4~~Pages", SECTION)
    flow.paragraph(DATA[0], BODY)
    _float(flow, "**Table 1.** What is on the pages: number of blocks by kind and by way of setting.", CAPTION,
           _contents, 116, above=True)
    flow.paragraph(DATA[1], BODY)
    flow.formula(r"J(a, b) = \frac{|a \cap b|}{|a \cup b|} \geq \frac{1}{2}", 10, 4)
    flow.paragraph(DATA[2], BODY)
    flow.heading("5~~Results", SECTION)
    _float(flow, "**Figure 3.** Share of blocks found against the threshold of the score, for pages of one and of two "
           "columns and for pages that were turned.", CAPTION, _thresholds, 160)
    for text in RESULTS[:2]:
        flow.paragraph(text, BODY)
    _float(flow, "**Table 2.** Share of blocks found (per cent) by kind, for the method of this paper, for boxes grown "
           "from below, and for a reader with two seconds.", CAPTION, _shares, 132, above=True)
    for text in RESULTS[2:]:
        flow.paragraph(text, BODY)
    flow.heading("5.1~~Loose and tight setting", SUBSECTION)
    flow.paragraph(SETTINGS[0], BODY)
    _float(flow, "**Figure 4.** Share of blocks found on 200 pages against the space between two paragraphs.", CAPTION,
           _leading, 150)
    flow.paragraph(SETTINGS[1], BODY)
    flow.heading("5.2~~Mistakes", SUBSECTION)
    flow.paragraph(MISTAKES[0], BODY)
    _float(flow, "**Figure 5.** Which names are given (columns) to which blocks (rows).", CAPTION, _confusion, 150)
    flow.paragraph(MISTAKES[1], BODY)
    flow.heading("5.3~~Cost", SUBSECTION)
    flow.paragraph(COST[0], BODY)
    flow.formula(r"T(k) \leq \sum_{j=1}^{k} (W_j + H_j) \leq k \, (W + H)", 10, 5, height=44)
    flow.heading("6~~Closing", SECTION)
    for text in CLOSING:
        flow.paragraph(text, BODY)
    flow.next()
    flow.heading("References", SECTION)
    flow.list(REFERENCES, REFERENCE, gap=3.5, label="reference")
    flow.flush()
    doc.save()
    return doc


def _ends(doc, baseline, left, right):
    """A running head: one region at either end."""
    for x, text, anchor in ((LEFT, left, "left"), (WIDTH - LEFT, right, "right")):
        x0, x1 = doc.text(x, baseline, text, "Times-Italic", 8.5, anchor=anchor)
        doc.region("page_header", x0, baseline - 6, x1, baseline + 1.8)


def _front(doc):
    full = WIDTH - 2 * LEFT
    title = Style(size=18, leading=22, align="centre", weight=1)
    y = doc.paragraph(LEFT + 30, 68, full - 60, TITLE, title, "section_header")
    y = doc.paragraph(LEFT, y + 14, full, AUTHORS + "\n" + PLACE, Style(size=10.5, leading=14, align="centre"))
    doc.paragraph(LEFT + 40, y + 16, full - 80, ABSTRACT, Style(size=9.2, leading=11.4))
    doc.line(LEFT, 714, LEFT + 70, 714, 0.4)
    doc.paragraph(LEFT, 719, COLUMN, "The pages and the program that set them may be had from the authors for the "
                  "price of the paper.", Style(size=8, leading=9.6))


def _float(flow, caption, style, draw, height, above=False):
    both, total = captioned(flow.doc, caption, style, lambda x, y, w: draw(flow.doc, x, y, w, height), height, above=above)
    flow.float(total(flow.width), both, after=14)


def _pages(doc, x, top, width, height):
    one = [(1, 0.1, 0.06, 0.55, 0.07), (0, 0.1, 0.18, 0.8, 0.2), (2, 0.1, 0.43, 0.8, 0.26), (0, 0.1, 0.74, 0.8, 0.2)]
    two = [(1, 0.1, 0.06, 0.8, 0.09), (0, 0.1, 0.2, 0.37, 0.34), (2, 0.1, 0.58, 0.37, 0.36),
           (0, 0.53, 0.2, 0.37, 0.5), (0, 0.53, 0.74, 0.37, 0.2)]
    letter = [(3, 0.55, 0.06, 0.35, 0.13), (1, 0.1, 0.26, 0.5, 0.06), (0, 0.1, 0.38, 0.8, 0.34), (3, 0.1, 0.8, 0.3, 0.1)]
    return charts.sketch(doc, x, top, width, height, [one, two, letter], order=True)


def _wide(doc):
    """The figure across both columns at the top of the second page."""
    full = WIDTH - 2 * LEFT
    y = charts.flow(doc, LEFT + 10, 64, full - 20, 104,
                    [["printed page", "profile of\nevery strip", "cuts in order\nof their score", "blocks"],
                     ["reading order", "names", "shapes of lines", "second look\nat tables"]],
                    [((0, 0), (0, 1)), ((0, 1), (0, 2)), ((0, 2), (0, 3)), ((0, 3), (1, 3)),
                     ((1, 3), (1, 2)), ((1, 2), (1, 1)), ((1, 1), (1, 0))])
    doc.paragraph(LEFT, y + 9, full, "**Figure 2.** The path of a page: from ink to gaps, from gaps to blocks, from blocks to "
                  "names and their order. No step looks at a letter.", CAPTION.but(align="centre"), "caption")


def _leading(doc, x, top, width, height):
    points = [[(t / 4, ceiling * (1 - 0.7 * math.exp(-t * pace)) + 1.2 * math.sin(3 * t + pace)) for t in range(9)]
              for ceiling, pace in ((95, 0.9), (93, 0.6), (88, 0.45))]
    series = list(zip(("10 on 10", "10 on 12", "10 on 14"), points))
    return charts.lines(doc, x, top, width, height, (0, 2, 0.5), (20, 100, 20), "space between paragraphs (lines)",
                        "blocks found (%)", series, (1.2, 56))


def _contents(doc, x, top, width, height):
    rows = [("Kind", "Plain", "Columns", "Letter", "Form"), ("Paragraph", "2,310", "3,894", "1,022", "266"),
            ("Heading", "604", "911", "0", "310"), ("Picture", "288", "402", "51", "0"), ("Caption", "301", "437", "0", "0"),
            ("Table", "97", "122", "0", "248"), ("Formula", "164", "395", "0", "0")]
    return doc.table(x, top, [62, 46, 50, 44, 44], rows, Style(size=8.8, leading=11), row_height=16)


def _shares(doc, x, top, width, height):
    rows = [("Kind", "Cutting", "Growing", "Reader"), ("Paragraph", "96.1", "93.8", "98.0"), ("Heading", "88.4", "81.2", "97.3"),
            ("Picture", "95.0", "77.9", "99.1"), ("Caption", "83.7", "85.5", "96.4"), ("Table", "86.2", "70.3", "97.7"),
            ("Formula", "90.9", "66.0", "61.5"), ("All", "92.8", "86.7", "95.6")]
    return doc.table(x, top, [78, 56, 56, 56], rows, Style(size=8.8, leading=11), row_height=16)


def _thresholds(doc, x, top, width, height):
    def curve(peak, fall):
        return [(t / 20, peak * (1 - math.exp(-t / 1.6)) - max(0, t / 20 - fall) ** 2 * 90) for t in range(1, 20, 2)]

    series = [("one column", curve(95, 0.55)), ("two columns", curve(92, 0.42)), ("turned", curve(84, 0.36))]
    return charts.lines(doc, x, top, width, height, (0, 1, 0.2), (20, 100, 20), "threshold", "blocks found (%)",
                        series, (0.32, 52))


def _confusion(doc, x, top, width, height):
    names = ["text", "head", "fig", "capt", "table"]
    values = [(0.96, 0.01, 0.00, 0.02, 0.01), (0.09, 0.88, 0.00, 0.03, 0.00), (0.01, 0.00, 0.95, 0.01, 0.03),
              (0.12, 0.02, 0.02, 0.84, 0.00), (0.06, 0.00, 0.08, 0.00, 0.86)]
    return charts.heat(doc, x, top, width, height, names, values)
