"""Whether the price of quantization is linear in the number of elements that are quantized.

    python -m benchmarks.cost_curve [--batch 16] [--length 64] [--width 256] [--rounds 7] [--threads 2]
        [--phase frozen|learned] [--json FILE]

Seconds of a QAT step minus those of the FP32 step with the same attention (eager), all qdqbert sites, along
three axes: model width, sequence length, and number of quantizers (quantized layers of six). A fourth axis
is one fake quantization, forward and backward, over the size of its tensor. Each axis gets the line of least
squares over the number of elements: its slope, its intercept, the share of variance that it explains (R²),
and the largest distance of a point from it, over the largest price.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.fake_quant import measure as measure_kernels
from benchmarks.fake_quant import tensor_of
from benchmarks.floors import quantized_elements
from benchmarks.harness import alternate, show_rows, write
from benchmarks.kernels import KERNELS
from benchmarks.options import parser, settings, start
from benchmarks.peers.own import PLACEMENTS, prepare
from benchmarks.qat_step import step_of
from benchmarks.shapes import Family, Shape, batch_of, of_width
from qexp.config import Placement

WIDTHS = (128, 256, 384, 512, 640, 768)
LENGTHS = (32, 64, 96, 128, 192, 256)
LAYERS = 6
SIZES = tuple(kilobytes << 10 for kilobytes in (256, 1024, 2048, 4096, 8192, 16384, 32768))


@dataclass(frozen=True)
class Point:
    """One setting: what was varied, how many elements are quantized, and seconds that this adds."""

    at: int
    elements: int
    seconds: float


@dataclass(frozen=True)
class Line:
    """``seconds = intercept + slope * elements``."""

    slope: float
    intercept: float
    explained: float
    """R²."""
    farthest: float
    """Largest distance of a point from the line, over the largest of the seconds."""


def fit(points: list[Point]) -> Line:
    """The line of least squares through at least two different points."""
    x = np.array([point.elements for point in points], dtype=np.float64)
    y = np.array([point.seconds for point in points], dtype=np.float64)
    slope, intercept = np.polyfit(x, y, 1)
    rest = y - (intercept + slope * x)
    spread = float(((y - y.mean()) ** 2).sum())
    explained = 1 - float((rest**2).sum()) / spread if spread > 0 else 1.0
    return Line(float(slope), float(intercept), explained, float(np.abs(rest).max() / np.abs(y).max()))


def added_seconds(options: argparse.Namespace, shape: Shape, length: int, placement: Placement) -> float:
    """Seconds of a QAT step minus an FP32 step, each at its fastest: the difference is so small a part of
    both that medians, which hold what else the machine did, would drown it."""
    family, batch = Family(shape), batch_of(shape, options.batch, length)
    plain, quantized = family.build("eager").train(), family.build()
    prepare(quantized, placement, batch, options.phase)
    calls = {
        "fp32": step_of(family, plain, batch),
        "qat": step_of(family, quantized.train(), batch),
    }
    found = alternate(calls, options.rounds, "fp32")
    return found["qat"].fastest - found["fp32"].fastest


def over_width(options: argparse.Namespace) -> list[Point]:
    """Two layers of growing width."""
    return [
        _point(options, at, of_width(at), options.length, PLACEMENTS["qdqbert"])
        for at in WIDTHS[: options.points]
    ]


def over_length(options: argparse.Namespace) -> list[Point]:
    """Two layers of one width on growing lengths."""
    shape = of_width(options.width)
    return [_point(options, at, shape, at, PLACEMENTS["qdqbert"]) for at in LENGTHS[: options.points]]


def over_quantizers(options: argparse.Namespace) -> list[Point]:
    """Six layers, of which a growing number is quantized; pooler and head always are."""
    shape = replace(of_width(options.width), layers=LAYERS)
    found = []
    for layers in range(1, LAYERS + 1)[: options.points]:
        globs = tuple(f"*.layer.{index}.*" for index in range(layers, LAYERS))
        placement = PLACEMENTS["qdqbert"].model_copy(update={"exclude": globs})
        added = added_seconds(options, shape, options.length, placement)
        found.append(Point(layers, _elements(options, replace(shape, layers=layers), options.length), added))
    return found


def over_size(options: argparse.Namespace) -> list[Point]:
    """One fake quantization with gradients, on tensors of growing size in bytes."""
    own = {"qexp": KERNELS["qexp"]}
    mode = f"both ways, {options.phase}"
    found = []
    for size in SIZES[: options.points + 1]:
        readings, _ = measure_kernels(own, False, size, mode, options.rounds)
        found.append(Point(size, tensor_of(size).numel(), readings["qexp"].seconds))
    return found


def _point(options: argparse.Namespace, at: int, shape: Shape, length: int, placement: Placement) -> Point:
    return Point(at, _elements(options, shape, length), added_seconds(options, shape, length, placement))


def _elements(options: argparse.Namespace, shape: Shape, length: int) -> int:
    return sum(quantized_elements(shape, options.batch, length, "qdqbert"))


AXES = {
    "width": over_width,
    "length": over_length,
    "quantized layers": over_quantizers,
    "bytes of one tensor": over_size,
}


def show(axis: str, points: list[Point], line: Line) -> None:
    """One axis: its points beside the line."""
    rows = [
        (str(point.at), f"{point.elements:,}", f"{point.seconds * 1e3:.3f}",
         f"{(line.intercept + line.slope * point.elements) * 1e3:.3f}")
        for point in points
    ]  # fmt: skip
    show_rows(f"price over {axis}", (axis, "elements", "ms", "line"), rows)
    print(
        f"  {line.slope * 1e9:.3f} ns an element + {line.intercept * 1e3:.3f} ms; "
        f"R² {line.explained:.4f}, farthest point {line.farthest:.1%} of the largest"
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", length=64, batch=16, width=256, rounds=7, points=len(WIDTHS))
    found.add_argument("--phase", choices=("frozen", "learned"), default="frozen")
    options = start(found, arguments)
    results: dict[str, Any] = {}
    for axis, measure in AXES.items():
        points = measure(options)
        results[axis] = {"points": points, "line": fit(points)}
        show(axis, points, results[axis]["line"])
    write(options.json, {"settings": settings(options), "axes": results})


if __name__ == "__main__":
    main(sys.argv[1:])
