"""Loss of a translator by step, by how its weights are drawn: qexp's, one deviation for all, torch's own.

    QEXP_DATA=DIR python -m benchmarks.translation_curve [--steps 500] [--every 250] [--rows 64] [--rate 2e-3]
        [--schedule-steps 2000] [--starts NAME ...] [--threads 2] [--json FILE]

All see the same batches of Multi30k en-de in tokens of ``model=transformer_tiny``: inverse square root with a
warm-up of a fifth of ``--schedule-steps``, dropout 0.1, label smoothing 0.1. The loss is the negative
log-likelihood of a target token of the test split, in nats, without smoothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer

from benchmarks import experiment
from benchmarks.harness import show_rows, write
from benchmarks.options import settings
from benchmarks.translation import SIZES
from benchmarks.translation_training import SMOOTHING, Batch, TorchTransformer, marian
from qexp.analysis.find_run import folder_of
from qexp.artifacts.types import Tokens
from qexp.config import BatchSize
from qexp.context import set_threads
from qexp.data.batches import EVALUATION_BATCH, evaluation_batches, train_epochs
from qexp.data.tokenization.pairs import IGNORED, PairSplit, collate_pairs
from qexp.naming import StageName
from qexp.records.record import outputs_root
from qexp.tasks.module import Optimization
from qexp.tasks.translation import Vocabulary

MODEL = "transformer_tiny"
LARGE = SIZES[MODEL].width ** -0.5
"""Standard deviation of embeddings, which Marian's configuration gives every matrix."""


def tokens_of(options: argparse.Namespace) -> Tokens:
    """Return the tokens of Multi30k, from the store or made now by the shortest of runs."""
    words = [
        "task=multi30k_en_de", f"model={MODEL}", "quant=fp32", "deploy=none", "finetune.max_steps=1",
        "data=local", f"data.root={os.environ['QEXP_DATA']}", f"machine.threads={options.threads}",
        "budget.evaluation_rows=1", "machine.progress=false",
    ]  # fmt: skip
    return Tokens(folder_of(experiment.run(words), StageName.TOKENS, outputs_root()), "")


class Rows:
    """Batches of a split in the form that all models take."""

    def __init__(self, tokens: Tokens, name: str) -> None:
        self.split, self.pad_id = PairSplit.load(tokens.split(name)), tokens.pad_id

    def batch(self, rows: Any) -> Batch:
        """Return some rows."""
        batch = collate_pairs(self.split, rows, pad_id=self.pad_id)
        return {**batch, "target_mask": (batch["labels"] != IGNORED).long()}

    def epochs(self, options: argparse.Namespace) -> Iterator[Batch]:
        """Yield the batches of the training."""
        size = BatchSize(rows=options.rows)
        count = 1 + options.steps * options.rows // len(self.split)
        for epoch in train_epochs(self.split.source_lengths, size=size, epochs=count, seed=1):
            yield from map(self.batch, epoch)

    def loss(self, logits: Callable[[Batch], Tensor]) -> float:
        """Return the mean loss of a target token."""
        total, count = 0.0, 0
        for rows in evaluation_batches(self.split.source_lengths, batch_size=EVALUATION_BATCH):
            batch = self.batch(rows)
            labels = batch["labels"].flatten()
            with torch.inference_mode():
                found = logits(batch).flatten(0, 1)
            total += float(functional.cross_entropy(found, labels, ignore_index=IGNORED, reduction="sum"))
            count += int((labels != IGNORED).sum())
        return total / count


def own(options: argparse.Namespace, words: Vocabulary, *, deviation: float | None = None) -> nn.Module:
    """Return qexp's model; with ``deviation`` the weights of its linear layers have that one."""
    model = marian(options, words)
    return model if deviation is None else redraw(model, deviation)


def torchs(options: argparse.Namespace, words: Vocabulary, *, deviation: float | None = None) -> nn.Module:
    """Return ``torch.nn.Transformer`` by its own initialization, embeddings as everywhere here."""
    torch.manual_seed(0)
    model = TorchTransformer(options, words)
    nn.init.normal_(model.table.weight, std=LARGE)
    return model if deviation is None else redraw(model, deviation)


def redraw(model: nn.Module, deviation: float) -> nn.Module:
    """Draw all matrices but the table anew, in place, with one standard deviation."""
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and not any(word in name for word in ("table", "shared", "embed", "lm_head")):
            nn.init.normal_(weight, std=deviation)
    return model


STARTS: dict[str, Callable[[argparse.Namespace, Vocabulary], nn.Module]] = {
    "qexp": own,
    f"qexp, sd {LARGE:.4f} for all": partial(own, deviation=LARGE),
    "torch.nn.Transformer": torchs,
    f"torch.nn.Transformer, sd {LARGE:.4f} for all": partial(torchs, deviation=LARGE),
}
"""Models by how their weights are drawn."""


def logits_of(model: nn.Module) -> Callable[[Batch], Tensor]:
    """Return what maps a batch to logits [B, T, V]."""
    if isinstance(model, TorchTransformer):
        return model
    names = ("input_ids", "attention_mask", "labels")
    return lambda batch: model(**{name: batch[name] for name in names}).logits


def curve(model: nn.Module, train: Rows, test: Rows, options: argparse.Namespace) -> dict[int, float]:
    """Train, and return the test loss by step."""
    plan = Optimization(options.rate, 0.0, 0.2, options.schedule_steps, 0, schedule="inverse_sqrt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    logits, found = logits_of(model), {}
    torch.manual_seed(0)
    for step, batch in zip(range(options.steps), train.epochs(options), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * plan.factor(step)
        labels = batch["labels"].flatten()
        loss = functional.cross_entropy(
            logits(batch).flatten(0, 1), labels, ignore_index=IGNORED, label_smoothing=SMOOTHING
        )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % options.every == 0:
            found[step + 1] = test.loss(logits_of(model.eval()))
            print(f"step {step + 1}: {found[step + 1]:.3f}", flush=True)
            model.train()
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    numbers = {"steps": 500, "every": 250, "rows": 64, "schedule-steps": 2000, "threads": 2}
    for name, value in numbers.items():
        found.add_argument(f"--{name}", type=int, default=value)
    found.add_argument("--rate", type=float, default=2e-3)
    found.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS), metavar="NAME")
    found.add_argument("--json", type=Path, default=None, help="file for all figures")
    options = found.parse_args(arguments)
    set_threads(options.threads)
    tokens = tokens_of(options)
    tokenizer = AutoTokenizer.from_pretrained(tokens.tokenizer, trust_remote_code=False)
    options.model, options.dropout, words = MODEL, 0.1, Vocabulary.of(tokenizer)
    train, test = Rows(tokens, "train"), Rows(tokens, "test")
    curves = {}
    for name in options.starts:
        print(name, flush=True)
        curves[name] = curve(STARTS[name](options, words), train, test, options)
    steps = [str(step) for step in next(iter(curves.values()))]
    rows = [(name, *(f"{loss:.3f}" for loss in each.values())) for name, each in curves.items()]
    show_rows("loss of a target token, by step", ("", *steps), rows)
    write(options.json, {"settings": settings(options), "curves": curves})


if __name__ == "__main__":
    main()
