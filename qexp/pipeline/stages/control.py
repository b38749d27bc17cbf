"""Stage that continues the training of the FP32 model without quantizers, as a control for QAT."""

from __future__ import annotations

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, Tokens
from qexp.config import Control, Finetune, NoFinetune, Task, TrainingSetup
from qexp.context import RunContext
from qexp.naming import StageName


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    encoder: ModelArtifact,
    tokens: Tokens,
    task: Task,
    method: Control,
    finetune: Finetune | NoFinetune,
    training_setup: TrainingSetup,
) -> None:
    """Train the weights with the same teacher, batches and rates as quantization-aware training."""
    from qexp.training.distributed import train
    from qexp.training.plans import ControlPlan

    plan = ControlPlan(
        tokens,
        encoder,
        task=task,
        method=method,
        training=finetune,
        training_setup=training_setup,
        fp32=encoder,
    )
    work.write_facts(train(plan, work.folder, work.scratch, ctx))


STAGE = Stage(
    StageName.CONTROL,
    2,
    ModelArtifact,
    run,
    keys={
        "encoder": "encoder",
        "tokens": "tokens",
        "task": "task",
        "method": "method",
        "finetune": "finetune",
        "training_setup": "schooling",
    },
)
