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

from qexp.data.metrics.bootstrap import paired_bootstrap
from qexp.data.metrics.vectorized import MEASURES, RIGHT, Measure, observed
from qexp.errors import DataError, StoreError
from qexp.reporting.command import command_of
from qexp.reporting.predictions import Evaluation, joined_rows

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
    distance: float | None
    """Mean absolute difference of the predictions of a regression."""
    differences: tuple[Difference, ...]
    answers: Answers | None
    """None where a row is not right or wrong: for a regression and for a translation."""
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
        ("kinds of task", first.run.find("task.kind"), second.run.find("task.kind")),
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
    measures, kind = measures_of(first), str(first.run.find("task.kind"))
    ours, theirs, labels = joined_rows(first, second, split)
    scores = [
        checked_scores(each, split, {name: observed(of, values, labels) for name, of in measures.items()})
        for each, values in ((first, ours), (second, theirs))
    ]
    drawn = paired_bootstrap(measures, (ours, theirs), labels, resamples=resamples, seed=seed)
    return Pair(
        first=first,
        second=second,
        split=split,
        rows=len(labels),
        differing=int((ours != theirs).sum()),
        distance=float(np.abs(theirs.astype(np.float64) - ours).mean()) if kind == "regression" else None,
        differences=tuple(
            Difference(
                score_name(first, name, split),
                scores[0][name],
                scores[1][name],
                *interval_of(drawn[name][1] - drawn[name][0]),
            )
            for name in measures
        ),
        answers=_answers(RIGHT[kind], ours, theirs, labels) if kind in RIGHT else None,
        resamples=resamples,
        seed=seed,
    )


def measures_of(each: Evaluation) -> dict[str, Measure]:
    """Metrics of the task, by name."""
    kind, metrics = each.run.find("task.kind"), each.run.find("task.metrics", ())
    known = MEASURES.get(kind, {})
    if unknown := [metric for metric in metrics if metric not in known]:
        raise DataError(
            f"{each.name}: task.kind={kind} with task.metrics={_listed(unknown)}: this version pairs "
            f"{', '.join(known) or 'no metric'} of that kind; compare with the version that made the run"
        )
    return {metric: known[metric] for metric in metrics}


def score_name(each: Evaluation, metric: str, split: str) -> str:
    """Key of a score (as :func:`qexp.config.score_name`)."""
    return metric if len(each.splits) == 1 else f"{metric}@{split}"


def checked_scores(
    each: Evaluation, split: str, found: Mapping[str, float | None]
) -> dict[str, float | None]:
    """The scores, held against the Record's: predictions of another run would be compared under its name."""
    for metric, value in found.items():
        name = score_name(each, metric, split)
        known = each.scores.get(name)
        same = known is value if known is None or value is None else abs(known - value) <= SAME_SCORE
        if not same:
            raise StoreError(
                f"{each.name}: its predictions have {name} {value}, its Record {known}; they are damaged or "
                f"of another run: delete {each.folder} and make them again with: {command_of(each.run)}"
            )
    return dict(found)


def interval_of(differences: NDArray[np.float64]) -> tuple[float | None, float | None, int]:
    """Percentile interval, and how many resamples it leaves out as undefined."""
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return None, None, len(differences)
    low, high = np.percentile(defined, QUANTILES)
    return float(low), float(high), len(differences) - len(defined)


def _answers(right: Measure, ours: Array, theirs: Array, labels: Array) -> Answers:
    from scipy.stats import binomtest

    first, second = (right.statistics(each, labels)[:, 0] == 1 for each in (ours, theirs))
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    apart = only_first + only_second
    p_value = float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0
    return Answers(
        int((first & second).sum()), only_first, only_second, int((~first & ~second).sum()), p_value
    )
