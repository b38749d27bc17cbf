"""torchao: ``quantize_`` with ``QATConfig``, int8 activations and int8 weights.

Its grids are not ours: asymmetric activations with a range for each token, computed anew in every
forward pass (it has no calibrated per-tensor activations in QAT), and symmetric per-channel weights,
whose ranges are computed anew as well. Linear layers only.
"""

from __future__ import annotations

from typing import Any

from benchmarks.shapes import Batch

SITES = {"linear": "linear layers; activations on dynamic per-token grids"}


def prepare(model: Any, sites: str, batch: Batch) -> Any:
    """Swap all linear layers; there is nothing to calibrate."""
    import torch
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    activation = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    weight = IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)
    quantize_(model, QATConfig(activation_config=activation, weight_config=weight, step="prepare"))
    return model
