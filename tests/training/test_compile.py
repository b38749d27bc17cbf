"""Tests of ``torch.compile``: the training stays the same, and failures have clear messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from qexp.training.compile import compiled, uncompiled
from tests.support.tiny_training import largest_difference, plan, trained

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch of itself


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("mode", "tolerance"), [("float", 1e-4), ("learned", 1e-2)])
def test_compiled_training_ends_where_the_other_does(mode: str, tolerance: float, tmp_path: Path) -> None:
    """In one graph: what dynamo cannot see through would show as a break."""
    from torch._dynamo.utils import counters

    plain, expected = trained(plan(tmp_path / "plain", mode=mode, layers=1))
    counters.clear()
    facts, result = trained(plan(tmp_path / "compiled", mode=mode, layers=1, compile=True))
    assert counters["stats"]["unique_graphs"] >= 1
    assert not counters["graph_break"]
    assert facts["loss"] == pytest.approx(plain["loss"], abs=1e-3)
    assert largest_difference(expected, result) < tolerance


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told(tmp_path: Path) -> None:
    """In a program of its own: torch looks for the compiler once."""
    code = (
        "from pathlib import Path\nfrom tests.support.tiny_training import plan, trained\n"
        f"trained(plan(Path({str(tmp_path)!r}), layers=1, compile=True))"
    )
    caches = {"CXX": "/no/such", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **caches}, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "TrainingError: machine.compile=true" in last
    assert "compiler" in last.split(";")[0]
    assert "set machine.compile=false" in last


class _Doubled(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values


def test_what_does_not_train_runs_uncompiled() -> None:
    model, backends = _Doubled(), []
    model.compile(backend=lambda graph, _: backends.append(1) or graph.forward)
    with uncompiled(model):
        model(torch.zeros(1, 2))
    assert not backends
    model(torch.zeros(1, 2))
    assert backends == [1]


def test_what_is_not_wanted_is_not_compiled() -> None:
    model = nn.Linear(2, 2)
    with compiled(model, wanted=False):
        assert model._compiled_call_impl is None
