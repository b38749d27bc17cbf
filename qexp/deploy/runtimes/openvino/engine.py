"""Engine of OpenVINO on the CPU, with the settings that Q/DQ graphs need (OpenVINO 2026.4, x86).

OpenVINO reads a Q/DQ pair as one FakeQuantize, and its low-precision passes turn products into integer
products where they can. On tiny encoders, compared with torch:

- Grids of at most 8 bits are exact, signed or not, with or without zero points, with per-channel or
  per-tensor weights, and with the Clip in front that a narrower grid has; both int8 and uint8 reach integer
  kernels, so no values are shifted. Only a value exactly between two steps may round to the other one:
  OpenVINO adds the zero point before it rounds, and it multiplies by ``1 / scale``.
- Grids of 16 bits are *removed*, by a pass that matches FakeQuantize with 65536 levels. The engine decomposes
  these pairs into arithmetic before OpenVINO sees them.
- Scales along the last axis of an activation are refused in some places ("doesn't support non per-tensor
  quantization for axis: 2"), depending on the surrounding operators. The engine decomposes these as well.
- A graph is refused where rows of a floating-point table meet rows of an integer table with one scale, as in
  ``recipe=q8bert``, and values are quantized behind a product, a ``Reshape`` and a ``Transpose``. The engine
  has them quantized before the ``Reshape``, with the same numbers.
- Where only weights are quantized, the default is to quantize activations on the fly in groups of 32, which
  changes logits by about two percent. The engine turns that off (``DYNAMIC_QUANTIZATION_GROUP_SIZE``).
- Without VNNI instructions 8-bit products add pairs in 16 bits and saturate: results are wrong. The
  engine detects this by multiplying the largest values. If so, or if the environment variable
  :data:`qexp.environment.EXACT_VARIABLE` forces it, only products whose stored weights cannot saturate
  (:mod:`qexp.deploy.onnx.saturation`) use integers; the others are computed in floating point.
- ``f16`` is accepted on a CPU without such arithmetic, and means bfloat16 there: the engine refuses it.
- Indices outside a table give numbers without any error: :mod:`qexp.deploy.onnx.input_limits` checks first.
"""

from __future__ import annotations

import hashlib
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qexp.artifacts.disk import write_whole
from qexp.config import Precision
from qexp.deploy.engine import Audit, Batch, EngineSpec, Info, check_names, not_installed
from qexp.deploy.hardware import exact_products_forced, processor
from qexp.deploy.onnx.input_limits import limits
from qexp.deploy.onnx.io import opset_of, read
from qexp.deploy.runtimes.capabilities import check_graph
from qexp.deploy.runtimes.openvino.rewrites import rewrite
from qexp.errors import DeployError

HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""OpenVINO's name for the arithmetic of everything that is not quantized."""
CAPABILITIES: dict[Precision, str] = {"bf16": "BF16", "fp16": "FP16"}
"""Capability that the device must report for a precision that not every CPU has."""


REFUSED_OPSET = 25
"""Opset of graphs with INT2, which OpenVINO 2026.4 refuses; from memory it gets them in whole bytes."""


class OpenVinoEngine:
    """Graph compiled for this CPU."""

    def __init__(self, spec: EngineSpec, *, exact: bool | None = None) -> None:
        """Read, rewrite where needed, and compile.

        Args:
            spec: What to compile.
            exact: whether to compute as on a CPU without VNNI; None where that is necessary.

        Raises:
            DeployError: OpenVINO is not installed, the CPU lacks the precision, or the file is missing,
                damaged, or not a graph that OpenVINO supports.
        """
        started = time.perf_counter()
        openvino = _openvino()
        model = read(spec.graph)
        check_graph("openvino", model, str(spec.graph))
        self._limits = limits(model)
        self._outputs = [each.name for each in model.graph.output]  # OpenVINO may add names of its own
        _check_precision(spec.precision)
        try:
            # Bytes only for a changed graph: loading by path avoids a second copy in memory.
            saturating = exact if exact is not None else exact_products_forced() or _products_saturate()
            changed = rewrite(model, saturating=saturating) or opset_of(model) >= REFUSED_OPSET
            source = model.SerializeToString() if changed else str(spec.graph)
            graph = _core().read_model(source)
            self._compiled = _core().compile_model(graph, "CPU", _properties(spec))
        except DeployError:
            raise
        except Exception as error:  # OpenVINO raises RuntimeError for anything
            raise DeployError(
                f"{spec.graph}: OpenVINO {_version(openvino)} refuses the graph: {_last_line(error)}; "
                "export it again"
            ) from error
        self._spec = spec
        self._request = self._compiled.create_infer_request()
        self.types = {each.any_name: each.element_type.to_dtype() for each in self._compiled.inputs}
        """NumPy type of each input."""
        self.inputs: tuple[str, ...] = tuple(self.types)
        """Names of the inputs."""
        self.info = Info(
            "openvino",
            _version(openvino),
            device=processor(),
            precision=spec.precision,
            bytes=spec.graph.stat().st_size,
            build_seconds=time.perf_counter() - started,
            command=_command(spec, self.inputs, _file(spec, source)),
        )
        """Description of the engine."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the graph's output for a batch that has exactly ``inputs``.

        Raises:
            DeployError: An input is missing or unknown, a value lies outside its table, the batch is too
                long, or OpenVINO refuses a shape.
        """
        output: NDArray[np.float32] = self._infer(batch)[self._compiled.output(0)]
        return output

    def run_all(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Return all outputs by name.

        Raises:
            DeployError: As in ``run``.
        """
        results = self._infer(batch)
        return {name: results[index] for index, name in enumerate(self._outputs)}

    def _infer(self, batch: Batch) -> Any:
        check_names(self.inputs, batch)
        feed = {
            name: np.ascontiguousarray(np.asarray(batch[name]).astype(kind, casting="safe", copy=False))
            for name, kind in self.types.items()
        }
        self._limits.check(feed)
        try:
            return self._request.infer(feed, share_inputs=True)
        except Exception as error:  # a RuntimeError, as above
            shapes = {name: values.shape for name, values in feed.items()}
            raise DeployError(
                f"batch: OpenVINO refuses it, with shapes {shapes}: {_last_line(error)}; give integers "
                "[batch, length] below the vocabulary size, not longer than the model's positions"
            ) from error

    def audit(self, batch: Batch) -> Audit | None:
        """Return the work done for a batch of this shape.

        Raises:
            DeployError: As in ``run``.
        """
        from qexp.deploy.runtimes.openvino.audit import audit

        self.run(batch)  # raises a clear error for an invalid batch
        return audit(self._compiled, self._spec, batch)


def load(spec: EngineSpec) -> OpenVinoEngine:
    """Compile an exported file.

    Raises:
        DeployError: As in ``OpenVinoEngine``.
    """
    return OpenVinoEngine(spec)


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise not_installed("openvino", "openvino") from error
    return openvino


@cache
def _core() -> Any:
    return _openvino().Core()


def _version(openvino: Any) -> str:
    return str(openvino.get_version()).split("-")[0]


def _check_precision(precision: Precision) -> None:
    required = CAPABILITIES.get(precision)
    available = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if required is not None and required not in available:
        allowed = [each for each in HINTS if each not in CAPABILITIES or CAPABILITIES[each] in available]
        raise DeployError(
            f"precision {precision} is not what OpenVINO computes with on {processor()}; "
            f"allowed here are {', '.join(allowed)}"
        )


def _properties(spec: EngineSpec) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": spec.threads,
        "INFERENCE_PRECISION_HINT": HINTS[spec.precision],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }


def _file(spec: EngineSpec, source: bytes | str) -> Path | None:
    """Return the file of the compiled graph; a rewritten graph is stored in the cache folder, if any."""
    if isinstance(source, str):
        return spec.graph
    if spec.cache is None:
        return None
    path = spec.cache / f"{hashlib.sha256(source).hexdigest()[:32]}.openvino.onnx"
    write_whole(path, source)
    return path


def _command(spec: EngineSpec, inputs: tuple[str, ...], graph: Path | None) -> str | None:
    """Return the ``benchmark_app`` command that reproduces the engine's speed; None without a file to read.

    The tool's defaults quantize activations again, and compute in bfloat16 where the CPU can. It has no
    option to turn off the former, so a configuration does, which needs a shell with ``<( )``.
    """
    if graph is None:
        return None
    config = json.dumps({"CPU": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}})
    arguments = [
        f"benchmark_app -m {graph} -d CPU -hint none -api sync -nireq 1 -nstreams 1",
        f"-nthreads {spec.threads} -infer_precision {HINTS[spec.precision]}",
        f"-load_config <(echo '{config}')",
    ]
    if spec.shapes:
        rows, length = spec.shapes[-1]
        shapes = ",".join(f"{name}[{rows},{length}]" for name in inputs)
        arguments.append(f"-data_shape {shapes}")
    return " ".join(arguments)


@cache
def _products_saturate() -> bool:
    """Return whether this CPU's product of uint8 by int8 is wrong for the largest values."""
    depth, width = 64, 16
    ones = [
        numpy_helper.from_array(np.ones(size, np.float32), name) for size, name in (((), "s"), (width, "ws"))
    ]
    points = [
        numpy_helper.from_array(np.array(0, np.uint8), "z"),
        numpy_helper.from_array(np.zeros(width, np.int8), "wz"),
    ]
    weight = numpy_helper.from_array(np.full((depth, width), 127, np.int8), "w")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wq"], axis=1),
        helper.make_node("MatMul", ["xq", "wq"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "largest_products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", width])],
        [*ones, *points, weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = _core().compile_model(_core().read_model(model.SerializeToString()), "CPU", hints)
    result = compiled({"x": np.full((4, depth), 255, np.float32)})[0]
    return not np.array_equal(result, np.full((4, width), 255 * 127 * depth, np.float32))


def _last_line(error: Exception) -> str:
    """Return the message of an error without the source locations that OpenVINO writes first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    messages = [line for line in lines if not line.startswith("Exception from ")]
    return " ".join(messages) or "no message"
