"""A pretrained encoder to an FP32 model of the task; or a fine-tuned checkpoint as it is."""

from __future__ import annotations

from qexp.artifacts import Encoder, Tokens
from qexp.config import Finetuned, Numerics, Task, Training
from qexp.data.checkpoints import Checkpoint
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace


def run(
    work: Workplace,
    tokens: Tokens,
    checkpoint: Checkpoint,
    task: Task,
    finetune: Training | Finetuned,
    train_rows: int | None,
    train_steps: int | None,
    seed: int,
    numerics: Numerics,
    *,
    rt: Runtime,
) -> None:
    """Fine-tune with Lightning, or put the labels of a fine-tuned checkpoint into the task's order."""
    from qexp.lit.classification import Classifier, Optimization
    from qexp.lit.encoder import load_finetuned, load_pretrained, save
    from qexp.lit.steps import training_steps
    from qexp.lit.training import fit
    from qexp.runtime import set_threads

    set_threads(rt.threads)
    if isinstance(finetune, Finetuned):
        model, history = load_finetuned(checkpoint.folder, task), {"steps": 0, "loss": [], "resumed_at": 0}
    else:
        steps = training_steps(
            tokens, task, finetune.batch_size, finetune.epochs, train_rows, train_steps, seed
        )
        model = load_pretrained(checkpoint.folder, task, seed)
        plan = Optimization(finetune.learning_rate, finetune.weight_decay, finetune.warmup, len(steps), seed)
        history = fit(Classifier(model, plan), steps, work.scratch, f"fine-tune {task.name}", rt)
    save(model.cpu(), Encoder(work.folder, "").model)
    work.write_facts(history)


STAGE = Stage("2-fp32", 1, Encoder, run)
