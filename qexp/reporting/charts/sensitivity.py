"""Measured sensitivity of a model to the quantization of its parts: file, table and chart."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qexp.errors import StoreError
from qexp.reporting.charts.run import lowest_chart
from qexp.reporting.charts.spec import RangeChart
from qexp.reporting.table import NOT_REQUESTED, Table, points, score

FOLDER = "sensitivity"
"""Folder in the outputs, with a folder for each run."""
COLUMNS = (
    *("sites", "quantizers", "only they", "loss", "SQNR (dB)"),
    *("all but they", "gain", "SQNR (dB) then"),
)
EXACT = "exact"


@dataclass(frozen=True)
class Level:
    """Score and noise of a model with some of its quantizers."""

    score: float | None
    """Primary metric in percent; None if it is undefined."""
    noise: float | None
    """Power of the difference to the float model's logits, as a share of the power of these; None if a logit
    is not finite."""
    sqnr: float | None
    """The noise as SQNR in dB; None if there is no noise or it is undefined."""


@dataclass(frozen=True)
class GroupLevels:
    """Results of quantizing a group of sites alone, and everything but this group."""

    name: str
    quantizers: tuple[str, ...]
    only: Level | None = None
    """Result with only the group quantized; None if it was not measured."""
    but: Level | None = None
    """Result with everything but the group quantized; None if it was not measured."""


@dataclass(frozen=True)
class Sensitivity:
    """Measured sensitivity of one run, as plain JSON values."""

    run: str
    """Key of the run."""
    title: str
    stage: str
    """``ptq`` or ``qat``."""
    metric: str
    split: str
    rows: int
    by: str
    """Division of the sites: ``group layer kind``."""
    off: Level | None = None
    """Result with nothing quantized."""
    on: Level | None = None
    """Result with everything quantized."""
    groups: tuple[GroupLevels, ...] = field(default_factory=tuple)

    @property
    def complete(self) -> bool:
        """Whether every level was measured."""
        levels = [self.off, self.on, *(each for group in self.groups for each in (group.only, group.but))]
        return None not in levels

    @property
    def sorted(self) -> tuple[GroupLevels, ...]:
        """Groups in descending order of noise when quantized alone."""
        return tuple(sorted(self.groups, key=lambda group: -_noise_key(group)))

    def to_json(self) -> str:
        """Serialize to JSON with every digit."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Sensitivity:
        """Read a file that :meth:`to_json` wrote.

        Raises:
            StoreError: If the file cannot be read or is malformed.
        """
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            groups = tuple(
                GroupLevels(
                    each["name"], tuple(each["quantizers"]), _level(each["only"]), _level(each["but"])
                )
                for each in tree["groups"]
            )
            levels = {name: _level(tree[name]) for name in ("off", "on")}
            return cls(**{**tree, **levels, "groups": groups})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path}: no measured sensitivity ({type(error).__name__}: {error}); remove the file, or "
                "measure again with python -m qexp sensitivity"
            ) from None


def measured(outputs: Path) -> Mapping[str, Sensitivity]:
    """Read the measured sensitivity of each run to groups of sites, by the run's key.

    Raises:
        StoreError: If a file cannot be read or is malformed.
    """
    files = sorted((outputs / FOLDER).glob(f"*/{FOLDER}.json"))
    return {sensitivity.run: sensitivity for sensitivity in map(Sensitivity.read, files)}


def table_of(found: Sensitivity) -> Table:
    """Return the table of a measurement, the most sensitive group first."""
    rows = tuple(
        (group.name, str(len(group.quantizers)), *_only(found, group), *_but(found, group))
        for group in found.sorted
    )
    caption = (
        f"{found.metric} in percent on {found.rows} rows of {found.split}; nothing quantized "
        f"{_score(found.off)}, everything quantized {_score(found.on)} (SQNR {_sqnr(found.on)} dB).",
        "Loss: of quantizing only these sites, against nothing; gain: of leaving only these in floating "
        "point, against everything; both in points. SQNR: of the logits against those of nothing quantized.",
    )
    notes = () if found.complete else ("Interrupted: a dash stands for what was not measured.",)
    return Table(f"Sensitivity of {found.title}", COLUMNS, rows=rows, caption=caption, notes=notes)


def csv_of(found: Sensitivity) -> str:
    """Format as CSV: a line for nothing, one for everything and two for each group, with all digits."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(("sites", "quantized", "score", "noise", "sqnr_db"))
    for name, quantized, level in _levels(found):
        write((name, quantized, *(("", "", "") if level is None else asdict(level).values())))
    return text.getvalue()


def chart_of(found: Sensitivity, name: str, group: str) -> RangeChart | None:
    """Return the most sensitive groups when quantized alone; None if nothing was measured."""
    values = {each.name: each.only.sqnr for each in found.groups if each.only and each.only.sqnr is not None}
    words = f"{group}: measured, with only these sites quantized, {found.stage}"
    return lowest_chart(
        values, name, group=group, words=words, axis="measured SQNR of the logits (dB), more is better"
    )


def _levels(found: Sensitivity) -> Iterator[tuple[str, str, Level | None]]:
    yield "", "nothing", found.off
    yield "", "everything", found.on
    for group in found.sorted:
        yield group.name, "only they", group.only
        yield group.name, "all but they", group.but


def _only(found: Sensitivity, group: GroupLevels) -> tuple[str, str, str]:
    return _score(group.only), _difference(found.off, group.only), _sqnr(group.only)


def _but(found: Sensitivity, group: GroupLevels) -> tuple[str, str, str]:
    return _score(group.but), _difference(group.but, found.on), _sqnr(group.but)


def _difference(first: Level | None, second: Level | None) -> str:
    if first is None or second is None:
        return NOT_REQUESTED
    defined = first.score is not None and second.score is not None
    return points(first.score - second.score if defined else None)  # type: ignore[operator]


def _score(level: Level | None) -> str:
    return NOT_REQUESTED if level is None else score(level.score)


def _sqnr(level: Level | None) -> str:
    if level is None:
        return NOT_REQUESTED
    return f"{level.sqnr:.1f}" if level.sqnr is not None else EXACT if level.noise == 0 else score(None)


def _noise_key(group: GroupLevels) -> float:
    """Return a sort key of noise: undefined noise is the largest, and a missing measurement the smallest."""
    if group.only is None:
        return -1.0
    return float("inf") if group.only.noise is None else group.only.noise


def _level(tree: Any) -> Level | None:
    return None if tree is None else Level(**tree)
