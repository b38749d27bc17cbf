"""The range of a value: calibrated, learned, or following what comes by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qexp.errors import QuantizationError
from qexp.quant.bounds import Bounds
from qexp.quant.calibration.embedding_groups import Grouping
from qexp.quant.grid import SMALLEST_SCALE, Grid, covered, covering, scale_and_zero_point
from qexp.quant.quantizer_mode import Phase


class ValueRange(nn.Module):
    """Scale and zero point of one value.

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

    Args:
        name: for messages.
        grid: integers to map to.
        channels: number of ranges; None with a grid per tensor.
        ceiling: largest magnitude that a range has, but one that is learned; None is no limit.
        grouping: how dimensions share ranges, with a grid whose axis is the last; None shares none.

    Attributes:
        learns_zero_point: Whether the learned phase has a ``shift``, read on entering it.
        decay: Weight of the past in a range that follows.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self, name: str, grid: Grid, channels: int | None, ceiling: float | None, grouping: Grouping | None
    ) -> None:
        super().__init__()
        channels = channels if grouping is None else grouping.groups
        shape = () if channels is None else (channels,)
        self.name, self.grid, self.ceiling, self.grouping = name, grid, ceiling, grouping
        self.register_buffer("scale", torch.zeros(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("members", None if grouping is None else grouping.natural())
        self.members: Tensor | None
        self.register_parameter("log_scale", None)
        self.register_parameter("shift", None)
        self.register_buffer("ends", None)
        self.log_scale: nn.Parameter | None
        self.shift: nn.Parameter | None
        self.ends: Tensor | None
        self.phase = Phase.OFF
        self.learns_zero_point = False
        self.decay = 0.0
        self._bounds: Bounds | None = None

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
        self.renew_bounds()

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
        self.renew_bounds()
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
        return self.zero_point if self.shift is None else self.moved_zero_point().detach().to(torch.int32)

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

    def of_dimensions(self, parameter: Tensor) -> Tensor:
        """A scale or zero point of each dimension [H], where dimensions share them, else as it is."""
        return parameter if self.members is None else parameter[self.members]

    def bounds(self, dimensions: int) -> Bounds:
        """Ends of the range for tensors of so many dimensions; computed once while nothing changes."""
        if self._bounds is None:
            zero_point = self.of_dimensions(self.zero_point)
            if self.ends is not None and not self.grid.symmetric:
                self._bounds = Bounds.around(self.grid, self.grid.expand(zero_point, dimensions))
            else:
                self._bounds = Bounds.of(self.grid, zero_point, dimensions=dimensions)
        return self._bounds

    def renew_bounds(self) -> None:
        """Bounds of the zero point as it is now; one number is read here, and not while a compiler traces."""
        self._bounds = None
        if self.grid.axis is None and self.phase not in (Phase.OFF, Phase.OBSERVING):
            self.bounds(0)

    def fold(self) -> None:
        """Leave nothing but a scale and a zero point."""
        with torch.no_grad():
            if self.log_scale is not None:
                self.scale.copy_(self.current_scale())
                self.zero_point.copy_(self.current_zero_point())
        self.log_scale = self.shift = self.ends = None

    def unfold(self, phase: Phase) -> None:
        """Make what else a phase keeps, starting at the range as it is."""
        if phase is Phase.LEARNED:
            self.log_scale = nn.Parameter(torch.zeros_like(self.scale))
            if self.learns_zero_point and not self.grid.symmetric:
                self.shift = nn.Parameter(torch.zeros_like(self.scale))
        if phase is Phase.FOLLOWING:
            self.ends = covered(self.scale, self.zero_point, self.grid)

    def moved_zero_point(self) -> Tensor:
        """The learned zero point, a whole number in float32; rounding and holding pass the gradient."""
        assert self.shift is not None
        moved = self.zero_point + self.shift * (self.grid.qmax - self.grid.qmin)
        whole = moved.round().clamp(self.grid.qmin, self.grid.qmax)
        return moved + (whole - moved).detach()
