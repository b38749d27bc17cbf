"""One quantizer: the scale and zero point of a value, and what is done with them now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qexp.config import ValueType
from qexp.errors import QuantizationError
from qexp.quant.bounds import Bounds
from qexp.quant.embedding_groups import Grouping
from qexp.quant.extremes import batch_ends, group_ends
from qexp.quant.fake_quantize import (
    FakeQuantizeFrozen,
    FakeQuantizeLearned,
    fake_quantize_tokens,
    gradient_scale,
    kernels_of,
)
from qexp.quant.grid import SMALLEST_SCALE, Grid, covered, covering, scale_and_zero_point
from qexp.quant.phases import Phase
from qexp.quant.plain_kernels import damped, traced

Memo = tuple[Tensor, Tensor]


class Quantizer(nn.Module):
    """Quantizer of one value.

    A learned scale is ``scale * exp(log_scale)``: ``log_scale`` starts at 0, so that learning begins
    at exactly the calibrated scale; no step can make a scale zero or negative; and a learning rate
    means a relative change whatever the size of the values. A learned zero point is
    ``round(zero_point + shift * (qmax - qmin))``, held on the grid, whose rounding and holding pass the
    gradient through: ``shift`` starts at 0, and the same rate means a change of the same share of the
    range. The parameters exist in the learned phase only; leaving it folds them into ``scale`` and
    ``zero_point``.

    A range that follows has its ``ends`` besides, in float64, in that phase only: they start at the range,
    and ``scale`` and ``zero_point`` cover them at any time. Nothing of it is read on the host.

    A dynamic grid needs no range, and keeps none: that of each token is found as it comes by, whatever
    the phase that quantizes.

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
        learns_zero_point: Whether the learned phase has a ``shift``, read on entering it.
        decay: Weight of the past in a range that follows.
        counted: Which entries of a value count for a range that follows; None counts all.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        name: str,
        grid: Grid,
        channels: int | None = None,
        values: ValueType = "act",
        ceiling: float | None = None,
        grouping: Grouping | None = None,
    ) -> None:
        super().__init__()
        channels = channels if grouping is None else grouping.groups
        shape = () if channels is None else (channels,)
        self.name, self.grid, self.values, self.ceiling = name, grid, values, ceiling
        self.register_buffer("scale", torch.zeros(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))
        self.grouping = grouping
        self.register_buffer("members", None if grouping is None else grouping.natural())
        self.members: Tensor | None
        self.register_parameter("log_scale", None)
        self.register_parameter("shift", None)
        self.register_buffer("ends", None)
        self.log_scale: nn.Parameter | None
        self.shift: nn.Parameter | None
        self.ends: Tensor | None
        self.register_buffer("migration", None)
        self.migration: Tensor | None
        self.keeps_migration = True
        self.phase = Phase.OFF
        self.observer: Callable[[Tensor], None] | None = None
        self.parts = 1
        self.learns_zero_point = False
        self.decay = 0.0
        self.counted: Callable[[Tensor], Tensor | None] | None = None
        self._memo: Memo | None = None
        self._bounds: Bounds | None = None
        self.register_load_state_dict_post_hook(_drop_bounds)  # type: ignore[no-untyped-call]

    @property
    def calibrated(self) -> bool:
        """Whether there is a range, or none is needed; a scale of 0 stands for none."""
        return self.grid.dynamic or bool((self.scale > 0).all())

    def set_members(self, members: Tensor) -> None:
        """Take over which group each dimension belongs to, int64 [H]; each group has one at least.

        Raises:
            QuantizationError: others than these groups.
        """
        assert self.members is not None  # of a quantizer with a grouping
        groups = torch.arange(len(self.scale), device=members.device)
        if not torch.equal(members.unique(), groups):
            raise QuantizationError(
                f"{self.name}: groups {members.unique().tolist()} of dimensions, for {len(groups)} ranges: "
                "calibrate again"
            )
        self.members.copy_(members)
        self._renew_bounds()

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Cover ``[low, high]``, of the shape of ``scale``."""
        try:
            scale, zero_point = scale_and_zero_point(low, high, self.grid)
        except QuantizationError as error:
            raise QuantizationError(f"{self.name}: {error}") from None
        self.set_scale(scale, zero_point)

    def set_scale(self, scale: Tensor, zero_point: Tensor) -> None:
        """Take over a scale and zero point as they are; values must be positive and on the grid."""
        fits = bool(torch.isfinite(scale).all() and (scale >= SMALLEST_SCALE).all())
        on_grid = bool(((zero_point >= self.grid.qmin) & (zero_point <= self.grid.qmax)).all())
        if not fits or not on_grid or (self.grid.symmetric and bool(zero_point.any())):
            raise QuantizationError(
                f"{self.name}: scale {scale.tolist()} and zero point {zero_point.tolist()} do not fit "
                f"{self.grid}: scales are positive, zero points lie on the grid, and are 0 if it is "
                "symmetric; calibrate again"
            )
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        self._renew_bounds()
        with torch.no_grad():
            for moved in (self.log_scale, self.shift):
                if moved is not None:
                    moved.zero_()
            if self.ends is not None:
                self.ends.copy_(covered(self.scale, self.zero_point, self.grid))

    def current_scale(self) -> Tensor:
        """The scale in use, with its gradient where it is learned; never below the smallest normal float."""
        if self.log_scale is None:
            return self.scale
        return (self.scale * self.log_scale.exp()).clamp(SMALLEST_SCALE, torch.finfo(torch.float32).max)

    def current_zero_point(self) -> Tensor:
        """The zero point in use, int32."""
        return self.zero_point if self.shift is None else self._moved().detach().to(torch.int32)

    @torch.no_grad()
    def follow(self, low: Tensor, high: Tensor) -> None:
        """Move the ends of a range that follows towards these, of the shape of ``scale``.

        ``end = decay * end + (1 - decay) * now`` (Jacob et al. 2018, arXiv 1712.05877, section 3.1).
        """
        assert self.ends is not None  # in the phase that follows
        now = torch.stack([low, high]).to(torch.float64)
        if self.ceiling is not None:
            now = now.clamp(-self.ceiling, self.ceiling)
        self.ends.lerp_(now, 1 - self.decay)
        # New tensors: the old ones may be saved for a backward pass.
        self.scale, self.zero_point = covering(self.ends[0], self.ends[1], self.grid)
        self._bounds = None

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
            self._fold()
            self._unfold(phase)
        self.phase, self.observer = phase, observer
        self.forget()
        self._renew_bounds()

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
            zero = damped(self.grid.expand(self.of_dimensions(self._moved()), x.dim()), factor)
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

    def of_dimensions(self, parameter: Tensor) -> Tensor:
        """A scale or zero point of each dimension [H], where dimensions share them, else as it is."""
        return parameter if self.members is None else parameter[self.members]

    def _factor(self, x: Tensor) -> float:
        """LSQ's gradient scale, for the elements of a whole batch that share a scale."""
        return gradient_scale(self.parts * x.numel() // self.scale.numel(), self.grid)

    def bounds(self, dimensions: int) -> Bounds:
        """Ends of the range for tensors of so many dimensions; computed once while nothing changes."""
        if self._bounds is None:
            zero_point = self.of_dimensions(self.zero_point)
            if self.phase is Phase.FOLLOWING and not self.grid.symmetric:
                self._bounds = Bounds.around(self.grid, self.grid.expand(zero_point, dimensions))
            else:
                self._bounds = Bounds.of(self.grid, zero_point, dimensions=dimensions)
        return self._bounds

    def _renew_bounds(self) -> None:
        """Bounds of the zero point as it is now; one number is read here, and not while a compiler traces."""
        self._bounds = None
        if self.grid.axis is None and self.phase not in (Phase.OFF, Phase.OBSERVING):
            self.bounds(0)

    def _fold(self) -> None:
        """Leave nothing but a scale and a zero point."""
        with torch.no_grad():
            if self.log_scale is not None:
                self.scale.copy_(self.current_scale())
                self.zero_point.copy_(self.current_zero_point())
        self.log_scale = self.shift = self.ends = None

    def _unfold(self, phase: Phase) -> None:
        """Make what else a phase keeps, starting at the range as it is."""
        if phase is Phase.LEARNED:
            self.log_scale = nn.Parameter(torch.zeros_like(self.scale))
            if self.learns_zero_point and not self.grid.symmetric:
                self.shift = nn.Parameter(torch.zeros_like(self.scale))
        if phase is Phase.FOLLOWING:
            self.ends = covered(self.scale, self.zero_point, self.grid)

    def _moved(self) -> Tensor:
        """The learned zero point, a whole number in float32; rounding and holding pass the gradient."""
        assert self.shift is not None
        moved = self.zero_point + self.shift * (self.grid.qmax - self.grid.qmin)
        whole = moved.round().clamp(self.grid.qmin, self.grid.qmax)
        return moved + (whole - moved).detach()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.forget()
        moved = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._renew_bounds()
        return moved

    def extra_repr(self) -> str:
        """Name, grid and phase."""
        return f"{self.name}, {self.grid}, {self.phase}"


def _drop_bounds(quantizer: Any, incompatible: Any) -> None:
    quantizer._renew_bounds()
    quantizer.forget()
