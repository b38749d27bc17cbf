"""Places of batches that tokens fill, on real rows: in a random order, and as this project makes batches.

    python -m benchmarks.padding --data DIR [--tasks cola sst2 mrpc stsb mnli qqp] [--rows 8000]

DIR has a folder for each task with Parquet files. Batches are those of an evaluation (64 rows, sorted by
length) and of a training (32 rows, sorted within 50 batches). What is not filled is all that work without
padding could save.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from transformers import AutoTokenizer

from benchmarks.harness import table
from qexp.config import BatchSize, Model
from qexp.data.batches import EVALUATION_BATCH, Array, evaluation_batches, train_epochs
from qexp.data.checkpoints import Checkpoint, locate

SENTENCES = ("sentence", "sentence1", "sentence2", "premise", "hypothesis", "question1", "question2")
"""Columns with texts in the data sets of GLUE."""
MODEL, TRAINING_BATCH, LONGEST = "sentence-transformers/all-MiniLM-L6-v2", 32, 128


def filled(lengths: Array, batches: Iterable[Array]) -> float:
    """Return the percent of places that are tokens, with each batch padded to its longest row."""
    chosen = [lengths[batch] for batch in batches]
    return 100 * float(sum(of.sum() for of in chosen) / sum(of.max() * len(of) for of in chosen))


def drawn(count: int, size: int) -> list[Array]:
    """Return batches of rows in a random order."""
    order = np.random.default_rng(0).permutation(count)
    return [order[start : start + size] for start in range(0, count, size)]


def shares(lengths: Array, training: bool) -> tuple[float, float]:
    """Return how full batches of rows in a random order are, and those of this project."""
    if training:
        size = TRAINING_BATCH
        epochs = train_epochs(lengths, size=BatchSize(rows=size), epochs=1, seed=1)
        own = [batch for epoch in epochs for batch in epoch]
    else:
        size = EVALUATION_BATCH
        own = evaluation_batches(lengths, batch_size=size)
    return filled(lengths, drawn(len(lengths), size)), filled(lengths, own)


def lengths_of(file: Path, tokenizer: Any, rows: int) -> Array:
    """Return the tokens of each of the first rows of a file, [rows]."""
    found = pq.read_table(file).slice(0, rows)
    texts = [found[name].to_pylist() for name in SENTENCES if name in found.column_names]
    tokens = tokenizer(*texts, truncation=True, max_length=LONGEST)["input_ids"]
    return np.array([len(each) for each in tokens])


def main(arguments: list[str] | None = None) -> None:
    """Count and print."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--data", type=Path, required=True, help="folder with mrpc/train.parquet")
    found.add_argument("--tasks", nargs="+", default=["cola", "sst2", "mrpc", "stsb", "mnli", "qqp"])
    found.add_argument("--rows", type=int, default=8000, help="most rows of a split")
    options = found.parse_args(arguments)
    checkpoint = locate(Model(name=MODEL))
    assert isinstance(checkpoint, Checkpoint)
    tokenizer, lines = AutoTokenizer.from_pretrained(checkpoint.folder), list[list[str]]()
    for task in options.tasks:
        cells = [task]
        for split in ("validation", "train"):
            file = min((options.data / task).glob(f"{split}*.parquet"))
            lengths = lengths_of(file, tokenizer, options.rows)
            percents = shares(lengths, split == "train")
            cells += [f"{lengths.mean():.1f}", *(f"{each:.1f}" for each in percents)]
        lines.append(cells)
    heads = ["evaluated: tokens a row", "random, %", "sorted, %"]
    heads += ["trained: tokens a row", "random, %", "sorted in part, %"]
    table("Places of batches that tokens fill", ["", *heads], lines)


if __name__ == "__main__":
    main(sys.argv[1:])
