"""Small checkpoints of encoders beside those that the fixtures know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import save_tokenizer

RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
TOKENS = {"eos_token_id": 1, "bos_token_id": 1, "cls_token_id": 2, "sep_token_id": 3}
ENCODERS: dict[str, dict[str, Any]] = {
    "DebertaV2": {**RELATIVE, "position_buckets": 8, "max_relative_positions": 16, "type_vocab_size": 0},
    "Deberta": RELATIVE,
    "MPNet": {},
    "RoFormer": {},
    "XLMRoberta": {"type_vocab_size": 1},
    "Camembert": {},
    "Albert": {"embedding_size": 16},
    "NomicBert": {},
    "ModernBert": {"local_attention": 8, **TOKENS},
}
"""Settings of a small encoder besides the common ones."""


def checkpoint(folder: Path, name: str) -> Path:
    """A base model of random weights, without a head, and a tokenizer."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=save_tokenizer(folder), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=160, pad_token_id=0, initializer_range=0.2,
        **ENCODERS[name],
    )  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder
