"""Export of a task's model to ONNX files, and evaluation through engines built from them."""

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
from qexp.models.loading import model_inputs
from qexp.tasks.base import ForwardFn
from qexp.tasks.engine_search import load_translator
from qexp.tasks.translation import writer

MODEL = "model.onnx"
"""Name of the only file of a task without a decoder."""


def files(task: Task) -> tuple[str, ...]:
    """Return the names of the files that :func:`export` writes for a task."""
    return (ENCODER, DECODER) if isinstance(task, TranslationTask) else (MODEL,)


def export(
    model: Any, task: Task, folder: Path, batch: Mapping[str, Tensor], *, cache_bits: int = 32
) -> tuple[str, ...]:
    """Export a model to the ONNX files of its task.

    Args:
        model: Model in floating point or in export form, on any device.
        task: Task of the model.
        folder: Existing folder to write to.
        batch: Two rows, collated by the task adapter.
        cache_bits: As in :func:`qexp.deploy.onnx.export_translation.export_translation`.

    Returns:
        The names of the files.

    Raises:
        DeployError: If the model cannot be exported.
    """
    if isinstance(task, TranslationTask):
        target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
        export_translation(
            model, folder, example={**batch, "decoder_input_ids": target}, cache_bits=cache_bits
        )
    else:
        inputs = {name: batch[name] for name in model_inputs(model) if name in batch}
        export_onnx(model, folder / MODEL, example=inputs)
    return files(task)


def exported_run(task: Task, folder: Path, load: Callable[[Path], Engine]) -> ForwardFn:
    """Return the forward function for ``TaskAdapter.predict`` that runs exported files in engines.

    It maps padded batches to logits, or to translations and their scores.

    Args:
        task: Task of the files.
        folder: Folder of the files and, for a translation, of the model's configuration.
        load: Function that builds an engine from a file.

    Raises:
        DeployError: If the runtime refuses a file.
        ConfigError: If translations may grow longer than the model has positions.
    """
    if isinstance(task, TranslationTask):
        return writer(load_translator(folder, load), task.search)
    engine = load(folder / MODEL)

    def forward(batch: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(engine.run({name: batch[name].cpu().numpy() for name in engine.inputs}))

    return forward
