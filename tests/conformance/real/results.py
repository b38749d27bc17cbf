"""What a real program's side writes: a golden file of numbers, and arrays for the table."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.conformance.inputs import Array, check_sum, tensors


def numbers(values: Any) -> list[float]:
    """Return values with the nine digits that tell float32 numbers apart."""
    return [float(f"{value:.9g}") for value in np.asarray(values, dtype=np.float64).ravel().tolist()]


def number(value: Any) -> float:
    """Return one value with nine digits."""
    return numbers([float(value)])[0]


def nested(values: Array) -> Any:
    """Return an array as lists of numbers, or as one number."""
    return number(values) if values.ndim == 0 else [nested(each) for each in values]


def write(golden: dict[str, Any], arrays: dict[str, Array], packages: tuple[str, ...]) -> None:
    """Write to the paths of the command line: ``GOLDEN.json ARRAYS.npz``."""
    content = {
        "packages": {name: version(name) for name in packages},
        "inputs": {name: check_sum(value) for name, value in tensors().items()},
        **golden,
    }
    assert all("NaN" not in json.dumps(each) for each in content.values())
    lines = ",\n".join(f'"{name}": {_entries(value)}' for name, value in content.items())
    Path(sys.argv[1]).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    np.savez(sys.argv[2], **arrays)


def _entries(value: Any) -> str:
    """Return JSON with a line for each entry of a mapping, so that changes can be read."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{\n" + ",\n".join(f'  "{name}": {json.dumps(each)}' for name, each in value.items()) + "\n}"
