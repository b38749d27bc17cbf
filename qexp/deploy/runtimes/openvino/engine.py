"""OpenVINO on the CPU: what stands between a Q/DQ graph and its numbers (OpenVINO 2026.4, x86).

OpenVINO reads a pair of QuantizeLinear and DequantizeLinear as one FakeQuantize, and its low-precision
passes turn what they can into products of integers. On tiny encoders compared with torch:

- Eight bits and fewer are exact, signed or not, with or without zero points, with weights per channel or
  per tensor, and with the Clip in front that a narrower grid has; both int8 and uint8 reach integer
  kernels, so nothing is shifted here. Only a value exactly between two steps may go to the other one:
  OpenVINO adds the zero point before it rounds, and it multiplies by ``1 / scale``.
- Sixteen bits are *taken out*: a pass that finds FakeQuantize with 65536 levels removes it. The engine
  spells these pairs out in arithmetic before OpenVINO sees them.
- Scales along the last axis of an activation are refused in some places ("doesn't support non per-tensor
  quantization for axis: 2"), depending on the operators around. The engine spells these out as well.
- Where only weights are quantized, the default is to quantize activations on the fly in groups of 32, which
  moves logits by about two percent. The engine turns that off (``DYNAMIC_QUANTIZATION_GROUP_SIZE``).
- Without VNNI instructions products of 8 bits add pairs in 16 bits and saturate: results are wrong. The
  engine finds out by multiplying the largest values, and then, or where the environment variable
  :data:`qexp.environment.EXACT_VARIABLE` says so, leaves to integers only the products whose weights stay
  within 7 bits, which cannot saturate; the others are computed in floating point.
- ``f16`` is accepted on a CPU without such arithmetic, and means bfloat16 there: refused here.
- Indices outside a table give numbers without any error: :mod:`qexp.deploy.onnx.input_limits` looks before.
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
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from qexp.artifacts.disk import write_whole
from qexp.config import Precision
from qexp.deploy.engine import Audit, Batch, Info, Order, check_names, not_installed
from qexp.deploy.hardware import exact_products_forced, processor
from qexp.deploy.onnx.decompose_qdq import readers, spell_out
from qexp.deploy.onnx.input_limits import limits
from qexp.deploy.onnx.io import read
from qexp.errors import DeployError

HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""OpenVINO's word for the arithmetic of what is not quantized."""
CAPABILITIES: dict[Precision, str] = {"bf16": "BF16", "fp16": "FP16"}
"""What the device has to say of itself for a precision that not every CPU has."""
SAFE_WEIGHT = 64
"""Largest magnitude for which two products with uint8 still fit 16 bits: 2 * 255 * 64 < 2**15."""


class CompiledGraph:
    """A graph compiled for this CPU."""

    def __init__(self, order: Order, *, exact: bool | None = None) -> None:
        """Read, rewrite where needed, and compile.

        Args:
            order: what to compile.
            exact: whether to compute as on a CPU without VNNI; None where that is necessary.

        Raises:
            DeployError: OpenVINO is not installed, the CPU lacks the precision, or the file is missing,
                damaged, or not a graph that OpenVINO knows.
        """
        started = time.perf_counter()
        openvino = _openvino()
        model = read(order.graph)
        self._limits = limits(model)
        _check_precision(order.precision)
        try:
            # Bytes only for a graph that was changed: by its path a file is read without a second copy.
            source = model.SerializeToString() if _rewrite(model, exact) else str(order.graph)
            graph = _core().read_model(source)
            self._compiled = _core().compile_model(graph, "CPU", _properties(order))
        except DeployError:
            raise
        except Exception as error:  # OpenVINO raises RuntimeError for anything
            raise DeployError(
                f"{order.graph}: OpenVINO {_version(openvino)} refuses the graph: {_last_line(error)}; "
                "export it again"
            ) from error
        self._order = order
        self._request = self._compiled.create_infer_request()
        self._types = {each.any_name: each.element_type.to_dtype() for each in self._compiled.inputs}
        self.inputs: tuple[str, ...] = tuple(self._types)
        """Names of the inputs."""
        self.info = Info(
            "openvino", _version(openvino), processor(), order.precision, order.graph.stat().st_size,
            time.perf_counter() - started, _command(order, self.inputs, _file(order, source)),
        )  # fmt: skip
        """What it is."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the graph's output of a batch that has exactly ``inputs``.

        Raises:
            DeployError: An input is missing or unknown, a value lies outside its table, the batch is too
                long, or OpenVINO refuses a shape.
        """
        check_names(self.inputs, batch)
        feed = {
            name: np.ascontiguousarray(np.asarray(batch[name]).astype(kind, casting="safe"))
            for name, kind in self._types.items()
        }
        self._limits.check(feed)
        try:
            results = self._request.infer(feed, share_inputs=True)
        except Exception as error:  # see above
            shapes = {name: values.shape for name, values in feed.items()}
            raise DeployError(
                f"batch: OpenVINO refuses it, with shapes {shapes}: {_last_line(error)}; give integers "
                "[batch, length] below the vocabulary size, not longer than the model's positions"
            ) from error
        output: NDArray[np.float32] = results[self._compiled.output(0)]
        return output

    def audit(self, batch: Batch) -> Audit | None:
        """What it does with a batch of that shape.

        Raises:
            DeployError: as ``run``.
        """
        from qexp.deploy.runtimes.openvino.audit import audit

        self.run(batch)  # says in words what is wrong with it
        return audit(self._compiled, self._order, batch)


def load(order: Order) -> CompiledGraph:
    """A compiled graph for an exported file.

    Raises:
        DeployError: as ``CompiledGraph``.
    """
    return CompiledGraph(order)


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
    wanted = CAPABILITIES.get(precision)
    known = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted is not None and wanted not in known:
        allowed = [each for each in HINTS if each not in CAPABILITIES or CAPABILITIES[each] in known]
        raise DeployError(
            f"precision {precision} is not what OpenVINO computes with on {processor()}; "
            f"allowed here are {', '.join(allowed)}"
        )


def _properties(order: Order) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": order.threads,
        "INFERENCE_PRECISION_HINT": HINTS[order.precision],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }


def _file(order: Order, source: bytes | str) -> Path | None:
    """The file of the graph that is compiled; a rewritten one is kept in the order's cache, if it has one."""
    if isinstance(source, str):
        return order.graph
    if order.cache is None:
        return None
    path = order.cache / f"{hashlib.sha256(source).hexdigest()[:32]}.openvino.onnx"
    write_whole(path, source)
    return path


def _command(order: Order, inputs: tuple[str, ...], graph: Path | None) -> str | None:
    """What the runtime's own tool has to be told for the engine's numbers; None if it has no file to read.

    Its own defaults quantize activations once more, and compute in bfloat16 where the CPU can. No option of
    the tool says the first, so it stands in a configuration, which a shell that knows ``<( )`` hands over.
    """
    if graph is None:
        return None
    kept = json.dumps({"CPU": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}})
    words = [
        f"benchmark_app -m {graph} -d CPU -hint none -api sync -nireq 1 -nstreams 1",
        f"-nthreads {order.threads} -infer_precision {HINTS[order.precision]}",
        f"-load_config <(echo '{kept}')",
    ]
    if order.shapes:
        rows, length = order.shapes[-1]
        shapes = ",".join(f"{name}[{rows},{length}]" for name in inputs)
        words.append(f"-data_shape {shapes}")
    return " ".join(words)


def _rewrite(model: ModelProto, exact: bool | None) -> bool:
    """Spell out what OpenVINO would compute wrongly; whether there was anything."""
    stored = {each.name: each for each in model.graph.initializer}
    wide = {TensorProto.INT16, TensorProto.UINT16}

    def unknown(node: NodeProto) -> bool:
        scale, point = (stored.get(name) for name in node.input[1:])
        return (point is not None and point.data_type in wide) or (scale is not None and len(scale.dims) > 0)

    changed = spell_out(model, unknown)
    if exact if exact is not None else exact_products_forced() or _products_saturate():
        safe = _safe_quantizers(model)
        changed |= spell_out(model, lambda node: node.output[0] not in safe)
    return changed


def _safe_quantizers(model: ModelProto) -> set[str]:
    """Outputs of quantizers that only feed products with stored weights too small to saturate."""
    weights = {each.name: each for each in model.graph.initializer}
    narrow = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in weights
        and int(np.abs(numpy_helper.to_array(weights[node.input[0]]).astype(np.int32)).max()) <= SAFE_WEIGHT
    }
    read_by = readers(model.graph)

    def safe(node: NodeProto) -> bool:
        pairs = read_by[node.output[0]]
        products = [each for pair in pairs for each in read_by[pair.output[0]]]
        return all(each.op_type in ("MatMul", "Gemm") and each.input[1] in narrow for each in products)

    return {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear" and safe(node)}


@cache
def _products_saturate() -> bool:
    """Whether this CPU's product of uint8 by int8 goes wrong with the largest values."""
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
    """What went wrong: OpenVINO writes places in its source first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith("Exception from ")]
    return " ".join(kept) or "no message"
