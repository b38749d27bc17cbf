"""A pretrained encoder to an FP32 model of the task; or a fine-tuned checkpoint as it is."""

from __future__ import annotations

from qexp.artifacts import Stage, Workplace
from qexp.artifacts.types import Encoder, Tokens
from qexp.config import Finetuned, Schooling, Task, Training
from qexp.context import Runtime
from qexp.data.checkpoints import Blueprint, Checkpoint


def run(
    work: Workplace,
    tokens: Tokens,
    checkpoint: Checkpoint | Blueprint,
    task: Task,
    finetune: Training | Finetuned,
    schooling: Schooling | None,
    *,
    rt: Runtime,
) -> None:
    """Fine-tune with Lightning, or put the labels of a fine-tuned checkpoint into the task's order.

    ``schooling`` is null for a checkpoint that is fine-tuned already.
    """
    if isinstance(finetune, Finetuned):
        from qexp.models.loading import save
        from qexp.tasks import family_of

        assert isinstance(checkpoint, Checkpoint)  # of a model from scratch, Experiment refuses it
        save(family_of(task).finetuned(checkpoint), Encoder(work.folder, "").model)
        work.write_facts({"steps": 0, "loss": [], "resumed_at": 0})
        return
    from qexp.training.distributed import train
    from qexp.training.plans import FineTuning

    assert schooling is not None
    course = FineTuning(tokens, checkpoint, task, finetune, schooling)
    work.write_facts(train(course, work.folder, work.scratch, rt))


STAGE = Stage("2-fp32", 1, Encoder, run)
