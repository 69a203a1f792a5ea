"""A model with the layout model's contract that computes nothing.

It answers every page with the same few regions after

    bench.batch_ms + bench.page_ms * pages

milliseconds, two parameters of its config. With both 0 everything that is left
to measure is quire, the wire and the server; with both above 0 it behaves like
a GPU, for which a batch has a price of its own and each page adds little, and
which all instances share: one executes at a time.

For Triton's Python backend, as quire's embedded server has it.
"""

import end_with_server  # beside triton_python_backend_utils there

import ctypes
import fcntl
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils

# x0, y0, x1, y1 in pixels of a page of 608x800; score; label, a line of labels.txt.
REGIONS = [
    ((40, 30, 568, 60), 0.97, 1),  # title
    ((40, 80, 290, 400), 0.95, 0),  # text
    ((318, 80, 568, 400), 0.94, 0),
    ((40, 420, 568, 640), 0.93, 4),  # table
    ((40, 645, 568, 665), 0.90, 5),  # table_caption
    ((40, 770, 568, 790), 0.88, 7),  # footer
]


def milliseconds(config, key):
    text = config.get("parameters", {}).get(key, {}).get("string_value", "0")
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 60_000:
        raise pb_utils.TritonModelException(f"parameter {key} is {text!r}, wanted milliseconds, 0 or more")
    return value


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        # Instances are processes; a lock on this file is one for all of them.
        self.device = open(__file__, "rb")
        self.batch_ms, self.page_ms = milliseconds(config, "bench.batch_ms"), milliseconds(config, "bench.page_ms")
        page = {output["name"]: [int(d) for d in output["dims"]] for output in config["output"]}
        self.page = {
            "boxes": np.zeros(page["boxes"], np.float32),
            "scores": np.zeros(page["scores"], np.float32),
            "labels": np.zeros(page["labels"], np.int32),
        }
        for at, (box, score, label) in enumerate(REGIONS):
            self.page["boxes"][at], self.page["scores"][at], self.page["labels"][at] = box, score, label

    def execute(self, requests):
        # Only the shape is read: the pixels stay where they are.
        pages = [pb_utils.get_input_tensor_by_name(request, "pages").shape()[0] for request in requests]
        took = self.batch_ms + self.page_ms * sum(pages)
        if took:
            fcntl.flock(self.device, fcntl.LOCK_EX)
            time.sleep(took / 1000)
            fcntl.flock(self.device, fcntl.LOCK_UN)
        return [pb_utils.InferenceResponse(output_tensors=[
            pb_utils.Tensor.from_dlpack(name, Lent(np.repeat(one[np.newaxis], count, axis=0)))
            for name, one in self.page.items()
        ]) for count in pages]


class Lent:
    """An array on its way into a response.

    pb_utils.Tensor(name, array) is not the way: a stub built before NumPy 2
    sends nothing under NumPy 2. The stub frees what from_dlpack hands it, but
    under a name that the capsule's own destructor does not know, and NumPy then
    complains about each one; so the destructor is taken off.
    """

    set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
    set_destructor.argtypes, set_destructor.restype = [ctypes.py_object, ctypes.c_void_p], ctypes.c_int

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **_):
        capsule = self.array.__dlpack__()
        Lent.set_destructor(capsule, None)
        return capsule
