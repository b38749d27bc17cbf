"""Tiny models with SmoothQuant applied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qexp.config import (
    MaxCalibrator,
    Placement,
    QuantizationConfig,
)
from qexp.quant.algorithms.moments import InputMoments, InputMomentsCounter, MomentsFile
from qexp.quant.algorithms.smoothquant import apply_smoothquant
from qexp.quant.insertion.insert import QuantizedModel, insert
from tests.support.tiny_models import batch

LINEAR = Placement(name="linear", sites=("linear.weight", "linear.input"))


def moments_of(model: nn.Module, folder: Path, tensors: Mapping[str, Tensor]) -> Mapping[str, InputMoments]:
    """Moments over one batch."""
    counter = InputMomentsCounter(model, gram=False)
    with (
        torch.no_grad(),
        counter.observing(tensors["attention_mask"], tensors.get("decoder_attention_mask")),
    ):
        model(**tensors)
    counter.save(folder / "moments.safetensors")
    return MomentsFile(folder / "moments.safetensors")


def smoothed(
    model: Any,
    folder: Path,
    alpha: float = 0.5,
    quant_config: QuantizationConfig | None = None,
    **tensors: Tensor,
) -> QuantizedModel:
    """Insert, migrate, observe a batch, calibrate; frozen."""
    tensors = tensors or batch()
    moments = moments_of(model, folder, tensors)
    quantization = insert(model, quant_config or QuantizationConfig(placement=LINEAR))
    apply_smoothquant(quantization, moments, alpha)
    with torch.no_grad(), quantization.observing(
        tensors["attention_mask"], tensors.get("decoder_attention_mask")
    ):  # fmt: skip
        model(**tensors)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.freeze()
    return quantization
