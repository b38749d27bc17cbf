"""Serialization of quantizer ranges as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qexp.errors import QuantizationError
from qexp.quant.messages import listed
from qexp.quant.quantizer import Quantizer


def dump_ranges(quantizers: Mapping[str, Quantizer]) -> dict[str, Tensor]:
    """Return copies of all ranges on the CPU, see ``QuantizedModel.ranges``."""
    tensors = {}
    for name, quantizer in quantizers.items():
        tensors[f"{name}/scale"] = quantizer.current_scale().detach().cpu().clone()
        tensors[f"{name}/zero_point"] = quantizer.current_zero_point().cpu().clone()
        if quantizer.members is not None:
            tensors[f"{name}/members"] = quantizer.members.cpu().clone()
        tensors[f"{name}/levels"] = torch.tensor([quantizer.grid.qmin, quantizer.grid.qmax])
    return tensors


def load_ranges(quantizers: Mapping[str, Quantizer], tensors: Mapping[str, Tensor], model: str) -> None:
    """Load ranges that ``dump_ranges`` returned; ``model`` is the model's name in messages.

    Raises:
        QuantizationError: If names are missing or unknown, or shapes or values do not fit.
    """
    misfit = _misfit(dump_ranges(quantizers), tensors)
    if misfit:
        raise QuantizationError(
            f"ranges do not fit {model}: {misfit}; they belong to another model, placement or scheme: "
            "calibrate again"
        )
    for name, quantizer in quantizers.items():
        quantizer.set_scale(tensors[f"{name}/scale"], tensors[f"{name}/zero_point"])
        if quantizer.members is not None:
            quantizer.set_members(tensors[f"{name}/members"])


def _misfit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Describe the ranges that are missing, unknown, or have another shape or grid; empty if all fit."""
    shapes = [
        f"{key} {list(tensors[key].shape)} for {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in tensors and tensors[key].shape != tensor.shape
    ]
    levels = [key for key in expected if key.endswith("/levels") and key in tensors]
    problems = {
        "missing": [key for key in expected if key not in tensors],
        "unknown": [key for key in tensors if key not in expected],
        "of another shape": shapes,
        "on another grid": [key for key in levels if tensors[key].tolist() != expected[key].tolist()],
    }
    return "; ".join(f"{what}: {listed(keys)}" for what, keys in problems.items() if keys)
