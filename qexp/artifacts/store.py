"""The folder of all artifacts: find what is there, build what is not, each by one process."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from qexp.artifacts.disk import writing
from qexp.artifacts.lease import SILENCE, claimed
from qexp.artifacts.manifest import check_inputs, problem_of, write_manifest
from qexp.artifacts.stage import SCRATCH, Stage, Workplace
from qexp.artifacts.types import Artifact
from qexp.errors import StoreError

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")


class Watcher(Protocol):
    """Who is told what the store does."""

    def waiting(self, stage: str) -> None:
        """Another process builds what is needed."""

    def warn(self, message: str) -> None:
        """Something was found that the user should know."""


class Store:
    """The folder of all artifacts."""

    def __init__(self, root: Path, watcher: Watcher) -> None:
        self.root = root
        self.watcher = watcher

    def find(self, stage: Stage[P, A_co], key: str, inputs: Mapping[str, Any]) -> A_co | None:
        """The finished artifact under a key, or None; what does not match its manifest is set aside.

        Raises:
            StoreError: the artifact is sound but was made from other inputs: two inputs share a key.
        """
        folder = self.root / stage.name / key
        if not folder.is_dir():
            return None
        problem = problem_of(folder)
        if problem is None:
            check_inputs(folder, stage, inputs)
            return stage.artifact(folder, key)
        aside = folder.with_name(f"{key}.broken-{time.time_ns()}")
        try:
            os.replace(folder, aside)
        except FileNotFoundError:  # another process was first
            return None
        self.watcher.warn(f"{stage.name}/{key} {problem}; set aside as {aside.name} and built anew")
        return None

    def build(
        self, stage: Stage[P, A_co], key: str, inputs: Mapping[str, Any], run: Callable[[Workplace], None]
    ) -> tuple[A_co, bool]:
        """The artifact under a key, and whether this call built it.

        A process that slept so long that another took over its claim finds its folder gone, because
        the other one renamed it: whatever it still does, it cannot disturb what is built now.

        Raises:
            StoreError: the disk is full or may not be written; or another process took over.
        """
        home = self.root / stage.name
        with writing(home):
            home.mkdir(parents=True, exist_ok=True)
            with claimed(home / f"{key}.lease", lambda: self.watcher.waiting(stage.name)) as held:
                if (found := self.find(stage, key, inputs)) is not None:
                    return found, False
                started = time.monotonic()
                try:
                    work = _take_workplace(home, key)
                    run(work)
                    shutil.rmtree(work.scratch)
                    write_manifest(work.folder, stage, inputs, time.monotonic() - started)
                    os.replace(work.folder, home / key)
                except Exception as error:
                    if held():
                        raise
                    raise StoreError(
                        f"{stage.name}/{key}: this process made no sign of life for {SILENCE:.0f} s, and "
                        "another one took over; run the same command again to use what that one builds"
                    ) from error
        return stage.artifact(home / key, key), True


def _take_workplace(home: Path, key: str) -> Workplace:
    """A folder of our own with nothing in it but the scratch of an earlier attempt, if there was one.

    Renaming it away from its earlier owner is what fences that one off.
    """
    work = Workplace(home / f"{key}.work-{secrets.token_hex(4)}")
    earlier = sorted(home.glob(f"{key}.work*"), key=_last_touched)
    if earlier:
        os.replace(earlier.pop(), work.folder)
    for folder in earlier:
        shutil.rmtree(folder)
    work.scratch.mkdir(parents=True, exist_ok=True)
    for entry in work.folder.iterdir():
        if entry.name == SCRATCH:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return work


def _last_touched(folder: Path) -> float:
    """When a training last saved its state there, as far as it did."""
    scratch = folder / SCRATCH
    times = [entry.stat().st_mtime for entry in scratch.iterdir()] if scratch.is_dir() else []
    return max(times, default=0.0)
