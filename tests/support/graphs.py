"""Tiny encoders quantized as experiments do it, exported, with what torch makes of a batch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

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
"""A folder for graphs: of one run of tests, whose processes share it, unless it is set before.

Then it is kept from one run to the next: an emulator takes a minute to export one.
"""


class Exported(NamedTuple):
    """A graph, a batch for it, and torch's fake-quantized logits."""

    path: Path
    batch: dict[str, np.ndarray]
    expected: np.ndarray


def export(folder: Path, *words: str, architecture: str = "bert") -> Exported:
    """Quantize with the words of a command line, such as ``placement=gemm``; without any, not at all."""

    def write(path: Path) -> dict[str, np.ndarray]:
        made = export_anew(path.parent, *words, architecture=architecture)
        return {"expected": made.expected, **made.batch}

    kept, arrays = written_once([*words, architecture], write)
    path = folder / "model.onnx"
    shutil.copyfile(kept, path)
    return Exported(path, arrays, arrays.pop("expected"))


def written_once(
    key: Any, write: Callable[[Path], dict[str, np.ndarray]]
) -> tuple[Path, dict[str, np.ndarray]]:
    """Return the file that ``write`` writes and the arrays that it returns, made once in a run of tests.

    The file is shared: it is read, and never changed. The key tells apart all that ``write`` may write.
    """
    place = Path(os.environ[KEPT]) / digest(key)
    if not place.exists():
        work = Path(tempfile.mkdtemp(dir=place.parent))
        np.savez(work / "arrays.npz", **write(work / "model.onnx"))
        with suppress(OSError):  # another process was faster
            work.rename(place)
    with np.load(place / "arrays.npz") as stored:
        return place / "model.onnx", dict(stored)


def export_anew(folder: Path, *words: str, architecture: str = "bert") -> Exported:
    """As :func:`export`, also where the same graph was exported before."""
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
