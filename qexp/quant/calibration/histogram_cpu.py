"""Histograms on the CPU, in one pass over a tensor in its memory layout, by ``kernels/histogram.c``."""

from __future__ import annotations

import math
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qexp.errors import QuantizationError
from qexp.quant.calibration.histogram import MOST_HALF, Histogram
from qexp.quant.calibration.padding import Padding
from qexp.quant.kernels import native

ENDS_ONLY = 0
"""Number of bins on each side if only the minimum and maximum are needed."""


class CountResult(NamedTuple):
    """Result of one pass of the kernel."""

    low: float
    high: float
    counts: Tensor
    """Counts of the bins, int64 [2 * half]."""


class Layout(NamedTuple):
    """Layout in which the kernel reads a tensor.

    The tensors keep alive the memory that the kernel's pointers refer to.
    """

    values: Tensor
    """Values, float32 [n0, n1, n2, n3], contiguous along the last axis."""
    rows: Tensor | None
    """Rows that count, bool [n0, n1, n2]; None counts all."""
    spans: tuple[Tensor, Tensor] | None
    """``Padding.spans``, the columns that count for each index of axis 0; None counts all."""

    def scan(self, width: float, half: int, columns: Tensor | None = None) -> CountResult:
        """Count values in ``half`` bins of ``width`` on each side; values beyond count in the last bin.

        Args:
            width: Width of a bin.
            half: Number of bins on each side of zero.
            columns: Lowest and highest value of each column so far, float32 [2, n3] in memory order, which
                are widened in place; None if they are not needed. Only without ``spans``.

        Raises:
            MemoryError: If there is no memory for the bins of each thread.
        """
        counts, ends = torch.empty(2 * half, dtype=torch.int64), torch.empty(2)
        steps = (0, 0, 0) if self.rows is None else self.rows.stride()
        shape = torch.tensor([*self.values.shape, *self.values.stride()[:3], *steps])
        firsts, spans = (None, None) if self.spans is None else (t.data_ptr() for t in self.spans)
        rows = None if self.rows is None else self.rows.data_ptr()
        addresses = (self.values.data_ptr(), shape.data_ptr(), rows, firsts, spans)
        found = (counts.data_ptr(), ends.data_ptr(), None if columns is None else columns.data_ptr())
        threads = torch.get_num_threads()
        if kernel()(*addresses, width, half, *found, threads) != 0:
            raise MemoryError(f"no memory for {2 * half} bins in each of {threads} threads")
        low, high = ends.tolist()
        return CountResult(low, high, counts)


class KernelCounts:
    """Minimum and maximum of each batch, and one histogram of a value, on the host."""

    def __init__(self) -> None:
        self.lows: list[float] = []
        self.highs: list[float] = []
        self.histogram = Histogram()

    def add(
        self,
        value: Tensor,
        padding: Padding | None,
        *,
        probabilities: bool,
        columns: Tensor | None = None,
    ) -> None:
        """Count a batch; a batch without entries is ignored.

        Args:
            value: Tensor of any shape.
            padding: Entries to leave out.
            probabilities: Whether columns of the last axis are padded, too.
            columns: As in :meth:`Layout.scan`, of a value [B, T, H] or [B, H].

        Raises:
            QuantizationError: If a value is NaN or infinite.
        """
        values = layout(value, padding, probabilities=probabilities)
        histogram = self.histogram
        if histogram.width == 0:
            histogram.reach(largest(values.scan(1.0, ENDS_ONLY)))
        # 1.5 times the bins, so that a batch with slightly larger values is counted in the same pass.
        window = min(MOST_HALF, histogram.half + histogram.half // 2)
        counted = values.scan(histogram.width or 1.0, window, columns)
        reach = largest(counted)
        if reach > window * histogram.width > 0:
            histogram.reach(reach)
            window = histogram.half
            counted = values.scan(histogram.width, window)
        if counted.low > counted.high:
            return
        histogram.reach(reach)
        histogram.counts += _within(counted.counts, histogram.half)
        self.lows.append(counted.low)
        self.highs.append(counted.high)

    def read(self) -> tuple[list[float], list[float], Histogram]:
        """Return copies of the lows, the highs and the histogram."""
        histogram = Histogram(self.histogram.width, self.histogram.counts.clone())
        return list(self.lows), list(self.highs), histogram


@cache
def kernel() -> Any:
    """Return the kernel, or None if it cannot be built."""
    addresses = (c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)
    return native.function(
        "qexp_histogram", *addresses, c_float, c_int64, c_void_p, c_void_p, c_void_p, c_int, returns=c_int
    )


def fits(value: Tensor) -> bool:
    """Return whether the kernel supports this tensor on this machine."""
    return value.is_cpu and kernel() is not None


def layout(value: Tensor, padding: Padding | None, *, probabilities: bool) -> Layout:
    """Return the layout of a tensor, which is copied only if its last axis is not contiguous."""
    value = value.detach().to("cpu", torch.float32)
    rows = None if padding is None else padding.rows(value)
    spans = padding.spans if padding is not None and probabilities and padding.pads_columns(value) else None
    if rows is None and spans is None:
        return Layout(_whole(value), None, None)
    if value.stride(-1) != 1:
        value = value.contiguous()
    rows = torch.ones(1, 1, 1, dtype=torch.bool) if rows is None else rows
    if value.dim() == 3:
        return Layout(value[:, None], rows[:, None], None)
    rows = rows.expand(value.shape[:3])
    if spans is not None:
        return Layout(value, rows, spans)
    # Heads are a view of [B, T, heads, d]: in that order the heads of a token are adjacent in memory.
    return Layout(value.transpose(1, 2), rows.transpose(1, 2), None)


def _whole(value: Tensor) -> Tensor:
    if value.dim() == 4 and not value.is_contiguous():
        value = value.transpose(1, 2)
    value = value.contiguous()
    return value.view(1, 1, -1, value.shape[-1]) if value.dim() and value.numel() else value.view(1, 1, 1, -1)


def largest(counted: CountResult) -> float:
    """Return the largest magnitude, or 0 if nothing was counted.

    Raises:
        QuantizationError: If it is NaN or infinite.
    """
    low, high = counted.low, counted.high
    if low > high:
        return 0.0
    if not (math.isfinite(low) and math.isfinite(high)):
        raise QuantizationError(f"a batch reaches from {low} to {high}")
    return max(-low, high, 0.0)


def _within(counts: Tensor, half: int) -> Tensor:
    """Crop or pad counts to ``half`` bins on each side; no value lies beyond these bins."""
    window = counts.numel() // 2
    if window <= half:
        return torch.nn.functional.pad(counts, (half - window, half - window))
    inner = counts[window - half : window + half].clone()
    inner[-1] += counts[window + half]  # values at the upper edge of the last bin
    return inner
