"""A weight that has a quantizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import Phase


class QuantizedWeight(nn.Module):
    """The parametrization of a weight: its quantizer, and the last result.

    A weight is quantized once until it or its scale changes: once for each optimizer step, however many
    parts a batch is computed in and however often a module is used, and once for a whole evaluation.
    Changes show in ``Tensor._version``, except writing through ``.data`` and fused optimizers; of steps
    the model's ``Quantization`` tells, which owns the quantizer.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self._owned_elsewhere = (quantizer,)
        self._kept: tuple[tuple[Any, ...], Tensor] | None = None

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer of this weight."""
        return self._owned_elsewhere[0]

    def forward(self, weight: Tensor) -> Tensor:
        """The weight to compute with, of the same shape."""
        quantizer = self.quantizer
        if quantizer.phase is Phase.OFF:
            return weight
        if torch.compiler.is_compiling():
            return quantizer.migrated(weight, quantizer._fake_quantize)
        state = self._state(weight, quantizer)
        if self._kept is not None and self._kept[0] == state:
            kept = self._kept[1]
            if not torch.is_grad_enabled():
                return kept
            if quantizer.migration is None:
                return quantizer._fake_quantize(weight, kept)
        self.forget()  # before there is a new one: at most one result is alive
        result = quantizer.migrated(weight, quantizer._fake_quantize)
        self._kept = (state, result.detach())
        return result

    def forget(self) -> None:
        """Let go of the last result."""
        self._kept = None

    @staticmethod
    def _state(weight: Tensor, quantizer: Quantizer) -> tuple[Any, ...]:
        learned = quantizer.log_scale
        tensors = (weight, quantizer.scale, quantizer.zero_point, *(() if learned is None else (learned,)))
        versions = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        return (torch.is_grad_enabled(), *versions)
