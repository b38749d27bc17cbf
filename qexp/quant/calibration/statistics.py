"""What one calibration pass remembers of each quantized value.

The lowest and highest value of every batch, and one signed linear histogram over all batches (see
``histogram``): from these every calibrator computes its range, for every bit-width, without looking at
the data again. If asked, the same of each dimension (see ``dimensions``), more coarsely. Values are counted
as float32 and where they lie: on the CPU by a native kernel, on other devices, or without a compiler, by
tensor arithmetic. Both give the same counts.
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
from qexp.quant.calibration.histogram import Histogram
from qexp.quant.calibration.histogram_cpu import KernelCounts
from qexp.quant.calibration.histogram_torch import TensorCounts
from qexp.quant.calibration.padding import Padding
from qexp.quant.calibration.per_dimension import FIELDS, DimensionCounts, DimensionStatistics


@dataclass(frozen=True)
class ValueStatistics:
    """Statistics of one value.

    ``lows`` and ``highs`` hold each batch's lowest and highest value, in order.
    """

    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    histogram: Histogram = field(default_factory=Histogram)
    dimensions: DimensionStatistics | None = None
    """Where they were asked for, of a value [B, T, H]."""

    def group(self, members: Tensor) -> ValueStatistics:
        """Statistics of some dimensions alone, by their indices, as if they were a value.

        Raises:
            QuantizationError: dimensions were not counted.
        """
        if self.dimensions is None:
            raise QuantizationError(
                "no statistics of each dimension: they are of values [batch, tokens, dimensions], and where "
                "they were asked for; observe again with dimensions=True"
            )
        return ValueStatistics(*self.dimensions.ends(members), self.dimensions.histogram(members))


class Statistics(Mapping[str, ValueStatistics]):
    """Statistics of all quantized activations, by the name of the quantizer.

    Looking one up brings it to the host.

    Raises:
        QuantizationError: on looking up, a value was NaN or infinite on a device that ``add`` did not
            wait for.
    """

    def __init__(self, finished: Mapping[str, ValueStatistics] | None = None) -> None:
        self._finished = dict(finished or {})
        self._counts: dict[str, KernelCounts | TensorCounts] = {}
        self._dimensions: dict[str, DimensionCounts] = {}

    def clear(self) -> None:
        """Start over."""
        self._finished.clear()
        self._counts.clear()
        self._dimensions.clear()

    def add(
        self,
        name: str,
        value: Tensor,
        padding: Padding | None = None,
        *,
        probabilities: bool = False,
        dimensions: bool = False,
    ) -> None:
        """Count a batch of the value called ``name``.

        Args:
            name: of the value's quantizer.
            value: of any shape and layout; ``Padding`` says which of its axes it pads.
            padding: entries to leave out.
            probabilities: whether the value's last axis holds key columns, which are padded too.
            dimensions: whether each index of the last axis is counted apart, too, of a value with three.

        Raises:
            QuantizationError: a value is NaN or infinite, and lies on the host; or the statistics of
                that name come from a file.
        """
        counts = self._counts_of(name, value)
        try:
            counts.add(value, padding, probabilities=probabilities)
        except QuantizationError as error:
            raise _not_finite(name, error) from None
        if dimensions and value.dim() == 3 and value.numel():
            each = self._dimensions.setdefault(name, DimensionCounts(value.shape[2], value.device))
            each.add(value, padding)

    def __getitem__(self, name: str) -> ValueStatistics:
        if name not in self._finished:
            each = self._dimensions.get(name)
            try:
                found = self._counts[name].read()
            except QuantizationError as error:
                raise _not_finite(name, error) from None
            self._finished[name] = ValueStatistics(*found, None if each is None else each.read())
        return self._finished[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._finished, *self._counts)))

    def __len__(self) -> int:
        return len(self._finished.keys() | self._counts.keys())

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors: dict[str, Tensor] = {}
        for name, value in self.items():
            tensors[f"{name}/lows"] = torch.tensor(value.lows, dtype=torch.float64)
            tensors[f"{name}/highs"] = torch.tensor(value.highs, dtype=torch.float64)
            tensors[f"{name}/counts"] = value.histogram.counts
            tensors[f"{name}/width"] = torch.tensor(value.histogram.width, dtype=torch.float64)
            each = {} if value.dimensions is None else value.dimensions.tensors()
            tensors |= {f"{name}/dim_{field}": tensor for field, tensor in each.items()}
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read what ``save`` wrote.

        Raises:
            QuantizationError: the file is no safetensors file, or holds something else.
        """
        finished = {}
        try:
            tensors = load_file(path)
            for name in (key.removesuffix("/lows") for key in tensors if key.endswith("/lows")):
                histogram = Histogram(float(tensors[f"{name}/width"]), tensors[f"{name}/counts"])
                lows, highs = tensors[f"{name}/lows"].tolist(), tensors[f"{name}/highs"].tolist()
                finished[name] = ValueStatistics(lows, highs, histogram, _dimensions_of(name, tensors))
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
