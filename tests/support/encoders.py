"""Small encoders of random weights, of the architectures that transformers classifies sequences with."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

SMALL: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 8, "intermediate_size": 64, "max_position_embeddings": 160,
    "embedding_size": 32, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "cls_token_id": 2,
    "sep_token_id": 1, "initializer_range": 0.2, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64,
    "emb_dim": 32, "n_layer": 2, "n_head": 4, "d_model": 32, "d_head": 8, "d_inner": 64,
}  # fmt: skip
"""Settings of a small model; a config takes those that it knows."""
ENCODERS: dict[str, dict[str, Any]] = {
    "albert": {}, "bert": {}, "big_bird": {}, "camembert": {}, "convbert": {}, "data2vec-text": {},
    "deberta": {}, "distilbert": {}, "electra": {}, "ernie": {}, "esmc": {}, "eurobert": {},
    "flaubert": {}, "gte": {}, "jina_embeddings_v3": {}, "layoutlm": {}, "lilt": {"hidden_size": 48},
    "megatron-bert": {}, "mobilebert": {}, "modernbert": {"local_attention": 8}, "mpnet": {},
    "nomic_bert": {}, "nystromformer": {}, "rembert": {}, "roberta": {}, "roberta-prelayernorm": {},
    "roc_bert": {}, "roformer": {}, "ultrabert": {}, "xlm": {}, "xlm-roberta": {}, "xlm-roberta-xl": {},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}  # fmt: skip
"""Encoders that go through the whole line with ``placement=gemm``, with their own settings."""
NO_PRODUCTS: dict[str, dict[str, Any]] = {"yoso": {}}
"""Encoders whose attention has no matrix products to quantize; they take ``placement=linear``."""
OTHER_WEIGHTS = ("ibert", "squeezebert")
"""Encoders most of whose weights lie in other modules than linear layers."""


def config(architecture: str) -> Any:
    """The configuration of a small model."""
    known = transformers.AutoConfig.for_model(architecture)
    taken = {name: value for name, value in SMALL.items() if name in known.to_dict()}
    return type(known)(**taken | {**ENCODERS, **NO_PRODUCTS}.get(architecture, {}))


def batch() -> dict[str, Tensor]:
    """Six rows of falling length, padded, each with a token at its start and its end."""
    ids = torch.randint(5, 290, (6, 11), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 2
    mask = torch.ones_like(ids)
    for row in range(len(ids)):
        ids[row, 10 - row] = 1
        mask[row, 11 - row :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
