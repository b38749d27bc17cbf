"""Execution of the example in docs/own_module.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own_module.md"


def test_the_page_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    world: dict[str, Any] = {"__name__": "own_module"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), world)
    shown = capsys.readouterr().out
    assert (
        "{'quantizers': 5, 'sites': {'linear.weight': 1, 'declared.weight': 2, 'declared.activation': 2"
        in shown
    )
    assert "torch.int8" in shown
    # By how much depends on the CPU: hundreds of steps amplify the order in which it adds.
    assert world["float_loss"] < world["qat_loss"] < world["ptq_loss"]
