"""Which trainings compute attention again in the backward pass, and that they leave the model as it was."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from qexp.quant.insertion import attention_recompute
from qexp.quant.insertion.attention import attend
from qexp.training.attention import keeps_scores, recomputed_attention
from qexp.training.dropout import FastDropout


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_recompute, "KEPT_BYTES", 0)


def model(attention: str = "sdpa", dropout: float = 0.1) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=dropout, max_position_embeddings=64,
    )  # fmt: skip
    return BertForSequenceClassification._from_config(config, attn_implementation=attention).train()


@pytest.mark.parametrize(
    ("attention", "dropout", "expected"), [("sdpa", 0.1, True), ("sdpa", 0.0, False), ("eager", 0.1, False)]
)
def test_only_fused_attention_with_dropout_is_replaced(
    attention: str, dropout: float, expected: bool
) -> None:
    trained = model(attention, dropout)
    assert keeps_scores(trained) == expected
    with recomputed_attention(trained):
        assert (trained.config._attn_implementation != attention) == expected
    assert trained.config._attn_implementation == attention


def test_gradients_are_those_of_fused_attention_without_dropout() -> None:
    ids, mask = torch.randint(0, 50, (3, 12)), torch.ones(3, 12, dtype=torch.long)
    mask[1, 7:] = 0

    def gradients(recomputed: bool) -> list[torch.Tensor]:
        trained = model()
        for module in trained.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # the configuration still says 0.1
        if recomputed:
            with recomputed_attention(trained):
                trained(ids, mask, labels=torch.tensor([0, 1, 0])).loss.backward()
        else:
            trained(ids, mask, labels=torch.tensor([0, 1, 0])).loss.backward()
        return [each.grad for each in trained.parameters() if each.grad is not None]

    for own, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_no_layer_keeps_its_scores() -> None:
    trained, rows, length = model(), 4, 48
    ids, sizes = torch.randint(0, 50, (rows, length)), list[int]()

    def kept(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.untyped_storage().nbytes())
        return tensor

    scores = rows * trained.config.num_attention_heads * length * length * 4
    with recomputed_attention(trained), torch.autograd.graph.saved_tensors_hooks(kept, lambda each: each):
        trained(ids, labels=torch.zeros(rows, dtype=torch.long))
    assert max(sizes) < scores
    sizes.clear()
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda each: each):
        trained(ids, labels=torch.zeros(rows, dtype=torch.long))
    assert max(sizes) >= scores


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_the_backward_pass_draws_the_dropout_of_the_forward_pass(
    inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensor.backward leaves the modes around it, and torch's own dropout would draw another mask."""

    def gradients(limit: int) -> list[torch.Tensor]:
        monkeypatch.setattr(attention_recompute, "KEPT_BYTES", limit)
        torch.manual_seed(0)
        inputs = [torch.randn(4, 4, 32, 8, requires_grad=True) for _ in range(3)]
        with FastDropout():
            context, probabilities = attend(torch.nn.Module().train(), *inputs, None, dropout=0.3)
            loss = context.square().sum()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        assert (probabilities is None) == (limit == 0)
        return [context.detach(), *(each.grad for each in inputs if each.grad is not None)]

    for kept, again in zip(gradients(1 << 30), gradients(0), strict=True):
        torch.testing.assert_close(again, kept)
