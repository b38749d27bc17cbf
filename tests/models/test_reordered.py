"""Tests of the reordered arithmetic: equal up to rounding, in every attention and kind of model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from qexp.config import QuantizationConfig
from qexp.models.reordered import OPERATORS, reordered
from qexp.quant.insertion.insert import insert
from tests.conftest import ARCHITECTURES, experiment


def both(compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        plain = compute()
        with reordered():
            return plain, compute()


_DRAWN = torch.Generator().manual_seed(0)
X, W = torch.randn(7, 33, generator=_DRAWN), torch.randn(5, 33, generator=_DRAWN)
BATCHED = torch.randn(3, 4, 7, 33)
COMPUTE = {
    "linear": lambda: functional.linear(X, W, torch.ones(5)),
    "linear without bias": lambda: functional.linear(BATCHED, W),
    "matmul of vectors": lambda: torch.matmul(X, X[0]),
    "matmul": lambda: BATCHED @ BATCHED.transpose(-1, -2),
    "addmm": lambda: torch.addmm(torch.ones(7, 5), X, W.T, beta=2, alpha=3),
    "baddbmm": lambda: torch.baddbmm(torch.ones(3, 7, 7), BATCHED[:, 0], BATCHED[:, 1].transpose(1, 2)),
    "layer norm": lambda: functional.layer_norm(X, (33,), torch.linspace(1, 2, 33), torch.linspace(0, 1, 33)),
    "layer norm of two axes": lambda: functional.layer_norm(BATCHED, (7, 33)),
    "softmax": lambda: torch.softmax(X, -1),
    "gelu": lambda: functional.gelu(X),
    "gelu by tanh": lambda: functional.gelu(X, approximate="tanh"),
    "tanh": lambda: torch.tanh(X),
    "sigmoid": lambda: torch.sigmoid(X),
    "attention": lambda: functional.scaled_dot_product_attention(BATCHED, BATCHED, BATCHED),
    "causal attention": lambda: functional.scaled_dot_product_attention(
        BATCHED, BATCHED, BATCHED, is_causal=True, scale=0.5
    ),
    "masked attention": lambda: functional.scaled_dot_product_attention(
        BATCHED, BATCHED, BATCHED, attn_mask=(torch.arange(7) < 5).expand(3, 1, 7, 7)
    ),
}


@pytest.mark.parametrize("name", COMPUTE)
def test_each_operator_computes_the_same_but_for_rounding(name: str) -> None:
    plain, other = both(COMPUTE[name])
    torch.testing.assert_close(other, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "matmul", "layer norm", "softmax"])
def test_sums_are_taken_in_another_order(name: str) -> None:
    plain, other = both(COMPUTE[name])
    assert not torch.equal(plain, other)


def test_it_ends_with_its_block() -> None:
    plain, _ = both(COMPUTE["linear"])
    assert torch.equal(plain, COMPUTE["linear"]())


@pytest.mark.parametrize(("precision", "digits"), [("fp16", 2**-11), ("bf16", 2**-8)])
def test_half_precisions_round_every_result(precision: str, digits: float) -> None:
    with torch.inference_mode(), reordered(precision):  # type: ignore[arg-type]
        y = functional.linear(X, W)
    assert y.dtype is torch.float32
    half = torch.float16 if precision == "fp16" else torch.bfloat16
    assert torch.equal(y, y.to(half).float())
    torch.testing.assert_close(y, functional.linear(X, W), rtol=2 * digits, atol=16 * digits)  # of 33 terms


def test_results_can_be_off_by_a_share() -> None:
    with torch.inference_mode(), reordered(moved=2.0**-10):
        moved = functional.linear(X, W)
    shares = (moved / functional.linear(X, W) - 1).abs()
    assert 2.0**-12 < shares.max() < 1.01 * 2.0**-10


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_whole_encoders(architecture: str, attention: str, tiny_models: Callable[[str], Path]) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_models(architecture), attn_implementation=attention).eval()
    ids = torch.arange(5, 45).view(2, 20)
    mask = (torch.arange(20) < torch.tensor([[20], [11]])).long()
    plain, other = both(lambda: model(input_ids=ids, attention_mask=mask).last_hidden_state)
    torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)
    assert not torch.equal(plain, other)


def test_quantizers_are_part_of_the_model_and_not_of_the_arithmetic(tiny_bert: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    made = experiment("task=mrpc")
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert).eval()
    quantization = insert(
        model, QuantizationConfig(placement=made.placement, quant=made.quant, scheme=made.scheme)
    )
    ids = torch.arange(5, 45).view(2, 20)
    with quantization.observing(torch.ones_like(ids)), torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    quantization.calibrate(quantization.statistics(), made.calibrator)
    quantization.freeze()
    seen: list[torch.Tensor] = []
    module = model.bert.encoder.layer[1].output.dense
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    both(lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits)
    plain, other = seen
    steps = (plain - other).abs().unique()
    assert len(steps) < 10, "values of the other arithmetic lie on the same grid"


def test_every_operator_is_one_of_torch() -> None:
    assert all(isinstance(each, torch._ops.OpOverload) for each in OPERATORS)
