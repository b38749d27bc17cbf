"""Artifacts by what they were made of.

A stage is a function; :class:`Store` calls it only when no finished folder is filed under the key of
its inputs. The key hashes the stage's name, its ``version`` and the identity of each positional
input: a config slice by its values, everything else by its ``fingerprint``. The folder is built
aside, listed in a manifest with checksums, and renamed into place: what stands under a key is whole,
whenever and however the process died.

    outputs/artifacts/<stage>/<key>/            finished
    outputs/artifacts/<stage>/<key>.work/       being built; its scratch/ survives a killed process
    outputs/artifacts/<stage>/<key>.lock        held by who builds it
    outputs/artifacts/<stage>/<key>.broken-N/   did not match its manifest; never used again
"""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel

from qexp.artifacts import FACTS, Artifact
from qexp.errors import StoreError

MANIFEST = "manifest.json"
SCRATCH = "scratch"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")


@dataclass(frozen=True)
class Workplace:
    """Where a stage writes while it is built."""

    folder: Path
    """Becomes the artifact when the stage returns."""

    @property
    def scratch(self) -> Path:
        """Kept from a killed attempt to the next, dropped at the end: checkpoints live here."""
        return self.folder / SCRATCH

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Leave the small results of the stage."""
        (self.folder / FACTS).write_text(json.dumps(facts, indent=1, allow_nan=False), encoding="utf-8")


@dataclass(frozen=True)
class Stage(Generic[P, A_co]):
    """One arrow of the pipeline: ``run`` writes into its workplace what ``artifact`` reads."""

    name: str
    version: int
    artifact: Callable[[Path, str], A_co]
    run: Callable[Concatenate[Workplace, P], None]

    def inputs(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """Identity of each input by the name of its parameter; ``rt`` is not one of them."""
        bound = inspect.signature(self.run).bind(None, *args, **kwargs)
        names = list(bound.arguments)[1:]
        return {name: identity(bound.arguments[name]) for name in names if name != "rt"}

    def key(self, inputs: Mapping[str, Any]) -> str:
        """Sixteen bytes of SHA-256 over name, version and inputs, in hexadecimal."""
        return digest({"stage": self.name, "version": self.version, "inputs": inputs})


class Watcher(Protocol):
    """Who is told what the store does."""

    def waiting(self, stage: str) -> None:
        """Another process builds what is needed."""

    def warn(self, message: str) -> None:
        """Something was found that the user should know."""


def identity(value: Any) -> Any:
    """What of an input belongs to a key, as plain JSON.

    Raises:
        TypeError: for a value that has neither a fingerprint nor a JSON form.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(fingerprint := getattr(value, "fingerprint", None), str):
        return fingerprint
    if isinstance(value, tuple | list):
        return [identity(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"no identity for {type(value).__name__}: give it a fingerprint")


def digest(tree: Any) -> str:
    """Hash of plain JSON, 32 hexadecimal digits; the order of keys does not matter."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Store:
    """The folder of all artifacts."""

    def __init__(self, root: Path, watcher: Watcher) -> None:
        self.root = root
        self.watcher = watcher

    def find(self, stage: Stage[P, A_co], key: str, inputs: Mapping[str, Any]) -> A_co | None:
        """The finished artifact under a key, or None; what does not match its manifest is set aside."""
        folder = self.root / stage.name / key
        if not folder.is_dir():
            return None
        problem = _problem(folder, stage, inputs)
        if problem is None:
            return stage.artifact(folder, key)
        aside = folder.with_name(f"{key}.broken-{time.time_ns()}")
        os.replace(folder, aside)
        self.watcher.warn(f"{stage.name}/{key} {problem}; set aside as {aside.name} and built anew")
        return None

    def build(
        self, stage: Stage[P, A_co], key: str, inputs: Mapping[str, Any], run: Callable[[Workplace], None]
    ) -> tuple[A_co, bool]:
        """The artifact under a key, and whether this call built it.

        Raises:
            StoreError: the disk is full or may not be written.
        """
        with writing(self.root / stage.name):
            home = self.root / stage.name
            home.mkdir(parents=True, exist_ok=True)
            with self._locked(home / f"{key}.lock", stage.name):
                if (found := self.find(stage, key, inputs)) is not None:
                    return found, False
                work = _clean_workplace(home / f"{key}.work")
                run(work)
                shutil.rmtree(work.scratch)
                _write_manifest(work.folder, stage, inputs)
                os.replace(work.folder, home / key)
        return stage.artifact(home / key, key), True

    @contextmanager
    def _locked(self, path: Path, stage: str) -> Iterator[None]:
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.watcher.waiting(stage)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what a full or closed disk raises, from any library, into one clear error."""
    try:
        yield
    except Exception as error:
        code = _disk_code(error)
        if code is None:
            raise
        raise StoreError(
            f"cannot write below {folder}: {os.strerror(code).lower()}; free space or rights there, "
            "or set QEXP_OUTPUTS to another folder, and run the same command again"
        ) from error


def _disk_code(error: BaseException) -> int | None:
    """The errno behind an error that is about the disk; libraries in C++ and Rust give only its words."""
    number = getattr(error, "errno", None)
    if number in (*_NO_SPACE, *_NO_WRITE):
        return int(number)
    words = str(error)
    return next((code for code in _NO_SPACE if os.strerror(code) in words), None)


def _clean_workplace(folder: Path) -> Workplace:
    """The folder with nothing in it but the scratch of an earlier attempt."""
    work = Workplace(folder)
    work.scratch.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.name == SCRATCH:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return work


def _write_manifest(folder: Path, stage: Stage[P, A_co], inputs: Mapping[str, Any]) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "stage": stage.name,
        "version": stage.version,
        "inputs": inputs,
        "files": {path.relative_to(folder).as_posix(): _checksum(path) for path in files},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")


def _problem(folder: Path, stage: Stage[P, A_co], inputs: Mapping[str, Any]) -> str | None:
    """What is wrong with a folder, or None.

    Raises:
        StoreError: the folder is sound but was made from other inputs: two inputs share a key.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, str] = manifest["files"]
        wrong = [name for name, checksum in files.items() if _checksum(folder / name) != checksum]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"is damaged ({type(error).__name__}: {error})"
    if wrong:
        return f"is damaged ({', '.join(wrong)} changed after it was written)"
    if (manifest["stage"], manifest["version"], manifest["inputs"]) != (stage.name, stage.version, inputs):
        raise StoreError(
            f"{folder}: two different inputs share this key; {difference(manifest['inputs'], inputs)}"
        )
    return None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The inputs that differ, one after the other, as ``name: old -> new``."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {old.get(name)} -> {new.get(name)}" for name in names)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
