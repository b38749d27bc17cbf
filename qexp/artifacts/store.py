"""Store of artifacts: finds what exists, and has one process build what does not."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from qexp.artifacts.disk import writing
from qexp.artifacts.lease import LEASE_SECONDS, claimed
from qexp.artifacts.manifest import check_inputs, problem_of, write_manifest
from qexp.artifacts.stage import SCRATCH, BuildDir, Stage
from qexp.artifacts.types import Artifact
from qexp.errors import StoreError

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")


class StoreListener(Protocol):
    """Observer of the store."""

    def waiting(self, stage: str) -> None:
        """Handle the wait for an artifact that another process is building."""

    def warn(self, message: str) -> None:
        """Handle a warning to the user."""


class Store:
    """Folder of artifacts by stage and cache key."""

    def __init__(self, root: Path, watcher: StoreListener) -> None:
        self.root = root
        self.watcher = watcher

    def find(self, stage: Stage[P, A_co], key: str, inputs: Mapping[str, Any]) -> A_co | None:
        """Return the finished artifact of a key, or None.

        A folder that does not match its manifest is renamed to ``<key>.broken-N``.

        Raises:
            StoreError: The artifact is intact but was built from other inputs, so that two inputs share a
                key.
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
        except FileNotFoundError:  # another process renamed it first
            return None
        self.watcher.warn(f"{stage.name}/{key} {problem}; set aside as {aside.name} and built anew")
        return None

    def build(
        self, stage: Stage[P, A_co], key: str, inputs: Mapping[str, Any], run: Callable[[BuildDir], None]
    ) -> tuple[A_co, bool]:
        """Return the artifact of a key, and whether this call built it.

        A process that was suspended until another one took over its lease finds its folder missing, because
        the new holder has renamed it. It therefore cannot interfere with the new build.

        Raises:
            StoreError: The disk is full or may not be written, or another process took over the lease.
        """
        home = self.root / stage.name
        with writing(home):
            home.mkdir(parents=True, exist_ok=True)
            with claimed(home / f"{key}.lease", lambda: self.watcher.waiting(stage.name)) as is_held:
                if (artifact := self.find(stage, key, inputs)) is not None:
                    return artifact, False
                started = time.monotonic()
                try:
                    work = _take_build_dir(home, key)
                    run(work)
                    shutil.rmtree(work.scratch)
                    write_manifest(work.folder, stage, inputs, time.monotonic() - started)
                    os.replace(work.folder, home / key)
                except Exception as error:
                    if is_held():
                        raise
                    raise StoreError(
                        f"{stage.name}/{key}: no heartbeat for {LEASE_SECONDS:.0f} s: lost the lease, and "
                        "another process took over: run the same command again to use what that one builds"
                    ) from error
        return stage.artifact(home / key, key), True


def _take_build_dir(home: Path, key: str) -> BuildDir:
    """Create a build folder that contains only the scratch folder of an earlier attempt, if there was one.

    The folder of that attempt is renamed, which makes all later writes of its owner fail.
    """
    work = BuildDir(home / f"{key}.work-{secrets.token_hex(4)}")
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
    """Return the time of the latest checkpoint in a build folder, 0 if it has none."""
    scratch = folder / SCRATCH
    times = [entry.stat().st_mtime for entry in scratch.iterdir()] if scratch.is_dir() else []
    return max(times, default=0.0)
