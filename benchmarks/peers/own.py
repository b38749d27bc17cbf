"""This project."""

from __future__ import annotations

from typing import Any, Literal

import torch

from benchmarks.shapes import Batch
from qexp.config import Form, MaxCalibrator, Placement, SiteKind
from qexp.quant.insertion.insert import Quantization, insert

Phase = Literal["frozen", "learned"]

LINEAR: tuple[SiteKind, ...] = ("linear.weight", "linear.input")
MATMUL: tuple[SiteKind, ...] = ("matmul.query", "matmul.key", "matmul.probs", "matmul.value")
PLACEMENTS = {
    "linear": Placement(name="linear", sites=LINEAR),
    "qdqbert": Placement(name="qdqbert", sites=(*LINEAR, *MATMUL, "residual.input")),
}
"""Site sets that all benchmarks speak of."""


def prepare(model: Any, placement: Placement, batch: Batch, phase: Phase = "frozen") -> Quantization:
    """Insert W8A8 quantizers, calibrate them on the batch by the largest values, enter the phase."""
    quantization = insert(model, Form(placement=placement))
    with torch.no_grad(), quantization.observing(batch["attention_mask"]):
        model(**batch)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    if phase == "learned":
        quantization.learn()
    else:
        quantization.freeze()
    return quantization
