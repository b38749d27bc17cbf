"""What a quantized model costs under an assignment of bits: bytes of its parameters, and bit operations.

A multiply-accumulate of a ``b``-bit weight with an ``a``-bit activation counts ``b * a`` bit operations, as
in van Baalen et al., "Bayesian Bits" (2020); what Baskin et al., "UNIQ" (2018), add for the accumulator is
left out. Floating point has 32 bits. Linear layers and both matrix products of each attention count; sums,
norms and nonlinearities do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from qexp.config import FLOAT_BITS, SiteKind
from qexp.quant.insertion.attention import TAPS
from qexp.quant.insertion.discovery import two_sequences
from qexp.quant.insertion.hooks import AttentionSwitch, Handle, Tap
from qexp.quant.insertion.quantized_model import Quantization
from qexp.quant.insertion.weights import original

TOKENS = 128
"""Tokens of the row that is counted, fewer where a model has no positions for so many."""
OFFSET = 2
"""The first position of RoBERTa, which it leaves unused."""
FLOAT_BYTES = 4
"""Of a parameter in floating point, a scale or a zero point."""
OPERANDS: tuple[SiteKind, ...] = ("matmul.query", "matmul.key", "matmul.probs", "matmul.value")
"""Of the two products of an attention."""
Bits = Mapping[str, int]
"""Bits by the name of a quantizer; one that is not there leaves its value in floating point."""


@dataclass(frozen=True)
class Product:
    """Matrix products of one module that have the same operands."""

    module: str
    macs: int
    """Multiply-accumulates for one row."""
    operands: tuple[str | None, str | None]
    """Quantizers of what is multiplied: input and weight of a linear layer; None is floating point."""
    reads: int | None = None
    """Which tensor a linear layer reads: those of one number read the same; None inside attention."""

    def bops(self, bits: Bits) -> int:
        """Bit operations for one row."""
        left, right = (bits.get(name, FLOAT_BITS) if name else FLOAT_BITS for name in self.operands)
        return self.macs * left * right


@dataclass(frozen=True)
class Stored:
    """Parameters that one quantizer has."""

    quantizer: str
    elements: int
    scales: int
    zero_points: int

    def bytes(self, bits: Bits) -> int:
        """Of integers, packed, with their scales and zero points; or of floats."""
        width = bits.get(self.quantizer, FLOAT_BITS)
        if width == FLOAT_BITS:
            return FLOAT_BYTES * self.elements
        return -(-self.elements * width // 8) + FLOAT_BYTES * (self.scales + self.zero_points)


@dataclass(frozen=True)
class Work:
    """What a forward pass of one row multiplies, and what the model keeps."""

    tokens: int
    """Tokens of the row, and of what a decoder beside it writes."""
    products: tuple[Product, ...]
    stored: tuple[Stored, ...]
    floats: int
    """Parameters without a quantizer."""

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates for one row."""
        return sum(product.macs for product in self.products)

    def bops(self, bits: Bits) -> int:
        """Bit operations for one row."""
        return sum(product.bops(bits) for product in self.products)

    def bytes(self, bits: Bits) -> int:
        """Of all parameters; ranges of activations are left out."""
        return FLOAT_BYTES * self.floats + sum(each.bytes(bits) for each in self.stored)

    def describe(self, bits: Bits) -> dict[str, int]:
        """``tokens``, ``macs``, ``bops`` and ``bytes``, for a Record."""
        return {
            "tokens": self.tokens, "macs": self.macs, "bops": self.bops(bits), "bytes": self.bytes(bits),
        }  # fmt: skip


def work_of(quantization: Quantization, example: Mapping[str, Tensor] | None = None) -> Work:
    """Count by one forward pass, of the example or of one row of ``TOKENS`` tokens.

    Args:
        quantization: of a model in evaluation mode, with ranges; its phases stay what they are.
        example: arguments of a forward pass on one row, by name.

    Raises:
        QuantizationError: a quantizer has no range yet.
    """
    example = one_row(quantization.model) if example is None else example
    watch = Watch()
    with _frozen(quantization), watch.attached(quantization), torch.no_grad():
        quantization.model(**example)
    stored = _stored(quantization)
    own = {id(parameter) for parameter in quantization.parameters()}
    everything = sum(each.numel() for each in quantization.model.parameters() if id(each) not in own)
    floats = everything - sum(each.elements for each in stored)
    return Work(next(iter(example.values())).shape[1], watch.products(quantization), stored, floats)


def one_row(model: Any, tokens: int = TOKENS) -> dict[str, Any]:
    """Arguments of a forward pass on one row without padding, and for a decoder one of the same length."""
    positions = getattr(model.config, "max_position_embeddings", None)
    length = tokens if positions is None else min(tokens, positions - OFFSET)
    ids = torch.full((1, length), 2, device=next(model.parameters()).device)
    row = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**row, "decoder_input_ids": ids, "use_cache": False} if two_sequences(model) else row


@dataclass
class Watch:
    """What a forward pass multiplies. Tensors stay alive, so that their places in memory stay apart."""

    kept: list[Tensor] = field(default_factory=list)
    made: dict[int, str] = field(default_factory=dict)
    """The quantizer by the storage of what it gave: views of it hold the same integers."""
    linears: dict[str, Product] = field(default_factory=dict)
    operands: dict[str, dict[SiteKind, list[Tensor]]] = field(default_factory=dict)
    """Operands in attention by module."""
    numbers: dict[int, int] = field(default_factory=dict)
    """Of the tensors that linear layers read, by identity."""

    @contextmanager
    def attached(self, quantization: Quantization) -> Iterator[None]:
        """Watch what the model computes inside the context."""
        model = quantization.model
        weights = {site.module: site.quantizer for site in quantization.sites if site.kind == "linear.weight"}
        handles: list[Handle] = [AttentionSwitch(model)]
        for name, quantizer in quantization.quantizers.items():
            handles.append(quantizer.register_forward_hook(partial(self._made, name)))
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                handles.append(module.register_forward_hook(partial(self._linear, name, weights.get(name))))
            handles.append(_Operands(module, self.operands.setdefault(name, {})))
        try:
            yield
        finally:
            for handle in reversed(handles):
                handle.remove()

    def products(self, quantization: Quantization) -> tuple[Product, ...]:
        """Linear layers in the order of the forward pass, then attention."""
        found = list(self.linears.values())
        for name, kinds in self.operands.items():
            query, key, probabilities, value = (kinds.get(kind, []) for kind in OPERANDS)
            for left, right in zip(query, key, strict=True):  # [B, heads, T, d] and [B, heads, S, d]
                found.append(self._product(name, left, right, right.shape[-2]))
            for left, right in zip(probabilities, value, strict=True):  # [B, heads, T, S], [B, heads, S, d]
                found.append(self._product(name, left, right, right.shape[-1]))
        return tuple(found)

    def _product(self, module: str, left: Tensor, right: Tensor, columns: int) -> Product:
        return Product(module, left.numel() * columns, (self._name(left), self._name(right)))

    def _name(self, tensor: Tensor) -> str | None:
        return self.made.get(tensor.untyped_storage().data_ptr())

    def _made(self, name: str, quantizer: nn.Module, args: Any, output: Tensor) -> None:
        self.kept.append(output)
        self.made[output.untyped_storage().data_ptr()] = name

    def _linear(self, name: str, weight: str | None, module: nn.Linear, args: Any, output: Tensor) -> None:
        self.kept.append(args[0])
        before = self.linears[name].macs if name in self.linears else 0
        macs = before + output.numel() * module.in_features
        reads = self.numbers.setdefault(id(args[0]), len(self.numbers))
        self.linears[name] = Product(name, macs, (self._name(args[0]), weight), reads)


class _Operands:
    """Taps that note what one module's attention multiplies, behind those that it has."""

    def __init__(self, module: nn.Module, noted: dict[SiteKind, list[Tensor]]) -> None:
        self.module, self.before = module, getattr(module, TAPS, None)
        taps = self.before or {}
        noting = {kind: partial(self._note, noted, kind, taps.get(kind)) for kind in OPERANDS}
        setattr(module, TAPS, {**taps, **noting})

    @staticmethod
    def _note(noted: dict[SiteKind, list[Tensor]], kind: SiteKind, tap: Tap | None, tensor: Tensor) -> Tensor:
        tapped = tensor if tap is None else tap(tensor)
        noted.setdefault(kind, []).append(tapped)
        return tapped

    def remove(self) -> None:
        """Give the module back the taps that it had."""
        if self.before is None:
            delattr(self.module, TAPS)
        else:
            setattr(self.module, TAPS, self.before)


@contextmanager
def _frozen(quantization: Quantization) -> Iterator[None]:
    before = {quantizer: quantizer.phase for quantizer in quantization.quantizers.values()}
    quantization.freeze()
    try:
        yield
    finally:
        for quantizer, phase in before.items():
            quantizer.switch(phase)


def _stored(quantization: Quantization) -> tuple[Stored, ...]:
    """By quantizer; a parameter that several modules share counts once."""
    elements: dict[str, dict[int, int]] = {}
    for site in quantization.sites:
        if site.is_weight:
            weight = original(quantization.model, site)
            elements.setdefault(site.quantizer, {})[id(weight)] = weight.numel()
    quantizers = quantization.quantizers
    return tuple(
        Stored(name, sum(of.values()), scales, 0 if quantizers[name].grid.symmetric else scales)
        for name, of in elements.items()
        for scales in (quantizers[name].scale.numel(),)
    )
