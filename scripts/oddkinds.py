"""The words in which make_odd.py and its parts say what a document is and how
it should end; see describe() in make_odd.py for their form."""

KINDS = {}  # name -> (what it is, expectation, maker)


def done(count=1, **more):
    """The document is done and has count pages; more describes every page."""
    return pages(*[{"ends": ["done"], **more}] * count)


def page(*ends):
    """A page that ends in one of these ways."""
    return {"ends": list(ends)}


def pages(*each):
    """A document that opens, and how each of its pages ends."""
    can_fail = [any(end.startswith("failed") for end in one["ends"]) for one in each]
    ends = ["done"] if all("done" in one["ends"] for one in each) else []
    ends += ["partial"] if any(can_fail) else []
    ends += ["failed"] if all(can_fail) else []
    return {"ends": ends, "page_count": len(each), "pages": list(each)}


def document_fails(*categories):
    """The document as a whole fails for one of these reasons."""
    return {"ends": [f"failed:{category}" for category in categories], "page_count": None, "pages": []}


def page_fails(*categories):
    """A document of one page, which fails for one of these reasons."""
    return pages(page(*[f"failed:{category}" for category in categories]))


def kind(name, what, expect):
    def register(maker):
        KINDS[name] = (what, expect, maker)
        return maker
    return register
