"""Graph passes between the exporter and the file."""

from __future__ import annotations

from ast import literal_eval
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qexp.deploy.onnx.blocks import block_size, look_up_in_blocks, transpose_parameter
from qexp.deploy.onnx.values import constant, initializer
from qexp.errors import DeployError

SCOPES = "pkg.torch.onnx.name_scopes"
"""Key under which the exporter lists the modules around a node, outermost first, and the node itself."""


FLOATS = {ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2}
"""Types of stored 8-bit floats."""


def optimize_graph(model: ir.Model, axes: Mapping[str, Sequence[str | None]]) -> None:
    """Prepare a graph for runtimes, in place: store weights as the integers that are multiplied or looked up.

    Args:
        model: Graph from the exporter.
        axes: Names of the dynamic axes of each input, and of outputs where they differ; None for an axis of
            fixed size.

    Raises:
        DeployError: A weight or zero point is not a constant of the graph.
    """
    for node in list(model.graph):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _drop_default_axis(node)
        if node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is not None:
            _own_zero_point(model.graph, node)
    for node in list(model.graph):
        if node.op_type == "Gather":
            _gather_stored(model.graph, node)
    for node in list(model.graph):
        if node.op_type == "Transpose":
            _transpose_stored(model.graph, node)
    _share_tables(model.graph)
    _name_axes(model.graph, axes)
    _name_nodes(model.graph)
    _drop_metadata(model)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()


def _drop_default_axis(node: ir.Node) -> None:
    """Drop the ``axis=1`` that the exporter writes: with a scalar scale it has no meaning."""
    scale = node.inputs[1]
    if scale is not None and scale.shape is not None and len(scale.shape) == 0:
        node.attributes.pop("axis", None)


def _own_zero_point(graph: ir.Graph, node: ir.Node) -> None:
    """Store a separate zero point in the type of the weight, named after the weight.

    Sharing one between weights saves a few bytes, but makes ONNX Runtime fail where it converts
    weights to uint8 (``session.x64quantprecision``): it adds the same new constant twice.
    """
    weight, zero_point = node.inputs[0], node.inputs[2]
    assert weight is not None
    assert zero_point is not None
    producer = zero_point.producer()
    while producer is not None and producer.op_type == "Cast":
        zero_point = producer.inputs[0]
        assert zero_point is not None
        producer = zero_point.producer()
    stored, values = constant(weight), constant(zero_point)
    if stored is None or values is None:
        raise DeployError(f"{weight.name}: its zero point is computed; export it as a buffer of the model")
    name = f"{node.outputs[0].name}.{weight.name}.zero_point"
    own = initializer(graph, name, values.numpy().astype(stored.dtype.numpy()))
    node.replace_input_with(2, own)


def _transpose_stored(graph: ir.Graph, node: ir.Node) -> None:
    """Fold a ``Transpose`` after ``DequantizeLinear`` into the stored weight.

    torch stores the weight of a Linear as [out, in], MatMul takes [in, out], and runtimes recognize a
    quantized product only where DequantizeLinear feeds it directly.
    """
    source = node.inputs[0]
    dequantize = source.producer() if source is not None else None
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return
    weight = dequantize.inputs[0]
    stored = constant(weight)
    if weight is None or stored is None or len(dequantize.outputs[0].uses()) != 1:
        return
    lookups = [use.node for use in weight.uses() if use.node is not dequantize]
    order = list(node.attributes.get_ints("perm", list(reversed(range(len(stored.shape))))))
    if not all(_is_lookup(each, weight) for each in lookups) or (lookups and order != [1, 0]):
        return
    own = initializer(graph, f"{weight.name}.transposed", stored.numpy().transpose(order).copy())
    for lookup in lookups:
        _look_up_columns(graph, lookup, own)
    dequantize.replace_input_with(0, own)
    if "axis" in dequantize.attributes:
        axis = dequantize.attributes["axis"].as_int()
        dequantize.attributes["axis"] = ir.AttrInt64("axis", order.index(axis))
    if block_size(dequantize):
        for at in (1, 2):
            transpose_parameter(graph, dequantize, at, order)
    node.outputs[0].replace_all_uses_with(dequantize.outputs[0])
    graph.remove(node, safe=True)


def _gather_stored(graph: ir.Graph, node: ir.Node) -> None:
    """Move ``DequantizeLinear`` of a table behind its ``Gather``, to dequantize only the looked-up rows.

    Per-row scales need separate arithmetic, which gives the same bits: ``DequantizeLinear`` takes scales
    along one axis, not one for each position in a batch. ``Gather`` takes no 8-bit floats.
    """
    table, places = node.inputs
    dequantize = table.producer() if table is not None else None
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return
    integers = constant(dequantize.inputs[0])
    if integers is None or integers.dtype in FLOATS or node.attributes.get_int("axis", 0) != 0:
        return
    stored, scale, zero_point = (_rows(parameter, places) for parameter in dequantize.inputs)
    if block_size(dequantize):
        assert places is not None
        nodes = look_up_in_blocks(graph, dequantize, places)
    elif "axis" not in dequantize.attributes:
        nodes = [stored, ir.node("DequantizeLinear", [stored.outputs[0], *dequantize.inputs[1:]])]
    else:
        last = initializer(graph, f"{node.outputs[0].name}.last_axis", np.array([-1]))
        nodes = [stored, scale, zero_point, *_dequantized(stored, scale, zero_point, last)]
    graph.insert_before(node, nodes)
    node.outputs[0].replace_all_uses_with(nodes[-1].outputs[0])
    graph.remove(node, safe=True)


def _share_tables(graph: ir.Graph) -> None:
    """Store a table once that is both looked up and, transposed, multiplied: the exporter stores it twice."""
    stored = [value for value in graph.initializers.values() if len(value.shape or ()) == 2]
    for table in stored:
        lookups = [use.node for use in table.uses()]
        if lookups and all(_is_lookup(each, table) for each in lookups):
            for twin in (each for each in stored if each is not table and _is_transposed(table, each)):
                for lookup in lookups:
                    _look_up_columns(graph, lookup, twin)
                break


def _is_lookup(node: ir.Node, table: ir.Value) -> bool:
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        return False
    read, places = node.inputs
    return read is table and places is not None and places.shape is not None


def _is_transposed(left: ir.Value, right: ir.Value) -> bool:
    first, second = constant(left), constant(right)
    if first is None or second is None or first.dtype != second.dtype or right.is_graph_output():
        return False
    return list(first.shape) == list(second.shape)[::-1] and np.array_equal(first.numpy(), second.numpy().T)


def _look_up_columns(graph: ir.Graph, lookup: ir.Node, transposed: ir.Value) -> None:
    """Replace a look-up of rows by one of the columns of the transposed table."""
    places, result = lookup.inputs[1], lookup.outputs[0]
    assert places is not None
    assert places.shape is not None
    columns = ir.node("Gather", [transposed, places], {"axis": 1})
    rows = ir.node("Transpose", [columns.outputs[0]], {"perm": [*range(1, len(places.shape) + 1), 0]})
    graph.insert_before(lookup, [columns, rows])
    result.replace_all_uses_with(rows.outputs[0])
    graph.remove(lookup, safe=True)


def _rows(table: ir.Value | None, places: ir.Value | None) -> ir.Node:
    return ir.node("Gather", [table, places], {"axis": 0})


def _dequantized(stored: ir.Node, scale: ir.Node, zero_point: ir.Node, last: ir.Value) -> list[ir.Node]:
    """Return the nodes of ``(stored - zero_point) * scale`` with per-row scales, the result last."""
    numbers, zeros = (
        ir.node("Cast", [each.outputs[0]], {"to": ir.DataType.FLOAT}) for each in (stored, zero_point)
    )
    zeros_of_rows, scales = (ir.node("Unsqueeze", [each.outputs[0], last]) for each in (zeros, scale))
    steps = ir.node("Sub", [numbers.outputs[0], zeros_of_rows.outputs[0]])
    values = ir.node("Mul", [steps.outputs[0], scales.outputs[0]])
    return [numbers, zeros, zeros_of_rows, scales, steps, values]


def _name_axes(graph: ir.Graph, axes: Mapping[str, Sequence[str | None]]) -> None:
    """Name the dynamic axes of inputs, and the axes of outputs that have the same size."""
    names: dict[str, str] = {}
    for value in graph.inputs:
        sizes = list(value.shape or ())
        named = [name or size for name, size in zip(axes[str(value.name)], sizes, strict=True)]
        names |= {_symbol(size): str(name) for name, size in zip(named, sizes, strict=True) if _symbol(size)}
        value.shape = ir.Shape(named)
    for value in graph.outputs:
        sizes = list(value.shape or ())
        given = axes.get(str(value.name), ())
        value.shape = ir.Shape(
            [name or size for name, size in zip(given, sizes, strict=True)]
            if given
            else [names.get(_symbol(size), size) for size in sizes]
        )


def _symbol(size: int | ir.SymbolicDim) -> str:
    return str(size.value) if isinstance(size, ir.SymbolicDim) else ""


def _name_nodes(graph: ir.Graph) -> None:
    """Name nodes after the module that they come from, so that reports of runtimes are readable.

    Example: ``bert.encoder.layer.0.output.dense/MatMul``. Further nodes of the same name get a number.
    """
    seen: Counter[str] = Counter()
    for node in graph:
        scopes = literal_eval(node.metadata_props.get(SCOPES, "[]"))
        module = scopes[-2].removeprefix("model").removeprefix(".") if len(scopes) > 1 else ""
        module = "" if module.startswith("_") else module  # a scope that the tracer adds for input shapes
        name = f"{module}/{node.op_type}" if module else node.op_type
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def _drop_metadata(model: ir.Model) -> None:
    """Drop stack traces, and the shapes of intermediate values, which runtimes infer better themselves."""
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
