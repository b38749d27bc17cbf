"""Price of quantization-aware training: a training step and a forward pass, over the same in FP32.

    python -m benchmarks.qat_step [--model minilm_l6|bert_base] [--sites linear|qdqbert|both]
        [--length 64] [--batch 32] [--rounds 9] [--threads 2] [--no-peers] [--json FILE]

One process, one batch, dropout 0, one set of weights. ``fp32`` is plain transformers with its default
attention, ``fp32 eager`` the same with the attention that open matmul inputs need. A step is forward,
backward and AdamW. ``forward`` is evaluation without gradients, where qexp keeps quantized weights as
long as the weights do not change; ``forward, gradients on`` is the first half of a step. ``what the
framework costs`` takes the same FP32 steps through qexp's training, through a bare Lightning module, and
in a plain loop.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.floors import Floor, Rates, floor, rates
from benchmarks.framework import framework_calls
from benchmarks.harness import Reading, alternate, show, show_rows, write
from benchmarks.options import add_peers, parser, settings, start
from benchmarks.peers import OWN, PEERS, Prepared, prepare
from benchmarks.shapes import SHAPES, Batch, Family, batch_of

FP32 = {"fp32": "sdpa", "fp32 eager": "eager"}


def step_of(family: Family, model: Any, batch: Batch) -> Callable[[], None]:
    """One optimizer step."""
    optimizer = family.optimizer(model.parameters())

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # at the end: variants that wait their turn hold no gradients

    return step


def forward_of(model: Any, batch: Batch, gradients: bool) -> Callable[[], None]:
    """One forward pass, with or without the record that a backward pass needs."""

    def forward() -> None:
        with torch.set_grad_enabled(gradients):
            model(**batch)

    return forward


def measure(
    family: Family, models: dict[str, Any], batch: Batch, rounds: int
) -> dict[str, dict[str, Reading]]:
    """The three tables, each printed as soon as it is there."""

    def table(title: str, calls: dict[str, Callable[[], None]]) -> dict[str, Reading]:
        readings = alternate(calls, rounds, "fp32")
        show(title, readings)
        return readings

    for model in models.values():
        model.train()
    steps = {name: step_of(family, model, batch) for name, model in models.items()}
    found = {"train step": table("train step", steps)}
    for title, gradients in (("forward, gradients on", True), ("forward", False)):
        calls = {name: forward_of(model.eval(), batch, gradients) for name, model in models.items()}
        found[title] = table(title, calls)
    return found


def compare(
    options: argparse.Namespace, family: Family, sites: str, batch: Batch, found: Rates
) -> dict[str, Any]:
    """One site set: prepare, measure, print."""
    print(f"\n== {options.model}, {sites}, batch {options.batch}, length {options.length}", flush=True)
    prepared: Prepared = prepare(family, sites, batch, OWN | (PEERS if options.peers else {}))
    prepared.show()
    models = {name: family.build(attention) for name, attention in FP32.items()} | prepared.models
    tables = measure(family, models, batch, options.rounds)
    least = floor(family.shape, options.batch, options.length, sites, found)
    _show_floor(least, tables)
    return {
        "tables": tables, "floor": least, "sites": prepared.sites, "drift": prepared.drift,
        "left_out": prepared.skipped,
    }  # fmt: skip


def _show_floor(least: Floor, tables: dict[str, dict[str, Reading]]) -> None:
    step, forward = tables["train step"]["fp32"].seconds, tables["forward"]["fp32"].seconds
    rows = [
        ("fp32 forward", f"{least.forward * 1e3:.3f}", f"{least.forward / forward:.3f}"),
        ("fp32 train step", f"{least.step * 1e3:.3f}", f"{least.step / step:.3f}"),
        ("forward + quantization", _milliseconds(forward, least.quantization_forward),
         f"{1 + least.quantization_forward / forward:.3f}"),
        ("train step + quantization", _milliseconds(step, least.quantization_step),
         f"{1 + least.quantization_step / step:.3f}"),
    ]  # fmt: skip
    show_rows("floor: operations and bytes over measured rates", ("", "ms", "ratio to fp32"), rows)


def _milliseconds(measured: float, least: float) -> str:
    return f"{(measured + least) * 1e3:.3f}"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = parser(__doc__ or "", length=64, batch=32, rounds=9, steps=5)
    found.add_argument("--sites", choices=("linear", "qdqbert", "both"), default="both")
    add_peers(found)
    options = start(found, arguments)
    shape = SHAPES[options.model]
    family, batch = Family(shape), batch_of(shape, options.batch, options.length)
    machine = rates(shape, options.batch, options.length)
    chosen = ("linear", "qdqbert") if options.sites == "both" else (options.sites,)
    results = {sites: compare(options, family, sites, batch, machine) for sites in chosen}
    costs = alternate(
        framework_calls(family, batch, options.steps, options.threads), options.rounds, "plain loop"
    )
    show(f"what the framework costs: {options.steps} FP32 steps", costs)
    write(options.json, {"settings": settings(options), "rates": machine, **results, "framework": costs})


if __name__ == "__main__":
    main(sys.argv[1:])
