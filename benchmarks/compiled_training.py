"""What ``machine.compile=true`` gains in a training, and after how many steps it has paid for itself.

    python -m benchmarks.compiled_training [--model minilm_l6] [--batch 32] [--lengths 24,32,40,56,128]
        [--rounds 5] [--threads 2] [--json FILE]

Steps in FP32 and QAT (W8A8, QDQBERT's sites, fixed ranges), dropout 0.1, over a batch of each length in turn;
without the compiler as a run of qexp takes them (attention computed again, faster dropout), and compiled,
with dynamic shapes. ``first`` is the first pass over all lengths, with the time of the compiler on an empty
cache. ``pays after`` are the steps that save as much as that pass took longer.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.harness import Reading, alternate, seconds, show_rows, write
from benchmarks.options import parser, settings, start
from benchmarks.peers import own
from benchmarks.shapes import SHAPES, Batch, Family, batch_of, set_dropout
from qexp.training.attention import recomputed_attention
from qexp.training.compile import compiled
from qexp.training.dropout import FastDropout

DROPOUT = 0.1
VARIANTS = ("fp32", "fp32, compiled", "qat", "qat, compiled")


def passes_of(variant: str, family: Family, batches: list[Batch], entered: ExitStack) -> Callable[[], None]:
    """Build the model of a variant and return a pass: one training step on each batch."""
    kind, _, compiles = variant.partition(", ")
    model = family.build("sdpa" if kind == "fp32" else "eager")
    if kind == "qat":
        own.prepare(model, own.PLACEMENTS["qdqbert"], batches[-1])
    set_dropout(model, DROPOUT)
    optimizer = family.optimizer(model.train().parameters())
    entered.enter_context(compiled(model, bool(compiles)))

    def run() -> None:
        with ExitStack() as stack:
            if not compiles:
                stack.enter_context(recomputed_attention(model))
                stack.enter_context(FastDropout())
            for batch in batches:
                model(**batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    return run


def pays_after(first: float, plain: float, reading: Reading, other: Reading, steps: int) -> float:
    """Return the steps after which the compiled variant has taken as long as the other, infinite if never.

    Args:
        first: Seconds of the first pass of the compiled variant.
        plain: Seconds of the first pass of the other.
        reading: Later passes of the compiled variant.
        other: Later passes of the other.
        steps: Steps of a pass.
    """
    saved = (other.seconds - reading.seconds) / steps
    return (first - plain) / saved + steps if saved > 0 else math.inf


def show(readings: dict[str, Reading], firsts: dict[str, float], steps: int, title: str) -> None:
    """Print a table: a step, over the same without the compiler, and when it pays."""
    rows = []
    for name, each in readings.items():
        kind, _, compiles = name.partition(", ")
        plain = readings[kind]
        after = pays_after(firsts[name], firsts[kind], each, plain, steps) if compiles else 0.0
        words = "" if not compiles else "never" if math.isinf(after) else f"{after:.0f} steps"
        step = f"{each.seconds / steps * 1e3:.0f}"
        rows.append((name, step, f"{each.ratio / plain.ratio:.2f}", f"{firsts[name]:.1f}", words))
    show_rows(title, ("", "ms a step", "over plain", "first, s", "pays after"), rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", batch=32, rounds=5)
    found.add_argument("--lengths", default="24,32,40,56,128", help="tokens of the batches of a pass")
    options = start(found, arguments)
    shape = SHAPES[options.model]
    lengths = [int(each) for each in options.lengths.split(",")]
    batches = [batch_of(shape, options.batch, each, seed=each, padded=True) for each in lengths]
    family, firsts = Family(shape), dict[str, float]()
    with ExitStack() as entered:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = entered.enter_context(tempfile.TemporaryDirectory())
        calls = {name: passes_of(name, family, batches, entered) for name in VARIANTS}
        for name, call in calls.items():
            firsts[name] = seconds(call)
            print(f"first pass, {name}: {firsts[name]:.1f} s", flush=True)
        readings = alternate(calls, options.rounds, "fp32")
    show(
        readings,
        firsts,
        len(batches),
        f"{options.model}, batches of {options.batch} rows, {options.lengths} tokens",
    )
    write(options.json, {"settings": settings(options), "first": firsts, "readings": readings})


if __name__ == "__main__":
    main(sys.argv[1:])
