"""Tiny encoders with quantizers inserted by hand, and batches for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
)

from qexp.custom_ops import dequantize, fake_quantize

VOCABULARY = 50
SIZES = {"vocab_size": VOCABULARY, "pad_token_id": 1, "initializer_range": 0.3, "num_labels": 3}
BERT_SIZES = SIZES | {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
CONFIGS: dict[str, Any] = {
    "bert": BertConfig(**BERT_SIZES),
    "roberta": RobertaConfig(**BERT_SIZES, bos_token_id=2, eos_token_id=3),
    "electra": ElectraConfig(**BERT_SIZES, embedding_size=16),
    # Three layers of one set of weights.
    "albert": AlbertConfig(**BERT_SIZES | {"num_hidden_layers": 3}, embedding_size=16),
    "distilbert": DistilBertConfig(**SIZES, dim=32, n_layers=1, n_heads=2, hidden_dim=64),
}


class QuantizedLinear(nn.Module):
    """A Linear with a stored integer weight, one scale per output, and a quantized input."""

    def __init__(self, linear: nn.Linear, weight_bits: int, activation_bits: int, signed: bool) -> None:
        super().__init__()
        high, half = 2 ** (weight_bits - 1) - 1, 2 ** (activation_bits - 1)
        scale = linear.weight.detach().abs().amax(1) / high
        integers = (linear.weight.detach() / scale[:, None]).round().clamp(-high, high)
        self.bias = linear.bias
        self.register_buffer("integers", integers.to(torch.int8 if weight_bits <= 8 else torch.int16))
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int32))
        self.register_buffer("input_scale", torch.tensor(4 / (half - 1)))
        self.register_buffer("input_zero_point", torch.tensor(0 if signed else half, dtype=torch.int32))
        self.limits = (-half, half - 1) if signed else (0, 2 * half - 1)

    def forward(self, x: Tensor) -> Tensor:
        x = fake_quantize(x, self.input_scale, self.input_zero_point, -1, *self.limits)
        return nn.functional.linear(x, dequantize(self.integers, self.scale, self.zero_point, 0), self.bias)


def encoder(architecture: str, attention: str = "sdpa") -> nn.Module:
    torch.manual_seed(0)
    config = CONFIGS[architecture]
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).eval()


def quantized(
    model: nn.Module, weight_bits: int = 8, activation_bits: int = 8, signed: bool = True
) -> nn.Module:
    for name, child in list(model.named_children()):
        if isinstance(child, nn.Linear):
            setattr(model, name, QuantizedLinear(child, weight_bits, activation_bits, signed))
        else:
            quantized(child, weight_bits, activation_bits, signed)
    return model


def batch(names: tuple[str, ...], rows: int, length: int) -> dict[str, np.ndarray]:
    """Random rows of falling length, padded on the right."""
    generator = np.random.default_rng(rows * 100 + length)
    ids = generator.integers(4, VOCABULARY, (rows, length))
    mask = (np.arange(length) < np.maximum(1, length - np.arange(rows))[:, None]).astype(np.int64)
    values = {"input_ids": np.where(mask, ids, 1), "attention_mask": mask, "token_type_ids": 0 * mask}
    return {name: values[name] for name in names}


def torch_logits(model: nn.Module, values: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return model(**{name: torch.from_numpy(value) for name, value in values.items()}).logits.numpy()


EXAMPLE = {
    name: torch.ones(1, 4, dtype=torch.int32) for name in ("input_ids", "attention_mask", "token_type_ids")
}
"""Deliberately of one row: sizes of the example must not matter."""
