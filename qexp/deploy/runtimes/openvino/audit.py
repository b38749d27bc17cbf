"""From OpenVINO's execution graph: the kernel of every product, and the work of each from the file.

The execution graph says which layers run, in what precision, and which operations of the file each of
them stands for; with dynamic axes it has no sizes. Those come from the file, read once more with the
sizes of the batch. An operation whose name is lost in a fusion is looked for along its readers: a product
is fused with what follows it, a bias or a softmax.

The execution graph says one kernel for all of a subgraph; both products of an attention are taken to
have it. It does not say whether a layer quantizes activations by itself
(``DYNAMIC_QUANTIZATION_GROUP_SIZE``): such a layer counts as floating point.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from qexp.deploy.engine import Audit, Batch, Order, Product

MULTIPLYING = {
    "FullyConnected", "MatMul", "Subgraph", "ScaledDotProductAttention", "QKVProjection", "LLMMLP",
    "Convolution",
}  # fmt: skip
"""Layers that products are executed in; a subgraph is compiled as a whole, such as an attention."""
CONVERSIONS = {"FakeQuantize", "Convert", "Reorder", "Transpose"}
"""Layers that only quantize, dequantize, or change a type or a layout."""
INTEGERS = {"i8", "u8", "i4", "u4"}
"""Precisions of integer arithmetic, as the execution graph spells them."""
NOT_FOUND = "not found"
"""Kernel of a product that no executed layer names; it counts as floating point."""


@dataclass(frozen=True)
class _Layer:
    """One executed layer."""

    kind: str
    precision: str
    kernel: str
    names: tuple[str, ...]
    """Operations of the file that it stands for."""
    constant: bool
    """Whether everything that it reads is known before the first run."""

    @property
    def integer(self) -> bool:
        """Whether its kernel is one of integers: a float attention that reads a mask of u8 says u8, too."""
        return self.precision in INTEGERS and self.kernel.rpartition("_")[2].lower() in INTEGERS


def audit(compiled: Any, order: Order, batch: Batch) -> Audit:
    """What OpenVINO does with a batch.

    Args:
        compiled: ``openvino.CompiledModel`` of the order's graph.
        order: what it was compiled from.
        batch: the graph's inputs, the first of them [rows, tokens].
    """
    import openvino

    # Kernels of layers with dynamic sizes are chosen in the first run.
    compiled.create_infer_request().infer(dict(batch))
    layers = _layers(compiled.get_runtime_model())
    graph = openvino.Core().read_model(str(order.graph))
    graph.reshape({name: list(np.shape(values)) for name, values in batch.items()})
    by_name = {name: layer for layer in layers if layer.kind in MULTIPLYING for name in layer.names}
    products = tuple(
        _product(each, by_name) for each in graph.get_ordered_ops() if each.get_type_name() == "MatMul"
    )
    executed = [layer for layer in layers if not layer.constant]
    counts = Counter(layer.kind for layer in executed)
    conversions = sum(count for kind, count in counts.items() if kind in CONVERSIONS)
    rows, tokens = np.shape(next(iter(batch.values())))[:2]
    return Audit((rows, tokens), products, conversions, dict(counts.most_common()))


def _layers(executed: Any) -> list[_Layer]:
    constants: dict[str, bool] = defaultdict(bool)
    found = []
    for each in executed.get_ordered_ops():
        layer = _layer(each, constants)
        constants[each.get_friendly_name()] = layer.constant
        found.append(layer)
    return found


def _layer(operation: Any, constants: Mapping[str, bool]) -> _Layer:
    facts = {key: str(getattr(value, "value", value)) for key, value in operation.get_rt_info().items()}
    sources = [port.get_source_output().get_node().get_friendly_name() for port in operation.inputs()]
    kind = facts["layerType"]
    constant = kind == "Const" or (bool(sources) and all(constants[name] for name in sources))
    names = tuple(facts.get("originalLayersNames", "").split(","))
    return _Layer(kind, facts["runtimePrecision"], facts["primitiveType"], names, constant)


def _product(operation: Any, by_name: Mapping[str, _Layer]) -> Product:
    layer = _executing(operation, by_name)
    kernel = f"{layer.kind} {layer.kernel}" if layer else NOT_FOUND
    return Product(operation.get_friendly_name(), kernel, _macs(operation), bool(layer and layer.integer))


def _executing(operation: Any, by_name: Mapping[str, _Layer]) -> _Layer | None:
    """The layer that names the operation, or else the nearest of its readers."""
    here, seen = [operation], set()
    while here:
        for each in here:
            # Low-precision passes call what they rewrite "name/DequantizationMultiply".
            for name, layer in by_name.items():
                if f"{name}/".startswith(f"{each.get_friendly_name()}/"):
                    return layer
        seen |= {each.get_friendly_name() for each in here}
        readers = [
            port.get_node() for each in here for out in each.outputs() for port in out.get_target_inputs()
        ]
        here = [each for each in readers if each.get_friendly_name() not in seen]
    return None


def _macs(operation: Any) -> int:
    transposed = operation.get_attributes()["transpose_a"]
    left = list(operation.get_input_shape(0))
    return int(prod(operation.get_output_shape(0)) * left[-2 if transposed else -1])
