"""Sets formulas from a small subset of LaTeX's notation as real text.

    letters (italic), digits, + - = < > ( ) [ ] | , . / : ! '
    _{..} ^{..} \\frac{..}{..} \\sqrt{..} \\text{..} \\hat{..} \\, \\quad
    \\sum \\prod \\int \\max \\min \\log \\exp and the Greek letters and relations of SYMBOLS

Boxes on a baseline, in the way of TeX (Knuth, The TeXbook, appendix G), much
simplified. Fonts are Times and Symbol.
"""

from reportlab.pdfbase.pdfmetrics import stringWidth

SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "theta": "θ", "lambda": "λ",
    "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "omega": "ω", "Delta": "Δ",
    "Omega": "Ω", "Phi": "Φ", "infty": "∞", "partial": "∂", "in": "∈", "leq": "≤", "geq": "≥",
    "neq": "≠", "approx": "≈", "times": "×", "cdot": "⋅", "cap": "∩", "cup": "∪", "to": "→", "pm": "±",
    "forall": "∀", "propto": "∝",
}
SPACED = set("=+−<>∈≤≥≠≈×∩∪→±∝")
BIG = {"sum": "∑", "prod": "∏", "int": "∫"}
NAMES = {"max", "min", "log", "exp"}


class Box:
    """Ink on a baseline: width, height above, depth below, all in points.
    parts are (dx, dy, thing) with dy upwards; a thing is a Box, a text run
    (font, size, text) or a rule (width, thickness)."""

    def __init__(self, width=0.0, height=0.0, depth=0.0, parts=()):
        self.width, self.height, self.depth = width, height, depth
        self.parts = list(parts)

    def draw(self, canvas, x, y):
        """Draws at x, baseline y, in the canvas's own (upward) coordinates."""
        for dx, dy, thing in self.parts:
            if isinstance(thing, Box):
                thing.draw(canvas, x + dx, y + dy)
            elif len(thing) == 2:
                width, thickness = thing
                canvas.rect(x + dx, y + dy, width, thickness, stroke=0, fill=1)
            else:
                font, size, text = thing
                canvas.setFont(font, size)
                canvas.drawString(x + dx, y + dy, text)


def glyphs(font, size, text):
    width = stringWidth(text, font, size)
    tall = any(c in "bdfhklt()[]|/∑∫∏√0123456789βδθλ" or c.isupper() for c in text)
    deep = any(c in "gjpqy()[]|,/βγμρφ" for c in text)
    return Box(width, (0.69 if tall else 0.47) * size, (0.21 if deep else 0.01) * size, [(0, 0, (font, size, text))])


def row(boxes):
    x, parts = 0.0, []
    for box in boxes:
        parts.append((x, 0, box))
        x += box.width
    return Box(x, max((b.height for b in boxes), default=0), max((b.depth for b in boxes), default=0), parts)


def space(width):
    return Box(width)


def scripts(base, sub, sup, size):
    """Attaches sub- and superscript at the right of base."""
    parts, height, depth, width = [(0, 0, base)], base.height, base.depth, 0.0
    x = base.width + 0.04 * size
    if sup:
        rise = max(0.36 * size, base.height - 0.32 * size)
        parts.append((x, rise, sup))
        height, width = max(height, rise + sup.height), max(width, sup.width)
    if sub:
        drop = 0.18 * size + max(0, base.depth - 0.21 * size) * 0.8
        parts.append((x, -drop, sub))
        depth, width = max(depth, drop + sub.depth), max(width, sub.width)
    return Box(x + width + 0.04 * size, height, depth, parts)


def limits(base, sub, sup, size):
    """Sets the limits of a sum above and below it."""
    width = max(b.width for b in (base, sub, sup) if b)
    parts = [((width - base.width) / 2, 0, base)]
    height, depth = base.height, base.depth
    if sup:
        parts.append(((width - sup.width) / 2, height + 0.14 * size + sup.depth, sup))
        height += 0.14 * size + sup.depth + sup.height
    if sub:
        parts.append(((width - sub.width) / 2, -depth - 0.14 * size - sub.height, sub))
        depth += 0.14 * size + sub.height + sub.depth
    return Box(width + 0.16 * size, height, depth, parts)


def fraction(top, bottom, size):
    width = max(top.width, bottom.width) + 0.3 * size
    axis, rule = 0.25 * size, 0.05 * size
    up, down = axis + 0.2 * size + top.depth, axis - 0.17 * size - bottom.height
    parts = [((width - top.width) / 2, up, top), ((width - bottom.width) / 2, down, bottom),
             (0.05 * size, axis, (width - 0.1 * size, rule))]
    outer = Box(width, up + top.height, bottom.depth - down, parts)
    return row([space(0.08 * size), outer, space(0.08 * size)])


def root(inside, size):
    scale = max(size, (inside.height + inside.depth + 0.15 * size) / 0.92)
    sign = stringWidth("√", "Symbol", scale)
    bar = inside.height + 0.12 * size
    # Symbol's radical spans from -0.02 to 0.91 of its size.
    parts = [(0, bar - 0.885 * scale, ("Symbol", scale, "√")), (sign - 0.02 * scale, bar, (inside.width + 0.1 * size, 0.05 * size)),
             (sign, 0, inside)]
    return Box(sign + inside.width + 0.1 * size, bar + 0.05 * size, max(inside.depth, 0.885 * scale - bar), parts)


def parse(source, size, display=False):
    """The formula as a Box. display sets limits above and below."""
    box, rest = _row(source, size, display, closing=False)
    if rest:
        raise ValueError(f"formula {source!r}: {rest!r} left over")
    return box


def _row(source, size, display, closing):
    boxes = []
    while source:
        if source[0] == "}":
            if closing:
                return row(boxes), source[1:]
            raise ValueError(f"unexpected }} before {source!r}")
        nucleus, source, big = _atom(source, size, display)
        sub = sup = None
        while source[:1] in ("_", "^"):
            mark, script_source = source[0], source[1:]
            script, source, _ = _atom(script_source, size * 0.71, False)
            if mark == "_":
                sub = script
            else:
                sup = script
        if sub or sup:
            attach = limits if big and display else scripts
            nucleus = attach(nucleus, sub, sup, size)
        boxes.append(nucleus)
    if closing:
        raise ValueError("formula: } missing")
    return row(boxes), ""


def _group(source, size, display):
    if source[:1] != "{":
        raise ValueError(f"formula: {{ wanted before {source!r}")
    return _row(source[1:], size, display, closing=True)


def _atom(source, size, display):
    """One atom: its box, what follows it, and whether it takes limits."""
    c = source[0]
    if c == "{":
        return *_group(source, size, display), False
    if c == "\\":
        if source[1] in ",;":
            return space(0.17 * size), source[2:], False
        name = ""
        for letter in source[1:]:
            if not letter.isalpha():
                break
            name += letter
        rest = source[1 + len(name):]
        return _command(name, rest.lstrip() if name != "text" else rest, size, display)
    if c == " ":
        return space(0), source[1:], False
    if c == "-":
        c = "−"
    if c == "'":
        return glyphs("Symbol", size, "′"), source[1:], False
    if c.isalpha():
        italic = glyphs("Times-Italic", size, c)
        return (row([italic, space(0.08 * size)]) if c in "fTVWFPK" else italic), source[1:], False
    if c in SPACED:
        return _spaced(c, size), source[1:], False
    box = glyphs("Times-Roman", size, c)
    return (row([box, space(0.17 * size)]) if c == "," else box), source[1:], False


def _spaced(c, size):
    gap = space(0.22 * size if size > 7.5 else 0.05 * size)
    return row([gap, glyphs("Symbol", size, c), gap])


def _command(name, rest, size, display):
    if name in SYMBOLS:
        c = SYMBOLS[name]
        return (_spaced(c, size) if c in SPACED else glyphs("Symbol", size, c)), rest, False
    if name in BIG:
        scale = size * (1.45 if display else 1.1)
        box = glyphs("Symbol", scale, BIG[name])
        return Box(box.width, 0.72 * scale, 0.22 * scale, box.parts), rest, name != "int"
    if name in NAMES:
        return row([glyphs("Times-Roman", size, name), space(0.14 * size)]), rest, name in ("max", "min")
    if name == "quad":
        return space(size), rest, False
    if name == "text":
        end = rest.index("}")
        return glyphs("Times-Roman", size, rest[1:end]), rest[end + 1:], False
    if name == "frac":
        small = size if display else size * 0.75
        top, rest = _group(rest, small, False)
        bottom, rest = _group(rest, small, False)
        return fraction(top, bottom, size), rest, False
    if name == "sqrt":
        inside, rest = _group(rest, size, display)
        return root(inside, size), rest, False
    if name == "hat":
        inside, rest = _group(rest, size, display)
        mark = glyphs("Times-Roman", size, "ˆ")
        parts = [(0, 0, inside), ((inside.width - mark.width) / 2 + 0.06 * size, inside.height - 0.45 * size, mark)]
        return Box(inside.width, inside.height + 0.25 * size, inside.depth, parts), rest, False
    raise ValueError(f"formula: \\{name} is not known")
