"""A model, in float or quantized, to what its predictions are in another arithmetic."""

from __future__ import annotations

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, NoiseFloor, Ranges, Tokens
from qexp.config import Form, Numerics, Precision, Task
from qexp.context import Runtime

STEPS = 64
"""Rows of each split that are predicted once more, with results that are off."""


def run(
    work: Workplace,
    encoder: Encoder,
    form: Form | None,
    ranges: Ranges | None,
    tokens: Tokens,
    task: Task,
    rows: int | None,
    precision: Precision,
    numerics: Numerics,
    *,
    rt: Runtime,
) -> None:
    """Predict every evaluation split as ``evaluate`` does, with sums in another order.

    Args:
        work: Where to.
        encoder: Weights.
        form: What is quantized; null for a float model, as ``ranges``.
        ranges: On which ranges.
        tokens: Rows.
        task: How predictions are read off.
        rows: The first so many of each split; null is all.
        precision: Of the engines; ``fp16`` and ``bf16`` round the result of every operator.
        numerics: What the floor depends on besides.
        rt: The machine.
    """
    from qexp.models.inference import load_quantized
    from qexp.models.reordered import MOVED, reordered
    from qexp.tasks import family_of
    from qexp.tasks.scoring import score_splits

    model, _ = load_quantized(encoder, form, ranges, rt)
    forward, out = family_of(task).runner(model, rt), NoiseFloor(work.folder, "")
    with reordered(precision):
        scored = score_splits(forward, tokens, task, rows, out, "noise floor", rt)
    out.steps.folder.mkdir()
    with reordered(precision, moved=MOVED):
        score_splits(forward, tokens, task, min(STEPS, rows or STEPS), out.steps, "steps of grids", rt)
    work.write_facts({"metrics": scored.metrics, "notes": scored.notes})


STAGE = Stage("8-floor", 2, NoiseFloor, run)
