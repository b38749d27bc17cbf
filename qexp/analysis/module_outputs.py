"""Outputs in torch of the modules of a run's model, as the reference for its exported graph."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qexp.analysis.evaluator import EvaluationRows, evaluator_of, rows_of
from qexp.analysis.find_run import folder_of
from qexp.analysis.run_models import runtime_of
from qexp.artifacts.types import ModelArtifact
from qexp.config import Precision
from qexp.context import RunContext
from qexp.naming import StageName
from qexp.records.record import Record

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ExportedModel:
    """Model of a run, as the run exported it, on the CPU."""

    model: nn.Module
    rows: EvaluationRows
    ctx: RunContext
    precision: Precision
    """Precision of an engine for its graph: ``int8``, or ``fp32`` if nothing is quantized."""


def exported_model(record: Record, outputs: Path) -> ExportedModel:
    """Load the last quantized model of a run, or its FP32 model if it quantized nothing.

    Raises:
        StoreError: If an artifact is missing, or another version wrote the Record.
    """
    from qexp.models.inference import load_quantized

    if any(visit["stage"] == StageName.RANGES for visit in record.stages):
        bench = evaluator_of(record, outputs, stage=None, limit=None, accelerator="cpu")
        return ExportedModel(bench.quantization.model, bench.rows, bench.ctx, "int8")
    ctx = runtime_of(record, outputs, "cpu")
    model, _ = load_quantized(ModelArtifact(folder_of(record, StageName.FP32, outputs), ""), None, None, ctx)
    return ExportedModel(model, rows_of(record, outputs, "fp32"), ctx, "fp32")


def padded_batch(rows: EvaluationRows, count: int) -> dict[str, NDArray[np.int64]]:
    """Collate rows from the shortest to the longest of the evaluation split, so that most have padding.

    Returns:
        Arrays [rows, tokens] by input name.
    """
    from qexp.tasks import adapter_for

    adapter = adapter_for(rows.task)
    split = adapter.split(rows.tokens.split(rows.split))
    by_length = np.argsort(split.lengths, kind="stable")
    selected_rows = by_length[
        np.linspace(0, len(by_length) - 1, min(count, len(by_length))).round().astype(int)
    ]
    batch = adapter.collate(split, selected_rows, rows.tokens.pad_id)
    return {name: tensor.numpy() for name, tensor in batch.items()}


def module_outputs(
    subject: ExportedModel, batch: Mapping[str, Any], wanted: Container[str]
) -> dict[str, Array]:
    """Run a model and return the outputs of modules, before any output quantizer.

    Args:
        subject: Model to run.
        batch: Integers [rows, tokens] by input name.
        wanted: Names of modules.

    Returns:
        Outputs by module, for modules that run exactly once and return floats. Of a tuple it is the first
        item: for attention the context, not the probabilities.
    """
    import torch

    from qexp.models.inference import runner

    captured: dict[str, list[Array]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, torch.Tensor) and first.is_floating_point():
                captured.setdefault(name, []).append(first.detach().float().cpu().numpy().copy())

        return hook

    handles = [
        module.register_forward_hook(keep(name), prepend=True)
        for name, module in subject.model.named_modules()
        if name in wanted
    ]
    try:
        runner(subject.model, subject.ctx)({name: torch.from_numpy(values) for name, values in batch.items()})
    finally:
        for handle in handles:
            handle.remove()
    return {name: outputs[0] for name, outputs in captured.items() if len(outputs) == 1}
