"""A calibrated model, trained on with its quantizers in the loop."""

from __future__ import annotations

from qexp.artifacts import Encoder, Ranges, Tokens, Trained
from qexp.config import Finetuned, Form, Numerics, Qat, Task, Training
from qexp.runtime import Runtime
from qexp.store import Stage, Workplace


def run(
    work: Workplace,
    encoder: Encoder,
    ranges: Ranges,
    tokens: Tokens,
    task: Task,
    form: Form,
    method: Qat,
    finetune: Training | Finetuned,
    train_rows: int | None,
    train_steps: int | None,
    seed: int,
    numerics: Numerics,
    *,
    rt: Runtime,
) -> None:
    """Train weights, and scales where they are learned; leave plain float weights and the final ranges."""
    from safetensors.torch import load_file, save_file

    from qexp.lit.classification import Classifier, Optimization
    from qexp.lit.encoder import load_saved, save, set_dropout
    from qexp.lit.steps import training_steps
    from qexp.lit.training import fit
    from qexp.quant.insert import insert
    from qexp.runtime import set_threads

    set_threads(rt.threads)
    assert method.learning_rate  # null fields were resolved by Experiment
    assert method.range_learning_rate
    steps = training_steps(tokens, task, finetune.batch_size, method.epochs, train_rows, train_steps, seed)
    model = load_saved(encoder.model)
    set_dropout(model, method.dropout)
    quantization = insert(model, form.placement, form.quant, form.scheme)
    quantization.load_ranges(load_file(ranges.file))
    learned = method.ranges == "learned"
    (quantization.learn if learned else quantization.freeze)()
    plan = Optimization(
        method.learning_rate,
        finetune.weight_decay,
        finetune.warmup,
        len(steps),
        seed,
        method.range_learning_rate,
    )
    module = Classifier(model, plan, quantization if learned else None)
    history = fit(module, steps, work.scratch, f"QAT {task.name} {form.quant.name}", rt)
    out = Trained(work.folder, "")
    module.cpu()
    save_file(quantization.ranges(), out.file)
    quantization.remove()
    save(model, out.model)
    work.write_facts(history | quantization.describe())


STAGE = Stage("5-qat", 1, Trained, run)
