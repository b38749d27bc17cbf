"""Fake quantization of one tensor, by this project and by others: what ``fake_quant`` times.

All cover the largest magnitude of the tensor, or of each row, with 8 bits and zero point 0. A kernel
is a function from a tensor to its fake-quantized values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qexp.quant.grid import Grid
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode

Function = Callable[[Tensor], Tensor]
Form = tuple[bool, bool]
"""Whether each row has its own range, and whether ranges are learned."""

LOW, HIGH = -127, 127


@dataclass(frozen=True)
class Kernel:
    """How to make one, and in which forms it exists."""

    make: Callable[[Tensor, bool, bool], Function]
    knows: frozenset[Form]


FROZEN: frozenset[Form] = frozenset({(False, False), (True, False)})
ALL: frozenset[Form] = FROZEN | {(False, True), (True, True)}


def own(x: Tensor, channels: bool, learned: bool) -> Function:
    """qexp's quantizer, as it stands in a model; it forgets its last input between calls."""
    grid = Grid(bits=8, signed=True, symmetric=True, narrow=True, axis=0 if channels else None)
    quantizer = Quantizer("benchmark", grid, len(x) if channels else None).to(x.device)
    high = _magnitudes(x, channels)
    quantizer.set_range(-high, high)
    quantizer.switch(QuantizerMode.LEARNED if learned else QuantizerMode.FROZEN)

    def run(x: Tensor) -> Tensor:
        quantizer.forget()
        y: Tensor = quantizer(x)
        return y

    return run


def torch_operator(x: Tensor, channels: bool, learned: bool) -> Function:
    """``torch.fake_quantize_per_tensor_affine`` and ``per_channel``, with parameters as tensors."""
    scale = (_magnitudes(x, channels) / HIGH).reshape(-1)
    zero_point = torch.zeros(len(scale), dtype=torch.int32)
    if channels:
        return lambda x: torch.fake_quantize_per_channel_affine(x, scale, zero_point, 0, LOW, HIGH)
    return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero_point, LOW, HIGH)


def torch_learnable(x: Tensor, channels: bool, learned: bool) -> Function:
    """``torch._fake_quantize_learnable_*``, the operator behind torch's learnable fake quantizer."""
    scale = nn.Parameter((_magnitudes(x, channels) / HIGH).reshape(-1))
    zero_point = nn.Parameter(torch.zeros(len(scale)))
    if channels:
        factor = (x.shape[1] * HIGH) ** -0.5
        return lambda x: torch._fake_quantize_learnable_per_channel_affine(
            x, scale, zero_point, 0, LOW, HIGH, factor
        )
    factor = (x.numel() * HIGH) ** -0.5
    return lambda x: torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero_point, LOW, HIGH, factor)


def chain(x: Tensor, channels: bool, learned: bool) -> Function:
    """The formula in plain operators; the straight-through gradient by ``detach``."""
    scale = _magnitudes(x, channels) / HIGH
    scale = nn.Parameter(scale[:, None] if channels else scale)
    scale.requires_grad_(learned)

    def run(x: Tensor) -> Tensor:
        v = (x / scale).clamp(LOW, HIGH)
        return (v + (v.round() - v).detach()) * scale

    return run


def modelopt(x: Tensor, channels: bool, learned: bool) -> Function:
    """modelopt's ``TensorQuantizer`` with a fixed range."""
    from modelopt.torch.quantization.config import QuantizerAttributeConfig
    from modelopt.torch.quantization.nn import TensorQuantizer

    attributes = QuantizerAttributeConfig(num_bits=8, axis=0 if channels else None)
    high = _magnitudes(x, channels)
    return TensorQuantizer(attributes, amax=high[:, None] if channels else high)


def brevitas(x: Tensor, channels: bool, learned: bool) -> Function:
    """Brevitas' ``QuantIdentity``: int8 per tensor, the scale a parameter from the first tensor it saw."""
    import brevitas.nn as qnn
    from brevitas.graph.calibrate import calibration_mode
    from brevitas.quant import Int8ActPerTensorFloat

    module: Any = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=False)
    with torch.no_grad(), calibration_mode(module):
        module(x)
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(learned)
    return module


def _magnitudes(x: Tensor, channels: bool) -> Tensor:
    return x.abs().amax(1) if channels else x.abs().amax()


KERNELS = {
    "qexp": Kernel(own, ALL),
    "torch operator": Kernel(torch_operator, FROZEN),
    "torch learnable": Kernel(torch_learnable, frozenset({(False, True), (True, True)})),
    "plain chain": Kernel(chain, ALL),
    "modelopt": Kernel(modelopt, FROZEN),
    "brevitas": Kernel(brevitas, frozenset({(False, False), (False, True)})),
}
