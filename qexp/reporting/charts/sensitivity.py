"""What quantizing a part of a model costs, as it was measured: file, table and chart."""

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
from qexp.reporting.charts.spec import Lanes
from qexp.reporting.table import NOT_ASKED, Table, points, score

FOLDER = "sensitivity"
"""In the outputs; below it a folder for each run."""
COLUMNS = (
    *("sites", "quantizers", "only they", "loss", "SQNR (dB)"),
    *("all but they", "gain", "SQNR (dB) then"),
)
EXACT = "exact"


@dataclass(frozen=True)
class Level:
    """A model with some of its quantizers."""

    score: float | None
    """Primary metric in percent; null where it is undefined."""
    noise: float | None
    """Share of the power of the float model's logits that the difference to them has; null where a logit is
    no number."""
    sqnr: float | None
    """The same in dB; null where there is no noise, or no number."""


@dataclass(frozen=True)
class GroupLevels:
    """A group of sites, quantized alone, and left alone."""

    name: str
    quantizers: tuple[str, ...]
    only: Level | None = None
    """Only they are quantized; null where it was not come to."""
    but: Level | None = None
    """Everything but they is quantized; null likewise."""


@dataclass(frozen=True)
class Sensitivity:
    """One measurement of a run; plain JSON values inside."""

    run: str
    """Key of the run."""
    title: str
    stage: str
    """``ptq`` or ``qat``."""
    metric: str
    split: str
    rows: int
    by: str
    """``group layer kind``."""
    off: Level | None = None
    """Nothing is quantized."""
    on: Level | None = None
    """Everything is."""
    groups: tuple[GroupLevels, ...] = field(default_factory=tuple)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        levels = [self.off, self.on, *(each for group in self.groups for each in (group.only, group.but))]
        return None not in levels

    @property
    def sorted(self) -> tuple[GroupLevels, ...]:
        """Groups from the one that hurts most, alone, to the one that hurts least."""
        return tuple(sorted(self.groups, key=lambda group: -_hurt(group)))

    def to_json(self) -> str:
        """As a file, every digit kept."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Sensitivity:
        """What :meth:`to_json` left in a file.

        Raises:
            StoreError: it cannot be read, or is of another form.
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
    """What was measured of each run by its groups, by the run's key.

    Raises:
        StoreError: a file cannot be read.
    """
    files = sorted((outputs / FOLDER).glob(f"*/{FOLDER}.json"))
    return {found.run: found for found in map(Sensitivity.read, files)}


def table_of(found: Sensitivity) -> Table:
    """What hurts most comes first."""
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
    return Table(f"Sensitivity of {found.title}", COLUMNS, rows, caption, notes)


def csv_of(found: Sensitivity) -> str:
    """A line for nothing, for everything, and two for each group, with all digits."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(("sites", "quantized", "score", "noise", "sqnr_db"))
    for name, quantized, level in _levels(found):
        write((name, quantized, *(("", "", "") if level is None else asdict(level).values())))
    return text.getvalue()


def chart_of(found: Sensitivity, name: str, group: str) -> Lanes | None:
    """The groups that hurt most when only they are quantized; none where nothing was measured."""
    values = {each.name: each.only.sqnr for each in found.groups if each.only and each.only.sqnr is not None}
    words = f"{group}: measured, with only these sites quantized, {found.stage}"
    return lowest_chart(values, name, group, words, "measured SQNR of the logits (dB), more is better")


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
        return NOT_ASKED
    known = first.score is not None and second.score is not None
    return points(first.score - second.score if known else None)  # type: ignore[operator]


def _score(level: Level | None) -> str:
    return NOT_ASKED if level is None else score(level.score)


def _sqnr(level: Level | None) -> str:
    if level is None:
        return NOT_ASKED
    return f"{level.sqnr:.1f}" if level.sqnr is not None else EXACT if level.noise == 0 else score(None)


def _hurt(group: GroupLevels) -> float:
    """More noise hurts more, no number most; what was not measured comes last."""
    if group.only is None:
        return -1.0
    return float("inf") if group.only.noise is None else group.only.noise


def _level(tree: Any) -> Level | None:
    return None if tree is None else Level(**tree)
