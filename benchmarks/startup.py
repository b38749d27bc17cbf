"""Time to answer: words, a report, and a run that finds all its work done, over a bare interpreter.

    python -m benchmarks.startup [--rounds 9] [--records 300] [--model NAME] [--outputs DIR] [--json FILE]

Every command is a process of its own, from the start of the interpreter to its end. The run is
``task=mrpc quant=w8a8 budget=smoke data=sample``; it is done once, in about a minute, before the clock
starts, unless ``--outputs`` names a folder where it stands already. The limits are the project's own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.harness import alternate, show_rows, write
from qexp.records.record import records_folder
from qexp.records.record import write as write_record
from tests.support.record_factory import TASKS, deployed, experiment

ROOT = Path(__file__).resolve().parent.parent
FLOOR = "python -c pass"
RUN = ("task=mrpc", "quant=w8a8", "budget=smoke", "data=sample")
REPORT, CACHED = "report", "run, all cached"
LIMITS = {"--help": 1.0, "--cfg job": 1.0, REPORT: 1.0, CACHED: 5.0}
"""Seconds."""


def process(*words: str, outputs: Path) -> Callable[[], None]:
    """A call that runs Python with these words, quietly, and raises if it fails."""
    environment = {**os.environ, "QEXP_OUTPUTS": str(outputs)}

    def call() -> None:
        subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, check=True, capture_output=True)

    return call


def write_records(folder: Path, count: int) -> None:
    """Records of all tasks, two models, three bit-widths and as many seeds as it takes."""
    for number in range(count):
        task, model = list(TASKS)[number % 3], ("minilm", "bert_base")[number // 3 % 2]
        tree = experiment(task, model, ("fp32", "w8a8", "w4a8")[number // 6 % 3], seed=number // 18)
        write_record(deployed(tree), folder)


def calls_of(options: argparse.Namespace, scratch: Path) -> dict[str, Callable[[], None]]:
    """The commands by name; what they need to find is there when this returns."""
    outputs = options.outputs or scratch / "outputs"
    write_records(records_folder(scratch / "reported"), options.records)
    words = [*RUN, *([f"model.name={options.model}"] if options.model else [])]
    run = process("-m", "qexp", *words, outputs=outputs)
    run()
    return {
        FLOOR: process("-c", "pass", outputs=outputs),
        "import torch": process("-c", "import torch", outputs=outputs),
        "--help": process("-m", "qexp", "--help", outputs=outputs),
        "--cfg job": process("-m", "qexp", "task=mrpc", "--cfg", "job", outputs=outputs),
        REPORT: process("-m", "qexp", "report", outputs=scratch / "reported"),
        CACHED: run,
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        readings = alternate(calls_of(options, Path(scratch)), options.rounds, FLOOR)
    rows = [
        (
            name, f"{each.seconds:.3f}", f"{each.fastest:.3f}", f"{each.ratio:.1f}",
            f"{each.least:.1f} .. {each.largest:.1f}", *_judged(name, each.seconds),
        )
        for name, each in readings.items()
    ]  # fmt: skip
    heads = ("", "s", "fastest", "ratio", "within rounds", "limit s", "")
    show_rows(f"from start to end of a process; report over {options.records} Records", heads, rows)
    settings = {"run": RUN, "model": options.model, "records": options.records, "rounds": options.rounds}
    write(options.json, {"settings": settings, "limits_seconds": LIMITS, "readings": readings})


def _judged(name: str, seconds: float, limits: Mapping[str, float] = LIMITS) -> tuple[str, str]:
    if name not in limits:
        return "", ""
    return f"{limits[name]:g}", "within" if seconds <= limits[name] else "above"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--records", type=int, default=300, help="Records under the report")
    parser.add_argument("--model", help="name or folder for model.name (default: that of qexp)")
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="where the run is, or is to be, cached")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    main()
