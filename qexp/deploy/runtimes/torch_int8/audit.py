"""Audit of a translated graph from one run, node by node: every product with the shapes of its operands.

The graph runs as it is before a compiler fuses it. No compiler turns an integer product into a float
product, or back, so this part of the audit is exact. Conversions are counted as written; on a GPU most of
them are fused into the kernel before or after them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, fx

from qexp.deploy.engine import Audit, EngineProduct
from qexp.deploy.runtimes.torch_int8.int8_matmul import product
from qexp.deploy.runtimes.torch_int8.operators import attention, gemm, matmul

CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "Cast", "Transpose"}
"""Operators that only quantize, dequantize, or change a type or a layout."""


class _Observer(fx.Interpreter):
    """Interpreter that records the products of a graph."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.products: list[EngineProduct] = []
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


def _product(node: fx.Node, left: Tensor, right: Tensor, result: Tensor) -> EngineProduct:
    integer = node.target is product
    inner = left.shape[0 if node.kwargs.get("transA") else -1]
    kernel = "_int_mm" if integer else "mm" if right.dim() == 2 else "bmm"
    return EngineProduct(node.meta["onnx"], kernel, result.numel() * inner, integer)


def _attention(node: fx.Node, keys: Tensor, result: Tensor) -> list[EngineProduct]:
    """Return both products of an attention: queries by keys, and probabilities by values."""
    macs = result.numel() * keys.shape[-1]
    name, kernel = node.meta["onnx"], "scaled_dot_product_attention"
    return [EngineProduct(f"{name}:{part}", kernel, macs, False) for part in ("scores", "context")]


def audit(module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Audit:
    """Audit a translated graph on a batch.

    Args:
        module: Result of :func:`qexp.deploy.runtimes.torch_int8.translate.translate`.
        inputs: Inputs on the module's device, the first of them [rows, tokens].
    """
    observer = _Observer(module)
    observer.run(*inputs)
    conversions = sum(count for name, count in observer.executed.items() if name in CONVERSIONS)
    rows, tokens = inputs[0].shape[:2]
    return Audit((rows, tokens), tuple(observer.products), conversions, dict(observer.executed.most_common()))
