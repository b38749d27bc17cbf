"""Names in messages: lists that stay short, and where two sets of ranges differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def misfit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Names of ranges that are missing, unknown, of another shape or grid, in words; empty where all fit."""
    shapes = [
        f"{key} {list(tensors[key].shape)} for {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in tensors and tensors[key].shape != tensor.shape
    ]
    levels = [key for key in expected if key.endswith("/levels") and key in tensors]
    problems = {
        "missing": [key for key in expected if key not in tensors],
        "unknown": [key for key in tensors if key not in expected],
        "of another shape": shapes,
        "on another grid": [key for key in levels if tensors[key].tolist() != expected[key].tolist()],
    }
    return "; ".join(f"{what}: {listed(keys)}" for what, keys in problems.items() if keys)
