"""Current position of a run: its stage, the steps within it, and an estimate of the time that is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from qexp.progress.durations import duration, total_duration

SETTLED_SECONDS = 1.0
"""Seconds of steps before their rate is shown."""


@dataclass(frozen=True)
class ExpectedStage:
    """Stage that a run is going to visit."""

    key: str
    there: bool
    """Whether its artifact is finished already."""
    seconds: float | None
    """Expected seconds to build it; None if they are unknown."""


@dataclass
class Steps:
    """Counted work within a stage.

    Attributes:
        title: Name of the work.
        total: Number of steps; None if it is not known.
        done: Steps that are done.
        unit: What a step is called, such as ``rows``.
        rows: Rows in a step, the mean where steps differ.
    """

    title: str
    total: int | None
    done: int = 0
    unit: str = "rows"
    rows: float = 1
    note: str = ""
    started: float = field(default_factory=time.monotonic)
    first: int = field(init=False)
    moved: float = field(init=False)
    """Time of the last step."""

    def __post_init__(self) -> None:
        self.first, self.moved = self.done, self.started

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more steps, and set the note that is shown beside them, such as a loss."""
        self.done, self.moved = self.done + n, time.monotonic()
        self.note = note or self.note

    @property
    def rate(self) -> float | None:
        """Steps in a second; None before they settle."""
        seconds = self.moved - self.started
        return (self.done - self.first) / seconds if seconds > SETTLED_SECONDS else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds for the remaining steps at the rate so far; None if it is unknown."""
        if self.total is None or self.rate is None:
            return None
        seconds = (self.total - self.done) / self.rate - (time.monotonic() - self.moved)
        return max(0.0, seconds)

    def describe(self) -> str:
        """Return steps, note and rate, such as ``40/200 steps, loss 0.350, 96 rows/s``."""
        of = "" if self.total is None else f"/{self.total}"
        parts = [f"{self.done}{of} {self.unit}"] if self.total != 1 and (self.done or self.total) else []
        parts += [self.note] if self.note else []
        if self.rate is not None and self.total != 1 and self.unit in ("rows", "steps"):
            parts.append(f"{self.rate * self.rows:.3g} rows/s")
        return ", ".join(parts)


@dataclass
class Activity:
    """State of a run that views draw; the run's thread writes it, and others only read it."""

    schedule: Sequence[ExpectedStage] = ()
    place: int = 0
    """Number of the current stage, from 1; 0 before the first."""
    title: str = ""
    """Name of the current stage and the model it works on; empty between stages."""
    stage_started: float = 0.0
    started: float = field(default_factory=time.monotonic)
    steps: list[Steps] = field(default_factory=list)

    def enter(self, title: str, key: str) -> None:
        """Start a stage; its number is that of its key in the schedule."""
        self.title, self.stage_started = title, time.monotonic()
        keys = [stage.key for stage in self.schedule]
        self.place = keys.index(key, self.place) + 1 if key in keys[self.place :] else self.place

    def leave(self) -> None:
        """End the current stage."""
        self.title = ""

    @property
    def number(self) -> str:
        """Number of the stage such as ``[ 3/15] ``; empty without a schedule."""
        count = len(self.schedule)
        return f"[{self.place:>{len(str(count))}}/{count}] " if count else ""

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the current stage still takes, by its steps, else by its expected length."""
        if self.steps and (left := self.steps[-1].seconds_left) is not None:
            return left
        expected = self.schedule[self.place - 1].seconds if self.schedule and self.place else None
        return None if expected is None else max(0.0, expected - (time.monotonic() - self.stage_started))

    def describe_time_left(self) -> str:
        """Return the time left for the stage and for the run, as far as it is known."""
        parts, left = [], self.seconds_left
        if left is not None:
            parts.append(f"{duration(left)} left")
        if self.schedule:
            later = [stage.seconds for stage in self.schedule[self.place :] if not stage.there]
            of_run = total_duration([left, *later])
            parts += [f"run: {of_run} left"] if of_run != "unknown" else []
        return "; ".join(parts)

    def describe_steps(self) -> str:
        """Return the steps of the current stage and their rate, else how long it has gone on."""
        steps = self.steps[-1].describe() if self.steps else ""
        if steps or not self.title:
            return steps
        return f"{duration(time.monotonic() - self.stage_started)} so far"

    def describe(self) -> str:
        """Return one line on the current stage: its steps, their rate, and the time left."""
        return ", ".join(part for part in (self.describe_steps(), self.describe_time_left()) if part)
