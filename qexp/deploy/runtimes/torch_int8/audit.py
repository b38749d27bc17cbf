"""From one run of a translated graph, node by node: every product with the shapes that it saw.

The run is that of the graph before a compiler fuses it. No compiler turns a product of integers into one of
floats, or back, so that part is exact. Conversions are those that are written; on a GPU most of them become
a part of the kernel before or after them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, fx

from qexp.deploy.engine import Audit, Product
from qexp.deploy.runtimes.torch_int8.int8_matmul import product
from qexp.deploy.runtimes.torch_int8.operators import attention, gemm, matmul

CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "Cast", "Transpose"}
"""Operators that only quantize, dequantize, or change a type or a layout."""


class _Observer(fx.Interpreter):
    """Runs a graph and notes its products."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.products: list[Product] = []
        self.executed: Counter[str] = Counter()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if "operator" in n.meta:
            self.executed[n.meta["operator"]] += 1
        if n.target is attention:
            self.products.extend(_attention(n, self._input(n, 1), result))
        elif n.target in (product, matmul, gemm):
            self.products.append(_product(n, self._input(n, 0), self._input(n, 1), result))
        return result

    def _input(self, node: fx.Node, at: int) -> Tensor:
        source = node.args[at]
        assert isinstance(source, fx.Node)
        value: Tensor = self.env[source]
        return value


def _product(node: fx.Node, left: Tensor, right: Tensor, result: Tensor) -> Product:
    integer = node.target is product
    inner = left.shape[0 if node.kwargs.get("transA") else -1]
    kernel = "_int_mm" if integer else "mm" if right.dim() == 2 else "bmm"
    return Product(node.meta["onnx"], kernel, result.numel() * inner, integer)


def _attention(node: fx.Node, keys: Tensor, result: Tensor) -> list[Product]:
    """Both products of an attention: queries by keys, and probabilities by values."""
    macs = result.numel() * keys.shape[-1]
    name, kernel = node.meta["onnx"], "scaled_dot_product_attention"
    return [Product(f"{name}:{part}", kernel, macs, False) for part in ("scores", "context")]


def audit(module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Audit:
    """What a translated graph does with a batch.

    Args:
        module: as :func:`qexp.deploy.runtimes.torch_int8.translate.translate` makes it.
        inputs: on its device, the first of them [rows, tokens].
    """
    observer = _Observer(module)
    observer.run(*inputs)
    conversions = sum(count for name, count in observer.executed.items() if name in CONVERSIONS)
    rows, tokens = inputs[0].shape[:2]
    return Audit((rows, tokens), tuple(observer.products), conversions, dict(observer.executed.most_common()))
