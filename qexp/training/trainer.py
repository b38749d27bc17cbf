"""One training: a flat list of steps, run by Lightning, that goes on where it was cut off.

All steps of all epochs are one Lightning epoch. Order of rows, dropout and rate depend on the step
alone, so a training that was killed and resumed takes the same steps as one that was not. What is here
runs in one process, which may be one of several (:mod:`qexp.training.distributed`).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy

from qexp.config import Numerics
from qexp.data.microbatches import Steps
from qexp.errors import TrainingError
from qexp.tasks.module import Student
from qexp.training.lightning_compat import interruptible, quiet_lightning

CHECKPOINT = "last.ckpt"
PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Lightning's names."""
BACKEND = {"cpu": "gloo", "gpu": "nccl"}
"""How processes on a kind of device talk to each other."""


@dataclass(frozen=True)
class Seat:
    """Where one process of a training sits."""

    numerics: Numerics
    scratch: Path
    """Folder of the checkpoint."""
    checkpoint_seconds: float
    threads: int
    """CPU threads of this process."""
    resumed_at: int = 0
    """Step of the checkpoint to go on from; 0 is the beginning."""
    rank: int = 0

    @property
    def checkpoint(self) -> Path:
        """File of the checkpoint."""
        return self.scratch / CHECKPOINT


class Surroundings(ClusterEnvironment):
    """Tells Lightning which process this is, and that there is nothing to launch or to look up.

    Without it, Lightning would look for a cluster's scheduler, and take its numbers for ours.
    """

    def __init__(self, seat: Seat) -> None:
        super().__init__()
        self._rank, self._size = seat.rank, seat.numerics.devices

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts no process."""
        return True

    @property
    def main_address(self) -> str:
        """All processes are on this machine."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Unused: the processes are connected before Lightning asks."""
        return 0

    @staticmethod
    def detect() -> bool:
        """It is chosen, not detected."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self._size

    def set_world_size(self, size: int) -> None:
        """It is known already."""

    def global_rank(self) -> int:
        """Number of this process, from 0."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """It is known already."""

    def local_rank(self) -> int:
        """The same: there is one machine."""
        return self._rank

    def node_rank(self) -> int:
        """There is one machine."""
        return 0


class Journal(pl.Callback):
    """Loss of every step, over all its parts and processes; stops on one that is no number."""

    def __init__(self, title: str, move: Callable[..., None]) -> None:
        self.title = title
        self.move = move
        self.losses: list[float] = []
        self.parts: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the loss of the step when all of its parts are in."""
        self.parts.append(outputs["loss"])
        if not _step_is_done(trainer, batch_idx):
            return
        loss = float(trainer.strategy.reduce(torch.stack(self.parts).sum(), reduce_op="mean"))
        self.parts.clear()
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
        if not _step_is_done(trainer, batch_idx) or trainer.global_step == trainer.max_steps:
            return
        due = time.monotonic() - self.saved >= self.seconds
        if trainer.strategy.reduce_boolean_decision(due, all=False):  # all processes, or none
            aside = self.file.with_suffix(".tmp")
            trainer.save_checkpoint(aside)
            if trainer.is_global_zero:
                os.replace(aside, self.file)
            self.saved = time.monotonic()


def fit(module: Student, steps: Steps, title: str, seat: Seat, move: Callable[..., None]) -> list[float]:
    """Take all steps, from the checkpoint if ``seat`` says so; the loss of every step.

    Args:
        module: Trained in place; weights are the same in all processes.
        steps: With the parts of this process.
        title: For messages.
        seat: Where this process sits.
        move: Told of every step, as ``Screen.bar`` has it.

    Raises:
        TrainingError: The loss is not a number.
    """
    journal = Journal(title, move)
    with quiet_lightning(), interruptible():
        trainer = _trainer(
            steps.count, [journal, Checkpoints(seat.checkpoint, seat.checkpoint_seconds)], seat
        )
        module.train()  # Lightning trains in whatever mode it finds, and a loaded model is in evaluation mode
        resumed = str(seat.checkpoint) if seat.resumed_at else None
        trainer.fit(module, steps, ckpt_path=resumed, weights_only=True)
    module.eval()
    return journal.losses


def _trainer(steps: int, callbacks: list[pl.Callback], seat: Seat) -> pl.Trainer:
    numerics = seat.numerics
    return pl.Trainer(
        max_steps=steps, accelerator=numerics.device, devices=numerics.devices, strategy=_strategy(seat),
        precision=PRECISION[numerics.precision], accumulate_grad_batches=numerics.accumulate,
        plugins=[Surroundings(seat)], callbacks=callbacks, gradient_clip_val=1.0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip


def _strategy(seat: Seat) -> Any:
    """DDP between processes; buffers hold ranges and positions, which no step changes."""
    if seat.numerics.devices == 1:
        return "auto"
    return DDPStrategy(process_group_backend=BACKEND[seat.numerics.device], broadcast_buffers=False)


def _step_is_done(trainer: pl.Trainer, batch_idx: int) -> bool:
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def _peak_rate(module: pl.LightningModule) -> float:
    rate: float = module.optimization.learning_rate  # type: ignore[union-attr,assignment]
    return rate
