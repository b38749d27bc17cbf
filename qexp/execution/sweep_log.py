"""Log of one attempt at a sweep: its jobs, and the result of each.

    outputs/sweeps/<name>-<id>/<attempt>/sweep.json    requested jobs
    outputs/sweeps/<name>-<id>/<attempt>/<job>.json    result of a job, written by the job itself

The log is in the folder of Hydra's launchers, so that jobs in other processes or on other machines find it.
Return values of launchers are not used, because a killed job can lose those of all others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qexp.errors import FAILED, INTERRUPTED, INVALID, OK, StoreError
from qexp.records.record import Record, read, records_folder, write_text

FILE = "sweep.json"
_STOPPED = ("refused", "failed")
"""What became of jobs that an error stopped."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """Result of a job."""

    job: int
    """Number of the job, from 0."""
    words: Sequence[str]
    """Overrides of the job, as on a command line."""
    code: int
    """Exit code."""
    key: str | None = None
    """Key of its Record; None for a job that was refused, which has none."""
    error: str | None = None
    """First line of the error that stopped it; None if it was completed."""
    seconds: float = 0.0
    """Duration of the job."""
    stages: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Stages as in its Record."""
    score: float | None = None
    """Primary metric after the last stage that was evaluated in torch."""

    @property
    def status(self) -> str:
        """``ok``, ``failed``, ``interrupted``, ``refused`` at once, or ``parity`` if its graph deviates."""
        if self.code == INTERRUPTED:
            return "interrupted"
        if self.code == INVALID:
            return "refused"
        return "ok" if self.code == OK else "failed" if self.error else "parity"


@dataclass(frozen=True)
class SweepLog:
    """Log of one attempt at a sweep, in a folder."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the sweep's file, or ``sweep`` for one from the command line."""
        return str(self._tree["name"])

    @property
    def id(self) -> str:
        """Id that is the same for the same overrides, whatever the attempt and the launcher."""
        return str(self._tree["id"])

    @property
    def jobs(self) -> dict[int, list[str]]:
        """Overrides of every requested job, by its number."""
        return {int(job): words for job, words in self._tree["jobs"].items()}

    def begin(self, name: str, identity: str) -> None:
        """Start a log without jobs; results of an earlier sweep in the folder are deleted."""
        for file in self.folder.glob("[0-9]*.json"):
            file.unlink()
        self._write({"name": name, "id": identity, "jobs": {}})

    def expect(self, jobs: Sequence[Sequence[str]], first: int) -> None:
        """Add requested jobs, numbered from ``first``."""
        added = {str(first + offset): list(words) for offset, words in enumerate(jobs)}
        self._write({**self._tree, "jobs": {**self._tree["jobs"], **added}})

    def end(self, entry: JobResult) -> None:
        """Write the result of a job.

        Raises:
            StoreError: The folder cannot be written.
        """
        write_text(self._file(entry.job), json.dumps(asdict(entry), indent=1) + "\n")

    def entry(self, job: int) -> JobResult | None:
        """Return the result of a job, or None if it has not written one."""
        try:
            return JobResult(**json.loads(self._file(job).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def forget(self, job: int) -> None:
        """Delete the result of a job, before it is run again."""
        self._file(job).unlink(missing_ok=True)

    @property
    def entries(self) -> dict[int, JobResult]:
        """Results of all jobs that have written one, by number."""
        results = {job: self.entry(job) for job in self.jobs}
        return {job: entry for job, entry in results.items() if entry}

    @property
    def exit_code(self) -> int:
        """Exit code of the sweep: that of a refusal only if all jobs were refused, so that none was begun.

        A job without a result counts as failed.
        """
        found = [entry.code for entry in self.entries.values()]
        codes = {*found, *([FAILED] if len(found) < len(self.jobs) else [])}
        if INTERRUPTED in codes:
            return INTERRUPTED
        return INVALID if codes == {INVALID} else FAILED if codes - {OK} else OK

    @property
    def _tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
        return tree

    def _write(self, tree: Mapping[str, Any]) -> None:
        write_text(self.folder / FILE, json.dumps(tree, indent=1) + "\n")

    def _file(self, job: int) -> Path:
        return self.folder / f"{job}.json"


def sweep_log_in(folder: Path) -> SweepLog | None:
    """Return the sweep log of a folder, or None."""
    return SweepLog(folder) if (folder / FILE).is_file() else None


def records_of(sweep_log: SweepLog, outputs: Path) -> list[Record]:
    """Return the Records of the jobs that have ended, as far as they can be read."""
    records = []
    for key in dict.fromkeys(entry.key for entry in sweep_log.entries.values() if entry.key):
        with suppress(StoreError):
            records.append(read(records_folder(outputs) / f"{key}.json"))
    return records


def summary(sweep_log: SweepLog) -> str:
    """Return a text summary: one line of counts, then a line for each job that is not ``ok``."""
    jobs, entries = sweep_log.jobs, sweep_log.entries
    stages = [stage for entry in entries.values() for stage in entry.stages]
    built = sum(stage["state"] == "built" for stage in stages)
    ok = sum(entry.status == "ok" for entry in entries.values())
    lines = [
        f"{sweep_log.name}-{sweep_log.id}: {len(jobs)} jobs, {ok} ok, {len(jobs) - ok} not; "
        f"{built} stages built, {len(stages) - built} reused"
    ]
    common = set.intersection(*map(set, jobs.values())) if len(jobs) > 1 else set()
    shared = Counter(entry.error for entry in entries.values() if entry.status in _STOPPED)
    for job, overrides in jobs.items():
        entry = entries.get(job)
        if entry and entry.error and (alike := shared.get(entry.error, 0)) != 1 and entry.status in _STOPPED:
            line = f"  {alike} jobs: {_describe(entry)}"
            lines += [] if line in lines else [line]
        elif entry is None or entry.status != "ok":
            own = " ".join(override for override in overrides if override not in common)
            lines.append(f"  job {job}: {own}: {_describe(entry)}")
    if any(job not in entries or entries[job].status not in ("ok", "refused") for job in jobs):
        lines.append("  the same command goes on from here: what is finished is reused")
    return "\n".join(lines)


def _describe(entry: JobResult | None) -> str:
    if entry is None:
        return "has not ended: it did not start, or goes on"
    if entry.status == "parity":
        return "finished, but its exported graph departs from torch"
    if entry.status == "interrupted":
        return entry.error or entry.status
    return f"{entry.status}: {entry.error}"
