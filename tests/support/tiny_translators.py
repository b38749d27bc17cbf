"""Quantize a tiny translator as an experiment does."""

from __future__ import annotations

from typing import Any

import torch

from qexp.config import MaxCalibrator, Placement, QuantizationConfig
from qexp.quant.insertion.insert import insert
from tests.support.sequence_models import batch

SITES = (
    "linear.weight", "linear.input", "embedding.weight", "matmul.query", "matmul.key", "matmul.probs",
    "matmul.value",
)  # fmt: skip


def quantize(model: Any) -> Any:
    values = batch()
    quantization = insert(model, QuantizationConfig(placement=Placement(name="all", sites=SITES)))
    masks = values["attention_mask"], values["decoder_attention_mask"]
    with quantization.observing(*masks), torch.no_grad():
        model(**values)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.freeze()
    return quantization
