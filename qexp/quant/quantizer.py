"""Quantizer of a single value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qexp.config import ValueType
from qexp.errors import QuantizationError
from qexp.quant.bounds import Bounds
from qexp.quant.calibration.embedding_groups import EmbeddingGroups
from qexp.quant.fake_quantize import (
    FakeQuantizeBlocks,
    FakeQuantizeFrozen,
    FakeQuantizeLearned,
    fake_quantize_dynamic,
    gradient_scale,
    kernels_of,
)
from qexp.quant.float_grid import BlockGrid, FloatGrid
from qexp.quant.grid import AnyGrid, Grid, quantize
from qexp.quant.kernels.reference import damped, traced
from qexp.quant.minmax import batch_ends, group_ends
from qexp.quant.quant_params import QuantParams
from qexp.quant.quantizer_mode import QuantizerMode

Memo = tuple[Tensor, Tensor]


class Quantizer(QuantParams):
    """Quantizer of one value: its qparams, and the operation of each mode.

    A quantizer caches its last input and output until ``forget``. The same tensor at another site, and its
    own output, therefore pass without computation.

    It computes in float32 whatever the input type, and returns the input type.

    Args:
        name: Name of the quantizer, for messages.
        grid: Grid to map to.
        channels: Number of ranges; None for a per-tensor grid.
        values: Value type, what is known of the values beforehand.
        ceiling: Largest magnitude of a range that is not learned; None sets no limit.
        grouping: How dimensions share ranges, for a grid on the last axis; None means no sharing.

    Attributes:
        migration: Factors [n] along the last axis, see ``refinement.migration``: ``x / migration`` is
            quantized, and the result is multiplied by ``migration`` again. None means no factors.
        keeps_pre_scale: Whether the export form multiplies by the factors again.
        observer: Function that receives each value in the observing mode, or None.
        parts: Number of parts that a batch is computed in. LSQ's gradient scale is that of the whole batch.
        counted: Function that returns which entries of a value count in EMA mode; None counts all.
        delayed: Whether values still pass unchanged, whatever the mode.
        parts_of_range: Names of the values of a fused one, each with calibration statistics of its own.
        part: Name of the one that comes by.
    """

    def __init__(
        self,
        name: str,
        grid: AnyGrid,
        channels: int | None = None,
        values: ValueType = "act",
        ceiling: float | None = None,
        grouping: EmbeddingGroups | None = None,
    ) -> None:
        super().__init__(name, grid, channels, ceiling, grouping)
        self.values = values
        self.register_buffer("migration", None)
        self.migration: Tensor | None
        self.keeps_pre_scale = True
        self.observer: Callable[[Tensor], None] | None = None
        self.parts = 1
        self.counted: Callable[[Tensor], Tensor | None] | None = None
        self.delayed = False
        self.parts_of_range: tuple[str, ...] = ()
        self.part = name
        self._memo: Memo | None = None
        self.register_load_state_dict_post_hook(_drop_bounds)  # type: ignore[no-untyped-call]

    def switch(self, mode: QuantizerMode, observer: Callable[[Tensor], None] | None = None) -> None:
        """Enter a mode.

        Instead of being learned or averaged, a fixed range (softmax) stays frozen and a dynamic one dynamic.
        Scales of blocks are not learned either.

        Raises:
            QuantizationError: If the mode needs a range and there is none.
        """
        fixed = self.values == "softmax" or self.grid.dynamic
        learned_blocks = mode is QuantizerMode.LEARNED and isinstance(self.grid, BlockGrid)
        if learned_blocks or (fixed and mode in (QuantizerMode.LEARNED, QuantizerMode.EMA)):
            mode = QuantizerMode.FROZEN
        if mode not in (QuantizerMode.OFF, QuantizerMode.OBSERVING) and not self.calibrated:
            raise QuantizationError(f"{self.name} has no range: calibrate or load ranges before {mode}")
        if mode is not self.mode:
            self.fold()
            self.unfold(mode)
        self.mode, self.observer = mode, observer
        self.forget()
        self.renew_bounds()

    @property
    def repeatable(self) -> bool:
        """Whether rows of a batch can pass alone and a second time: the range is fixed, and not learned."""
        fixed = self.mode is QuantizerMode.OFF or (self.mode is QuantizerMode.FROZEN and not self.learned)
        return fixed and self.grid.dynamic != "tensor"

    def forget(self) -> None:
        """Drop the cached input and output."""
        self._memo = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` unchanged while off or observing, else its fake-quantized values."""
        if self.mode is QuantizerMode.OFF or self.delayed:
            return x
        if self.mode is not QuantizerMode.EXPORT and torch.compiler.is_compiling():
            # The compiler merges equal computations itself. An export would keep them, so it uses the cache.
            return self.with_pre_scale(x, self._process)
        memo = self._memo
        if memo is not None and (x is memo[0] or x is memo[1]):
            return memo[1]
        y = self.with_pre_scale(x, self._process)
        self._memo = (x, y)
        return y

    def integers(self, x: Tensor) -> Tensor:
        """Return ``x`` as integers of the grid: int8 or uint8 up to 8 bits, else int32.

        Raises:
            QuantizationError: If there is no range yet, or the grid is one of floats.
        """
        if not self.calibrated:
            raise QuantizationError(f"{self.name} has no range: calibrate or load ranges first")
        grid = self.integer_grid
        result = quantize(self.pre_scaled(x), self.current_scale().detach(), self.current_zero_point(), grid)
        return result if grid.bits > 8 else result.to(torch.int8 if grid.signed else torch.uint8)

    def pre_scaled(self, x: Tensor) -> Tensor:
        """Return the tensor to quantize: ``x``, divided by the factors if there are any."""
        return x if self.migration is None else x / self.migration

    def with_pre_scale(self, x: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``work(x / migration) * migration``, or ``x`` itself while observing with factors."""
        if self.migration is None:
            return work(x)
        y = work(x / self.migration)
        if self.mode is QuantizerMode.OBSERVING:
            return x
        keeps = self.keeps_pre_scale or self.mode is not QuantizerMode.EXPORT
        return (y * self.migration if keeps else y).to(x.dtype)

    def _process(self, x: Tensor) -> Tensor:
        if self.mode is QuantizerMode.OBSERVING:
            if self.observer is not None:
                self.observer(x)
            return x
        if self.mode is QuantizerMode.EXPORT:
            return self._exported(x)
        if self.mode is QuantizerMode.EMA and self.training:
            counted = None if self.counted is None else self.counted(x)
            ends = batch_ends(x, self.grid.axis, counted)
            self.update_ema(
                *(ends if self.members is None else group_ends(ends, self.members, len(self.scale)))
            )
        return self._fake_quantize(x)

    def _exported(self, x: Tensor) -> Tensor:
        """Call the operator that stands for the quantizer in an export."""
        grid = self.grid
        axis = -1 if grid.axis is None else grid.axis % x.dim()
        scale, zero = self.per_dimension(self.scale), self.per_dimension(self.zero_point)
        if isinstance(grid, FloatGrid):
            return torch.ops.qexp.fake_quantize_float(x, scale, axis, grid.name)  # type: ignore[no-any-return]
        grid = self.integer_grid
        if grid.dynamic:
            tokens = grid.dynamic == "token"
            return torch.ops.qexp.fake_quantize_dynamic(x, tokens, grid.symmetric, grid.qmin, grid.qmax)  # type: ignore[no-any-return]
        return torch.ops.qexp.fake_quantize(x, scale, zero, axis, grid.qmin, grid.qmax)  # type: ignore[no-any-return]

    def _fake_quantize(self, x: Tensor, done: Tensor | None = None) -> Tensor:
        """Fake-quantize ``x``; ``done`` is the result if only the gradient remains to be attached."""
        if self.grid.block is None:
            return self._on_grid(x, done)
        done = None if done is None else self.grid.in_blocks(done)
        return self._on_grid(self.grid.in_blocks(x), done).reshape(x.shape)

    def _on_grid(self, x: Tensor, done: Tensor | None) -> Tensor:
        if isinstance(self.grid, BlockGrid):
            return FakeQuantizeBlocks.apply(x, self.scale, self.grid, done)  # type: ignore[no-any-return,no-untyped-call]
        if isinstance(self.grid, Grid) and self.grid.dynamic:
            return fake_quantize_dynamic(x, self.grid, plain=torch.compiler.is_compiling())
        scale = self.grid.expand(self.per_dimension(self.current_scale()), x.dim())
        factor = 1.0 if self.log_scale is None else self._factor(x)
        zero = self.moved_zero_point()
        if zero is not None:
            zero = damped(self.grid.expand(self.per_dimension(zero), x.dim()), factor)
        bounds = self.bounds(x.dim()) if zero is None else Bounds.around(self.grid, zero, self.gradient)
        if torch.compiler.is_compiling():
            return traced(x.float(), scale, bounds, factor).to(x.dtype)
        kernels = kernels_of(x, scale, bounds)
        if x.dtype is not torch.float32 and not kernels.HALVES:
            return self._on_grid(x.float(), None).to(x.dtype)
        if not torch.is_grad_enabled():
            return kernels.forward(x, scale, bounds, nan_low=True)
        if not self.learned:
            return FakeQuantizeFrozen.apply(x, scale, bounds, done)  # type: ignore[no-any-return,no-untyped-call]
        return FakeQuantizeLearned.apply(x, scale, bounds, factor, done, zero)  # type: ignore[no-any-return,no-untyped-call]

    def _factor(self, x: Tensor) -> float:
        """Return LSQ's gradient scale, for the elements of a whole batch that share a scale."""
        return gradient_scale(self.parts * x.numel() // self.scale.numel(), self.grid)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.forget()
        module = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.renew_bounds()
        return module

    def extra_repr(self) -> str:
        """Return name, grid and mode."""
        return f"{self.name}, {self.grid}, {self.mode}"


def _drop_bounds(quantizer: Any, incompatible: Any) -> None:
    quantizer.renew_bounds()
    quantizer.forget()
