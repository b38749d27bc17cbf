"""An exported graph, run over the whole evaluation set, against torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qexp.artifacts import Graph, Parity, Scores, Tokens
from qexp.config import Task
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace

if TYPE_CHECKING:
    from torch import Tensor

MIN_AGREEMENT = 99.5
"""Least share of rows, in percent, on which graph and torch predict the same."""
MAX_METRIC_DIFFERENCE = 0.2
"""Largest difference of a metric, in points."""
SAME_NUMBER = 0.05
"""Two numbers of a regression are the same prediction within this share of the label range.

Gold labels of STS-B are means of a few votes, in steps of about 4 % of their range. Nearer than that, two
computations of one quantized model cannot be held together: a last bit that differs turns one rounding,
and that rounding the next ones.
"""


def run(
    work: Workplace,
    graph: Graph,
    scores: Scores,
    tokens: Tokens,
    task: Task,
    evaluation_rows: int | None,
    *,
    rt: Runtime,
) -> None:
    """Score the graph in ONNX Runtime and compare predictions, logits and metrics with torch's."""
    import torch

    from qexp.deploy.onnxruntime import Session
    from qexp.lit.scoring import score_splits

    session = Session(graph.file, threads=rt.threads)
    names = graph.facts["inputs"]

    def forward(batch: dict[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run({name: batch[name].numpy() for name in names}))

    out = Parity(work.folder, "")
    metrics = score_splits(forward, tokens, task, evaluation_rows, out, "parity", rt)
    work.write_facts({"metrics": metrics, "parity": compare(out, scores, metrics, task)})


def compare(graph: Scores, torch: Scores, metrics: dict[str, float | None], task: Task) -> dict[str, Any]:
    """Agreement in percent of rows, largest logit difference, largest metric difference in points."""
    import numpy as np

    from qexp.lit.scoring import read_predictions

    pairs = [(read_predictions(graph, name), read_predictions(torch, name)) for name in task.evaluation]
    ours = np.concatenate([first.logits for first, _ in pairs])
    theirs = np.concatenate([second.logits for _, second in pairs])
    same = np.concatenate([_same(first.predictions, second.predictions, task) for first, second in pairs])
    agreement = 100.0 * float(same.mean())
    difference = max(_points(metrics[name], torch.metrics[name]) for name in metrics)
    finite = bool(np.isfinite(ours).all() and np.isfinite(theirs).all())
    return {
        "rows": len(same),
        "agreement": agreement,
        "max_logit_difference": float(np.abs(ours - theirs).max()) if finite else None,
        "metric_difference": difference if difference != float("inf") else None,
        "passed": finite and agreement >= MIN_AGREEMENT and difference <= MAX_METRIC_DIFFERENCE,
    }


def _same(ours: Any, theirs: Any, task: Task) -> Any:
    if task.kind == "classification":
        return ours == theirs
    low, high = task.label_range
    return abs(ours - theirs) <= SAME_NUMBER * (high - low)


def _points(ours: float | None, theirs: float | None) -> float:
    """Difference of two metrics; undefined agrees with undefined only."""
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else float("inf")
    return abs(ours - theirs)


STAGE = Stage("8-parity", 1, Parity, run)
