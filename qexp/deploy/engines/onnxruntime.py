"""ONNX Runtime on the CPU: logits out of an exported file, as exact as the file and as fast as the CPU.

Three things stand between a Q/DQ graph and right, fast numbers (ONNX Runtime 1.31, x86):

- Its fast integer product multiplies uint8 activations by int8 weights. int8 activations take a kernel
  several times slower, and the runtime's own change to uint8 passes over an activation that feeds more
  than one product, such as the input of query, key and value, which then stays in floating point. So
  the session itself shifts int8 activations by 128 before the runtime sees them; zero points move along,
  and every number stays what it was.
- Without VNNI instructions that product adds pairs in 16 bits and saturates: results are wrong, not just
  rounded. The session finds out by multiplying the largest values, and then asks for exact products
  (``session.x64quantprecision``), which cost some speed.
- Where only weights are quantized, the runtime's default is to quantize the activations on its own
  account, which moves logits by about one percent. The session turns that off.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from qexp.deploy.audits.onnxruntime import audit
from qexp.deploy.engine import Audit, Batch, Info, Order, check_names
from qexp.deploy.onnx_file import read
from qexp.errors import DeployError
from qexp.host import processor

PROVIDERS = ["CPUExecutionProvider"]
"""The part of ONNX Runtime that is used: the CPU, wherever else it could run."""
TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
"""Types of the inputs that an exported graph has."""


class Session:
    """A loaded file, ready to run."""

    def __init__(self, order: Order, *, optimized: bool = True) -> None:
        """Load and optimize an exported file.

        Raises:
            DeployError: The file is missing, damaged, or not a graph that the runtime knows.
        """
        started = time.perf_counter()
        self._order, self._optimized = order, optimized
        options = _options(order.threads, optimized)
        self._session = _session(order.graph, options, shift=optimized)
        self.info = Info(
            "onnxruntime", onnxruntime.__version__, processor(), order.precision,
            order.graph.stat().st_size, time.perf_counter() - started,
        )  # fmt: skip
        """What it is."""
        self._types = {value.name: TYPES[value.type] for value in self._session.get_inputs()}
        self.inputs: tuple[str, ...] = tuple(self._types)
        """Names of the inputs: int64, or float32 of what another graph has put out."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits [batch, outputs] of a batch that has exactly ``inputs``.

        Raises:
            DeployError: An input is missing or unknown, or the runtime refuses a value or shape.
        """
        return _run(self._session, self._feed(batch))

    def audit(self, batch: Batch) -> Audit | None:
        """What it does with a batch of that shape, from the profile of a second session.

        Raises:
            DeployError: as ``run``.
        """
        options = _options(self._order.threads, self._optimized)
        return audited(self._order.graph, options, self._feed(batch), shift=self._optimized)

    def _feed(self, batch: Batch) -> dict[str, NDArray[Any]]:
        check_names(self.inputs, batch)
        return {
            name: np.asarray(values).astype(self._types[name], casting="safe")
            for name, values in batch.items()
        }


def load(order: Order) -> Session:
    """A session for an exported file.

    Raises:
        DeployError: as ``Session``.
    """
    return Session(order)


def as_written(order: Order) -> Session:
    """A session that computes every node of the file as it stands, without any optimization: slow, and right.

    Raises:
        DeployError: as ``Session``.
    """
    return Session(order, optimized=False)


def audited(graph: Path, options: onnxruntime.SessionOptions, feed: Batch, *, shift: bool = True) -> Audit:
    """What a session with these options does with a batch: one run of its own, with a profile.

    Args:
        graph: an exported file.
        options: of the session; they come back with profiling on.
        feed: the graph's inputs, the first of them [rows, tokens].
        shift: whether int8 activations become uint8 first, as in ``Session``.

    Raises:
        DeployError: The runtime refuses the graph or the batch.
    """
    with tempfile.TemporaryDirectory(prefix="qexp-audit-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = _session(graph, options, shift=shift)
        try:
            _run(session, feed)
        finally:
            profile = Path(session.end_profiling())
        rows, tokens = next(iter(feed.values())).shape[:2]
        events = json.loads(profile.read_text(encoding="utf-8"))
        return audit(onnx.load(optimized, load_external_data=False), events, (rows, tokens))


def _session(
    graph: Path, options: onnxruntime.SessionOptions, *, shift: bool = True
) -> onnxruntime.InferenceSession:
    model = read(graph)
    try:
        # Bytes only for a graph that was changed: by its path a file is read without a second copy.
        source = model.SerializeToString() if shift and shift_activations(model) else str(graph)
        return onnxruntime.InferenceSession(source, options, providers=PROVIDERS)
    except Exception as error:  # the runtime's exceptions have no common base but this one
        raise DeployError(
            f"{graph}: ONNX Runtime {onnxruntime.__version__} refuses the graph: {error}; export it again"
        ) from error


def _run(session: onnxruntime.InferenceSession, feed: Batch) -> NDArray[np.float32]:
    try:
        logits: NDArray[np.float32] = session.run(None, feed)[0]
    except Exception as error:  # see above
        shapes = {name: values.shape for name, values in feed.items()}
        raise DeployError(
            f"batch: ONNX Runtime refuses it, with shapes {shapes}: {error}; give integers "
            "[batch, length] below the vocabulary size, not longer than the model's positions"
        ) from error
    return logits


def shift_activations(model: onnx.ModelProto) -> bool:
    """Turn int8 activations into uint8 by adding 128 to their zero points, in place.

    ``clamp(round(x / s) + z, -128, 127) + 128 == clamp(round(x / s) + z + 128, 0, 255)``, so what comes
    out of DequantizeLinear does not change by a bit. Weights keep their type.

    Returns:
        Whether anything changed.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    changed = False
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            pair = [node, *readers[node.output[0]]]
            if all(reader.op_type == "DequantizeLinear" for reader in pair[1:]) and _all_int8(pair, stored):
                for member in pair:
                    member.input[2] = _shifted(model.graph, member.input[2], stored)
                changed = True
    return changed


def _all_int8(nodes: list[NodeProto], stored: Mapping[str, TensorProto]) -> bool:
    points = [stored.get(node.input[2]) if len(node.input) == 3 else None for node in nodes]
    return all(point is not None and point.data_type == TensorProto.INT8 for point in points)


def _shifted(graph: onnx.GraphProto, name: str, stored: dict[str, TensorProto]) -> str:
    """Name of the uint8 twin of an int8 zero point, made where it is not there yet."""
    twin = f"{name}.uint8"
    if twin not in stored:
        values = (numpy_helper.to_array(stored[name]).astype(np.int16) + 128).astype(np.uint8)
        stored[twin] = numpy_helper.from_array(values, twin)
        graph.initializer.append(stored[twin])
    return twin


def _options(threads: int, optimized: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; the log would only say it a second time
    # Level 4, the default, quantizes the floating-point input of a product with integer weights as well.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if _products_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


@cache
def _products_saturate() -> bool:
    """Whether this CPU's product of uint8 by int8 goes wrong with the largest values."""
    left, right = np.full((4, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "largest_products",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, left.shape)],
        [helper.make_tensor_value_info("product", TensorProto.INT32, (4, 16))],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=PROVIDERS)
    product = session.run(None, {"left": left})[0]
    return not np.array_equal(product, left.astype(np.int32) @ right.astype(np.int32))
