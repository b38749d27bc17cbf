"""Values of a graph: constants, and values that take the place of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the content of an initializer; None for a computed value."""
    return value.const_value if value is not None and value.is_initializer() else None


def numbers(value: ir.Value | None) -> NDArray[Any]:
    """Return the content of an initializer as an array."""
    stored = constant(value)
    assert stored is not None
    return np.asarray(stored.numpy())


def initializer(graph: ir.Graph, name: str, values: NDArray[Any]) -> ir.Value:
    """Add a constant to a graph, under a name that is not in use yet."""
    tensor = ir.tensor(values, name=name)
    kind = ir.TensorType(tensor.dtype)
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=kind, const_value=tensor)
    graph.register_initializer(value)
    return value


def take_output(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Make a new value the graph's output instead of an old one, under the old name."""
    for index, value in enumerate(graph.outputs):
        if value is old:
            graph.outputs[index] = new
            new.shape, new.type = old.shape, old.type
            new.name, old.name = old.name, f"{old.name}.product"


def replace_value(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Replace a value for all nodes but the producer of the new one, and as an output."""
    for use in list(old.uses()):
        if use.node is not new.producer():
            use.node.replace_input_with(use.idx, new)
    take_output(graph, old, new)
