"""Turns, medians of ratios within a round, tables and files."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import harness
from benchmarks.harness import Reading, alternate, seconds, show, show_rows, version, write


class Clock:
    """A clock that calls move on by themselves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def call(self, name: str, durations: list[float]) -> Callable[[], None]:
        """A call that takes these durations in turn, after a warm-up of a thousand seconds."""
        left = iter([1000.0, *durations])

        def run() -> None:
            self.order.append(name)
            self.now += next(left)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(harness, "time", found)
    return found


def test_seconds_is_the_time_of_one_call(clock: Clock) -> None:
    call = clock.call("a", [2.5])
    call()
    assert seconds(call) == 2.5


@given(pairs=st.lists(st.tuples(st.floats(0.125, 8.0), st.floats(0.125, 8.0)), min_size=1, max_size=9))
def test_readings_are_medians_within_rounds_and_the_warm_up_does_not_count(
    pairs: list[tuple[float, float]],
) -> None:
    clock, patch = Clock(), pytest.MonkeyPatch()
    patch.setattr(harness, "time", clock)
    base, other = [list(each) for each in zip(*pairs, strict=True)]
    try:
        found = alternate(
            {"other": clock.call("other", other), "base": clock.call("base", base)}, len(pairs), "base"
        )
    finally:
        patch.undo()
    ratios = [b / a for a, b in pairs]
    assert list(found) == ["other", "base"]
    assert found["base"].ratio == pytest.approx(1.0)
    assert found["other"].seconds == pytest.approx(statistics.median(other))
    assert found["other"].fastest == pytest.approx(min(other))
    assert found["other"].ratio == pytest.approx(statistics.median(ratios))
    assert found["other"].least == pytest.approx(min(ratios))
    assert found["other"].largest == pytest.approx(max(ratios))


def test_no_variant_always_follows_the_same_one(clock: Clock) -> None:
    names, rounds = ["a", "b", "c", "d"], 40
    alternate({name: clock.call(name, [1.0] * rounds) for name in names}, rounds, "a")
    warm, timed = clock.order[:4], clock.order[4:]
    assert warm == names
    assert all(sorted(timed[at : at + 4]) == names for at in range(0, len(timed), 4))
    pairs = Counter((timed[at], timed[at + 1]) for at in range(len(timed) - 1) if at % 4 != 3)
    assert all(pairs[first, second] >= 2 for first in names for second in names if first != second)


def test_turns_are_the_same_in_every_run(clock: Clock) -> None:
    orders = []
    for _ in range(2):
        clock.order.clear()
        alternate({name: clock.call(name, [1.0] * 5) for name in "abc"}, 5, "a")
        orders.append(list(clock.order))
    assert orders[0] == orders[1]


@pytest.mark.parametrize(("rounds", "baseline"), [(3, "x"), (0, "a")])
def test_a_baseline_that_is_missing_or_no_round_is_refused(rounds: int, baseline: str) -> None:
    with pytest.raises(ValueError, match=f"baseline '{baseline}' and rounds {rounds}.*one of a"):
        alternate({"a": lambda: None}, rounds, baseline)


def test_show_aligns_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show("title", {"a": Reading(0.0015, 1.0, 1.0, 1.0, 0.001), "longer": Reading(12.0, 8e3, 1.5, 9e3, 11.0)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "title"
    assert len({len(line) for line in lines[2:]}) == 1
    assert lines[3].split() == ["a", "1.500", "1.000", "1.000", "..", "1.000"]
    assert lines[4].split() == ["longer", "12000.000", "8000.000", "1.500", "..", "9000.000"]


def test_show_rows_needs_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows("title", ("", "ms"), [])
    assert capsys.readouterr().out.split() == ["title", "ms"]


def test_write_keeps_readings_and_says_where_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    write(path, {"readings": {"a": Reading(1.0, 2.0, 3.0, 4.0, 5.0)}, "at": tmp_path})
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["readings"]["a"] == {
        "seconds": 1.0, "ratio": 2.0, "least": 3.0, "largest": 4.0, "fastest": 5.0,
    }  # fmt: skip
    assert found["at"] == str(tmp_path)
    surroundings = found["surroundings"]
    assert surroundings["threads"] == torch.get_num_threads()
    assert surroundings["versions"]["torch"] == torch.__version__
    assert surroundings["processor"]
    assert surroundings["date"].endswith("+00:00")


def test_write_without_a_path_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write(None, {"readings": object()})
    assert capsys.readouterr().out == ""


def test_what_has_no_form_in_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object has no form in JSON"):
        write(tmp_path / "result.json", {"readings": object()})


def test_a_package_that_is_missing_has_no_version() -> None:
    assert version("no-such-package-of-qexp") is None
