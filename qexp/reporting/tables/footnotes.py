"""Footnotes of tables on failures and missing numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qexp.records.outcome import outcome_of_several
from qexp.reporting.attempts import describe, first_line
from qexp.reporting.run_view import RunView
from qexp.reporting.table import DAGGER, DOUBLE_DAGGER, KEY_LENGTH, joined


@dataclass
class Footnotes:
    """Numbered footnotes on failures and missing numbers; runs with the same cause share one number."""

    causes: dict[str, list[str]] = field(default_factory=dict)

    def mark(self, runs: Sequence[RunView]) -> str:
        """Return ``failed [1]``, ``failed [1, 2]`` for several causes, or ``interrupted [1]``."""
        ended = outcome_of_several([run.record for run in runs])
        return f"{ended} {self.explain((run, first_line(run)) for run in runs)}"

    def explain(self, reasons: Iterable[tuple[RunView, str, str] | tuple[RunView, str]]) -> str:
        """Return the numbers of the reasons of runs, such as ``[1, 2]``; empty without any.

        Args:
            reasons: Runs, the reason of each, and what of it is of this run alone, such as a number.
        """
        numbers = dict.fromkeys(self._number(run, why, *own) for run, why, *own in reasons)
        return f"[{joined(list(numbers))}]" if numbers else ""

    def lines(self) -> list[str]:
        """Return lines such as ``[1] TrainingError: … (minilm w8a8 qat seed 1; …)``."""
        return [
            f"[{number}] {cause} ({'; '.join(runs[:3])}{more(runs[3:])})"
            for number, (cause, runs) in enumerate(self.causes.items(), 1)
        ]

    def _number(self, run: RunView, cause: str, own: str = "") -> int:
        runs, name = self.causes.setdefault(cause, []), f"{describe(run)}{own and f': {own}'}"
        if name not in runs:
            runs.append(name)
        return list(self.causes).index(cause) + 1


def notes_by_cause(notes: Iterable[tuple[str, RunView, str]]) -> list[str]:
    """Return one note for each cause, such as ``3edc1ae5 a/fp32, a/int8; 5779c33e a/int8: too large``.

    Args:
        notes: Cause, with its mark if it has one, the run, and what of the run it is about.
    """
    causes: dict[str, dict[str, list[str]]] = {}
    for cause, run, what in notes:
        of_run = causes.setdefault(cause, {}).setdefault(run.record.key[:KEY_LENGTH], [])
        if what not in of_run:
            of_run.append(what)
    lines = []
    for cause, runs in causes.items():
        places = "; ".join(f"{key} {joined(whats)}" for key, whats in runs.items())
        mark = next((f"{each} " for each in (DAGGER, DOUBLE_DAGGER) if cause.startswith(each)), "")
        lines.append(f"{mark}{places}: {cause.removeprefix(mark)}")
    return lines


def more(runs: Sequence[str]) -> str:
    """Return how many runs are not named, such as ``; and 2 more``; empty without any."""
    return f"; and {len(runs)} more" if runs else ""
