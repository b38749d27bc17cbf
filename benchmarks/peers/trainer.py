"""What a user would write without qexp: transformers' Trainer, ModelOpt's QAT, torch's export, ONNX Runtime.

    python -m benchmarks.peers.trainer FOLDER --data DIR --rows 600 --epochs 3 --qat-epochs 2 --threads 2

Needs ``pip install accelerate``. Fine-tunes on STS-B, scores, calibrates ModelOpt's INT8 default, scores,
trains on with its quantizers, scores, exports both models to ONNX, scores and times both in ONNX Runtime.
Prints the scores as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from datasets import load_dataset
from scipy.stats import pearsonr
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from benchmarks.peers import modelopt
from qexp.deploy.runtimes.onnxruntime.session import new_session

CALIBRATION_ROWS, SCORED, SEED = 512, "pearson", 1
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def rows_of(options: argparse.Namespace, tokenizer: Any) -> Any:
    """Tokenized train and validation rows."""
    files = {name: str(options.data / "stsb" / f"{name}.parquet") for name in ("train", "validation")}
    found = load_dataset("parquet", data_files=files, cache_dir=str(options.folder / "cache"))
    if options.rows:  # drawn as qexp draws them: the first rows of STS-B are the shortest
        drawn = np.random.default_rng(SEED).permutation(len(found["train"]))[: options.rows]
        found["train"] = found["train"].select(np.sort(drawn))

    def tokens(rows: Any) -> Any:
        return tokenizer(rows["sentence1"], rows["sentence2"], truncation=True, max_length=128)

    return found.map(tokens, batched=True, remove_columns=["sentence1", "sentence2", "idx"])


def arguments(options: argparse.Namespace, epochs: float, rate: float) -> TrainingArguments:
    """Settings of a training, as those of ``task=stsb``."""
    return TrainingArguments(
        output_dir=str(options.folder / "trainer"), num_train_epochs=epochs, learning_rate=rate,
        per_device_train_batch_size=32, per_device_eval_batch_size=64, warmup_steps=0.1, weight_decay=0.01,
        use_cpu=True, report_to=[], save_strategy="no", logging_strategy="no", seed=SEED, disable_tqdm=True,
        train_sampling_strategy="group_by_length", dataloader_pin_memory=False,
    )  # fmt: skip


def pearson(found: Any) -> dict[str, float]:
    """Pearson's correlation times 100."""
    logits, labels = found
    return {SCORED: 100 * float(pearsonr(np.asarray(logits).reshape(-1), labels).statistic)}


def export(model: Any, batch: dict[str, torch.Tensor], path: Path) -> None:
    """Write an ONNX file with dynamic rows and length."""
    axes = {name: {0: "rows", 1: "length"} for name in batch}
    with modelopt.quiet(), torch.no_grad():
        torch.onnx.export(
            model.eval(), (batch,), str(path), input_names=list(batch), output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "rows"}}, dynamo=False, opset_version=20,
        )  # fmt: skip


def engine_of(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Session with so many threads."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    return new_session(path, settings)  # right on a CPU without VNNI, too


def engine_score(engine: onnxruntime.InferenceSession, rows: Any, collate: Any) -> float:
    """Pearson's correlation of the engine's logits."""
    logits, labels = [], []
    for start in range(0, len(rows), 64):
        batch = collate([rows[at] for at in range(start, min(start + 64, len(rows)))])
        labels.append(batch.pop("labels").numpy())
        (found,) = engine.run(None, {name: batch[name].numpy() for name in NAMES})
        logits.append(found)
    return pearson((np.concatenate(logits), np.concatenate(labels)))[SCORED]


def engine_times(engine: onnxruntime.InferenceSession, seconds: float) -> dict[int, float]:
    """Median seconds of 1 and of 32 rows of 128 tokens."""
    medians = {}
    for rows in (1, 32):
        batch = {name: np.ones((rows, 128), np.int64) for name in NAMES}
        times, end = list[float](), time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 5:
            start = time.perf_counter()
            engine.run(None, batch)
            times.append(time.perf_counter() - start)
        medians[rows] = float(np.median(times))
    return medians


class StopWatch:
    """Seconds between notes."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def note(self, what: str) -> None:
        """File the seconds since the last note."""
        now = time.perf_counter()
        self.seconds[what], self.last = now - self.last, now


def main(words: list[str] | None = None) -> None:
    """Do it all, and print the scores."""
    options = _options(words)
    torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=1)
    rows, collate = rows_of(options, tokenizer), DataCollatorWithPadding(tokenizer)
    example = {name: torch.ones((2, 128), dtype=torch.long) for name in NAMES}

    def trained(epochs: float, rate: float) -> float:
        trainer = Trainer(
            model, arguments(options, epochs, rate), train_dataset=rows["train"],
            eval_dataset=rows["validation"], data_collator=collate, compute_metrics=pearson,
        )  # fmt: skip
        if epochs:
            trainer.train()
        return float(trainer.evaluate()[f"eval_{SCORED}"])

    watch = StopWatch()
    scores: dict[str, Any] = {"fp32": trained(options.epochs, 1e-4)}
    watch.note("fp32 and its score")
    export(model, example, options.folder / "fp32.onnx")
    watch.note("export of fp32")
    some = range(min(CALIBRATION_ROWS, len(rows["train"])))
    batch = dict(collate([rows["train"][at] for at in some]))
    batch.pop("labels")
    modelopt.prepare(model, "linear", batch)
    watch.note("calibration")
    scores["ptq"] = trained(0, 0.0)
    watch.note("score of ptq")
    scores["qat"] = trained(options.qat_epochs, 5e-5)
    watch.note("qat and its score")
    export(model, example, options.folder / "int8.onnx")
    watch.note("export of int8")
    for name in ("fp32", "int8"):
        engine = engine_of(options.folder / f"{name}.onnx", options.threads)
        scores[f"onnxruntime {name}"] = engine_score(engine, rows["validation"], collate)
        watch.note(f"score of the file, {name}")
        scores[f"seconds {name}"] = engine_times(engine, options.seconds)
        watch.note(f"times of the file, {name}")
    print(json.dumps(scores | {"stages": watch.seconds}))


def _options(words: list[str] | None) -> argparse.Namespace:
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("model", help="folder of a checkpoint")
    found.add_argument("--data", type=Path, required=True)
    found.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "trainer")
    for name, kind, value in (
        ("rows", int, 600), ("epochs", float, 3.0), ("qat-epochs", float, 2.0), ("threads", int, 2),
        ("seconds", float, 1.0),
    ):  # fmt: skip
        found.add_argument(f"--{name}", type=kind, default=value)
    options = found.parse_args(words)
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(sys.argv[1:])
