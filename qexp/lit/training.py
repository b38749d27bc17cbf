"""One training: a flat list of steps, run by Lightning, that goes on where it was cut off.

All steps of all epochs are one Lightning epoch. Order of rows, dropout and rate depend on the step
alone, so a training that was killed and resumed takes the same steps as one that was not.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from qexp.errors import TrainingError
from qexp.lit.classification import Classifier
from qexp.runtime import Runtime, device_of

CHECKPOINT = "last.ckpt"
Batch = dict[str, Tensor]


class Steps:
    """The batches of a training in order; as a loader it remembers, in a checkpoint, how far it got."""

    def __init__(self, rows: Sequence[np.ndarray], collate: Callable[[np.ndarray], Batch]) -> None:
        self.rows = rows
        self.collate = collate
        self.taken = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        while self.taken < len(self.rows):
            self.taken += 1
            yield self.collate(self.rows[self.taken - 1])

    def state_dict(self) -> dict[str, int]:
        """Number of batches that were handed out."""
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after that many batches."""
        self.taken = state["taken"]


class Journal(pl.Callback):
    """Loss of every step; stops on a loss that is not a number; drives the progress bar."""

    def __init__(self, title: str, move: Callable[..., None]) -> None:
        self.title = title
        self.move = move
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the loss of the step that was just taken."""
        loss = float(outputs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.title}: the loss is {loss} at step {trainer.global_step} of {trainer.max_steps}; "
                f"lower the learning rate ({_peak_rate(pl_module):g} now), or look at the data"
            )
        self.losses.append(loss)
        self.move(1, note=f"loss {loss:.3f}")

    def state_dict(self) -> dict[str, Any]:
        """The losses so far."""
        return {"losses": list(self.losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after these losses."""
        self.losses = list(state_dict["losses"])


class Checkpoints(pl.Callback):
    """Saves the whole state of the training now and then, each time in one rename."""

    def __init__(self, file: Path, seconds: float) -> None:
        self.file = file
        self.seconds = seconds
        self.saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, but not after the last step: the artifact follows at once."""
        due = time.monotonic() - self.saved >= self.seconds
        if due and trainer.global_step < trainer.max_steps:
            aside = self.file.with_suffix(".tmp")
            trainer.save_checkpoint(aside)
            os.replace(aside, self.file)
            self.saved = time.monotonic()


def fit(module: Classifier, steps: Steps, scratch: Path, title: str, rt: Runtime) -> dict[str, Any]:
    """Take all steps, from the checkpoint in ``scratch`` if there is one.

    Returns:
        ``steps``, ``loss`` (of every step) and ``resumed_at`` (step of the checkpoint, or 0).

    Raises:
        TrainingError: the loss is not a number.
        ConfigError: a GPU is asked for and there is none.
    """
    device_of(rt.machine)  # says in our words that there is no GPU, before Lightning does in its own
    checkpoint = scratch / CHECKPOINT
    resumed = _resumed_at(checkpoint, rt)
    with rt.screen.bar(title, total=len(steps), done=resumed) as move:
        journal = Journal(title, move)
        saver = Checkpoints(checkpoint, rt.machine.checkpoint_seconds)
        trainer = _trainer(len(steps), [journal, saver], rt)
        module.train()  # Lightning trains in whatever mode it finds, and a loaded model is in evaluation mode
        with _quiet_lightning(), _interruptible():
            trainer.fit(module, steps, ckpt_path=str(checkpoint) if resumed else None, weights_only=True)
    module.eval()
    return {"steps": len(steps), "loss": journal.losses, "resumed_at": resumed}


def _trainer(steps: int, callbacks: list[pl.Callback], rt: Runtime) -> pl.Trainer:
    with _quiet_lightning():
        return pl.Trainer(
            max_steps=steps, accelerator=rt.machine.accelerator, devices=1, callbacks=callbacks,
            gradient_clip_val=1.0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        )  # fmt: skip


def _resumed_at(checkpoint: Path, rt: Runtime) -> int:
    """Step of a checkpoint that can be read; one that cannot is dropped, with a word."""
    import torch

    if not checkpoint.exists():
        return 0
    try:
        step = int(torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")["global_step"])
    except Exception as error:  # a damaged file raises whatever its damaged bytes lead to
        rt.screen.warn(f"{checkpoint.name} is damaged ({type(error).__name__}); the training starts over")
        checkpoint.unlink()
        return 0
    rt.screen.say(f"  goes on after step {step}")
    return step


def _peak_rate(module: pl.LightningModule) -> float:
    rate: float = module.optimization.learning_rate  # type: ignore[union-attr,assignment]
    return rate


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C stays Ctrl-C: Lightning would leave the process there and then, without a Record."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error


class _quiet_lightning:
    """Without Lightning's advice on workers and devices, which does not apply to in-memory tokens."""

    def __enter__(self) -> None:
        self.loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)
        self.catcher = warnings.catch_warnings()
        self.catcher.__enter__()
        warnings.filterwarnings("ignore", category=UserWarning, module=r"(pytorch_)?lightning.*")
        warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)  # theirs, of torch

    def __exit__(self, *problem: Any) -> None:
        self.catcher.__exit__(*problem)
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
