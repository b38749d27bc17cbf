"""Training steps of a translator on the same batches: qexp, transformers, and ``torch.nn.Transformer``.

    python -m benchmarks.translation_training [--model transformer_tiny] [--vocabulary 10000] [--tokens 8192]
        [--length 14] [--dropout 0.3] [--batches 3] [--rounds 5] [--threads 2] [--no-peers] [--json FILE]

A batch has up to ``--tokens`` padded target tokens of random sentences, whose lengths scatter around
``--length`` and are sorted, as in a run with ``finetune.batch_tokens``. All take label smoothing 0.1,
gradients clipped at a norm of 1 and fused AdamW. ``transformers`` is what qexp's step was before: logits of
every position, padding too, and torch's cross entropy and dropout. ``torch.nn.Transformer`` is of the same
shape with one table for both languages and the output, as in fairseq. "of the floor" is the share of a step
that its products take at the rate of one large product of the machine.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MarianMTModel

from benchmarks.harness import alternate, show_rows, write
from benchmarks.options import add_peers, settings
from benchmarks.translation import SIZES
from qexp.config import BatchSize
from qexp.context import set_threads
from qexp.data.batches import train_epochs
from qexp.data.tokenization.pairs import IGNORED
from qexp.tasks.module import Optimization
from qexp.tasks.teacher_forcing import Translator
from qexp.tasks.translation import Vocabulary, from_scratch
from qexp.training.dropout import FastDropout

SMOOTHING = 0.1
FIRST = 4
"""First token that is a word; those before are special."""
Batch = dict[str, Tensor]
BASELINE = "transformers"
NUMBERS = {"vocabulary": 10_000, "tokens": 8192, "length": 14, "batches": 3, "rounds": 5, "threads": 2}
"""Integer options and their defaults."""


def words_of(options: argparse.Namespace) -> Vocabulary:
    """Return the vocabulary of random sentences."""
    return Vocabulary(options.vocabulary, padding=1, start=2, end=3)


def marian(options: argparse.Namespace, words: Vocabulary) -> MarianMTModel:
    """Build the translator that ``model=transformer_…`` trains from scratch."""
    scratch = SIZES[options.model].model_copy(update={"dropout": options.dropout})
    return from_scratch(scratch, words, seed=0).train()


class TorchTransformer(nn.Module):
    """``torch.nn.Transformer`` with one scaled table, sinusoidal positions and tied output."""

    def __init__(self, options: argparse.Namespace, words: Vocabulary) -> None:
        super().__init__()
        self.words = words
        sizes = SIZES[options.model]
        width, layers = sizes.width, sizes.layers
        self.table = nn.Embedding(words.size, width, padding_idx=words.padding)
        self.dropout = nn.Dropout(options.dropout)
        self.body = nn.Transformer(
            width, sizes.heads, layers, layers, sizes.inner, options.dropout, batch_first=True
        )  # its attention has dropout, too, which the encoders and decoders of fairseq's recipe have not
        for module in self.body.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
        angles = torch.arange(512)[:, None] * torch.exp(
            torch.arange(0, width, 2) * (-math.log(10000.0) / width)
        )
        self.register_buffer("places", torch.stack([angles.sin(), angles.cos()], 2).flatten(1))

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings with positions [B, T, H]."""
        scaled = self.table(ids) * math.sqrt(self.table.embedding_dim)
        return self.dropout(scaled + self.places[: ids.size(1)])  # type: ignore[index]

    def forward(self, batch: Batch) -> Tensor:
        """Return logits [B, T, V]."""
        labels, padding = batch["labels"], batch["attention_mask"] == 0
        start = torch.full_like(labels[:, :1], self.words.start)
        shifted = torch.cat([start, labels[:, :-1]], 1).masked_fill_(
            batch["target_mask"] == 0, self.words.padding
        )
        causal = nn.Transformer.generate_square_subsequent_mask(labels.size(1), dtype=torch.bool)
        hidden = self.body(
            self.embed(batch["input_ids"]), self.embed(shifted), tgt_mask=causal, tgt_is_causal=True,
            src_key_padding_mask=padding, memory_key_padding_mask=padding,
        )  # fmt: skip
        return functional.linear(hidden, self.table.weight)


def batches_of(options: argparse.Namespace) -> list[Batch]:
    """Batches of random sentences, by tokens, from the middle of an epoch that is sorted by length."""
    rng, rows = np.random.default_rng(0), 29_000
    source = np.clip(rng.normal(options.length, options.length / 3, rows), 4, 100).astype(int)
    target = np.clip(source + rng.normal(0, options.length / 7, rows), 3, 100).astype(int)
    size = BatchSize(rows=1, tokens=options.tokens)
    found = train_epochs(source, size=size, epochs=1, seed=0, widths=target)
    return [_batch(source[rows], target[rows], options.vocabulary) for rows in found[0][: options.batches]]


def _batch(source: Any, target: Any, vocabulary: int) -> Batch:
    sides = {}
    for name, lengths in (("source", source), ("target", target)):
        mask = torch.arange(int(lengths.max())) < torch.tensor(lengths)[:, None]
        sides[name] = (torch.randint(FIRST, vocabulary, mask.shape), mask)
    (ids, inside), (labels, target_inside) = sides["source"], sides["target"]
    return {
        "input_ids": ids.masked_fill(~inside, 1),
        "attention_mask": inside.long(),
        "labels": labels.masked_fill(~target_inside, IGNORED),
        "target_mask": target_inside.long(),
        "share": torch.tensor(1.0),
    }


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Mean over target tokens, of logits of all positions."""
    return functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, label_smoothing=SMOOTHING
    )


def epoch(model: nn.Module, loss: Callable[[Batch], Tensor], batches: list[Batch]) -> Callable[[], None]:
    """Return a call that takes a step on each batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)

    def steps() -> None:
        for batch in batches:
            loss(batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return steps


def calls_of(options: argparse.Namespace, batches: list[Batch]) -> dict[str, Callable[[], object]]:
    """What takes turns."""
    plan = Optimization(1e-4, 0.0, 0.1, 10, 0)
    module = Translator(marian(options, words_of(options)), plan, label_smoothing=SMOOTHING)
    before = Translator(marian(options, words_of(options)), plan, label_smoothing=SMOOTHING)
    own = epoch(module, lambda batch: module.training_step(batch, 0), batches)

    def qexp() -> None:
        with FastDropout():
            own()

    found: dict[str, Callable[[], object]] = {
        BASELINE: epoch(before, lambda batch: cross_entropy(before(batch), batch), batches),
        "qexp": qexp,
    }
    if options.peers:
        peer = TorchTransformer(options, words_of(options)).train()
        found["torch.nn.Transformer"] = epoch(peer, lambda batch: cross_entropy(peer(batch), batch), batches)
    return found


def products(options: argparse.Namespace, batches: list[Batch]) -> float:
    """Floating point operations of the products of all steps: forward, and twice that backward."""
    sizes = SIZES[options.model]
    layers, width, inner = sizes.layers, sizes.width, sizes.inner
    encoder = layers * (4 * width * width + 2 * width * inner)
    decoder = layers * (6 * width * width + 2 * width * inner)
    crossed = layers * 2 * width * width
    source = sum(int(each["attention_mask"].sum()) for each in batches)
    target = sum(int(each["target_mask"].sum()) for each in batches)
    return 6.0 * (source * (encoder + crossed) + target * (decoder + width * options.vocabulary))


def rate() -> float:
    """Operations a second of one large product, the fastest of ten."""
    left, right, times = torch.randn(2048, 2048), torch.randn(2048, 2048), []
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return float(2 * 2048**3 / min(times))


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--model", choices=SIZES, default="transformer_tiny")
    for name, default in NUMBERS.items():
        found.add_argument(f"--{name}", type=int, default=default)
    found.add_argument("--dropout", type=float, default=0.3)
    found.add_argument("--json", type=Path, default=None, help="file for all figures")
    add_peers(found)
    options = found.parse_args(arguments)
    set_threads(options.threads)
    batches = batches_of(options)
    readings = alternate(calls_of(options, batches), options.rounds, BASELINE)
    floor, tokens = (
        products(options, batches) / rate(),
        sum(int(each["target_mask"].sum()) for each in batches),
    )
    rows = [
        (
            name,
            f"{tokens / each.seconds:.0f}",
            f"{1 / each.ratio:.2f}",
            f"{1 / each.largest:.2f} .. {1 / each.least:.2f}",
            f"{floor / each.seconds:.2f}",
        )
        for name, each in readings.items()
    ]
    heads = ("", "target tokens/s", "ratio", "within rounds", "of the floor")
    show_rows(f"{options.model}, {options.threads} threads", heads, rows)
    write(options.json, {"settings": settings(options), "readings": readings, "floor_seconds": floor})


if __name__ == "__main__":
    main(sys.argv[1:])
