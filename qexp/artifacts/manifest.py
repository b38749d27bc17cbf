"""The list of what an artifact consists of, and whether a folder still is what its list says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from qexp.artifacts.stage import Stage, key_of
from qexp.errors import StoreError

MANIFEST = "manifest.json"
_OF_THE_FILE_SYSTEM = (".nfs", ".fuse_hidden", ".DS_Store")
"""How names begin that network file systems and desktops put anywhere."""


@dataclass(frozen=True)
class Manifest:
    """What stands in an artifact's list."""

    stage: str
    version: int
    inputs: Mapping[str, Any]
    files: Mapping[str, str]
    """SHA-256 by path inside the folder."""
    seconds: float | None = None
    """How long it took to build; null in lists that do not say."""
    built: str | None = None
    """When, ISO 8601 in UTC; null likewise."""

    @property
    def key(self) -> str:
        """Key that such an artifact is filed under."""
        return key_of(self.stage, self.version, self.inputs)


def write_manifest(folder: Path, stage: Stage[..., Any], inputs: Mapping[str, Any], seconds: float) -> None:
    """List a finished folder."""
    manifest = {
        "stage": stage.name,
        "version": stage.version,
        "inputs": inputs,
        "seconds": round(seconds, 3),
        "built": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {name: _checksum(folder / name) for name in _files(folder)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The list of an artifact.

    Raises:
        StoreError: there is none, or it is cut off or not of a list's form.
    """
    try:
        tree = json.loads((folder / MANIFEST).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        known = {name: tree.get(name) for name in Manifest.__dataclass_fields__}
        if not isinstance(known["files"], dict) or not isinstance(known["inputs"], dict):
            raise ValueError("files and inputs must be objects")
        return Manifest(**known)
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"is damaged ({type(error).__name__}: {error})") from None


def problem_of(folder: Path) -> str | None:
    """What is wrong with a folder that is filed under its name as a key, or None.

    A file that changed, is absent, or that nobody listed; or the whole folder belongs elsewhere.
    """
    try:
        manifest = read_manifest(folder)
        wrong = [name for name, checksum in manifest.files.items() if _checksum(folder / name) != checksum]
        foreign = sorted({*_files(folder)} - {*manifest.files})
    except StoreError as error:
        return str(error)
    except OSError as error:
        return f"is damaged ({type(error).__name__}: {error})"
    if wrong:
        return f"is damaged ({', '.join(wrong)} changed after it was written)"
    if foreign:
        return f"holds what no stage wrote ({', '.join(foreign)})"
    if manifest.key != folder.name:
        return f"belongs elsewhere (its contents are {manifest.stage}/{manifest.key})"
    return None


def check_inputs(folder: Path, stage: Stage[..., Any], inputs: Mapping[str, Any]) -> None:
    """See that a sound folder was made from these inputs.

    Raises:
        StoreError: it was not: two inputs share a key.
    """
    found = read_manifest(folder)
    if (found.stage, found.version, found.inputs) != (stage.name, stage.version, inputs):
        raise StoreError(f"{folder}: two different inputs share this key; {difference(found.inputs, inputs)}")


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The inputs that differ, one after the other, as ``name: old -> new``."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {old.get(name)} -> {new.get(name)}" for name in names)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _files(folder: Path) -> list[str]:
    """What a folder holds beside its list, by path inside it."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(_OF_THE_FILE_SYSTEM)
    )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
