"""Intervals over rows and seeds: one seed, several seeds, and reasons for a missing interval."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from qexp.cli.report import main
from qexp.records.record import read_all, records_folder
from qexp.reporting.comparison import compare
from qexp.reporting.intervals import Interval, NoInterval, intervals
from qexp.reporting.paired import compare_pairs
from qexp.reporting.predictions import SCORES, find_evaluation
from tests.support.paired_runs import LABELS, leave
from tests.support.record_factory import experiment


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


def noisy(errors: int, seed: int) -> list[int]:
    """Labels, some of them turned round."""
    found = np.array(LABELS)
    at = np.random.default_rng(seed).choice(len(found), errors, replace=False)
    found[at] = 1 - found[at]
    return found.tolist()


def runs(outputs: Path, seeds: Sequence[int] = (1, 2, 3)) -> None:
    for seed in seeds:
        stages = {"fp32": noisy(1, seed), "ptq": noisy(5, 10 + seed), "qat": noisy(2, 20 + seed)}
        leave(outputs, f"run{seed}abc", stages, tree=experiment(seed=seed))


def found(outputs: Path, resamples: int = 400) -> tuple[list[Interval], list[NoInterval]]:
    records, _ = read_all(records_folder(outputs))
    return intervals(compare(records), outputs, resamples=resamples)


def test_one_seed_gives_the_interval_of_the_paired_comparison(outputs: Path) -> None:
    runs(outputs, [1])
    ours, lacking = found(outputs)
    assert lacking == []
    first, second = (find_evaluation(f"run1abc:{stage}", None, outputs) for stage in ("fp32", "ptq"))
    (pair,) = compare_pairs(first, second, split=None, resamples=400, seed=0)
    known = {each.metric: (each.points, each.low, each.high) for each in pair.differences}
    assert {each.metric: (each.points, each.low, each.high) for each in ours if each.stage == "ptq"} == known


def test_seeds_have_a_median_and_widen_the_interval(outputs: Path) -> None:
    runs(outputs)
    ours, _ = found(outputs, 4000)
    (accuracy,) = (each for each in ours if (each.stage, each.metric) == ("ptq", "accuracy"))
    assert accuracy.seeds == (1, 2, 3)
    assert accuracy.rows == len(LABELS)
    assert accuracy.points == pytest.approx(-100 * 4 / len(LABELS))
    assert accuracy.low is not None and accuracy.high is not None
    assert accuracy.low < accuracy.points < accuracy.high


def test_what_is_gone_is_told_and_the_rest_is_there(outputs: Path) -> None:
    runs(outputs, [1])
    (outputs / "artifacts" / SCORES / "run1abc-qat" / "predictions-validation.parquet").unlink()
    ours, lacking = found(outputs)
    assert {each.stage for each in ours} == {"ptq"}
    (absent,) = lacking
    assert absent.stage == "qat"
    assert "python -m qexp" in absent.reason


def test_seeds_on_other_rows_are_refused(outputs: Path) -> None:
    runs(outputs, [1])
    labels = [1 - label for label in LABELS]
    stages = {"fp32": LABELS, "ptq": LABELS, "qat": LABELS}
    leave(outputs, "run2abc", stages, labels, tree=experiment(seed=2))
    ours, lacking = found(outputs)
    assert ours == []
    assert all("evaluated on other rows" in each.reason for each in lacking)


def test_the_command_prints_them_on_request(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs(outputs)
    assert main(["--outputs", str(outputs), "--intervals"]) == 0
    text = capsys.readouterr().out
    assert "## intervals: mrpc" in text
    assert main(["--outputs", str(outputs), "--intervals", "--format", "json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert main(["--outputs", str(outputs), "--intervals", "--format", "csv"]) == 0
    lines = csv.DictReader(io.StringIO(capsys.readouterr().out))
    printed = [line for line in lines if line["quantity"] == "interval"]
    assert len(printed) == len(tree["intervals"]["found"]) == 4
    for line, each in zip(printed, tree["intervals"]["found"], strict=True):
        assert (float(line["low"]), float(line["high"])) == (each["low"], each["high"])
        assert float(line["median"]) == each["points"]
    assert main(["--outputs", str(outputs)]) == 0
    assert "intervals" not in capsys.readouterr().out
