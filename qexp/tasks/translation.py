"""Translation: teacher-forced training, beam search, BLEU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from qexp.artifacts.types import Tokens
from qexp.config import BeamSearch, Scratch, TranslationTask
from qexp.context import Runtime
from qexp.data.batches import EVALUATION_BATCH, evaluation_batches
from qexp.data.checkpoints import Blueprint, Checkpoint
from qexp.data.metrics.bleu import bleu, signature
from qexp.data.microbatches import Batch
from qexp.data.tokenization.pairs import IGNORED, PairSplit, collate_pairs
from qexp.data.tokenization.tokenizers import POSITIONS
from qexp.errors import ConfigError
from qexp.models.distillation import Teacher, divergence
from qexp.models.loading import arguments, load_new_head, load_with_head, logits_of, model_inputs
from qexp.quant.insertion.quantized_model import Quantization
from qexp.tasks.base import Array, Predictions, Run
from qexp.tasks.module import Optimization, Student

KEPT = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "bad_words_ids", "suppress_tokens",
)  # fmt: skip
"""What a checkpoint's own way to generate is asked for: which tokens mean what. The search is the task's."""


class Translator(Student):
    """Encoder and decoder; the decoder sees the right words so far."""

    def __init__(
        self,
        model: PreTrainedModel,
        optimization: Optimization,
        quantization: Quantization | None = None,
        teacher: Teacher | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(model, optimization, quantization, teacher)
        self.label_smoothing = label_smoothing

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy over the tokens of the targets, with label smoothing (Szegedy et al., 2016)."""
        return functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class Translations:
    """Batches, predictions and scores of a translation."""

    def __init__(self, task: TranslationTask) -> None:
        self.task = task

    @property
    def student(self) -> Callable[..., Student]:
        """The translator, with the task's label smoothing."""
        return partial(Translator, label_smoothing=self.task.label_smoothing)

    def pretrained(self, start: Checkpoint | Blueprint, tokens: Tokens, seed: int) -> PreTrainedModel:
        """The checkpoint as it is, or random weights."""
        if isinstance(start, Checkpoint):
            return load_new_head(start.folder, AutoModelForSeq2SeqLM, seed)
        return from_scratch(start.scratch, AutoTokenizer.from_pretrained(tokens.tokenizer), seed)

    def finetuned(self, start: Checkpoint) -> PreTrainedModel:
        """The checkpoint as it is: a translation has no new head."""
        return load_with_head(start.folder, AutoModelForSeq2SeqLM)

    def runner(self, model: nn.Module, rt: Runtime) -> Run:
        """Beam search."""
        return writer(model, self.task.search)

    def split(self, folder: Path) -> PairSplit:
        """Tokens of both sides."""
        return PairSplit.load(folder)

    def collate(self, split: PairSplit, rows: Array, pad_id: int) -> Batch:
        """Padded tensors."""
        return collate_pairs(split, rows, pad_id=pad_id)

    def terms(self, split: PairSplit, rows: Array) -> int:
        """One for each token of a target."""
        return int(split.target_lengths[rows].sum())

    def row_terms(self, batch: Batch) -> Tensor:
        """The tokens of its target."""
        return (batch["labels"] != IGNORED).sum(1)

    def distance(self, ours: Tensor, theirs: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Mean divergence over the tokens of the targets."""
        counts = batch["labels"] != IGNORED
        return divergence(ours[counts], theirs[counts], temperature).mean()

    def predict(
        self, run: Run, tokens: Tokens, name: str, rows: int | None, move: Callable[..., None],
        batch_size: int = EVALUATION_BATCH,
    ) -> Predictions:  # fmt: skip
        """Translations, with the score that each had in the search."""
        split = PairSplit.load(tokens.split(name))
        tokenizer = AutoTokenizer.from_pretrained(tokens.tokenizer)
        texts, scores = np.empty(len(split), object), np.empty((len(split), 1), np.float32)
        batches = evaluation_batches(split.source_lengths[:rows], batch_size=batch_size)
        for batch in batches:
            ids, score = run(self.collate(split, batch, tokens.pad_id))
            texts[batch] = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
            scores[batch, 0] = score
            move(len(batch))
        references = np.array(split.references(rows), object)
        return Predictions(
            np.asarray(split.row_ids[:rows]), texts[:rows], references, scores[:rows],
            broken=int((~np.isfinite(scores[:rows])).sum()), notes={"sacrebleu": signature()},
        )  # fmt: skip

    def score(self, found: Predictions) -> dict[str, float | None]:
        """BLEU of the corpus."""
        return {"bleu": bleu(list(found.predictions), list(found.labels))}

    def same(self, ours: Predictions, theirs: Predictions) -> Array:
        """Which rows have the same text, bool [rows]."""
        return np.asarray(ours.predictions == theirs.predictions)


def from_scratch(scratch: Scratch, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A Transformer as Vaswani et al. (2017) describe it, with weights drawn from the seed.

    Marian's architecture in transformers: post-norm, ReLU, sinusoidal positions, embeddings times
    ``sqrt(width)`` and tied to the output. Weights and embeddings are normal with standard deviation
    ``width ** -0.5``, which is fairseq's for embeddings and Glorot's for square matrices.
    """
    torch.manual_seed(seed)
    return MarianMTModel(
        MarianConfig(
            vocab_size=len(tokenizer), max_position_embeddings=POSITIONS,
            encoder_layers=scratch.layers, decoder_layers=scratch.layers, d_model=scratch.width,
            encoder_attention_heads=scratch.heads, decoder_attention_heads=scratch.heads,
            encoder_ffn_dim=scratch.inner, decoder_ffn_dim=scratch.inner,
            dropout=scratch.dropout, attention_dropout=0.0, activation_dropout=0.0,
            activation_function="relu", init_std=scratch.width**-0.5, scale_embedding=True,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, forced_eos_token_id=None,
            decoder_start_token_id=tokenizer.bos_token_id,
        )
    )  # fmt: skip


def writer(model: Any, search: BeamSearch) -> Callable[[Batch], tuple[Tensor, Tensor]]:
    """A function from a padded batch to token ids, int64 [B, longest], and their scores, float32 [B].

    Raises:
        ConfigError: Translations may grow longer than the model has positions.
    """
    plan, device = _plan(model, search), model.device

    def write(batch: Batch) -> tuple[Tensor, Tensor]:
        source = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            words = model.generate(**source, generation_config=plan)[:, 1:]
            return words.cpu(), scores(model, source, words, search.length_penalty).cpu()

    return write


def scores(model: Any, source: Batch, words: Tensor, length_penalty: float) -> Tensor:
    """Log-probability of translations, over their length to the power of the penalty, float32 [B].

    Computed anew from the written words: the search itself would have to keep the scores of the whole
    vocabulary at each step to tell.

    Args:
        model: Who wrote them.
        source: ``input_ids`` and ``attention_mask`` [B, S].
        words: Token ids, int64 [B, T]; what follows the end of a text does not count.
        length_penalty: The exponent.
    """
    ends = words == model.generation_config.eos_token_id
    inside = ends.cumsum(1) - ends.long() == 0
    labels = words.masked_fill(~inside, IGNORED)
    logits = logits_of(model(**arguments(model, model_inputs(model), {**source, "labels": labels})))
    losses = functional.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    )
    return torch.as_tensor(-losses.sum(1) / inside.sum(1) ** length_penalty)


def _plan(model: Any, search: BeamSearch) -> GenerationConfig:
    positions = getattr(model.config, "max_position_embeddings", None)  # T5 has none
    if positions is not None and search.max_new_tokens >= positions:
        raise ConfigError(
            f"task.search.max_new_tokens={search.max_new_tokens}: the model has {positions} positions, "
            f"one of them for the start; set task.search.max_new_tokens={positions - 1} or less"
        )
    own = {name: getattr(model.generation_config, name) for name in KEPT}
    beams = {"length_penalty": search.length_penalty, "early_stopping": True} if search.beams > 1 else {}
    return GenerationConfig(
        **own, **beams, num_beams=search.beams, do_sample=False, max_new_tokens=search.max_new_tokens,
        use_cache=model.config.use_cache,
    )  # fmt: skip
