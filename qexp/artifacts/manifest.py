"""Manifests of artifacts: inputs, files and checksums, and the check of a folder against them."""

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
_IGNORED_PREFIXES = (".nfs", ".fuse_hidden", ".DS_Store")
"""Prefixes of files that network file systems and desktops create in any folder."""


@dataclass(frozen=True)
class Manifest:
    """Content of an artifact's ``manifest.json``."""

    stage: str
    version: int
    inputs: Mapping[str, Any]
    files: Mapping[str, str]
    """SHA-256 of each file by its path relative to the folder."""
    seconds: float | None = None
    """Seconds that the build took; None if the manifest does not have them."""
    built: str | None = None
    """Time of the build, ISO 8601 in UTC; None if the manifest does not have it."""

    @property
    def key(self) -> str:
        """Cache key that follows from stage, version and inputs."""
        return key_of(self.stage, self.version, self.inputs)


def write_manifest(folder: Path, stage: Stage[..., Any], inputs: Mapping[str, Any], seconds: float) -> None:
    """Write the manifest of a finished folder, with a checksum of every file."""
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
    """Read the manifest of an artifact.

    Raises:
        StoreError: It is missing, truncated or malformed.
    """
    try:
        tree = json.loads((folder / MANIFEST).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        fields = {name: tree.get(name) for name in Manifest.__dataclass_fields__}
        if not isinstance(fields["files"], dict) or not isinstance(fields["inputs"], dict):
            raise ValueError("files and inputs must be objects")
        return Manifest(**fields)
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"is damaged ({type(error).__name__}: {error})") from None


def problem_of(folder: Path) -> str | None:
    """Check a folder against its manifest.

    Returns:
        Description of the problem, or None: a file has changed, is missing or is not listed, or the inputs
        give another key than the folder's name.
    """
    try:
        manifest = read_manifest(folder)
        changed = [name for name, checksum in manifest.files.items() if _checksum(folder / name) != checksum]
        unlisted = sorted({*_files(folder)} - {*manifest.files})
    except StoreError as error:
        return str(error)
    except OSError as error:
        return f"is damaged ({type(error).__name__}: {error})"
    if changed:
        return f"is damaged ({', '.join(changed)} changed after it was written)"
    if unlisted:
        return f"holds what no stage wrote ({', '.join(unlisted)})"
    if manifest.key != folder.name:
        return f"belongs elsewhere (its contents are {manifest.stage}/{manifest.key})"
    return None


def check_inputs(folder: Path, stage: Stage[..., Any], inputs: Mapping[str, Any]) -> None:
    """Check that an intact artifact was built from these inputs.

    Raises:
        StoreError: It was built from others, so that two inputs share a key.
    """
    manifest = read_manifest(folder)
    if (manifest.stage, manifest.version, manifest.inputs) != (stage.name, stage.version, inputs):
        raise StoreError(
            f"{folder}: two different inputs share this key; {difference(manifest.inputs, inputs)}"
        )


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the inputs that differ as ``name: old -> new``, separated by semicolons."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {old.get(name)} -> {new.get(name)}" for name in names)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _files(folder: Path) -> list[str]:
    """Return the relative paths of all files of an artifact except its manifest."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(_IGNORED_PREFIXES)
    )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
