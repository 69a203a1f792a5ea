"""A Triton backend, written in Python, that serves ONNX models on the CPU.

It stands where the official ONNX Runtime backend would stand (the backend name
`onnxruntime`), so that one config serves both: it finds model.onnx by the same
default name and runs it with OpenVINO, which is what the config's
`cpu_execution_accelerator { name: "openvino" }` asks of the official one.

On a CPU a batch has a price: one inference of n pages costs more than n
inferences of one page. So a merged batch is run item by item, one item on each
of several streams at a time, and a single item, or the odd ones at the end of a
batch, on all threads at once. The answer for an item therefore never depends
on what else was in its batch.

What it reads from the model's config:

    default_model_filename              the file's name, if not model.onnx
    instance_group { count }            the cores are shared out among so many
    parameters intra_op_thread_count    threads of one instance, instead
    parameters quire.precision          f32 (default), or bf16 where the CPU
                                        has it: faster, answers differ a little
"""

import ctypes
import itertools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino
import triton_python_backend_utils as pb_utils

PRECISIONS = ("f32", "bf16")


def one_line(error):
    """The cause of an exception, fit for a gRPC status."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else text[:497] + "..."


def parameter(config, key):
    return config.get("parameters", {}).get(key, {}).get("string_value", "")


def thread_count(config):
    """How many threads one instance may use."""
    asked = parameter(config, "intra_op_thread_count")
    if asked:
        if not asked.isdigit():
            raise ValueError(f"parameter intra_op_thread_count is {asked!r}, wanted a whole number")
        if int(asked) > 0:  # 0 is the official backend's word for its default
            return int(asked)
    instances = sum(group.get("count", 1) for group in config.get("instance_group", [])) or 1
    return max(1, core_count() // instances)


def core_count():
    """The cores this process may use: its affinity, and a container's quota."""
    count = len(os.sched_getaffinity(0))
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such control group, or the quota is "max"
        pass
    return count


def stream_count(threads, batch):
    """How many items to run at once: more streams than a batch has items would
    never have work, and the threads should divide among them without many
    left over."""
    most = min(threads, batch)
    return max(range(min(2, most), most + 1), key=lambda streams: (streams * (threads // streams), streams))


class Network:
    """A compiled model and what it takes to run items on it.

    An item is one entry along the batch dimension. run may be called by one
    thread at a time.
    """

    def __init__(self, path, config):
        batch = int(config.get("max_batch_size", 0))
        if batch < 1:
            raise ValueError("max_batch_size must be 1 or more: this backend wants a batch dimension")
        precision = parameter(config, "quire.precision") or "f32"
        if precision not in PRECISIONS:
            raise ValueError(f"parameter quire.precision is {precision!r}, wanted one of {', '.join(PRECISIONS)}")
        threads = thread_count(config)
        streams = stream_count(threads, batch)

        core = openvino.Core()
        model = core.read_model(path)
        self.inputs = {}
        for entry in config["input"]:
            dims = [1, *(int(d) for d in entry["dims"])]
            if min(dims) < 1:
                raise ValueError(f"input {entry['name']}: dims must be fixed, config has {dims[1:]}")
            self.inputs[entry["name"]] = dims
        # One item, known at compile time, is faster than a free dimension.
        model.reshape(self.inputs)

        def compiled(streams):
            return core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": precision,
                    "NUM_STREAMS": str(streams),
                    "INFERENCE_NUM_THREADS": threads,
                    # Pinned threads would fight over a core with the other
                    # instances and with whatever else runs on this machine.
                    "ENABLE_CPU_PINNING": False,
                },
            )

        alone = compiled(1)
        self.outputs = {}
        for entry in config["output"]:
            port = alone.output(entry["name"])
            self.outputs[entry["name"]] = (list(port.shape)[1:], port.element_type.to_dtype())
        self.alone = alone.create_infer_request()
        self.workers, self.requests = None, []
        if streams > 1:
            many = compiled(streams)
            self.requests = [many.create_infer_request() for _ in range(streams)]
            self.workers = ThreadPoolExecutor(streams, "stream")
        self.streams, self.threads, self.precision = streams, threads, precision

    def run(self, items, answers):
        """Runs the items and fills the answers.

        items is a list of dicts input name -> array [1,...]; answers a list of
        dicts output name -> array [1,...], written in place. On an exception
        nothing is running any more and the answers are of no use.
        """
        together = 0
        if self.workers:
            # When the last round would leave half the streams without an item,
            # its items are faster one after another on all threads.
            rest = len(items) % self.streams
            together = len(items) - (rest if rest <= self.streams // 2 else 0)
        if together:
            self._on_streams(items[:together], answers[:together])
        for item, answer in zip(items[together:], answers[together:]):
            self.infer(self.alone, item, answer)

    def _on_streams(self, items, answers):
        numbers, stop = itertools.count(), threading.Event()

        def work(request):
            # Each stream takes the next item when it is free: one that was
            # held up by another process does not keep the rest waiting.
            try:
                while (at := next(numbers)) < len(items) and not stop.is_set():
                    self.infer(request, items[at], answers[at])
            except BaseException:
                stop.set()
                raise

        running = [self.workers.submit(work, request) for request in self.requests[: len(items)]]
        errors = [error for error in (future.exception() for future in running) if error]
        if errors:
            raise errors[0]

    def infer(self, request, item, answer):
        """Runs one item without copying it; its arrays must be contiguous."""
        for name, array in item.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        for name, array in answer.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        request.infer()

    def close(self):
        if self.workers:
            self.workers.shutdown(wait=True)
        self.workers, self.requests, self.alone = None, [], None


class TritonPythonModel:
    """What the Python backend calls; one object an instance, one call at a time."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        if args.get("model_instance_kind") == "GPU":
            raise pb_utils.TritonModelException(
                "this onnxruntime backend runs on the CPU only: start the server with --model-config-name=cpu"
            )
        path = os.path.join(
            args["model_repository"], args["model_version"], config.get("default_model_filename") or "model.onnx"
        )
        if not os.path.isfile(path):
            raise pb_utils.TritonModelException(f"{path} is missing: scripts/prepare_model.py builds the layout model")
        try:
            self.network = self.make_network(path, config)
        except Exception as error:
            raise pb_utils.TritonModelException(f"{path}: {one_line(error)}") from None
        pb_utils.Logger.log_info(
            f"{args['model_name']}: OpenVINO {openvino.__version__.split('-')[0]}, {self.network.precision}, "
            f"{self.network.threads} threads, {self.network.streams} items at a time"
        )

    def make_network(self, path, config):
        return Network(path, config)

    def execute(self, requests):
        responses, work = [None] * len(requests), {}
        for at, request in enumerate(requests):
            try:
                work[at] = self.unpack(request)
            except Exception as error:
                responses[at] = failed(error)
        failures = self.run_apart(work)
        for at, (_, _, arrays) in work.items():
            responses[at] = failed(failures[at]) if at in failures else answered(requests[at], arrays)
        return responses

    def run_apart(self, work):
        """Runs all requests together and gives back those that failed, with
        their errors.

        When something in the merged batch fails, each request is run by itself
        and only the one that fails again has failed: Triton merges requests of
        clients that know nothing of each other.
        """
        together = [[], []]
        for items, answers, _ in work.values():
            together[0] += items
            together[1] += answers
        try:
            self.network.run(*together)
            return {}
        except Exception as error:
            if len(work) == 1:
                return dict.fromkeys(work, error)
        failures = {}
        for at, (items, answers, _) in work.items():
            try:
                self.network.run(items, answers)
            except Exception as error:
                failures[at] = error
        return failures

    def unpack(self, request):
        """The request's items, room for their answers, and that room as the
        arrays that the response will name."""
        network, tensors, count = self.network, {}, None
        for name, dims in network.inputs.items():
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                raise ValueError(f"input {name} is missing")
            array = borrow(tensor)
            if list(array.shape[1:]) != dims[1:] or count not in (None, len(array)):
                raise ValueError(f"input {name} has shape {list(array.shape)}, wanted {['n', *dims[1:]]}")
            tensors[name], count = array, len(array)
        arrays = {name: np.empty([count, *shape], dtype) for name, (shape, dtype) in network.outputs.items()}
        items = [{name: array[i : i + 1] for name, array in tensors.items()} for i in range(count)]
        answers = [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(count)]
        return items, answers, arrays

    def finalize(self):
        self.network.close()


def borrow(tensor):
    """A request tensor's own memory as an array; valid while the request is.

    as_numpy is not the way: a stub built before NumPy 2 gives wrong strides
    under NumPy 2. What DLPack gives is marked read-only, which OpenVINO does
    not take even for an input, so the address is wrapped once more.
    """
    array = np.from_dlpack(tensor)
    if not array.flags.c_contiguous:
        return np.ascontiguousarray(array)
    memory = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    return np.frombuffer(memory, array.dtype).reshape(array.shape)


class Lent:
    """An array on its way into a response, for Tensor.from_dlpack.

    The stub frees what it was handed, but renames the capsule to a name that
    the capsule's own destructor does not know, and NumPy then complains on
    standard error about every one. So the destructor is taken off.
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


def answered(request, arrays):
    wanted = set(request.requested_output_names())
    return pb_utils.InferenceResponse(
        output_tensors=[pb_utils.Tensor.from_dlpack(name, Lent(array)) for name, array in arrays.items() if name in wanted]
    )


def failed(error):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(one_line(error)))
