"""Time to answer of small commands, against another revision in one run, in turns.

    python -m benchmarks.startup [--against REVISION] [--rounds 5] [--only NAME ...] [--outputs DIR]

Every command is a process of its own, from the start of the interpreter to its end; wall time and CPU
time (user and system) are medians over the rounds, and ratios are medians within a round. The run is
``task=mrpc quant=w8a8 budget=smoke data=sample``; each build makes it once, before the clock starts, in a
minute or two, unless ``--outputs`` names a folder where it stands already. The limits are the project's own,
of wall time on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ORDER_SEED, show_rows, write
from qexp.records.record import records_folder
from qexp.records.record import write as write_record
from tests.support.record_factory import TASKS, deployed, experiment

ROOT = Path(__file__).resolve().parent.parent
RUN = ("task=mrpc", "quant=w8a8", "budget=smoke", "data=sample")
FEW, MANY = 20, 2000
"""Records under the reports."""
LIMITS = {
    "help": 0.8,
    "cfg job": 0.8,
    f"report, {FEW} Records": 0.8,
    f"report, {MANY} Records": 3.0,
    "predict a row, onnxruntime": 2.0,
    "publish": 3.0,
    "run, all cached": 3.0,
}
"""Seconds of wall time, by command."""
OWN = "this"


@dataclass(frozen=True)
class Cost:
    """Seconds that a process took: on the clock, and of the CPU."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Build:
    """One build of qexp, and what its commands need to find."""

    name: str
    root: Path
    scratch: Path
    outputs: Path

    @property
    def report_folders(self) -> dict[int, Path]:
        """Outputs with so many Records."""
        return {count: self.scratch / f"reported-{count}" for count in (FEW, MANY)}

    def commands(self, run: Sequence[str]) -> dict[str, tuple[tuple[str, ...], Path]]:
        """Make the run, and return arguments and outputs of each command by name."""
        key = Path(self.execute(run, self.outputs).rsplit("record: ", 1)[1].split("\n")[0]).stem
        rows, folder = self.scratch / "row.csv", self.scratch / f"published-{self.name}"
        few, many = (self.report_folders[count] for count in (FEW, MANY))
        return {
            "help": (("--help",), self.outputs),
            "cfg job": (("task=mrpc", "--cfg", "job"), self.outputs),
            f"report, {FEW} Records": (("report",), few),
            f"report, {MANY} Records": (("report",), many),
            "predict a row, onnxruntime": (
                ("predict", key, str(rows), "--runtime", "onnxruntime"),
                self.outputs,
            ),
            "publish": (("publish", key, str(folder)), self.outputs),
            "run, all cached": (tuple(run), self.outputs),
        }

    def cost(self, arguments: Sequence[str], outputs: Path) -> Cost:
        """Run a command quietly, and return what it took.

        Raises:
            RuntimeError: The command failed.
        """
        shutil.rmtree(self.scratch / f"published-{self.name}", ignore_errors=True)
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self.execute(arguments, outputs)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        return Cost(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)

    def execute(self, arguments: Sequence[str], outputs: Path) -> str:
        """Run a command, and return what it wrote to standard error.

        Raises:
            RuntimeError: The command failed.
        """
        environment = {**os.environ, "QEXP_OUTPUTS": str(outputs), "PYTHONPATH": str(self.root)}
        done = subprocess.run(
            [sys.executable, "-m", "qexp", *arguments],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: qexp {' '.join(arguments)}: {done.stderr[-2000:]}")
        return done.stderr


def write_records(folder: Path, count: int) -> None:
    """Records of all tasks, two models, three bit-widths and as many seeds as it takes."""
    for number in range(count):
        task, model = list(TASKS)[number % 3], ("minilm", "bert_base")[number // 3 % 2]
        tree = experiment(task, model, ("fp32", "w8a8", "w4a8")[number // 6 % 3], seed=number // 18)
        write_record(deployed(tree), folder)


def checkout(revision: str, folder: Path) -> Path:
    """Write the files of a revision to a folder, and return it."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


def measure(
    builds: Sequence[Build], run: Sequence[str], rounds: int, only: Sequence[str]
) -> dict[str, dict[str, list[Cost]]]:
    """Return the costs of each command and build; each runs once to warm up, then once a round, in turns."""
    jobs = [
        (name, build, command)
        for build in builds
        for name, command in build.commands(run).items()
        if not only or name in only
    ]
    shuffler = random.Random(ORDER_SEED)
    costs: dict[str, dict[str, list[Cost]]] = {name: {} for name, _, _ in jobs}
    for turn in range(rounds + 1):
        shuffler.shuffle(jobs)
        for name, build, (arguments, outputs) in jobs:
            cost = build.cost(arguments, outputs)
            if turn:
                costs[name].setdefault(build.name, []).append(cost)
    return costs


def rows_of(costs: Mapping[str, Mapping[str, Sequence[Cost]]]) -> list[tuple[str, ...]]:
    """Return the rows of the table: wall and CPU time of this build, limit, and ratios to the other."""
    rows = []
    for name, by_build in costs.items():
        own, other = by_build[OWN], next((each for key, each in by_build.items() if key != OWN), None)
        wall = statistics.median(each.wall for each in own)
        cells = [f"{wall:.2f}", f"{statistics.median(each.cpu for each in own):.2f}"]
        cells += [f"{LIMITS[name]:g}", "within" if wall <= LIMITS[name] else "above"]
        if other is not None:
            pairs = list(zip(own, other, strict=True))
            cells.append(f"{statistics.median(each.cpu for each in other):.2f}")
            cells.append(f"{statistics.median(a.wall / b.wall for a, b in pairs):.2f}")
            cells.append(f"{statistics.median(a.cpu / b.cpu for a, b in pairs):.2f}")
        rows.append((name, *cells))
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(words)
    run = [*RUN, *([f"model.name={options.model}"] if options.model else [])]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        outputs = options.outputs.absolute() if options.outputs else scratch / "outputs"
        builds = [Build(OWN, ROOT, scratch, outputs)]
        if options.against:
            root = checkout(options.against, scratch / "against")
            other = outputs if options.outputs else scratch / "outputs-against"
            builds.append(Build(options.against, root, scratch, other))
        (scratch / "row.csv").write_text("sentence1,sentence2\nA cat sat.,The cat was sitting.\n")
        for count, reported in builds[0].report_folders.items():
            write_records(records_folder(reported), count)
        costs = measure(builds, run, options.rounds, options.only)
    heads = ("", "wall s", "CPU s", "limit", "", "CPU s, other", "wall, of other", "CPU, of other")
    rows = rows_of(costs)
    title = f"medians of {options.rounds} processes; load average {os.getloadavg()[0]:.1f}"
    show_rows(title + (f"; other: {options.against}" if options.against else ""), heads[: len(rows[0])], rows)
    settings = {"run": run, "rounds": options.rounds, "against": options.against}
    write(options.json, {"settings": settings, "limits_seconds": LIMITS, "costs": costs})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="REVISION", help="git revision to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=(), choices=tuple(LIMITS), help="commands to measure")
    parser.add_argument("--model", help="name or folder for model.name (default: that of qexp)")
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="DIR",
        help="where the run is, or is to be, cached; both builds read it (default: one for each build)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    main()
