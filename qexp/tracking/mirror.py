"""Mirrors between a run and its trackers, which never let a tracker stop the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qexp.config import Csv, Experiment, Mlflow, Tensorboard, Wandb
from qexp.config.base import Section
from qexp.errors import ConfigError
from qexp.progress.console import RunConsole
from qexp.records.record import Record, write_text
from qexp.tracking.content import content_of, page_of
from qexp.tracking.csv import CsvPage
from qexp.tracking.figures import draw
from qexp.tracking.mlflow import MlflowPage
from qexp.tracking.tensorboard import TensorboardPage
from qexp.tracking.tracker import (
    Page,
    PageContent,
    PageState,
    Picture,
    Tracker,
    digest_of,
    without_secrets,
)
from qexp.tracking.wandb import WandbPage

PAGES: dict[type[Any], Callable[[Any, Path], Tracker]] = {
    Wandb: WandbPage,
    Tensorboard: TensorboardPage,
    Mlflow: MlflowPage,
    Csv: CsvPage,
}
"""Tracker by the class of its configuration section."""
PACKAGES = {"wandb": ("wandb",), "tensorboard": ("tensorboard",), "mlflow": ("mlflow", "mlflow-skinny")}
"""Distributions that bring a tracker, by its name; any of them does."""


def mirrors_of(
    experiment: Experiment, console: RunConsole, outputs: Path, group: str | None = None
) -> Mirrors:
    """Return the mirrors that an experiment configures, one for each tracker.

    Args:
        experiment: Experiment of the run.
        console: Console for messages and warnings.
        outputs: Folder that the run writes to.
        group: Id of the sweep that the run belongs to.

    Raises:
        ConfigError: If a tracker's package is not installed.
    """
    chosen = experiment.tracker.chosen
    for name in chosen:
        if name in PACKAGES and not any(map(_is_installed, PACKAGES[name])):
            raise ConfigError(
                f"tracker={name}: the package {PACKAGES[name][0]} is not installed; install it with "
                f"pip install 'qexp[{name}]', or drop {name} from tracker=…"
            )
    open_for = partial(Mirror, experiment=experiment, console=console, outputs=outputs, group=group)
    return Mirrors([open_for(name, config) for name, config in chosen.items()])


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


@dataclass
class Mirrors:
    """Pages of a run in all of its trackers; one that fails leaves the others open."""

    pages: Sequence[Mirror] = ()

    def update(self, experiment: Experiment) -> None:
        """Replace the experiment by a more complete one."""
        for page in self.pages:
            page.experiment = experiment

    def found(self, key: str, source: str) -> None:
        """Open the pages of a run that starts."""
        for page in self.pages:
            page.found(key, source)

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Show the scores of a stage while the run continues."""
        for page in self.pages:
            page.scored(stage, scores)

    def ends(self, record: Record) -> None:
        """Fill the pages with a Record, which is read and drawn once for all of them."""
        if self.pages:
            shown = _Shown(record, self.pages[0].outputs, self.pages[0].console.warn)
            for page in self.pages:
                page.ends(shown)


@dataclass(frozen=True)
class _Shown:
    """What pages show of a Record, made when a page first asks for it."""

    record: Record
    outputs: Path
    warn: Callable[[str], None]

    @cached_property
    def content(self) -> PageContent:
        return content_of(self.record, self.outputs, self.warn)

    @cached_property
    def pictures(self) -> Mapping[str, Picture]:
        from qexp.tracking.page_charts import charts_of_run, pictures_of  # loads Altair

        return draw(self.content) | pictures_of(charts_of_run(self.record))


@dataclass
class Mirror:
    """Page of a run in one tracker.

    An error in the tracker causes one warning and ends the mirroring, but never the run.
    """

    name: str
    """Name of the tracker."""
    config: Section
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

    def ends(self, shown: _Shown) -> None:
        """Fill the page with a Record, unless it already shows this Record or an earlier success."""
        self._safely(lambda: self._end(shown))

    def _begin(self, key: str) -> None:
        tracker = self._new()
        filed = self._filed(key, tracker)
        if filed is None or filed.status != "ok":
            self._open(tracker, self._page(key), filed)

    def _end(self, shown: _Shown) -> None:
        record = shown.record
        page, tracker = self._page(record.key), self._tracker or self._new()
        filed = self._filed(page.key, tracker)
        if filed and filed.status == "ok" and record.status == "failed":
            self._say(f"the page keeps its earlier result: {filed.folder}")
            return
        content = shown.content if tracker.takes_graphs else replace(shown.content, graph=None)
        digest = digest_of(page, content)
        if self._tracker is None:
            if filed and filed.digest == digest:
                self._say(f"the page shows this already: {filed.folder}")
                return
            self._open(tracker, page, filed)
        result = tracker.close(content, shown.pictures)
        if result.unsent:
            self._warn(result.unsent)
            digest = ""  # matches nothing, so that the same run fills the page again
        state = PageState(
            tracker.target,
            content.status,
            digest=digest,
            folder=str(result.folder),
            curves=dict(result.curves),
            id=result.id,
        )
        write_text(self._file(page.key), json.dumps(asdict(state), indent=1) + "\n")

    def _open(self, tracker: Tracker, page: Page, filed: PageState | None) -> None:
        self._say(tracker.open(page, filed))
        self._tracker = tracker

    def _page(self, key: str) -> Page:
        return page_of(self.experiment, key, self._source, self.group)

    def _new(self) -> Tracker:
        return PAGES[type(self.config)](self.config, self.outputs)

    def _file(self, key: str) -> Path:
        return self.outputs / "tracked" / self.name / f"{key}.json"

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
        self.console.info(f"{self.name}: {without_secrets(message)}")

    def _warn(self, message: str) -> None:
        self.console.warn(f"tracker={self.name}: {message}")
