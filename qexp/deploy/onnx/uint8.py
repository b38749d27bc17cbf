"""Conversion between int8 and uint8: values and their zero points move by 128, and no result changes.

    clamp(round(x / s) + z, -128, 127) + 128 == clamp(round(x / s) + z + 128, 0, 255)
    (q - z) * s == ((q + 128) - (z + 128)) * s

ONNX Runtime's integer kernels need uint8 activations and, on a CPU whose products of uint8 by int8
saturate, uint8 weights: see :mod:`qexp.deploy.runtimes.onnxruntime.engine`. TensorRT wants int8.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from qexp.deploy.onnx.saturation import SAFE_PAIR

SHIFT = 128
"""What uint8 values have more than int8 values."""
SEVEN_BITS = SAFE_PAIR // 2
"""Largest magnitude of weights that ONNX Runtime leaves alone, since any pair of them fits 16 bits."""


def shift_activations(model: ModelProto) -> bool:
    """Convert int8 activations to uint8, in place. Weights keep their type.

    Returns:
        Whether the graph changed.
    """
    return _move_activations(model, _is_int8)


def unshift_activations(model: ModelProto) -> bool:
    """Convert uint8 activations with zero point 128 to int8 with zero point 0, in place.

    Returns:
        Whether the graph changed.
    """
    return _move_activations(model, _is_shifted_zero)


def _move_activations(model: ModelProto, wanted: Callable[[TensorProto | None], bool]) -> bool:
    """Convert activations whose quantizer and dequantizers all have a wanted zero point to the other type."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    moved = set[str]()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            pair = [node, *readers[node.output[0]]]
            if all(reader.op_type == "DequantizeLinear" for reader in pair[1:]) and all(
                wanted(stored.get(_zero_point(member))) for member in pair
            ):
                moved |= {member.input[2] for member in pair}
                for member in pair:
                    member.input[2] = _shifted(model.graph, member.input[2], stored)
    _drop_unread(model.graph, moved)
    return bool(moved)


def shift_shared_weights(model: ModelProto) -> bool:
    """Convert stored int8 weights to uint8, in place, where several products read them or their zero points.

    With ``session.x64quantprecision`` ONNX Runtime (seen in 1.32) converts weights and their zero points to
    uint8 itself, once for each product that reads them, be it through one DequantizeLinear or several.
    Each time it adds a value to the graph under a name derived from the old one, so that the second product,
    such as in the next layer of an ALBERT, fails with "Attempt to replace the existing tensor". Weights
    within 7 bits stay as they are, here as in the runtime, since they cannot saturate.

    Returns:
        Whether the graph changed.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    wide = {name for name, tensor in stored.items() if _is_int8(tensor) and _is_wide(tensor)}
    products = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in wide
        and _is_int8(stored.get(_zero_point(node)))
    ]
    readers = Counter(name for node in model.graph.node for name in node.input)
    uses: Counter[str] = Counter()
    for node in products:
        for name in {node.input[0], node.input[2]}:
            uses[name] += readers[node.output[0]]
    shared = [node for node in products if max(uses[node.input[0]], uses[node.input[2]]) > 1]
    for node in shared:
        for place in (0, 2):
            node.input[place] = _shifted(model.graph, node.input[place], stored)
    _drop_unread(model.graph, uses)
    return bool(shared)


def _zero_point(node: NodeProto) -> str:
    return node.input[2] if len(node.input) == 3 else ""


def _is_int8(tensor: TensorProto | None) -> bool:
    return tensor is not None and tensor.data_type == TensorProto.INT8


def _is_shifted_zero(tensor: TensorProto | None) -> bool:
    if tensor is None or tensor.data_type != TensorProto.UINT8:
        return False
    return bool((numpy_helper.to_array(tensor) == SHIFT).all())


def _is_wide(tensor: TensorProto) -> bool:
    values = numpy_helper.to_array(tensor)
    return bool(values.size and (values.min() < -SEVEN_BITS or values.max() > SEVEN_BITS))


def _shifted(graph: GraphProto, name: str, stored: dict[str, TensorProto]) -> str:
    """Return the name of the copy of stored 8-bit values in the other type, which is added once."""
    values = numpy_helper.to_array(stored[name])
    signed = values.dtype == np.int8
    twin = f"{name}.{'uint8' if signed else 'int8'}"
    if twin not in stored:
        moved = values.astype(np.int16) + (SHIFT if signed else -SHIFT)
        values = moved.astype(np.uint8 if signed else np.int8)
        stored[twin] = numpy_helper.from_array(values, twin)
        graph.initializer.append(stored[twin])
    return twin


def _drop_unread(graph: GraphProto, names: Iterable[str]) -> None:
    """Remove stored values of these names that no node reads any more, so that the graph does not grow."""
    read = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    unread = set(names) - read
    kept = [tensor for tensor in graph.initializer if tensor.name not in unread]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)
