"""Axes of charts: positions of numbers along an axis, and its ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qexp.reporting.charts.spec import WIDE, Scale

LARGEST = 1e150
"""Larger numbers are drawn as this one, so that differences stay finite."""

SMALLEST = 1e-9
"""Numbers that differ by less are drawn at one place, and logarithms are taken of no smaller number."""


@dataclass(frozen=True)
class AxisScale:
    """Axis from ``start`` to ``end``, which ``low`` and ``high``, transformed by the scale, correspond to."""

    scale: Scale
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the position of a number on the axis."""
        part = (_bent(self.scale, value) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Return at most ``most`` round numbers within the axis."""
        low, high = _straight(self.scale, self.low), _straight(self.scale, self.high)
        if self.scale == "linear":
            return round_numbers(low, high, most)
        powers = [value for value in _powers(self.scale) if low <= value <= high]
        if len(powers) > most:
            return powers[:: -(-len(powers) // most)]
        return powers if len(powers) > 2 else round_numbers(low, high, most)


def ruler(scale: Scale, values: Iterable[float], start: float, end: float, *, pad: float = 0.06) -> AxisScale:
    """Return an axis that holds all values, with room at both ends; a single value is in its middle."""
    bent = [_bent(scale, value) for value in values]
    low, high = min(bent), max(bent)
    size = max(abs(low), abs(high))
    alike = high - low <= max(1e-6 * size, SMALLEST)
    room = max(0.05 * size, 0.5 if size < SMALLEST else 0) if alike else (high - low) * pad
    return AxisScale(scale, low - room, high=high + room, start=start, end=end)


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Return at most ``most`` multiples of 1, 2 or 5 times a power of ten between two numbers."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while math.floor(high / step) - math.ceil(low / step) + 1 > most:
        step *= 2.5 if round(step / 10 ** math.floor(math.log10(step))) == 2 else 2
    first = math.ceil(low / step)
    return [round(index * step, 12) for index in range(first, math.floor(high / step) + 1)]


def scale_of(values: Sequence[float]) -> Scale:
    """Return ``linear`` if that shows all values, else ``log`` if all are positive, else ``asinh``."""
    sizes = sorted(abs(value) for value in values if value)
    if not sizes or sizes[-1] < WIDE * sizes[len(sizes) // 4]:
        return "linear"
    return "log" if min(values) > 0 else "asinh"


def printed(value: float) -> str:
    """Format a number for a tick of an axis."""
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
