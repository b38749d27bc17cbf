"""Two evaluations of the same rows, side by side: differences, their intervals, and who is right where.

An interval covers what another draw of evaluation rows could have changed. What another seed of the training
would change is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.data.metrics import score
from qexp.data.resampling import paired_bootstrap
from qexp.errors import DataError, StoreError
from qexp.reporting.command import command_of
from qexp.reporting.evaluations import Evaluation, joined_rows

Array = NDArray[Any]
QUANTILES = (2.5, 97.5)
"""Ends of a 95 % interval, in percent of the resamples."""
SAME_SCORE = 1e-6
"""Points within which a score that is computed again is the one in the Record."""


@dataclass(frozen=True)
class Difference:
    """One metric of both, in percent; None where it is undefined."""

    metric: str
    """Key of the score."""
    first: float | None
    second: float | None
    low: float | None
    """Ends of the interval of second minus first; None where no resample defines both."""
    high: float | None
    undefined: int
    """Resamples that leave one of the two undefined; the interval is that of the others."""

    @property
    def points(self) -> float | None:
        """Second minus first."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True)
class Answers:
    """Rows by who is right, and McNemar's exact test of whether both err alike."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float
    """Of the rows that one alone has right, if each fell to either side with equal chance; two-sided."""


@dataclass(frozen=True)
class Pair:
    """Two evaluations on one split."""

    first: Evaluation
    second: Evaluation
    split: str
    rows: int
    differing: int
    """Rows with another prediction."""
    distance: float
    """Mean absolute difference of the predictions; says something of numbers only."""
    differences: tuple[Difference, ...]
    answers: Answers | None
    """None for a regression."""
    resamples: int
    seed: int


def compare_pairs(
    first: Evaluation, second: Evaluation, *, split: str | None, resamples: int, seed: int
) -> list[Pair]:
    """Compare on one evaluation split, or on each of the task's.

    Raises:
        DataError: the two are not evaluations of the same rows of the same task.
        StoreError: predictions are gone, damaged, or do not give the Record's scores.
    """
    _check_same_task(first, second)
    if split is not None and split not in first.splits:
        raise DataError(f"--split {split}: task {first.run.task} has {', '.join(first.splits)}")
    names = first.splits if split is None else (split,)
    return [_pair(first, second, name, resamples, seed) for name in names]


def _check_same_task(first: Evaluation, second: Evaluation) -> None:
    for words, ours, theirs in (
        ("tasks", first.run.task, second.run.task),
        ("metrics", first.run.find("task.metrics"), second.run.find("task.metrics")),
        ("evaluation splits", first.splits, second.splits),
        ("sources of rows", _source(first), _source(second)),
    ):
        if ours != theirs:
            raise DataError(
                f"{first.name} and {second.name} have different {words}: {_listed(ours)} and "
                f"{_listed(theirs)}; only evaluations of the same rows can be paired"
            )


def _source(each: Evaluation) -> str:
    return "made-up sample" if each.run.made_up else "real data"


def _listed(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(map(str, value))


def _pair(first: Evaluation, second: Evaluation, split: str, resamples: int, seed: int) -> Pair:
    ours, theirs, labels = joined_rows(first, second, split)
    metrics = tuple(first.run.find("task.metrics"))
    found = [
        _checked(each, split, score(metrics, predictions, labels))
        for each, predictions in ((first, ours), (second, theirs))
    ]
    drawn = paired_bootstrap(metrics, ours, theirs, labels, resamples=resamples, seed=seed)
    return Pair(
        first=first,
        second=second,
        split=split,
        rows=len(labels),
        differing=int((ours != theirs).sum()),
        distance=float(np.abs(theirs.astype(np.float64) - ours).mean()),
        differences=tuple(
            Difference(
                _score_name(first, metric, split),
                found[0][metric],
                found[1][metric],
                *_interval(drawn[metric][1] - drawn[metric][0]),
            )
            for metric in metrics
        ),
        answers=_answers(ours == labels, theirs == labels)
        if first.run.find("task.kind") == "classification"
        else None,
        resamples=resamples,
        seed=seed,
    )


def _score_name(each: Evaluation, metric: str, split: str) -> str:
    """Key of a score (as :func:`qexp.config.score_name`)."""
    return metric if len(each.splits) == 1 else f"{metric}@{split}"


def _checked(each: Evaluation, split: str, found: Mapping[str, float | None]) -> dict[str, float | None]:
    """The scores, held against the Record's: predictions of another run would be compared under its name."""
    for metric, value in found.items():
        name = _score_name(each, metric, split)
        known = each.scores.get(name)
        same = known is value if known is None or value is None else abs(known - value) <= SAME_SCORE
        if not same:
            raise StoreError(
                f"{each.name}: its predictions have {name} {value}, its Record {known}; they are damaged or "
                f"of another run: delete {each.folder} and make them again with: {command_of(each.run)}"
            )
    return dict(found)


def _interval(differences: NDArray[np.float64]) -> tuple[float | None, float | None, int]:
    """Percentile interval, and how many resamples it leaves out as undefined."""
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return None, None, len(differences)
    low, high = np.percentile(defined, QUANTILES)
    return float(low), float(high), len(differences) - len(defined)


def _answers(first: Array, second: Array) -> Answers:
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    apart = only_first + only_second
    p_value = float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0
    return Answers(
        int((first & second).sum()), only_first, only_second, int((~first & ~second).sum()), p_value
    )
