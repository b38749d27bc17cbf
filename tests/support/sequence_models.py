"""Tiny encoder-decoder models with random weights, and a batch that is padded on both sides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

SHAPE: dict[str, Any] = {
    "vocab_size": 50, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}  # fmt: skip
MODELS = {
    "marian": lambda: (MarianMTModel, MarianConfig(**SHAPE, activation_function="relu")),
    "bart": lambda: (BartForConditionalGeneration, BartConfig(**SHAPE)),
    "t5": lambda: (
        T5ForConditionalGeneration,
        T5Config(
            vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0,
            eos_token_id=2, decoder_start_token_id=0, relative_attention_num_buckets=8,
        ),
    ),
}  # fmt: skip


def build(architecture: str, *, attention: str = "eager", seed: int = 0) -> Any:
    """A model in evaluation mode."""
    model_class, config = MODELS[architecture]()
    torch.manual_seed(seed)
    model = model_class._from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and architecture != "t5":  # Marian's sinusoids are not saved
                parameter.mul_(4)
    return model.eval()


def batch(source: int = 7, target: int = 7) -> dict[str, Tensor]:
    """Three rows, the second with padding on both sides, the third with padding in the target."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 50, (3, source), generator=generator)
    decoder = torch.randint(3, 50, (3, target), generator=generator)
    mask, decoder_mask = torch.ones_like(ids), torch.ones_like(decoder)
    mask[1, 4:], decoder_mask[1, 3:], decoder_mask[2, 5:] = 0, 0, 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": decoder,
        "decoder_attention_mask": decoder_mask,
    }
