"""Text for pages that are only looked at: the sentences of the samples, shuffled."""

import re

from samples import paper, report


def sentences():
    texts = []
    for module in (paper, report):
        for value in vars(module).values():
            if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
                texts += value
    plain = (re.sub(r"\$[^$]*\$|\*+|~+", "", text) for text in texts)
    found = [s.strip() for text in plain for s in re.split(r"(?<=\.)\s", text)]
    return [s for s in dict.fromkeys(found) if s.endswith(".") and 40 < len(s) < 240 and s[0].isupper() and "  " not in s]


SENTENCES = sentences()


def paragraph(random, length):
    """So many letters or some more."""
    out = ""
    while len(out) < length:
        out += random.choice(SENTENCES) + " "
    return out.strip()


def title(random, words=6):
    picked = random.choice(SENTENCES).rstrip(".").split()
    return " ".join(picked[:words]).rstrip(",;")
