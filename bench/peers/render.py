"""Drawing alone, in one process."""

from importlib.metadata import version

import common


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--least", type=float, default=0, metavar="SECONDS", help="draw all of them again until so long")
    options = parser.parse_args()
    report = common.Report(engine=f"{options.renderer} {version(options.renderer)}")
    common.RENDERERS[options.renderer](common.documents(options.folder)[0]).close()  # imports
    report.start()
    passes = 0
    while passes == 0 or report.seconds() < options.least:
        each = []  # what each page took in this pass, in milliseconds
        for _ in common.drawn(options, report, reuse=True, each=each):
            report.add(regions=0)
        passes += 1
    report.finish(passes=passes, each_ms=each)


if __name__ == "__main__":
    main()
