"""The asyncio pattern: one event loop, one thread for the model, batches of 4.

The loop draws and stacks the pages of the next batch while the thread computes
the last one. The model is the one that quire serves, with normalisation and
decoding inside, on OpenVINO in f32.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import numpy as np

import common

BATCH = 4


class Model:
    def __init__(self, path):
        import openvino

        # Threads that are pinned to cores would wait for the loop, which draws.
        properties = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
        self.request = openvino.Core().compile_model(path, "CPU", properties).create_infer_request()
        for size in range(1, BATCH + 1):
            self(np.stack([common.blank()] * size))

    def __call__(self, pages):
        answer = self.request.infer({"pages": pages}, share_inputs=True)
        return [answer[name].copy() for name in ("boxes", "scores", "labels")]


async def run(options, model, report):
    ticker = common.Ticker()
    if options.ticker:
        await ticker.start()

    loop, thread, computing = asyncio.get_running_loop(), ThreadPoolExecutor(1), None

    def take(answer):
        for page in zip(*answer):
            report.add(regions=len(common.suppress(*page)))

    report.start()
    for pages in common.batches(common.drawn(options, report), BATCH):
        batch = np.stack(pages)
        answer = await computing if computing else None
        computing = loop.run_in_executor(thread, model, batch)
        if answer:
            take(answer)
    if computing:
        take(await computing)
    report.finish(**ticker.stop())


def main():
    parser = common.arguments(__doc__, loop=True)
    parser.add_argument("--model", required=True, metavar="FILE", help="model.onnx")
    options = parser.parse_args()
    report = common.Report(engine=f"OpenVINO {version('openvino')}", precision="f32")
    asyncio.run(run(options, Model(options.model), report))


if __name__ == "__main__":
    main()
