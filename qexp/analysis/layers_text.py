"""Text output of layers: a table of all, or the details of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from qexp.analysis.layers import LayerRanges, LayerWeight, QuantizedLayer

ROWS, BAR = 17, 40
"""Maximum number of lines of a histogram, and length of its longest bar in characters."""


def listing(layers: Sequence[QuantizedLayer]) -> str:
    """Return a table with a line for each weight, or one for a layer without weights."""
    heads = ("layer", "weight", "smallest", "largest", "scale", "activations")
    rows = [heads, *(row for layer in layers for row in _rows(layer))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def in_full(layer: QuantizedLayer) -> str:
    """Return integers, scales and a histogram of each weight, and the ranges of each activation."""
    lines = [layer.name or "(the model itself)"]
    for weight in layer.weights:
        lines += [f"  {line}" for line in _weight_lines(weight)]
    lines += [f"  {_activation_line(each)}" for each in layer.activations]
    return "\n".join(lines)


def histogram(integers: Tensor, low: int, high: int) -> list[tuple[int, int, int]]:
    """Return the first and last integer of each bin and its count, for at most ``ROWS`` bins."""
    width = -(-(high - low + 1) // ROWS)
    counts = np.bincount(integers.cpu().numpy().reshape(-1).astype(np.int64) - low, minlength=high - low + 1)
    return [
        (start, min(start + width - 1, high), int(counts[start - low : start - low + width].sum()))
        for start in range(low, high + 1, width)
    ]


def _rows(layer: QuantizedLayer) -> list[tuple[str, ...]]:
    activations = ", ".join(each.kind for each in layer.activations)
    if not layer.weights:
        return [(layer.name, "", "", "", "", activations)]
    return [
        (layer.name, _form(each), f"{each.low:.4g}", f"{each.high:.4g}", _scale(each), activations)
        for each in layer.weights
    ]


def _form(weight: LayerWeight) -> str:
    return f"{_dtype(weight)} {list(weight.integers.shape)}"


def _dtype(weight: LayerWeight) -> str:
    return str(weight.integers.dtype).removeprefix("torch.")


def _grid(ranges: LayerRanges) -> str:
    grid = ranges.grid
    return f"{grid.qmin} to {grid.qmax} ({grid.bits} bits)"


def _scale(ranges: LayerRanges) -> str:
    low, high = float(ranges.scale.min()), float(ranges.scale.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _zero_point(ranges: LayerRanges) -> str:
    low, high = int(ranges.zero_point.min()), int(ranges.zero_point.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _weight_lines(weight: LayerWeight) -> list[str]:
    grid, channels = weight.grid, weight.scale.numel()
    ranges = "one range" if grid.axis is None else f"{channels} ranges along axis {grid.axis}"
    ranges = ranges if grid.block is None else f"{channels} ranges in blocks of {grid.block} along axis 1"
    corner = np.array2string(
        weight.integers.cpu().numpy(), threshold=0, edgeitems=3, separator=", ", prefix="array("
    )
    low, high = weight.ends
    return [
        f"{weight.kind}: {_form(weight)}, {_grid(weight)}, {ranges}{_shared(weight)}",
        *f"array({corner}, dtype={_dtype(weight)})".splitlines(),
        f"weights {weight.low:.6g} to {weight.high:.6g}; grid {low:.6g} to {high:.6g}; "
        f"scale {_scale(weight)}; zero point {_zero_point(weight)}",
        *_bars(weight),
    ]


def _bars(weight: LayerWeight) -> list[str]:
    rows = histogram(weight.integers, weight.grid.qmin, weight.grid.qmax)
    most, total = max(count for _, _, count in rows), weight.integers.numel()
    names = [f"{first}" if first == last else f"{first} to {last}" for first, last, _ in rows]
    width = max(map(len, names))
    return [
        f"{name:>{width}} |{'#' * -(-count * BAR // most):<{BAR}}| {count / total:6.2%}"
        for name, (_, _, count) in zip(names, rows, strict=True)
    ]


def _activation_line(ranges: LayerRanges) -> str:
    if ranges.grid.dynamic:
        each = "each token" if ranges.grid.dynamic == "token" else "each batch"
        return f"{ranges.kind}: a range for {each}, found at run time, {_grid(ranges)}{_shared(ranges)}"
    low, high = ranges.ends
    return (
        f"{ranges.kind}: {low:.6g} to {high:.6g}, scale {_scale(ranges)}, zero point {_zero_point(ranges)}, "
        f"{_grid(ranges)}{_shared(ranges)}"
    )


def _shared(ranges: LayerRanges, most: int = 3) -> str:
    if not ranges.shared:
        return ""
    rest = f" and {len(ranges.shared) - most} more" if len(ranges.shared) > most else ""
    return f"; the same value as {', '.join(ranges.shared[:most])}{rest}"
