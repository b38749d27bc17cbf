"""The list of one attempt at a sweep: which jobs it has, and how each of them ended.

    outputs/sweeps/<name>-<id>/<attempt>/sweep.json    what was asked
    outputs/sweeps/<name>-<id>/<attempt>/<job>.json    how a job ended, written by the job itself

It lies where Hydra's launchers put their files, so that a job in another process or on another machine
finds it. Return values of launchers are not used: a job that is killed takes those of others with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qexp.errors import FAILED, OK
from qexp.records.record import write_text

FILE = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a job ended."""

    job: int
    """From 0."""
    words: Sequence[str]
    """What tells it from the other jobs, as on a command line."""
    code: int
    """Exit code."""
    key: str | None = None
    """Of its Record."""
    error: str | None = None
    """First line of what stopped it; null if its code says that it ran to its end."""
    seconds: float = 0.0
    """From its start to its end."""
    stages: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """As in its Record."""
    score: float | None = None
    """Primary metric after the last stage that was evaluated in torch."""

    @property
    def status(self) -> str:
        """``ok``; ``failed``; or ``parity`` for a run whose exported graph departs from torch."""
        return "ok" if self.code == OK else "failed" if self.error else "parity"


@dataclass(frozen=True)
class Ledger:
    """One attempt at a sweep."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the sweep's file, or ``sweep`` for one that was typed."""
        return str(self._asked["name"])

    @property
    def id(self) -> str:
        """The same for the same words, whatever the attempt and the launcher."""
        return str(self._asked["id"])

    @property
    def jobs(self) -> dict[int, list[str]]:
        """Words of every job that was asked for."""
        return {int(job): words for job, words in self._asked["jobs"].items()}

    def begin(self, name: str, identity: str) -> None:
        """Write the list, without jobs yet; what another sweep left in the folder goes."""
        for file in self.folder.glob("[0-9]*.json"):
            file.unlink()
        self._write({"name": name, "id": identity, "jobs": {}})

    def expect(self, jobs: Sequence[Sequence[str]], first: int) -> None:
        """Add jobs; the first of them has the number ``first``."""
        more = {str(first + place): list(words) for place, words in enumerate(jobs)}
        self._write({**self._asked, "jobs": {**self._asked["jobs"], **more}})

    def end(self, entry: Entry) -> None:
        """Write how a job ended.

        Raises:
            StoreError: The folder cannot be written.
        """
        write_text(self._file(entry.job), json.dumps(asdict(entry), indent=1) + "\n")

    def entry(self, job: int) -> Entry | None:
        """How a job ended; None if it did not, or did not say so."""
        try:
            return Entry(**json.loads(self._file(job).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def forget(self, job: int) -> None:
        """Take back how a job ended: it gets another chance."""
        self._file(job).unlink(missing_ok=True)

    @property
    def entries(self) -> dict[int, Entry]:
        """All jobs that said how they ended."""
        found = {job: self.entry(job) for job in self.jobs}
        return {job: entry for job, entry in found.items() if entry}

    @property
    def exit_code(self) -> int:
        """The worst of all jobs'; that of a failure if one did not say how it ended."""
        codes = [entry.code for entry in self.entries.values()]
        return max([*codes, FAILED if len(codes) < len(self.jobs) else OK])

    @property
    def _asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
        return asked

    def _write(self, asked: Mapping[str, Any]) -> None:
        write_text(self.folder / FILE, json.dumps(asked, indent=1) + "\n")

    def _file(self, job: int) -> Path:
        return self.folder / f"{job}.json"


def ledger_in(folder: Path) -> Ledger | None:
    """The ledger of a folder, if it has one."""
    return Ledger(folder) if (folder / FILE).is_file() else None


def summary(ledger: Ledger) -> str:
    """How a sweep ended, as text: counts in one line, then each job that is not well."""
    jobs, entries = ledger.jobs, ledger.entries
    stages = [stage for entry in entries.values() for stage in entry.stages]
    built = sum(stage["state"] == "built" for stage in stages)
    ok = sum(entry.status == "ok" for entry in entries.values())
    lines = [
        f"{ledger.name}-{ledger.id}: {len(jobs)} jobs, {ok} ok, {len(jobs) - ok} not; "
        f"{built} stages built, {len(stages) - built} reused"
    ]
    same = set.intersection(*map(set, jobs.values())) if len(jobs) > 1 else set()
    for job, words in jobs.items():
        entry = entries.get(job)
        if entry is None or entry.status != "ok":
            own = " ".join(word for word in words if word not in same)
            lines.append(f"  job {job}: {own}: {_told(entry)}")
    if ok < len(jobs):
        lines.append("  the same command goes on from here: what is finished is reused")
    return "\n".join(lines)


def _told(entry: Entry | None) -> str:
    if entry is None:
        return "has not ended: it did not start, or goes on"
    if entry.status == "parity":
        return "finished, but its exported graph departs from torch"
    return f"failed: {entry.error}"
