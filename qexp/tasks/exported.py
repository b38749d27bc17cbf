"""Exported files of a task, and a run through engines made of them: one answer for every kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qexp.config import Task, TranslationTask
from qexp.deploy.engine import Engine
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.export_translation import DECODER, ENCODER, export_translation
from qexp.tasks.base import Run
from qexp.tasks.onnx_translation import EngineTranslator
from qexp.tasks.translation import writer

MODEL = "model.onnx"
"""The one file of a task without a decoder."""


def files(task: Task) -> tuple[str, ...]:
    """Names of the files of a task's model."""
    return (ENCODER, DECODER) if isinstance(task, TranslationTask) else (MODEL,)


def export(
    model: Any, task: Task, folder: Path, batch: Mapping[str, Tensor], *, narrow: bool = False
) -> tuple[str, ...]:
    """Write a task's files.

    Args:
        model: In floating point or in export form, on any device.
        task: What it does.
        folder: Where to; it exists.
        batch: What the family's ``collate`` gives of two rows.
        narrow: As in :func:`qexp.deploy.onnx.export.write_graph`.

    Returns:
        Their names.

    Raises:
        DeployError: The model cannot be exported.
    """
    if isinstance(task, TranslationTask):
        target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
        export_translation(model, folder, example={**batch, "decoder_input_ids": target}, narrow=narrow)
    else:
        export_onnx(model, folder / MODEL, example=batch, narrow=narrow)
    return files(task)


def exported_run(task: Task, folder: Path, load: Callable[[Path], Engine]) -> Run:
    """What ``Family.predict`` asks: padded batches to logits, or to translations and their scores.

    Args:
        task: What the files do.
        folder: Where they and, of a translation, the configuration lie.
        load: Makes an engine of a file.

    Raises:
        DeployError: A file is refused.
        ConfigError: Translations may grow longer than the model has positions.
    """
    engines = [load(folder / name) for name in files(task)]
    if isinstance(task, TranslationTask):
        return writer(EngineTranslator(folder, *engines), task.search)
    (engine,) = engines

    def forward(batch: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(engine.run({name: batch[name].cpu().numpy() for name in engine.inputs}))

    return forward
