"""Views of an activity: one that is redrawn on a terminal, and lines at intervals elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from qexp.progress.activity import Activity

LINE_SECONDS = 30.0
"""Seconds between two lines on one stage."""
REFRESHES = 4
"""Redraws of the live view in a second."""


class LiveView:
    """Three lines that are redrawn: the stage, its bar with steps and rate, and the time left."""

    def __init__(self, activity: Activity) -> None:
        self.activity = activity

    def __rich__(self) -> RenderableType:
        """Draw the activity; nothing before its first stage."""
        now, steps = self.activity, self.activity.steps[-1:]
        if not (now.title or steps):
            return Text("")
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=18)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        total = steps[0].total if steps else None
        bar = ProgressBar(total=total, completed=steps[0].done if steps else 0, pulse=total is None, width=18)
        table.add_row(bar, Text(now.describe_steps()))
        place = f"stage {now.place} of {len(now.schedule)}: " if now.schedule and now.title else ""
        title = ", ".join([*([now.title] if now.title else []), *(each.title for each in steps)])
        lines = (f"{place}{title}", now.describe_time_left())
        first, last = (Text(text, no_wrap=True, overflow="ellipsis") for text in lines)
        return Group(first, table, last)


@contextmanager
def live(activity: Activity, console: Console) -> Iterator[None]:
    """Draw the activity at the bottom of the terminal, and leave nothing of it, whatever ends the block."""
    view = Live(
        LiveView(activity),
        console=console,
        refresh_per_second=REFRESHES,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # what is piped stays out of the terminal
    )
    with view:
        yield


def exit_on_sigterm(number: int, frame: Any) -> NoReturn:
    """Handle SIGTERM by an exception, so that leases are released and the terminal gets its cursor back."""
    raise SystemExit(128 + number)


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Use :func:`exit_on_sigterm` within the block, unless another handles the signal already."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def lines(activity: Activity, write: Callable[[str], None], seconds: float = LINE_SECONDS) -> Iterator[None]:
    """Write a line on each stage, or each work outside of stages, whenever it has gone on for ``seconds``."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds / 30):
            if due(activity, seconds):
                write(line(activity))

    due = _Due()
    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Due:
    """Decides when the next line on a stage is due: at each multiple of an interval since its start."""

    def __init__(self) -> None:
        self._of: tuple[float, int] = (0.0, 0)

    def __call__(self, activity: Activity, seconds: float) -> bool:
        started = activity.stage_started if activity.title else _start(activity)
        if started is None:
            return False
        count = int((time.monotonic() - started) / seconds)
        new = count > 0 and self._of != (started, count)
        self._of = (started, count) if new else self._of
        return new


def _start(activity: Activity) -> float | None:
    return activity.steps[-1].started if activity.steps else None


def line(activity: Activity) -> str:
    """Return one line on the current stage, or on work outside of stages."""
    steps = activity.steps[-1:]
    title = activity.title or (steps[0].title if steps else "")
    return f"  {activity.number}{title}: {activity.describe()}"
