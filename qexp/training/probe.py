"""Rates of this machine: a few training steps and evaluation batches of a model on real rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch

from qexp.artifacts.types import Tokens
from qexp.config import BatchSize, BiEncoderTask, Experiment, Finetune
from qexp.context import RunContext, device_of, set_threads
from qexp.data.checkpoints import Checkpoint
from qexp.data.microbatches import BatchSplit
from qexp.tasks import adapter_for
from qexp.tasks.module import Optimization
from qexp.training.rows import TrainBatches

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
    size = BatchSize.of(experiment.finetune)
    setup = experiment.training_setup.model_copy(update={"train_steps": STEPS, "train_rows": None})
    every = TrainBatches(tokens, task, size, 1.0, setup=setup)
    batches = every.of(np.arange(len(split)), split, BatchSplit())
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
