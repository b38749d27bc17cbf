"""What lies in the store, folder by folder, and who still needs it."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from qexp.artifacts.lease import claimed_if_free, is_claimed
from qexp.artifacts.manifest import Manifest, read_manifest
from qexp.records.record import Record

Kind = Literal["artifact", "work", "broken", "lease"]
_NAME = re.compile(r"(?P<key>[0-9a-f]{32})(?:\.(?P<kind>work|broken|lease|lock)(?:-\w+)?)?")
_KINDS: dict[str | None, Kind] = {
    None: "artifact", "work": "work", "broken": "broken", "lease": "lease", "lock": "lease",
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A folder or file of the store."""

    path: Path
    kind: Kind
    key: str

    @property
    def stage(self) -> str:
        """Name of its stage."""
        return self.path.parent.name

    @cached_property
    def bytes(self) -> int:
        """Size of all its files; of one that a run removes meanwhile, what was there."""
        found = 0
        with suppress(FileNotFoundError):
            for file in self.path.rglob("*") if self.path.is_dir() else [self.path]:
                found += file.stat().st_size if file.is_file() else 0
        return found

    @property
    def days(self) -> float:
        """Days since it was last changed; none for what a run removed meanwhile."""
        try:
            return (time.time() - self.path.stat().st_mtime) / 86400
        except FileNotFoundError:
            return 0.0

    @property
    def is_in_use(self) -> bool:
        """Whether a process has claimed its key."""
        return is_claimed(self._lease)

    @property
    def manifest(self) -> Manifest:
        """Its list.

        Raises:
            StoreError: There is none that can be read.
        """
        return read_manifest(self.path)

    def remove(self) -> bool:
        """Delete it, unless a process has claimed its key by now; whether it is gone.

        A folder is renamed first, so that nobody finds half of it.
        """
        with claimed_if_free(self._lease) as free:
            if free and self.path.is_dir():
                gone = self.path.with_name(f"{self.key}.broken-0{time.time_ns()}")
                shutil.rmtree(self.path.rename(gone))
            elif free and self.path != self._lease:
                self.path.unlink(missing_ok=True)
        return free

    @property
    def _lease(self) -> Path:
        return self.path.with_name(f"{self.key}.lease")


def items(root: Path) -> Iterator[Item]:
    """All that stages left below a folder, in the order of the names, and nothing else that lies there."""
    for path in sorted(root.glob("*/*")):
        if found := _NAME.fullmatch(path.name):
            yield Item(path, _KINDS[found["kind"]], found["key"])


def uses(records: Iterable[Record]) -> Counter[tuple[str, str]]:
    """How many Records name an artifact, by stage and key."""
    stages = (stage for record in records for stage in record.stages)
    return Counter((stage["stage"], stage["key"]) for stage in stages if {"stage", "key"} <= {*stage})
