"""Brevitas: ``layerwise_quantize`` to ``QuantLinear``, calibrated in its ``calibration_mode``.

Symmetric int8: activations per tensor with a scale that is a parameter, from a percentile of the
calibration batch; weights per channel, whose scale is computed from the weight in every forward pass.
Linear layers only. ``frozen`` takes the activations' scales out of the training, ``learned`` is its
default.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from benchmarks.shapes import Batch

SITES = {"linear": "linear layers; scales of weights recomputed from the weights in every pass"}


def prepare(model: Any, sites: str, batch: Batch, mode: Literal["frozen", "learned"] = "frozen") -> Any:
    """Swap all linear layers and calibrate on the batch."""
    import brevitas.nn as qnn
    from brevitas.graph.calibrate import calibration_mode
    from brevitas.graph.quantize import layerwise_quantize
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat

    arguments = {
        "input_quant": Int8ActPerTensorFloat, "weight_quant": Int8WeightPerChannelFloat,
        "return_quant_tensor": False,
    }  # fmt: skip
    before = dict(model.named_parameters())
    model = layerwise_quantize(model, {nn.Linear: (qnn.QuantLinear, arguments)})
    with torch.no_grad(), calibration_mode(model):
        model(**batch)
    model.eval()
    for name, parameter in model.named_parameters():
        if name in before:
            parameter.data = before[name].data  # it copies; variants of a family share their weights
        elif mode == "frozen":
            parameter.requires_grad_(False)
    return model
