"""A process pool that draws, and NVIDIA's tritonclient on an event loop, as its
examples lead one to write it (simple_grpc_aio_infer_client.py).

Each process draws a batch of pages and returns them as an array; the loop puts
it into the request with set_data_from_numpy.
"""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from importlib.metadata import version

import numpy as np

import common

BATCH = 4
IN_FLIGHT = 2  # requests at the server


def count(renderer, path):
    """How many pages a document has; none when it does not open."""
    try:
        document = common.RENDERERS[renderer](path)
    except Exception:
        return 0
    pages = len(document)
    document.close()
    return pages


def draw(renderer, pages):
    """Pages, (path, index) each, as one array; those that fail are left out."""
    drawn, path, document = [], None, None
    for at, index in pages:
        if at != path:
            if document:
                document.close()
            path, document = at, common.RENDERERS[renderer](at)
        page = common.blank()
        try:
            document.draw(index, page)
        except Exception:
            continue
        drawn.append(page)
    document.close()
    return np.stack(drawn) if drawn else None


async def feed(options, client, pool, report):
    from tritonclient.grpc.aio import InferInput, InferRequestedOutput

    loop, window = asyncio.get_running_loop(), asyncio.Semaphore(IN_FLIGHT)
    paths = common.documents(options.folder)
    counts = await asyncio.gather(*(loop.run_in_executor(pool, count, options.renderer, path) for path in paths))
    pages = ((path, index) for path, counted in zip(paths, counts) for index in range(counted))
    batches = common.batches(pages, BATCH)  # all takers take from it
    outputs = [InferRequestedOutput(name) for name in ("boxes", "scores", "labels")]

    async def take():
        for batch in batches:
            drawn = await loop.run_in_executor(pool, draw, options.renderer, batch)
            done = 0 if drawn is None else len(drawn)
            report.failed += len(batch) - done
            if not done:
                continue
            tensor = InferInput("pages", list(drawn.shape), "UINT8")
            tensor.set_data_from_numpy(drawn)
            async with window:
                answer = await client.infer("layout", [tensor], outputs=outputs)
            for page in zip(*(answer.as_numpy(output.name()) for output in outputs)):
                report.add(regions=len(common.suppress(*page)))

    # As many as keep the processes and the server busy, and memory small.
    await asyncio.gather(*(take() for _ in range(common.cores() + IN_FLIGHT)))


async def run(options):
    from tritonclient.grpc.aio import InferenceServerClient

    workers = common.cores()
    async with InferenceServerClient(options.triton) as client:
        # A fork would copy gRPC's threads, which it does not survive.
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            config = (await client.get_model_config("layout", as_json=True))["config"]
            report = common.Report(
                engine=f"tritonclient {version('tritonclient')}",
                precision=config["parameters"]["quire.precision"]["string_value"],
            )
            loop = asyncio.get_running_loop()
            first = common.documents(options.folder)[0]
            await asyncio.gather(*(loop.run_in_executor(pool, draw, options.renderer, [(first, 0)]) for _ in range(workers)))
            ticker = common.Ticker()
            if options.ticker:
                await ticker.start()

            report.start()
            await feed(options, client, pool, report)
            report.finish(**ticker.stop())


def main():
    parser = common.arguments(__doc__, loop=True)
    parser.add_argument("--triton", required=True, metavar="HOST:PORT")
    options = parser.parse_args()
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
