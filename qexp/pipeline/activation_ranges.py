"""What a Record tells of quantized activations: their ranges, and the noise that these make.

Pure numpy on the files of two artifacts, so that a run that finds everything in the store need not
import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from qexp.artifacts.types import Ranges, Statistics
from qexp.config import Form

Told = dict[str, float | None]


def activation_ranges(
    form: Form, statistics: Statistics, ranges: Ranges
) -> dict[str, dict[str, float | None]]:
    """Ranges of all quantized activations by quantizer, as :class:`qexp.records.record.ActivationRange`."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    if not form.quant.quantizes_activations:
        return {}
    chosen = load_file(ranges.file)
    with safe_open(statistics.file, "numpy") as file:
        names = [key.removesuffix("/lows") for key in file.keys() if key.endswith("/lows")]  # noqa: SIM118
        known = [name for name in sorted(names) if f"{name}/scale" in chosen]
        return {name: _range(name, file.get_tensor, chosen) for name in known}


def _range(name: str, seen: Callable[[str], Any], chosen: dict[str, Any]) -> Told:
    """``seen`` reads what calibration saw: of each dimension only where groups of them have a range each."""
    low, high = float(seen(f"{name}/lows").min()), float(seen(f"{name}/highs").max())
    scale, zero = chosen[f"{name}/scale"], chosen[f"{name}/zero_point"]
    counts, width = f"{name}/counts", f"{name}/width"
    if f"{name}/members" in chosen:
        members = chosen[f"{name}/members"]
        scale, zero = scale[members], zero[members]
        counts, width = f"{name}/dim_counts", f"{name}/dim_widths"
    first, last = (level - zero for level in chosen[f"{name}/levels"])
    return {
        "low": float((first * scale).min()),
        "high": float((last * scale).max()),
        "seen_low": low,
        "seen_high": high,
        "sqnr": sqnr(seen(counts), seen(width), scale, first, last),
    }


def sqnr(counts: Any, width: Any, scale: Any, first: Any, last: Any) -> float | None:
    """Signal over quantization noise in dB, ``10 log10(sum x² / sum (x - x')²)``; None if either is zero.

    Args:
        counts: Of bins ``[k * width, (k + 1) * width)`` for ``-half <= k < half``, [..., 2 * half]; values
            are taken as even within a bin.
        width: Of a bin, [...] as all that follows.
        scale: Distance of two levels.
        first: Lowest level, in steps from zero.
        last: Highest level, in steps from zero.
    """
    import numpy as np

    width, scale, first, last = (
        np.asarray(each, np.float64)[..., None] for each in (width, scale, first, last)
    )
    counts = counts.astype(np.float64) * (width > 0)  # else all are zeros, which every grid has
    width = np.where(width > 0, width, 1.0)
    half = counts.shape[-1] // 2
    edges = np.arange(-half, half + 1) * width
    signal = float((counts * np.diff(edges**3) / (3 * width)).sum())
    steps = edges / scale
    inside = np.clip(steps, first, last)
    nearest = np.floor(inside + 0.5)
    # Integral of the squared error from 0: a whole step adds 1/12, the rest and what is clipped a cubic each.
    integral = nearest / 12 + ((inside - nearest) ** 3 + (steps - inside) ** 3) / 3
    noise = float((counts * np.diff(integral) * scale**3 / width).sum())
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
