"""A sweep through every launcher, over the same jobs with a store each.

    python -m benchmarks.launchers [--apart] [--slurm] [--json FILE] [WORDS ...]

WORDS are those of ``python -m qexp -m``; commas make jobs. By default 24 jobs: three tasks of GLUE (QEXP_DATA
names the folder with their rows), W8A8 and W4A8, PTQ and QAT, two calibrators, 40 steps a training. Each
variant begins with an empty store, runs once, and is timed from outside:

    serial       ``python -m qexp -m``
    joblib       the same with hydra/launcher=joblib, one job for each core
    slurm        the same with hydra/launcher=slurm_cpu on a private SLURM of two nodes (with --slurm)
    a store each every job as a process of its own with an empty store, one after the other (with --apart)

Stages built and reused are counted from the sweep's ledger, and the seconds of those that were built.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.sweep import ROOT, jobs_of
from tests.support.slurm_cluster import slurm

WORDS = (
    "task=cola,mrpc,stsb", "quant=w8a8,w4a8", "method=ptq,qat", "calibrator=max,mse", "data=local",
    "deploy=none",
    "task.max_length=64", "finetune.batch_size=16", "budget.train_steps=40", "budget.evaluation_rows=200",
    "budget.calibration_rows=128", "machine.progress=false",
)  # fmt: skip
NODE = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")


@dataclass(frozen=True)
class Reading:
    """One variant."""

    variant: str
    seconds: float
    built: int
    reused: int
    stages: dict[str, float]
    """Seconds of the stages that were built, by stage."""


def run(variant: str, words: Sequence[str], environment: Mapping[str, str] = os.environ) -> Reading:
    """One command with an empty store."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as outputs:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "qexp", *words], cwd=ROOT, capture_output=True, text=True,
            env={**environment, "QEXP_OUTPUTS": outputs},
        )  # fmt: skip
        seconds = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"qexp {' '.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
        return Reading(variant, seconds, *_counts(Path(outputs)))


def _counts(outputs: Path) -> tuple[int, int, dict[str, float]]:
    """Stages built and reused by all jobs, and seconds of those built: from ledgers, or a job's Record."""
    files = [*outputs.glob("sweeps/*/*/[0-9]*.json")] or [*outputs.glob("records/*.json")]
    stages = [stage for file in files for stage in json.loads(file.read_text())["stages"]]
    built, seconds = [each for each in stages if each["state"] == "built"], Counter[str]()
    for each in built:
        seconds[each["stage"]] += each["seconds"]
    return len(built), sum(each["state"] == "cached" for each in stages), dict(seconds)


def apart(words: Sequence[str]) -> Reading:
    """Every job with a store of its own."""
    readings = []
    for job in jobs_of(words):
        readings.append(run(" ".join(job), job))
        print(f"  {readings[-1].seconds:6.1f} s  {readings[-1].variant}", file=sys.stderr)
    stages = sum((Counter(each.stages) for each in readings), Counter[str]())
    return Reading(
        "a store each",
        seconds=sum(each.seconds for each in readings),
        built=sum(each.built for each in readings),
        reused=sum(each.reused for each in readings),
        stages=dict(stages),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    words = options.words or list(WORDS)
    readings = [
        run("serial", ["-m", *words]),
        run("joblib", ["-m", *words, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={os.cpu_count()}"]),
    ]
    if options.slurm:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            slurm(Path(folder) / "slurm") as it,
        ):
            readings.append(run("slurm", ["-m", *words, "hydra/launcher=slurm_cpu", *NODE], it.environment))
    if options.apart:
        readings.append(apart(words))
    print(f"{len(jobs_of(words))} jobs: {' '.join(words)}")
    for each in readings:
        share = f"{each.seconds / readings[-1].seconds:6.1%}" if options.apart else ""
        print(f"{each.variant:<14}{each.seconds:8.1f} s {share}  built {each.built}, reused {each.reused}")
        print("  seconds: " + ", ".join(f"{name} {spent:.0f}" for name, spent in each.stages.items()))
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in readings], indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="WORDS")
    parser.add_argument("--slurm", action="store_true", help="also through a private SLURM")
    parser.add_argument("--apart", action="store_true", help="also every job with a store of its own")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    main()
