"""Attention scores: quantization before and after the mask, and other mask values."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from qexp.config import MaxCalibrator, Placement, QuantizationConfig
from qexp.quant.insertion.insert import insert
from tests.support import sequence_models
from tests.support.tiny_models import CONFIGS, batch, build

MASKED = Placement(name="m", sites=("attention.scores", "attention.masked_scores"), mask_value=-6.0)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_padding_gets_the_mask_value(architecture: str) -> None:
    model, tensors = build(architecture), batch()
    quantization = insert(
        model, QuantizationConfig(placement=Placement(name="m", sites=("linear.weight",), mask_value=-6.0))
    )
    with torch.no_grad():
        masked = model(**tensors).logits
        quantization.remove()
        original = model(**tensors).logits
        model.set_attn_implementation("eager")
        bias = (1.0 - tensors["attention_mask"][:, None, None, :].float()) * -6.0
        expected = model(tensors["input_ids"], attention_mask=bias).logits
    assert not torch.equal(masked, original)
    torch.testing.assert_close(masked, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(masked[[0, 2]], original[[0, 2]])  # rows without padding


def test_a_decoder_still_sees_nothing_of_what_is_to_come() -> None:
    model, tensors = sequence_models.build("marian"), sequence_models.batch()
    insert(
        model, QuantizationConfig(placement=Placement(name="m", sites=("linear.weight",), mask_value=-6.0))
    )
    other = dict(tensors)
    other["decoder_input_ids"] = tensors["decoder_input_ids"].clone()
    other["decoder_input_ids"][:, -1] = 5
    with torch.no_grad():
        first, second = model(**tensors).logits, model(**other).logits
    assert torch.equal(first[:, :-1], second[:, :-1])


@pytest.mark.parametrize("architecture", CONFIGS)
def test_scores_are_two_values_and_padded_columns_do_not_count_before_the_mask(architecture: str) -> None:
    model, tensors = build(architecture), batch()
    quantization = insert(model, QuantizationConfig(placement=MASKED))
    assert len(quantization.quantizers) == 4
    with torch.no_grad(), quantization.observing(tensors["attention_mask"]):
        model(**tensors)
    before, after = list(quantization.statistics().values())[:2]
    tokens = tensors["attention_mask"].sum(1)
    heads = 4
    assert int(before.histogram.counts.sum()) == heads * int((tokens**2).sum())
    assert int(after.histogram.counts.sum()) == heads * 7 * int(tokens.sum())
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.freeze()
    with torch.no_grad():
        close = model(**tensors).logits
        quantization.off()
        torch.testing.assert_close(close, model(**tensors).logits, rtol=0.2, atol=0.2)


def test_masked_scores_need_a_mask_value() -> None:
    with pytest.raises(ValidationError, match="mask_value is null"):
        Placement(name="m", sites=("attention.masked_scores",))
