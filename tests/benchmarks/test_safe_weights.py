"""``benchmarks.safe_weights``: the forms that it compares."""

from __future__ import annotations

import pytest
import torch

from benchmarks.safe_weights import forms, main
from qexp.deploy.onnx.saturation import SAFE_PAIR, largest_pairs
from tests.support.tiny_models import build


def test_forms_are_as_near_as_their_steps_allow() -> None:
    weight = torch.randn((64, 96), generator=torch.Generator().manual_seed(0))
    found, safe = forms(weight)
    noise = [float((each - weight).square().sum()) for each in found.values()]
    eight, seven, mixed, by_pairs = noise
    assert eight < by_pairs < seven
    assert eight <= mixed <= seven
    scale = weight.reshape(64, -1, 2)
    sums = torch.maximum(scale.clamp(min=0).sum(-1), -scale.clamp(max=0).sum(-1)).amax(1)
    integers = (found["8 bits, ranges by pairs"] / (sums[:, None] / (SAFE_PAIR - 1))).round()
    assert largest_pairs(integers.to(torch.int32).numpy(), 1).max() <= SAFE_PAIR
    assert not bool(safe.all())


def test_the_command_prints_a_line_for_each_form(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    build("bert").save_pretrained(tmp_path)
    main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("| 7", "| 8")) for line in lines) == 4
