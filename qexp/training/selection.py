"""Which weights of a training are kept: the best ones on held-out rows, or the mean of several.

Lightning's EarlyStopping and ModelCheckpoint belong to its validation loop, which runs at fixed distances of
batches and is not repeated by a training that resumes from a checkpoint of our own. Here the steps of
evaluation are those at which an epoch ends, whatever its number of batches, and the scores are a part of the
checkpoint. So a training that was killed takes the same decisions as an uninterrupted one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor

from qexp.data.microbatches import MicroBatches
from qexp.tasks.module import TaskModule

WEIGHTS = "weights-{}.pt"
"""File of the weights after a step."""

State = dict[str, Tensor]


class Judge(Protocol):
    """Score of a module in training."""

    @property
    def rows(self) -> Any:
        """Rows that it is computed on."""

    @property
    def score_name(self) -> str:
        """Name of the score."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger score is a better one."""

    def score(self, module: TaskModule, scratch: Path) -> float | None:
        """Return the score; None where it is undefined."""


@dataclass(frozen=True)
class EvaluatedStep:
    """Score after a step; None where it is undefined, or nothing is evaluated."""

    step: int
    score: float | None


@dataclass(frozen=True)
class Selection:
    """How the weights to keep are chosen."""

    marks: Sequence[int]
    """Steps after which weights are saved and evaluated, ascending; the last is that of the training."""
    judge: Judge | None
    """What evaluates them; None evaluates nothing."""
    patience: int | None = None
    """Evaluations without a better score after which the training ends; None never ends it."""
    average: int = 1
    """Number of weights whose mean is kept."""
    best: bool = True
    """Whether they are the best ones, not the last."""

    def ranked(self, evaluations: Sequence[EvaluatedStep]) -> list[EvaluatedStep]:
        """Return evaluations, the best first, and an earlier one before an equal one; None is the worst."""
        sign = -1.0 if self.judge is not None and self.judge.higher_is_better else 1.0
        worst = float("inf")
        return sorted(evaluations, key=lambda each: worst if each.score is None else sign * each.score)

    def kept(self, evaluations: Sequence[EvaluatedStep]) -> list[int]:
        """Return the steps whose weights are kept, ascending."""
        chosen = self.ranked(evaluations)[: self.average] if self.best else evaluations[-self.average :]
        return sorted(each.step for each in chosen)

    def is_over(self, evaluations: Sequence[EvaluatedStep]) -> bool:
        """Return whether patience has come to its end."""
        if self.patience is None or not evaluations:
            return False
        best = self.ranked(evaluations)[0]
        return len(evaluations) - 1 - list(evaluations).index(best) >= self.patience


def marks(steps: MicroBatches, every: int | None) -> tuple[int, ...]:
    """Return the steps of evaluation: the ends of all epochs, or one in ``every`` steps and the last."""
    if every is None:
        return steps.epoch_ends
    return (*range(every, steps.count, every), steps.count)


class WeightSelector(pl.Callback):
    """Callback that saves and evaluates weights, ends the training early, and loads what is kept at the end.

    It stands before the callback that saves checkpoints, which saves one at each of the marks.

    Args:
        selection: How weights are chosen.
        scratch: Folder of the weights, on a disk that all processes share.
    """

    def __init__(self, selection: Selection, scratch: Path) -> None:
        self.selection, self.scratch = selection, scratch
        self.evaluations: list[EvaluatedStep] = []
        self.facts: dict[str, Any] = {}
        """What was chosen, once the training has ended."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End a resumed training at once if it had ended early."""
        trainer.should_stop = trainer.should_stop or self.selection.is_over(self.evaluations)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Delete weights that no longer count, as a checkpoint of the last evaluation is there by now."""
        if trainer.is_global_zero and self.evaluations and trainer.global_step == self.evaluations[-1].step:
            needed = {self._file(step) for step in self.selection.kept(self.evaluations)}
            for file in set(self.scratch.glob(WEIGHTS.format("*"))) - needed:
                file.unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and evaluate the weights after the steps of evaluation."""
        step, done = trainer.global_step, self.evaluations[-1].step if self.evaluations else 0
        if step == done or step not in self.selection.marks:
            return
        score = None
        if trainer.is_global_zero:
            self._save(pl_module, step)
            score = self._score(pl_module)
        self.evaluations.append(EvaluatedStep(step, trainer.strategy.broadcast(score)))
        if self.selection.is_over(self.evaluations):
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the weights that are kept."""
        kept = self.selection.kept(self.evaluations)
        _model(pl_module).load_state_dict(mean_of([self._file(step) for step in kept]))
        if trainer.is_global_zero:
            self.facts = self._facts(pl_module, kept)

    def state_dict(self) -> dict[str, Any]:
        return {"evaluations": [[each.step, each.score] for each in self.evaluations]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.evaluations = [EvaluatedStep(step, score) for step, score in state_dict["evaluations"]]

    def _facts(self, module: pl.LightningModule, kept: list[int]) -> dict[str, Any]:
        judge, found = self.selection.judge, {each.step: each.score for each in self.evaluations}
        score = found[kept[0]] if len(kept) == 1 else self._score(module)
        return {
            "rows": 0 if judge is None else len(judge.rows),
            "metric": None if judge is None else judge.score_name,
            "step": list(found),
            "score": list(found.values()),
            "kept": kept,
            "kept_score": score,
            "stopped": self.selection.is_over(self.evaluations),
        }

    def _score(self, module: pl.LightningModule) -> float | None:
        judge = self.selection.judge
        assert isinstance(module, TaskModule)
        return None if judge is None else judge.score(module, self.scratch)

    def _save(self, module: pl.LightningModule, step: int) -> None:
        temporary = self._file(step).with_suffix(".tmp")
        torch.save(_model(module).state_dict(), temporary)
        os.replace(temporary, self._file(step))

    def _file(self, step: int) -> Path:
        return self.scratch / WEIGHTS.format(step)


def _model(module: pl.LightningModule) -> torch.nn.Module:
    assert isinstance(module, TaskModule)
    return module.model


def mean_of(files: Sequence[Path]) -> State:
    """Return the mean of saved weights, summed in float64; of integers and masks those of the last file."""
    sums: State = {}
    for file in files:
        state: State = torch.load(file, weights_only=True, map_location="cpu")
        for name, tensor in state.items():
            if len(files) > 1 and tensor.is_floating_point():
                sums[name] = sums[name] + tensor.double() if name in sums else tensor.double()
            else:
                sums[name] = tensor
    last = state
    return {
        name: tensor if tensor.dtype == last[name].dtype else (tensor / len(files)).to(last[name].dtype)
        for name, tensor in sums.items()
    }
