"""Row-by-row comparison of an engine, and of the noise floor, with torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.config import BiEncoderTask, Precision, RetrievalTask, Task, score_name
from qexp.data.metrics.corpus_ranking import FIRST, overlaps
from qexp.data.metrics.vectorized import Measure, measures_for, observed
from qexp.tasks import adapter_for
from qexp.tasks.base import Predictions

Array = NDArray[Any]


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions of one split by the engine, by torch, and by torch in the arithmetic of the noise floor.

    The floor may be a sample: the first rows.
    """

    engine: Predictions
    torch: Predictions
    floor: Predictions
    steps: Predictions | None = None
    """Predictions of the first rows with perturbed results; see :data:`qexp.models.reordered.MOVED`."""


RESOLUTION = 1e-4
"""Differences below this share of the logits' standard deviation are ignored: they move 1 row in 10 000."""
UNIT_ROUNDOFF: Mapping[Precision, float] = {
    "fp16": 2.0**-11,
    "bf16": 2.0**-8,
    "fp32": 2.0**-24,
    "int8": 2.0**-24,
}
"""Largest relative error of one rounding; engines with integer products use float32 around them."""


@dataclass(frozen=True)
class GateComparison:
    """Comparison of engine and noise floor with torch, over all rows of all splits.

    Where each word has logits and a decision, ``rows`` of the arrays below are words.
    """

    task: Task
    splits: Mapping[str, SplitPredictions]
    """Predictions by the splits' short names."""
    precision: Precision = "fp32"
    """Precision of the engine and of the noise floor."""

    @cached_property
    def engine(self) -> Array:
        """Largest difference between a logit of the engine and of torch in each row, [rows]."""
        return np.concatenate([logit_differences(side.engine, side.torch) for side in self.splits.values()])

    @cached_property
    def distinct(self) -> Array:
        """First row with each distinct set of logits, int64 [distinct]; equal rows have equal noise."""
        return np.unique(self._logits, axis=0, return_index=True)[1]

    @cached_property
    def floor(self) -> Array:
        """Largest difference between a logit of the noise floor and of torch in each row, [sampled]."""
        sides = self.splits.values()
        return np.concatenate([logit_differences(side.floor, sampled(side.torch, side)) for side in sides])

    @cached_property
    def sampled(self) -> Array:
        """Which rows the noise floor has, bool [rows]; there are as many as ``floor`` has."""
        parts = [np.arange(len(side.torch.logits)) < len(side.floor.logits) for side in self.splits.values()]
        return np.concatenate(parts)

    def beyond(self, factor: float) -> float:
        """Return how many rows outside the floor's sample may exceed its largest by ``factor``.

        If rows are alike, the largest of ``n`` differences is exceeded by one of ``n`` further rows; by that
        factor, by ``1 / factor`` of them, if the tail is as heavy as that of a Cauchy distribution.
        """
        return (self.rows_of_one - 1) / factor

    @property
    def rows_of_one(self) -> float:
        """Number of rows for each row of the noise floor, at least 1."""
        return len(self.sampled) / len(self.floor)

    @cached_property
    def steps(self) -> float:
        """Largest change of a logit due to steps of a grid; 0 if the noise floor itself moves most rows.

        A floor that moves few rows samples too few steps, and rows that share a token share its step.
        """
        if float(np.median(self.floor)) > self.resolution:
            return 0.0
        sides = [side for side in self.splits.values() if side.steps is not None and len(side.steps.ids)]
        largest = [_first_differences(side).max() for side in sides]
        return float(max(largest, default=0.0))

    @cached_property
    def noise(self) -> Array:
        """Largest difference of a logit that rounding explains in each row of the floor, [sampled]."""
        return np.maximum(self.floor, self.steps)

    @cached_property
    def resolution(self) -> float:
        """Difference of logits up to which two rows count as equal."""
        return max(RESOLUTION, self.roundoff) * self.spread + self.smallest

    @cached_property
    def flips(self) -> tuple[Array, Array]:
        """Which rows have another prediction than torch's, engine's bool [rows] and floor's [sampled].

        Rows with several decisions have a column for each, bool [rows, decisions].
        """
        adapter, sides = adapter_for(self.task), self.splits.values()
        engine = np.concatenate([~adapter.same(side.engine, side.torch) for side in sides])
        floor = np.concatenate([~adapter.same(side.floor, sampled(side.torch, side)) for side in sides])
        return engine, floor

    @property
    def rows(self) -> int:
        """Number of rows of the splits; words do not count."""
        return sum(len(side.torch.ids) for side in self.splits.values())

    @property
    def words(self) -> int | None:
        """Number of words with logits; None where rows have them."""
        counts = [side.torch.words for side in self.splits.values()]
        known = [int(each.sum()) for each in counts if each is not None]
        return sum(known) if len(known) == len(counts) else None

    @cached_property
    def margins(self) -> Array | None:
        """Gap between torch's best score and that of its best other prediction, [rows]; None if unknown.

        They have the shape of :attr:`flips`.
        """
        margins = [side.torch.margins for side in self.splits.values()]
        return None if any(each is None for each in margins) else np.concatenate(margins)  # type: ignore[arg-type]

    @property
    def roundoff(self) -> float:
        """Largest relative error of one rounding."""
        return UNIT_ROUNDOFF[self.precision]

    @cached_property
    def spread(self) -> float:
        """Standard deviation of torch's logits over the rows, for the output where it is largest."""
        return float(self._logits.std(axis=0).max())

    @cached_property
    def smallest(self) -> float:
        """Error of a few roundings of the largest logit, below which a difference has no meaning."""
        return 8 * self.roundoff * float(np.abs(self._logits).max())

    @cached_property
    def _logits(self) -> Array:
        return np.concatenate([side.torch.logits for side in self.splits.values()]).astype(np.float64)

    @cached_property
    def finite(self) -> bool:
        """Whether all logits of engine and torch are finite."""
        broken = sum(side.engine.broken for side in self.splits.values())
        return not broken and bool(np.isfinite(self.engine).all())

    def distinct_outputs(self, side: SplitPredictions) -> tuple[Array, Array, Array]:
        """Return torch's distinct logits, the engine's differences from the floor there, and the row of each.

        Only rows that the floor has count. Two vectors of a row count one by one: many queries may have one
        document, whose error is the same.
        """
        torch, engine = sampled(side.torch, side), sampled(side.engine, side)
        logits, off, rows = torch.logits.astype(np.float64), apart(engine, side.floor), torch.rows
        if isinstance(self.task, BiEncoderTask):
            logits, off = (each.reshape(2 * len(each), -1) for each in (logits, off))
            rows = np.repeat(rows, 2)
        distinct, first = np.unique(logits, axis=0, return_index=True)
        return distinct, off[first], rows[first]

    @cached_property
    def cosines(self) -> tuple[Array, Array] | None:
        """Smaller cosine of each row's two vectors with torch's, engine's [rows] and floor's [sampled].

        None where predictions are not made of vectors.
        """
        if not isinstance(self.task, BiEncoderTask):
            return None
        sides = self.splits.values()
        engine = np.concatenate([_smaller_cosines(side.engine, side.torch) for side in sides])
        floor = np.concatenate([_smaller_cosines(side.floor, sampled(side.torch, side)) for side in sides])
        return engine, floor

    @cached_property
    def overlaps(self) -> tuple[Array, Array] | None:
        """Share of each query's first documents that are torch's, engine's [rows] and floor's [sampled].

        None where predictions are not rankings.
        """
        if not isinstance(self.task, RetrievalTask):
            return None
        sides = self.splits.values()
        engine = [overlaps(side.engine.predictions, side.torch.predictions, FIRST) for side in sides]
        floor = [
            overlaps(side.floor.predictions, sampled(side.torch, side).predictions, FIRST) for side in sides
        ]
        return np.concatenate(engine), np.concatenate(floor)

    @cached_property
    def metrics(self) -> Mapping[str, tuple[float, float, float]]:
        """Differences of engine and floor from torch, and the weight of one row, all in points, by metric.

        The floor's is that of its rows.
        """
        return {
            score_name(name, split, self.task): _metric_differences(measure, side)
            for split, side in self.splits.items()
            for name, measure in measures_of(self.task).items()
        }


def first_rows(found: Predictions, rows: int | None) -> Predictions:
    """Return the predictions of the first ``rows`` rows, or of all if None."""
    words = None if found.words is None else found.words[:rows]
    decisions = rows if words is None else int(words.sum())
    return Predictions(
        found.ids[:rows],
        found.predictions[:rows],
        found.labels[:rows],
        found.logits[:decisions],
        margins=None if found.margins is None else found.margins[:decisions],
        words=words,
        scores=None if found.scores is None else found.scores[:rows],
    )


def sampled(found: Predictions, side: SplitPredictions) -> Predictions:
    """Return the predictions of the rows that the noise floor has."""
    return first_rows(found, len(side.floor.ids))


def splits_of(task: Task, *sides: Sequence[Predictions]) -> dict[str, SplitPredictions]:
    """Return the predictions of each evaluation split by its short name, in the task's order.

    Args:
        task: Task of the splits.
        sides: Predictions per split of the engine, of torch, of the noise floor and, if known, of the
            perturbed results.
    """
    return {
        name: SplitPredictions(*each)
        for name, each in zip(task.evaluation, zip(*sides, strict=True), strict=True)
    }


def _metric_differences(measure: Measure, side: SplitPredictions) -> tuple[float, float, float]:
    reference = sampled(side.torch, side)
    engine, torch = (_observed(measure, each, side.torch.labels) for each in (side.engine, side.torch))
    floor, of_its_rows = (_observed(measure, each, reference.labels) for each in (side.floor, reference))
    return _points(engine, torch), _points(floor, of_its_rows), 100.0 / len(side.torch.labels)


def _observed(measure: Measure, found: Predictions, labels: Array) -> float | None:
    return None if found.broken else observed(measure, found.predictions, labels)


def _points(first: float | None, second: float | None) -> float:
    """Return the absolute difference of two metrics; infinite if only one is undefined."""
    if first is None or second is None:
        return 0.0 if first is second else float("inf")
    return abs(first - second)


def measures_of(task: Task) -> dict[str, Measure]:
    measures = measures_for(task.kind, getattr(task, "scheme", None), getattr(task, "bleu_tokenize", None))
    return {name: measures[name] for name in task.metrics}


def apart(candidate: Predictions, reference: Predictions) -> Array:
    return candidate.logits.astype(np.float64) - reference.logits.astype(np.float64)


def _smaller_cosines(candidate: Predictions, reference: Predictions) -> Array:
    """Return the cosine of two embeddings of norm 1, ``1 - |a - b|^2 / 2``, exact where they are close."""
    squares = np.square(apart(candidate, reference)).reshape(len(candidate.ids), 2, -1).sum(axis=2)
    cosines: Array = 1 - squares.max(axis=1) / 2
    return cosines


def _first_differences(side: SplitPredictions) -> Array:
    assert side.steps is not None
    return logit_differences(side.steps, first_rows(side.torch, len(side.steps.ids)))


def logit_differences(candidate: Predictions, reference: Predictions) -> Array:
    largest: Array = np.abs(apart(candidate, reference)).max(axis=1)
    return largest
