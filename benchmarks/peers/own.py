"""This project."""

from __future__ import annotations

from typing import Any, Literal

import torch

from benchmarks.shapes import Batch
from qexp.config import MaxCalibrator, Placement, QuantizationConfig, SiteKind
from qexp.quant.insertion.insert import QuantizedModel, insert

Phase = Literal["frozen", "learned"]

LINEAR: tuple[SiteKind, ...] = ("linear.weight", "linear.input")
MATMUL: tuple[SiteKind, ...] = ("matmul.query", "matmul.key", "matmul.probs", "matmul.value")
PLACEMENTS = {
    "linear": Placement(name="linear", sites=LINEAR),
    "qdqbert": Placement(name="qdqbert", sites=(*LINEAR, *MATMUL, "residual.input")),
}
"""Site sets that all benchmarks speak of."""


def prepare(model: Any, placement: Placement, batch: Batch, mode: Phase = "frozen") -> QuantizedModel:
    """Insert W8A8 quantizers, calibrate them on the batch by the largest values, enter the phase."""
    quantization = insert(model, QuantizationConfig(placement=placement))
    with torch.no_grad(), quantization.observing(batch["attention_mask"]):
        model(**batch)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    if mode == "learned":
        quantization.learn()
    else:
        quantization.freeze()
    return quantization
