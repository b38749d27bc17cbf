"""Price of one fake quantization, over a copy of the same tensor plus its arithmetic.

    python -m benchmarks.fake_quant [--smallest 65536] [--largest 104857600] [--rounds 21] [--threads 2]
        [--no-peers] [--json FILE]

For each granularity and size in bytes: forward with fixed ranges, forward and backward with fixed ranges,
and forward and backward with learned ones. ``copy`` writes into memory that is there already, ``clone``
into new memory, as any fake quantization has to that returns a new tensor; where memory comes from the
system page by page, this costs more than the copy. A floor is one or the other, at its fastest, plus the
arithmetic (benchmarks/floors.py) of all elements, spread over the threads that torch uses for a tensor
of that size; backward adds one and a half copies: two tensors are read and one is written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.floors import FLOAT, arithmetic_seconds
from benchmarks.harness import Reading, alternate, show_rows, write
from benchmarks.kernels import KERNELS, Kernel
from benchmarks.options import add_peers, parser, settings, start
from benchmarks.peers import attempt

MODES = {
    "forward, frozen": (False, False),
    "both ways, frozen": (True, False),
    "both ways, learned": (True, True),
}
"""By title: whether backward is run, and whether ranges are learned."""
GRAIN = 32768
"""Elements below which torch works on one thread."""
COLUMNS = 512
"""Width of the tensors; their rows are the channels."""
REPEATED = 4 << 20
"""Bytes that one timed call works through at least, by repeating a small tensor."""


def tensor_of(size: int) -> Tensor:
    """A tensor of about ``size`` bytes, [rows, COLUMNS]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(max(1, size // FLOAT // COLUMNS), COLUMNS, generator=generator)


def copying(x: Tensor, repeats: int) -> dict[str, Callable[[], None]]:
    """A copy into memory that is there already, and one into new memory."""
    target = torch.empty_like(x)

    def copy() -> None:
        for _ in range(repeats):
            target.copy_(x)

    def clone() -> None:
        for _ in range(repeats):
            x.clone()

    return {"copy": copy, "clone": clone}


def working(
    kernel: Callable[[Tensor], Tensor], x: Tensor, repeats: int, backward: bool
) -> Callable[[], None]:
    """Fake quantization of ``x``, with gradients to it where ``backward`` is asked for."""
    gradient = torch.ones_like(x)

    def run() -> None:
        for _ in range(repeats):
            if backward:
                kernel(x.detach().requires_grad_()).backward(gradient)
            else:
                with torch.no_grad():
                    kernel(x)

    return run


def floor_seconds(copied: float, elements: int, arithmetic: float, threads: int, backward: bool) -> float:
    """A copy and the arithmetic; one and a half more copies backward."""
    spread = threads if elements > GRAIN else 1
    return copied * (2.5 if backward else 1) + elements * arithmetic / spread


def measure(
    kernels: dict[str, Kernel], channels: bool, size: int, mode: str, rounds: int
) -> tuple[dict[str, Reading], dict[str, str]]:
    """One table: seconds for each tensor, and what was left out."""
    backward, learned = MODES[mode]
    x = tensor_of(size)
    repeats = max(1, REPEATED // size)
    calls, skipped = copying(x, repeats), {}
    for name, kernel in kernels.items():
        if (channels, learned) not in kernel.knows:
            continue
        made, problem = attempt(kernel.make, x, channels, learned)
        if problem is not None:
            skipped[name] = problem
            continue
        calls[name] = working(made, x, repeats, backward)
    found = alternate(calls, rounds, "copy")
    return {name: _each(reading, repeats) for name, reading in found.items()}, skipped


def _each(reading: Reading, repeats: int) -> Reading:
    return Reading(
        reading.seconds / repeats, reading.ratio, reading.least, reading.largest, reading.fastest / repeats
    )


def show(title: str, found: dict[str, Reading], floors: dict[str, float]) -> None:
    """One table with the ratios to both floors."""
    rows = [
        (name, f"{each.seconds * 1e6:.1f}", f"{each.ratio:.2f}", f"{each.least:.2f} .. {each.largest:.2f}",
         *(f"{each.seconds / least:.2f}" for least in floors.values()))
        for name, each in found.items()
    ]  # fmt: skip
    heads = ("", "us", "ratio to copy", "within rounds", *(f"to {name} + arithmetic" for name in floors))
    rows += [(f"{name} + arithmetic", f"{least * 1e6:.1f}", "", "", "", "") for name, least in floors.items()]
    show_rows(title, heads, rows)


def sizes(smallest: int, largest: int) -> list[int]:
    """From the smallest, each eight times the last, and the largest."""
    found = [smallest]
    while found[-1] * 8 < largest:
        found.append(found[-1] * 8)
    return [*found, largest] if largest > smallest else found


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", smallest=64 << 10, largest=100 << 20, rounds=21)
    add_peers(found)
    options = start(found, arguments)
    kernels = {name: each for name, each in KERNELS.items() if options.peers or name == "qexp"}
    arithmetic = arithmetic_seconds()
    skipped: dict[str, str] = {}
    tables: list[dict[str, Any]] = []
    for channels, size in product((False, True), sizes(options.smallest, options.largest)):
        for mode, (backward, _) in MODES.items():
            readings, missing = measure(kernels, channels, size, mode, options.rounds)
            skipped |= missing
            elements = tensor_of(size).numel()
            floors = {
                name: floor_seconds(readings[name].fastest, elements, arithmetic, options.threads, backward)
                for name in ("copy", "clone")
            }
            granularity = "per channel" if channels else "per tensor"
            show(f"{mode}, {granularity}, {size:,} bytes", readings, floors)
            tables.append({"mode": mode, "granularity": granularity, "bytes": size, "floors": floors,
                           "readings": readings})  # fmt: skip
    for name, reason in skipped.items():
        print(f"  left out: {name}: {reason}")
    write(options.json, {"settings": settings(options), "arithmetic": arithmetic, "tables": tables,
                         "left_out": skipped})  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
