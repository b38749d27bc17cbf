"""One arrow of the pipeline, and the key of what it makes."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from pydantic import BaseModel

from qexp.artifacts.types import FACTS, Artifact

SCRATCH = "scratch"

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
        return key_of(self.name, self.version, inputs)


def key_of(stage: str, version: int, inputs: Mapping[str, Any]) -> str:
    """The key that a stage of that name and version has for these inputs."""
    return digest({"stage": stage, "version": version, "inputs": inputs})


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
