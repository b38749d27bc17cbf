"""Creation of ONNX Runtime sessions whose integer products are exact on every CPU.

On x86 without VNNI instructions ONNX Runtime's product of uint8 by int8 adds pairs in 16 bits, and saturates:
results are wrong, not just rounded. Multiplying the largest values shows whether this CPU does so. If it
does, or if the environment variable :data:`qexp.environment.EXACT_VARIABLE` forces it, sessions use exact
products (``session.x64quantprecision``), which are slower. A graph whose stored weights cannot saturate
(:mod:`qexp.deploy.onnx.saturation`) needs none, and keeps the fast ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qexp.deploy.hardware import exact_products_forced
from qexp.deploy.onnx.saturation import cannot_saturate
from qexp.deploy.onnx.uint8 import shift_shared_weights

PROVIDERS = ["CPUExecutionProvider"]
"""Execution providers of every session: the CPU only, whatever else is available."""
EXACT = "session.x64quantprecision"
"""Session option on x86 to multiply uint8 by uint8, which does not saturate."""
LARGE = 1 << 20
"""Bytes from which a graph in memory is handed over as a file."""


def new_session(
    graph: Path | ModelProto, options: onnxruntime.SessionOptions | None = None, *, exact: bool | None = None
) -> onnxruntime.InferenceSession:
    """Create a session.

    Args:
        graph: File, or graph in memory, which is not modified.
        options: Session options, None for ONNX Runtime's defaults; exact products may be enabled in place.
        exact: Whether products must be exact without VNNI, too; None means where this CPU has none. It costs
            speed unless no product of the graph can saturate.

    Raises:
        Exception: The runtime refuses the graph; its exceptions have no other common base.
        DeployError: The environment variable is neither 0 nor 1.
    """
    options = options or onnxruntime.SessionOptions()
    if exact if exact is not None else exact_products_forced() or products_saturate():
        model = onnx.load(graph, load_external_data=False) if isinstance(graph, Path) else _copy(graph)
        if not cannot_saturate(model):
            options.add_session_config_entry(EXACT, "1")
            graph = model if shift_shared_weights(model) else graph
    return _session(graph, options)


@cache
def products_saturate() -> bool:
    """Return whether this CPU's default product of uint8 by int8 is wrong for the largest values."""
    left, right = np.full((4, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "largest_products",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, left.shape)],
        [helper.make_tensor_value_info("product", TensorProto.INT32, (4, 16))],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    product = _session(model, onnxruntime.SessionOptions()).run(None, {"left": left})[0]
    return not np.array_equal(product, left.astype(np.int32) @ right.astype(np.int32))


def _copy(graph: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(graph)
    return copy


def _session(graph: Path | ModelProto, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    if isinstance(graph, Path):
        return onnxruntime.InferenceSession(str(graph), options, providers=PROVIDERS)
    data = graph.SerializeToString()
    with _as_file(data) as file:
        return onnxruntime.InferenceSession(data if file is None else str(file), options, providers=PROVIDERS)


@contextmanager
def _as_file(data: bytes) -> Iterator[Path | None]:
    """Put a large graph into a file meanwhile: a session that is made from bytes keeps them.

    It does so in ONNX Runtime 1.32, for a second try with other providers.

    Yields:
        The file; None for a small graph, or where there is no room for one.
    """
    with ExitStack() as stack:
        file = None
        if len(data) >= LARGE:
            try:
                place = tempfile.TemporaryDirectory(prefix="qexp-", ignore_cleanup_errors=True)
                file = Path(stack.enter_context(place)) / "model.onnx"
                file.write_bytes(data)
            except OSError:
                file = None
        yield file
