"""Conversion of an exported graph to FP16 where that is safe; inputs and outputs keep their types.

FP16 ends at 65504 and has 11 significant bits. So these nodes stay in FP32, with casts at their borders:

- squares, means and roots, which make up norms without an operator of their own, and the nodes between
  them (``LayerNormalization`` itself computes its statistics in FP32 by definition);
- values that are rounded to an integer afterwards, such as the buckets of T5's relative positions;
- Q/DQ pairs whose grid has 16 bits, or whose scales FP16 cannot represent closely enough.

Constants that stand for "minus infinity" in an attention mask become -32768: far below every score, and
still finite when a score is added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qexp.deploy.onnx.io import checked, first_line, opset_of, read, write
from qexp.deploy.onnx.packing import pack_weights
from qexp.deploy.onnx.values import constant, initializer
from qexp.errors import DeployError

FULL, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
IN_FULL = frozenset(
    {"Pow", "ReduceMean", "ReduceSum", "ReduceL2", "Sqrt", "Reciprocal", "Exp", "Log", "Range", "CumSum"}
)
"""Operators that overflow, or lose too much, in FP16."""
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
MASKED = 2.0**15
"""Magnitude of the finite number that replaces infinity."""
SMALLEST = 2.0**-25
"""Magnitude below which FP16 rounds to zero."""
OLDEST = 19
"""First opset whose quantizers take FP16."""
SCALE_ERROR = 2.0**-8
"""Largest relative error of a scale: at the end of a grid, 1/4 of a step with 6 bits and 1/2 with 8."""


def to_fp16(path: Path, target: Path | None = None) -> Path:
    """Write the FP16 form of an exported FP32 or Q/DQ graph.

    Args:
        path: File of the graph.
        target: File to write; None selects ``NAME.fp16.onnx`` beside the graph.

    Returns:
        Path of the written file.

    Raises:
        DeployError: The file is missing or damaged, its opset is too old, or it holds values beyond FP16.
    """
    model = _typed(read(path), path)
    kept = _in_full(model.graph)
    _convert(model.graph, kept)
    _restore_outputs(model.graph)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()
    pack_weights(model)
    target = target or path.with_name(f"{path.stem}.fp16.onnx")
    write(checked(model), target)
    return target


def _typed(proto: onnx.ModelProto, path: Path) -> ir.Model:
    """Return the graph with the type of every value inferred."""
    opset = opset_of(proto)
    if opset < OLDEST:
        raise DeployError(
            f"{path}: has opset {opset}, quantizers know FP16 from {OLDEST} on; export it with a later one"
        )
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise DeployError(f"{path}: is not valid ONNX: {first_line(error)}; export it again") from error
    return ir.from_proto(inferred)


def _in_full(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that have to compute in FP32."""
    kept = {node for node in graph if node.op_type in IN_FULL or _is_coarse(node)}
    for node in graph:
        if node.op_type == "Cast" and ir.DataType(node.attributes["to"].as_int()).is_integer():
            kept |= _float_ancestors(node)
    changed = True
    while changed:
        between = {node for node in graph if node not in kept and _lies_between(node, kept)}
        kept |= between
        changed = bool(between)
    return kept


def _is_coarse(node: ir.Node) -> bool:
    """Return whether FP16 is too coarse for the grid of a quantizer, or for a constant that a node reads."""
    if node.op_type not in QUANTIZERS:
        return any(_vanishes(value) for value in node.inputs)
    scale, point = constant(node.inputs[1]), constant(node.inputs[2])
    if scale is None or point is None or point.dtype.bitwidth > 8:
        return True
    scales = scale.numpy().astype(np.float64)
    with np.errstate(over="ignore"):
        rounded = scales.astype(np.float16).astype(np.float64)
    error = np.abs(rounded - scales) > SCALE_ERROR * scales
    return bool((error & _used(node, scales)).any())


def _used(node: ir.Node, scales: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask of the scales whose stored integers are not all zero."""
    stored = constant(node.inputs[0])
    if stored is None or scales.ndim == 0:
        return np.ones_like(scales, bool)
    axis = node.attributes.get_int("axis", 1)
    others = tuple(index for index in range(len(stored.shape)) if index != axis)
    return np.asarray(stored.numpy().astype(np.int16).any(axis=others))


def _vanishes(value: ir.Value | None) -> bool:
    """Return whether a value is a single number that FP16 would round to zero."""
    stored = constant(value)
    if stored is None or stored.dtype != FULL or stored.size != 1:
        return False
    number = stored.numpy().ravel()[0]
    return bool(0 < abs(number) < SMALLEST)


def _float_ancestors(node: ir.Node) -> set[ir.Node]:
    """Return all nodes that the inputs of a node depend on through FP32 values."""
    producers: set[ir.Node] = set()
    pending = [node]
    while pending:
        for value in pending.pop().inputs:
            producer = value.producer() if value is not None and value.dtype == FULL else None
            if producer is not None and producer not in producers:
                producers.add(producer)
                pending.append(producer)
    return producers


def _lies_between(node: ir.Node, kept: set[ir.Node]) -> bool:
    """Return whether all FP32 values that a node reads and writes come from, and go to, FP32 nodes."""
    computed = [value for value in node.inputs if value is not None and constant(value) is None]
    before = [value.producer() for value in computed if value.dtype == FULL]
    after = [use.node for value in node.outputs for use in value.uses() if value.dtype == FULL]
    return bool(before and after) and all(each in kept for each in [*before, *after])


def _convert(graph: ir.Graph, kept: set[ir.Node]) -> None:
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    for node in list(graph):
        target = FULL if node in kept else HALF
        for index, value in enumerate(node.inputs):
            if value is None or node.op_type in ("Cast", "Shape") or value.dtype not in (FULL, HALF):
                continue
            if value.dtype != target:
                if (value, target) not in casts:
                    casts[value, target] = _cast_value(graph, value, target)
                node.replace_input_with(index, casts[value, target])
        if node not in kept:
            _retype(node)


def _cast_value(graph: ir.Graph, value: ir.Value, wanted: ir.DataType) -> ir.Value:
    stored = constant(value)
    if stored is not None:
        return initializer(graph, f"{value.name}.half", _rounded(stored.numpy(), value.name))
    cast = ir.node("Cast", [value], {"to": wanted})
    cast.outputs[0].dtype = wanted
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], cast)
    else:
        graph.insert_after(producer, cast)
    return cast.outputs[0]


def _rounded(values: NDArray[Any], name: str | None) -> NDArray[np.float16]:
    """Round to FP16; values that stand for infinity become ``MASKED``.

    Raises:
        DeployError: A value is beyond the range of FP16.
    """
    masked = np.abs(values) >= 1e30
    values = np.where(masked, np.sign(values) * MASKED, values)
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise DeployError(
            f"{name}: has a value of {np.abs(values).max():.3g}, beyond FP16's 65504; keep this model in FP32"
        )
    return np.asarray(values.astype(np.float16))


def _retype(node: ir.Node) -> None:
    """Change the FP32 outputs and constants of a node to FP16."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == FULL:
        node.attributes["to"] = ir.AttrInt64("to", HALF)
    if node.op_type in ("Constant", "ConstantOfShape") and "value" in node.attributes:
        tensor = node.attributes["value"].as_tensor()
        if tensor.dtype == FULL:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_rounded(tensor.numpy(), node.name)))
    for value in node.outputs:
        if value.dtype == FULL:
            value.dtype = HALF


def _restore_outputs(graph: ir.Graph) -> None:
    for index, value in enumerate(graph.outputs):
        if value.dtype == HALF:
            name, value.name = value.name, f"{value.name}.half"
            cast = ir.node("Cast", [value], {"to": FULL})
            cast.outputs[0].name, cast.outputs[0].dtype, cast.outputs[0].shape = name, FULL, value.shape
            graph.append(cast)
            graph.outputs[index] = cast.outputs[0]
