"""Outlier dimensions of quantized activations, for a Record.

An outlier is a value more than six standard deviations from the mean of its activation (Bondarenko, Nagel and
Blankevoort 2021, arXiv 2109.12948, figure 2). In encoders they lie in a few dimensions, the same ones for
most tokens. Dettmers et al. 2022 (arXiv 2208.07339) count magnitudes of at least 6 instead, which depends on
the scale of a model's activations.

Computed with numpy from the files of calibration, without a pass over the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qexp.artifacts.types import Ranges, Statistics
from qexp.config import QuantizationConfig
from qexp.records.schema import OutlierDimensions

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEVIATIONS = 6.0
"""Distance from the mean in standard deviations, beyond which a value is an outlier."""
MOST_DIMENSIONS = 5
"""Maximum number of outlier dimensions of an activation that a Record lists."""


def outlier_dimensions(
    quant_config: QuantizationConfig, statistics: Statistics, ranges: Ranges
) -> dict[str, OutlierDimensions] | None:
    """Return the outlier dimensions of each activation with one range for all of them, by quantizer.

    Activations without an outlier are left out. None if no range of a dimension is known: activations are
    floating point, or an older version collected the statistics.
    """
    from safetensors import safe_open
    from safetensors.numpy import load_file

    if not quant_config.quant.quantizes_activations:
        return None
    chosen = load_file(ranges.file)
    with safe_open(statistics.file, "numpy") as file:
        keys = sorted(file.keys())
        names = [name for key in keys if (name := key.removesuffix("/extremes")) != key]
        whole = [name for name in names if f"{name}/scale" in chosen and f"{name}/members" not in chosen]
        found = {
            name: outliers_of(*map(file.get_tensor, (f"{name}/extremes", f"{name}/counts", f"{name}/width")))
            for name in whole
        }
    return {name: each for name, each in found.items() if each} if names else None


def outliers_of(
    extremes: NDArray[Any], counts: NDArray[Any], width: NDArray[Any]
) -> OutlierDimensions | None:
    """Return the outlier dimensions of one activation, or None if no dimension has an outlier, or each.

    Args:
        extremes: Lowest and highest value of each dimension, [2, H].
        counts: Counts of the bins ``[k * width, (k + 1) * width)`` for ``-half <= k < half``, int [2 * half].
        width: Width of a bin, a scalar; 0 if only zeros were observed.
    """
    import numpy as np

    low, high = extremes.astype(np.float64)
    mean, deviation = _moments(counts, float(width))
    farthest = np.maximum(high - mean, mean - low)
    is_outlier = farthest > DEVIATIONS * deviation
    if deviation == 0 or is_outlier.all() or not is_outlier.any():
        return None
    first = np.argsort(-farthest, kind="stable")[: min(int(is_outlier.sum()), MOST_DIMENSIONS)]
    others = ~is_outlier
    return {
        "size": len(low),
        "count": int(is_outlier.sum()),
        "dimensions": first.tolist(),
        "low": low[first].tolist(),
        "high": high[first].tolist(),
        "others_low": float(low[others].min()),
        "others_high": float(high[others].max()),
    }


def _moments(counts: NDArray[Any], width: float) -> tuple[float, float]:
    """Return mean and standard deviation of the values of a histogram, which are uniform within a bin."""
    import numpy as np

    total = float(counts.sum())
    if not total:
        return 0.0, 0.0
    half = len(counts) // 2
    middles = (np.arange(-half, half) + 0.5) * width
    mean = float((counts * middles).sum()) / total
    variance = float((counts * (middles - mean) ** 2).sum()) / total + width**2 / 12
    return mean, variance**0.5
