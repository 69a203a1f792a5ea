#!/usr/bin/env python3
"""Makes the documents of bench/pages/, which quire bench and bench/compare take
when no others are named.

    make_bench_pages.py DIR [NAME...]

bench/pages/README.md says what they follow. The packages that this needs, pinned
so that the same call writes the same bytes, are installed by

    pip install --no-deps --require-hashes --only-binary :all: -r scripts/requirements-samples.txt
"""

import argparse
import os

from benchpages.documents import MAKERS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*MAKERS, []], help=f"{', '.join(MAKERS)}; all when none is named")
    args = parser.parse_args()
    os.makedirs(args.dir, exist_ok=True)
    for name in args.names or MAKERS:
        MAKERS[name](os.path.join(args.dir, name + ".pdf"))


if __name__ == "__main__":
    main()
