"""Floating-point formats of a value of 4 or 8 bits, and rounding to them.

    name      exponent, mantissa   largest   smallest above 0
    fp8_e4m3  4, 3                 448       2**-9
    fp8_e5m2  5, 2                 57344     2**-16
    fp4_e2m1  2, 1                 6         0.5

E4M3 and E5M2 are those of Micikevicius et al. 2022, "FP8 Formats for Deep Learning" (arXiv 2209.05433), E2M1
that of the OCP Microscaling specification 1.0. Rounding is to nearest, ties to even, and saturates as ONNX
``QuantizeLinear`` with ``saturate=1`` does: values beyond the largest, infinity too, become the largest. NaN
stays NaN, and the sign of zero is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ElementFormat:
    """Format of one value."""

    name: str
    bits: int
    largest: int
    dtype: torch.dtype | None
    """Type of torch that stores it; None where torch converts to none."""

    def round(self, v: Tensor) -> Tensor:
        """Return the values of the format nearest to ``v``, float32, as a new tensor without a gradient."""
        inside = v.detach().clamp(-self.largest, self.largest)
        if self.dtype is not None:
            return inside.to(self.dtype).to(torch.float32)
        magnitude = inside.abs()
        step = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))  # of E2M1
        return inside.div_(step).round_().mul_(step)


E4M3 = ElementFormat("fp8_e4m3", bits=8, largest=448, dtype=torch.float8_e4m3fn)
E5M2 = ElementFormat("fp8_e5m2", bits=8, largest=57344, dtype=torch.float8_e5m2)
E2M1 = ElementFormat("fp4_e2m1", bits=4, largest=6, dtype=None)
