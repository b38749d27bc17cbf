"""constraints-lowest.txt pins every dependency of pyproject.toml, at a version that it allows."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("openvino", "marian", "cluster")
ALLOWED = [
    Requirement(text)
    for text in (
        *PROJECT["dependencies"],
        *(text for extra in EXTRAS for text in PROJECT["optional-dependencies"][extra]),
    )
]
PINS = {
    canonicalize_name(pin.name): next(iter(pin.specifier))
    for pin in map(
        Requirement, (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()[2:]
    )
}


@pytest.mark.parametrize("allowed", ALLOWED, ids=lambda requirement: requirement.name)
def test_a_dependency_is_pinned_at_a_version_that_is_allowed(allowed: Requirement) -> None:
    pin = PINS[canonicalize_name(allowed.name)]
    assert pin.operator == "=="
    assert pin.version in allowed.specifier


def test_nothing_else_is_pinned() -> None:
    assert {*PINS} == {canonicalize_name(allowed.name) for allowed in ALLOWED}
