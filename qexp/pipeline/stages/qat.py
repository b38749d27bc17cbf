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
    finetune: Finetune | NoFinetune,
    training_setup: TrainingSetup,
) -> None:
    """Train the weights and learned ranges, and save plain float weights and the final ranges.

    ``teacher`` is the FP32 model; ``encoder`` is the same model unless a refinement has changed it.
    ``recalibrator`` recomputes the ranges of weights at the end; None keeps the ranges of the training.
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
        teacher=teacher,
        ranges=ranges,
        quant_config=quant_config,
        recalibrator=recalibrator,
    )
    work.write_facts(train(plan, work.folder, work.scratch, ctx))


STAGE = Stage(
    StageName.QAT,
    1,
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
        "finetune": "finetune",
        "training_setup": "schooling",
    },
)
