"""A sweep whose jobs share work, over the same jobs with nothing to share.

    python -m benchmarks.sweep [--rounds 3] [--model NAME] [--json FILE] [WORDS ...]

WORDS are those of ``python -m qexp -m``; commas make jobs. By default three bit-widths of one task are
calibrated on generated rows with a smoke budget. Variants:

    one job                        the first of the jobs, empty store: the floor, nothing of it is shared
    a store each                   every job as a process of its own, each with an empty store
    one store, a process each      the same processes, one after the other, over one store that begins empty
    one store, one multirun        ``python -m qexp -m``, over one store that begins empty
    all cached, one multirun       the same once more, over a store that has it all

Serial throughout. From the second variant to the third, artifacts are shared; to the fourth, imports too.
With the default words, a round takes as long as about seven whole jobs, and there is one more to warm up.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import alternate, show, write

ROOT = Path(__file__).resolve().parent.parent
BASELINE = "a store each"
WORDS = (
    "task=mrpc", "quant=w8a8,w4a8,w4a4", "method=ptq", "data=sample", "budget=smoke", "deploy=none",
    "task.max_length=32",
)  # fmt: skip


def jobs_of(words: Sequence[str]) -> list[list[str]]:
    """Words of every job of a multirun: all combinations of what stands between commas."""
    choices = [[f"{name}={value}" for value in values.split(",")] for name, values in map(_parted, words)]
    return [list(job) for job in itertools.product(*choices)]


def _parted(word: str) -> tuple[str, str]:
    name, sign, values = word.partition("=")
    if not sign or set(values) & set("[]{}()"):
        raise SystemExit(
            f"{word}: WORDS are name=value or name=value,value without brackets; change this word"
        )
    return name, values


def run(words: Sequence[str], outputs: Path) -> None:
    """One process of qexp."""
    environment = {**os.environ, "QEXP_OUTPUTS": str(outputs)}
    done = subprocess.run(
        [sys.executable, "-m", "qexp", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"qexp {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")


def fresh(act: Callable[[Path], None]) -> Callable[[], None]:
    """A call on an empty outputs folder, which is gone afterwards."""

    def call() -> None:
        with tempfile.TemporaryDirectory() as folder:
            act(Path(folder))

    return call


def calls_of(words: Sequence[str], full: Path) -> dict[str, Callable[[], None]]:
    """The variants; ``full`` is an empty folder for the store of the last one, which its first call fills."""
    jobs, multirun = jobs_of(words), ["-m", *words]

    def apart(outputs: Path) -> None:
        for number, job in enumerate(jobs):
            run(job, outputs / str(number))

    def shared(outputs: Path) -> None:
        for job in jobs:
            run(job, outputs)

    return {
        "one job": fresh(lambda outputs: run(jobs[0], outputs)),
        BASELINE: fresh(apart),
        "one store, a process each": fresh(shared),
        "one store, one multirun": fresh(lambda outputs: run(multirun, outputs)),
        "all cached, one multirun": lambda: run(multirun, full),
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(words)
    asked = [*(options.words or WORDS), *([f"model.name={options.model}"] if options.model else [])]
    jobs = jobs_of(asked)
    with tempfile.TemporaryDirectory() as full:
        readings = alternate(calls_of(asked, Path(full)), options.rounds, BASELINE)
    show(f"{len(jobs)} jobs: {' '.join(asked)}", readings)
    write(
        options.json,
        {"settings": {"words": asked, "rounds": options.rounds}, "jobs": jobs, "readings": readings},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="WORDS", help=f"default: {' '.join(WORDS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="name or folder for model.name (default: that of qexp)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    main()
