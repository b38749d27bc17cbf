"""Tokenizing a split: qexp, plain transformers and datasets over the bare Rust tokenizer.

    python -m benchmarks.tokenize [--task mnli] [--data DIR] [--rows N] [--rounds 5] [--json FILE]

Rows are those of the train split of ``--data`` (``DIR/<task>/train.parquet``, by default ``QEXP_DATA``),
else the generated sample. The floor is ``tokenizers.Tokenizer.encode_batch_fast`` on texts that are Python
strings already, its results dropped. ``qexp`` and the peers begin with rows in Arrow; ``qexp`` and
``datasets.map`` end with files, ``transformers`` with lists in memory. Memory is by how much the peak of a
fresh process, without its children, grows while one variant runs once (Linux only).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import yaml  # type: ignore[import-untyped, unused-ignore]
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.harness import alternate, show, show_rows, write
from qexp.config import Data, Model, TextTask
from qexp.data.checkpoints import Checkpoint, locate
from qexp.data.sources.resolve import ROOT_VARIABLE, resolve
from qexp.data.tokenization.texts import tokenize
from qexp.environment import conf_folder

FLOOR = "rust, all cores"
PROCESSES = 2
"""Processes of ``datasets.map``."""


@dataclass(frozen=True)
class Work:
    """What every variant is given."""

    table: pa.Table
    task: TextTask
    tokenizer: PreTrainedTokenizerBase
    folder: Path

    @property
    def texts(self) -> list[list[str]]:
        """One list of texts for each column."""
        return [self.table.column(name).to_pylist() for name in self.task.text]


def work_of(options: argparse.Namespace, folder: Path) -> Work:
    """The rows and the tokenizer that the command line names."""
    section = yaml.safe_load((conf_folder() / "task" / f"{options.task}.yaml").read_text(encoding="utf-8"))
    task = TextTask.model_validate({name: value for name, value in section.items() if name != "finetune"})
    source = Data(source="local", root=options.data) if options.data else Data(source="sample")
    table = resolve(source, task).splits[task.train].slice(0, options.rows)
    checkpoint = locate(Model(name=options.model))
    assert isinstance(checkpoint, Checkpoint)
    return Work(table, task, AutoTokenizer.from_pretrained(checkpoint.folder), folder)


def rust(work: Work, threads: str) -> Callable[[], object]:
    """The bare tokenizer on strings, on one thread or on all."""
    backend = type(work.tokenizer.backend_tokenizer).from_str(work.tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.enable_truncation(work.task.max_length, strategy="longest_first")
    texts = work.texts
    inputs = texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))

    def call() -> None:
        with parallel(threads):
            backend.encode_batch_fast(inputs)

    return call


@contextmanager
def parallel(word: str) -> Iterator[None]:
    """``false`` keeps the Rust tokenizer on one thread; it asks at every call."""
    os.environ["TOKENIZERS_PARALLELISM"] = word
    try:
        yield
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]


def ours(work: Work) -> Callable[[], object]:
    """The table to arrays on disk."""
    return partial(tokenize, work.table, work.task, work.tokenizer, work.folder / "qexp")


def transformers_call(work: Work) -> Callable[[], object]:
    """The table to lists, in one call."""
    cut = {"truncation": "longest_first", "max_length": work.task.max_length}
    return lambda: work.tokenizer(*work.texts, **cut)


def datasets_map(work: Work) -> Callable[[], object]:
    """A set on disk to a set on disk, in batches."""
    datasets.Dataset(work.table).save_to_disk(work.folder / "rows")
    rows = datasets.load_from_disk(str(work.folder / "rows"))
    names, length, tokenizer = list(work.task.text), work.task.max_length, work.tokenizer

    def encode(batch: dict[str, list[Any]]) -> Any:
        texts = [batch[name] for name in names]
        return tokenizer(*texts, truncation="longest_first", max_length=length)

    map_options = {"batched": True, "num_proc": PROCESSES, "load_from_cache_file": False}
    target = str(work.folder / "mapped.arrow")
    return lambda: rows.map(encode, cache_file_name=target, **map_options)


VARIANTS: dict[str, Callable[[Work], Callable[[], object]]] = {
    FLOOR: partial(rust, threads="true"),
    "rust, 1 core": partial(rust, threads="false"),
    "qexp": ours,
    "transformers call": transformers_call,
    f"datasets.map, {PROCESSES} processes": datasets_map,
}


def grown_mib(options: argparse.Namespace, name: str) -> float:
    """Growth of the peak memory of a fresh process while one variant runs once, without its children."""
    words = [f"--{key}={getattr(options, key)}" for key in ("task", "data", "rows", "model")]
    command = [sys.executable, "-m", "benchmarks.tokenize", *words, f"--only={name}"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(json.loads(said.splitlines()[-1]))


def run_once(work: Work, name: str) -> float:
    """Run one variant; returns by how many MiB the peak of this process grew."""
    call = VARIANTS[name](work)
    before = _status_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is in use now
    call()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(words)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        work = work_of(options, Path(folder))
        if options.only:
            print(json.dumps(run_once(work, options.only)))
            return
        calls = {name: made(work) for name, made in VARIANTS.items()}
        readings = alternate(calls, options.rounds, FLOOR)
        tokens = len(tokenize(work.table, work.task, work.tokenizer, work.folder / "count").ids)
    rows = work.table.num_rows
    where = options.data or "sample"
    show(f"{options.task} ({where}): {rows} rows, {tokens} tokens", readings)
    memory = {name: grown_mib(options, name) for name in VARIANTS}
    show_rows("peak memory, growth", ("", "MiB"), [(name, f"{value:.1f}") for name, value in memory.items()])
    settings = {"task": options.task, "data": where, "model": options.model, "rounds": options.rounds}
    measured = {"rows": rows, "tokens": tokens, "readings": readings, "peak_growth_mib": memory}
    write(options.json, {"settings": settings, **measured})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="mnli")
    parser.add_argument("--data", default=os.environ.get(ROOT_VARIABLE, ""), metavar="DIR")
    parser.add_argument("--rows", type=int, default=10**9, help="at most that many rows (default: all)")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", choices=list(VARIANTS), help="run one variant once; print MiB of peak growth"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    main()
