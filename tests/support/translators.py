"""A small translator, its rows, and what trainings of it need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qexp.artifacts import BuildDir
from qexp.artifacts.types import Tokens
from qexp.config import Finetune, Machine, Numerics, TrainingSetup, TranslationTask
from qexp.context import RunContext
from qexp.data.checkpoints import ScratchModel, locate
from qexp.data.sources.resolve import resolve
from qexp.pipeline.stages import tokenize
from qexp.training.plans import FinetunePlan
from tests.conftest import experiment

SIZES = (
    "model.scratch.vocabulary=400", "model.scratch.layers=1", "model.scratch.width=32",
    "model.scratch.heads=2", "model.scratch.inner=64", "model.scratch.dropout=0.1",
)  # fmt: skip
WORDS = ("task=translation", "model=transformer_tiny", "data=sample", *SIZES)


def runtime(folder: Path, **machine: Any) -> RunContext:
    return RunContext.at(folder, Machine(progress=False, threads=1, **machine))


def prepared(folder: Path, *words: str) -> Tokens:
    """The tokens of the sample, as the stage leaves them."""
    asked = experiment(*WORDS, *words)
    folder.mkdir()
    start = locate(asked.model)
    rows = resolve(asked.data, asked.task)
    tokenize.run(BuildDir(folder), runtime(folder), rows=rows, checkpoint=start, task=asked.task)
    return Tokens(folder, "")


def plan(
    tokens: Tokens,
    *,
    steps: int = 5,
    dropout: float = 0.1,
    batch_tokens: int | None = None,
    **numerics: Any,
) -> FinetunePlan:
    """A training of so many steps of 16 pairs, or of so many tokens."""
    asked = experiment(*WORDS, f"model.scratch.dropout={dropout}")
    task, start = asked.task, locate(asked.model)
    assert isinstance(task, TranslationTask) and isinstance(start, ScratchModel)
    assert isinstance(asked.finetune, Finetune)
    size = {"batch_size": 16, "batch_tokens": batch_tokens}
    plan = asked.finetune.model_copy(update={**size, "learning_rate": 1e-3})
    training_setup = TrainingSetup(train_rows=None, train_steps=steps, seed=3, numerics=Numerics(**numerics))
    return FinetunePlan(tokens, start, task, plan, training_setup)
