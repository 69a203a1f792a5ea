"""What the peers share: drawing, suppression, a ticker, and how they report.

A peer is started with the directory of PDFs. It loads everything, warms up,
prints a line of JSON (message_type "start"), does the pages, prints another
("summary"), and waits until its standard input ends, so that its reader can
see what the pages took. bench/compare is that reader.
"""

import argparse
import asyncio
import ctypes
import json
import os
import pathlib
import signal
import sys
import time

import numpy as np

# What the layout model takes: everybody draws straight at this size.
WIDTH, HEIGHT = 608, 800


def arguments(description, loop=False):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit that tidies up
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--renderer", choices=RENDERERS, default="pypdfium2")
    if loop:
        parser.add_argument("--ticker", action="store_true", help="tell how late the loop is; it costs the pages some time")
    return parser


def documents(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".pdf" and path.is_file())


class PyMuPDF:
    """An open document that PyMuPDF draws. draw fills out, uint8 [800,608,3],
    with the page as RGB on white, stretched to that size."""

    def __init__(self, path):
        import pymupdf

        # It says on standard output what is wrong with a document.
        pymupdf.TOOLS.mupdf_display_errors(False)
        pymupdf.TOOLS.mupdf_display_warnings(False)
        self.pymupdf, self.document = pymupdf, pymupdf.open(path)

    def __len__(self):
        return len(self.document)

    def draw(self, index, out):
        page = self.document[index]
        scale = self.pymupdf.Matrix(WIDTH / page.rect.width, HEIGHT / page.rect.height)
        picture = page.get_pixmap(matrix=scale, alpha=False)
        pixels = np.frombuffer(picture.samples_mv, np.uint8).reshape(picture.height, picture.width, 3)
        if pixels.shape != out.shape:  # a side was rounded the other way
            out[:] = 255
            pixels = pixels[:HEIGHT, :WIDTH]
        out[: pixels.shape[0], : pixels.shape[1]] = pixels

    def close(self):
        self.document.close()


class PDFium:
    """The same, drawn by pypdfium2: what its PdfPage.render does, but straight
    into out and at a size of its own in each direction."""

    def __init__(self, path):
        import pypdfium2
        import pypdfium2.raw

        self.pdfium, self.raw = pypdfium2, pypdfium2.raw
        self.document = pypdfium2.PdfDocument(path)
        self.document.init_forms()

    def __len__(self):
        return len(self.document)

    def draw(self, index, out):
        page, raw = self.document[index], self.raw
        buffer = (ctypes.c_ubyte * out.nbytes).from_buffer(out)
        bitmap = self.pdfium.PdfBitmap.new_native(WIDTH, HEIGHT, raw.FPDFBitmap_BGR, rev_byteorder=True, buffer=buffer)
        bitmap.fill_rect((255, 255, 255, 255), 0, 0, WIDTH, HEIGHT)
        where = (bitmap, page, 0, 0, WIDTH, HEIGHT, 0, raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER)
        raw.FPDF_RenderPageBitmap(*where)
        if self.document.formenv:
            raw.FPDF_FFLDraw(self.document.formenv, *where)
        bitmap.close()
        page.close()

    def close(self):
        self.document.close()


RENDERERS = {"pymupdf": PyMuPDF, "pypdfium2": PDFium}


class Report:
    """Counts pages and regions, and tells them."""

    def __init__(self, **about):
        self.about = about
        self.pages = self.failed = self.regions = 0

    def start(self):
        self._tell("start")
        self.began = time.perf_counter()

    def add(self, regions):
        self.pages += 1
        self.regions += regions

    def seconds(self):
        return time.perf_counter() - self.began

    def finish(self, **more):
        self._tell("summary", seconds=self.seconds(), pages=self.pages, failed=self.failed, regions=self.regions, **more)
        sys.stdin.read()

    def _tell(self, kind, **more):
        print(json.dumps({"message_type": kind, **self.about, **more}), flush=True)


def blank():
    return np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


def drawn(options, report, reuse=False, each=None):
    """Every page of every document, one array after another; with reuse always
    the same one. each gets what each page took, in milliseconds."""
    page = blank()
    for path in documents(options.folder):
        try:
            document = RENDERERS[options.renderer](path)
        except Exception as error:
            print(f"{path}: {error}", file=sys.stderr)
            continue
        for index in range(len(document)):
            page = page if reuse else np.empty_like(page)
            began = time.perf_counter()
            try:
                document.draw(index, page)
            except Exception as error:
                print(f"{path} page {index + 1}: {error}", file=sys.stderr)
                report.failed += 1
                continue
            if each is not None:
                each.append((time.perf_counter() - began) * 1000)
            yield page
        document.close()


def batches(items, size):
    """Lists of size items; the last one may be shorter."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def suppress(boxes, scores, labels, threshold=0.5, iou=0.5):
    """The regions of a page that the model gave up to 300 boxes for, best first:
    greedy non-maximum suppression class by class, clipped to the page."""
    found = scores > threshold
    boxes, scores, labels = boxes[found], scores[found], labels[found]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left, kept = np.arange(len(scores)), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        corner0 = np.maximum(boxes[best, :2], boxes[left, :2])
        corner1 = np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.clip(corner1 - corner0, 0, None).prod(axis=1)
        covered = shared / (areas[best] + areas[left] - shared) > iou
        left = left[~(covered & (labels[left] == labels[best]))]
    clipped = np.clip(boxes[kept], 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    return list(zip(labels[kept].tolist(), scores[kept].tolist(), clipped.tolist()))


class Ticker:
    """How late a loop is: a timer is due every millisecond, and each counts,
    those that come due while the loop is held up as well; requests would too."""

    period = 0.001

    def __init__(self):
        self.late, self.task = [], None

    async def start(self):
        self.task = asyncio.create_task(self._run())
        await asyncio.sleep(0.1)
        self.late.clear()

    async def _run(self):
        due = time.perf_counter() + self.period
        while True:
            await asyncio.sleep(max(0, due - time.perf_counter()))
            now = time.perf_counter()
            while due <= now:
                self.late.append(now - due)
                due += self.period

    def stop(self):
        """What there is to report: nothing when it was not started."""
        if not self.task:
            return {}
        self.task.cancel()
        p50, p99, most = np.percentile(self.late, [50, 99, 100]) * 1000
        return {"loop_ms": {"p50": p50, "p99": p99, "max": most}}


def cores():
    return len(os.sched_getaffinity(0))
