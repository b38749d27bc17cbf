"""Decomposition of a traced model into operators that the exporter translates, without another trace.

``torch.onnx.export`` calls ``ExportedProgram.run_decompositions``, which runs the graph through the tracer
twice, and takes longer than the trace itself. A transformer in evaluation mode has only a few operators
without a translation, and each of them has a counterpart: they are exchanged in the graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._C import DispatchKey
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

aten = torch.ops.aten

CONVERSIONS = (aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.detach_.default)
"""Conversions of type, device or layout, of which a file knows only the type, or of none of them."""
COPY = aten._to_copy.default
"""Conversion of type alone; without a type, the identity."""
FUNCTIONAL = {
    aten.reshape.default: aten.view.default,
    aten.min.other: aten.minimum.default,
    aten.max.other: aten.maximum.default,
    aten.__and__.Tensor: aten.bitwise_and.Tensor,
    aten.add_.Tensor: aten.add.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
}
"""Counterparts with the same arguments; those of writes need a tensor that nothing else reads."""
OWNERS = (aten.matmul.default, aten.add.Tensor, aten.mul.Tensor, aten.add_.Tensor, aten.mul_.Tensor)
"""Operators whose result shares memory with no other tensor, or only with an unused one."""
TRANSLATED = (aten.contiguous.default,)
"""Composite views that the exporter translates itself."""
DROPPED = (aten._assert_tensor_metadata.default,)
"""Checks of what the trace has fixed, which the exporter leaves out."""


def exchange_operators(program: ExportedProgram) -> None:
    """Make the decomposition of a program an exchange of operators, in place, where this suffices.

    A program with another operator to decompose, a subgraph, or a write that something else may see, is
    left to torch.
    """
    retrace = program.run_decompositions

    def run_decompositions(table: Mapping[Any, Callable[..., Any]]) -> ExportedProgram:
        inner = [node for node in program.graph.nodes if node.op not in ("placeholder", "output")]
        targets = {node: _target(node, table) for node in inner}
        if None in targets.values():
            decomposed: ExportedProgram = retrace(dict(table))
            return decomposed
        for node, target in targets.items():
            if target is COPY:
                _keep_type(node)
            node.target = target
        return program

    program.run_decompositions = run_decompositions


def _target(node: Node, table: Mapping[Any, Callable[..., Any]]) -> Any:
    """Return the operator to translate instead of a node's own, which may be the same; None if unknown."""
    if node.target in CONVERSIONS or _keeps_shape(node):
        return COPY
    if node.target in FUNCTIONAL:
        assert isinstance(node.target, OpOverload)
        return FUNCTIONAL[node.target] if not node.target._schema.is_mutable or _owns(node) else None
    if isinstance(node.target, OpOverload):
        kept = node.target not in table and not _always_decomposed(node.target)
        return node.target if kept or node.target in (*DROPPED, *TRANSLATED) else None
    return node.target if node.target in vars(operator).values() else None


def _always_decomposed(overload: OpOverload) -> bool:
    """Return whether torch decomposes an operator without being asked: it writes, or is made of views."""
    composite = overload.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)
    shares = any(each.alias_info is not None for each in overload._schema.returns)
    return overload._schema.is_mutable or (composite and shares)


def _owns(write: Node) -> bool:
    """Return whether only a node reads the tensor that it writes to, and all its tensors have one type."""
    written = write.args[0]
    tensors = [each.meta["val"] for each in (write, *write.all_input_nodes)]
    types = {each.dtype if isinstance(each, torch.Tensor) else None for each in tensors}
    return (
        isinstance(written, Node)
        and written.target in OWNERS
        and list(written.users) == [write]
        and len(types) == 1
    )


def _keeps_shape(node: Node) -> bool:
    """Return whether a node reshapes a tensor to the shape that it has."""
    if node.target is not aten.reshape.default:
        return False
    before, after = (str(each.meta["val"].shape) for each in (node.all_input_nodes[0], node))
    return before == after


def _keep_type(conversion: Node) -> None:
    source = conversion.args[0]
    assert isinstance(source, Node)
    dtype = conversion.meta["val"].dtype
    conversion.args = (source,)
    conversion.kwargs = {} if source.meta["val"].dtype == dtype else {"dtype": dtype}
