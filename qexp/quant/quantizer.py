"""One quantizer: the scale and zero point of a value, and what is done with them now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qexp.config import ValueType
from qexp.errors import QuantizationError
from qexp.quant.bounds import Bounds
from qexp.quant.calibration.embedding_groups import Grouping
from qexp.quant.fake_quantize import (
    FakeQuantizeFrozen,
    FakeQuantizeLearned,
    fake_quantize_tokens,
    gradient_scale,
    kernels_of,
)
from qexp.quant.grid import Grid, quantize
from qexp.quant.kernels.reference import damped, traced
from qexp.quant.minmax import batch_ends, group_ends
from qexp.quant.quant_params import ValueRange
from qexp.quant.quantizer_mode import Phase

Memo = tuple[Tensor, Tensor]


class Quantizer(ValueRange):
    """Quantizer of one value: its range, and what is done with a tensor in each phase.

    A quantizer remembers its last input and output until ``forget``: the same tensor, at another
    site, and its own output pass without work.

    Whatever the type of its input, a quantizer computes in float32, and gives back the type it got.

    Args:
        name: for messages.
        grid: integers to map to.
        channels: number of ranges; None with a grid per tensor.
        values: what is known of the values beforehand.
        ceiling: largest magnitude that a range has, but one that is learned; None is no limit.
        grouping: how dimensions share ranges, with a grid whose axis is the last; None shares none.

    Attributes:
        migration: Factors [n] along the last axis, see ``quant.migration``: what is quantized is ``x /
            migration``, and the result is multiplied by it again. None is no such factors.
        keeps_migration: Whether the export form multiplies again.
        parts: How many parts a batch is computed in: LSQ's gradient scale is that of the whole batch.
        counted: Which entries of a value count for a range that follows; None counts all.
    """

    def __init__(
        self,
        name: str,
        grid: Grid,
        channels: int | None = None,
        values: ValueType = "act",
        ceiling: float | None = None,
        grouping: Grouping | None = None,
    ) -> None:
        super().__init__(name, grid, channels, ceiling, grouping)
        self.values = values
        self.register_buffer("migration", None)
        self.migration: Tensor | None
        self.keeps_migration = True
        self.observer: Callable[[Tensor], None] | None = None
        self.parts = 1
        self.counted: Callable[[Tensor], Tensor | None] | None = None
        self._memo: Memo | None = None
        self.register_load_state_dict_post_hook(_drop_bounds)  # type: ignore[no-untyped-call]

    def switch(self, phase: Phase, observer: Callable[[Tensor], None] | None = None) -> None:
        """Enter a phase; where others are learned or follow, a range that is fixed beforehand stays frozen,
        and a dynamic one dynamic.

        Raises:
            QuantizationError: the phase needs a range and there is none.
        """
        if phase in (Phase.LEARNED, Phase.FOLLOWING) and (self.values == "softmax" or self.grid.dynamic):
            phase = Phase.FROZEN
        if phase not in (Phase.OFF, Phase.OBSERVING) and not self.calibrated:
            raise QuantizationError(f"{self.name} has no range: calibrate or load ranges before {phase}")
        if phase is not self.phase:
            self.fold()
            self.unfold(phase)
        self.phase, self.observer = phase, observer
        self.forget()
        self.renew_bounds()

    def forget(self) -> None:
        """Let go of the last input and output."""
        self._memo = None

    def forward(self, x: Tensor) -> Tensor:
        """``x`` as it is while off or observing, else its fake-quantized values."""
        if self.phase is Phase.OFF:
            return x
        if self.phase is not Phase.EXPORT and torch.compiler.is_compiling():
            # Equal work is found by the compiler; an export keeps what it is shown.
            return self.migrated(x, self._process)
        memo = self._memo
        if memo is not None and (x is memo[0] or x is memo[1]):
            return memo[1]
        y = self.migrated(x, self._process)
        self._memo = (x, y)
        return y

    def integers(self, x: Tensor) -> Tensor:
        """``x`` on the grid: int8 or uint8 up to 8 bits, else int32.

        Raises:
            QuantizationError: there is no range yet.
        """
        if not self.calibrated:
            raise QuantizationError(f"{self.name} has no range: calibrate or load ranges first")
        found = quantize(self.divided(x), self.current_scale().detach(), self.current_zero_point(), self.grid)
        return found if self.grid.bits > 8 else found.to(torch.int8 if self.grid.signed else torch.uint8)

    def divided(self, x: Tensor) -> Tensor:
        """What is quantized of a value: itself, or what its factors leave of it."""
        return x if self.migration is None else x / self.migration

    def migrated(self, x: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        """The work done on ``x / migration``, times ``migration``."""
        if self.migration is None:
            return work(x)
        y = work(x / self.migration)
        if self.phase is Phase.OBSERVING:
            return x
        keeps = self.keeps_migration or self.phase is not Phase.EXPORT
        return (y * self.migration if keeps else y).to(x.dtype)

    def _process(self, x: Tensor) -> Tensor:
        if self.phase is Phase.OBSERVING:
            if self.observer is not None:
                self.observer(x)
            return x
        if self.phase is Phase.EXPORT and not self.grid.dynamic:
            grid = self.grid
            axis = -1 if grid.axis is None else grid.axis % x.dim()
            scale, zero = self.of_dimensions(self.scale), self.of_dimensions(self.zero_point)
            return torch.ops.qexp.fake_quantize(  # type: ignore[no-any-return]
                x, scale, zero, axis, grid.qmin, grid.qmax
            )
        if self.phase is Phase.FOLLOWING and self.training:
            counted = None if self.counted is None else self.counted(x)
            ends = batch_ends(x, self.grid.axis, counted)
            self.follow(*(ends if self.members is None else group_ends(ends, self.members, len(self.scale))))
        return self._fake_quantize(x)

    def _fake_quantize(self, x: Tensor, done: Tensor | None = None) -> Tensor:
        """``done`` is the result, where it is known and only the gradient is to be attached."""
        if self.grid.dynamic:
            plain = self.phase is Phase.EXPORT or torch.compiler.is_compiling()
            return fake_quantize_tokens(x, self.grid, plain=plain)
        scale = self.grid.expand(self.of_dimensions(self.current_scale()), x.dim())
        factor = 1.0 if self.log_scale is None else self._factor(x)
        zero = None
        if self.shift is not None:
            zero = damped(self.grid.expand(self.of_dimensions(self.moved_zero_point()), x.dim()), factor)
        bounds = self.bounds(x.dim()) if zero is None else Bounds.around(self.grid, zero)
        if torch.compiler.is_compiling():
            return traced(x.float(), scale, bounds, factor).to(x.dtype)
        if x.dtype is not torch.float32 and not kernels_of(x, scale).HALVES:
            return self._fake_quantize(x.float()).to(x.dtype)
        if not torch.is_grad_enabled():
            return kernels_of(x, scale).forward(x, scale, bounds, nan_low=True)
        if self.log_scale is None:
            return FakeQuantizeFrozen.apply(x, scale, bounds, done)  # type: ignore[no-any-return,no-untyped-call]
        return FakeQuantizeLearned.apply(x, scale, bounds, factor, done, zero)  # type: ignore[no-any-return,no-untyped-call]

    def _factor(self, x: Tensor) -> float:
        """LSQ's gradient scale, for the elements of a whole batch that share a scale."""
        return gradient_scale(self.parts * x.numel() // self.scale.numel(), self.grid)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.forget()
        moved = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.renew_bounds()
        return moved

    def extra_repr(self) -> str:
        """Name, grid and phase."""
        return f"{self.name}, {self.grid}, {self.phase}"


def _drop_bounds(quantizer: Any, incompatible: Any) -> None:
    quantizer.renew_bounds()
    quantizer.forget()
