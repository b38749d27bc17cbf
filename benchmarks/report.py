"""Time of a report over many Records of real size, from the start of its process to its end.

    python -m benchmarks.report [--records 5000] [--curve 400] [--ranges 80] [--rounds 3] [--json FILE]

Records are those of a sweep: tasks, models, bit-widths, methods, calibrators and seeds, each with the loss
curves of its trainings and the activation ranges of its stages. One in fifty failed. ``read`` is the
part that reads the files, without any table. The limit is the project's own, and of processor time: other
work on the machine does not count.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import seconds, show_rows, write
from qexp.records.record import Record, records_folder
from tests.support.record_factory import TASKS, deployed, experiment, failed, record

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 10.0
"""Seconds of processor time of a report over :data:`RECORDS`."""
RECORDS = 5000
READ = (
    "import sys; from pathlib import Path; from qexp.records.record import read_all; "
    "read_all(Path(sys.argv[1]))"
)
MODELS = (
    "google-bert/bert-base-uncased",
    "google/mobilebert-uncased",
    "sentence-transformers/all-MiniLM-L6-v2",
)
FAILED_EACH = 50


def experiments() -> Iterator[dict[str, Any]]:
    """Experiments of a sweep that never ends: every seed has all combinations."""
    kinds = ({"kind": "max"}, {"kind": "mse"}, {"kind": "percentile", "percentile": 99.99})
    quantized = list(product(("w8a8", "w4a8", "w8a16"), ({"kind": "ptq"}, {"kind": "qat"}), kinds))
    choices = [("fp32", {"kind": "none"}, kinds[0]), *quantized]
    seed = 0
    while True:
        seed += 1
        for task, model, (quant, method, calibrator) in product(TASKS, MODELS, choices):
            yield experiment(task, model, quant, seed=seed, method=method, calibrator=calibrator)


def made(tree: Mapping[str, Any], number: int, curve: int, ranges: int) -> Record:
    """A Record with curves of so many points and so many activation ranges."""
    stages = {"none": (), "ptq": ("ptq",), "qat": ("ptq", "qat")}[tree["method"]["kind"]]
    points: Any = {
        "step": list(range(1, curve + 1)),
        "loss": [(number % 97 + step) / 7919 for step in range(curve)],
    }
    seen: Any = {
        f"encoder.layer.{site // 8}.attention.output.dense:{site % 8}": {
            "low": -site / 7, "high": site / 7, "seen_low": -site / 3, "seen_high": site / 3,
            "sqnr": 30 + site / 9,
        }
        for site in range(ranges)
    }  # fmt: skip
    if number % FAILED_EACH == FAILED_EACH - 1:
        base = failed(tree)
    else:
        base = record(tree) if tree["method"]["kind"] == "ptq" else deployed(tree)
    trainings = ("fp32", "qat") if "qat" in stages else ("fp32",)
    return replace(
        base, key=f"{number:08x}", curves=dict.fromkeys(trainings, points), ranges=dict.fromkeys(stages, seen)
    )


def fill(folder: Path, count: int, curve: int, ranges: int) -> int:
    """Write Records; returns their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    for number, tree in zip(range(count), experiments(), strict=False):
        total += (folder / f"{number:08x}.json").write_text(made(tree, number, curve, ranges).to_json())
    return total


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        outputs = Path(scratch)
        total = fill(records_folder(outputs), options.records, options.curve, options.ranges)
        commands = {
            "read": ["-c", READ, str(records_folder(outputs))],
            "markdown": ["-m", "qexp", "report", "--outputs", scratch],
            "csv": ["-m", "qexp", "report", "--outputs", scratch, "--format", "csv"],
        }
        times = {name: [_times(words) for _ in range(options.rounds)] for name, words in commands.items()}
    least = {name: min(cpu for _, cpu in found) for name, found in times.items()}
    judged = "within" if least["markdown"] <= LIMIT else "above"
    rows = [
        (
            name, f"{median(wall for wall, _ in found):.2f}", f"{median(cpu for _, cpu in found):.2f}",
            f"{least[name]:.2f}", f"{options.records / least[name]:.0f}",
        )
        for name, found in times.items()
    ]  # fmt: skip
    title = f"{options.records} Records, {total / options.records / 1000:.1f} KB each; limit {LIMIT:g} s: "
    show_rows(title + judged, ("", "s", "processor s", "least", "Records/s"), rows)
    settings = {"records": options.records, "curve": options.curve, "ranges": options.ranges}
    write(options.json, {"settings": settings | {"bytes": total}, "limit_seconds": LIMIT, "seconds": times})


def _times(words: Sequence[str]) -> tuple[float, float]:
    """Wall and processor time of one process of Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = seconds(lambda: _run(words))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _run(words: Sequence[str]) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--curve", type=int, default=400, metavar="POINTS", help="of each loss curve")
    parser.add_argument("--ranges", type=int, default=80, help="activation ranges of each stage")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    main()
