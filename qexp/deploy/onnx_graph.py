"""What is done to a graph between the exporter and the file."""

from __future__ import annotations

from ast import literal_eval
from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qexp.errors import DeployError

AXES = ("batch", "length")
"""Names of the dynamic axes of every input."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes the modules that a node is in, from the outermost on, and itself."""


def tidy(model: ir.Model) -> None:
    """Make a graph ready for runtimes, in place: weights as the integers that are multiplied or looked up.

    Raises:
        DeployError: A weight or zero point is not a constant of the graph.
    """
    for node in list(model.graph):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _drop_default_axis(node)
        if node.op_type == "DequantizeLinear" and _constant(node.inputs[0]) is not None:
            _own_zero_point(model.graph, node)
    for node in list(model.graph):
        if node.op_type == "Transpose":
            _transpose_stored(model.graph, node)
        if node.op_type == "Gather":
            _gather_stored(model.graph, node)
    _name_axes(model.graph)
    _name_nodes(model.graph)
    _forget_origin(model)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Content of an initializer; None for what is computed."""
    return value.const_value if value is not None and value.is_initializer() else None


def _drop_default_axis(node: ir.Node) -> None:
    """Drop the ``axis=1`` that the exporter writes out: beside a scalar scale it means nothing."""
    scale = _constant(node.inputs[1])
    if scale is not None and len(scale.shape) == 0:
        node.attributes.pop("axis", None)


def _own_zero_point(graph: ir.Graph, node: ir.Node) -> None:
    """Store the zero point in the weight's own type, under the weight's name.

    Sharing one between weights saves a few bytes, and makes ONNX Runtime fail where it turns
    weights into uint8 (``session.x64quantprecision``): it adds the same new constant twice.
    """
    weight, zero_point = node.inputs[0], node.inputs[2]
    assert weight is not None
    assert zero_point is not None
    producer = zero_point.producer()
    while producer is not None and producer.op_type == "Cast":
        zero_point = producer.inputs[0]
        assert zero_point is not None
        producer = zero_point.producer()
    stored, values = _constant(weight), _constant(zero_point)
    if stored is None or values is None:
        raise DeployError(f"{weight.name}: its zero point is computed; export it as a buffer of the model")
    name = f"{node.outputs[0].name}.{weight.name}.zero_point"
    own = _initializer(graph, name, values.numpy().astype(stored.dtype.numpy()))
    node.replace_input_with(2, own)


def _transpose_stored(graph: ir.Graph, node: ir.Node) -> None:
    """Dequantize and transpose -> dequantize what was stored transposed.

    torch keeps the weight of a Linear as [out, in], MatMul wants [in, out], and runtimes find a
    quantized product only where DequantizeLinear feeds it directly.
    """
    source = node.inputs[0]
    dequantize = source.producer() if source is not None else None
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return
    weight = dequantize.inputs[0]
    stored = _constant(weight)
    if weight is None or stored is None or len(dequantize.outputs[0].uses()) != 1 or len(weight.uses()) != 1:
        return
    order = list(node.attributes.get_ints("perm", list(reversed(range(len(stored.shape))))))
    own = _initializer(graph, f"{weight.name}.transposed", stored.numpy().transpose(order).copy())
    dequantize.replace_input_with(0, own)
    if "axis" in dequantize.attributes:
        axis = dequantize.attributes["axis"].as_int()
        dequantize.attributes["axis"] = ir.AttrInt64("axis", order.index(axis))
    node.outputs[0].replace_all_uses_with(dequantize.outputs[0])
    graph.remove(node, safe=True)


def _gather_stored(graph: ir.Graph, node: ir.Node) -> None:
    """Dequantize a table and look rows up -> look integers up and dequantize those, which are few.

    Rows with a scale each need arithmetic of their own, with the same bits: ``DequantizeLinear`` knows
    scales along one axis, not one for each place in a batch.
    """
    table, places = node.inputs
    dequantize = table.producer() if table is not None else None
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return
    if _constant(dequantize.inputs[0]) is None or node.attributes.get_int("axis", 0) != 0:
        return
    stored, scale, zero_point = (_rows(parameter, places) for parameter in dequantize.inputs)
    if "axis" not in dequantize.attributes:
        nodes = [stored, ir.node("DequantizeLinear", [stored.outputs[0], *dequantize.inputs[1:]])]
    else:
        last = _initializer(graph, f"{node.outputs[0].name}.last_axis", np.array([-1]))
        nodes = [stored, scale, zero_point, *_dequantized(stored, scale, zero_point, last)]
    graph.insert_before(node, nodes)
    node.outputs[0].replace_all_uses_with(nodes[-1].outputs[0])
    graph.remove(node, safe=True)


def _rows(table: ir.Value | None, places: ir.Value | None) -> ir.Node:
    return ir.node("Gather", [table, places], {"axis": 0})


def _dequantized(stored: ir.Node, scale: ir.Node, zero_point: ir.Node, last: ir.Value) -> list[ir.Node]:
    """``(stored - zero_point) * scale`` with a scale for each row, the last nodes to the last result."""
    numbers, zeros = (
        ir.node("Cast", [each.outputs[0]], {"to": ir.DataType.FLOAT}) for each in (stored, zero_point)
    )
    zeros_of_rows, scales = (ir.node("Unsqueeze", [each.outputs[0], last]) for each in (zeros, scale))
    steps = ir.node("Sub", [numbers.outputs[0], zeros_of_rows.outputs[0]])
    values = ir.node("Mul", [steps.outputs[0], scales.outputs[0]])
    return [numbers, zeros, zeros_of_rows, scales, steps, values]


def _initializer(graph: ir.Graph, name: str, values: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(values, name=name)
    kind = ir.TensorType(tensor.dtype)
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=kind, const_value=tensor)
    graph.register_initializer(value)
    return value


def _name_axes(graph: ir.Graph) -> None:
    for value in graph.inputs:
        value.shape = ir.Shape(AXES)
    for value in graph.outputs:
        sizes = list(value.shape or ())
        value.shape = ir.Shape([AXES[0], *sizes[1:]])


def _name_nodes(graph: ir.Graph) -> None:
    """Call nodes by the module that they come from, so that a runtime's report of them can be read.

    ``bert.encoder.layer.0.output.dense/MatMul``; of several such nodes in a module, a later one has a number.
    """
    seen: Counter[str] = Counter()
    for node in graph:
        scopes = literal_eval(node.metadata_props.get(SCOPES, "[]"))
        module = scopes[-2].removeprefix("model").removeprefix(".") if len(scopes) > 1 else ""
        module = "" if module.startswith("_") else module  # the tracer's own invention, of shapes of inputs
        name = f"{module}/{node.op_type}" if module else node.op_type
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def _forget_origin(model: ir.Model) -> None:
    """Drop stack traces, and the shapes of values in between, which runtimes infer better themselves."""
    kept = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in kept:
                value.shape = value.type = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for properties in (model.metadata_props, model.graph.metadata_props):
        properties.clear()
