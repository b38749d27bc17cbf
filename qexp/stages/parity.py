"""The gate: an engine, run over the whole evaluation set, against torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qexp.artifacts import Graph, Parity, Scores, Tokens
from qexp.config import Precision, RuntimeName, Task
from qexp.host import Host
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace

if TYPE_CHECKING:
    from pathlib import Path

    from qexp.deploy.engine import Engine

MIN_AGREEMENT = 99.5
"""Least share of rows, in percent, on which engine and torch predict the same."""
MAX_METRIC_DIFFERENCE = 0.2
"""Largest difference of a metric, in points, unless one row of accuracy is worth more."""
ROUNDING = 1e-9
"""What two differences that are meant to be equal may differ by."""


def run(
    work: Workplace,
    graph: Graph,
    scores: Scores,
    tokens: Tokens,
    task: Task,
    evaluation_rows: int | None,
    runtime: RuntimeName,
    precision: Precision,
    host: Host,
    *,
    rt: Runtime,
) -> None:
    """Score the engine and compare predictions, logits and metrics with torch's; ``host`` has its version."""
    from qexp.deploy.engine import Order
    from qexp.deploy.engines import load
    from qexp.lit.exported import exported_run
    from qexp.lit.family import EVALUATION_BATCH
    from qexp.lit.scoring import score_splits

    shapes = ((1, 8), (EVALUATION_BATCH, task.max_length))
    engines: list[Engine] = []

    def loaded(file: Path) -> Engine:
        engines.append(load(runtime, Order(file, precision, rt.threads, shapes, rt.engines)))
        return engines[-1]

    forward = exported_run(task, graph.folder, loaded)
    out = Parity(work.folder, "")
    scored = score_splits(forward, tokens, task, evaluation_rows, out, f"{runtime} {precision}", rt)
    parity = compare(out, scores, scored.metrics, task)
    found = {"parity": parity, "engine": asdict(engines[-1].info) | {"bytes": graph.bytes}}
    work.write_facts({"metrics": scored.metrics, "notes": scored.notes, **found})


def compare(graph: Scores, torch: Scores, metrics: dict[str, float | None], task: Task) -> dict[str, Any]:
    """Agreement in percent of rows, largest logit difference, largest metric difference in points."""
    import numpy as np

    from qexp.lit.families import family_of
    from qexp.lit.scoring import read_predictions

    family = family_of(task)
    pairs = [(read_predictions(graph, name), read_predictions(torch, name)) for name in task.evaluation]
    ours = np.concatenate([first.logits for first, _ in pairs])
    theirs = np.concatenate([second.logits for _, second in pairs])
    same = np.concatenate([family.same(first, second) for first, second in pairs])
    agreement = 100.0 * float(same.mean())
    difference = max(_points(metrics[name], torch.metrics[name]) for name in metrics)
    allowed = max(MAX_METRIC_DIFFERENCE, 100.0 / len(same)) + ROUNDING
    finite = bool(np.isfinite(ours).all() and np.isfinite(theirs).all())
    return {
        "rows": len(same),
        "agreement": agreement,
        "max_logit_difference": float(np.abs(ours - theirs).max()) if finite else None,
        "metric_difference": difference if difference != float("inf") else None,
        "passed": finite and agreement >= MIN_AGREEMENT and difference <= allowed,
    }


def _points(ours: float | None, theirs: float | None) -> float:
    """Difference of two metrics; undefined agrees with undefined only."""
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else float("inf")
    return abs(ours - theirs)


STAGE = Stage("8-parity", 4, Parity, run)
