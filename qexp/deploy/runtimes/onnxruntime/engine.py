"""Engine of ONNX Runtime on the CPU, with the settings that make Q/DQ graphs exact and fast.

Three issues need attention to get exact and fast results (ONNX Runtime 1.31, x86):

- The fast integer product multiplies uint8 activations by int8 weights. int8 activations use a kernel that is
  several times slower, and the runtime's own conversion to uint8 skips an activation that feeds more than
  one product, such as the input of query, key and value, which then stays in floating point. So the
  engine shifts int8 activations by 128 before the runtime sees them; zero points shift too, and no result
  changes.
- Without VNNI instructions that product adds pairs in 16 bits and saturates: results are wrong, not just
  rounded. :mod:`qexp.deploy.runtimes.onnxruntime.session` detects this and requests exact products, which
  cost some speed. It also rewrites graphs whose products share weights so that they load with exact products.
- Where only weights are quantized, the runtime by default also quantizes the activations, which changes
  logits by about one percent. The session turns that off.
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

from qexp.deploy.engine import Audit, Batch, EngineSpec, Info, check_names
from qexp.deploy.hardware import processor
from qexp.deploy.onnx.io import read
from qexp.deploy.onnx.uint8 import shift_activations
from qexp.deploy.runtimes.onnxruntime.audit import audit
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.errors import DeployError

TYPES = {
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}
"""Types of the inputs that an exported graph has."""


class OnnxRuntimeEngine:
    """Session of an exported file, ready to run."""

    def __init__(self, spec: EngineSpec, *, optimized: bool = True, exact: bool | None = None) -> None:
        """Load and optimize an exported file.

        Args:
            spec: What to load.
            optimized: whether nodes become integer products at all.
            exact: whether to compute as on a CPU without VNNI; None where that is necessary.

        Raises:
            DeployError: The file is missing, damaged, or not a graph that the runtime supports.
        """
        started = time.perf_counter()
        self._spec, self._optimized = spec, optimized
        # A graph without optimizations has no integer product that could saturate.
        self._exact = exact if optimized else False
        options = _options(spec.threads, optimized)
        self._session = _session(spec.graph, options, shift=optimized, exact=self._exact)
        self.info = Info(
            "onnxruntime",
            onnxruntime.__version__,
            device=processor(),
            precision=spec.precision,
            bytes=spec.graph.stat().st_size,
            build_seconds=time.perf_counter() - started,
        )
        """Description of the engine."""
        self.types = {value.name: TYPES[value.type] for value in self._session.get_inputs()}
        """NumPy type of each input: int64, or that of outputs of another graph."""
        self.inputs: tuple[str, ...] = tuple(self.types)
        """Names of the inputs."""
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Return the logits [batch, outputs] of a batch that has exactly ``inputs``.

        Raises:
            DeployError: An input is missing or unknown, or the runtime refuses a value or shape.
        """
        logits: NDArray[np.float32] = _run(self._session, self._feed(batch), self._outputs[:1])[0]
        return logits

    def run_all(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Return all outputs by name.

        Raises:
            DeployError: As in ``run``.
        """
        return dict(zip(self._outputs, _run(self._session, self._feed(batch)), strict=True))

    def audit(self, batch: Batch) -> Audit | None:
        """Return the work done for a batch of this shape, from the profile of a second session.

        Raises:
            DeployError: As in ``run``.
        """
        options = _options(self._spec.threads, self._optimized)
        feed = self._feed(batch)
        return audited(self._spec.graph, options, feed, shift=self._optimized, exact=self._exact)

    def _feed(self, batch: Batch) -> dict[str, NDArray[Any]]:
        check_names(self.inputs, batch)
        return {
            name: np.asarray(values).astype(self.types[name], casting="safe", copy=False)
            for name, values in batch.items()
        }


def load(spec: EngineSpec) -> OnnxRuntimeEngine:
    """Load an exported file into an optimized session.

    Raises:
        DeployError: As in ``OnnxRuntimeEngine``.
    """
    return OnnxRuntimeEngine(spec)


def as_written(spec: EngineSpec) -> OnnxRuntimeEngine:
    """Load an exported file without any optimization: every node is computed as written, slowly but exactly.

    Raises:
        DeployError: As in ``OnnxRuntimeEngine``.
    """
    return OnnxRuntimeEngine(spec, optimized=False)


def audited(
    graph: Path,
    options: onnxruntime.SessionOptions,
    feed: Batch,
    *,
    shift: bool = True,
    exact: bool | None = None,
) -> Audit:
    """Audit a session with these options: run a batch once in a new session, with profiling.

    Args:
        graph: Exported file.
        options: Options of the session; modified in place to enable profiling.
        feed: Inputs of the graph, the first of them [rows, tokens].
        shift: Whether to convert int8 activations to uint8 first, as in ``OnnxRuntimeEngine``.
        exact: As in ``OnnxRuntimeEngine``.

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
    model = read(graph, unpack=False)
    try:
        return new_session(model if shift and shift_activations(model) else graph, options, exact=exact)
    except DeployError:
        raise
    except Exception as error:  # the runtime's exceptions have no other common base
        raise DeployError(
            f"{graph}: ONNX Runtime {onnxruntime.__version__} refuses the graph: {error}; export it again"
        ) from error


def _run(
    session: onnxruntime.InferenceSession, feed: Batch, outputs: list[str] | None = None
) -> list[NDArray[Any]]:
    """Return the named outputs for a feed, or all."""
    try:
        results: list[NDArray[Any]] = session.run(outputs, feed)
    except Exception as error:  # as in _session
        shapes = {name: values.shape for name, values in feed.items()}
        raise DeployError(
            f"batch: ONNX Runtime refuses it, with shapes {shapes}: {error}; give integers "
            "[batch, length] below the vocabulary size, not longer than the model's positions"
        ) from error
    return results


def _options(threads: int, optimized: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; the log would repeat them
    # The default, level 4, also quantizes the floating-point input of a product with integer weights.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return options
