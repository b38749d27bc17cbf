"""The same FP32 steps through qexp's training, a bare Lightning module, and a plain loop.

AdamW, a rate that falls linearly, and gradients clipped to norm 1 in all three. Lightning runs without
logger, checkpoints and progress bar, which is the fastest that it can be. A call includes what each
does once, so that short runs overstate it.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from benchmarks.peers import quiet
from benchmarks.shapes import Batch, Family
from qexp.config import Numerics
from qexp.data.microbatches import MicroBatches
from qexp.tasks.classification import Classifier
from qexp.tasks.module import Optimization
from qexp.training.trainer import WorkerContext, fit

RATE = 1e-6


def framework_calls(family: Family, batch: Batch, steps: int, threads: int) -> dict[str, Callable[[], None]]:
    """A call for each way to take ``steps`` steps on one batch."""
    models = [family.build() for _ in range(3)]
    return {
        "plain loop": _plain(models[0], batch, steps),
        "bare lightning": _lightning(models[1], batch, steps),
        "qexp training": _own(models[2], batch, steps, threads),
    }


def _optimizer(model: Any, steps: int) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps + 1))


def _plain(model: Any, batch: Batch, steps: int) -> Callable[[], None]:
    def run() -> None:
        model.train()
        optimizer, schedule = _optimizer(model, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        optimizer.zero_grad()

    return run


class _Bare(pl.LightningModule):
    def __init__(self, model: Any, steps: int) -> None:
        super().__init__()
        self.model, self.steps = model, steps

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.model(**batch).loss

    def configure_optimizers(self) -> Any:
        optimizer, schedule = _optimizer(self.model, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _lightning(model: Any, batch: Batch, steps: int) -> Callable[[], None]:
    def run() -> None:
        with quiet():
            trainer = pl.Trainer(
                max_steps=steps, accelerator="cpu", devices=1, gradient_clip_val=1.0, logger=False,
                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            batches: Any = [batch] * steps  # a sequence is a data set
            trainer.fit(_Bare(model.train(), steps), DataLoader(batches, batch_size=None))
        _let_go(model)

    return run


def _own(model: Any, batch: Batch, steps: int, threads: int) -> Callable[[], None]:
    plan = Optimization(learning_rate=RATE, weight_decay=0.01, warmup=0.0, steps=steps, seed=0)

    def run() -> None:
        with _folder() as scratch:
            seat = WorkerContext(Numerics(), scratch, checkpoint_seconds=60.0, threads=threads)
            rows = MicroBatches([np.arange(len(batch["labels"]))] * steps, lambda chosen: batch)
            fit(Classifier(model, plan), rows, "benchmark", seat, lambda *_, **__: None)
        _let_go(model)

    return run


def _let_go(model: Any) -> None:
    for parameter in model.parameters():
        parameter.grad = None


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="qexp-benchmark-"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield folder
    finally:
        shutil.rmtree(folder)
