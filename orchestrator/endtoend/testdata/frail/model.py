"""The instant model of scripts/bench_repository with pages that it does not
survive: for tests only.

It lies in a copy of that repository as layout/1/model.py, with the instant one
beside it as instant.py. The colour of a page's first pixel says what happens:

    magenta  the model's process dies
    cyan     the whole server does
    yellow   the inference fails
"""

import importlib.util
import os
import signal

import numpy as np
import triton_python_backend_utils as pb_utils

MAGENTA, CYAN, YELLOW = (255, 0, 255), (0, 255, 255), (255, 255, 0)


def load_instant():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "instant.py")
    spec = importlib.util.spec_from_file_location("instant", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TritonPythonModel(load_instant().TritonPythonModel):
    def execute(self, requests):
        colours = set()
        for request in requests:
            pages = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "pages"))
            colours |= {tuple(int(v) for v in page[0, 0]) for page in pages}
        answers = super().execute(requests)  # in its time, and dead before the answer
        if MAGENTA in colours:
            os._exit(1)
        if CYAN in colours:
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        if YELLOW in colours:
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError("yellow")) for _ in requests]
        return answers
