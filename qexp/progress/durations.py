"""Durations as text."""

from __future__ import annotations

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Format seconds such as ``1 h 5 min``, ``4 min 10 s`` or ``8 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def total_duration(seconds: Sequence[float | None]) -> str:
    """Format a sum of durations; ``at least`` precedes it where some are unknown."""
    known = [each for each in seconds if each is not None]
    if not known and seconds:
        return "unknown"
    return f"{'' if len(known) == len(seconds) else 'at least '}{duration(sum(known))}"
