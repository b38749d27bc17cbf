"""Extraction of the part of an exported graph that computes one module's output from those of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from qexp.errors import DeployError

if TYPE_CHECKING:
    import onnx

NOT_LAYERS = ("quantization.", ".parametrizations.")
"""Parts of names of modules that quantize; the graph is not cut there, as runtimes fuse them into kernels."""


@dataclass(frozen=True)
class GraphLayer:
    """Module whose output is a value of the graph."""

    module: str
    """Name of the module in torch, such as ``bert.encoder.layer.0.output.dense``."""
    value: str
    """Name of its output in the graph."""


def layers_of(graph: onnx.ModelProto) -> list[GraphLayer]:
    """Return the modules whose output is a value of the graph, in the order of the graph.

    Nodes are named by the module that they come from (:mod:`qexp.deploy.onnx.passes`). The output of a module
    is that of its last node, unless that node belongs to a submodule, which is then listed itself.
    """
    last: dict[str, tuple[int, str, str]] = {}
    modules: set[str] = set()
    for index, node in enumerate(graph.graph.node):
        module = node.name.rpartition("/")[0]
        if module and not any(part in f"{module}." for part in NOT_LAYERS):
            modules.add(module)
            for scope in _scopes(module):
                last[scope] = (index, module, node.output[0])
    outputs = sorted(
        (index, scope, value) for scope, (index, module, value) in last.items() if scope == module in modules
    )
    return [GraphLayer(scope, value) for _, scope, value in outputs]


def _scopes(module: str) -> Iterator[str]:
    """Return a module and all modules that contain it, outermost first."""
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


@dataclass(frozen=True)
class Subgraphs:
    """Graph to extract parts from; it must not change as long as this object is used."""

    graph: onnx.ModelProto

    @cached_property
    def _makers(self) -> dict[str, onnx.NodeProto]:
        return {output: node for node in self.graph.graph.node for output in node.output}

    @cached_property
    def _stored(self) -> dict[str, onnx.TensorProto]:
        return {tensor.name: tensor for tensor in self.graph.graph.initializer}

    def part(self, value: str, given: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
        """Return the smallest graph that computes a float32 value.

        Args:
            value: Name of the value, the only output of the part.
            given: Shapes of the float32 values at which the part is cut: they become inputs, besides those of
                the graph. All sizes except the last one and those of 1 become dynamic. ``value`` is ignored.

        Raises:
            DeployError: If no node computes a value that is needed.
        """
        from onnx import TensorProto, helper

        given = {name: shape for name, shape in given.items() if name != value}
        needed = self._needed(value, given)
        inputs = [each for each in self.graph.graph.input if each.name in needed]
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, _axes(shape))
            for name, shape in given.items()
            if name in needed
        ]
        graph = helper.make_graph(
            [node for node in self.graph.graph.node if (needed - set(given)).intersection(node.output)],
            "part",
            inputs,
            [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
            [tensor for name, tensor in self._stored.items() if name in needed],
        )
        return helper.make_model(
            graph, opset_imports=self.graph.opset_import, ir_version=self.graph.ir_version
        )

    def _needed(self, value: str, given: Mapping[str, tuple[int, ...]]) -> set[str]:
        """Return the names of all values on the paths from cuts, inputs and constants to ``value``."""
        ends = {*given, *self._stored, *(each.name for each in self.graph.graph.input), ""}
        pending, visited = [value], set[str]()
        while pending:
            name = pending.pop()
            if name in visited:
                continue
            visited.add(name)
            if name in ends:
                continue
            if name not in self._makers:
                raise DeployError(f"graph: no node computes {name}; export the model again")
            pending.extend(self._makers[name].input)
        return visited


def _axes(shape: tuple[int, ...]) -> list[int | str]:
    last = len(shape) - 1
    return [size if axis == last or size == 1 else f"axis_{axis}" for axis, size in enumerate(shape)]
