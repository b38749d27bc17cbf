"""ONNX Runtime on the CPU: logits out of an exported file, as exact as the file and as fast as the CPU.

Three things stand between a Q/DQ graph and right, fast numbers (ONNX Runtime 1.31, x86):

- Its fast integer product multiplies uint8 activations by int8 weights. int8 activations take a kernel
  several times slower, and the runtime's own change to uint8 passes over an activation that feeds more
  than one product, such as the input of query, key and value, which then stays in floating point. So
  the session itself shifts int8 activations by 128 before the runtime sees them; zero points move along,
  and every number stays what it was.
- Without VNNI instructions that product adds pairs in 16 bits and saturates: results are wrong, not just
  rounded. :mod:`qexp.deploy.runtimes.onnxruntime.session` finds out, and then asks for exact products, which
  cost some speed, and makes graphs whose products share weights loadable with them.
- Where only weights are quantized, the runtime's default is to quantize the activations on its own
  account, which moves logits by about one percent. The session turns that off.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from qexp.deploy.engine import Audit, Batch, Info, Order, check_names
from qexp.deploy.hardware import processor
from qexp.deploy.onnx.io import read
from qexp.deploy.runtimes.onnxruntime.audit import audit
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.deploy.runtimes.onnxruntime.uint8 import shift_activations
from qexp.errors import DeployError

TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
"""Types of the inputs that an exported graph has."""


class Session:
    """A loaded file, ready to run."""

    def __init__(self, order: Order, *, optimized: bool = True, exact: bool | None = None) -> None:
        """Load and optimize an exported file.

        Args:
            order: what to load.
            optimized: whether nodes become integer products at all.
            exact: whether to compute as on a CPU without VNNI; None where that is necessary.

        Raises:
            DeployError: The file is missing, damaged, or not a graph that the runtime knows.
        """
        started = time.perf_counter()
        self._order, self._optimized = order, optimized
        # As it is written, a file has no product of integers that could saturate.
        self._exact = exact if optimized else False
        options = _options(order.threads, optimized)
        self._session = _session(order.graph, options, shift=optimized, exact=self._exact)
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
        feed = self._feed(batch)
        return audited(self._order.graph, options, feed, shift=self._optimized, exact=self._exact)

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


def audited(
    graph: Path,
    options: onnxruntime.SessionOptions,
    feed: Batch,
    *,
    shift: bool = True,
    exact: bool | None = None,
) -> Audit:
    """What a session with these options does with a batch: one run of its own, with a profile.

    Args:
        graph: an exported file.
        options: of the session; they come back with profiling on.
        feed: the graph's inputs, the first of them [rows, tokens].
        shift: whether int8 activations become uint8 first, as in ``Session``.
        exact: as in ``Session``.

    Raises:
        DeployError: The runtime refuses the graph or the batch.
    """
    with tempfile.TemporaryDirectory(prefix="qexp-audit-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = _session(graph, options, shift=shift, exact=exact)
        try:
            _run(session, feed)
        finally:
            profile = Path(session.end_profiling())
        rows, tokens = next(iter(feed.values())).shape[:2]
        events = json.loads(profile.read_text(encoding="utf-8"))
        return audit(onnx.load(optimized, load_external_data=False), events, (rows, tokens))


def _session(
    graph: Path, options: onnxruntime.SessionOptions, *, shift: bool, exact: bool | None
) -> onnxruntime.InferenceSession:
    model = read(graph)
    try:
        return new_session(model if shift and shift_activations(model) else graph, options, exact=exact)
    except DeployError:
        raise
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


def _options(threads: int, optimized: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; the log would only say it a second time
    # Level 4, the default, quantizes the floating-point input of a product with integer weights as well.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return options
