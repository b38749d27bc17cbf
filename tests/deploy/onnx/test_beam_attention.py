"""Attention whose beams share the keys of their sentence."""

from __future__ import annotations

import torch

from qexp.deploy.onnx.beam_attention import LOWEST, fold_beams, folding_beams, mark, plain_attention
from tests.support.sequence_models import build


def test_beams_that_share_a_key_attend_as_with_a_copy_each() -> None:
    generator = torch.Generator().manual_seed(0)
    sentences, beams, heads, length, width = 2, 3, 4, 5, 8
    query = torch.randn(sentences * beams, heads, 2, width, generator=generator)
    key, value = torch.randn(2, sentences, heads, length, width, generator=generator)
    mask = torch.zeros(sentences, 1, 1, length)
    mask[1, ..., 3:] = LOWEST
    copies = [each.repeat_interleave(beams, dim=0) for each in (key, value, mask)]
    expected, _ = fold_beams(plain_attention, torch.nn.Identity(), query, *copies)
    mark(key, sentences, beams)
    context, _ = fold_beams(plain_attention, torch.nn.Identity(), query, key, value, mask)
    assert context.shape == (sentences * beams, 2, heads, width)
    torch.testing.assert_close(context, expected)


def test_the_attention_of_a_model_is_restored() -> None:
    model = build("t5", attention="sdpa")
    with folding_beams(model):
        assert {each.config._attn_implementation for each in (model, model.decoder)} == {"qexp_beams"}
    assert {each.config._attn_implementation for each in (model, model.decoder)} == {"sdpa"}
