"""Calibration statistics of quantized values, collected in one pass.

They are the lowest and highest value of every batch, and one signed linear histogram over all batches (see
``histogram``). Every calibrator computes its ranges from them, for every bit-width, without another pass over
the data. On request, each dimension has its lowest and highest value (see ``dimension_extremes``), or coarser
statistics of its own (see ``per_dimension``). Values are counted as float32 on the device that holds them: on
the CPU by a native kernel, on other devices or without a compiler by tensor operations. Both give the same
counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qexp.errors import QuantizationError
from qexp.quant.calibration import histogram_cpu
from qexp.quant.calibration.dimension_extremes import DimensionExtremes
from qexp.quant.calibration.histogram import Histogram
from qexp.quant.calibration.histogram_cpu import KernelCounts
from qexp.quant.calibration.histogram_torch import TensorCounts
from qexp.quant.calibration.padding import Padding
from qexp.quant.calibration.per_dimension import FIELDS, DimensionCounts, DimensionStatistics

EXTREMES = "extremes"
"""Name of the lowest and highest value of each dimension in a file of statistics."""


@dataclass(frozen=True)
class ValueStatistics:
    """Statistics of one value.

    ``lows`` and ``highs`` hold each batch's lowest and highest value, in order.
    """

    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    histogram: Histogram = field(default_factory=Histogram)
    dimensions: DimensionStatistics | None = None
    """Statistics of each dimension of a value [B, T, H]; None if not requested."""
    extremes: Tensor | None = None
    """Lowest and highest value of each dimension of a value [B, T, H] or [B, H], float32 [2, H]; None if not
    requested, and in files from before they were collected."""

    def group(self, members: Tensor) -> ValueStatistics:
        """Return the statistics of the dimensions with these indices, as if they were a value of their own.

        Raises:
            QuantizationError: If statistics of the dimensions were not collected.
        """
        if self.dimensions is None:
            raise QuantizationError(
                "no statistics of each dimension: they are of values [batch, tokens, dimensions], and where "
                "they were asked for; observe again with dimensions=True"
            )
        return ValueStatistics(*self.dimensions.ends(members), self.dimensions.histogram(members))


class CalibrationStatistics(Mapping[str, ValueStatistics]):
    """Statistics of all quantized activations, by quantizer name.

    Access to an item copies it to the host.

    Raises:
        QuantizationError: On access, if a value was NaN or infinite on a device that ``add`` did not
            synchronize with.
    """

    def __init__(self, finished: Mapping[str, ValueStatistics] | None = None) -> None:
        self._finished = dict(finished or {})
        self._counts: dict[str, KernelCounts | TensorCounts] = {}
        self._dimensions: dict[str, DimensionCounts] = {}
        self._extremes: dict[str, DimensionExtremes] = {}

    def clear(self) -> None:
        """Discard all statistics."""
        self._finished.clear()
        self._counts.clear()
        self._dimensions.clear()
        self._extremes.clear()

    def add(
        self,
        name: str,
        value: Tensor,
        padding: Padding | None = None,
        *,
        probabilities: bool = False,
        dimensions: bool = False,
        extremes: bool = False,
    ) -> None:
        """Count a batch of a value.

        Args:
            name: Name of the value's quantizer.
            value: Tensor of any shape and layout; see ``Padding`` for the axes that are padded.
            padding: Entries to leave out; None counts all.
            probabilities: Whether the last axis holds key columns, which are padded, too.
            dimensions: Whether to collect statistics of each dimension of a value with three axes, too.
            extremes: Whether to keep the lowest and highest value of each index of the last axis, too.

        Raises:
            QuantizationError: If a value on the host is NaN or infinite, or the statistics of ``name`` were
                loaded from a file.
        """
        counts = self._counts_of(name, value)
        try:
            if isinstance(counts, KernelCounts):
                columns = (
                    self._extremes.setdefault(name, DimensionExtremes()).within(value) if extremes else None
                )
                counts.add(value, padding, probabilities=probabilities, columns=columns)
            else:
                counts.add(value, padding, probabilities=probabilities)
                if extremes:
                    self._extremes.setdefault(name, DimensionExtremes()).add(value, padding)
        except QuantizationError as error:
            raise _not_finite(name, error) from None
        if dimensions and value.dim() == 3 and value.numel():
            dimension_counts = self._dimensions.setdefault(
                name, DimensionCounts(value.shape[2], value.device)
            )
            dimension_counts.add(value, padding)

    def __getitem__(self, name: str) -> ValueStatistics:
        if name not in self._finished:
            dimensions, extremes = self._dimensions.get(name), self._extremes.get(name)
            try:
                result = self._counts[name].read()
            except QuantizationError as error:
                raise _not_finite(name, error) from None
            self._finished[name] = ValueStatistics(
                *result,
                dimensions=None if dimensions is None else dimensions.read(),
                extremes=None if extremes is None else extremes.read(),
            )
        return self._finished[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._finished, *self._counts)))

    def __len__(self) -> int:
        return len(self._finished.keys() | self._counts.keys())

    def save(self, path: Path) -> None:
        """Write the statistics to one safetensors file."""
        tensors: dict[str, Tensor] = {}
        for name, value in self.items():
            tensors[f"{name}/lows"] = torch.tensor(value.lows, dtype=torch.float64)
            tensors[f"{name}/highs"] = torch.tensor(value.highs, dtype=torch.float64)
            tensors[f"{name}/counts"] = value.histogram.counts
            tensors[f"{name}/width"] = torch.tensor(value.histogram.width, dtype=torch.float64)
            dimensions = {} if value.dimensions is None else value.dimensions.tensors()
            tensors |= {f"{name}/dim_{field}": tensor for field, tensor in dimensions.items()}
            if value.extremes is not None:
                tensors[f"{name}/{EXTREMES}"] = value.extremes
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> CalibrationStatistics:
        """Load statistics written by ``save``.

        Raises:
            QuantizationError: If the file is not a safetensors file, or has other contents.
        """
        finished = {}
        try:
            tensors = load_file(path)
            for name in (key.removesuffix("/lows") for key in tensors if key.endswith("/lows")):
                histogram = Histogram(float(tensors[f"{name}/width"]), tensors[f"{name}/counts"])
                lows, highs = tensors[f"{name}/lows"].tolist(), tensors[f"{name}/highs"].tolist()
                finished[name] = ValueStatistics(
                    lows,
                    highs,
                    histogram,
                    _dimensions_of(name, tensors),
                    extremes=tensors.get(f"{name}/{EXTREMES}"),
                )
        except (SafetensorError, KeyError) as error:
            raise QuantizationError(
                f"{path}: not a file of calibration statistics ({error}); calibrate again"
            ) from error
        return cls(finished)

    def _counts_of(self, name: str, value: Tensor) -> KernelCounts | TensorCounts:
        if name not in self._counts:
            if name in self._finished:
                raise QuantizationError(
                    f"{name}: statistics from a file cannot be continued; observe all batches again"
                )
            self._counts[name] = KernelCounts() if histogram_cpu.fits(value) else TensorCounts(value.device)
        self._finished.pop(name, None)
        return self._counts[name]


def _dimensions_of(name: str, tensors: Mapping[str, Tensor]) -> DimensionStatistics | None:
    if f"{name}/dim_{FIELDS[0]}" not in tensors:
        return None
    return DimensionStatistics.of({each: tensors[f"{name}/dim_{each}"] for each in FIELDS})


def _not_finite(name: str, error: QuantizationError) -> QuantizationError:
    return QuantizationError(
        f"calibration of {name}: {error}; the model computes NaN or infinity on the calibration rows, "
        "check its weights and the FP32 scores"
    )
