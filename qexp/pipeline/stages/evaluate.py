"""Stage that evaluates a model, float or quantized, with torch."""

from __future__ import annotations

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, Ranges, Scores, Tokens
from qexp.config import Numerics, QuantizationConfig, Task
from qexp.context import RunContext
from qexp.naming import StageName


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    encoder: ModelArtifact,
    quant_config: QuantizationConfig | None,
    ranges: Ranges | None,
    tokens: Tokens,
    task: Task,
    evaluation_rows: int | None,
    numerics: Numerics,
) -> None:
    """Predict and score all evaluation splits; ``quant_config`` and ``ranges`` are None for a float model."""
    from qexp.models.inference import load_quantized
    from qexp.tasks import adapter_for
    from qexp.tasks.scoring import score_splits

    model, _ = load_quantized(encoder, quant_config, ranges, ctx)
    name = quant_config.quant.name if quant_config else "fp32"
    forward, out = adapter_for(task).runner(model, ctx), Scores(work.folder, "")
    scored = score_splits(
        forward, tokens, task=task, rows=evaluation_rows, out=out, title=f"evaluate {name}", ctx=ctx
    )
    work.write_facts({"metrics": scored.metrics, "notes": scored.notes})


STAGE = Stage(
    StageName.SCORES,
    3,
    Scores,
    run,
    keys={
        "encoder": "encoder",
        "quant_config": "form",
        "ranges": "ranges",
        "tokens": "tokens",
        "task": "task",
        "evaluation_rows": "evaluation_rows",
        "numerics": "numerics",
    },
)
