"""What the modules of a run's model put out in torch, for an exported graph to be held against."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qexp.analysis.evaluator import Rows, bench_of, rows_of, runtime_of
from qexp.analysis.find_run import folder_of
from qexp.artifacts.types import Encoder
from qexp.config import Precision
from qexp.context import Runtime
from qexp.records.record import Record

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ExportedModel:
    """A model of the store as its run exported it, on the CPU."""

    model: nn.Module
    rows: Rows
    rt: Runtime
    precision: Precision
    """Of an engine of its graph: ``int8``, or ``fp32`` where nothing is quantized."""


def exported_model(record: Record, outputs: Path) -> ExportedModel:
    """The last model of a run, quantized if it is.

    Raises:
        StoreError: an artifact is gone, or the Record is of another version.
    """
    from qexp.models.inference import load_quantized

    if any(visit["stage"] == "4-ranges" for visit in record.stages):
        bench = bench_of(record, outputs, None, None, "cpu")
        return ExportedModel(bench.quantization.model, bench.rows, bench.rt, "int8")
    rt = runtime_of(record, outputs, "cpu")
    model, _ = load_quantized(Encoder(folder_of(record, "2-fp32", outputs), ""), None, None, rt)
    return ExportedModel(model, rows_of(record, outputs), rt, "fp32")


def padded_batch(rows: Rows, count: int) -> dict[str, NDArray[np.int64]]:
    """Rows from the shortest to the longest of the evaluation split, so that most are padded.

    Returns:
        Arrays [rows, tokens] by the name of an input.
    """
    from qexp.tasks import family_of

    family = family_of(rows.task)
    split = family.split(rows.tokens.split(rows.split))
    by_length = np.argsort(split.lengths, kind="stable")
    chosen = by_length[np.linspace(0, len(by_length) - 1, min(count, len(by_length))).round().astype(int)]
    batch = family.collate(split, chosen, rows.tokens.pad_id)
    return {name: tensor.numpy() for name, tensor in batch.items()}


def module_outputs(
    subject: ExportedModel, batch: Mapping[str, Any], wanted: Container[str]
) -> dict[str, Array]:
    """Outputs of modules, before any quantizer behind them; of those that run once and put out floats.

    Args:
        subject: The model.
        batch: Integers [rows, tokens] by the name of an input.
        wanted: Names of modules.

    Returns:
        By module, its output, of several the first: a module that attends gives the context, not the
        probabilities.
    """
    import torch

    from qexp.models.inference import runner

    found: dict[str, list[Array]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, torch.Tensor) and first.is_floating_point():
                found.setdefault(name, []).append(first.detach().float().cpu().numpy().copy())

        return hook

    handles = [
        module.register_forward_hook(keep(name), prepend=True)
        for name, module in subject.model.named_modules()
        if name in wanted
    ]
    try:
        runner(subject.model, subject.rt)({name: torch.from_numpy(values) for name, values in batch.items()})
    finally:
        for handle in handles:
            handle.remove()
    return {name: outputs[0] for name, outputs in found.items() if len(outputs) == 1}
