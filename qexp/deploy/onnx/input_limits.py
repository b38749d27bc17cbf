"""Limits on the inputs of a graph: sizes of the tables that they index, and the longest batch.

ONNX Runtime refuses an index outside a table. OpenVINO and TensorRT read unrelated memory and return
numbers, so their engines check these limits first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from qexp.deploy.engine import Batch
from qexp.errors import DeployError


@dataclass(frozen=True)
class InputLimits:
    """Largest indices and length that a graph takes."""

    rows: Mapping[str, int]
    """Number of rows of the table that an input indexes, by input."""
    length: int | None
    """Number of tokens of the longest batch; None where no table of positions limits it."""

    def check(self, batch: Batch) -> None:
        """Check that a batch stays within the limits.

        Raises:
            DeployError: A value is outside its table, or the batch is too long.
        """
        for name, rows in self.rows.items():
            values = batch[name]
            if values.size and not 0 <= int(values.min()) <= int(values.max()) < rows:
                raise DeployError(
                    f"batch: {name} holds {values.min()} to {values.max()}, its table has rows 0 to "
                    f"{rows - 1}; use the tokenizer that the model was trained with"
                )
            if self.length is not None and values.ndim == 2 and values.shape[1] > self.length:
                raise DeployError(
                    f"batch: {name} has {values.shape[1]} tokens, the model has positions for {self.length}; "
                    "truncate the rows (task.max_length)"
                )


def limits(model: ModelProto) -> InputLimits:
    """Find the limits of a graph from its tables, by evaluating which of their rows it looks up."""
    tables = {each.name: int(each.dims[0]) for each in model.graph.initializer if each.dims}
    inputs = {each.name for each in model.graph.input}
    lookups = [(node, tables[node.input[0]]) for node in model.graph.node if _looks_up(node, tables)]
    rows: dict[str, int] = {}
    for node, size in lookups:
        if node.input[1] in inputs:
            rows[node.input[1]] = min(size, rows.get(node.input[1], size))
    places = {node.input[1]: size for node, size in lookups if node.input[1] not in inputs}
    return InputLimits(rows, _longest(model, places))


def _looks_up(node: NodeProto, tables: Mapping[str, int]) -> bool:
    axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
    return node.op_type == "Gather" and axis == 0 and node.input[0] in tables


def _longest(model: ModelProto, places: Mapping[str, int]) -> int | None:
    """Return the largest length for which all indices lie in their tables, found by bisection.

    A length above one that does not fit never fits. None if the reference evaluator cannot compute them, or
    if more tokens than a table has rows fit all the same, as with one row for all tokens.
    """
    graphs = [(each, rows) for name, rows in places.items() if (each := _evaluator(model, name)) is not None]
    bounded = [(graph, rows) for graph, rows in graphs if _fits(graph, rows, rows + 1) is not True]
    if not bounded:
        return None
    low, high = 0, max(rows for _, rows in bounded) + 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = [_fits(graph, rows, middle) for graph, rows in bounded]
        if None in fits:
            return None
        low, high = (middle, high) if all(fits) else (low, middle)
    return low


def _evaluator(model: ModelProto, name: str) -> ReferenceEvaluator | None:
    """Return an evaluator of one value from the token inputs; None if it needs other inputs, or none."""
    makers = {output: node for node in model.graph.node for output in node.output}
    stored = {each.name for each in model.graph.initializer}
    pending, seen = [name], set[str]()
    while pending:
        value = pending.pop()
        if value and value not in seen and value not in stored:
            seen.add(value)
            pending.extend(makers[value].input if value in makers else ())
    inputs = [each for each in model.graph.input if each.name in seen]
    if not inputs or any(not _is_token_input(each) for each in inputs):
        return None
    chosen = [node for node in model.graph.node if seen.intersection(node.output)]
    read = {each for node in chosen for each in node.input}
    constants = [each for each in model.graph.initializer if each.name in read]
    output = helper.make_tensor_value_info(name, TensorProto.INT64, None)
    graph = helper.make_graph(chosen, "places", inputs, [output], constants)
    return ReferenceEvaluator(
        helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    )


def _is_token_input(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return len(kind.shape.dim) == 2 and kind.elem_type in (TensorProto.INT64, TensorProto.INT32)


def _fits(graph: ReferenceEvaluator, rows: int, length: int) -> bool | None:
    """Return whether a row of ``length`` real tokens looks up existing rows of the table, one per token.

    None if the evaluator fails, as with GatherElements of more than 64 rows, in NumPy's choose.
    """
    # Token 2, since 1 is the usual padding of RoBERTa, whose positions count only other tokens.
    feed: dict[str, NDArray[Any]] = {
        name: np.full((1, length), 1 if "mask" in name else 2, np.int64) for name in graph.input_names
    }
    try:
        with np.errstate(divide="ignore", invalid="ignore"):  # MPNet's log(0), which it does not use
            results: Any = graph.run(None, feed)
    except (IndexError, ValueError):
        return None
    places = np.asarray(results[0])
    whole = places.ndim == 0 or places.shape[-1] in (1, length)
    return bool(whole and places.min() >= 0 and places.max() < rows)
