"""Stage that predicts with a model, float or quantized, in another arithmetic."""

from __future__ import annotations

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, NoiseFloor, Ranges, Scores, Tokens
from qexp.config import Numerics, Precision, QuantizationConfig, Task
from qexp.context import RunContext
from qexp.naming import StageName

STEPS = 64
"""Rows of each split that are predicted once more, with perturbed results."""


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    encoder: ModelArtifact,
    quant_config: QuantizationConfig | None,
    ranges: Ranges | None,
    tokens: Tokens,
    task: Task,
    rows: int | None,
    precision: Precision,
    numerics: Numerics,
    decoding: Scores | None,
) -> None:
    """Predict every evaluation split as ``evaluate`` does, with sums in another order.

    Args:
        work: Build folder.
        ctx: Context of the process.
        encoder: Weights of the model.
        quant_config: Sites and grids; None for a float model.
        ranges: Ranges of the quantizers; None for a float model.
        tokens: Tokenized rows.
        task: Task that determines how predictions are decoded.
        rows: Number of first rows of each split; None is all.
        precision: Precision of the engines; ``fp16`` and ``bf16`` round the result of every operator.
        numerics: Settings of the machine that can change bits of the result.
        decoding: Scores of the model, whose thresholds are used where the task leaves them open.
    """
    from qexp.models.inference import load_quantized
    from qexp.models.reordered import MOVED, reordered
    from qexp.tasks import adapter_for, vectors_adapter
    from qexp.tasks.multi_label import decided
    from qexp.tasks.scoring import score_splits

    model, _ = load_quantized(encoder, quant_config, ranges, ctx)
    forward, out = adapter_for(task).runner(model, ctx), NoiseFloor(work.folder, "")
    if decoding is not None:
        task = decided(task, forward, tokens, decoding=decoding, ctx=ctx)
    with reordered(precision):
        scored = score_splits(forward, tokens, task=task, rows=rows, out=out, title="noise floor", ctx=ctx)
    out.steps.folder.mkdir()
    # Where ranges are those of a batch, rows keep their batches.
    whole = quant_config is not None and quant_config.depends_on_batch
    with reordered(precision, moved=MOVED):
        score_splits(
            forward,
            tokens,
            task=task,
            rows=rows if whole else min(STEPS, rows or STEPS),
            out=out.steps,
            title="steps of grids",
            ctx=ctx,
            adapter=vectors_adapter(task),
        )
    work.write_facts({"metrics": scored.metrics, "notes": scored.notes})


STAGE = Stage(
    StageName.FLOOR,
    3,
    NoiseFloor,
    run,
    keys={
        "encoder": "encoder",
        "quant_config": "form",
        "ranges": "ranges",
        "tokens": "tokens",
        "task": "task",
        "rows": "rows",
        "precision": "precision",
        "numerics": "numerics",
        "decoding": "decoding",
    },
    later=frozenset({"decoding"}),
)
