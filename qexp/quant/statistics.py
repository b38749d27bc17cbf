"""What one calibration pass remembers of each quantized value.

The lowest and highest value of every batch, and one signed linear histogram over all batches: from
these every calibrator computes its range, for every bit-width, without looking at the data again.

The histogram has equally wide bins ``[k * width, (k + 1) * width)`` on both sides of zero. The width
is the first batch's largest magnitude over 2048; later batches add whole bins; above 65536 bins in
all, neighbours are merged in pairs and the width doubles, as often as needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qexp.errors import QuantizationError

FIRST_BINS = 2048
"""Bins on each side of zero after the first batch."""
MOST_BINS = 65536
"""Bins on both sides together."""
CHUNK = 1 << 22
"""Values that are sorted into bins at a time; bounds the memory."""


@dataclass
class Histogram:
    """Counts in equally wide bins; bin ``len(counts) // 2`` begins at zero.

    ``width`` is 0 until a value other than zero was seen; until then ``counts`` holds the zeros.
    """

    width: float = 0.0
    counts: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))

    def add(self, values: Tensor, largest: float) -> None:
        """Count a flat tensor of finite values, none of a magnitude above ``largest``."""
        if largest > 0:
            self._reach(largest)
        for chunk in values.split(CHUNK):
            self.counts += self._count(chunk).to(self.counts.device)

    def edges(self) -> Tensor:
        """Edges of the bins, float64, one more than bins."""
        half = self.counts.numel() // 2
        return torch.arange(-half, half + 1, dtype=torch.float64) * self.width

    def _count(self, values: Tensor) -> Tensor:
        half = self.counts.numel() // 2
        if self.width == 0:
            return torch.tensor([0, values.numel()])
        # In float64 a large value cannot round into the next bin; the clamp keeps an end in its bin.
        index = values.to(torch.float64).div_(self.width).floor_().clamp_(-half, half - 1)
        return torch.bincount(index.to(torch.int32) + half, minlength=2 * half)

    def _reach(self, largest: float) -> None:
        if self.width == 0:
            self.width = max(largest / FIRST_BINS, torch.finfo(torch.float32).tiny)
        while largest / self.width > MOST_BINS // 2:
            self._merge()
        missing = math.ceil(largest / self.width) - self.counts.numel() // 2
        if missing > 0:
            self.counts = torch.nn.functional.pad(self.counts, (missing, missing))

    def _merge(self) -> None:
        half = self.counts.numel() // 2
        even = torch.nn.functional.pad(self.counts, (half % 2, half % 2))
        self.counts, self.width = even.view(-1, 2).sum(1), self.width * 2


@dataclass
class ValueStatistics:
    """Statistics of one value.

    ``lows`` and ``highs`` hold each batch's lowest and highest value, in order.
    """

    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, values: Tensor) -> None:
        """Count a batch, given as a flat tensor; an empty one counts for nothing.

        Raises:
            QuantizationError: a value is NaN or infinite.
        """
        if values.numel() == 0:
            return
        low, high = (float(end) for end in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise QuantizationError(f"a batch reaches from {low} to {high}")
        self.histogram.add(values, max(-low, high, 0.0))
        self.lows.append(low)
        self.highs.append(high)


class Statistics(dict[str, ValueStatistics]):
    """Statistics of all quantized activations, by the name of the quantizer."""

    def add(self, name: str, values: Tensor) -> None:
        """Count a batch of the value called ``name``.

        Raises:
            QuantizationError: a value is NaN or infinite.
        """
        try:
            self.setdefault(name, ValueStatistics()).add(values.detach().reshape(-1))
        except QuantizationError as error:
            raise QuantizationError(
                f"calibration of {name}: {error}; the model computes NaN or infinity on the "
                "calibration rows, check its weights and the FP32 scores"
            ) from None

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors: dict[str, Tensor] = {}
        for name, value in self.items():
            tensors[f"{name}/lows"] = torch.tensor(value.lows, dtype=torch.float64)
            tensors[f"{name}/highs"] = torch.tensor(value.highs, dtype=torch.float64)
            tensors[f"{name}/counts"] = value.histogram.counts.cpu()
            tensors[f"{name}/width"] = torch.tensor(value.histogram.width, dtype=torch.float64)
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read what ``save`` wrote.

        Raises:
            QuantizationError: the file is no safetensors file, or holds something else.
        """
        statistics = cls()
        try:
            tensors = load_file(path)
            for name in (key.removesuffix("/lows") for key in tensors if key.endswith("/lows")):
                histogram = Histogram(float(tensors[f"{name}/width"]), tensors[f"{name}/counts"])
                lows, highs = tensors[f"{name}/lows"].tolist(), tensors[f"{name}/highs"].tolist()
                statistics[name] = ValueStatistics(lows, highs, histogram)
        except (SafetensorError, KeyError) as error:
            raise QuantizationError(
                f"{path}: not a file of calibration statistics ({error}); calibrate again"
            ) from error
        return statistics


def select(value: Tensor, mask: Tensor | None, *, probabilities: bool = False) -> Tensor:
    """Flat tensor of the entries of ``value`` that do not belong to padding.

    ``mask`` is [B, T], non-zero for real tokens. A value [B, T, H] is masked on its first two axes,
    [B, heads, T, d] on axes 0 and 2, attention probabilities [B, heads, T, T] on rows and key
    columns; any other shape, such as [B, H] of a pooler, is taken whole.
    """
    if mask is None or bool((mask != 0).all()):
        return value.reshape(-1)
    keep, (batch, length) = (mask != 0).to(value.device), mask.shape
    if value.dim() == 3 and value.shape[:2] == (batch, length):
        return value[keep].reshape(-1)
    if value.dim() == 4 and (value.shape[0], value.shape[2]) == (batch, length):
        if not probabilities:
            return value.transpose(1, 2)[keep].reshape(-1)
        both = keep[:, :, None] & keep[:, None, :]
        return value.permute(0, 2, 3, 1)[both].reshape(-1)
    return value.reshape(-1)
