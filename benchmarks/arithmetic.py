"""How far float32 is from the meaning of a quantized model: torch in float64 against what a run left.

    python -m benchmarks.arithmetic RUN [RUN ...] [--rows N] [--threads 2]

The same model, the same fake quantization and the same rows, with every float of torch in twice the bits;
against it stand torch's predictions in float32 and those of every engine that the run's gate tried. RUN is
one of ``python -m qexp bench``. This is no measure of time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import table
from qexp.analysis.evaluator import Evaluator, evaluator_of
from qexp.analysis.find_run import find_record
from qexp.artifacts.types import Scores
from qexp.context import set_threads
from qexp.records.record import Record, outputs_root
from qexp.tasks import adapter_for
from qexp.tasks.base import Predictions
from qexp.tasks.scoring import read_predictions

BATCH = 8
"""Rows at once: float64 has no kernels of its own here, and takes memory for every step."""


def exact(bench: Evaluator) -> Predictions:
    """Predictions of the first evaluation split in float64."""
    rows, family = bench.rows, adapter_for(bench.rows.task)
    run = family.runner(bench.quantization.model.double(), bench.ctx)
    return family.predict(
        run, rows.tokens, rows.split, rows=rows.limit, advance=lambda *_, **__: None, batch_size=BATCH
    )


def kept(record: Record, outputs: Path) -> Iterator[tuple[str, Scores]]:
    """What the run left: torch's last evaluation in float32, and each quantized engine's."""
    visits = [
        (visit["stage"], outputs / "artifacts" / visit["stage"] / visit["key"]) for visit in record.stages
    ]
    yield "torch float32", Scores([folder for stage, folder in visits if stage == "6-scores"][-1], "")
    for stage, folder in visits:
        if stage == "8-parity":
            engine = json.loads((folder / "facts.json").read_text(encoding="utf-8"))["engine"]
            if engine["precision"] == "int8":
                yield engine["runtime"], Scores(folder, "")


def first(found: Predictions, rows: int) -> Predictions:
    """Of the first so many rows."""
    return Predictions(found.ids[:rows], found.predictions[:rows], found.labels[:rows], found.logits[:rows])


def lines(key: str, outputs: Path, limit: int | None) -> Iterator[list[str]]:
    """Of one run: a line for float64, and one for each that is held against it."""
    record = find_record(key, outputs)
    bench = evaluator_of(record, outputs, None, limit, "cpu")
    family, truth = adapter_for(bench.rows.task), exact(bench)
    name = " ".join((record.key[:8], bench.rows.task.name, *list(record.scores)[-1:]))
    metric = bench.rows.task.metrics[0]
    yield [name, "torch float64", f"{family.score(truth)[metric]:.2f}", "", "", ""]
    for who, scores in kept(record, outputs):
        found = first(read_predictions(scores, bench.rows.split), len(truth.logits))
        apart = np.abs(found.logits - truth.logits)
        yield [
            "", who, f"{family.score(found)[metric]:.2f}", f"{100 * family.same(found, truth).mean():.2f}",
            f"{apart.max():.3f}", f"{np.median(apart):.1e}",
        ]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="beginning of a key")
    parser.add_argument("--rows", type=int, help="the first N rows of the evaluation split (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    heads = ["run", "", "metric", "% as float64", "largest difference of a logit", "median"]
    for key in options.runs:
        table("Against float64", heads, list(lines(key, outputs_root(), options.rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
