"""Interface of trackers, which open a page for a run and fill it, and the values they exchange."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qexp.artifacts import digest
from qexp.records.outcome import Outcome
from qexp.records.schema import Curve

Cell = str | float | int | None
Picture = NDArray[np.uint8]
"""RGB image, [height, width, 3]."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
"""User and password in an address."""
_LEAST_SECRET = 6
"""Minimum length of a value to hide; shorter values occur everywhere."""


@dataclass(frozen=True)
class Page:
    """Page of a run before it has results; repeated executions of a run share one page."""

    key: str
    """Key of the run, which identifies the page."""
    name: str
    """Display name, such as ``mrpc-w8a8-qat-s1``."""
    group: str | None
    """Id of the sweep; None outside a sweep."""
    job_type: str
    """Name of the task."""
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    """Resolved experiment as JSON, without its tracker, tags and note."""
    note: str | None = None
    """The user's sentence about the run."""


@dataclass(frozen=True)
class CellTable:
    """Table of plain cells."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class PageContent:
    """What a page shows of a Record."""

    status: Outcome
    summary: Mapping[str, Cell]
    """Single values by name, such as ``ptq/f1`` in percent; undefined values are left out."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Loss curves by training: ``fp32 control qat``."""
    tables: Mapping[str, CellTable] = field(default_factory=dict)
    graph: Path | None = None
    """Exported ONNX file of the last stage."""
    scatters: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Columns x and y of the tables that a tracker with scatter plots draws, by the table's name."""

    @property
    def scores(self) -> dict[str, float]:
        """Values of the summary that are numbers."""
        return {name: float(value) for name, value in self.summary.items() if isinstance(value, int | float)}


@dataclass(frozen=True)
class PageState:
    """State of a page since a run last filled it; stored beside the results to avoid duplicates."""

    target: str
    """Location of the page, as the tracker names it."""
    status: Outcome
    digest: str
    """Digest of the page and its content."""
    folder: str
    """Folder of the page's local files."""
    curves: Mapping[str, str] = field(default_factory=dict)
    """Digest of each curve on the page."""
    id: str = ""
    """Id of the page, if the tracker has one besides its folder."""


@dataclass(frozen=True)
class CloseResult:
    """Result of filling a page."""

    folder: Path
    """Folder of the page's local files."""
    curves: Mapping[str, str]
    """Digest of each curve on the page."""
    unsent: str = ""
    """Message on what is missing from the page and how to send it; empty if it is complete."""
    id: str = ""
    """Id of the page, if the tracker has one besides its folder."""


class Tracker(Protocol):
    """Tracker of one page.

    Methods may raise any exception, which :class:`qexp.tracking.mirror.Mirror` handles.
    """

    target: str
    """Destination of pages, without any secret."""
    takes_graphs: bool
    """Whether a page stores the exported ONNX file."""

    def holds(self, filed: PageState) -> bool:
        """Return whether the page that was filled is still available."""

    def open(self, page: Page, filed: PageState | None) -> str:
        """Open a new page, or the one filled before, and return a message on its location."""

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Show the scores of a stage (percent, by metric) while the run continues."""

    def close(self, content: PageContent, pictures: Mapping[str, Picture]) -> CloseResult:
        """Fill and finish the open page."""


def digest_of(page: Page, content: PageContent) -> str:
    """Return a hash of what a page shows, which is the same for the same results whenever computed."""
    shown = asdict(content) | {"graph": content.graph and content.graph.parent.name}
    return digest({"page": asdict(page), "content": shown})


def curve_digests(curves: Mapping[str, Curve]) -> dict[str, str]:
    """Return the hash of each curve."""
    return {name: digest(dict(curve)) for name, curve in curves.items()}


def without_secrets(text: str) -> str:
    """Return the first line of a text, at most 300 characters, without secrets.

    Values of environment variables with a name that suggests a secret are replaced by this name, and user and
    password in an address by an ellipsis.
    """
    line = _CREDENTIALS.sub("…", next(iter(text.strip().splitlines()), ""))
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _LEAST_SECRET:
            line = line.replace(value, f"${name}")
    return line if len(line) <= 300 else f"{line[:299]}…"
