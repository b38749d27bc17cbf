"""Ranges of two quantized models side by side, quantizer by quantizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qexp.errors import QuantizationError

Ends = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Lowest and highest value of each range of a quantizer."""


@dataclass(frozen=True)
class RangePair:
    """Ranges of one quantizer in two models; a missing quantizer has None."""

    quantizer: str
    first: Ends | None
    second: Ends | None

    @property
    def ratios(self) -> NDArray[np.float64] | None:
        """Width of each range in the first model over that in the second."""
        if self.first is None or self.second is None:
            return None
        widths = [high - low for low, high in (self.first, self.second)]
        return np.asarray(widths[0] / widths[1])


def compare_ranges(first: Path, second: Path) -> list[RangePair]:
    """Return the ranges of two files that ``QuantizedModel.ranges`` made, in the order of the first.

    Raises:
        QuantizationError: They have no quantizer in common.
    """
    left, right = _ends(first), _ends(second)
    if not left.keys() & right.keys():
        raise QuantizationError(
            "--against: the two runs have no quantizer in common; name a run of the same model and placement"
        )
    return [RangePair(name, left.get(name), right.get(name)) for name in {**left, **right}]


def comparison_listing(pairs: list[RangePair], others: str) -> str:
    """Return the pairs as text, with the most different last."""
    lines = [f"{'range':>26}  {'range there':>26}  {'ratio':>13}  quantizer (there: {others})"]
    lines += list(map(_line, sorted(pairs, key=_distance)))
    return "\n".join(lines)


def _distance(pair: RangePair) -> float:
    ratios = pair.ratios
    return np.inf if ratios is None else float(np.abs(np.log(ratios)).max())


def _line(pair: RangePair) -> str:
    ratios = pair.ratios
    ratio = "-" if ratios is None else "..".join(f"{each:.4g}" for each in dict.fromkeys(_span(ratios)))
    return f"{_span_text(pair.first):>26}  {_span_text(pair.second):>26}  {ratio:>13}  {pair.quantizer}"


def _span(values: NDArray[np.float64]) -> Iterator[float]:
    yield float(values.min())
    yield float(values.max())


def _span_text(ends: Ends | None) -> str:
    return "-" if ends is None else f"{ends[0].min():.5g} to {ends[1].max():.5g}"


def _ends(file: Path) -> dict[str, Ends]:
    from safetensors.numpy import load_file

    tensors: Mapping[str, NDArray[np.generic]] = load_file(file)
    found = {}
    for key in tensors:
        name, _, part = key.rpartition("/")
        if part == "scale":
            scale, zero, levels = (
                np.atleast_1d(np.asarray(tensors[f"{name}/{each}"], np.float64))
                for each in ("scale", "zero_point", "levels")
            )
            found[name] = ((levels[0] - zero) * scale, (levels[1] - zero) * scale)
    return found
