"""What 8 and 4 bits leave of tags and labels on real sentences, whose labels are silver: made by rules.

    python -m benchmarks.silver --data DIR [--task tags|labels] [--method ptq|qat] [--rows 3000] [--json FILE]

Rows come from ``DIR/squad`` (:mod:`benchmarks.silver_tags`) and ``DIR/multi30k_en_de``
(:mod:`benchmarks.silver_labels`), and are written to a temporary folder. Runs of all-MiniLM-L6-v2 (PTQ and
QAT, W8A8 and W4A8; a repeated one is read from the store) give FP32, PTQ and QAT in torch and, through their
graphs, in ONNX Runtime, with the verdict of the gate. As the labels are silver, scores tell the models of one
table apart, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import experiment, silver_labels, silver_tags
from benchmarks.harness import table
from qexp.records.record import Record

VALIDATION = 800
"""Rows that are evaluated, all of the original's validation split."""
SETTINGS = {
    "tags": ("squad", silver_tags.rows_of, ("task=token_classification", "task.max_length=64")),
    "labels": (
        "multi30k_en_de",
        silver_labels.rows_of,
        ("task=multi_label", "task.max_length=48", "finetune.epochs=8"),
    ),
}
"""Data set, maker of the rows and overrides, by the option ``--task``."""
QUANTS, METHODS = ("w8a8", "w4a8"), ("ptq", "qat")


@dataclass(frozen=True)
class Line:
    """One model of the table: scores in percent by metric, and the verdict of the gate for an engine."""

    name: str
    scores: dict[str, float | None]
    verdict: str = "-"


def write(task: str, data: Path, folder: Path, rows: int) -> None:
    """Write both splits as JSON lines."""
    source, rows_of, _ = SETTINGS[task]
    for split, count in {"train": rows, "validation": VALIDATION}.items():
        lines = [
            json.dumps(row, ensure_ascii=False) for row in rows_of(data / source / f"{split}.parquet", count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{task}, {split}: {len(lines)} rows", flush=True)


def lines_of(records: dict[tuple[str, str], Record]) -> Iterator[Line]:
    """Yield the models of the runs."""
    yield Line("FP32", dict(next(iter(records.values())).scores["fp32"]))
    for (quant, method), record in records.items():
        name = f"{quant.upper()} {method.upper()}"
        yield Line(f"{name}, torch", dict(record.scores[method]))
        gate = record.engines["onnxruntime/int8"]["gate"]
        verdict = f"{gate['verdict']}, {gate['agreement']:.2f} %"
        yield Line(f"{name}, ONNX Runtime", dict(record.scores["onnx"]), verdict)


def measure(task: str, options: argparse.Namespace) -> list[Line]:
    """Write the rows of a task, run all of its models, print the table and return its lines."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / f"silver_{task}"
        folder.mkdir()
        write(task, options.data, folder, options.rows)
        common = [
            *SETTINGS[task][2], f"task.name=silver_{task}", f"data.path={folder}", "deploy=onnx",
            f"machine.threads={options.threads}", "machine.progress=false",
        ]  # fmt: skip
        pairs = [(quant, method) for method in options.methods for quant in QUANTS]
        records = {each: experiment.run([*common, f"quant={each[0]}", f"method={each[1]}"]) for each in pairs}
    found = list(lines_of(records))
    metrics = list(found[0].scores)
    cells = [
        [
            each.name,
            *("-" if (v := each.scores[name]) is None else f"{v:.2f}" for name in metrics),
            each.verdict,
        ]
        for each in found
    ]
    table(f"all-MiniLM-L6-v2 on silver {task}", ["model", *metrics, "gate, agreement"], cells)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of squad and multi30k_en_de"
    )
    parser.add_argument("--task", choices=list(SETTINGS), help="one of the two (default: both)")
    parser.add_argument("--method", choices=METHODS, help="one of the two (default: both)")
    parser.add_argument("--rows", type=int, default=3000, help="train rows (default: 3000)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.methods = [options.method] if options.method else METHODS
    tasks = [options.task] if options.task else list(SETTINGS)
    found = {task: [asdict(line) for line in measure(task, options)] for task in tasks}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
