"""Lists of runs: columns, filters, order, and lines that fit a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from qexp.errors import ConfigError
from qexp.reporting.aligned import aligned
from qexp.reporting.run_list import age, facts_of, gate_of, ordered, run_table, selected
from qexp.reporting.run_view import RunView
from tests.support.record_factory import deployed, experiment, failed, interrupted, parity, record

NOW = datetime(2026, 3, 1, 13, 5, tzinfo=UTC)
LONG = "an-organisation/a-very-long-name-of-a-multilingual-encoder-of-many-layers"


def run(key: str, *, score: float | None = 80.0, source: str = "local", **sections: Any) -> RunView:
    tree = experiment(sections.pop("task", "mrpc"), method={"kind": "ptq"}, **sections)
    return RunView(record(tree, key=key, source=source, scores={"fp32": {"f1": 90.0}, "ptq": {"f1": score}}))


RUNS = [
    run("aaaa", quant="w8a8", tags=["baseline", "v2"]),
    run("bbbb", quant="w4a8", score=70.0, seed=2),
    run("cccc", task="cola", score=None, model=LONG),
]


def keys(runs: Sequence[RunView]) -> list[str]:
    return [each.record.key for each in runs]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], ["aaaa", "bbbb", "cccc"]),
        ([("task", "mrpc")], ["aaaa", "bbbb"]),
        ([("task", "mrpc"), ("quant", "w8*")], ["aaaa"]),
        ([("tags", "v2")], ["aaaa"]),
        ([("key", "bb")], ["bbbb"]),
        ([("seed", "2")], ["bbbb"]),
        ([("model", "*multilingual*")], ["cccc"]),
        ([("model", "MINILM")], ["aaaa", "bbbb"]),
        ([("placement.name", "qdqbert")], ["aaaa", "bbbb", "cccc"]),
        ([("gate", "none")], ["aaaa", "bbbb", "cccc"]),
        ([("finetune.epochs", "3.0")], ["aaaa", "bbbb", "cccc"]),
        ([("status", "failed")], []),
    ],
)
def test_filters(filters: list[tuple[str, str]], found: list[str]) -> None:
    assert keys(selected(RUNS, filters)) == found


@pytest.mark.parametrize(
    ("by", "found"),
    [
        ("ptq", ["bbbb", "aaaa", "cccc"]),
        ("-ptq", ["aaaa", "bbbb", "cccc"]),
        ("-seed", ["bbbb", "aaaa", "cccc"]),
    ],
)
def test_order_has_runs_without_a_value_last(by: str, found: list[str]) -> None:
    assert keys(ordered(RUNS, by)) == found


def test_the_newest_is_first_by_age() -> None:
    later = RunView(record(experiment(), key="dddd", finished="2026-03-02T00:00:00+00:00"))
    assert keys(ordered([*RUNS, later], "age"))[0] == "dddd"


@pytest.mark.parametrize("use", [lambda: selected(RUNS, [("taks", "x")]), lambda: ordered(RUNS, "-taks")])
def test_a_column_that_is_not_there_is_named_with_the_nearest(use: Any) -> None:
    with pytest.raises(ConfigError, match=r"taks: no column.*did you mean task"):
        use()


def test_facts_are_plain_and_of_the_primary_metric() -> None:
    facts = facts_of(RUNS[0])
    assert facts["metric"] == "f1" and facts["scores"] == {"fp32": 90.0, "ptq": 80.0}
    assert facts["tags"] == ["baseline", "v2"] and facts["error"] is None
    broken = facts_of(RunView(failed(experiment(method={"kind": "qat"}))))
    assert (broken["status"], broken["error"]) == ("failed", "TrainingError: the loss is nan")


def test_the_worst_gate_counts() -> None:
    tree = experiment()
    assert gate_of(RunView(record(tree))) is None
    assert gate_of(RunView(deployed(tree))) == "passed"
    assert gate_of(RunView(deployed(tree, parity={**parity(True), "verdict": "within noise"}))) == "noise"
    engines = {"openvino/int8": {"gate": parity(False)}}
    assert gate_of(RunView(deployed(tree, engines=engines))) == "failed"


@pytest.mark.parametrize("width", [80, 100, 140])
def test_lists_fit_the_terminal_with_long_names(width: int) -> None:
    tree = experiment(
        model=LONG, quant="w4a8", method={"kind": "qat"}, tags=["a-tag-of-many-words", "another"],
        budget={"name": "smoke", "train_steps": 4},
    )  # fmt: skip
    long = RunView(deployed(tree, key="f" * 32, recipe="aimet/w4a8_stsb_per_channel"))
    broken = RunView(failed(tree, key="e" * 32))
    lines = run_table([*RUNS, long, broken], width=width, now=NOW).splitlines()
    assert len(lines) == 6
    assert max(map(len, lines)) <= width
    assert lines[-1].startswith("x eeeeeeee")
    assert all(name in lines[0] for name in ("key", "age", "task", "fp32", "ptq", "qat", "gate", "tags"))
    assert "3 h" in lines[1] and "90.00" in lines[1] and "80.00" in lines[1]


def test_an_interrupted_run_has_a_mark_and_a_status_of_its_own() -> None:
    message = "interrupted in fine-tune mrpc; the same command goes on from here: fine-tune mrpc from step 4"
    run = RunView(interrupted(experiment(), message, key="d" * 32))
    assert run_table([run], width=80, now=NOW).splitlines()[-1].startswith("i dddddddd")
    assert (facts_of(run)["status"], facts_of(run)["error"]) == ("interrupted", message)
    assert selected([run], [("status", "interrupted")]) == [run]
    assert selected([run], [("status", "failed")]) == []


def test_columns_that_nothing_is_in_are_left_out() -> None:
    head, *_ = run_table([run("aaaa", quant="w8a8")], width=80, now=NOW).splitlines()
    assert head.split() == ["key", "age", "task", "model", "quant", "method", "fp32", "ptq"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (3599, "59 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_numbers_stand_below_each_other() -> None:
    lines = aligned(("a", "b"), [("x", "1.00"), ("yy", "-10.00")], width=80).splitlines()
    assert lines == ["a        b", "x     1.00", "yy  -10.00"]
