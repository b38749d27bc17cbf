"""Intervals of a run's scores against FP32, from the predictions that it left in the store."""

from __future__ import annotations

from pathlib import Path

from qexp.data.metrics.bootstrap import paired_bootstrap
from qexp.data.metrics.vectorized import observed
from qexp.errors import QexpError
from qexp.records.record import Record
from qexp.records.schema import ScoreInterval
from qexp.reporting.paired import checked_scores, interval_of, measures_of, score_name
from qexp.reporting.predictions import Evaluation, evaluations, joined_rows
from qexp.reporting.run_view import RunView

RESAMPLES = 1000
"""Resamples for each interval of a run: 25 lie beyond either end."""


def score_intervals(
    record: Record, outputs: Path, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, ScoreInterval]]:
    """Return the interval of each stage and metric; empty where the predictions cannot be paired.

    Args:
        record: Record of a run with its scores and stages.
        outputs: Folder that it wrote to.
        resamples: Number of resamples of the evaluation rows.
        seed: Seed of the resampling.
    """
    if set(record.scores) <= {"fp32", "onnx"}:
        return {}
    try:
        by_stage = evaluations(RunView(record), outputs)
        fp32 = by_stage.pop("fp32")
        return {
            stage: _of_stage(fp32, each, resamples, seed)
            for stage, each in by_stage.items()
            if stage != "onnx"
        }
    except (QexpError, KeyError):
        return {}


def _of_stage(fp32: Evaluation, stage: Evaluation, resamples: int, seed: int) -> dict[str, ScoreInterval]:
    measures, found = measures_of(fp32), {}
    for split in fp32.splits:
        first, second, labels = joined_rows(fp32, stage, split)
        for each, values in ((fp32, first), (stage, second)):
            checked_scores(each, split, {name: observed(of, values, labels) for name, of in measures.items()})
        draws = paired_bootstrap(measures, (first, second), labels, resamples=resamples, seed=seed)
        for name in measures:
            low, high, _ = interval_of(draws[name][1] - draws[name][0])
            found[score_name(fp32, name, split)] = ScoreInterval(
                low=low, high=high, rows=len(labels), resamples=resamples
            )
    return found
