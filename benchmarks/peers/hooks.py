"""QAT as one writes it in an afternoon: torch's fake-quantize operators in hooks and parametrizations.

Per-tensor uint8 activations with a zero point and per-channel int8 weights, ranges from the largest
values of one batch: the grids of this project. Every input of every module is quantized where it
enters, so the one input of query, key and value is quantized three times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from benchmarks.shapes import Batch

IMPLEMENTATION = "benchmark_hooks"


class Activation(nn.Module):
    """Range of a value: watches until ``freeze``, then fake-quantizes."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.frozen = 0.0, 0.0, False
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))

    def freeze(self) -> None:
        """Take the range seen so far."""
        step = max(self.high - self.low, 1e-8) / 255
        self.scale.fill_(step)
        self.zero_point.fill_(round(-self.low / step))
        self.frozen = True

    def forward(self, x: Tensor) -> Tensor:
        """``x``, fake-quantized once frozen."""
        if not self.frozen:
            low, high = torch.aminmax(x.detach())
            self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
            return x
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, 255)


class Weight(nn.Module):
    """Parametrization of a weight: one range for each output channel, as it was at the start."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", weight.detach().abs().amax(1).clamp(min=1e-8) / 127)
        self.register_buffer("zero_point", torch.zeros(len(weight), dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, fake-quantized."""
        return torch.fake_quantize_per_channel_affine(weight, self.scale, self.zero_point, 0, -127, 127)


def prepare(model: Any, sites: str, batch: Batch) -> Any:
    """Hook quantizers on all sites, let them watch one batch in FP32, freeze them."""
    activations: list[Activation] = []

    def new() -> Activation:
        activations.append(Activation())
        return activations[-1]

    attach(model, sites, new)
    with torch.no_grad():
        model(**batch)
    for activation in activations:
        activation.freeze()
    for module in [module for module in model.modules() if isinstance(module, nn.Linear)]:
        parametrize.register_parametrization(module, "weight", Weight(module.weight))
    model.add_module("quantizers", nn.ModuleList(activations))
    return model


def attach(model: Any, sites: str, new: Callable[[], nn.Module]) -> None:
    """Let a module from ``new`` see each activation of the site set, and pass on what it returns."""
    for module in [module for module in model.modules() if isinstance(module, nn.Linear)]:
        module.register_forward_pre_hook(_on_first(new()))
    if sites == "qdqbert":
        _open_attention(model, new)
        _hook_residuals(model, new)


def _on_first(quantizer: nn.Module) -> Callable[..., Any]:
    return lambda module, inputs: (quantizer(inputs[0]), *inputs[1:])


def _on_second(quantizer: nn.Module) -> Callable[..., Any]:
    return lambda module, inputs: (inputs[0], quantizer(inputs[1]), *inputs[2:])


def _on_output(quantizer: nn.Module) -> Callable[..., Any]:
    return lambda module, inputs, output: quantizer(output)


def _hook_residuals(model: Any, new: Callable[[], nn.Module]) -> None:
    """Both operands of each residual add of a BERT."""
    for module in model.modules():
        if type(module).__name__ in ("BertSelfOutput", "BertOutput"):
            module.register_forward_pre_hook(_on_second(new()))
            module.dropout.register_forward_hook(_on_output(new()))


def _open_attention(model: Any, new: Callable[[], nn.Module]) -> None:
    """An attention function that quantizes its four matmul inputs."""
    AttentionInterface.register(IMPLEMENTATION, _attend)
    AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
    for module in model.modules():
        if type(module).__name__ == "BertSelfAttention":
            module.quantizers = nn.ModuleList(new() for _ in range(4))
    model.set_attn_implementation(IMPLEMENTATION)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float = 1.0, dropout: float = 0.0, **kwargs: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    of_query, of_key, of_probabilities, of_value = module.quantizers
    scores = of_query(query) @ of_key(key).transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = nn.functional.dropout(scores.softmax(-1), p=dropout, training=module.training)
    probabilities = of_probabilities(probabilities)
    return (probabilities @ of_value(value)).transpose(1, 2).contiguous(), probabilities
