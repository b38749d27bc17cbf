"""Which of many runs is worth an engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qexp.reporting.pareto import front
from qexp.reporting.run_view import TORCH_STAGES, Run

WAYS = ("best", "pareto")


def candidates(runs: Iterable[Run], tasks: Sequence[str]) -> dict[str, list[Run]]:
    """Quantized runs with a score, by task: those on real rows with a full budget, where there are any.

    Args:
        runs: All of them.
        tasks: Those that are wanted; empty is all.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        wanted = not tasks or run.task in tasks
        if wanted and run.record.status == "ok" and run.quant != "fp32" and final_score(run) is not None:
            found.setdefault(run.task, []).append(run)
    return {task: _serious(of_task) for task, of_task in found.items()}


def best(runs: Sequence[Run]) -> list[Run]:
    """The run with the highest score; the smaller one of two that score alike.

    A score that says nothing of its model (:func:`caveat_of`) is chosen only where there is no other.
    """
    sound = [run for run in runs if caveat_of(run) is None] or runs
    return [max(sound, key=lambda run: (final_score(run) or 0.0, -weight(run)))]


def pareto(runs: Sequence[Run]) -> list[Run]:
    """Runs that no other one beats both in bytes of parameters and in score, the smallest first."""
    return [runs[index] for index in front([(weight(run), final_score(run) or 0.0) for run in runs])]


def caveat_of(run: Run) -> str | None:
    """Why :func:`final_score` says nothing of the model; None for a sound one."""
    last = _last_stage(run)
    return run.caveat(last, run.metrics[0]) if last and run.metrics else None


def _last_stage(run: Run) -> str | None:
    return next((stage for stage in reversed(TORCH_STAGES) if stage in run.record.scores), None)


def final_score(run: Run) -> float | None:
    """The primary metric after the last stage in torch."""
    last = _last_stage(run)
    if last is None or not run.metrics:
        return None
    scores: Mapping[str, float | None] = run.record.scores[last]
    return scores.get(run.metrics[0])


def weight(run: Run) -> float:
    """Bytes of all parameters; infinite where an older Record does not tell."""
    sites = run.record.sites
    return float(sites["cost"]["bytes"]) if sites and "cost" in sites else float("inf")


def _serious(runs: list[Run]) -> list[Run]:
    real = [run for run in runs if not run.made_up and run.budget == "full"]
    return real or runs
