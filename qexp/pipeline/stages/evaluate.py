"""Stage that evaluates a model, float or quantized, with torch."""

from __future__ import annotations

from typing import Any

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, Ranges, Scores, Tokens
from qexp.config import MultiLabelTask, Numerics, QuantizationConfig, Task
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
    decoding: Scores | None,
) -> None:
    """Predict and score all evaluation splits; ``quant_config`` and ``ranges`` are None for a float model.

    Thresholds that the task leaves open are those of ``decoding``, or else the best ones for the model.
    """
    from qexp.models.inference import load_quantized
    from qexp.tasks import adapter_for
    from qexp.tasks.multi_label import decided
    from qexp.tasks.scoring import score_splits

    model, _ = load_quantized(encoder, quant_config, ranges, ctx)
    name = quant_config.quant.name if quant_config else "fp32"
    forward, out = adapter_for(task).runner(model, ctx), Scores(work.folder, "")
    chosen = decided(task, forward, tokens, decoding=decoding, ctx=ctx)
    scored = score_splits(
        forward, tokens, task=chosen, rows=evaluation_rows, out=out, title=f"evaluate {name}", ctx=ctx
    )
    facts: dict[str, Any] = {"metrics": scored.metrics, "notes": scored.notes}
    if task.chooses_decoding and isinstance(chosen, MultiLabelTask):
        facts["thresholds"] = list(chosen.thresholds)
    work.write_facts(facts)


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
        "decoding": "decoding",
    },
    later=frozenset({"decoding"}),
)
