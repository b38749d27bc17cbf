"""Mirror between a run and its tracker, which never lets a tracker stop the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qexp.config import Experiment, NoTracker, Tensorboard, Wandb
from qexp.errors import ConfigError
from qexp.progress.console import RunConsole
from qexp.records.record import Record, write_text
from qexp.tracking.content import content_of, page_of
from qexp.tracking.figures import draw
from qexp.tracking.tensorboard import TensorboardPage
from qexp.tracking.tracker import Page, PageState, Tracker, digest_of, without_secrets
from qexp.tracking.wandb import WandbPage

PAGES: dict[type[Any], Callable[[Any, Path], Tracker]] = {Wandb: WandbPage, Tensorboard: TensorboardPage}
"""Tracker by the class of its configuration section."""


def mirror_of(
    experiment: Experiment, console: RunConsole, outputs: Path, group: str | None = None
) -> Mirror | None:
    """Return the mirror that an experiment configures, or None without a tracker.

    Args:
        experiment: Experiment of the run.
        console: Console for messages and warnings.
        outputs: Folder that the run writes to.
        group: Id of the sweep that the run belongs to.

    Raises:
        ConfigError: If the tracker's package is not installed.
    """
    config = experiment.tracker
    if isinstance(config, NoTracker):
        return None
    try:
        version(config.kind)
    except PackageNotFoundError:
        raise ConfigError(
            f"tracker={config.kind}: the package {config.kind} is not installed; install it with "
            f"pip install 'qexp[{config.kind}]', or drop tracker=…"
        ) from None
    return Mirror(experiment, console, outputs, group)


@dataclass
class Mirror:
    """Page of a run in its tracker.

    An error in the tracker causes one warning and ends the mirroring, but never the run.
    """

    experiment: Experiment
    console: RunConsole
    outputs: Path
    group: str | None = None
    _source: str | None = None
    _tracker: Tracker | None = None
    """Tracker of the open page."""
    _lost: bool = False

    def found(self, key: str, source: str) -> None:
        """Open the page of a run that starts, unless it already shows a result."""
        self._source = source
        self._safely(lambda: self._begin(key))

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Show the scores of a stage while the run continues."""
        if self._tracker is not None:
            self._safely(partial(self._tracker.scored, stage, scores))

    def ends(self, record: Record) -> None:
        """Fill the page with a Record, unless it already shows this Record or an earlier success."""
        self._safely(lambda: self._end(record))

    def _begin(self, key: str) -> None:
        tracker = self._new()
        filed = self._filed(key, tracker)
        if filed is None or filed.status != "ok":
            self._open(tracker, self._page(key), filed)

    def _end(self, record: Record) -> None:
        page, tracker = self._page(record.key), self._tracker or self._new()
        filed = self._filed(page.key, tracker)
        if filed and filed.status == "ok" and record.status == "failed":
            self._say(f"the page keeps its earlier result: {filed.folder}")
            return
        content = content_of(record, self.outputs, self.console.warn)
        content = content if tracker.takes_graphs else replace(content, graph=None)
        digest = digest_of(page, content)
        if self._tracker is None:
            if filed and filed.digest == digest:
                self._say(f"the page shows this already: {filed.folder}")
                return
            self._open(tracker, page, filed)
        result = tracker.close(content, draw(content))
        if result.unsent:
            self._warn(result.unsent)
            digest = ""  # matches nothing, so that the same run fills the page again
        state = PageState(
            tracker.target,
            content.status,
            digest=digest,
            folder=str(result.folder),
            curves=dict(result.curves),
        )
        write_text(self._file(page.key), json.dumps(asdict(state), indent=1) + "\n")

    def _open(self, tracker: Tracker, page: Page, filed: PageState | None) -> None:
        self._say(tracker.open(page, filed))
        self._tracker = tracker

    def _page(self, key: str) -> Page:
        return page_of(self.experiment, key, self._source, self.group)

    def _new(self) -> Tracker:
        config = self.experiment.tracker
        return PAGES[type(config)](config, self.outputs)

    def _file(self, key: str) -> Path:
        return self.outputs / "tracked" / self.experiment.tracker.kind / f"{key}.json"

    def _filed(self, key: str, tracker: Tracker) -> PageState | None:
        """Return what an earlier run filed, if its page has the same target and still exists."""
        try:
            filed = PageState(**json.loads(self._file(key).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # missing or truncated, so that the page is filled again
            return None
        return filed if filed.target == tracker.target and tracker.holds(filed) else None

    def _safely(self, action: Callable[[], None]) -> None:
        if self._lost:
            return
        try:
            action()
        except Exception as error:
            self._lost = True
            self._warn(f"{type(error).__name__}: {without_secrets(str(error))}; the run goes on without it")

    def _say(self, message: str) -> None:
        self.console.info(f"{self.experiment.tracker.kind}: {without_secrets(message)}")

    def _warn(self, message: str) -> None:
        self.console.warn(f"tracker={self.experiment.tracker.kind}: {message}")
