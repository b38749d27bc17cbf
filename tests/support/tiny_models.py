"""Tiny models with random weights, one for each architecture, and a padded batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    MobileBertConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from qexp.config import MaxCalibrator, Placement, Quant, QuantizationConfig, Scheme
from qexp.quant.insertion.insert import QuantizedModel, insert

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "num_labels": 3,
}
CONFIGS = {
    "bert": lambda: BertConfig(**SHAPE),
    "roberta": lambda: RobertaConfig(**SHAPE),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=32, num_labels=3
    ),
    "electra": lambda: ElectraConfig(**SHAPE, embedding_size=32),
    "electra-projected": lambda: ElectraConfig(**SHAPE, embedding_size=16),
    "mobilebert": lambda: MobileBertConfig(
        vocab_size=50,
        hidden_size=32,
        embedding_size=16,
        intra_bottleneck_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        num_feedforward_networks=2,
        max_position_embeddings=32,
        num_labels=3,
    ),
}
TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1}
FOUND = {
    "albert": lambda: AlbertConfig(**SHAPE, embedding_size=16),
    "deberta-v3": lambda: DebertaV2Config(
        **SHAPE, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8, type_vocab_size=0,
        share_att_key=True, norm_rel_ebd="layer_norm",
    ),
    "modernbert": lambda: ModernBertConfig(**SHAPE, **TOKENS, local_attention=8),
    "mpnet": lambda: MPNetConfig(**SHAPE, pad_token_id=0),
}  # fmt: skip
"""Architectures of which no table names the residual adds, and some of which compute attention themselves."""
QDQBERT = Placement(
    name="qdqbert",
    sites=(
        "linear.weight", "linear.input", "matmul.query", "matmul.key", "matmul.probs", "matmul.value",
        "residual.input",
    ),
)  # fmt: skip
GEMM = Placement(
    name="gemm",
    sites=("linear.weight", "linear.input", "matmul.query", "matmul.key", "matmul.probs", "matmul.value"),
)
NEURST = Placement(
    name="neurst",
    sites=(
        "linear.weight", "embedding.weight", "matmul.query", "matmul.key", "matmul.probs", "matmul.value",
        "attention.context", "attention.output", "activation.output",
    ),
    typed=True,
    fuse_qkv=True,
    softmax_max="below_one",
)  # fmt: skip

PRENORM = NEURST.model_copy(
    update={"name": "neurst_prenorm", "sites": (*NEURST.sites, "layernorm.output"), "fuse_qkv": False}
)


def build(architecture: str, *, attention: str = "eager", seed: int = 0) -> Any:
    """A model in evaluation mode."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(
        {**CONFIGS, **FOUND}[architecture](), attn_implementation=attention
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if architecture == "mobilebert" and parameter.ndim == 1:
                continue  # its norms only scale, and would let values grow without end
            parameter.mul_(4)  # the initial weights are so small that quantization would hardly show
    return model.eval()


def batch() -> dict[str, Tensor]:
    """Three rows of seven tokens, one of them with padding."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, 50, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def calibrated(
    model: Any, quant: Quant | None = None, scheme: Scheme | None = None, placement: Placement = QDQBERT
) -> QuantizedModel:
    """Insert, observe one batch, calibrate by the largest values; still off."""
    quantization = insert(
        model, QuantizationConfig(placement=placement, quant=quant or Quant(), scheme=scheme or Scheme())
    )
    tensors = batch()
    with torch.no_grad(), quantization.observing(tensors["attention_mask"]):
        model(**tensors)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    return quantization
