"""A process pool that draws, and NVIDIA's tritonclient on an event loop, tuned by
somebody who has measured each step.

Each process draws a batch of pages straight into its place in one region of
shared memory, which the server has registered; a request carries only the place.
"""

import asyncio
import contextlib
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, shared_memory
from importlib.metadata import version

import numpy as np

import common

BATCH = 8
IN_FLIGHT = 2  # requests at the server
PAGE = common.HEIGHT * common.WIDTH * 3

region = renderer = None  # of a process of the pool


def begin(name, chosen):
    global region, renderer
    region, renderer = shared_memory.SharedMemory(name), common.RENDERERS[chosen]
    os.nice(10)  # the server has this niceness too, and the loop should come first


def count(path):
    """How many pages a document has; -1 when it does not open."""
    try:
        document = renderer(path)
    except Exception:
        return -1
    pages = len(document)
    document.close()
    return pages


def draw(place, pages):
    """Draws pages, (path, index) each, and returns how many worked."""
    done, path, document = 0, None, None
    for at, index in pages:
        if at != path:
            if document:
                document.close()
            path, document = at, renderer(at)
        out = np.frombuffer(region.buf, np.uint8, PAGE, (place * BATCH + done) * PAGE)
        try:
            document.draw(index, out.reshape(common.HEIGHT, common.WIDTH, 3))
            done += 1
        except Exception:
            pass
    document.close()
    return done


async def feed(options, client, pool, places, report):
    from tritonclient.grpc import InferInput

    loop, window = asyncio.get_running_loop(), asyncio.Semaphore(IN_FLIGHT)
    paths = common.documents(options.folder)
    counts = await asyncio.gather(*(loop.run_in_executor(pool, count, path) for path in paths))
    pages = ((path, index) for path, counted in zip(paths, counts) for index in range(counted))
    batches = common.batches(pages, BATCH)  # all places take from it

    async def fill(place):
        for batch in batches:
            done = await loop.run_in_executor(pool, draw, place, batch)
            report.failed += len(batch) - done
            if not done:
                continue
            tensor = InferInput("pages", [done, common.HEIGHT, common.WIDTH, 3], "UINT8")
            tensor.set_shared_memory(options.region, done * PAGE, place * BATCH * PAGE)
            async with window:
                answer = await client.infer("layout", [tensor])
            for page in zip(*(answer.as_numpy(name) for name in ("boxes", "scores", "labels"))):
                report.add(regions=len(common.suppress(*page)))

    await asyncio.gather(*(fill(place) for place in range(places)))


async def run(options, memory):
    from tritonclient.grpc.aio import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    workers = common.cores()
    places = workers + IN_FLIGHT
    pool = ProcessPoolExecutor(workers, get_context("spawn"), begin, (options.region, options.renderer))
    async with InferenceServerClient(options.triton) as client:
        await client.register_system_shared_memory(options.region, "/" + options.region, memory.size)
        try:
            config = (await client.get_model_config("layout", as_json=True))["config"]
            report = common.Report(
                engine=f"tritonclient {version('tritonclient')}",
                precision=config["parameters"]["quire.precision"]["string_value"],
            )
            loop = asyncio.get_running_loop()
            first = common.documents(options.folder)[0]
            await asyncio.gather(*(loop.run_in_executor(pool, draw, i, [(first, 0)]) for i in range(workers)))
            ticker = common.Ticker()
            if options.ticker:
                await ticker.start()

            report.start()
            await feed(options, client, pool, places, report)
            report.finish(**ticker.stop())
        finally:
            pool.shutdown()
            with contextlib.suppress(InferenceServerException):  # the server may still have a hand on it
                await client.unregister_system_shared_memory(options.region)


def main():
    parser = common.arguments(__doc__, loop=True)
    parser.add_argument("--triton", required=True, metavar="HOST:PORT")
    parser.add_argument("--region", required=True, metavar="NAME", help="shared memory to make")
    options = parser.parse_args()
    memory = shared_memory.SharedMemory(options.region, create=True, size=(common.cores() + IN_FLIGHT) * BATCH * PAGE)
    try:
        asyncio.run(run(options, memory))
    finally:
        memory.close()
        memory.unlink()


if __name__ == "__main__":
    main()
