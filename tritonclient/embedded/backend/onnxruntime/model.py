"""A Triton backend, written in Python, that serves ONNX models on the CPU.

It stands where the official ONNX Runtime backend would stand (the backend name
`onnxruntime`), so that one config serves both: it finds model.onnx by the same
default name and runs it with OpenVINO, which is what the config's
`cpu_execution_accelerator { name: "openvino" }` asks of the official one.

On a CPU a batch has a price: one inference of n pages costs more than n
inferences of one page. So a merged batch is run item by item, one item on each
of several streams at a time, and an item that has the instance to itself on all
threads at once. The answer for an item therefore never depends on what else was
in its batch.

The last items of a batch do not end together, and the next batch takes a moment
to come. So an execution is over for Triton when all of its items have begun and
a stream is free: that one goes on with the next batch, and each request is
answered when its own items are done (with a response sender, which the Python
backend has for models that are not decoupled, too). What Triton counts as the
time of an execution is then when it could not have begun another.

What it reads from the model's config:

    default_model_filename              the file's name, if not model.onnx
    instance_group { count }            the cores are shared out among so many
    parameters intra_op_thread_count    threads of one instance, instead
    parameters quire.precision          f32 (default), or bf16 where the CPU
                                        has it: faster, answers differ a little
"""

import end_with_server  # before what takes long to import

import collections
import ctypes
import json
import os
import threading

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

    An item is one entry along the batch dimension. run and close may be called
    by one thread at a time.
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
        self.waiting = collections.deque()  # (job, its item's number), not begun
        self.busy, self.closed = 0, False
        self.changed = threading.Condition()  # guards these three
        self.streams = []
        if streams > 1:
            many = compiled(streams)
            for _ in range(streams):
                # A daemon: the process must end when the server is gone.
                stream = threading.Thread(target=self._stream, args=[many.create_infer_request()], daemon=True)
                self.streams.append(stream)
                stream.start()
        self.threads, self.precision = threads, precision

    def run(self, jobs):
        """Begins all items of the jobs, in order, and returns as soon as it
        could begin another. Each job hears of each of its items when that has
        ended, from any thread.
        """
        items = [(job, at) for job in jobs for at in range(len(job.items))]
        with self.changed:
            alone = not self.streams or (len(items) == 1 and not self.busy)
            if not alone:
                self.waiting.extend(items)
                self.changed.notify_all()
                while self.waiting or self.busy == len(self.streams):
                    self.changed.wait()
        if alone:
            for job, at in items:
                self._item(self.alone, job, at)

    def _stream(self, request):
        while True:
            with self.changed:
                while not self.waiting and not self.closed:
                    self.changed.wait()
                if not self.waiting:
                    return
                job, at = self.waiting.popleft()
                self.busy += 1
            self._item(request, job, at)
            job = None  # Triton's memory goes with the request in it
            with self.changed:
                self.busy -= 1
                self.changed.notify_all()

    def _item(self, request, job, at):
        error = None
        try:
            self.infer(request, job.items[at], job.answers[at])
        except Exception as caught:
            error = caught
        job.ended(error)

    def infer(self, request, item, answer):
        """Runs one item without copying it; its arrays must be contiguous."""
        for name, array in item.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        for name, array in answer.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        request.infer()

    def close(self):
        """Returns when everything that was begun has ended."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        for stream in self.streams:
            stream.join()
        self.streams, self.alone = [], None


class Job:
    """A request of Triton's on its way through a network; answers it once."""

    def __init__(self, request):
        self.request, self.sender = request, request.get_response_sender()
        self.lock, self.error = threading.Lock(), None

    def unpack(self, network):
        """Finds the request's items, and makes room for their answers."""
        tensors, count = {}, None
        for name, dims in network.inputs.items():
            tensor = pb_utils.get_input_tensor_by_name(self.request, name)
            if tensor is None:
                raise ValueError(f"input {name} is missing")
            array = borrow(tensor)
            if list(array.shape[1:]) != dims[1:] or count not in (None, len(array)):
                raise ValueError(f"input {name} has shape {list(array.shape)}, wanted {['n', *dims[1:]]}")
            tensors[name], count = array, len(array)
        if not count:
            raise ValueError("the request has no items")
        self.left = count
        self.arrays = {name: np.empty([count, *shape], dtype) for name, (shape, dtype) in network.outputs.items()}
        self.items = [{name: array[i : i + 1] for name, array in tensors.items()} for i in range(count)]
        self.answers = [{name: array[i : i + 1] for name, array in self.arrays.items()} for i in range(count)]

    def ended(self, error):
        """An item has ended; error is None if it went well."""
        with self.lock:
            self.left -= 1
            self.error = self.error or error
            if self.left:
                return
        self.answer(self.error)

    def answer(self, error):
        """Sends what the request's arrays hold, or the error."""
        try:
            if error is None:
                try:
                    return self.send(answered(self.request, self.arrays))
                except Exception as caught:  # such as no shared memory left
                    error = caught
            self.send(failed(error))
        except BaseException as lost:
            # A request that is never answered would wait for ever, and its
            # client with it. The server notices a process that ends.
            pb_utils.Logger.log_error(f"a request could not be answered: {one_line(lost)}")
            os._exit(1)

    def send(self, response):
        self.sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


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
            f"{self.network.threads} threads, {max(1, len(self.network.streams))} items at a time"
        )

    def make_network(self, path, config):
        return Network(path, config)

    def execute(self, requests):
        jobs = []
        for request in requests:
            job = Job(request)
            try:
                job.unpack(self.network)
                jobs.append(job)
            except Exception as error:
                job.answer(error)
        self.network.run(jobs)

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
