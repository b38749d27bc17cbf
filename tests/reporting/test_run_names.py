"""Names of runs: which one is taken, what is said of it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qexp.errors import StoreError
from qexp.records.record import write
from qexp.reporting.run_names import choose_run
from tests.support.record_factory import experiment, record

ERROR = {"type": "TrainingError", "message": "the loss is nan\nsecond line", "traceback": ""}


def leave(
    outputs: Path, key: str, day: int, *, task: str = "mrpc", failed: bool = False, **sections: Any
) -> None:
    fields = {"status": "failed", "error": ERROR} if failed else {}
    source = sections.pop("source", "local")
    tree = experiment(task, **sections)
    found = record(tree, source=source, key=key, finished=f"2026-03-{day:02}T10:00:00+00:00", **fields)
    write(found, outputs / "records")


@pytest.fixture
def runs(outputs: Path) -> Path:
    """Two runs of MRPC and one of CoLA that finished, and a newer one that failed."""
    leave(outputs, "aaaaaaaa11", 1, quant="w8a8", method={"kind": "ptq"}, tags=["baseline"])
    leave(outputs, "bbbbbbbb22", 2, quant="w4a8", method={"kind": "ptq"})
    leave(outputs, "aaaaaaaa33", 3, task="cola", quant="w8a8", method={"kind": "ptq"})
    leave(outputs, "dddddddd44", 4, quant="w8a8", method={"kind": "ptq"}, seed=2, failed=True)
    return outputs


def refusal(name: str, outputs: Path) -> str:
    with pytest.raises(StoreError) as caught:
        choose_run(name, outputs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("last", "aaaaaaaa33"),
        ("mrpc", "bbbbbbbb22"),
        ("mrpc/w8a8", "aaaaaaaa11"),
        ("w8a8/mrpc", "aaaaaaaa11"),
        ("mrpc/w4a8/ptq", "bbbbbbbb22"),
        ("mrpc/minilm/full", "bbbbbbbb22"),
        ("baseline", "aaaaaaaa11"),
        ("mrpc/baseline", "aaaaaaaa11"),
        ("cola", "aaaaaaaa33"),
        ("b", "bbbbbbbb22"),
        ("bbbbbbbb22", "bbbbbbbb22"),
        ("dddddd", "dddddddd44"),
    ],
)
def test_names_and_keys_of_runs(name: str, key: str, runs: Path) -> None:
    assert choose_run(name, runs).record.key == key


def test_a_key_or_a_single_match_needs_no_note_and_a_choice_has_one(runs: Path) -> None:
    assert choose_run("bbbbbb", runs).note is None
    assert choose_run("cola", runs).note is None
    note = choose_run("mrpc/ptq", runs).note
    assert (
        note is not None
        and "the newest of 2 that finished" in note
        and "dddddddd is newer and failed" in note
    )


def test_a_newer_failure_is_said_of_and_never_taken(runs: Path) -> None:
    note = choose_run("last", runs).note
    assert (
        note is not None
        and note.startswith("last: aaaaaaaa, cola")
        and "dddddddd is newer and failed" in note
    )
    leave(runs, "eeeeeeee55", 5, task="mnli", quant="w8a8", method={"kind": "ptq"}, failed=True)
    problem = refusal("mnli", runs)
    assert "eeeeeeee" in problem and "the loss is nan" in problem and "\n" not in problem


def test_names_of_several_tasks_are_refused(runs: Path) -> None:
    problem = refusal("w8a8", runs)
    assert "cola, mrpc" in problem and "cola/w8a8" in problem


def test_the_beginning_of_several_keys_lists_them(runs: Path) -> None:
    first, *listed = refusal("aaaaaaaa", runs).splitlines()
    assert "2 keys" in first
    assert [line.split()[0] for line in listed] == ["aaaaaaaa33", "aaaaaaaa11"]


@pytest.mark.parametrize("trial", [{"source": "sample"}, {"budget": {"name": "smoke", "train_steps": 4}}])
def test_a_newer_trial_is_not_taken_for_the_result(trial: dict[str, Any], runs: Path) -> None:
    leave(runs, "ffffffff66", 6, quant="w4a8", method={"kind": "ptq"}, **trial)
    problem = refusal("mrpc/w4a8", runs)
    assert "ffffffff" in problem and "bbbbbbbb" in problem and "trial" in problem
    assert choose_run("last", runs).record.key == "ffffffff66"
    leave(runs, "abababab77", 7, quant="w4a8", method={"kind": "ptq"}, seed=3)
    assert choose_run("mrpc/w4a8", runs).record.key == "abababab77"


def test_a_name_that_is_also_the_beginning_of_a_key_is_refused(runs: Path) -> None:
    leave(runs, "cafe000000", 7, quant="w4a8", method={"kind": "ptq"})
    leave(runs, "9999999999", 8, quant="w4a8", method={"kind": "ptq"}, tags=["cafe"])
    assert "and a name" in refusal("cafe", runs)


def test_a_failed_rerun_hides_no_result(runs: Path) -> None:
    leave(runs, "bbbbbbbb22-failed", 8, quant="w4a8", method={"kind": "ptq"}, failed=True)
    assert choose_run("bbbbbbbb", runs).record.key == "bbbbbbbb22"
    assert choose_run("bbbbbbbb22-failed", runs).record.status == "failed"


def test_a_path_is_a_path(runs: Path) -> None:
    assert choose_run(str(runs / "records" / "bbbbbbbb22.json"), runs).record.key == "bbbbbbbb22"


def test_nothing_of_that_name_lists_runs_and_marks_failed_ones(runs: Path) -> None:
    first, *listed = refusal("mrcp", runs).splitlines()
    assert "last, TASK, TASK/QUANT" in first
    assert listed[0].endswith(", failed") and len(listed) == 4
    assert "no Records" in refusal("mrpc", runs / "elsewhere")
