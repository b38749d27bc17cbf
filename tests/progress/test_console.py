"""Tests of what a run shows while it works: a live view on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from qexp.progress.activity import Activity, ExpectedStage, Steps
from qexp.progress.console import RunConsole
from qexp.progress.durations import duration, total_duration
from qexp.progress.views import LiveView, line

SCHEDULE = (
    ExpectedStage("a", there=True, seconds=100.0),
    ExpectedStage("b", there=False, seconds=40.0),
    ExpectedStage("a", there=True, seconds=100.0),
    ExpectedStage("c", there=False, seconds=20.0),
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def _console(terminal: bool, **more: object) -> tuple[RunConsole, io.StringIO]:
    file = io.StringIO()
    made = Console(file=file, force_terminal=terminal, width=80, highlight=False)
    return RunConsole(console=made, **more), file  # type: ignore[arg-type]


def test_a_stage_has_its_number_also_where_an_artifact_is_needed_twice() -> None:
    activity, numbers = Activity(SCHEDULE), []
    for key in ("a", "b", "a", "unplanned", "c"):
        activity.enter("6-scores PTQ", key)
        numbers.append(activity.place)
    assert numbers == [1, 2, 3, 3, 4]
    assert activity.number == "[4/4] "


def test_time_left_is_that_of_the_steps_and_of_stages_that_are_not_there() -> None:
    activity = Activity(SCHEDULE)
    activity.enter("2-fp32", "b")
    assert activity.describe_time_left() == "40 s left; run: 1 min 0 s left"
    steps = Steps("fine-tune", total=100, unit="steps", rows=32, started=time.monotonic() - 20)
    steps.advance(25, note="loss 0.350")
    activity.steps.append(steps)
    assert activity.describe() == "25/100 steps, loss 0.350, 40 rows/s, 1 min 0 s left; run: 1 min 20 s left"
    assert line(activity).startswith("  [2/4] 2-fp32: 25/100 steps")


def test_a_resumed_training_has_the_rate_of_its_own_steps() -> None:
    steps = Steps("fine-tune", total=100, done=90, unit="steps", started=time.monotonic() - 10)
    steps.advance(5)
    assert steps.rate == pytest.approx(0.5, rel=0.01)
    assert steps.seconds_left == pytest.approx(10, rel=0.01)


def test_unknown_times_are_said_to_be_unknown() -> None:
    activity = Activity((ExpectedStage("a", False, None), ExpectedStage("b", False, 5.0)))
    activity.enter("2-fp32", "a")
    assert activity.describe_time_left() == "run: at least 5 s left"
    assert total_duration([None, None]) == "unknown"
    assert [duration(each) for each in (8, 250, 3900)] == ["8 s", "4 min 10 s", "1 h 5 min"]


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_live_view_takes_three_lines(width: int) -> None:
    activity = Activity(SCHEDULE)
    activity.enter("8-parity onnxruntime/int8", "b")
    activity.steps.append(Steps("a title of a benchmark that is very long" * 3, total=400, done=40))
    console = Console(file=io.StringIO(), width=width)
    lines = console.render_lines(LiveView(activity))
    assert len(lines) == 3
    assert "stage 2 of 4: 8-parity" in "".join(segment.text for segment in lines[0])


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_terminal_gets_its_cursor_back_and_each_message_once(error: type[BaseException] | None) -> None:
    console, file = _console(terminal=True)
    try:
        with console.running(SCHEDULE), console.stage("2-fp32", "b"), console.bar("fine-tune", 10) as advance:
            console.starts("2-fp32")
            advance(4)
            time.sleep(0.6)
            console.info("a message")
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    written = file.getvalue()
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1
    assert written.count("a message") == 1
    assert "starts" not in written
    assert "4/10 rows" in written
    assert ESCAPES.sub("", written.rsplit("\n", 1)[-1]).strip() == ""


def test_elsewhere_a_long_stage_has_lines_with_times() -> None:
    console, file = _console(terminal=False, line_seconds=0.3)
    with console.running(SCHEDULE), console.stage("2-fp32", "b"):
        console.starts("2-fp32")
        with console.bar("fine-tune", total=10, unit="steps") as advance:
            advance(4, note="loss 0.350")
            time.sleep(0.75)
    lines = file.getvalue().splitlines()
    assert re.fullmatch(r"  \[2/4\] 2-fp32: starts at \d\d:\d\d:\d\d", lines[0])
    assert len(lines) == 3
    assert all(each.startswith("  [2/4] 2-fp32: 4/10 steps, loss 0.350") for each in lines[1:])
    assert "\x1b" not in file.getvalue()


def test_a_short_stage_has_no_lines_between_start_and_end() -> None:
    console, file = _console(terminal=False)
    with console.running(SCHEDULE), console.stage("2-fp32", "b"), console.bar("fine-tune", total=10):
        pass
    assert file.getvalue() == ""


def test_without_progress_nothing_is_drawn() -> None:
    console, file = _console(terminal=True, progress=False)
    with console.running(SCHEDULE), console.stage("2-fp32", "b"), console.bar("fine-tune", 10):
        console.starts("2-fp32")
    assert file.getvalue() == ""


def test_runs_that_share_a_terminal_have_lines_with_their_prefix() -> None:
    console, file = _console(terminal=True, prefix="[1] ")
    with console.running(SCHEDULE), console.stage("2-fp32", "b"):
        console.starts("2-fp32")
    assert file.getvalue().startswith("[1]   [2/4] 2-fp32: starts")
    assert "\x1b[?25l" not in file.getvalue()


def test_what_is_piped_stays_out_of_the_view(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console, file = _console(terminal=True)
    with console.running(SCHEDULE):
        print("a row")
    assert capsys.readouterr().out == "a row\n"
    assert "a row" not in file.getvalue()
