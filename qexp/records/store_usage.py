"""Items of the artifact store, and the number of Records that use each."""

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
    """Folder or file in the store."""

    path: Path
    kind: Kind
    key: str

    @property
    def stage(self) -> str:
        """Name of the stage that it belongs to."""
        return self.path.parent.name

    @cached_property
    def bytes(self) -> int:
        """Size of all its files in bytes; files that a run removes during the count may be left out."""
        size = 0
        with suppress(FileNotFoundError):
            for file in self.path.rglob("*") if self.path.is_dir() else [self.path]:
                size += file.stat().st_size if file.is_file() else 0
        return size

    @property
    def days(self) -> float:
        """Days since its last change; 0 if a run has just removed it."""
        try:
            return (time.time() - self.path.stat().st_mtime) / 86400
        except FileNotFoundError:
            return 0.0

    @property
    def is_in_use(self) -> bool:
        """Whether a process holds the lease of its key."""
        return is_claimed(self._lease)

    @property
    def manifest(self) -> Manifest:
        """Manifest of an artifact.

        Raises:
            StoreError: It is missing or cannot be read.
        """
        return read_manifest(self.path)

    def remove(self) -> bool:
        """Delete it unless a process holds the lease of its key, and return whether that was possible.

        A folder is renamed first, so that no process finds an incomplete artifact.
        """
        with claimed_if_free(self._lease) as free:
            if free and self.path.is_dir():
                renamed = self.path.with_name(f"{self.key}.broken-0{time.time_ns()}")
                shutil.rmtree(self.path.rename(renamed))
            elif free and self.path != self._lease:
                self.path.unlink(missing_ok=True)
        return free

    @property
    def _lease(self) -> Path:
        return self.path.with_name(f"{self.key}.lease")


def items(root: Path) -> Iterator[Item]:
    """Yield everything that stages have left in a store, in the order of names; other files are ignored."""
    for path in sorted(root.glob("*/*")):
        if match := _NAME.fullmatch(path.name):
            yield Item(path, _KINDS[match["kind"]], match["key"])


def uses(records: Iterable[Record]) -> Counter[tuple[str, str]]:
    """Count the Records that use each artifact, by stage and key."""
    stages = (stage for record in records for stage in record.stages)
    return Counter((stage["stage"], stage["key"]) for stage in stages if {"stage", "key"} <= {*stage})
