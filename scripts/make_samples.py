#!/usr/bin/env python3
"""Makes the sample documents of examples/ with their ground truth.

    make_samples.py DIR [NAME...]

Each NAME.pdf gets a NAME.truth.json beside it; examples/README.md says how to
read it. The packages that this needs, pinned so that the same call writes the
same bytes, are installed by

    pip install --no-deps --require-hashes --only-binary :all: -r scripts/requirements-samples.txt
"""

import argparse
import json
import os

from samples import form, paper, report, scan, slides

MAKERS = {"paper": paper.make, "report": report.make, "slides": slides.make, "form": form.make, "scan": scan.make}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*MAKERS, []],
                        help="paper, report, slides, form, scan; all when none is named")
    args = parser.parse_args()
    os.makedirs(args.dir, exist_ok=True)
    for name in args.names or MAKERS:
        path = os.path.join(args.dir, name)
        pages = MAKERS[name](path + ".pdf").pages
        truth = {"schema": "quire-truth/1", "path": name + ".pdf", "bbox_unit": "pt", "bbox_origin": "top-left", "pages": pages}
        with open(path + ".truth.json", "w", encoding="utf-8") as out:
            json.dump(truth, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
