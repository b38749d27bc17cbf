"""What a tracker is: something that opens a page for a run and fills it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from qexp.records import Curve
from qexp.store import digest

Cell = str | float | int | None
Picture = NDArray[np.uint8]
"""Red, green and blue, [height, width, 3]."""


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
    """Losses by training: ``fp32 qat``."""
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

    def close(self, content: Content, pictures: Mapping[str, Picture]) -> tuple[Path, str]:
        """Fill the page that was opened, and finish it.

        Returns:
            The folder of its local files, and what is to be done if not all of it has arrived, else "".
        """


def digest_of(page: Page, content: Content) -> str:
    """Hash of what a page shows: the same for the same results, whenever they were computed."""
    shown = asdict(content) | {"graph": content.graph and content.graph.parent.name}
    return digest({"page": asdict(page), "content": shown})


def curve_digests(curves: Mapping[str, Curve]) -> dict[str, str]:
    """Hash of each curve."""
    return {name: digest(dict(curve)) for name, curve in curves.items()}
