"""Tables of single runs: finished, with their settings against a neighbour's, and failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from qexp.naming import MODEL_STAGES
from qexp.records.outcome import outcome
from qexp.reporting.attempts import describe, first_line, short_name
from qexp.reporting.comparison import Comparison
from qexp.reporting.run_details import setting_differences
from qexp.reporting.run_list import gate_of
from qexp.reporting.run_view import RunView
from qexp.reporting.table import KEY_LENGTH, MEBIBYTE, NOT_REQUESTED, Table, joined, points, score
from qexp.reporting.tables.session_cost import SESSION_COLUMNS, session_cells

MOST_FAILURES = 200
"""Maximum number of failed runs in the table; the newest come first."""
MOST_DIFFERENCES = 6
"""Number of settings of a run against its neighbour that are listed; further ones are counted."""
NEIGHBOUR = "settings against the run above"
COLUMNS = (
    "key", "task", "model", "recipe", "quant", "method", *(f"{stage} (%)" for stage in MODEL_STAGES),
    "loss (points)", "gate", "size (MiB)", *SESSION_COLUMNS, "p50 (ms)", "seed", "kind", "tags", "finished",
    NEIGHBOUR,
)  # fmt: skip


def runs_table(runs: Sequence[RunView]) -> Table:
    """Return the runs that finished, so ordered that neighbours differ in little."""
    finished = sorted((run for run in runs if run.record.status == "ok"), key=_place)
    rows = tuple(
        (*_facts(run), _against(finished[index - 1] if index else None, run))
        for index, run in enumerate(finished)
    )
    caption = (
        "Scores are of the main metric. The first eight characters of a key name its run in commands.",
    )
    return Table("Runs", COLUMNS, rows, caption=caption if rows else ())


def failures_table(
    comparisons: Sequence[Comparison], ended: Literal["failed", "interrupted"] = "failed"
) -> Table:
    """Return the failed or the interrupted runs that no success supersedes, the newest first."""
    rows_of = (row for comparison in comparisons for row in comparison.rows)
    all_runs = [run for row in rows_of for run in row.runs]
    all_runs += [run for comparison in comparisons for run in comparison.refused]
    failed = [run for run in all_runs if outcome(run.record) == ended]
    runs = sorted(failed, key=lambda run: run.record.finished_at, reverse=True)
    rows = tuple(
        (run.task, describe(run), first_line(run), _minute(run), run.record.key)
        for run in runs[:MOST_FAILURES]
    )
    left = len(runs) - len(rows)
    notes = (
        (f"Left out: {left} older {'failures' if ended == 'failed' else 'interruptions'}.",) if left else ()
    )
    why = "error" if ended == "failed" else "goes on"
    return Table(f"{ended.capitalize()} runs", ("task", "run", why, "finished", "key"), rows, notes=notes)


def _place(run: RunView) -> tuple[str | int, ...]:
    return run.task, run.model, run.budget, -run.bits[0], -run.bits[1], run.quant, run.method, run.seed


def _facts(run: RunView) -> tuple[str, ...]:
    """Return the cells of a run, except the last."""
    record, metric = run.record, next(iter(run.metrics), "")
    scores = {stage: of_stage[metric] for stage, of_stage in record.scores.items() if metric in of_stage}
    last = next((stage for stage in reversed(MODEL_STAGES) if stage in scores), "fp32")
    graph = "fp32" if run.quant == "fp32" else "int8"
    size, timing = (
        (record.bytes or {}).get(graph),
        next(iter((record.latency or {}).get(graph, {}).values()), None),
    )
    return (
        record.key[:KEY_LENGTH],
        run.task,
        short_name(run.model),
        record.recipe or NOT_REQUESTED,
        run.quant,
        run.method,
        *(score(scores[stage]) if stage in scores else NOT_REQUESTED for stage in MODEL_STAGES),
        _loss(scores.get("fp32"), scores.get(last)) if last != "fp32" else NOT_REQUESTED,
        gate_of(run) or NOT_REQUESTED,
        f"{size / MEBIBYTE:.2f}" if size is not None else NOT_REQUESTED,
        *session_cells(record.engines.get(f"{run.find('deploy.runtimes', ['onnxruntime'])[0]}/{graph}", {})),
        f"{timing['p50_ms']:.2f}" if timing else NOT_REQUESTED,
        str(run.seed),
        joined([*["sample"] * bool(run.is_synthetic), run.budget]),
        joined(run.tags) or NOT_REQUESTED,
        _minute(run),
    )


def _loss(fp32: float | None, quantized: float | None) -> str:
    return points(None if fp32 is None or quantized is None else fp32 - quantized)


def _minute(run: RunView) -> str:
    return run.record.finished[:16].replace("T", " ")


def _against(neighbour: RunView | None, run: RunView) -> str:
    """Return the settings that differ from those of the neighbour, whose key comes first."""
    if neighbour is None:
        return NOT_REQUESTED
    found = [
        (path, one, other)
        for path, one, other in setting_differences(neighbour.record.experiment, run.record.experiment)
        if not path.startswith(("task.", "model.")) or path in ("task.name", "model.name")
    ]
    texts = [f"{path} {one} → {other}" for path, one, other in found[:MOST_DIFFERENCES]]
    more = len(found) - len(texts)
    listed = "; ".join([*texts, *([f"and {more} more"] if more else [])])
    return f"{neighbour.record.key[:KEY_LENGTH]}: {listed or 'none'}"
