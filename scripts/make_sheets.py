#!/usr/bin/env python3
"""Makes documents that take longer to draw: sheets with so many pages of each
document on every one.

    make_sheets.py ACROSS DOWN OUT FILE...

A document of n pages becomes one of n sheets, the first of which begins with
its first page, the second with its second, and so on around. Drawing such a
sheet takes about as long as drawing the pages on it, so that quire bench can be
had with pages of any price:

    make_sheets.py 2 5 sheets bench/pages/*.pdf
    quire bench --model instant sheets

Needs pypdfium2, as scripts/requirements-samples.txt has it.
"""

import argparse
import pathlib

import pypdfium2

WIDTH, HEIGHT = 595, 842  # of a sheet in points: A4


def sheets(path, across, down):
    """The sheets of one document, as a document."""
    source, spread = pypdfium2.PdfDocument(path), pypdfium2.PdfDocument.new()
    count = len(source)
    spread.import_pages(source, [(first + i) % count for first in range(count) for i in range(across * down)])
    made = pypdfium2.raw.FPDF_ImportNPagesToOne(spread, WIDTH, HEIGHT, across, down)
    if not made:
        raise SystemExit(f"make_sheets.py: {path}: its pages cannot be put on sheets")
    return pypdfium2.PdfDocument(made)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("across", metavar="ACROSS", type=int, help="pages beside each other")
    parser.add_argument("down", metavar="DOWN", type=int, help="pages below each other")
    parser.add_argument("out", metavar="OUT", type=pathlib.Path, help="directory for the sheets")
    parser.add_argument("files", metavar="FILE", type=pathlib.Path, nargs="+")
    options = parser.parse_args()
    if min(options.across, options.down) < 1:
        parser.error("ACROSS and DOWN want 1 or more")
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.files:
        try:
            sheets(path, options.across, options.down).save(options.out / path.name)
        except FileNotFoundError:
            raise SystemExit(f"make_sheets.py: {path}: there is no such file") from None
        except (OSError, pypdfium2.PdfiumError) as error:
            raise SystemExit(f"make_sheets.py: {path}: {error}") from None


if __name__ == "__main__":
    main()
