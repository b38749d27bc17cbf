"""What rounding without training leaves of a model at 4 and 3 bits: nearest, AdaRound and GPTQ.

    python -m benchmarks.rounding [--task stsb mrpc stsb_embedding] [--quants w4a8 w3a8] [--seeds 1 2 3]
        [--calibrator mse] [--roundings nearest adaround gptq ...] [--threads 2] [--json FILE]
        [-- OVERRIDE ...]

Each task is fine-tuned once, with seed 1 (an embedding is taken as published). That model is calibrated with
rows drawn by each seed, for each rounding; a repeated run is read from the store. Prints the first metric,
its mean and range over the seeds, and what the mean loses against FP32. Overrides behind ``--`` go to each
run of PTQ. A rounding is the name of an option of ``refinement``; ``gptq+bias`` corrects biases, too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import experiment
from benchmarks.harness import table
from qexp.analysis.run_models import model_of
from qexp.records.record import Record, outputs_root

NEAREST = "nearest"
BIAS = "+bias"


@dataclass(frozen=True)
class Line:
    """Scores of one rounding, in percent, by seed of the calibration rows."""

    task: str
    quant: str
    rounding: str
    fp32: float
    scores: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return sum(self.scores.values()) / len(self.scores)

    def cells(self) -> list[str]:
        """Return the cells of its row."""
        scores = self.scores.values()
        return [
            self.quant.upper(), self.rounding, f"{self.fp32:.2f}", f"{self.mean:.2f}",
            f"{min(scores):.2f} to {max(scores):.2f}", f"{self.fp32 - self.mean:.2f}",
        ]  # fmt: skip


def refinement(rounding: str) -> list[str]:
    """Return the words that choose a rounding.

    >>> refinement("gptq+bias")
    ['refinement=gptq', 'refinement.bias_correction=true']
    """
    name = rounding.removesuffix(BIAS)
    words = [f"refinement={'none' if name == NEAREST else name}"]
    return [*words, "refinement.bias_correction=true"] if rounding.endswith(BIAS) else words


def fine_tuned(task: str, common: list[str], folder: Path) -> list[str]:
    """Fine-tune the model with seed 1, and return the words that take it and its tokenizer as they are."""
    record = experiment.run([f"task={task}", "quant=fp32", *common])
    model = model_of(record, outputs_root(), "fp32")
    shutil.copytree(model.encoder.model, folder)
    shutil.copytree(model.tokens.tokenizer, folder, dirs_exist_ok=True)
    return [f"model.name={folder}", "finetune=none"]


def score_of(record: Record, stage: str) -> float:
    """Return the first metric of a state; a model of random weights may have none."""
    found = next(iter(record.scores[stage].values()))
    assert found is not None, f"{stage} has no score"
    return found


def lines_of(task: str, options: argparse.Namespace, folder: Path) -> Iterator[Line]:
    """Run everything of one task."""
    common = ["deploy=none", f"machine.threads={options.threads}", "machine.progress=false"]
    model = [] if task.endswith("_embedding") else fine_tuned(task, common, folder)
    for quant in options.quants:
        for rounding in options.roundings:
            words = [
                f"task={task}", f"quant={quant}", "method=ptq", f"calibrator={options.calibrator}",
                *refinement(rounding), *model, *common, *options.overrides,
            ]  # fmt: skip
            records = {seed: experiment.run([*words, f"seed={seed}"]) for seed in options.seeds}
            scores: dict[int, float] = {}
            for seed, record in records.items():
                fp32, scores[seed] = (score_of(record, stage) for stage in ("fp32", "ptq"))
            yield Line(task, quant, rounding, fp32, scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", nargs="+", default=["stsb", "mrpc", "stsb_embedding"])
    parser.add_argument("--quants", nargs="+", default=["w4a8", "w3a8"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--calibrator", default="mse")
    parser.add_argument(
        "--roundings", nargs="+", default=[NEAREST, "adaround", "adaround+bias", "gptq", "gptq+bias"]
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    options = parser.parse_args()
    found: list[Line] = []
    with tempfile.TemporaryDirectory() as place:
        for task in options.task:
            lines = list(lines_of(task, options, Path(place) / f"{task}_fp32"))
            heads = ["bits", "rounding", "FP32", "mean", "range", "loss"]
            table(f"{task}, {options.calibrator}", heads, [each.cells() for each in lines])
            found += lines
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
