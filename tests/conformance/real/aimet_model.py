"""BERT of modules alone, which is what AIMET can quantize, and its quantized copy.

``QuantizationSimModel`` sees modules only. Qualcomm's model zoo therefore makes each functional operation of
MobileBERT one: adds, matrix products and softmax; a mask of -6 is added to the scores of padding. This is
BERT in the same form.
"""

from __future__ import annotations

from typing import Any

import torch
from aimet_torch.nn.modules import custom
from torch import Tensor, nn

from tests.conformance.inputs import BERT, HEADS, INNER, LAYERS, WIDTH, Array

MASK = -6.0


class Embeddings(nn.Module):
    """Three tables, two adds, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(BERT["vocab_size"], WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.position_embeddings = nn.Embedding(BERT["max_position_embeddings"], WIDTH)
        self.add_1, self.add_2 = custom.Add(), custom.Add()
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        place = torch.arange(ids.shape[1], device=ids.device)[None]
        found = self.add_1(self.word_embeddings(ids), self.token_type_embeddings(types))
        return self.LayerNorm(self.add_2(found, self.position_embeddings(place)))


class SelfAttention(nn.Module):
    """Scores before and after the mask, probabilities and context, each by a module."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.matmul_1, self.mask_add, self.matmul_2 = custom.MatMul(), custom.Add(), custom.MatMul()
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            each(x).view(*x.shape[:2], HEADS, -1).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        scores = self.matmul_1(query, key.transpose(-1, -2)) / (WIDTH // HEADS) ** 0.5
        probabilities = self.softmax(self.mask_add(scores, (mask[:, None, None] == 0) * MASK))
        return self.matmul_2(probabilities, value).transpose(1, 2).reshape(x.shape)


class Output(nn.Module):
    """A linear layer, the residual add, a norm."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.dense, self.add = nn.Linear(inputs, WIDTH), custom.Add()
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.add(self.dense(x), residual))


class Attention(nn.Module):
    """Self-attention and its output."""

    def __init__(self) -> None:
        super().__init__()
        self.self, self.output = SelfAttention(), Output(WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.output(self.self(x, mask), x)


class Intermediate(nn.Module):
    """The inner layer of the feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.intermediate_act_fn = nn.Linear(WIDTH, INNER), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.intermediate_act_fn(self.dense(x))


class Layer(nn.Module):
    """One encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.intermediate, self.output = Attention(), Intermediate(), Output(INNER)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Bert(nn.Module):
    """Embeddings, encoder and pooler, with transformers' names."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.pooler = nn.Module()
        self.pooler.dense, self.pooler.activation = nn.Linear(WIDTH, WIDTH), nn.Tanh()

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        x = self.embeddings(ids, types)
        for layer in self.encoder.layer:
            x = layer(x, mask)
        return self.pooler.activation(self.pooler.dense(x[:, 0]))


class Classifier(nn.Module):
    """BERT with a classifier; positional inputs, logits out."""

    def __init__(self, state: dict[str, Array]) -> None:
        super().__init__()
        self.bert, self.classifier = Bert(), nn.Linear(WIDTH, 2)
        self.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        self.eval()

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        return self.classifier(self.bert(ids, mask, types))


def arguments(batch: dict[str, Array]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the inputs of a classifier."""
    ids, mask, types = (batch[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    return torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(types)


def quantized_sites(model: Any) -> dict[str, Any]:
    """Return the quantizers of a model by ``module:role``; roles are ``weight``, ``output``, ``input.0``."""
    found = {}
    for name, module in model.named_modules():
        if not hasattr(module, "output_quantizers"):
            continue
        roles = {f"input.{index}": each for index, each in enumerate(module.input_quantizers)}
        if len(module.output_quantizers):
            roles["output"] = module.output_quantizers[0]
        roles |= dict(module.param_quantizers.items())
        found |= {f"{name}:{role}": each for role, each in roles.items() if each is not None}
    return found
