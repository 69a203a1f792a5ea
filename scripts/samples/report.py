"""A report in one column: a front page, running head and foot, bullet points,
charts and tables of several styles with their captions."""

import math

from . import charts
from .flow import Flow, captioned
from .typeset import Document, Style

WIDTH, HEIGHT = 595, 842
LEFT, COLUMN = 86, 423
NAVY = (0.16, 0.27, 0.42)
BODY = Style(size=11.4, leading=15)
GAP = 20  # between paragraphs: an empty line
SECTION = Style("sans", 15, 19, "left", 1, NAVY)
SUBSECTION = Style("sans", 11.5, 15, "left", 1, NAVY)
CAPTION = Style("sans", 8.6, 11, "left", 0, (0.25, 0.27, 0.3))
CELL = Style("sans", 9, 11.5)
HEAD, FOOT = "The Town Archive in Numbers", "Town Archive, Department of Paper"

SUMMARY = [
    "In its third year the Town Archive scanned 412,600 pages, half as many again as in the year before, with the same "
    "two machines and one more pair of hands. Nine pages of ten could be sorted without anybody reading them, because the "
    "layout alone tells a letter from a ledger and a ledger from a map.",
    "The cost of a page fell from eleven cents to seven. Most of that is due to fewer pages being scanned twice: since "
    "April each page is looked at by a program while the sheet still lies on the glass, and a page whose columns are cut "
    "off or whose foot is missing is taken again at once.",
    "Two things did not go well. Bound volumes are still slow, since somebody has to turn their leaves, and the tables in "
    "the tax rolls are too faint for any program that we tried. Both are treated at the end of this report, with "
    "what we propose to do about them.",
    "The report follows the path of a sheet. It begins with what lies on the shelves, goes on to what was scanned and how "
    "well, and ends with what it cost. Those who have time for one page only should look at Figure 4, which shows where "
    "the hours go, and at Table 3, which shows where the money goes.",
]
HOLDINGS = [
    "The archive holds about 3.1 million pages on eleven kilometres of shelf. A little over half of them are loose leaves "
    "in boxes, which are quick to scan and slow to sort. Bound volumes are the opposite. Maps and drawings are few, but "
    "they take up a quarter of the shelves and most of the patience.",
    "Table 1 shows what was there at the end of the year and how much of it has been scanned. The share of the loose leaves "
    "grew fastest, as intended: the plan for the first three years was to take what is easy, and to learn on it.",
]
PROGRESS = [
    "Figure 1 gives the pages scanned in each month for all three years. The dip in August is the summer holiday. The one "
    "in February of the third year is the broken lamp of the larger machine, for which a new one had to be ordered by "
    "post and came by ship.",
    "From May on the two machines ran in two shifts. The second shift is shorter but scans more in an hour, because "
    "nobody comes to the counter in the evening and asks for a birth certificate. In December both shifts scanned the same "
    "number of pages, and the first one has asked for a coffee machine of its own.",
]
KINDS = [
    "What a page is decides where it goes. We tell six kinds apart, and Figure 2 shows their shares in this year's pages. "
    "Letters are the largest group, followed by forms, which begin about 1920 and do not end.",
    "The shares change with the decade. Before the war a page was written by hand, and the only thing that could be "
    "measured on it was its margin; after the war it was typed, and everything stands where the typewriter put it.",
    "Newspapers are a kind of their own. They were cut out by clerks for a hundred years and pasted on sheets of grey "
    "paper, three or four to a sheet, often at an angle. Each cutting is a small page with a heading, a column or two and "
    "sometimes a picture, so that a sheet holds several layouts at once and none of them is upright.",
    "We give such a sheet the kind of its largest cutting. That is wrong for one sheet in seven, as a sample of three "
    "hundred showed, but nobody has complained, since readers of cuttings look for a year and not for a kind.",
]
QUALITY = [
    "A scan is good when the whole page is on it, upright and sharp. We drew two hundred pages a month and looked at each "
    "of them. Table 2 lists what was found wrong, by the machine that made the scan. Cut columns have all but gone since "
    "the check on the glass was introduced; turned pages remain, because a page that is turned by a quarter is whole and "
    "sharp, and only its reader suffers.",
    "A fault found on the glass costs four seconds. A fault found at the desk costs two minutes, most of them spent on "
    "looking for the box. A fault found by a reader costs an apology as well, and in two cases this year it cost a second "
    "letter, because the first one had been scanned on the small machine and was turned by a quarter.",
]
CHECK = [
    "The check works on the layout of the page and not on its words. It draws a box around each block of text, each table "
    "and each picture, and compares the boxes with the edges of the sheet. Figure 3 shows the path of a sheet from the box "
    "to the shelf, with the places at which it can be sent back.",
    "No sheet is sent back more than twice. What the program does not like a third time is laid aside for a person, who "
    "looks at some twenty sheets a day in this way. Three rules proved to be enough for all the rest, and none of them "
    "has been changed since the first week of May:",
]
RULES = [
    "a block of text that touches an edge of the picture means that the page has slipped, and it is scanned again;",
    "a page whose blocks are taller than they are wide, and all of them so, is turned by a quarter and kept;",
    "a page without any block is shown to a person, who is the only one to know whether it is empty or only pale.",
]
TIME = [
    "Where the time goes has changed. In the first year more than half of it was spent on scanning proper. Now it is spent "
    "on fetching and sorting, as Figure 4 shows, and a faster machine would gain us little. What would help is a list of "
    "the boxes that can be trusted, so that nobody has to open one to see what is in it.",
    "Figure 5 sets the minutes spent on a box against the number of pages in it. Loose leaves follow a line, as one would "
    "expect. Bound volumes follow another that is twice as steep, and the volumes with the thickest spines stand well above "
    "it, because they have to be held open by a second person who could be doing something else.",
]
COST = [
    "Table 3 shows what a page costs and what that is made of. Wages are counted with everything that belongs to them; the "
    "machines are written off over six years. Power is a guess, since the archive has one meter and it also feeds the "
    "lift, the kettle and the mayor's aquarium.",
    "If the plan for the next year holds, a page will cost six cents. It cannot fall much below five as long as people "
    "carry boxes, and it would rise to nine if the second shift were given up. The boxes themselves are cheap; what is dear "
    "is the paper between the sheets, which has to be free of acid and is made in one mill only.",
]
PLANS = [
    "For the coming year we propose three things. The first is a cradle for bound volumes, which holds a book open at a "
    "right angle and spares its back. Two neighbouring archives have one and speak well of it. It would pay for itself in "
    "fourteen months, or in twenty if the wages of the second shift are counted in full.",
    "The second is a trial with the tax rolls. Their tables were ruled in red ink that has faded to the colour of the "
    "paper. Under blue light the rules can be seen again, and with the rules the columns can be told apart. Table 4 gives "
    "the first figures of a trial on eighty pages.",
    "The third is to publish the boxes that the check draws, together with the scans. They say nothing that cannot be "
    "seen, but they would allow others to search for pages with a table, or for letters with a picture, without "
    "looking at three million of them. The neighbouring archives have said that they would do the same.",
    "None of the three depends on another. If the committee can pay for one only, we ask for the cradle. If it can pay "
    "for none, the trial with the blue lamp can go on with what there is, as the lamp was lent to us by the dentist in "
    "the market square, who does not need it on Wednesdays.",
]
CONCLUSION = [
    "The easy part is done. What is left is bound, faint or large, and will go more slowly; we expect 380,000 pages in the "
    "fourth year, and ask that it not be taken for a decline. A bound page takes three times as long as a loose one, and "
    "a faint one may have to be scanned twice, under two kinds of light.",
    "The department thanks the two volunteers of the second "
    "shift, without whom the figures in this report would be about a third smaller. It also thanks the readers who told it "
    "of pages that were turned, cut or missing; there were forty-one of them, and every one was right.",
]


def make(path):
    doc = Document(path, WIDTH, HEIGHT, "The Town Archive in Numbers")

    def furniture(page):
        if page > 1:
            x0, x1 = doc.text(LEFT, 46, HEAD, "Helvetica", 8.5, (0.35, 0.37, 0.4))
            doc.region("page_header", x0, 40, x1, 46.3)
            doc.line(LEFT, 53, LEFT + COLUMN, 53, 0.6, NAVY)
        x0, x1 = doc.text(LEFT, 806, FOOT, "Helvetica", 8.5, (0.35, 0.37, 0.4))
        doc.region("page_footer", x0, 799.8, x1, 807.8)
        x0, x1 = doc.text(LEFT + COLUMN, 806, f"Page {page}", "Helvetica", 8.5, (0.35, 0.37, 0.4), "right")
        doc.region("page_footer", x0, 799.8, x1, 807.8)

    def frames(page):
        top = 270 if page == 1 else 76
        return [(LEFT, top, COLUMN, 778)]

    flow = Flow(doc, frames, furniture)
    _front(doc)
    _section(flow, "Summary", SUMMARY)
    flow.next()
    _section(flow, "1~~What the archive holds", HOLDINGS)
    _table(flow, "Table 1. Holdings at the end of the year, in thousands of pages.", [
        ("Kind", "Pages", "Scanned", "Share", "Boxes", "Shelf (m)"),
        ("Loose leaves", "1,640", "688", "42 %", "8,210", "3,290"), ("Bound volumes", "1,010", "121", "12 %", "-", "4,480"),
        ("Maps and drawings", "48", "9", "19 %", "310", "2,760"), ("Newspapers", "330", "172", "52 %", "790", "520"),
        ("Photographs", "72", "30", "42 %", "260", "140"), ("All", "3,100", "1,020", "33 %", "9,570", "11,190")],
        [113, 58, 62, 56, 62, 72], "bands")
    _section(flow, "2~~The third year", PROGRESS[:1])
    _figure(flow, "Figure 1. Pages scanned a month, in thousands.", _months, 205)
    flow.paragraph(PROGRESS[1], BODY, GAP)
    flow.heading("2.1~~Kinds of pages", SUBSECTION)
    flow.paragraph(KINDS[0], BODY, GAP)
    _figure(flow, "Figure 2. Shares of the kinds of pages in the third year.", _kinds, 140)
    for text in KINDS[1:]:
        flow.paragraph(text, BODY, GAP)
    _section(flow, "3~~Quality", QUALITY[:1])
    _table(flow, "Table 2. Faults among 2,400 pages drawn by lot.", [
        ("Fault", "Large machine", "Small machine", "Before April", "Since April"),
        ("Page turned", "14", "22", "15", "21"), ("Column cut off", "11", "9", "18", "2"), ("Foot missing", "6", "8", "13", "1"),
        ("Out of focus", "3", "17", "12", "8"), ("Two sheets at once", "9", "2", "7", "4"), ("All faults", "43", "58", "65", "36")],
        [103, 80, 80, 80, 80], "grid")
    flow.paragraph(QUALITY[1], BODY, GAP)
    flow.heading("3.1~~The check on the glass", SUBSECTION)
    flow.paragraph(CHECK[0], BODY, GAP)
    _figure(flow, "Figure 3. The path of a sheet. Two of its steps can send it back to the glass.", _path, 150)
    flow.paragraph(CHECK[1], BODY, GAP)
    for rule in RULES:
        _bullet(flow, rule)
    _section(flow, "4~~Time and money", TIME[:1])
    _figure(flow, "Figure 4. Hours spent on each step, per thousand pages.", _hours, 190)
    flow.paragraph(TIME[1], BODY, GAP)
    _figure(flow, "Figure 5. Minutes spent on a box and pages in it, for 90 boxes and volumes.", _boxes, 200)
    flow.paragraph(COST[0], BODY, GAP)
    _table(flow, "Table 3. Cost of a page, in cents.", [
        ("", "First year", "Second year", "Third year", "Plan"), ("Wages", "9.8", "8.1", "5.0", "4.2"),
        ("Machines", "2.6", "1.8", "1.2", "1.0"), ("Room and power", "1.1", "0.8", "0.5", "0.5"),
        ("Boxes and paper", "0.4", "0.4", "0.3", "0.3"), ("All", "13.9", "11.1", "7.0", "6.0")],
        [115, 77, 77, 77, 77], "rules")
    flow.paragraph(COST[1], BODY, GAP)
    _section(flow, "5~~Plans", PLANS[:2])
    _table(flow, "Table 4. Tables found on eighty pages of the tax rolls, by light.", [
        ("Light", "Pages", "Tables", "Found", "Columns right", "Rows right"), ("White", "80", "94", "31", "12", "20"),
        ("Red", "80", "94", "18", "5", "11"), ("Blue", "80", "94", "83", "71", "76"),
        ("Blue and white", "80", "94", "85", "74", "78")],
        [95, 55, 60, 60, 79, 74], "bands")
    for text in PLANS[2:]:
        flow.paragraph(text, BODY, GAP)
    _section(flow, "6~~Conclusion", CONCLUSION)
    flow.flush()
    doc.save()
    return doc


def _front(doc):
    doc.rect(0, 0, WIDTH, 18, fill=NAVY)
    title = Style("sans", 26, 31, "left", 1, NAVY)
    y = doc.paragraph(LEFT, 74, COLUMN, "The Town Archive in Numbers", title, "section_header")
    y = doc.paragraph(LEFT, y + 24, COLUMN, "Report on the third year of scanning, with a plan for the fourth",
                      Style("sans", 13, 17, "left", 0, (0.3, 0.32, 0.36)))
    doc.line(LEFT, y + 18, LEFT + COLUMN, y + 18, 1.2, NAVY)
    doc.paragraph(LEFT, y + 34, COLUMN, "Drawn up by the Department of Paper for the Council's committee on things that "
                  "are kept. The figures are those of the department's own ledger, closed on the last working day of the year, "
                  "and have been read twice.", BODY.but(weight=2))


def _section(flow, heading, paragraphs):
    flow.heading(heading, SECTION, before=14, after=9, room=60)
    for text in paragraphs:
        flow.paragraph(text, BODY, GAP)


def _figure(flow, caption, draw, height):
    both, total = captioned(flow.doc, caption, CAPTION, lambda x, y, w: draw(flow.doc, x, y, w, height), height, gap=9)
    flow.float(total(flow.width), both, after=20, before=6)


def _table(flow, caption, rows, widths, ruled):
    height = 18 * len(rows)
    draw = (lambda x, y, w: flow.doc.table(x, y, widths, rows, CELL, ruled=ruled, row_height=18))
    both, total = captioned(flow.doc, caption, CAPTION, draw, height, gap=8, above=True)
    flow.float(total(flow.width), both, after=20, before=6)


def _bullet(flow, text):
    style = BODY.but(align="left")
    if flow.y + 2 * style.leading > flow.bottom:
        flow.next()
    flow.doc.circle(flow.x + 10, flow.y + 4.4, 2, fill=NAVY)
    flow.paragraph(text, style, GAP, x=22)


def _months(doc, x, top, width, height):
    def year(base, growth):
        season = (0.9, 0.95, 1.05, 1.0, 1.08, 1.1, 0.95, 0.62, 1.04, 1.12, 1.1, 0.85)
        return [(m + 1, base * s * (1 + growth * m)) for m, s in enumerate(season)]

    third = [(m, v * (0.45 if m == 2 else 1)) for m, v in year(25, 0.055)]
    series = [("first year", year(17, 0.01)), ("second year", year(21, 0.02)), ("third year", third)]
    return charts.lines(doc, x, top, width, height, (1, 12, 1), (0, 50, 10), "month", "thousand pages", series, (1.4, 46), 8)


def _kinds(doc, x, top, width, height):
    shares = [("Letters", 0.36), ("Forms", 0.27), ("Ledgers", 0.17), ("Newspapers", 0.13), ("Maps, photographs", 0.07)]
    return charts.pie(doc, x + 80, top, height, shares)


def _path(doc, x, top, width, height):
    return charts.flow(doc, x, top, width, height,
                       [["box", "glass", "check of\nthe layout", "desk"], ["shelf", "list", "name of\nthe kind", "reader"]],
                       [((0, 0), (0, 1)), ((0, 1), (0, 2)), ((0, 2), (0, 3)), ((0, 2), (1, 2)), ((0, 3), (1, 3)),
                        ((1, 2), (1, 1)), ((1, 1), (1, 0)), ((1, 3), (1, 2))], size=9)


def _hours(doc, x, top, width, height):
    return charts.bars(doc, x, top, width, height, (0, 8, 2), "step", "hours", ["Fetch", "Sort", "Scan", "Check", "Name", "Put back"],
                       [("first year", [2.1, 2.9, 7.6, 1.2, 2.4, 1.5]), ("third year", [2.0, 2.6, 3.1, 0.9, 0.5, 1.3])],
                       8, (250, 7.4))


def _boxes(doc, x, top, width, height):
    def cloud(slope, count, phase):
        points = []
        for i in range(count):
            pages = 40 + 360 * ((i * 0.618 + phase) % 1)
            points.append((pages, 6 + slope * pages * (1 + 0.16 * math.sin(i * 12.9 + phase * 40))))
        return points

    return charts.scatter(doc, x, top, width, height, (0, 400, 50), (0, 80, 20), "pages in the box", "minutes",
                          [("loose leaves", cloud(0.075, 55, 0.1)), ("bound volumes", cloud(0.15, 35, 0.4))], (20, 74), 8)
