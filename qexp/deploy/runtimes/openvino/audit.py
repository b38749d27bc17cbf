"""Audit of OpenVINO: kernels from the execution graph, and the work of each product from the file.

The execution graph lists the layers that run, their precision, and the operations of the file that each layer
stands for; with dynamic axes it has no sizes. These come from the file, which is read again with the sizes
of the batch. An operation whose name is lost in a fusion is searched for along its readers: a product is
fused with what follows it, a bias or a softmax.

The execution graph reports one kernel for a whole subgraph; both products of an attention are assumed to use
it. It does not report whether a layer quantizes activations by itself
(``DYNAMIC_QUANTIZATION_GROUP_SIZE``): such a layer counts as floating point.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from qexp.deploy.engine import Audit, Batch, EngineProduct, EngineSpec
from qexp.deploy.onnx.io import read

MULTIPLYING = {
    "FullyConnected", "MatMul", "Subgraph", "ScaledDotProductAttention", "QKVProjection", "LLMMLP",
    "Convolution",
}  # fmt: skip
"""Layers that execute products; a subgraph, such as an attention, is compiled as a whole."""
CONVERSIONS = {"FakeQuantize", "Convert", "Reorder", "Transpose"}
"""Layers that only quantize, dequantize, or change a type or a layout."""
INTEGERS = {"i8", "u8", "i4", "u4"}
"""Precisions of integer arithmetic, as named in the execution graph."""
NOT_FOUND = "not found"
"""Kernel of a product that no executed layer names; the product counts as floating point."""


@dataclass(frozen=True)
class _Layer:
    """Executed layer."""

    kind: str
    precision: str
    kernel: str
    names: tuple[str, ...]
    """Operations of the file that the layer stands for."""
    constant: bool
    """Whether all inputs are known before the first run."""

    @property
    def integer(self) -> bool:
        """Whether the kernel computes in integers: a float attention with a u8 mask has precision u8, too."""
        return self.precision in INTEGERS and self.kernel.rpartition("_")[2].lower() in INTEGERS


def audit(compiled: Any, spec: EngineSpec, batch: Batch) -> Audit:
    """Audit OpenVINO on a batch.

    Args:
        compiled: ``openvino.CompiledModel`` of the graph in ``spec``.
        spec: Spec that the model was compiled from.
        batch: Inputs of the graph, the first of them [rows, tokens].
    """
    import openvino

    # Kernels of layers with dynamic sizes are selected in the first run.
    compiled.create_infer_request().infer(dict(batch))
    layers = _layers(compiled.get_runtime_model())
    graph = openvino.Core().read_model(read(spec.graph).SerializeToString())  # INT2 is unpacked
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
    layers = []
    for each in executed.get_ordered_ops():
        layer = _layer(each, constants)
        constants[each.get_friendly_name()] = layer.constant
        layers.append(layer)
    return layers


def _layer(operation: Any, constants: Mapping[str, bool]) -> _Layer:
    facts = {key: str(getattr(value, "value", value)) for key, value in operation.get_rt_info().items()}
    sources = [port.get_source_output().get_node().get_friendly_name() for port in operation.inputs()]
    kind = facts["layerType"]
    constant = kind == "Const" or (bool(sources) and all(constants[name] for name in sources))
    names = tuple(facts.get("originalLayersNames", "").split(","))
    return _Layer(
        kind, facts["runtimePrecision"], kernel=facts["primitiveType"], names=names, constant=constant
    )


def _product(operation: Any, by_name: Mapping[str, _Layer]) -> EngineProduct:
    layer = _executing(operation, by_name)
    kernel = f"{layer.kind} {layer.kernel}" if layer else NOT_FOUND
    return EngineProduct(
        operation.get_friendly_name(), kernel, _macs(operation), bool(layer and layer.integer)
    )


def _executing(operation: Any, by_name: Mapping[str, _Layer]) -> _Layer | None:
    """Return the layer that names the operation, or else its nearest reader; None if there is none."""
    frontier, seen = [operation], set()
    while frontier:
        for each in frontier:
            # Low-precision passes name rewritten operations "name/DequantizationMultiply".
            for name, layer in by_name.items():
                if f"{name}/".startswith(f"{each.get_friendly_name()}/"):
                    return layer
        seen |= {each.get_friendly_name() for each in frontier}
        readers = [
            port.get_node() for each in frontier for out in each.outputs() for port in out.get_target_inputs()
        ]
        frontier = [each for each in readers if each.get_friendly_name() not in seen]
    return None


def _macs(operation: Any) -> int:
    transposed = operation.get_attributes()["transpose_a"]
    left = list(operation.get_input_shape(0))
    return int(prod(operation.get_output_shape(0)) * left[-2 if transposed else -1])
