"""What a Record tells of quantized activations: their ranges, and the noise that these make.

Pure numpy on the files of two artifacts, so that a run that finds everything in the store need not
import torch.
"""

from __future__ import annotations

import math
import re
from typing import Any

from qexp.artifacts import Ranges, Statistics
from qexp.config import Form

Told = dict[str, float | None]
DIMENSION = re.compile(r"/dim_\w+$")
"""Of statistics: what is of each dimension, which is large and not told."""


def activation_ranges(
    form: Form, statistics: Statistics, ranges: Ranges
) -> dict[str, dict[str, float | None]]:
    """All quantized activations, by quantizer, each as :class:`qexp.records.ActivationRange` has it."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    if not form.quant.quantizes_activations:
        return {}
    chosen = load_file(ranges.file)
    with safe_open(statistics.file, "numpy") as file:
        seen = {key: file.get_tensor(key) for key in file.keys() if not DIMENSION.search(key)}  # noqa: SIM118
    names = [key.removesuffix("/lows") for key in seen if key.endswith("/lows")]
    return {name: _range(name, seen, chosen) for name in sorted(names) if f"{name}/scale" in chosen}


def _range(name: str, seen: dict[str, Any], chosen: dict[str, Any]) -> Told:
    low, high = float(seen[f"{name}/lows"].min()), float(seen[f"{name}/highs"].max())
    scale, zero = float(chosen[f"{name}/scale"]), int(chosen[f"{name}/zero_point"])
    first, last = (int(level) - zero for level in chosen[f"{name}/levels"])
    return {
        "low": first * scale,
        "high": last * scale,
        "seen_low": low,
        "seen_high": high,
        "sqnr": sqnr(seen[f"{name}/counts"], float(seen[f"{name}/width"]), scale, first, last),
    }


def sqnr(counts: Any, width: float, scale: float, first: int, last: int) -> float | None:
    """Signal over quantization noise in dB, ``10 log10(sum x² / sum (x - x')²)``; None if either is zero.

    Args:
        counts: Of bins ``[k * width, (k + 1) * width)`` for ``-half <= k < half``; values are taken as
            even within a bin.
        width: Of a bin.
        scale: Distance of two levels.
        first: Lowest level, in steps from zero.
        last: Highest level, in steps from zero.
    """
    import numpy as np

    if width == 0:
        return None
    counts = counts.astype(np.float64)
    half = len(counts) // 2
    edges = np.arange(-half, half + 1) * width
    signal = float(counts @ np.diff(edges**3)) / (3 * width)
    steps = edges / scale
    nearest = np.floor(np.clip(steps, first, last) + 0.5)
    inside = np.clip(steps, first, last)
    # Integral of the squared error from 0: a whole step adds 1/12, the rest and what is clipped a cubic each.
    integral = nearest / 12 + ((inside - nearest) ** 3 + (steps - inside) ** 3) / 3
    noise = float(counts @ np.diff(integral)) * scale**3 / width
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
