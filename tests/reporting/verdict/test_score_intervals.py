"""Intervals of scores against FP32 from the predictions of a run, without scipy and pandas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qexp.records.record import Record, read
from qexp.reporting.paired import compare_pairs
from qexp.reporting.predictions import find_evaluation
from qexp.reporting.verdict.score_intervals import RESAMPLES, score_intervals
from tests.support.paired_runs import LABELS, file_of, leave
from tests.support.record_factory import experiment

FLIPPED = [1 - LABELS[0], *LABELS[1:]]
HALF = [label if row % 2 else 1 - label for row, label in enumerate(LABELS)]


def run(outputs: Path) -> Record:
    predictions = {"fp32": FLIPPED, "ptq": HALF, "qat": FLIPPED, "onnx": FLIPPED}
    leave(outputs, "abcdef", predictions, tree=experiment(method={"kind": "qat"}))
    return read(outputs / "records" / "abcdef.json")


def test_the_intervals_are_those_of_compare(tmp_path: Path) -> None:
    found = score_intervals(run(tmp_path), tmp_path)
    assert set(found) == {"ptq", "qat"}
    sides = [find_evaluation(f"abcdef:{stage}", None, tmp_path) for stage in ("fp32", "ptq")]
    (pair,) = compare_pairs(*sides, split=None, resamples=RESAMPLES, seed=0)
    for difference in pair.differences:
        interval = found["ptq"][difference.metric]
        assert (interval["low"], interval["high"]) == (difference.low, difference.high)
        assert (interval["rows"], interval["resamples"]) == (len(LABELS), RESAMPLES)
    assert {(each["low"], each["high"]) for each in found["qat"].values()} == {(0.0, 0.0)}


def test_more_resamples_move_the_ends_little(tmp_path: Path) -> None:
    record = run(tmp_path)
    few, many = (score_intervals(record, tmp_path, resamples=count) for count in (RESAMPLES, 20_000))
    ends = [[each["ptq"]["accuracy"][end] for end in ("low", "high")] for each in (few, many)]
    np.testing.assert_allclose(ends[0], ends[1], atol=100 / len(LABELS))


@pytest.mark.parametrize("stages", [["fp32"], ["fp32", "onnx"]])
def test_a_float_run_has_none(stages: list[str], tmp_path: Path) -> None:
    tree = experiment(quant="fp32")
    leave(tmp_path, "abcdef", dict.fromkeys(stages, FLIPPED), tree=tree)
    assert score_intervals(read(tmp_path / "records" / "abcdef.json"), tmp_path) == {}


def test_predictions_that_are_gone_leave_no_interval(tmp_path: Path) -> None:
    record = run(tmp_path)
    file_of(tmp_path / "artifacts" / "6-scores" / "abcdef-ptq").unlink()
    assert score_intervals(record, tmp_path) == {}


def test_translations_are_resampled_by_sentence(tmp_path: Path) -> None:
    golds = [f"a cat sat on the {word} and slept well" for word in ("mat", "roof", "sofa", "bed")]
    worse = [golds[0], golds[1].replace("slept", "stood"), *golds[2:]]
    task = {
        "name": "t",
        "kind": "translation",
        "metrics": ("bleu",),
        "evaluation": {"validation": "validation"},
    }
    tree = {**experiment(method={"kind": "ptq"}), "task": task}
    leave(tmp_path, "abcdef", {"fp32": golds, "ptq": worse}, golds, tree=tree)
    interval = score_intervals(read(tmp_path / "records" / "abcdef.json"), tmp_path)["ptq"]["bleu"]
    assert interval["low"] is not None and interval["high"] is not None
    assert interval["low"] < interval["high"] <= 0.0


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    run(tmp_path)
    code = (
        "import sys; from pathlib import Path; from qexp.records.record import read\n"
        "from qexp.reporting.verdict.score_intervals import score_intervals\n"
        f"place = Path({str(tmp_path)!r})\n"
        "assert score_intervals(read(place / 'records' / 'abcdef.json'), place)\n"
        "print({'scipy', 'pandas', 'sklearn', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
