"""Scale and zero point of a value: calibrated, learned, or a moving average over batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qexp.config import GradientRule
from qexp.errors import QuantizationError
from qexp.quant.bounds import Bounds
from qexp.quant.calibration.embedding_groups import EmbeddingGroups
from qexp.quant.grid import (
    SMALLEST_SCALE,
    AnyGrid,
    Grid,
    compute_qparams,
    range_of_qparams,
    scale_and_zero_point,
)
from qexp.quant.quantizer_mode import QuantizerMode


class QuantParams(nn.Module):
    """Scale and zero point of one value.

    A learned scale is ``scale * exp(log_scale)``. ``log_scale`` starts at 0, so learning begins exactly at
    the calibrated scale; no step can make a scale zero or negative; and a learning rate is a relative change,
    whatever the magnitude of the values. A learned zero point is
    ``round(zero_point + shift * (qmax - qmin))``, clamped to the grid; rounding and clamping pass the
    gradient through. ``shift`` starts at 0, and the same rate changes the same fraction of the range.

    With ``learns_ends``, the learned parameters are instead the distances that the minimum and the maximum of
    the range have moved, ``moved_ends`` [2, ...], in units of the values; scale and zero point follow from
    them as in AIMET's range learning. All these parameters exist in the learned mode only; leaving it folds
    them into ``scale`` and ``zero_point``.

    In EMA mode, and only there, ``ends`` holds the moving averages of the minimum and maximum in
    float64. They start at the current range or, with ``restarts``, at that of the first batch, and ``scale``
    and ``zero_point`` always cover them. Nothing of this is read on the host.

    A dynamic grid needs and stores no range: it is computed from the values of the tensor, or of each token,
    in every mode that quantizes.

    Args:
        name: Name of the quantizer, for messages.
        grid: Grid to map to.
        channels: Number of ranges; None for a per-tensor grid.
        ceiling: Largest magnitude of a range that is not learned; None sets no limit.
        grouping: How dimensions share ranges, for a grid on the last axis; None means no sharing.

    Attributes:
        learns_zero_point: Whether the learned mode has a ``shift``; read on entering the mode.
        learns_ends: Whether the learned mode has ``moved_ends`` instead; read on entering the mode.
        decay: Weight of the past in the moving averages of EMA mode.
        averages_magnitude: Whether these averages are of the largest magnitude, and its negative.
        restarts: Whether they start at the first batch; read on entering the mode.
        gradient: Values whose gradient passes.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        name: str,
        grid: AnyGrid,
        channels: int | None,
        ceiling: float | None,
        grouping: EmbeddingGroups | None,
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
        self.register_parameter("moved_ends", None)
        self.register_buffer("ends", None)
        self.log_scale: nn.Parameter | None
        self.shift: nn.Parameter | None
        self.moved_ends: nn.Parameter | None
        self.ends: Tensor | None
        self.mode = QuantizerMode.OFF
        self.learns_zero_point = False
        self.learns_ends = False
        self.decay = 0.0
        self.averages_magnitude = False
        self.restarts = False
        self.gradient: GradientRule = "range"
        self._bounds: Bounds | None = None

    @property
    def integer_grid(self) -> Grid:
        """Grid, of integers.

        Raises:
            QuantizationError: If it is one of floats.
        """
        if not isinstance(self.grid, Grid):
            raise QuantizationError(
                f"{self.name} is on {self.grid.name}, a grid of floats, and integers are asked for; "
                "choose a quant of integers, such as quant=w8a8"
            )
        return self.grid

    @property
    def calibrated(self) -> bool:
        """Whether there is a range or none is needed; a scale of 0 marks a missing range."""
        return self.grid.dynamic is not None or bool((self.scale > 0).all())

    def set_members(self, members: Tensor) -> None:
        """Set the group of each dimension, int64 [H]; every group has at least one dimension.

        Raises:
            QuantizationError: If the groups are not exactly those of ``scale``.
        """
        assert self.members is not None  # only called with a grouping
        groups = torch.arange(len(self.scale), device=members.device)
        if not torch.equal(members.unique(), groups):
            raise QuantizationError(
                f"{self.name}: groups {members.unique().tolist()} of dimensions, for {len(groups)} ranges: "
                "calibrate again"
            )
        self.members.copy_(members)
        self.renew_bounds()

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Set the range to ``[low, high]``, each in the shape of ``scale``.

        Raises:
            QuantizationError: If a bound is infinite or NaN, or ``low > high``.
        """
        try:
            scale, zero_point = scale_and_zero_point(low, high, self.grid)
        except QuantizationError as error:
            raise QuantizationError(f"{self.name}: {error}") from None
        self.set_scale(scale, zero_point)

    def set_scale(self, scale: Tensor, zero_point: Tensor) -> None:
        """Set scale and zero point as given.

        Raises:
            QuantizationError: If a scale is not finite and positive, or a zero point is not on the grid.
        """
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
            for moved in (self.log_scale, self.shift, self.moved_ends):
                if moved is not None:
                    moved.zero_()
            if self.ends is not None:
                self.ends.copy_(range_of_qparams(self.scale, self.zero_point, self.grid))

    def current_scale(self) -> Tensor:
        """Return the scale in use, with its gradient if learned; never below the smallest normal float32."""
        if self.log_scale is not None:
            scale = self.scale * self.log_scale.exp()
        elif self.moved_ends is not None:
            widened = self.moved_ends[1] - self.moved_ends[0]
            scale = self.scale + widened / (self.grid.qmax - self.grid.qmin)
        else:
            return self.scale
        return scale.clamp(SMALLEST_SCALE, torch.finfo(torch.float32).max)

    def current_zero_point(self) -> Tensor:
        """Return the zero point in use, int32."""
        moved = self.moved_zero_point()
        return self.zero_point if moved is None else moved.detach().to(torch.int32)

    @property
    def learned(self) -> tuple[nn.Parameter, ...]:
        """Learned parameters, which exist in the learned mode."""
        return tuple(each for each in (self.log_scale, self.shift, self.moved_ends) if each is not None)

    @torch.no_grad()
    def update_ema(self, low: Tensor, high: Tensor) -> None:
        """Update the moving averages of the range with the ends of a batch, in the shape of ``scale``.

        ``end = decay * end + (1 - decay) * now`` (Jacob et al. 2018, arXiv 1712.05877, section 3.1).
        """
        assert self.ends is not None  # only called in EMA mode
        if self.averages_magnitude:
            high = torch.maximum(-low, high)
            low = -high
        now = torch.stack([low, high]).to(torch.float64)
        if self.ceiling is not None:
            now = now.clamp(-self.ceiling, self.ceiling)
        started = ~self.ends.isnan()
        self.ends.copy_(torch.where(started, self.ends.lerp(now, 1 - self.decay), now))
        # Assign new tensors, because the old ones may be saved for a backward pass.
        self.scale, self.zero_point = compute_qparams(self.ends[0], self.ends[1], self.grid)
        self._bounds = None

    def per_dimension(self, parameter: Tensor) -> Tensor:
        """Expand a scale or zero point of groups to each dimension [H]; return any other unchanged."""
        return parameter if self.members is None else parameter[self.members]

    def bounds(self, dimensions: int) -> Bounds:
        """Return the bounds for tensors with ``dimensions`` axes, cached until the qparams change."""
        if self._bounds is None:
            zero_point = self.per_dimension(self.zero_point)
            if self.ends is not None and not self.grid.symmetric:
                zero_point = self.grid.expand(zero_point, dimensions)
                self._bounds = Bounds.around(self.grid, zero_point, self.gradient)
            else:
                self._bounds = Bounds.of(self.grid, zero_point, dimensions=dimensions, gradient=self.gradient)
        return self._bounds

    def renew_bounds(self) -> None:
        """Recompute the bounds of a per-tensor zero point.

        This reads one number on the host, here rather than while a compiler traces.
        """
        self._bounds = None
        if self.grid.axis is None and self.mode not in (QuantizerMode.OFF, QuantizerMode.OBSERVING):
            self.bounds(0)

    def fold(self) -> None:
        """Fold learned parameters into scale and zero point, and drop the state of the mode."""
        with torch.no_grad():
            if self.learned:
                zero_point = self.current_zero_point()
                self.scale.copy_(self.current_scale())
                self.zero_point.copy_(zero_point)
        self.log_scale = self.shift = self.moved_ends = self.ends = None

    def unfold(self, mode: QuantizerMode) -> None:
        """Create the additional state of ``mode``, starting at the current range."""
        if mode is QuantizerMode.LEARNED and self.learns_ends:
            self.moved_ends = nn.Parameter(torch.zeros_like(torch.stack([self.scale, self.scale])))
        elif mode is QuantizerMode.LEARNED:
            self.log_scale = nn.Parameter(torch.zeros_like(self.scale))
            if self.learns_zero_point and not self.grid.symmetric:
                self.shift = nn.Parameter(torch.zeros_like(self.scale))
        if mode is QuantizerMode.EMA:
            self.ends = range_of_qparams(self.scale, self.zero_point, self.grid)
            if self.restarts:
                self.ends.fill_(torch.nan)

    def moved_zero_point(self) -> Tensor | None:
        """Return the learned zero point, a whole number in float32, or None if it is not learned.

        Rounding and clamping pass the gradient through.
        """
        if self.shift is not None:
            moved = self.zero_point + self.shift * (self.grid.qmax - self.grid.qmin)
        elif self.moved_ends is not None and not self.grid.symmetric:
            low = (self.grid.qmin - self.zero_point) * self.scale + self.moved_ends[0]
            moved = self.grid.qmin - low / self.current_scale()
        else:
            return None
        whole = moved.round().clamp(self.grid.qmin, self.grid.qmax)
        return moved + (whole - moved).detach()
