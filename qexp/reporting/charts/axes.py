"""Where a number stands along an axis, and which numbers are written there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qexp.reporting.charts.spec import WIDE, Scale

LARGEST = 1e150
"""Numbers beyond are drawn as if they were this large: differences must stay finite."""

SMALLEST = 1e-9
"""Numbers that are less apart are drawn at one place, and no logarithm is taken of a smaller one."""


@dataclass(frozen=True)
class Ruler:
    """A line from ``start`` to ``end`` on which ``low`` and ``high``, bent by the scale, are its ends."""

    scale: Scale
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Place of a number on the line."""
        part = (_bent(self.scale, value) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the line, at most so many."""
        low, high = _straight(self.scale, self.low), _straight(self.scale, self.high)
        if self.scale == "linear":
            return round_numbers(low, high, most)
        found = [value for value in _powers(self.scale) if low <= value <= high]
        if len(found) > most:
            return found[:: -(-len(found) // most)]
        return found if len(found) > 2 else round_numbers(low, high, most)


def ruler(scale: Scale, values: Iterable[float], start: float, end: float, *, pad: float = 0.06) -> Ruler:
    """A line that holds all values, with room at both ends; a single value stands in its middle."""
    bent = [_bent(scale, value) for value in values]
    low, high = min(bent), max(bent)
    size = max(abs(low), abs(high))
    alike = high - low <= max(1e-6 * size, SMALLEST)
    room = max(0.05 * size, 0.5 if size < SMALLEST else 0) if alike else (high - low) * pad
    return Ruler(scale, low - room, high + room, start, end)


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two numbers, at most so many."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while math.floor(high / step) - math.ceil(low / step) + 1 > most:
        step *= 2.5 if round(step / 10 ** math.floor(math.log10(step))) == 2 else 2
    first = math.ceil(low / step)
    return [round(index * step, 12) for index in range(first, math.floor(high / step) + 1)]


def scale_of(values: Sequence[float]) -> Scale:
    """``linear`` where that shows all values, else what does."""
    sizes = sorted(abs(value) for value in values if value)
    if not sizes or sizes[-1] < WIDE * sizes[len(sizes) // 4]:
        return "linear"
    return "log" if min(values) > 0 else "asinh"


def printed(value: float) -> str:
    """A number beside an axis."""
    return f"{value + 0.0:.6g}"


def _powers(scale: Scale) -> list[float]:
    powers = [10.0**exponent for exponent in range(-9, 16)]
    if scale == "log":
        return sorted([*powers, *(2 * power for power in powers), *(5 * power for power in powers)])
    return [*(-power for power in reversed(powers[9:])), 0.0, *powers[9:]]


def _bent(scale: Scale, value: float) -> float:
    value = max(-LARGEST, min(LARGEST, value))
    return (
        math.log(max(value, SMALLEST)) if scale == "log" else math.asinh(value) if scale == "asinh" else value
    )


def _straight(scale: Scale, value: float) -> float:
    return math.exp(value) if scale == "log" else math.sinh(value) if scale == "asinh" else value
