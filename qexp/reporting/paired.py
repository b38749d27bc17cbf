"""Paired comparison of two evaluations of the same rows: differences, their intervals, and agreement.

An interval covers what another sample of evaluation rows could have changed, but not what another training
seed would change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.data.metrics.bootstrap import paired_bootstrap
from qexp.data.metrics.candidate_places import reordered
from qexp.data.metrics.corpus_ranking import FIRST
from qexp.data.metrics.score_shift import Shift, score_shift
from qexp.data.metrics.vectorized import RIGHT, Measure, measures_for, observed
from qexp.errors import DataError, StoreError
from qexp.reporting.command import command_of
from qexp.reporting.predictions import Evaluation, joined_rows

Array = NDArray[Any]
QUANTILES = (2.5, 97.5)
"""Ends of a 95 % interval, in percent of the resamples."""
SAME_SCORE = 1e-6
"""Maximum difference in points between a recomputed score and the one in the Record."""


@dataclass(frozen=True)
class Difference:
    """One metric of both evaluations in percent; None if it is undefined."""

    metric: str
    """Key of the score."""
    first: float | None
    second: float | None
    low: float | None
    """Lower end of the interval of second minus first; both ends are None if no resample defines both."""
    high: float | None
    undefined: int
    """Number of resamples in which one of the two is undefined; the interval uses the others."""

    @property
    def points(self) -> float | None:
        """Second minus first; None if one of them is undefined."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True)
class AgreementCounts:
    """Number of rows that each evaluation has right, and McNemar's exact test of whether both err alike."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float
    """Two-sided p-value over the rows that only one has right, each equally likely to fall to either side."""


@dataclass(frozen=True)
class EvaluationPair:
    """Comparison of two evaluations on one split."""

    first: Evaluation
    second: Evaluation
    split: str
    rows: int
    differing: int
    """Number of rows with different predictions; of queries with another order of their documents."""
    distance: float | None
    """Mean absolute difference of the predictions; None except for regression and embedding."""
    differences: tuple[Difference, ...]
    answers: AgreementCounts | None
    """None for regression, embedding, reranking and translation, where a row is neither right nor wrong."""
    resamples: int
    seed: int
    shift: Shift | None = None
    """How far the scores of the second are from those of the first; None except for reranking."""


def compare_pairs(
    first: Evaluation, second: Evaluation, *, split: str | None, resamples: int, seed: int
) -> list[EvaluationPair]:
    """Compare two evaluations on one split, or on every evaluation split of the task if ``split`` is None.

    Raises:
        DataError: If the two are not evaluations of the same rows of the same task.
        StoreError: If predictions are missing or damaged, or do not reproduce the Record's scores.
    """
    _check_same_task(first, second)
    if split is not None and split not in first.splits:
        raise DataError(f"--split {split}: task {first.run.task} has {', '.join(first.splits)}")
    names = first.splits if split is None else (split,)
    return [_pair(first, second, split=name, resamples=resamples, seed=seed) for name in names]


def _check_same_task(first: Evaluation, second: Evaluation) -> None:
    for subject, first_value, second_value in (
        ("tasks", first.run.task, second.run.task),
        ("kinds of task", first.run.find("task.kind"), second.run.find("task.kind")),
        ("metrics", first.run.find("task.metrics"), second.run.find("task.metrics")),
        ("evaluation splits", first.splits, second.splits),
        ("sources of rows", _source(first), _source(second)),
    ):
        if first_value != second_value:
            raise DataError(
                f"{first.name} and {second.name} have different {subject}: {_listed(first_value)} and "
                f"{_listed(second_value)}; only evaluations of the same rows can be paired"
            )


def _source(each: Evaluation) -> str:
    return "made-up sample" if each.run.is_synthetic else "real data"


def _listed(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(map(str, value))


def _pair(first: Evaluation, second: Evaluation, split: str, resamples: int, seed: int) -> EvaluationPair:
    measures, kind = measures_of(first), str(first.run.find("task.kind"))
    first_predictions, second_predictions, labels = joined_rows(first, second, split)
    scores = [
        checked_scores(each, split, {name: observed(of, values, labels) for name, of in measures.items()})
        for each, values in ((first, first_predictions), (second, second_predictions))
    ]
    draws = paired_bootstrap(
        measures, (first_predictions, second_predictions), labels, resamples=resamples, seed=seed
    )
    return EvaluationPair(
        first=first,
        second=second,
        split=split,
        rows=len(labels),
        differing=_differing(kind, first_predictions, second_predictions),
        distance=float(np.abs(second_predictions.astype(np.float64) - first_predictions).mean())
        if kind in ("regression", "embedding")
        else None,
        differences=tuple(
            Difference(
                score_name(first, name, split),
                scores[0][name],
                scores[1][name],
                *interval_of(draws[name][1] - draws[name][0]),
            )
            for name in measures
        ),
        answers=_answers(RIGHT[kind], first_predictions, second_predictions, labels)
        if kind in RIGHT
        else None,
        resamples=resamples,
        seed=seed,
        shift=score_shift(second_predictions, first_predictions, float(first.run.find("task.threshold")))
        if kind == "reranking"
        else None,
    )


def _differing(kind: str, first: Array, second: Array) -> int:
    """Return how many rows have another prediction.

    That of a reranking is the order of its documents, that of a retrieval the first documents.
    """
    if kind == "retrieval":
        return sum(one[:FIRST] != other[:FIRST] for one, other in zip(first, second, strict=True))
    return int((reordered(second, first) if kind == "reranking" else first != second).sum())


def measures_of(each: Evaluation) -> dict[str, Measure]:
    """Return the measures of the task's metrics, by name.

    Raises:
        DataError: If a metric cannot be paired for this kind of task.
    """
    kind, metrics = each.run.find("task.kind"), each.run.find("task.metrics", ())
    rules = (each.run.find(field) for field in ("task.scheme", "task.bleu_tokenize"))
    available = measures_for(kind, *rules)
    if unknown := [metric for metric in metrics if metric not in available]:
        raise DataError(
            f"{each.name}: task.kind={kind} with task.metrics={_listed(unknown)}: this version pairs "
            f"{', '.join(available) or 'no metric'} of that kind; compare with the version that made the run"
        )
    return {metric: available[metric] for metric in metrics}


def score_name(each: Evaluation, metric: str, split: str) -> str:
    """Return the key of a score (as :func:`qexp.config.score_name`)."""
    return metric if len(each.splits) == 1 else f"{metric}@{split}"


def checked_scores(
    each: Evaluation, split: str, found: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Return the recomputed scores after checking them against the Record.

    Otherwise, predictions of another run could be compared under its name.

    Raises:
        StoreError: If a score differs from the Record's by more than :data:`SAME_SCORE` points.
    """
    for metric, value in found.items():
        name = score_name(each, metric, split)
        expected = each.scores.get(name)
        same = expected is value if expected is None or value is None else abs(expected - value) <= SAME_SCORE
        if not same:
            raise StoreError(
                f"{each.name}: its predictions have {name} {value}, its Record {expected}; they are damaged "
                f"or of another run: delete {each.folder} and make them again with: {command_of(each.run)}"
            )
    return dict(found)


def interval_of(differences: NDArray[np.float64]) -> tuple[float | None, float | None, int]:
    """Return the ends of the percentile interval, and the number of undefined resamples it leaves out."""
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return None, None, len(differences)
    low, high = np.percentile(defined, QUANTILES)
    return float(low), float(high), len(differences) - len(defined)


def _answers(
    right: Measure, first_predictions: Array, second_predictions: Array, labels: Array
) -> AgreementCounts:
    from scipy.stats import binomtest

    first, second = (
        right.statistics(each, labels)[:, 0] == 1 for each in (first_predictions, second_predictions)
    )
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return AgreementCounts(
        int((first & second).sum()),
        only_first,
        only_second=only_second,
        neither=int((~first & ~second).sum()),
        p_value=p_value,
    )
