"""A model, in float or quantized, to its scores and predictions."""

from __future__ import annotations

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, Ranges, Scores, Tokens
from qexp.config import Form, Numerics, Task
from qexp.context import Runtime


def run(
    work: Workplace,
    encoder: Encoder,
    form: Form | None,
    ranges: Ranges | None,
    tokens: Tokens,
    task: Task,
    evaluation_rows: int | None,
    numerics: Numerics,
    *,
    rt: Runtime,
) -> None:
    """Predict every evaluation split; ``form`` and ``ranges`` are null for the float model."""
    from qexp.models.inference import load_quantized
    from qexp.tasks import family_of
    from qexp.tasks.scoring import score_splits

    model, _ = load_quantized(encoder, form, ranges, rt)
    name = form.quant.name if form else "fp32"
    run_batch, out = family_of(task).runner(model, rt), Scores(work.folder, "")
    scored = score_splits(run_batch, tokens, task, evaluation_rows, out, f"evaluate {name}", rt)
    work.write_facts({"metrics": scored.metrics, "notes": scored.notes})


STAGE = Stage("6-scores", 3, Scores, run)
