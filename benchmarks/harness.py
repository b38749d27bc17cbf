"""Timing in one process: variants take turns, figures are medians of ratios within a round.

A shared machine drifts by tens of percent over minutes. A ratio of two calls that stand side by side
does not; so every variant runs once in a round, in an order that is shuffled anew for each round, and
is compared with the baseline of the same round only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

ORDER_SEED = 0
"""Seed of the orders in which variants take turns."""

PACKAGES = (
    "qexp", "torch", "transformers", "pytorch-lightning", "numpy", "onnx", "onnxruntime", "nvidia-modelopt",
    "torchao", "brevitas", "neural-compressor", "openvino",
)  # fmt: skip
"""Whose versions a result names; one that is not installed is named as null."""


@dataclass(frozen=True)
class Reading:
    """Times of one variant.

    ``seconds`` is the median over rounds. ``ratio`` is the median, ``least`` and ``largest`` the ends,
    of the ratio to the baseline within a round. ``fastest`` is the least of all times.
    """

    seconds: float
    ratio: float
    least: float
    largest: float
    fastest: float


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def alternate(calls: Mapping[str, Callable[[], object]], rounds: int, baseline: str) -> dict[str, Reading]:
    """Time calls in turns: one warm-up each, then rounds in which each runs once.

    Args:
        calls: what to time, by name; the readings keep this order.
        rounds: how often each runs, at least 1.
        baseline: name of the call that the ratios divide by.

    Raises:
        ValueError: ``baseline`` is no call, or there is no round.
    """
    if baseline not in calls or rounds < 1:
        raise ValueError(
            f"baseline {baseline!r} and rounds {rounds}: the baseline must be one of {', '.join(calls)}, "
            "and there must be at least one round; correct the call"
        )
    for call in calls.values():
        call()
    order, shuffler = list(calls), random.Random(ORDER_SEED)
    times: list[dict[str, float]] = []
    for _ in range(rounds):
        shuffler.shuffle(order)
        times.append({name: seconds(calls[name]) for name in order})
    return {name: _reading(name, times, baseline) for name in calls}


def _reading(name: str, times: list[dict[str, float]], baseline: str) -> Reading:
    ratios = [each[name] / each[baseline] for each in times]
    own = [each[name] for each in times]
    return Reading(
        statistics.median(own), statistics.median(ratios), min(ratios), max(ratios), fastest=min(own)
    )


def show(title: str, readings: Mapping[str, Reading]) -> None:
    """Print a table: milliseconds, and ratio to the baseline with its least and largest."""
    rows = [
        (name, f"{each.seconds * 1e3:.3f}", f"{each.ratio:.3f}", f"{each.least:.3f} .. {each.largest:.3f}")
        for name, each in readings.items()
    ]
    show_rows(title, ("", "ms", "ratio", "within rounds"), rows)


def show_rows(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    print(f"\n{title}", flush=True)
    for row in [heads, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join([row[0].ljust(widths[0]), *cells]), flush=True)


def table(title: str, heads: list[str], lines: list[list[str]]) -> None:
    """Print Markdown."""
    print(f"\n## {title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for line in lines:
        print(f"| {' | '.join(line)} |", flush=True)


def write(path: Path | None, payload: Mapping[str, Any]) -> None:
    """Write ``payload`` with the surroundings as JSON; None writes nothing.

    Dataclasses anywhere in it become objects.
    """
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"surroundings": surroundings(), **payload}
    path.write_text(json.dumps(document, indent=1, default=_plain) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")


def surroundings() -> dict[str, Any]:
    """Versions, threads, processor, its load and the date: what a figure depends on besides its settings."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    """Model of the processor, as the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """Version of an installed package; None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} of {type(value).__name__} has no form in JSON")
