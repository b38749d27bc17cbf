"""Selection of the runs that are worth an engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qexp.naming import MODEL_STAGES
from qexp.reporting.pareto import front
from qexp.reporting.run_view import RunView

WAYS = ("best", "pareto")


def candidates(runs: Iterable[RunView], tasks: Sequence[str]) -> dict[str, list[RunView]]:
    """Return the quantized runs with a score, by task.

    A task that has runs on real rows with a full budget is represented by these alone.

    Args:
        runs: Runs to choose from.
        tasks: Tasks to include; empty includes all.
    """
    runs_by_task: dict[str, list[RunView]] = {}
    for run in runs:
        wanted = not tasks or run.task in tasks
        if wanted and run.record.status == "ok" and run.quant != "fp32" and final_score(run) is not None:
            runs_by_task.setdefault(run.task, []).append(run)
    return {task: _serious(of_task) for task, of_task in runs_by_task.items()}


def best(runs: Sequence[RunView]) -> list[RunView]:
    """Return the run with the highest score, or the smallest of those with an equal score.

    A run whose score is uninformative (:func:`caveat_of`) is chosen only if there is no other.
    """
    sound = [run for run in runs if caveat_of(run) is None] or runs
    return [max(sound, key=lambda run: (final_score(run) or 0.0, -weight(run)))]


def pareto(runs: Sequence[RunView]) -> list[RunView]:
    """Return the Pareto front of the runs in bytes of parameters and score, smallest first."""
    return [runs[index] for index in front([(weight(run), final_score(run) or 0.0) for run in runs])]


def caveat_of(run: RunView) -> str | None:
    """Return why :func:`final_score` is uninformative about the model, or None if the score is sound."""
    last = _last_stage(run)
    return run.caveat(last, run.metrics[0]) if last and run.metrics else None


def _last_stage(run: RunView) -> str | None:
    return next((stage for stage in reversed(MODEL_STAGES) if stage in run.record.scores), None)


def final_score(run: RunView) -> float | None:
    """Return the primary metric after the last stage in torch; None if it is absent or undefined."""
    last = _last_stage(run)
    if last is None or not run.metrics:
        return None
    scores: Mapping[str, float | None] = run.record.scores[last]
    return scores.get(run.metrics[0])


def weight(run: RunView) -> float:
    """Return the bytes of all parameters; infinity if an older Record does not store them."""
    sites = run.record.sites
    return float(sites["cost"]["bytes"]) if sites and "cost" in sites else float("inf")


def _serious(runs: list[RunView]) -> list[RunView]:
    real = [run for run in runs if not run.is_synthetic and run.budget == "full"]
    return real or runs
