"""Parts of an exported graph: what computes the output of one module, out of the outputs of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from qexp.errors import DeployError

if TYPE_CHECKING:
    import onnx

NOT_LAYERS = ("quantization.", ".parametrizations.")
"""Parts of names of modules that quantize: their outputs are what integer kernels are made of, no cuts."""


@dataclass(frozen=True)
class Layer:
    """A module whose output is a value of the graph."""

    module: str
    """Its name in torch, such as ``bert.encoder.layer.0.output.dense``."""
    value: str
    """Name in the graph."""


def layers_of(graph: onnx.ModelProto) -> list[Layer]:
    """Modules whose output is known in the graph, in its order.

    Nodes are named by the module that they come from (:mod:`qexp.deploy.onnx.passes`). The output of a module
    is that of the last node in it, unless that node is in a module inside, which is then named itself.
    """
    last: dict[str, tuple[int, str, str]] = {}
    own: set[str] = set()
    for index, node in enumerate(graph.graph.node):
        module = node.name.rpartition("/")[0]
        if module and not any(part in f"{module}." for part in NOT_LAYERS):
            own.add(module)
            for scope in _scopes(module):
                last[scope] = (index, module, node.output[0])
    found = sorted(
        (index, scope, value) for scope, (index, module, value) in last.items() if scope == module in own
    )
    return [Layer(scope, value) for _, scope, value in found]


def _scopes(module: str) -> Iterator[str]:
    """A module and all around it."""
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


@dataclass(frozen=True)
class Parts:
    """A graph of which parts are made; it must stay as it is as long as they are."""

    graph: onnx.ModelProto

    @cached_property
    def _makers(self) -> dict[str, onnx.NodeProto]:
        return {output: node for node in self.graph.graph.node for output in node.output}

    @cached_property
    def _stored(self) -> dict[str, onnx.TensorProto]:
        return {tensor.name: tensor for tensor in self.graph.graph.initializer}

    def part(self, value: str, given: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
        """The smallest graph that computes a float32 value.

        Args:
            value: Name of the value, its one output.
            given: Shapes of the float32 values that are inputs where they are met, besides the graph's own;
                sizes but the last and those of 1 become dynamic. ``value`` itself is none of them.

        Raises:
            DeployError: The graph does not say where a value comes from.
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
        """Names of all values on the way from what is given to a value."""
        ends = {*given, *self._stored, *(each.name for each in self.graph.graph.input), ""}
        wanted, seen = [value], set[str]()
        while wanted:
            name = wanted.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in ends:
                continue
            if name not in self._makers:
                raise DeployError(f"graph: no node computes {name}; export the model again")
            wanted.extend(self._makers[name].input)
        return seen


def _axes(shape: tuple[int, ...]) -> list[int | str]:
    last = len(shape) - 1
    return [size if axis == last or size == 1 else f"axis_{axis}" for axis, size in enumerate(shape)]
