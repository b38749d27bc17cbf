"""Parametrization of a quantized weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode


class QuantizedWeight(nn.Module):
    """Parametrization of a weight with its quantizer and the cached last result.

    A weight is quantized again only if it or its scale has changed: once per optimizer step, however many
    parts a batch is computed in and however often a module is used, and once for a whole evaluation. Changes
    are detected by ``Tensor._version``, which writes through ``.data`` and fused optimizers do not update.
    The ``QuantizedModel``, which owns the quantizer, therefore calls ``forget`` after each optimizer step.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self._owned_elsewhere = (quantizer,)
        self._kept: tuple[tuple[Any, ...], Tensor] | None = None

    @property
    def quantizer(self) -> Quantizer:
        """Quantizer of the weight."""
        return self._owned_elsewhere[0]

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight to compute with, in the same shape."""
        quantizer = self.quantizer
        if quantizer.mode is QuantizerMode.OFF or quantizer.delayed:
            return weight
        if torch.compiler.is_compiling():
            return quantizer.with_pre_scale(weight, quantizer._fake_quantize)
        state = self._state(weight, quantizer)
        if self._kept is not None and self._kept[0] == state:
            kept = self._kept[1]
            if not torch.is_grad_enabled():
                return kept
            if quantizer.migration is None:
                return quantizer._fake_quantize(weight, kept)
        self.forget()  # before computing a new result, so that at most one is alive
        result = quantizer.with_pre_scale(weight, quantizer._fake_quantize)
        self._kept = (state, result.detach())
        return result

    def forget(self) -> None:
        """Drop the cached result."""
        self._kept = None

    @staticmethod
    def _state(weight: Tensor, quantizer: Quantizer) -> tuple[Any, ...]:
        tensors = (weight, quantizer.scale, quantizer.zero_point, *quantizer.learned)
        versions = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        return (torch.is_grad_enabled(), *versions)
