"""Sites of a text encoder's ONNX graph: which tensors are the input of which linear layer, and so on.

Modules are known by the names of their parameters: a weight's own name, or that of the bias behind a product
whose transposed weight an exporter has renamed. Nonlinearities have none, so that the names of their nodes
count, as torch's exporters make them of scopes (``/bert/pooler/activation/Tanh``). Values are followed
through operators that only move them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from qexp.deploy.onnx.encodings import MOVES

NONLINEARITIES = ("Gelu", "Relu", "Tanh", "Sigmoid", "Mul")
Chain = tuple[str, ...]
"""Tensors that hold a site's values, the nearest first: an encoding of any of them is one of the site."""


def tensor_sites(model: ModelProto) -> dict[str, Chain]:
    """Return the tensors of each site, as ``<module>:<kind>``."""
    graph = _Graph(model.graph)
    sites: dict[str, Chain] = {}
    for node in model.graph.node:
        for site, chain in _SITES.get(node.op_type, _nonlinearity)(graph, node):
            sites.setdefault(site, chain)
    return sites


class _Graph:
    """Producers and readers of the tensors of a graph."""

    def __init__(self, graph: GraphProto) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.producers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def parameter(self, name: str) -> str | None:
        """Return the constant that a tensor holds, maybe moved."""
        chain = self.up(name)
        return chain[-1] if chain[-1] in self.constants else None

    def up(self, name: str, *, scaled: bool = False) -> Chain:
        """Return a tensor and those that it was moved from; ``scaled`` also goes through constant factors."""
        chain = [name]
        while (node := self.producers.get(chain[-1])) is not None:
            factor = self.is_factor(node)
            if not (node.op_type in MOVES or factor == 1 or (scaled and factor is not None)):
                break
            chain.append(node.input[0])
        return tuple(chain)

    def is_factor(self, node: NodeProto) -> float | None:
        """Return the constant that a node multiplies by or divides by, else None."""
        if node.op_type not in ("Mul", "Div") or node.input[1] not in self.constants:
            return None
        value = numpy_helper.to_array(self.constants[node.input[1]])
        return float(value.reshape(())) if value.size == 1 and value.dtype == np.float32 else None

    def module(self, name: str, kind: str) -> str | None:
        """Return the module whose parameter a tensor is, by its name."""
        found = self.parameter(name)
        return found.removesuffix(f".{kind}") if found is not None and found.endswith(f".{kind}") else None

    def only_reader(self, name: str) -> NodeProto | None:
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 else None


def _product(graph: _Graph, node: NodeProto) -> Iterator[tuple[str, Chain]]:
    left, right = node.input[:2]
    if graph.parameter(right) is not None:
        yield from _linear(graph, node)
        return
    query, key = (_linear_of(graph, graph.up(each, scaled=True)[-1]) for each in (left, right))
    if query is not None and key is not None:
        attention = query.rpartition(".")[0]
        yield f"{attention}:matmul.query", graph.up(left)
        yield f"{attention}:matmul.key", graph.up(right)
        yield from _scores(graph, node, attention)


def _linear(graph: _Graph, node: NodeProto) -> Iterator[tuple[str, Chain]]:
    output, bias = node.output[0], node.input[2] if len(node.input) > 2 else ""
    reader = graph.only_reader(output)
    if not bias and reader is not None and reader.op_type == "Add":
        constant = next((name for name in reader.input if name in graph.constants), None)
        if constant is not None:
            output, bias = reader.output[0], constant
    module = graph.module(node.input[1], "weight") or (graph.module(bias, "bias") if bias else None)
    if module is None:
        return
    chain = graph.up(node.input[0])
    yield f"{module}:linear.weight", graph.up(node.input[1])
    yield f"{module}:linear.input", chain
    yield f"{module}:linear.output", (output,)
    yield f"{module}:attention.output", (output,)
    source = graph.producers.get(chain[-1])
    if source is not None and source.op_type == "MatMul" and graph.parameter(source.input[1]) is None:
        yield f"{module}:attention.context", chain


def _linear_of(graph: _Graph, output: str) -> str | None:
    """Return the linear layer that a tensor is the output of."""
    node = graph.producers.get(output)
    if node is None or node.op_type not in ("Add", "MatMul", "Gemm"):
        return None
    product = node
    if node.op_type == "Add":
        found = [graph.producers.get(name) for name in node.input]
        product = next((each for each in found if each is not None and each.op_type == "MatMul"), node)
    sites = dict(_linear(graph, product)) if product.op_type in ("MatMul", "Gemm") else {}
    names = [site.rpartition(":")[0] for site, chain in sites.items() if output in chain]
    return names[0] if names else None


def _scores(graph: _Graph, product: NodeProto, attention: str) -> Iterator[tuple[str, Chain]]:
    """Yield the sites behind the product of queries and keys, up to the product with the values."""
    value, node = product.output[0], graph.only_reader(product.output[0])
    if node is not None and graph.is_factor(node) is not None:
        value, node = node.output[0], graph.only_reader(node.output[0])
    yield f"{attention}:attention.scores", (value,)
    if node is not None and node.op_type == "Add":
        yield f"{attention}:attention.masked_scores", (node.output[0],)
        node = graph.only_reader(node.output[0])
    if node is None or node.op_type != "Softmax":
        return
    reader = graph.only_reader(node.output[0])
    while reader is not None and graph.is_factor(reader) == 1:
        node, reader = reader, graph.only_reader(reader.output[0])
    yield f"{attention}:matmul.probs", graph.up(node.output[0])
    if reader is not None and reader.op_type == "MatMul":
        yield f"{attention}:matmul.value", graph.up(reader.input[1])


def _table(graph: _Graph, node: NodeProto) -> Iterator[tuple[str, Chain]]:
    module = graph.module(node.input[0], "weight")
    if module is not None:
        yield f"{module}:embedding.weight", graph.up(node.input[0])
        yield f"{module}:embedding.output", _and_copy(graph, node.output[0])


def _and_copy(graph: _Graph, value: str) -> Chain:
    """Return a tensor behind those that are its product with one."""
    copies = [node.output[0] for node in graph.readers[value] if graph.is_factor(node) == 1]
    return (*copies, value)


def _norm(graph: _Graph, node: NodeProto) -> Iterator[tuple[str, Chain]]:
    if (module := graph.module(node.input[1], "weight")) is not None:
        yield f"{module}:layernorm.weight", graph.up(node.input[1])
        yield from _norm_sites(graph, module, node.input[0], node.output[0])


def _sum(graph: _Graph, node: NodeProto) -> Iterator[tuple[str, Chain]]:
    """Yield the sites of a norm that is written as ``(x - mean) / deviation * weight + bias``."""
    scaled = graph.producers.get(node.input[0])
    if scaled is None or scaled.op_type != "Mul":
        return
    module = graph.module(scaled.input[1], "weight")
    if module is None or module != graph.module(node.input[1], "bias"):
        return
    value: str = scaled.input[0]
    for operator in ("Div", "Sub"):
        before = graph.producers.get(value)
        if before is None or before.op_type != operator:
            return
        value = before.input[0]
    yield f"{module}:layernorm.weight", graph.up(scaled.input[1])
    yield from _norm_sites(graph, module, value, node.output[0])


def _norm_sites(graph: _Graph, norm: str, value: str, output: str) -> Iterator[tuple[str, Chain]]:
    yield f"{norm}:layernorm.input", graph.up(value)
    yield f"{norm}:layernorm.output", (output,)
    yield f"{norm}:residual.sum", graph.up(value)
    add, owner = graph.producers.get(graph.up(value)[-1]), norm.rpartition(".")[0]
    if add is None or add.op_type != "Add":
        return
    own = [(_linear_of(graph, graph.up(name)[-1]) or "").startswith(f"{owner}.") for name in add.input]
    if sum(own) == 1:
        local, residual = (add.input[own.index(side)] for side in (True, False))
        yield f"{owner}.dropout:residual.input", graph.up(local)
        yield f"{owner}:residual.input", graph.up(residual)


def _nonlinearity(graph: _Graph, node: NodeProto) -> Iterator[tuple[str, Chain]]:
    """Yield the output of a nonlinearity; of one in several operators, that of the last in its module."""
    scope = node.name.strip("/").rpartition("/")[0].replace("/", ".")
    reader = graph.only_reader(node.output[0]) if node.output else None
    inside = reader is not None and reader.name.strip("/").rpartition("/")[0].replace("/", ".") == scope
    if scope and node.op_type in NONLINEARITIES and not inside:
        yield f"{scope}:activation.output", (node.output[0],)


_SITES = {
    "MatMul": _product, "Gemm": _linear, "Gather": _table, "LayerNormalization": _norm, "Add": _sum,
}  # fmt: skip
