"""Cost of a quantized model for a bit-width assignment: parameter bytes and bit operations.

A multiply-accumulate of a ``b``-bit weight and an ``a``-bit activation counts as ``b * a`` bit operations, as
in van Baalen et al., "Bayesian Bits" (2020). The accumulator term of Baskin et al., "UNIQ" (2018), is left
out. Floating point counts as 32 bits. Linear layers and both matrix products of each attention count; sums,
norms and nonlinearities do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qexp.config import FLOAT_BITS
from qexp.quant.float_grid import BlockGrid
from qexp.quant.grid import AnyGrid
from qexp.quant.insertion.discovery import two_sequences
from qexp.quant.insertion.function_taps import FAMILIES, operands_of
from qexp.quant.insertion.hooks import AttentionSwitch, Handle
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.quant.insertion.weights import original

TOKENS = 128
"""Tokens in the row that is counted; fewer if the model has fewer positions."""
OFFSET = 2
"""Number of position embeddings that RoBERTa leaves unused at the start."""
FLOAT_BYTES = 4
"""Size of a floating-point parameter, a scale or a zero point."""
Bits = Mapping[str, int]
"""Bit-width by quantizer name. The value of a missing quantizer stays in floating point."""


@dataclass(frozen=True)
class MatmulGroup:
    """The matrix products of one module that have the same operands."""

    module: str
    macs: int
    """Multiply-accumulates for one row."""
    operands: tuple[str | None, str | None]
    """Quantizers of both operands, input and weight in a linear layer; None means floating point."""
    reads: int | None = None
    """Index of the tensor that a linear layer reads, equal if layers share it; None inside attention."""

    def bops(self, bits: Bits) -> int:
        """Return the number of bit operations for one row."""
        left, right = (bits.get(name, FLOAT_BITS) if name else FLOAT_BITS for name in self.operands)
        return self.macs * left * right


@dataclass(frozen=True)
class StoredParameters:
    """Sizes of the parameters that one quantizer applies to."""

    quantizer: str
    elements: int
    scales: int
    zero_points: int
    block_scales: int = 0
    """Scales of one byte, of floats in blocks."""

    def bytes(self, bits: Bits) -> int:
        """Return the size of the packed integers with their scales and zero points, or of the floats."""
        width = bits.get(self.quantizer, FLOAT_BITS)
        if width == FLOAT_BITS:
            return FLOAT_BYTES * self.elements
        whole = FLOAT_BYTES * (self.scales + self.zero_points) + self.block_scales
        return -(-self.elements * width // 8) + whole


@dataclass(frozen=True)
class ForwardCost:
    """Matrix products of a forward pass on one row, and the parameters that the model stores."""

    tokens: int
    """Tokens of the row, and of the target sequence if there is a decoder."""
    products: tuple[MatmulGroup, ...]
    stored: tuple[StoredParameters, ...]
    floats: int
    """Parameters without a quantizer."""

    @cached_property
    def macs(self) -> int:
        """Number of multiply-accumulates for one row."""
        return sum(product.macs for product in self.products)

    def bops(self, bits: Bits) -> int:
        """Return the number of bit operations for one row."""
        return sum(product.bops(bits) for product in self.products)

    def bytes(self, bits: Bits) -> int:
        """Return the size of all parameters; activation qparams are left out."""
        return FLOAT_BYTES * self.floats + sum(each.bytes(bits) for each in self.stored)

    def describe(self, bits: Bits) -> dict[str, int]:
        """Return ``tokens``, ``macs``, ``bops`` and ``bytes``, for a Record."""
        return {
            "tokens": self.tokens, "macs": self.macs, "bops": self.bops(bits), "bytes": self.bytes(bits),
        }  # fmt: skip


def work_of(quantization: QuantizedModel, example: Mapping[str, Tensor] | None = None) -> ForwardCost:
    """Measure the cost of a model with one forward pass, on the example or on one row of ``TOKENS`` tokens.

    Args:
        quantization: Quantizers, with ranges, of a model in evaluation mode. Their phases are restored.
        example: Arguments of a forward pass on one row, by name.

    Raises:
        QuantizationError: If a quantizer has no range yet.
    """
    example = one_row(quantization.model) if example is None else example
    recorder = MatmulRecorder()
    with _frozen(quantization), recorder.attached(quantization), torch.no_grad():
        quantization.model(**example)
    stored = _stored(quantization)
    own = {id(parameter) for parameter in quantization.parameters()}
    total = sum(each.numel() for each in quantization.model.parameters() if id(each) not in own)
    floats = total - sum(each.elements for each in stored)
    return ForwardCost(next(iter(example.values())).shape[1], recorder.products(), stored, floats)


def one_row(model: Any, tokens: int = TOKENS) -> dict[str, Any]:
    """Return forward arguments for one row without padding, and one of the same length for a decoder."""
    positions = getattr(model.config, "max_position_embeddings", None)
    length = tokens if positions is None else min(tokens, positions - OFFSET)
    ids = torch.full((1, length), 2, device=next(model.parameters()).device)
    row = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**row, "decoder_input_ids": ids, "use_cache": False} if two_sequences(model) else row


@dataclass
class MatmulRecorder:
    """Recorder of the matrix products of a forward pass.

    It keeps the tensors alive, so that no two of them share a memory address.
    """

    kept: list[Tensor] = field(default_factory=list)
    made: dict[int, str] = field(default_factory=dict)
    """Quantizer name by the storage address of its output; views of an output hold the same integers."""
    linears: dict[str, MatmulGroup] = field(default_factory=dict)
    attention: list[MatmulGroup] = field(default_factory=list)
    """Products of two activations, in the order of the forward pass."""
    stack: list[str] = field(default_factory=list)
    """Names of the running modules, from the outermost on."""
    numbers: dict[int, int] = field(default_factory=dict)
    """Index of each tensor that linear layers read, by identity."""

    @contextmanager
    def attached(self, quantization: QuantizedModel) -> Iterator[None]:
        """Record the products that the model computes inside the context."""
        model = quantization.model
        weights = {site.module: site.quantizer for site in quantization.sites if site.kind == "linear.weight"}
        handles: list[Handle] = [AttentionSwitch(model)]
        for name, quantizer in quantization.quantizers.items():
            handles.append(quantizer.register_forward_hook(partial(self._record_output, name)))
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                handles.append(
                    module.register_forward_hook(partial(self._record_linear, name, weights.get(name)))
                )
            handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            with _Products(self.record_product):
                yield
        finally:
            for handle in reversed(handles):
                handle.remove()

    def products(self) -> tuple[MatmulGroup, ...]:
        """Return the products of linear layers, in the order of the forward pass, then those of attention."""
        return (*self.linears.values(), *self.attention)

    def record_product(self, left: Tensor, right: Tensor, result: Tensor) -> None:
        """Record a product of two activations, [.., T, n] and [.., n, S]."""
        self.kept += [left, right]
        names = (self._name(left), self._name(right))
        self.attention.append(MatmulGroup(self.stack[-1], result.numel() * left.shape[-1], names))

    def _enter(self, name: str, *_: Any) -> None:
        self.stack.append(name)

    def _leave(self, *_: Any) -> None:
        self.stack.pop()

    def _name(self, tensor: Tensor) -> str | None:
        return self.made.get(tensor.untyped_storage().data_ptr())

    def _record_output(self, name: str, quantizer: nn.Module, args: Any, output: Tensor) -> None:
        self.kept.append(output)
        self.made[output.untyped_storage().data_ptr()] = name

    def _record_linear(
        self, name: str, weight: str | None, module: nn.Linear, args: Any, output: Tensor
    ) -> None:
        self.kept.append(args[0])
        before = self.linears[name].macs if name in self.linears else 0
        macs = before + output.numel() * module.in_features
        reads = self.numbers.setdefault(id(args[0]), len(self.numbers))
        self.linears[name] = MatmulGroup(name, macs, (self._name(args[0]), weight), reads)


class _Products(TorchFunctionMode):
    """Mode that records the products of two activations, after all taps on their operands."""

    def __init__(self, record: Callable[[Tensor, Tensor, Tensor], None]) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute the function, and record it if it is such a product."""
        result = func(*args, **(kwargs or {}))
        if FAMILIES.get(getattr(func, "__name__", "")) == "product" and func.__name__ != "einsum":
            pair = operands_of(func, args, kwargs or {})
            if pair is not None and all(each.dim() >= 3 for each in pair):
                self.record(pair[0], pair[1], result)
        return result


@contextmanager
def _frozen(quantization: QuantizedModel) -> Iterator[None]:
    before = {quantizer: quantizer.mode for quantizer in quantization.quantizers.values()}
    quantization.freeze()
    try:
        yield
    finally:
        for quantizer, mode in before.items():
            quantizer.switch(mode)


def _stored(quantization: QuantizedModel) -> tuple[StoredParameters, ...]:
    """Collect the stored parameters of each quantizer, counting a shared parameter once."""
    elements: dict[str, dict[int, int]] = {}
    for site in quantization.sites:
        if site.is_weight:
            weight = original(quantization.model, site)
            elements.setdefault(site.quantizer, {})[id(weight)] = weight.numel()
    quantizers = quantization.quantizers
    return tuple(
        StoredParameters(
            name,
            elements=sum(sizes.values()),
            scales=scales,
            zero_points=0 if grid.symmetric else scales,
            block_scales=_block_scales(grid, sizes.values()),
        )
        for name, sizes in elements.items()
        for grid, scales in ((quantizers[name].grid, quantizers[name].scale.numel()),)
    )


def _block_scales(grid: AnyGrid, sizes: Iterable[int]) -> int:
    return sum(-(-size // grid.size) for size in sizes) if isinstance(grid, BlockGrid) else 0
