"""Rows of 20 to 60 tokens, as GLUE has them: what padding costs, and what sorting leaves of it."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness import alternate, table
from benchmarks.served import BASELINE, Served, show_best
from benchmarks.shapes import Shape, batch_of

ORDERS = ("padded to 128", "as they come", "sorted")
"""How rows of different lengths make batches: all of one length, or padded to the longest of each batch."""


def ragged(shape: Shape, rows: int, size: int = 32) -> dict[str, tuple[list[dict[str, Any]], float]]:
    """Return batches of rows with 20 to 60 tokens for each order, and the percent of tokens that are real."""
    lengths = np.random.default_rng(5).integers(20, 61, rows)
    found = {}
    for order in ORDERS:
        chosen = np.sort(lengths) if order == "sorted" else lengths
        batches = []
        for start in range(0, rows, size):
            of_batch = chosen[start : start + size]
            longest = 128 if order == ORDERS[0] else int(of_batch.max())
            made = batch_of(shape, len(of_batch), min(longest, shape.positions), seed=start)
            mask = (np.arange(made["input_ids"].shape[1])[None] < of_batch[:, None]).astype(np.int64)
            arrays = {name: values.numpy() for name, values in made.items() if name != "labels"}
            batches.append(arrays | {"attention_mask": mask, "input_ids": arrays["input_ids"] * mask})
        tokens = sum(each["attention_mask"].size for each in batches)
        real = sum(int(each["attention_mask"].sum()) for each in batches)
        found[order] = batches, 100 * real / tokens
    return found


def time_ragged(
    forms: dict[str, Served], shape: Shape, options: Any, others: Container[str]
) -> dict[str, Any]:
    """Print milliseconds a row in batches of 32, by the order of the rows.

    ``others`` are the forms of other projects.
    """
    tables = {}
    for order, (batches, real) in ragged(shape, options.ragged).items():
        calls = {name: partial(run_all, each.run, batches) for name, each in forms.items()}
        readings = alternate(calls, options.rounds, BASELINE)
        lines = [
            [name, f"{each.seconds * 1e3 / options.ragged:.2f}", f"{1 / each.ratio:.2f}"]
            for name, each in readings.items()
        ]
        title = f"{options.model}, rows of 20 to 60 tokens, {order}: {real:.0f} % of the tokens are real"
        table(title, ["", "ms a row", "times FP32"], lines)
        show_best(readings, others)
        tables[order] = {"readings": readings, "real": real}
    return tables


def run_all(run: Callable[[dict[str, Any]], Any], batches: list[dict[str, Any]]) -> None:
    """Run batches one after the other."""
    for batch in batches:
        run(batch)
