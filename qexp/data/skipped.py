"""Rows that cannot be used: counted by reason, told with their share, and refused where they are many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qexp.errors import DataError

FIRST_IDS = 5
"""Number of skipped rows, per reason, whose ids are reported."""

SKIPPED = " rows skipped, "
"""Words between number and reason, by which reports find these sentences among the warnings of a Record."""


@dataclass(frozen=True)
class Skipped:
    """Rows that were skipped for one reason.

    Attributes:
        reason: Why the rows cannot be used.
        rows: Number of rows.
        first_ids: Ids of the first :data:`FIRST_IDS` rows.
    """

    reason: str
    rows: int
    first_ids: tuple[str, ...]

    def __str__(self) -> str:
        """Return a sentence for the Record."""
        more = ", ..." if self.rows > len(self.first_ids) else ""
        return f"{self.rows}{SKIPPED}{self.reason}: {', '.join(self.first_ids)}{more}"


class RowErrors:
    """Counter of the rows that cannot be used, by reason.

    Args:
        strict: Raise at the first such row instead of counting it.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._found: dict[str, Skipped] = {}

    def add(self, row: int, name: str, reason: str, detail: str = "") -> None:
        """Count a row that cannot be used.

        Raises:
            DataError: ``strict`` is set.
        """
        if self._strict:
            where = f"row {row} (counted from 0, id {name})"
            raise DataError(f"{where}: {reason}{detail}; correct or drop it, or allow bad rows to be skipped")
        previous = self._found.get(reason, Skipped(reason, 0, ()))
        ids = previous.first_ids if previous.rows >= FIRST_IDS else (*previous.first_ids, name)
        self._found[reason] = Skipped(reason, previous.rows + 1, ids)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Skipped rows by reason, in the order of the first row of each reason."""
        return tuple(self._found.values())


COUNTS = "counts.json"
"""File beside the tokens of a split of questions, with its skipped rows."""


def skipped_in(folder: Path) -> tuple[Skipped, ...]:
    """Return the rows that were skipped when the split in a folder was tokenized."""
    if not (file := folder / COUNTS).is_file():
        return ()
    reasons = json.loads(file.read_text(encoding="utf-8"))["skipped"]
    return tuple(Skipped(each["reason"], each["rows"], tuple(each["first_ids"])) for each in reasons)


def notes_on_skipped(skipped: Sequence[Skipped], rows: int, where: str, most: float) -> tuple[str, ...]:
    """Return a sentence for each reason, with the share of the rows.

    Args:
        skipped: Rows that were skipped.
        rows: All rows, the skipped ones among them.
        where: Name of the rows.
        most: Largest share that may be skipped, ``data.max_skipped``.

    Raises:
        DataError: More of the rows were skipped.
    """
    lost = sum(each.rows for each in skipped)
    sentences = tuple(f"{where}: {each} ({_percent(each.rows / rows)} of {rows})" for each in skipped)
    if lost > most * rows:
        raise DataError(
            f"{'; '.join(sentences)}; allowed is a share of data.max_skipped={most:g}; correct the rows, or "
            f"allow more with data.max_skipped={_rounded_up(lost / rows)}"
        )
    return sentences


def _rounded_up(share: float) -> str:
    return f"{min(1.0, int(share * 100 + 1) / 100):g}"


def _percent(share: float) -> str:
    """Return a share in percent, with two digits below 10 %."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
