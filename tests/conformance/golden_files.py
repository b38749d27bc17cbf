"""Numbers of the real programs, as ``make conformance`` wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.conformance.inputs import Array

FOLDER = Path(__file__).parent / "golden"


def golden(program: str) -> dict[str, Any]:
    """Return the golden file of a program."""
    content: dict[str, Any] = json.loads((FOLDER / f"{program}.json").read_text(encoding="utf-8"))
    return content


def arrays(program: str, section: str) -> dict[str, Array]:
    """Return a section of a golden file as arrays."""
    return {name: np.array(value) for name, value in golden(program)[section].items()}
