"""Steps with and without the compiler, and what they cost."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.compiled_training import VARIANTS, main, pays_after
from benchmarks.harness import Reading


def reading(seconds: float) -> Reading:
    return Reading(seconds, 1.0, 1.0, 1.0, seconds)


@pytest.mark.parametrize(("compiled", "expected"), [(4.0, 10 * 5 + 5), (5.0, math.inf), (6.0, math.inf)])
def test_a_compiler_has_paid_once_its_steps_have_saved_its_time(compiled: float, expected: float) -> None:
    """Five steps take 5 s, or as given after a first pass that takes 10 s longer."""
    assert pays_after(15.0, 5.0, reading(compiled), reading(5.0), steps=5) == expected


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch of itself
def test_the_command_measures_every_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # which the command sets, and the next test has back
    file = tmp_path / "x.json"
    options = ["--model", "tiny", "--batch", "2", "--lengths", "8,16", "--rounds", "2", "--threads", "1"]
    main([*options, "--json", str(file)])
    found = json.loads(file.read_text())
    assert tuple(found["readings"]) == tuple(found["first"]) == VARIANTS
    assert found["first"]["qat, compiled"] > found["first"]["qat"]
    assert "pays after" in capsys.readouterr().out
