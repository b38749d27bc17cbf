"""Wall time of a whole STS-B at W8A8, against what one would write with Trainer, ModelOpt and ONNX Runtime.

    python -m benchmarks.time_to_result --data DIR [--rows 600] [--epochs 3] [--qat-epochs 2] [--rounds 1]
        [--threads 2] [--compile] [--json FILE]

Both take the same rows, epochs, batch size and rates, and time ONNX Runtime at 1 and 32 rows of 128 tokens:
tokens, FP32, PTQ, QAT, scores of each, export of FP32 and INT8, scores and times of both engines. qexp does
more: it holds each engine's logits against torch's beyond a noise floor (a stage of its own, given apart),
quantizes attention's products, and stores every stage. They take turns, each in a process of its own, in an
empty folder. The other one is ``benchmarks.peers.trainer``: pip install accelerate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import show_rows, write
from benchmarks.options import settings
from qexp.config import Model
from qexp.data.checkpoints import Checkpoint, locate

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
FLOOR = "8-floor"
"""Stage whose work has no counterpart in the other: what of a difference from torch is noise."""
SECONDS = 2
"""For which an engine is timed at each batch size."""
NUMBERS = {"rows": 600, "epochs": 3, "qat-epochs": 2, "rounds": 1, "threads": 2}


def qexp_words(options: argparse.Namespace) -> list[str]:
    """Command line of qexp."""
    return [
        sys.executable, "-m", "qexp", "task=stsb", "quant=w8a8", f"model.name={MODEL}", "data=local",
        f"data.root={options.data}", f"data.train_rows={options.rows}", f"finetune.epochs={options.epochs}",
        f"method.epochs={options.qat_epochs}", f"machine.threads={options.threads}",
        f"deploy.seconds={SECONDS}", f"machine.compile={str(options.compile).lower()}",
    ]  # fmt: skip


def trainer_words(options: argparse.Namespace, folder: Path) -> list[str]:
    """Command line of the other."""
    checkpoint = locate(Model(name=MODEL))
    assert isinstance(checkpoint, Checkpoint)
    return [
        sys.executable, "-m", "benchmarks.peers.trainer", str(checkpoint.folder), "--data",
        str(options.data), "--folder", str(folder), "--rows", str(options.rows), "--epochs",
        str(options.epochs), "--qat-epochs", str(options.qat_epochs), "--threads", str(options.threads),
        "--seconds", str(SECONDS),
    ]  # fmt: skip


def measure(words: list[str], folder: Path) -> tuple[float, str]:
    """Wall seconds of a process, and what it printed."""
    surroundings = os.environ | {"HF_HUB_OFFLINE": "1", "QEXP_OUTPUTS": str(folder)}
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, env=surroundings)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.perf_counter() - started, done.stdout


def record_in(folder: Path) -> dict[str, Any]:
    """The only Record in a folder."""
    (file,) = (folder / "records").glob("*.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def stages_of(record: dict[str, Any]) -> dict[str, float]:
    """Seconds of each stage of a Record."""
    seconds: dict[str, float] = {}
    for stage in record["stages"]:
        seconds[stage["stage"]] = seconds.get(stage["stage"], 0.0) + stage["seconds"]
    return seconds


def turn(options: argparse.Namespace) -> dict[str, Any]:
    """Both, one after the other."""
    with tempfile.TemporaryDirectory() as made:
        own, other = Path(made) / "qexp", Path(made) / "trainer"
        trainer, printed = measure(trainer_words(options, other), other)
        qexp, _ = measure(qexp_words(options), own)
        record = record_in(own)
    scores = json.loads(printed.splitlines()[-1])
    return {
        "qexp": qexp, "trainer": trainer, "stages": stages_of(record), "scores": record["scores"],
        "trainer stages": scores.pop("stages"), "trainer scores": scores,
    }  # fmt: skip


def show(turns: list[dict[str, Any]]) -> None:
    """Print both tables: medians of rounds, and the stages of the last."""
    seconds = {name: statistics.median(each[name] for each in turns) for name in ("trainer", "qexp")}
    floors = [each["stages"].get(FLOOR, 0.0) for each in turns]
    ratio = statistics.median(each["qexp"] / each["trainer"] for each in turns)
    pairs = zip(turns, floors, strict=True)
    bare = statistics.median((each["qexp"] - floor) / each["trainer"] for each, floor in pairs)
    rows = [
        ("Trainer, ModelOpt, ONNX Runtime", f"{seconds['trainer']:.0f}", "1.00"),
        ("qexp", f"{seconds['qexp']:.0f}", f"{ratio:.2f}"),
        ("qexp without its noise floor", f"{seconds['qexp'] - statistics.median(floors):.0f}", f"{bare:.2f}"),
    ]
    show_rows("a whole STS-B at W8A8", ("", "seconds", "ratio"), rows)
    for whose, name in (("qexp", "stages"), ("the other", "trainer stages")):
        stages = [(stage, f"{each:.1f}") for stage, each in turns[-1][name].items()]
        show_rows(f"stages of {whose}, last round", ("", "seconds"), stages)
    print(f"\nscores of qexp: {json.dumps(turns[-1]['scores'])}")
    print(f"scores of the other: {json.dumps(turns[-1]['trainer scores'])}")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--data", type=Path, required=True, help="folder with stsb/train.parquet")
    for name, default in NUMBERS.items():
        found.add_argument(f"--{name}", type=int, default=default)
    found.add_argument("--compile", action="store_true", help="machine.compile=true in qexp")
    found.add_argument("--json", type=Path, default=None, help="file for all figures")
    options = found.parse_args(arguments)
    turns = [turn(options) for _ in range(options.rounds)]
    show(turns)
    write(options.json, {"settings": settings(options), "turns": turns})


if __name__ == "__main__":
    main(sys.argv[1:])
