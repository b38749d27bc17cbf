"""Footnotes of tables on failures and missing numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qexp.records.outcome import outcome_of_several
from qexp.reporting.attempts import describe, first_line
from qexp.reporting.run_view import RunView
from qexp.reporting.table import joined


@dataclass
class Footnotes:
    """Numbered footnotes on failures and missing numbers; runs with the same cause share one number."""

    causes: dict[str, list[str]] = field(default_factory=dict)

    def mark(self, runs: Sequence[RunView]) -> str:
        """Return ``failed [1]``, ``failed [1, 2]`` for several causes, or ``interrupted [1]``."""
        ended = outcome_of_several([run.record for run in runs])
        return f"{ended} {self.explain((run, first_line(run)) for run in runs)}"

    def explain(self, reasons: Iterable[tuple[RunView, str]]) -> str:
        """Return the numbers of the reasons of runs, such as ``[1, 2]``; empty without any."""
        numbers = dict.fromkeys(self._number(run, why) for run, why in reasons)
        return f"[{joined(list(numbers))}]" if numbers else ""

    def lines(self) -> list[str]:
        """Return lines such as ``[1] TrainingError: … (minilm w8a8 qat seed 1; …)``."""
        return [
            f"[{number}] {cause} ({'; '.join(runs[:3])}{more(runs[3:])})"
            for number, (cause, runs) in enumerate(self.causes.items(), 1)
        ]

    def _number(self, run: RunView, cause: str) -> int:
        runs = self.causes.setdefault(cause, [])
        if describe(run) not in runs:
            runs.append(describe(run))
        return list(self.causes).index(cause) + 1


def more(runs: Sequence[str]) -> str:
    """Return how many runs are not named, such as ``; and 2 more``; empty without any."""
    return f"; and {len(runs)} more" if runs else ""
