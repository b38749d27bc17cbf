"""Stages of the pipeline, and the cache keys of their artifacts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from qexp.artifacts.types import FACTS, Artifact

SCRATCH = "scratch"

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")


@dataclass(frozen=True)
class BuildDir:
    """Folder that a stage writes to while its artifact is built."""

    folder: Path
    """Renamed to the artifact's folder when the stage returns."""

    @property
    def scratch(self) -> Path:
        """Folder for checkpoints: survives a killed build, and is removed when the build is finished."""
        return self.folder / SCRATCH

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write the small results of the stage as JSON; NaN and infinity are refused."""
        (self.folder / FACTS).write_text(json.dumps(facts, indent=1, allow_nan=False), encoding="utf-8")


@dataclass(frozen=True)
class Stage(Generic[P, A_co]):
    """One step of the pipeline: ``run`` writes the files that ``artifact`` reads."""

    name: str
    version: int
    artifact: Callable[[Path, str], A_co]
    run: Callable[Concatenate[BuildDir, Any, P], None]
    """Function of the build folder, the :class:`~qexp.context.RunContext`, and the inputs as keywords."""
    keys: Mapping[str, str]
    """Name of each parameter in the cache key. A renamed parameter keeps its old name here, so that existing
    artifacts stay valid."""
    later: frozenset[str] = frozenset()
    """Parameters that were added to the stage; one that is None is left out of the key, likewise."""

    def inputs(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """Return the identity of each input by its name in the key.

        Raises:
            TypeError: An input is missing or unknown, or has no identity.
        """
        if args or set(kwargs) != set(self.keys):
            raise TypeError(f"stage {self.name} takes {sorted(self.keys)} by keyword, not {sorted(kwargs)}")
        given = {name: value for name, value in kwargs.items() if value is not None or name not in self.later}
        return {self.keys[name]: identity(value) for name, value in given.items()}

    def key(self, inputs: Mapping[str, Any]) -> str:
        """Return the cache key: 16 bytes of SHA-256 over name, version and inputs, in hexadecimal."""
        return key_of(self.name, self.version, inputs)


def key_of(stage: str, version: int, inputs: Mapping[str, Any]) -> str:
    """Return the cache key of a stage for these inputs."""
    return digest({"stage": stage, "version": version, "inputs": inputs})


def identity(value: Any) -> Any:
    """Return the part of an input that enters a cache key, as plain JSON.

    Raises:
        TypeError: The value has neither a fingerprint nor a JSON form.
    """
    if callable(dump := getattr(value, "model_dump", None)):  # pydantic's, which light commands do not import
        return dump(mode="json")
    if isinstance(fingerprint := getattr(value, "fingerprint", None), str):
        return fingerprint
    if isinstance(value, tuple | list):
        return [identity(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"no identity for {type(value).__name__}: give it a fingerprint")


def digest(tree: Any) -> str:
    """Return the hash of plain JSON as 32 hexadecimal digits; the order of its keys does not matter."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
