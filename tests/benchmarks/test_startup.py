"""Tests of the benchmark of small commands; what it measures is not asserted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.startup import OWN, ROOT, Cost, rows_of
from tests.support.tiny_runs import TinyRuns


def test_ratios_are_those_within_a_round() -> None:
    own, other = [Cost(1.0, 0.5), Cost(4.0, 0.5), Cost(0.5, 1.0)], [Cost(2.0, 1.0)] * 3
    (row,) = rows_of({"publish": {OWN: own, "main": other}})
    assert row == ("publish", "1.00", "0.50", "3", "within", "1.00", "0.50", "0.50")
    (row,) = rows_of({"help": {OWN: own}})
    assert row == ("help", "1.00", "0.50", "0.8", "above")


@pytest.mark.slow
def test_both_builds_are_measured_in_turns(tiny_runs: TinyRuns, tiny_bert: Path, tmp_path: Path) -> None:
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("not a git checkout")
    outputs = tiny_runs(("task=mrpc", "quant=w8a8", f"model.name={tiny_bert}"))
    words = ["--against", "HEAD", "--rounds", "1", "--only", "help", "run, all cached"]
    words += ["--outputs", str(outputs), "--model", str(tiny_bert), "--json", str(tmp_path / "x.json")]
    startup.main(words)
    costs = json.loads((tmp_path / "x.json").read_text())["costs"]
    assert set(costs) == {"help", "run, all cached"}
    for by_build in costs.values():
        assert set(by_build) == {OWN, "HEAD"}
        assert all(each["cpu"] > 0 for own in by_build.values() for each in own)
