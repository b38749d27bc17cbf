"""Rewriting of a Q/DQ graph to the form that NVIDIA's parsers take."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from onnx.shape_inference import InferenceError

from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.decompose_qdq import dequantize_weights, readers, replace
from qexp.deploy.onnx.io import read
from qexp.deploy.onnx.uint8 import unshift_activations
from qexp.deploy.runtimes.capabilities import check_graph
from qexp.deploy.runtimes.tensorrt.half_precision import Half, to_half
from qexp.errors import DeployError

OLD_OPSET = 17
"""Newest opset that the parser of TensorRT 8.6 supports."""


def prepared(runtime: str, spec: EngineSpec, *, typed: bool = True) -> ModelProto:
    """Return the graph of a spec, checked and rewritten.

    Args:
        runtime: A name in :data:`qexp.config.RUNTIMES`.
        spec: Graph and precision to build.
        typed: Whether the types of the graph decide the arithmetic. Otherwise builder flags do: the graph
            stays in float32 and is converted to opset 17.

    Raises:
        DeployError: The file is missing or damaged, or the runtime does not take its form.
    """
    model = read(spec.graph)
    unshift_activations(model)
    dequantize_weights(model)
    check_graph(runtime, model, str(spec.graph))
    dequantize_tables(model)
    if not typed:
        to_old_opset(model, str(spec.graph))
    elif (kind := half_of(spec)) is not None:
        to_half(model, kind)
    return model


def half_of(spec: EngineSpec) -> Half | None:
    """Return the 16-bit arithmetic of a spec; for ``int8``, the arithmetic of everything not quantized."""
    kinds: dict[str, Half] = {"fp16": "fp16", "bf16": "bf16", "int8": "fp16"}
    return kinds.get(spec.precision)


def dequantize_tables(model: ModelProto) -> bool:
    """Insert ``DequantizeLinear`` between a table of integers and its look-up, in place.

    TensorRT takes an int8 constant only as input of that operator. The inserted scale is 1, so that the
    arithmetic after the look-up, which applies the real scales, keeps its results bit for bit.

    Returns:
        Whether the graph changed.
    """
    stored = {each.name: each for each in model.graph.initializer}
    lookups = [
        each for each in model.graph.node if each.op_type == "Gather" and _reads_integers(each, stored)
    ]
    read_by, replacements = readers(model.graph), dict[str, list[NodeProto]]()
    for node in lookups:
        table, rows = node.input[0], node.output[0]
        own = [f"{table}.one", f"{table}.none", f"{table}.numbers"]
        if own[0] not in stored:
            for name, value in ((own[0], np.array(1, np.float32)), (own[1], np.array(0, np.int8))):
                stored[name] = numpy_helper.from_array(value, name)
                model.graph.initializer.append(stored[name])
        numbers = f"{rows}.{table}.numbers"
        first = helper.make_node("DequantizeLinear", [table, *own[:2]], [numbers], name=numbers)
        axis = {each.name: each.i for each in node.attribute}
        lookup = helper.make_node("Gather", [numbers, node.input[1]], [rows], name=node.name, **axis)
        replacements[rows] = [first, lookup]
        for reader in read_by[rows]:
            if reader.op_type == "DequantizeLinear":
                names = [rows, reader.input[1]]
                replacements[reader.output[0]] = [
                    helper.make_node("Mul", names, list(reader.output), name=reader.name)
                ]
    replace(model.graph, replacements)
    return bool(lookups)


def to_old_opset(model: ModelProto, name: str) -> None:
    """Convert a graph to opset 17, in place: GELU is replaced by its definition, the rest stays.

    Raises:
        DeployError: The graph is not valid in opset 17.
    """
    stored = {each.name for each in model.graph.initializer}
    gelus = [each for each in model.graph.node if each.op_type == "Gelu"]
    for constant, value in (("gelu.root", 2**0.5), ("gelu.one", 1.0), ("gelu.half", 0.5)):
        if gelus and constant not in stored:
            array = np.array(value, np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, constant))
    replace(model.graph, {each.output[0]: _gelu(each) for each in gelus})
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OLD_OPSET))
    model.ir_version = min(model.ir_version, 8)
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, InferenceError) as error:
        raise DeployError(
            f"{name}: TensorRT 8.6 knows opset {OLD_OPSET}, and the graph cannot be said in it: {error}; "
            "use TensorRT 10 or above (pip install 'qexp[tensorrt]')"
        ) from error


def _reads_integers(node: NodeProto, stored: dict[str, TensorProto]) -> bool:
    return node.input[0] in stored and stored[node.input[0]].data_type == TensorProto.INT8


def _gelu(node: NodeProto) -> list[NodeProto]:
    """Return nodes of ``x * (1 + erf(x / sqrt(2))) * 0.5`` (ONNX, operator Gelu, ``approximate="none"``)."""
    x, y = node.input[0], node.output[0]
    steps = [f"{y}.{step}" for step in ("divided", "erf", "moved", "product")]
    return [
        helper.make_node("Div", [x, "gelu.root"], steps[:1]),
        helper.make_node("Erf", steps[:1], steps[1:2]),
        helper.make_node("Add", [steps[1], "gelu.one"], steps[2:3]),
        helper.make_node("Mul", [x, steps[2]], steps[3:]),
        helper.make_node("Mul", [steps[3], "gelu.half"], [y], name=node.name),
    ]
