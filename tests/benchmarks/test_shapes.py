"""Models of a family: equal to transformers' own, on shared weights."""

from __future__ import annotations

import pytest
import torch

from benchmarks.shapes import SHAPES, Family, batch_of, of_width


def test_a_model_of_a_family_is_an_ordinary_one() -> None:
    from transformers import AutoModelForSequenceClassification

    family = Family(SHAPES["tiny"])
    ordinary = AutoModelForSequenceClassification.from_config(SHAPES["tiny"].config()).eval()
    ordinary.load_state_dict(family.weights)
    batch = batch_of(SHAPES["tiny"], 3, 10, padded=True)
    with torch.no_grad():
        assert torch.equal(family.build()(**batch).logits, ordinary(**batch).logits)


def test_variants_share_weights_and_moments() -> None:
    family, batch = Family(SHAPES["tiny"]), batch_of(SHAPES["tiny"], 3, 10)
    first, second = family.build(), family.build("eager")
    optimizers = [family.optimizer(model.parameters(), rate=1e-3) for model in (first, second)]
    before = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    first.train()(**batch).loss.backward()
    optimizers[0].step()
    moved = [name for name, tensor in second.state_dict().items() if not torch.equal(tensor, before[name])]
    assert "classifier.weight" in moved and len(moved) > 30
    own, other = (dict(model.named_parameters())["classifier.weight"] for model in (first, second))
    moments = [
        optimizer.state[weight]["exp_avg"] for optimizer, weight in zip(optimizers, (own, other), strict=True)
    ]
    assert moments[0] is moments[1]
    assert torch.allclose(moments[0], 0.1 * own.grad)
    assert other.grad is None


def test_one_step_is_that_of_a_plain_adamw() -> None:
    family, batch = Family(SHAPES["tiny"]), batch_of(SHAPES["tiny"], 3, 10)
    plain = {name: tensor.clone().requires_grad_() for name, tensor in family.weights.items()}
    model = family.build()
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        plain[name].grad = parameter.grad.clone()
    family.optimizer(model.parameters(), rate=1e-3).step()
    torch.optim.AdamW(plain.values(), lr=1e-3).step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), plain[name].detach())


def test_batches_repeat_and_pad() -> None:
    shape = SHAPES["tiny"]
    full, again = batch_of(shape, 5, 12), batch_of(shape, 5, 12)
    assert all(torch.equal(full[name], again[name]) for name in full)
    assert bool(full["attention_mask"].all())
    padded = batch_of(shape, 5, 12, padded=True)
    assert padded["attention_mask"].sum(1).tolist() == [6, 8, 9, 10, 12]
    assert not bool(padded["input_ids"][padded["attention_mask"] == 0].any())


@pytest.mark.parametrize("width", [128, 768])
def test_widths_keep_the_proportions(width: int) -> None:
    shape = of_width(width)
    assert (shape.width // shape.heads, shape.inner // shape.width, shape.layers) == (32, 4, 2)
