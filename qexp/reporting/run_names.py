"""Names of runs on the command line: ``last``, a task, ``task/quant``, or the beginning of a key.

A name is words of a run with slashes between them, in any order: ``mrpc``, ``mrpc/w8a8``, ``mrpc/w4a8/ptq``,
``mrpc/baseline``. Each is the run's task, quant, method, model, recipe, budget, source of rows, or a tag. The
newest run that finished is taken, and what else matched is said.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qexp.errors import StoreError, path_hint
from qexp.records.outcome import outcome
from qexp.records.record import Record, read, read_all, records_folder
from qexp.reporting.attempts import first_line, short_name
from qexp.reporting.run_view import RunView

LAST = "last"
"""Name of the newest run that finished."""
FORMS = "last, TASK, TASK/QUANT, or the beginning of a key"
"""Forms of the name of a run, for help texts."""
SHORT = 8
"""Characters of a key in lists."""
_DEFINITE = 6
"""Characters from which the beginning of a key is not taken for a name."""


@dataclass(frozen=True)
class ChosenRun:
    """Record that a name stands for, and what a reader must know of the choice."""

    record: Record
    note: str | None = None


def choose_run(name: str, outputs: Path) -> ChosenRun:
    """Return the run that a path, a key or a name stands for.

    Raises:
        StoreError: No run matches, only failed ones do, or it is not clear which is meant.
    """
    if Path(name).is_file():
        return ChosenRun(read(Path(name)))
    folder = records_folder(outputs)
    try:
        keys = [file.removesuffix(".json") for file in os.listdir(folder) if file.endswith(".json")]
    except OSError:
        raise StoreError(
            f"{name}: no such file, and no Records in {folder}; name a Record's file, or other outputs with "
            "--outputs"
        ) from None
    begun = [key for key in keys if key.startswith(name) and key[0] != "."]
    begun = [key for key in begun if not key.endswith("-failed")] or begun
    if name in begun or (len(begun) == 1 and len(name) >= _DEFINITE):
        return ChosenRun(read(folder / f"{name if name in begun else begun[0]}.json"))
    runs = [RunView(record) for record in read_all(folder)[0]]
    return _by_name(name, runs, [run for run in runs if run.record.key in begun])


def announced(chosen: ChosenRun) -> Record:
    """Print the note on a chosen run to standard error, and return its Record."""
    if chosen.note:
        print(chosen.note, file=sys.stderr)
    return chosen.record


def _by_name(name: str, runs: Sequence[RunView], begun: Sequence[RunView]) -> ChosenRun:
    """Return the run of a name, or the only one whose key begins with it."""
    asked = set(filter(None, name.split("/")))
    matching = list(runs) if name == LAST else [run for run in runs if asked and asked <= labels_of(run)]
    if begun and (matching or len(begun) > 1):
        also = " and a name" if matching else ""
        raise StoreError(
            f"{name}: the beginning of {len(begun)} keys{also}; write more of the key:\n"
            f"{listed([*begun, *matching])}"
        )
    if begun:
        return ChosenRun(begun[0].record)
    finished = _newest_first(run for run in matching if run.record.status == "ok")
    failed = _newest_first(run for run in matching if run.record.status != "ok")
    if not finished:
        raise StoreError(_none_finished(name, failed, runs))
    _refuse_misleading(name, finished)
    return ChosenRun(finished[0].record, _note(name, finished, failed))


def labels_of(run: RunView) -> set[str]:
    """Return the words that a run can be named by."""
    words = {run.task, run.quant, run.method, run.model, short_name(run.model), run.budget, *run.tags}
    return words | {word for word in (run.record.recipe, run.source) if word}


def _none_finished(name: str, failed: Sequence[RunView], runs: Sequence[RunView]) -> str:
    if failed:
        newest = failed[0]
        return (
            f"{name}: no run of this name has finished; the newest, {newest.record.key[:SHORT]}, "
            f"{_ended(newest)} ({first_line(newest)}); qexp show {newest.record.key[:SHORT]} shows it, and "
            "qexp again runs it again"
        )
    if not runs:
        return f"{name}: there are no runs; make one, such as: qexp task=mrpc quant=w8a8"
    return (
        f"{name}: no such file, and no Record's key begins so or is named so ({FORMS}); "
        f"{path_hint(name)}there are:\n{listed(runs)}"
    )


def _ended(run: RunView) -> str:
    return "was interrupted" if outcome(run.record) == "interrupted" else "failed"


def _refuse_misleading(name: str, finished: Sequence[RunView]) -> None:
    """Refuse a choice between different tasks, or of a trial where there is a result.

    Raises:
        StoreError: The newest run is not what is likely meant.
    """
    newest, others = finished[0], finished[1:]
    if name == LAST:
        return
    if any(run.task != newest.task for run in others):
        tasks = ", ".join(dict.fromkeys(run.task for run in finished))
        raise StoreError(
            f"{name}: runs of several tasks ({tasks}); add the task, such as {newest.task}/{name}"
        )
    real = next((run for run in others if not _is_trial(run)), None)
    if _is_trial(newest) and real is not None:
        raise StoreError(
            f"{name}: the newest run, {newest.record.key[:SHORT]}, is a trial ({_kind(newest)}), and "
            f"{real.record.key[:SHORT]} is older ({_kind(real)}); name one of them by its key"
        )


def _is_trial(run: RunView) -> bool:
    return run.is_synthetic is True or run.budget != "full"


def _kind(run: RunView) -> str:
    return f"{'generated' if run.is_synthetic else 'real'} rows, {run.budget} budget"


def _note(name: str, finished: Sequence[RunView], failed: Sequence[RunView]) -> str | None:
    """Return which run was taken and why, where the name leaves a choice; None where it leaves none."""
    taken = finished[0]
    newer = [run for run in failed if run.record.finished_at > taken.record.finished_at]
    if name != LAST and len(finished) == 1 and not newer:
        return None
    others = f"the newest of {len(finished)} that finished" if name != LAST and len(finished) > 1 else ""
    failures = f"{newer[0].record.key[:SHORT]} is newer and {_ended(newer[0])}" if newer else ""
    why = "; ".join(filter(None, (others, failures)))
    return f"{name}: {taken.record.key[:SHORT]}, {summary(taken)}{f' ({why})' if why else ''}"


def summary(run: RunView) -> str:
    """Return the settings that tell runs apart, such as ``mrpc MiniLM w8a8 qat seed 1``."""
    trial = [_kind(run)] if _is_trial(run) else []
    return ", ".join(
        [f"{run.task} {short_name(run.model)} {run.quant} {run.method} seed {run.seed}", *trial, *run.tags]
    )


def listed(runs: Iterable[RunView], most: int = 10) -> str:
    """Return a line for each run, the newest first, failed ones marked."""
    newest = _newest_first({run.record.key: run for run in runs}.values())
    ended = {"ok": "", "failed": ", failed", "interrupted": ", interrupted"}
    lines = [f"  {run.record.key[:12]}  {summary(run)}{ended[outcome(run.record)]}" for run in newest[:most]]
    return "\n".join([*lines, *([f"  and {len(newest) - most} older ones"] if len(newest) > most else [])])


def _newest_first(runs: Iterable[RunView]) -> list[RunView]:
    return sorted(runs, key=lambda run: run.record.finished_at, reverse=True)
