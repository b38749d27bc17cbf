"""Stage of quantization-aware training, from a calibrated model."""

from __future__ import annotations

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, QatArtifact, Ranges, Tokens
from qexp.config import AnyCalibrator, Finetune, NoFinetune, Qat, QuantizationConfig, Task, TrainingSetup
from qexp.context import RunContext
from qexp.naming import StageName


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    encoder: ModelArtifact,
    teacher: ModelArtifact,
    ranges: Ranges,
    tokens: Tokens,
    task: Task,
    quant_config: QuantizationConfig,
    method: Qat,
    recalibrator: AnyCalibrator | None,
    counts_padding: bool,
    finetune: Finetune | NoFinetune,
    training_setup: TrainingSetup,
) -> None:
    """Train the weights and learned ranges, and save plain float weights and the final ranges.

    ``teacher`` is the FP32 model; ``encoder`` is the same model unless a refinement has changed it, or the
    training starts from the pretrained one. ``recalibrator`` recomputes the ranges of weights; None keeps the
    ranges of the training. ``counts_padding`` is about ranges that move in training.
    """
    from qexp.quant.kernels.native import problem
    from qexp.training.distributed import train
    from qexp.training.plans import QatPlan

    if ctx.machine.accelerator == "cpu" and (missing := problem()):
        ctx.console.warn(f"fake quantization runs in plain torch, which is slower: {missing}")
    plan = QatPlan(
        tokens,
        encoder,
        task=task,
        method=method,
        training=finetune,
        training_setup=training_setup,
        fp32=teacher,
        ranges=ranges,
        quant_config=quant_config,
        recalibrator=recalibrator,
        counts_padding=counts_padding,
    )
    work.write_facts(train(plan, work.folder, work.scratch, ctx))


STAGE = Stage(
    StageName.QAT,
    3,
    QatArtifact,
    run,
    keys={
        "encoder": "encoder",
        "teacher": "teacher",
        "ranges": "ranges",
        "tokens": "tokens",
        "task": "task",
        "quant_config": "form",
        "method": "method",
        "recalibrator": "recalibrator",
        "counts_padding": "counts_padding",
        "finetune": "finetune",
        "training_setup": "schooling",
    },
)
