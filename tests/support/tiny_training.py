"""A small training that can be sent to another process, and that goes wrong where it is told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from qexp.config import (
    Distillation,
    Machine,
    MaxCalibrator,
    Numerics,
    Placement,
    QuantizationConfig,
    TrainingSetup,
)
from qexp.context import RunContext
from qexp.data.microbatches import BatchSplit, MicroBatches
from qexp.models.distillation import Teacher, open_attention
from qexp.quant.insertion.insert import QuantizedModel, insert
from qexp.tasks.classification import Classifier, TextAdapter
from qexp.tasks.module import Optimization
from qexp.training.distributed import train
from qexp.training.selection import Selection
from tests.conftest import experiment, tiny_config

PLACEMENT = Placement(
    name="qdqbert",
    sites=(
        "linear.weight", "linear.input", "matmul.query", "matmul.key", "matmul.probs", "matmul.value",
        "residual.input",
    ),
)  # fmt: skip
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def batch_of(rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Rows of 4 to 7 tokens, padded to the longest; their labels follow from the rows."""
    lengths = 4 + rows % 4
    places = np.arange(lengths.max())
    mask = places < lengths[:, None]
    ids = np.where(mask, (rows[:, None] * 7 + places * (1 + rows[:, None] % 3)) % 50 + 5, 0)
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        "token_type_ids": torch.zeros(ids.shape, dtype=torch.int64),
        "labels": torch.from_numpy(rows % 2),
    }


def batches(count: int, rows: int = 8, last: int | None = None) -> list[np.ndarray]:
    """So many batches, the last of which may be shorter."""
    generator = np.random.default_rng(0)
    sizes = [rows] * (count - 1) + [last or rows]
    return [generator.integers(0, 100, size) for size in sizes]


def trouble_at(taken: int, what: str) -> None:
    """What may befall a process in the middle of a training."""
    if what == "raise":
        raise RuntimeError(f"no luck with part {taken}")
    if what == "disk":
        raise OSError(28, os.strerror(28))
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "interrupt the parent":
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.5)  # until it has asked all workers to stop
    if what == "hang":
        time.sleep(600)


class Witness(Classifier):
    """Leaves, in every process, what it ended with."""

    folder: Path

    def on_train_end(self) -> None:
        torch.save(self.model.state_dict(), self.folder / f"rank-{self.global_rank}.pt")


@dataclass(frozen=True)
class TinyJudge:
    """The loss of a module on rows of its own; lower is better."""

    count: int = 40
    score_name: str = "loss"
    higher_is_better: bool = False

    @property
    def rows(self) -> np.ndarray:
        return np.arange(100, 100 + self.count)

    def score(self, module: Any, scratch: Path) -> float | None:
        batch = batch_of(self.rows)
        module.eval()
        with torch.no_grad():
            loss = float(module.loss(module(batch).float(), batch))
        module.train()
        return loss


PHASES: dict[str, Callable[[QuantizedModel], None]] = {
    "frozen": QuantizedModel.freeze,
    "learned": QuantizedModel.learn,
    "shifted": lambda quantization: quantization.learn(zero_points=True),
    "following": lambda quantization: quantization.use_ema(0.9),
}
"""Ways of training with ranges."""


@dataclass(frozen=True)
class Tiny:
    """A training plan over a two-layer encoder with random weights."""

    folder: Path
    training_setup: TrainingSetup
    steps_: tuple[np.ndarray, ...]
    mode: str = "float"
    rate: float = 1e-3
    dropout: bool = False
    layers: int = 2
    trouble: tuple[str, int, int] = ("none", 0, 0)
    """What happens, in which process, before which of its parts."""
    nan: bool = False
    distillation: Distillation | None = None
    """What is learned from a teacher of the same form with other weights."""

    selection_: Selection | None = None
    """How weights are chosen."""

    title: str = "tiny"

    def selection(self, steps: MicroBatches) -> Selection | None:
        return self.selection_

    def steps(self, parts: BatchSplit) -> MicroBatches:
        steps = MicroBatches(self.steps_, batch_of, parts)
        what, rank, at = self.trouble

        def collate(rows: np.ndarray) -> dict[str, torch.Tensor]:
            if rank == parts.rank and steps.taken > at:
                trouble_at(steps.taken, what)
            return batch_of(rows)

        steps.collate = collate
        return steps

    def module(self, steps: int, parts: BatchSplit) -> Witness:
        (self.folder / f"pid-{parts.rank}").write_text(str(os.getpid()))
        model = self._model(0)
        if self.distillation:
            open_attention(model, self.distillation)
        quantization = quantized(model, self.mode, parts.count) if self.mode != "float" else None
        if self.nan:
            with torch.no_grad():
                model.classifier.bias.fill_(torch.nan)
        optimization = Optimization(
            self.rate, weight_decay=0.01, warmup=0.1, steps=steps, seed=3, range_learning_rate=1e-2
        )
        module = Witness(model, optimization, quantization, self._teacher())
        module.folder = self.folder
        return module

    def _model(self, seed: int) -> Any:
        torch.manual_seed(seed)
        dropout = {} if self.dropout else NO_DROPOUT
        config = tiny_config("bert", 64, num_labels=2, **dropout)
        config.num_hidden_layers = self.layers
        return AutoModelForSequenceClassification.from_config(config)

    def _teacher(self) -> Teacher | None:
        if self.distillation is None:
            return None
        family = TextAdapter(experiment("task=mrpc").task)  # type: ignore[arg-type]
        return Teacher(self._model(1), self.distillation, family.distance, family.loss_counts_per_row)

    def save(self, module: Classifier, folder: Path) -> dict[str, Any]:
        torch.save(module.model.state_dict(), folder / "result.pt")
        return {"saved": True}


def quantized(model: torch.nn.Module, mode: str, parts: int = 1) -> Any:
    """Quantizers at every site, calibrated on one batch, in one of ``PHASES``."""
    quantization = insert(model, QuantizationConfig(placement=PLACEMENT))
    batch = batch_of(np.arange(16))
    labels = batch.pop("labels")
    assert len(labels) == 16
    with torch.no_grad(), quantization.observing(batch["attention_mask"]):
        model.eval()(**batch)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.split(parts)
    PHASES[mode](quantization)
    return quantization


def plan(folder: Path, *, count: int = 6, last: int | None = None, **fields: Any) -> Tiny:
    """A plan of so many steps; ``devices``, ``accumulate``, ``precision``, ``compile`` are its numerics."""
    numerics = Numerics(**{name: fields.pop(name) for name in list(fields) if name in Numerics.model_fields})
    training_setup = TrainingSetup(train_rows=None, train_steps=None, seed=3, numerics=numerics)
    folder.mkdir(parents=True, exist_ok=True)
    return Tiny(folder, training_setup, tuple(batches(count, last=last)), **fields)


def runtime(folder: Path, seconds: float = 1e9, threads: int = 1) -> RunContext:
    """A runtime without a progress bar."""
    return RunContext.at(folder, Machine(checkpoint_seconds=seconds, progress=False, threads=threads))


def trained(tiny: Tiny, seconds: float = 1e9) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Facts and final state of a training; checkpoints lie in its folder."""
    facts = train(tiny, tiny.folder, tiny.folder, runtime(tiny.folder, seconds))
    return facts, torch.load(tiny.folder / "result.pt")


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Over all floating tensors of two states."""
    assert one.keys() == other.keys()
    pairs = [(one[name], other[name]) for name in one if one[name].is_floating_point()]
    return max(float((a - b).abs().max()) for a, b in pairs)
