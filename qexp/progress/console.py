"""Messages of a run, and the view of what it does at the moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console

from qexp.progress.activity import Activity, ExpectedStage, Steps
from qexp.progress.views import LINE_SECONDS, exiting_on_sigterm, lines, live


@dataclass
class RunConsole:
    """Messages and progress of a run, on standard error so that tables can be piped.

    A terminal has one live view. Elsewhere, and where several runs share a terminal, each stage has a line at
    its start and its end, and one each ``line_seconds`` between them.
    """

    progress: bool = True
    prefix: str = ""
    """Prefix of every message, for runs that share a terminal."""
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    warnings: list[str] = field(default_factory=list)
    line_seconds: float = LINE_SECONDS
    activity: Activity = field(default_factory=Activity)
    _shown: bool = False

    @property
    def is_live(self) -> bool:
        """Whether progress is a view that is redrawn."""
        return self.progress and self.console.is_terminal and not self.prefix

    @property
    def has_lines(self) -> bool:
        """Whether progress is lines with times."""
        return self.progress and not self.is_live

    def info(self, message: str) -> None:
        """Print a message on one line."""
        self.console.print(f"{self.prefix}{message}", soft_wrap=True, markup=False)

    def warn(self, message: str) -> None:
        """Print a warning, and keep it for the Record."""
        self.warnings.append(message)
        self.console.print(f"{self.prefix}warning: {message}", style="yellow", soft_wrap=True, markup=False)

    def waiting(self, stage: str) -> None:
        """Report that another process is building the artifact that this one needs."""
        self.info(f"{stage}: another process builds this; waiting for it")

    @contextmanager
    def running(self, schedule: Sequence[ExpectedStage] = ()) -> Iterator[None]:
        """Show progress for a whole run, which is going to visit the stages of the schedule."""
        self.activity = Activity(schedule)
        with exiting_on_sigterm(), self._view():
            yield

    @contextmanager
    def stage(self, title: str, key: str) -> Iterator[None]:
        """Show a stage as the current one."""
        self.activity.enter(title, key)
        try:
            yield
        finally:
            self.activity.leave()

    def starts(self, title: str) -> None:
        """Write a line that a stage is being built, where there is no live view."""
        if self.has_lines:
            self.info(f"  {self.activity.number}{title}: starts at {datetime.now():%H:%M:%S}")

    @contextmanager
    def bar(
        self, title: str, total: int | None, done: int = 0, *, unit: str = "rows", rows: float = 1
    ) -> Iterator[Callable[..., None]]:
        """Show the progress of counted work.

        Args:
            title: Name of the work.
            total: Number of steps; None if it is not known.
            done: Steps that are done already.
            unit: What a step is called.
            rows: Rows in a step, the mean where steps differ.

        Yields:
            Function that advances by ``n`` steps, 1 by default, and sets the note beside them.
        """
        steps = Steps(title, total, done, unit, rows=rows)
        self.activity.steps.append(steps)  # before the view is first drawn, and until it has gone
        try:
            with self._view():
                yield steps.advance
        finally:
            self.activity.steps.remove(steps)

    @contextmanager
    def _view(self) -> Iterator[None]:
        """Show the activity, unless it is shown already."""
        if self._shown or not self.progress:
            yield
            return
        view: AbstractContextManager[None]
        if self.is_live:
            view = live(self.activity, self.console)
        else:
            view = lines(self.activity, self.info, self.line_seconds)
        self._shown = True
        try:
            with view:
                yield
        finally:
            self._shown = False
