"""Predictions of an engine and of torch's other arithmetic, row by row beside torch's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.config import Precision, Task, score_name
from qexp.data.metrics.vectorized import MEASURES, Measure, observed
from qexp.tasks import family_of
from qexp.tasks.base import Predictions

Array = NDArray[Any]


@dataclass(frozen=True)
class Side:
    """Predictions of one split by one way to compute the model."""

    engine: Predictions
    torch: Predictions
    floor: Predictions
    steps: Predictions | None = None
    """Of the first rows, with every result a little off; see :data:`qexp.models.reordered.MOVED`."""


RESOLUTION = 1e-4
"""Differences below this share of the logits' standard deviation are none: they move 1 row in 10 000."""
UNIT_ROUNDOFF: Mapping[Precision, float] = {
    "fp16": 2.0**-11,
    "bf16": 2.0**-8,
    "fp32": 2.0**-24,
    "int8": 2.0**-24,
}
"""Largest relative error of one rounding; engines with integer products compute in float32 around them."""


@dataclass(frozen=True)
class Comparison:
    """All rows of all splits: the engine and the floor, each against torch."""

    task: Task
    splits: Mapping[str, Side]
    """By the splits' short names."""
    precision: Precision = "fp32"
    """Arithmetic of the engine and of the floor."""

    @cached_property
    def engine(self) -> Array:
        """Largest difference of a logit in each row, [rows]."""
        return np.concatenate([logit_differences(side.engine, side.torch) for side in self.splits.values()])

    @cached_property
    def distinct(self) -> Array:
        """Rows with logits of their own, int64 [distinct]; where rows are alike, their noise is too."""
        return np.unique(self._logits, axis=0, return_index=True)[1]

    @cached_property
    def floor(self) -> Array:
        """The same of the other arithmetic."""
        return np.concatenate([logit_differences(side.floor, side.torch) for side in self.splits.values()])

    @cached_property
    def steps(self) -> float:
        """What steps of a grid change in a logit at most; 0 where the floor itself moves most rows.

        A floor that moves few rows has seen too few steps, and rows that share a token share its step.
        """
        if float(np.median(self.floor)) > self.resolution:
            return 0.0
        sides = [side for side in self.splits.values() if side.steps is not None and len(side.steps.ids)]
        largest = [_first_differences(side).max() for side in sides]
        return float(max(largest, default=0.0))

    @cached_property
    def noise(self) -> Array:
        """Difference of a logit that rounding explains in each row, [rows]."""
        return np.maximum(self.floor, self.steps)

    @cached_property
    def resolution(self) -> float:
        """Differences of logits that are none."""
        return max(RESOLUTION, self.roundoff) * self.spread + self.smallest

    @cached_property
    def flips(self) -> tuple[Array, Array]:
        """Rows with another prediction than torch's: the engine's and the floor's, bool [rows] each."""
        family, sides = family_of(self.task), self.splits.values()
        engine = np.concatenate([~family.same(side.engine, side.torch) for side in sides])
        floor = np.concatenate([~family.same(side.floor, side.torch) for side in sides])
        return engine, floor

    @cached_property
    def margins(self) -> Array | None:
        """Gap between torch's best score and that of its best other prediction, [rows]; None if unknown."""
        margins = [side.torch.margins for side in self.splits.values()]
        return None if any(each is None for each in margins) else np.concatenate(margins)  # type: ignore[arg-type]

    @property
    def roundoff(self) -> float:
        """Largest relative error of one rounding."""
        return UNIT_ROUNDOFF[self.precision]

    @cached_property
    def spread(self) -> float:
        """Standard deviation of torch's logits, the largest of the outputs."""
        return float(self._logits.std(axis=0).max())

    @cached_property
    def smallest(self) -> float:
        """What a few roundings of the largest logit make: no smaller difference tells anything."""
        return 8 * self.roundoff * float(np.abs(self._logits).max())

    @cached_property
    def _logits(self) -> Array:
        return np.concatenate([side.torch.logits for side in self.splits.values()]).astype(np.float64)

    @cached_property
    def finite(self) -> bool:
        """Whether every logit of engine and torch is a number."""
        broken = sum(side.engine.broken for side in self.splits.values())
        return not broken and bool(np.isfinite(self.engine).all())

    @cached_property
    def metrics(self) -> Mapping[str, tuple[float, float, float]]:
        """Points by which engine and floor depart from torch, and what one row is worth, by metric."""
        return {
            score_name(name, split, self.task): _metric_differences(measure, side)
            for split, side in self.splits.items()
            for name, measure in measures_of(self.task).items()
        }


def first_rows(found: Predictions, rows: int | None) -> Predictions:
    """Of the first so many rows; None is all."""
    margins = None if found.margins is None else found.margins[:rows]
    return Predictions(
        found.ids[:rows], found.predictions[:rows], found.labels[:rows], found.logits[:rows], margins=margins
    )


def splits_of(task: Task, *sides: Sequence[Predictions]) -> dict[str, Side]:
    """Predictions of each evaluation split, in the task's order.

    Args:
        task: Whose splits they are.
        sides: Of the engine, of torch, of the floor, and where they are known of the steps of grids.
    """
    return {name: Side(*each) for name, each in zip(task.evaluation, zip(*sides, strict=True), strict=True)}


def _metric_differences(measure: Measure, side: Side) -> tuple[float, float, float]:
    labels = side.torch.labels
    engine, torch, floor = (
        _observed(measure, each, labels) for each in (side.engine, side.torch, side.floor)
    )
    return _points(engine, torch), _points(floor, torch), 100.0 / len(labels)


def _observed(measure: Measure, found: Predictions, labels: Array) -> float | None:
    return None if found.broken else observed(measure, found.predictions, labels)


def _points(ours: float | None, theirs: float | None) -> float:
    """Difference of two metrics; undefined agrees with undefined only."""
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else float("inf")
    return abs(ours - theirs)


def measures_of(task: Task) -> dict[str, Measure]:
    known = MEASURES[task.kind]
    return {name: known[name] for name in task.metrics}


def apart(ours: Predictions, theirs: Predictions) -> Array:
    return ours.logits.astype(np.float64) - theirs.logits.astype(np.float64)


def _first_differences(side: Side) -> Array:
    assert side.steps is not None
    return logit_differences(side.steps, first_rows(side.torch, len(side.steps.ids)))


def logit_differences(ours: Predictions, theirs: Predictions) -> Array:
    largest: Array = np.abs(apart(ours, theirs)).max(axis=1)
    return largest
