"""RapidLayout as its README shows it: make the engine, hand it image after
image. Its README has no way from a PDF to images. Here they are arrays, which
spares it reading files: either at the size that its model takes, which spares it
resizing, too, or with --dpi as a renderer's own documentation has it, for
instance at the 200 dpi of rapidocr_pdf, by the same authors.

Its OpenVINO engine computes in what OpenVINO chooses for the machine (bf16
where the CPU has it) and has no option for that; --precision f32 sets it.
"""

import sys
from importlib.metadata import version

import numpy as np

import common


def openvino_properties(**more):
    """Adds to what the package hands to OpenVINO."""
    from rapid_layout.inference_engine.openvino.device_config import OpenVINOConfig

    original = OpenVINOConfig.get_config
    OpenVINOConfig.get_config = lambda self: {**original(self), **more}


def plain(options, report):
    """Every page as its renderer draws it at --dpi, in the colour order of image
    files that RapidLayout opens, BGR."""
    for path in common.documents(options.folder):
        try:
            if options.renderer == "pypdfium2":
                import pypdfium2

                document = pypdfium2.PdfDocument(path)
                document.init_forms()
            else:
                import pymupdf

                document = pymupdf.open(path)
        except Exception as error:
            print(f"{path}: {error}", file=sys.stderr)
            continue
        for index in range(len(document)):
            try:
                page = document[index]
                if options.renderer == "pypdfium2":
                    picture = page.render(scale=options.dpi / 72).to_numpy()
                else:
                    drawn = page.get_pixmap(dpi=options.dpi)
                    picture = np.frombuffer(drawn.samples, np.uint8).reshape(drawn.h, drawn.w, 3)[..., ::-1]
            except Exception as error:
                print(f"{path} page {index + 1}: {error}", file=sys.stderr)
                report.failed += 1
                continue
            yield picture
        document.close()


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--engine", choices=["onnxruntime", "openvino"], default="onnxruntime")
    parser.add_argument("--precision", choices=["f32", "default"], default="default")
    parser.add_argument("--dpi", type=int, help="draw at that many dots to the inch, whatever the model takes")
    options = parser.parse_args()

    import logging

    from rapid_layout import EngineType, ModelType, RapidLayout, RapidLayoutInput

    logging.disable(logging.INFO)  # it goes to standard output
    if options.engine == "openvino" and options.precision == "f32":
        openvino_properties(INFERENCE_PRECISION_HINT="f32")
    engine = RapidLayout(
        RapidLayoutInput(model_type=ModelType.PP_LAYOUT_CDLA, engine_type=EngineType(options.engine))
    )
    precision = "f32"
    if options.engine == "openvino":
        hint = engine.session.compiled_model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if hint in ("bf16", "f16"):
            precision = hint
    engine(common.blank())

    name = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[options.engine]
    report = common.Report(engine=f"{name} {version(options.engine)}", precision=precision)
    report.start()
    for page in plain(options, report) if options.dpi else common.drawn(options, report, reuse=True):
        result = engine(page)
        report.add(regions=len(result.boxes))
    report.finish()


if __name__ == "__main__":
    main()
