"""The models that are measured: shapes of published encoders with random weights, and their batches.

Dropout is 0 and all seeds are fixed, so that every variant computes the same thing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BertConfig

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a BERT."""

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int = 30522
    positions: int = 512

    def config(self) -> BertConfig:
        """The same for transformers: two labels, no dropout."""
        return BertConfig(  # type: ignore[call-arg]
            vocab_size=self.vocabulary, hidden_size=self.width, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, intermediate_size=self.inner,
            max_position_embeddings=self.positions, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, num_labels=2,
        )  # fmt: skip


SHAPES = {
    "tiny": Shape(width=32, layers=2, heads=4, inner=64, vocabulary=100, positions=64),
    "minilm_l6": Shape(width=384, layers=6, heads=12, inner=1536),
    "bert_base": Shape(width=768, layers=12, heads=12, inner=3072),
    "bert_large": Shape(width=1024, layers=24, heads=16, inner=4096),
}
"""``tiny`` is for tests of the benchmarks themselves."""


def of_width(width: int) -> Shape:
    """Two layers of MiniLM's proportions: heads of 32, four times the width inside, few words."""
    return Shape(width=width, layers=2, heads=width // 32, inner=4 * width, vocabulary=1000)


class Family:
    """Models of one shape that share their weights and their optimizer's moments.

    A dozen variants of BERT-base, each with its own AdamW, would need 20 GB. The rate of the steps
    that are timed is so small that they may as well step the very same numbers.
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.shape = shape
        model = AutoModelForSequenceClassification.from_config(shape.config())
        _widen(model)
        self.weights = model.state_dict()
        self._moments: dict[int, tuple[Tensor, Tensor]] = {}

    def build(self, attention: str = "sdpa") -> Any:
        """A model with its own modules on the shared weights, in evaluation mode."""
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(
                self.shape.config(), attn_implementation=attention
            )
        model.load_state_dict(self.weights, assign=True)
        _materialize(model, self.shape)
        return model.eval()

    def optimizer(self, parameters: Iterable[Tensor], rate: float = 1e-6) -> torch.optim.Optimizer:
        """AdamW as training uses it; parameters on the same memory share their moments."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=rate, fused=True)
        for parameter in trained:
            first, second = self._shared_moments(parameter)
            step = torch.zeros((), dtype=torch.float32)
            optimizer.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
        return optimizer

    def _shared_moments(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        at = parameter.data_ptr()
        if at not in self._moments or self._moments[at][0].shape != parameter.shape:
            self._moments[at] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return self._moments[at]


@torch.no_grad()
def _widen(model: nn.Module) -> None:
    """Draw linear weights so that variances pass through, as in a trained model.

    BERT's initial weights are so small that attention hardly changes a logit, quantized or not.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(std=module.in_features**-0.5)


def _materialize(model: Any, shape: Shape) -> None:
    """Give the buffers that no state dict holds their values: positions and token types."""
    embeddings = model.bert.embeddings
    embeddings.position_ids = torch.arange(shape.positions).expand((1, -1))
    embeddings.token_type_ids = torch.zeros((1, shape.positions), dtype=torch.long)


def set_dropout(model: Any, rate: float) -> None:
    """Give a model dropout, which its shape leaves out, in all of its layers and in attention."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
    model.config.attention_probs_dropout_prob = rate


def batch_of(shape: Shape, rows: int, length: int, seed: int = 1, padded: bool = False) -> Batch:
    """All inputs of a BERT [rows, length], and ``labels`` [rows]; all tokens are real unless ``padded``.

    A padded batch has rows of evenly spread lengths, from half of ``length`` to all of it.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, shape.vocabulary, (rows, length), generator=generator)
    lengths = torch.linspace(length / 2, length, rows).round() if padded else torch.full((rows,), length)
    mask = (torch.arange(length)[None, :] < lengths[:, None]).long()
    return {
        "input_ids": ids * mask, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids),
        "labels": ids[:, 0] % 2,
    }  # fmt: skip
