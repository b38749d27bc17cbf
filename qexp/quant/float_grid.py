"""Grids of 8-bit floats with one scale for a tensor or channel, and of floats that share scales in blocks.

    x' = round(x / scale) * scale

in float32 with a true division, where ``round`` is that of :mod:`qexp.quant.element_formats`. A grid of 8-bit
floats is bit-identical to ONNX ``QuantizeLinear`` and ``DequantizeLinear`` with FLOAT8E4M3FN or FLOAT8E5M2.

In blocks, neighbours along the last axis share a scale that follows from their largest magnitude at run time,
in weights as in activations; a row that does not fill its last block has a smaller one:

- ``mxfp8``: E4M3 in blocks of 32 with a power of two (E8M0), the smallest that does not clip. The OCP
  Microscaling specification 1.0 rounds it down instead, and clips; rounding up is what NVIDIA Blackwell
  converts with, and ModelOpt and ``ScaleCalculationMode.RCEIL`` of torchao.
- ``nvfp4``: E2M1 in blocks of 16 with a scale in E4M3, times one scale in float32 for the tensor: its largest
  magnitude over ``6 * 448``, from calibration, as in ModelOpt's ``NVFP4_DEFAULT_CFG``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from qexp.config import NumberFormat
from qexp.quant.element_formats import E2M1, E4M3, E5M2, ElementFormat
from qexp.quant.range_layout import RangeLayout

SMALLEST_E4M3 = 2.0**-9
"""Smallest E4M3 above 0."""


@dataclass(frozen=True)
class FloatGrid(RangeLayout):
    """Values of a format times a scale, and the axis of a tensor that has a scale for each index."""

    element: ElementFormat
    axis: int | None = None
    """Axis with a scale for each index; None means one scale for the whole tensor."""
    signed = True
    symmetric = True
    full = False
    dynamic = None
    block = None

    @property
    def name(self) -> str:
        """Name of the format, as ``quant.weight_format`` has it."""
        return self.element.name

    @property
    def bits(self) -> int:
        """Bits of a value."""
        return self.element.bits

    @property
    def qmin(self) -> int:
        """Lowest value, in steps of the scale."""
        return -self.element.largest

    @property
    def qmax(self) -> int:
        """Highest value, in steps of the scale."""
        return self.element.largest


@dataclass(frozen=True)
class BlockGrid(RangeLayout):
    """Values of a format in blocks along the last axis, whose scales are found at run time."""

    name: NumberFormat
    element: ElementFormat
    size: int
    """Neighbours that share a scale."""
    scales: Literal["e4m3", "e8m0"]
    """Format of these scales; those in E4M3 are times a scale of the tensor."""
    signed = True
    symmetric = True
    full = False
    axis = None
    block = None

    @property
    def bits(self) -> int:
        """Bits of a value, without its share of the block's scale."""
        return self.element.bits

    @property
    def dynamic(self) -> Literal["block"] | None:
        """Whether there is no range of the tensor, for lack of a scale of the tensor."""
        return "block" if self.scales == "e8m0" else None

    @property
    def qmin(self) -> int:
        """Lowest value, in steps of the tensor's scale."""
        return -self.qmax

    @property
    def qmax(self) -> int:
        """Highest value, in steps of the tensor's scale."""
        return self.element.largest * (E4M3.largest if self.scales == "e4m3" else 1)

    def fake_quantize(self, x: Tensor, scale: Tensor) -> Tensor:
        """Return the values of the grid nearest to ``x``, in its shape and type, without a gradient.

        Args:
            x: Values [..., n].
            scale: Scale of the tensor, float32 scalar; not read with scales in E8M0.
        """
        width = x.shape[-1]
        blocks = pad(x.detach().float(), (0, -width % self.size)).unflatten(-1, (-1, self.size))
        steps = self._scales(blocks.abs().amax(-1, keepdim=True), scale)
        values = self.element.round(blocks / steps).mul_(steps)
        return values.flatten(-2)[..., :width].contiguous().to(x.dtype)

    def _scales(self, largest: Tensor, scale: Tensor) -> Tensor:
        """Return the scales of blocks with these largest magnitudes, both float32 [..., 1]."""
        if self.scales == "e4m3":
            shares = largest / (E2M1.largest * scale)
            return E4M3.round(shares.clamp(min=SMALLEST_E4M3)) * scale
        mantissa, exponent = torch.frexp(largest)  # 0.5 <= mantissa < 1
        fraction, power = torch.frexp(torch.tensor(float(self.element.largest)))
        exponent = exponent - power + (mantissa > fraction)
        return torch.ldexp(torch.ones_like(largest), exponent.clamp(-127, 127))


_FLOATS = {each.name: each for each in (E4M3, E5M2)}
_BLOCKS: Mapping[str, BlockGrid] = {
    "nvfp4": BlockGrid("nvfp4", E2M1, 16, "e4m3"),
    "mxfp8": BlockGrid("mxfp8", E4M3, 32, "e8m0"),
}


def float_grid(number_format: NumberFormat, axis: int | None = None) -> FloatGrid | BlockGrid:
    """Return the grid of a format of floats; ``axis`` has a range for each index, if it has no blocks."""
    if number_format in _BLOCKS:
        return _BLOCKS[number_format]
    return FloatGrid(_FLOATS[number_format], axis)
