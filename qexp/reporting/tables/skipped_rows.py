"""Notes on rows that runs could not use, from the warnings in their Records."""

from __future__ import annotations

from collections.abc import Iterable

from qexp.data.skipped import SKIPPED
from qexp.reporting.attempts import describe
from qexp.reporting.run_view import RunView
from qexp.reporting.tables.footnotes import more


def skipped_notes(runs: Iterable[RunView]) -> list[str]:
    """Return a note for each reason, with share and first ids, and names of runs if others used the rows."""
    all_runs, found = [*runs], dict[str, list[RunView]]()
    for run in all_runs:
        for warning in run.record.warnings:
            if SKIPPED in warning:
                found.setdefault(warning, []).append(run)
    return [
        f"rows left out: {warning}" + (_names(skipping) if len(skipping) < len(all_runs) else "")
        for warning, skipping in found.items()
    ]


def _names(runs: list[RunView]) -> str:
    names = [*dict.fromkeys(map(describe, runs))]
    return f" ({'; '.join(names[:3])}{more(names[3:])})"
