"""RapidLayout as its README shows it: make the engine, hand it image after
image. The images are pages drawn as arrays at the size that its model takes,
which spares it reading files and resizing.

Its OpenVINO engine computes in what OpenVINO chooses for the machine (bf16
where the CPU has it) and has no option for that; --precision f32 sets it.
"""

from importlib.metadata import version

import common


def openvino_properties(**more):
    """Adds to what the package hands to OpenVINO."""
    from rapid_layout.inference_engine.openvino.device_config import OpenVINOConfig

    original = OpenVINOConfig.get_config
    OpenVINOConfig.get_config = lambda self: {**original(self), **more}


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--engine", choices=["onnxruntime", "openvino"], default="onnxruntime")
    parser.add_argument("--precision", choices=["f32", "default"], default="default")
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
        precision = {"bf16": "bf16", "f16": "f16"}.get(hint, "f32")
    engine(common.blank())

    name = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[options.engine]
    report = common.Report(engine=f"{name} {version(options.engine)}", precision=precision)
    report.start()
    for page in common.drawn(options, report, reuse=True):
        result = engine(page)
        report.add(regions=len(result.boxes))
    report.finish()


if __name__ == "__main__":
    main()
