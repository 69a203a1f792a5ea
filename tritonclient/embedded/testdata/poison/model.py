"""The layout model's backend with pages that make it fail: for tests only.

To use it, make a repository from a copy of model_repository in which the
config in use says `backend: "python"` and this file lies beside the model as
layout/1/model.py. It loads the real backend, which lies next to Triton's Python
backend, and runs every page through it, except those that begin with MAGIC and
one of these bytes (so: in the page's first row, left):

    "E"  the inference raises an error
    "N"  the answer is not a number: NaN in every score and box
    "X"  the backend's process dies
    "W"  the inference waits one second first, then goes on as usual
    "H"  the inference waits until one of a page with "G" has ended; if none has
         within 20 seconds, this one and all later ones with "H" fail
"""

import importlib.util
import json
import os
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

MAGIC = b"quire-poisoned-page:"


def load_backend():
    folder = os.path.dirname(os.path.dirname(os.path.abspath(pb_utils.__file__)))
    spec = importlib.util.spec_from_file_location("backend", os.path.join(folder, "onnxruntime", "model.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


backend = load_backend()
gone, missed = threading.Event(), threading.Event()  # a page with "G" has been through, or was waited for in vain


class Network(backend.Network):
    def infer(self, request, item, answer):
        (page,) = item.values()
        start = page.reshape(-1)[: len(MAGIC) + 1].tobytes()
        kind = start[len(MAGIC) :] if start.startswith(MAGIC) else b""
        if kind == b"E":
            raise RuntimeError("this page is\npoisoned")
        if kind == b"X":
            os._exit(1)
        if kind == b"W":
            time.sleep(1)
        if kind == b"H" and (missed.is_set() or not gone.wait(20)):
            missed.set()
            raise RuntimeError("nothing went past this page")
        super().infer(request, item, answer)
        if kind == b"G":
            gone.set()
        if kind == b"N":
            for array in answer.values():
                if array.dtype.kind == "f":
                    array.fill(np.nan)


class TritonPythonModel(backend.TritonPythonModel):
    def initialize(self, args):
        # Triton wrote this file's name there, as the Python backend's default.
        config = json.loads(args["model_config"])
        config["default_model_filename"] = "model.onnx"
        super().initialize({**args, "model_config": json.dumps(config)})

    def make_network(self, path, config):
        return Network(path, config)
