"""Stage that fine-tunes the FP32 model, or loads a fine-tuned checkpoint."""

from __future__ import annotations

from qexp.artifacts import BuildDir, Stage
from qexp.artifacts.types import ModelArtifact, Tokens
from qexp.config import Finetune, NoFinetune, Task, TrainingSetup
from qexp.context import RunContext
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.naming import StageName


def run(
    work: BuildDir,
    ctx: RunContext,
    *,
    tokens: Tokens,
    checkpoint: Checkpoint | ScratchModel,
    task: Task,
    finetune: Finetune | NoFinetune,
    training_setup: TrainingSetup | None,
) -> None:
    """Fine-tune with Lightning, or reorder the labels of a fine-tuned checkpoint as in the task.

    ``training_setup`` is None for a fine-tuned checkpoint.
    """
    if isinstance(finetune, NoFinetune):
        from qexp.models.loading import save
        from qexp.tasks import adapter_for
        from qexp.tasks.fit import check_fit

        assert isinstance(checkpoint, Checkpoint)  # Experiment rejects a model from scratch here
        model = adapter_for(task).finetuned(checkpoint)
        check_fit(model, tokens, task)
        save(model, ModelArtifact(work.folder, "").model)
        work.write_facts({"steps": 0, "loss": [], "resumed_at": 0})
        return
    from qexp.training.distributed import train
    from qexp.training.plans import FinetunePlan

    assert training_setup is not None
    plan = FinetunePlan(tokens, checkpoint, task=task, training=finetune, training_setup=training_setup)
    work.write_facts(train(plan, work.folder, work.scratch, ctx))


STAGE = Stage(
    StageName.FP32,
    2,
    ModelArtifact,
    run,
    keys={
        "tokens": "tokens",
        "checkpoint": "checkpoint",
        "task": "task",
        "finetune": "finetune",
        "training_setup": "schooling",
    },
)
