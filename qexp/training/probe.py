"""Rates of this machine: a few training steps and evaluation batches of a model on real rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from qexp.artifacts.types import Tokens
from qexp.config import BiEncoderTask, Experiment, Finetune
from qexp.context import RunContext, device_of, set_threads
from qexp.data.batches import train_batches
from qexp.data.checkpoints import Checkpoint
from qexp.data.microbatches import MicroBatches
from qexp.tasks import adapter_for
from qexp.tasks.module import Optimization

STEPS = 4
"""Steps and batches that are timed; the first of them warms up."""
BACKWARD = 2.0
"""Passes that the backward pass costs, where no step can be timed, as a vector is learned from a teacher."""


def measure_rates(
    experiment: Experiment, tokens: Tokens, checkpoint: Checkpoint, ctx: RunContext
) -> tuple[float, float]:
    """Return the seconds of a row in a training step, and in an evaluation."""
    set_threads(ctx.threads)
    task, device = experiment.task.without_decoding, device_of(ctx.machine)
    adapter, seed = adapter_for(task), experiment.seed
    if isinstance(experiment.finetune, Finetune):
        model: Any = adapter.pretrained(checkpoint, tokens, seed)
    else:
        model = adapter.finetuned(checkpoint)
    model.to(device)
    split = adapter.split(tokens.split(task.train))
    rows = train_batches(split.lengths, batch_size=experiment.finetune.batch_size, epochs=1.0, seed=seed)
    batches = MicroBatches(
        rows[:STEPS],
        partial(adapter.collate, split, pad_id=tokens.pad_id),
        loss_count=partial(adapter.loss_count, split),
    )
    sizes, parts = [len(each) for each in batches.rows], list(batches)
    run = adapter.runner(model.eval(), ctx)
    evaluation = _seconds_per_row(lambda index: run(parts[index]), sizes)
    if isinstance(task, BiEncoderTask):
        return (1 + BACKWARD) * evaluation, evaluation
    optimization = Optimization(1e-8, weight_decay=0.0, warmup=0.0, steps=len(sizes), seed=seed)
    module = adapter.training_module(model, optimization).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-8)

    def step(index: int) -> None:
        batch = {name: tensor.to(device) for name, tensor in parts[index].items()}
        optimizer.zero_grad()
        module.training_step(batch, index).backward()
        optimizer.step()

    return _seconds_per_row(step, sizes), evaluation


def _seconds_per_row(work: Callable[[int], Any], sizes: Sequence[int]) -> float:
    """Return the median seconds per row of all batches but the first, unless there is one only."""
    seconds = []
    for index, size in enumerate(sizes):
        started = time.perf_counter()
        work(index)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / size)
    return median(seconds[1:] or seconds)
