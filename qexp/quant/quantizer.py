"""One quantizer: the scale and zero point of a value, and what is done with them now."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from qexp.config import ValueType
from qexp.errors import QuantizationError
from qexp.quant.bounds import Bounds
from qexp.quant.embedding_groups import Grouping
from qexp.quant.fake_quantize import FakeQuantizeFrozen, FakeQuantizeLearned, gradient_scale, kernels_of
from qexp.quant.grid import SMALLEST_SCALE, Grid, scale_and_zero_point
from qexp.quant.plain_kernels import traced

Memo = tuple[Tensor, Tensor]


class Phase(StrEnum):
    """What a quantizer does with a tensor."""

    OFF = "off"
    """Nothing."""
    OBSERVING = "observing"
    """Show it to the observer, change nothing."""
    FROZEN = "frozen"
    """Fake-quantize with a fixed scale."""
    LEARNED = "learned"
    """Fake-quantize with a scale that is trained."""
    EXPORT = "export"
    """Call the operator that an exporter recognizes."""


class Quantizer(nn.Module):
    """Quantizer of one value.

    A learned scale is ``scale * exp(log_scale)``: ``log_scale`` starts at 0, so that learning begins
    at exactly the calibrated scale; no step can make a scale zero or negative; and a learning rate
    means a relative change whatever the size of the values. The parameter exists in the learned phase
    only; leaving that phase folds it into ``scale``. The zero point is never learned.

    A quantizer remembers its last input and output until ``forget``: the same tensor, at another
    site, and its own output pass without work.

    Whatever the type of its input, a quantizer computes in float32, and gives back the type it got.

    Args:
        name: for messages.
        grid: integers to map to.
        channels: number of ranges; None with a grid per tensor.
        values: what is known of the values beforehand.
        ceiling: largest magnitude that a calibrated range has; None is no limit.
        grouping: how dimensions share ranges, with a grid whose axis is the last; None shares none.

    Attributes:
        parts: How many parts a batch is computed in: LSQ's gradient scale is that of the whole batch.
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
        self.log_scale: nn.Parameter | None
        self.phase = Phase.OFF
        self.observer: Callable[[Tensor], None] | None = None
        self.parts = 1
        self._memo: Memo | None = None
        self._bounds: Bounds | None = None
        self.register_load_state_dict_post_hook(_drop_bounds)  # type: ignore[no-untyped-call]

    @property
    def calibrated(self) -> bool:
        """Whether there is a range; a scale of 0 stands for none."""
        return bool((self.scale > 0).all())

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
        if self.log_scale is not None:
            with torch.no_grad():
                self.log_scale.zero_()

    def current_scale(self) -> Tensor:
        """The scale in use, with its gradient where it is learned; never below the smallest normal float."""
        if self.log_scale is None:
            return self.scale
        return (self.scale * self.log_scale.exp()).clamp(SMALLEST_SCALE, torch.finfo(torch.float32).max)

    def switch(self, phase: Phase, observer: Callable[[Tensor], None] | None = None) -> None:
        """Enter a phase; a range that is fixed beforehand stays frozen where others are learned.

        Raises:
            QuantizationError: the phase needs a range and there is none.
        """
        if phase is Phase.LEARNED and self.values == "softmax":
            phase = Phase.FROZEN
        if phase not in (Phase.OFF, Phase.OBSERVING) and not self.calibrated:
            raise QuantizationError(f"{self.name} has no range: calibrate or load ranges before {phase}")
        if phase is Phase.LEARNED and self.log_scale is None:
            self.log_scale = nn.Parameter(torch.zeros_like(self.scale))
        elif phase is not Phase.LEARNED and self.log_scale is not None:
            self._fold()
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
            return self._process(x)  # equal work is found by the compiler; an export keeps what it is shown
        memo = self._memo
        if memo is not None and (x is memo[0] or x is memo[1]):
            return memo[1]
        y = self._process(x)
        self._memo = (x, y)
        return y

    def _process(self, x: Tensor) -> Tensor:
        if self.phase is Phase.OBSERVING:
            if self.observer is not None:
                self.observer(x)
            return x
        if self.phase is Phase.EXPORT:
            grid = self.grid
            axis = -1 if grid.axis is None else grid.axis % x.dim()
            scale, zero = self.of_dimensions(self.scale), self.of_dimensions(self.zero_point)
            return torch.ops.qexp.fake_quantize(  # type: ignore[no-any-return]
                x, scale, zero, axis, grid.qmin, grid.qmax
            )
        return self._fake_quantize(x)

    def _fake_quantize(self, x: Tensor, done: Tensor | None = None) -> Tensor:
        """``done`` is the result, where it is known and only the gradient is to be attached."""
        bounds = self.bounds(x.dim())
        scale = self.grid.expand(self.of_dimensions(self.current_scale()), x.dim())
        if torch.compiler.is_compiling():
            return traced(x.float(), scale, bounds, self._factor(x)).to(x.dtype)
        if x.dtype is not torch.float32 and not kernels_of(x, scale).HALVES:
            return self._fake_quantize(x.float()).to(x.dtype)
        if not torch.is_grad_enabled():
            return kernels_of(x, scale).forward(x, scale, bounds, nan_low=True)
        if self.phase is Phase.FROZEN:
            return FakeQuantizeFrozen.apply(x, scale, bounds, done)  # type: ignore[no-any-return,no-untyped-call]
        factor = self._factor(x)
        return FakeQuantizeLearned.apply(x, scale, bounds, factor, done)  # type: ignore[no-any-return,no-untyped-call]

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
            self._bounds = Bounds.of(self.grid, zero_point, dimensions=dimensions)
        return self._bounds

    def _renew_bounds(self) -> None:
        """Bounds of the zero point as it is now; one number is read here, and not while a compiler traces."""
        self._bounds = None
        if self.grid.axis is None and self.phase not in (Phase.OFF, Phase.OBSERVING):
            self.bounds(0)

    def _fold(self) -> None:
        with torch.no_grad():
            self.scale.copy_(self.current_scale())
        self.log_scale = None

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
            return quantizer._fake_quantize(weight)
        state = self._state(weight, quantizer)
        if self._kept is not None and self._kept[0] == state:
            kept = self._kept[1]
            return quantizer._fake_quantize(weight, kept) if torch.is_grad_enabled() else kept
        self.forget()  # before there is a new one: at most one result is alive
        result = quantizer._fake_quantize(weight)
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
