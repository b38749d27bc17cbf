"""What a tracker is: something that opens a page for a run and fills it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from qexp.artifacts import digest
from qexp.records.schema import Curve

Cell = str | float | int | None
Picture = NDArray[np.uint8]
"""Red, green and blue, [height, width, 3]."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_LEAST_SECRET = 6
"""Characters of a value that is worth hiding; shorter ones occur everywhere."""


@dataclass(frozen=True)
class Page:
    """What is known of a run before it has results; the same run has the same page, however often it runs."""

    key: str
    """Run key; names the page."""
    name: str
    """For people, such as ``mrpc-w8a8-qat-s1``."""
    group: str | None
    """Id of the sweep."""
    job_type: str
    """Name of the task."""
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    """The resolved experiment, as JSON, without its tracker."""


@dataclass(frozen=True)
class Table:
    """Rows of plain cells."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Content:
    """What a Record has to show."""

    status: Literal["ok", "failed"]
    summary: Mapping[str, Cell]
    """Single values by name, such as ``ptq/f1`` in percent; what is undefined is left out."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Losses by training: ``fp32 control qat``."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    graph: Path | None = None
    """The exported ONNX file of the last stage."""

    @property
    def scores(self) -> dict[str, float]:
        """Numbers of the summary."""
        return {name: float(value) for name, value in self.summary.items() if isinstance(value, int | float)}


@dataclass(frozen=True)
class Filed:
    """What stands on a page since a run last filled it; kept beside the results, so that nothing doubles."""

    target: str
    """Where the page is, as the tracker names it."""
    status: Literal["ok", "failed"]
    digest: str
    """Of the page and its content."""
    folder: str
    """Local files of the page."""
    curves: Mapping[str, str] = field(default_factory=dict)
    """Digest of each curve on the page."""


@dataclass(frozen=True)
class Closed:
    """What came of filling a page."""

    folder: Path
    """Its local files."""
    curves: Mapping[str, str]
    """Digest of each curve on it."""
    unsent: str = ""
    """What is to be done if not all of it has arrived."""


class Tracker(Protocol):
    """One page in one place. Methods may raise anything; :class:`qexp.tracking.mirror.Mirror` copes."""

    target: str
    """Where pages go, without any secret."""
    takes_graphs: bool
    """Whether a page has the exported ONNX file."""

    def holds(self, filed: Filed) -> bool:
        """Whether the page that was filled is still to be had."""

    def open(self, page: Page, filed: Filed | None) -> str:
        """Open the page, a new one or that which was filled before; a word on where it is."""

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        """Show the scores of a stage (percent, by metric) of a run that goes on."""

    def close(self, content: Content, pictures: Mapping[str, Picture]) -> Closed:
        """Fill the page that was opened, and finish it."""


def digest_of(page: Page, content: Content) -> str:
    """Hash of what a page shows: the same for the same results, whenever they were computed."""
    shown = asdict(content) | {"graph": content.graph and content.graph.parent.name}
    return digest({"page": asdict(page), "content": shown})


def curve_digests(curves: Mapping[str, Curve]) -> dict[str, str]:
    """Hash of each curve."""
    return {name: digest(dict(curve)) for name, curve in curves.items()}


def without_secrets(text: str) -> str:
    """The first line of a text, with values of the environment that look like secrets replaced by names."""
    line = next(iter(text.strip().splitlines()), "")
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _LEAST_SECRET:
            line = line.replace(value, f"${name}")
    return line if len(line) <= 300 else f"{line[:299]}…"
