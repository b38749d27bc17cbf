"""Tiny encoders quantized as experiments do it, exported, with what torch makes of a batch."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from qexp.artifacts import digest
from qexp.config import Experiment, MaxCalibrator, QuantizationConfig
from qexp.deploy.onnx.export import export_onnx
from qexp.quant.insertion.insert import insert
from tests.conftest import experiment
from tests.support.tiny_encoders import EXAMPLE, batch, encoder, torch_logits

SHAPE = (6, 11)
"""Rows and tokens of the batch that is compared."""


KEPT = "QEXP_TEST_GRAPHS"
"""A folder for graphs, kept from one run of tests to the next: an emulator takes a minute to export one."""


class Exported(NamedTuple):
    """A graph, a batch for it, and torch's fake-quantized logits."""

    path: Path
    batch: dict[str, np.ndarray]
    expected: np.ndarray


def export(folder: Path, *words: str, architecture: str = "bert") -> Exported:
    """Quantize with the words of a command line, such as ``placement=gemm``; without any, not at all."""
    kept = os.environ.get(KEPT)
    if not kept:
        return _export(folder, *words, architecture=architecture)
    place = Path(kept) / digest([*words, architecture])
    if not place.exists():
        work = Path(tempfile.mkdtemp(dir=kept))
        made = _export(work, *words, architecture=architecture)
        np.savez(work / "answer.npz", expected=made.expected, **made.batch)
        with suppress(OSError):  # another process was faster
            work.rename(place)
    with np.load(place / "answer.npz") as stored:
        arrays = dict(stored)
    expected = arrays.pop("expected")
    return Exported(place / "model.onnx", arrays, expected)


def _export(folder: Path, *words: str, architecture: str) -> Exported:
    model, path = encoder(architecture), folder / "model.onnx"
    if not words:
        export_onnx(model, path, example=EXAMPLE)
        return _answered(model, path)
    made: Experiment = experiment("task=mrpc", *words)
    quant_config = QuantizationConfig(placement=made.placement, quant=made.quant, scheme=made.scheme)
    quantization = insert(model, quant_config)
    values = {name: torch.from_numpy(value) for name, value in batch(tuple(EXAMPLE), 8, 20).items()}
    grouped = made.scheme.activation.granularity == "per_embedding_group"
    with quantization.observing(values["attention_mask"], dimensions=grouped), torch.no_grad():
        model(**{name: value for name, value in values.items() if name in _taken(model)})
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    with quantization.export_mode():
        export_onnx(model, path, example=EXAMPLE)
        return _answered(model, path)


def _taken(model: torch.nn.Module) -> tuple[str, ...]:
    distilled = "distilbert" in type(model).__name__.lower()
    return tuple(EXAMPLE)[:2] if distilled else tuple(EXAMPLE)


def _answered(model: torch.nn.Module, path: Path) -> Exported:
    feed = batch(_taken(model), *SHAPE)
    return Exported(path, feed, torch_logits(model, feed))
