"""Ranges of quantized activations, and their quantization noise, for a Record.

Computed with numpy from the files of two artifacts, so that a run that finds all its artifacts in the store
does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from qexp.artifacts.types import Ranges, Statistics
from qexp.config import QuantizationConfig

Statistic = dict[str, float | None]
COUNTING = ("percentile", "mse", "sqnr", "entropy")
"""Calibrators that choose a range by the counts of a histogram."""
FEWEST_BINS = 16
"""Bins from zero to the end of a range below which the width of a bin, at least 6 %, is its error."""


def activation_ranges(
    quant_config: QuantizationConfig, statistics: Statistics, ranges: Ranges
) -> dict[str, dict[str, float | None]]:
    """Return an :class:`~qexp.records.schema.ActivationRange` for each activation quantizer, by name."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    if not quant_config.quant.quantizes_activations:
        return {}
    chosen = load_file(ranges.file)
    with safe_open(statistics.file, "numpy") as file:
        names = [key.removesuffix("/lows") for key in file.keys() if key.endswith("/lows")]  # noqa: SIM118
        calibrated = [name for name in sorted(names) if f"{name}/scale" in chosen]
        found = {name: _range(name, file.get_tensor, chosen) for name in calibrated}
    if quant_config.quant.activation_format is not None:
        return {name: each | {"sqnr": None} for name, each in found.items()}  # that of integers is not theirs
    return found


def coarse_ranges(calibrator: str, statistics: Statistics, ranges: Ranges) -> list[str]:
    """Return a sentence if ranges were chosen among few bins of a histogram, because few values are far out.

    The width of the bins follows from the largest value, and a range ends at an edge of a bin.
    """
    from safetensors import safe_open
    from safetensors.numpy import load_file

    if calibrator not in COUNTING:
        return []
    chosen, coarse = load_file(ranges.file), []
    with safe_open(statistics.file, "numpy") as file:
        for key in sorted(file.keys()):
            name, width = key.removesuffix("/width"), 0.0
            if key.endswith("/width") and f"{name}/scale" in chosen and f"{name}/members" not in chosen:
                width = float(file.get_tensor(key))
                end = abs(chosen[f"{name}/levels"] - chosen[f"{name}/zero_point"]) * chosen[f"{name}/scale"]
                coarse += [(name, float(end.max()), width)] if 0 < end.max() < FEWEST_BINS * width else []
    if not coarse:
        return []
    name, end, width = coarse[0]
    return [
        f"calibrator={calibrator}: single values of {len(coarse)} activations are so large that the bins of "
        f"the histogram cannot tell the range: that of {name} ends at {end:.3g}, to within {width:.3g}; set "
        "a ceiling with calibrator=clip calibrator.activation_clip_max=…, or leave such a layer out with "
        "placement.exclude; seen_high in the Record has the largest values"
    ]


def _range(name: str, seen: Callable[[str], Any], chosen: dict[str, Any]) -> Statistic:
    """Return one range; ``seen`` reads the statistics, by dimension if groups of dimensions have ranges."""
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
        "sqnr": sqnr(seen(counts), seen(width), scale=scale, first=first, last=last),
    }


def sqnr(counts: Any, width: Any, scale: Any, first: Any, last: Any) -> float | None:
    """Return the SQNR in dB, ``10 log10(sum x² / sum (x - x')²)``, or None if signal or noise is zero.

    Args:
        counts: Counts of the bins ``[k * width, (k + 1) * width)`` for ``-half <= k < half``, [..., 2 *
            half]; values are assumed to be uniform within a bin.
        width: Width of a bin, [...] as all arguments below.
        scale: Distance between two levels.
        first: Lowest level, in steps from zero.
        last: Highest level, in steps from zero.
    """
    import numpy as np

    width, scale, first, last = (
        np.asarray(each, np.float64)[..., None] for each in (width, scale, first, last)
    )
    counts = counts.astype(np.float64) * (width > 0)  # width 0: only zeros, which every grid represents
    width = np.where(width > 0, width, 1.0)
    half = counts.shape[-1] // 2
    edges = np.arange(-half, half + 1) * width
    signal = float((counts * np.diff(edges**3) / (3 * width)).sum())
    steps = edges / scale
    inside = np.clip(steps, first, last)
    nearest = np.floor(inside + 0.5)
    # Integral of the squared error from 0: a whole step adds 1/12, remainder and clipped part a cubic.
    integral = nearest / 12 + ((inside - nearest) ** 3 + (steps - inside) ** 3) / 3
    noise = float((counts * np.diff(integral) * scale**3 / width).sum())
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
