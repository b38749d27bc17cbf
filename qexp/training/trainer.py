"""Training loop of one process: a flat list of steps, run by Lightning, that resumes after an interruption.

All steps of all epochs form a single Lightning epoch. The order of rows, dropout and the learning rate depend
on the step alone, so a training that was killed and resumed takes the same steps as an uninterrupted one. The
process may be one of several (:mod:`qexp.training.distributed`).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy

from qexp.config import Numerics
from qexp.data.microbatches import MicroBatches
from qexp.errors import TrainingError
from qexp.tasks.module import TaskModule
from qexp.training.attention import recomputed_attention
from qexp.training.dropout import faster_dropout
from qexp.training.interruption import StopRequest, interrupted
from qexp.training.lightning_compat import interruptible, quiet_lightning
from qexp.training.selection import WeightSelector

CHECKPOINT = "last.ckpt"
PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Precision names of Lightning."""
BACKEND = {"cpu": "gloo", "gpu": "nccl"}
"""Backend of ``torch.distributed`` by kind of device."""


@dataclass(frozen=True)
class WorkerContext:
    """Position and resources of one process of a training."""

    numerics: Numerics
    scratch: Path
    """Folder of the checkpoint."""
    checkpoint_seconds: float
    threads: int
    """CPU threads of this process."""
    resumed_at: int = 0
    """Step of the checkpoint to resume from; 0 starts from the beginning."""
    rank: int = 0

    @property
    def checkpoint(self) -> Path:
        return self.scratch / CHECKPOINT


class ExternalProcessEnvironment(ClusterEnvironment):
    """Cluster environment that gives Lightning rank and size, as the processes are already started.

    Without it, Lightning would detect a cluster's scheduler and take rank and size from it.
    """

    def __init__(self, worker: WorkerContext) -> None:
        super().__init__()
        self._rank, self._size = worker.rank, worker.numerics.devices

    @property
    def creates_processes_externally(self) -> bool:
        """True, so that Lightning starts no process."""
        return True

    @property
    def main_address(self) -> str:
        """Loopback address, as all processes are on this machine."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Unused, as the processes are connected before Lightning reads it."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Return False, as this environment is passed explicitly, never detected."""
        return False

    def world_size(self) -> int:
        return self._size

    def set_world_size(self, size: int) -> None:
        """Ignore the size, which is known already."""

    def global_rank(self) -> int:
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """Ignore the rank, which is known already."""

    def local_rank(self) -> int:
        """Return the global rank, as there is one machine."""
        return self._rank

    def node_rank(self) -> int:
        """Return 0, as there is one machine."""
        return 0


class LossHistory(pl.Callback):
    """Callback that records the loss of every step, over all its parts and processes.

    It raises a TrainingError once a loss is NaN or infinite.
    """

    def __init__(self, title: str, advance: Callable[..., None]) -> None:
        self.title = title
        self.advance = advance
        self.losses: list[float] = []
        self.parts: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss of a step once all of its parts are done."""
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
        self.advance(1, note=f"loss {loss:.3f}")

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = list(state_dict["losses"])


class Checkpoints(pl.Callback):
    """Callback that saves the whole training state every ``seconds`` seconds, atomically by a rename.

    It also saves it, and ends the training, when that is requested, and after each of the steps ``always``.
    """

    def __init__(self, worker: WorkerContext, stop: StopRequest, always: Collection[int] = ()) -> None:
        self.file = worker.checkpoint
        self.seconds = worker.checkpoint_seconds
        self.stop = stop
        self.always = frozenset(always)
        self.step = worker.resumed_at
        """Step of the checkpoint; 0 without one."""
        self.saved = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the handlers of signals that Lightning has set."""
        self.stop.listen()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is due, but not after the last step, as the artifact is written right after it."""
        if not _step_is_done(trainer, batch_idx) or trainer.global_step == trainer.max_steps:
            return
        asked = self.stop.made
        due = asked or trainer.global_step in self.always
        due = due or time.monotonic() - self.saved >= self.seconds
        if not trainer.strategy.reduce_boolean_decision(due, all=False):  # saving is collective
            return
        self._save(trainer)
        if trainer.strategy.reduce_boolean_decision(asked, all=False):
            raise KeyboardInterrupt

    def _save(self, trainer: pl.Trainer) -> None:
        temporary = self.file.with_suffix(".tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            os.replace(temporary, self.file)
        self.saved, self.step = time.monotonic(), trainer.global_step


def fit(
    module: TaskModule,
    steps: MicroBatches,
    title: str,
    worker: WorkerContext,
    advance: Callable[..., None],
    *,
    stop: StopRequest | None = None,
    selector: WeightSelector | None = None,
) -> list[float]:
    """Take all steps, or those after the checkpoint of ``worker``, and return the loss of every step.

    Args:
        module: Module to train in place; its weights are the same in all processes.
        steps: Batches of all steps, restricted to the parts of this process.
        title: Name of the training in messages.
        worker: Position of this process in the training.
        advance: Called with the number of steps taken, as ``RunConsole.bar`` yields it.
        stop: Request to end after the current step; None is one by Ctrl-C or SIGTERM.
        selector: Callback that chooses the weights to keep; None keeps the last ones.

    Raises:
        TrainingError: If the loss is NaN or infinite.
        KeyboardInterrupt: After a request to end, with a line on where the training goes on.
    """
    stop = stop or StopRequest()
    always = selector.selection.marks if selector else ()
    history, checkpoints = LossHistory(title, advance), Checkpoints(worker, stop, always)
    callbacks = [history, *([selector] if selector else []), checkpoints]
    try:
        _run(module, steps, callbacks, worker=worker, stop=stop)
    except KeyboardInterrupt:
        raise interrupted(title, checkpoints.step, steps.count) from None
    module.eval()
    return history.losses


def _run(
    module: TaskModule,
    steps: MicroBatches,
    callbacks: list[pl.Callback],
    *,
    worker: WorkerContext,
    stop: StopRequest,
) -> None:
    with (
        stop.listening(),
        quiet_lightning(),
        interruptible(),
        recomputed_attention(module.model),
        faster_dropout(worker.numerics),
    ):
        trainer = _trainer(steps.count, callbacks, worker)
        module.train()  # Lightning keeps the mode, and a loaded model is in evaluation mode
        resumed = str(worker.checkpoint) if worker.resumed_at else None
        trainer.fit(module, steps, ckpt_path=resumed, weights_only=True)


def _trainer(steps: int, callbacks: list[pl.Callback], worker: WorkerContext) -> pl.Trainer:
    numerics = worker.numerics
    return pl.Trainer(
        max_steps=steps,
        accelerator=numerics.device,
        devices=numerics.devices,
        strategy=_strategy(worker),
        precision=PRECISION[numerics.precision],
        accumulate_grad_batches=numerics.accumulate,
        plugins=[ExternalProcessEnvironment(worker)],
        callbacks=callbacks,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def _strategy(worker: WorkerContext) -> Any:
    """Return DDP for several processes; it need not broadcast buffers, as no step changes them."""
    if worker.numerics.devices == 1:
        return "auto"
    return DDPStrategy(process_group_backend=BACKEND[worker.numerics.device], broadcast_buffers=False)


def _step_is_done(trainer: pl.Trainer, batch_idx: int) -> bool:
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def _peak_rate(module: pl.LightningModule) -> float:
    rate: float = module.optimization.learning_rate  # type: ignore[union-attr,assignment]
    return rate
