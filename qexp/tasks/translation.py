"""Translation with encoder-decoder models: beam search, scores, BLEU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

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
from qexp.config import BeamSearch, FromScratch, TranslationTask
from qexp.context import RunContext
from qexp.data.batches import EVALUATION_BATCH, evaluation_batches
from qexp.data.checkpoints import Checkpoint, ScratchModel
from qexp.data.metrics.bleu import bleu, signature
from qexp.data.microbatches import Batch
from qexp.data.tokenization.pairs import IGNORED, PairSplit, collate_pairs
from qexp.data.tokenization.tokenizers import POSITIONS
from qexp.errors import ConfigError
from qexp.models.distillation import divergence
from qexp.models.loading import arguments, load_new_head, load_with_head, logits_of, model_inputs
from qexp.tasks.base import Array, ForwardFn, Predictions
from qexp.tasks.module import TaskModule
from qexp.tasks.teacher_forcing import Translator

KEPT = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "bad_words_ids", "suppress_tokens",
)  # fmt: skip
"""Fields kept from a checkpoint's generation config: the special tokens. The task defines the search."""


class TranslationAdapter:
    """Adapter for translation tasks."""

    def __init__(self, task: TranslationTask) -> None:
        self.task = task

    @property
    def training_module(self) -> Callable[..., TaskModule]:
        """:class:`Translator` with the task's label smoothing."""
        return partial(Translator, label_smoothing=self.task.label_smoothing)

    def pretrained(self, start: Checkpoint | ScratchModel, tokens: Tokens, seed: int) -> PreTrainedModel:
        """Return the model of the checkpoint, or one from scratch with weights drawn from ``seed``."""
        if isinstance(start, Checkpoint):
            return load_new_head(start.folder, AutoModelForSeq2SeqLM, seed)
        tokenizer = AutoTokenizer.from_pretrained(tokens.tokenizer, trust_remote_code=False)
        return from_scratch(start.scratch, Vocabulary.of(tokenizer), seed)

    def finetuned(self, start: Checkpoint) -> PreTrainedModel:
        """Return the model of the checkpoint, which must have all weights, as translation adds no head."""
        return load_with_head(start.folder, AutoModelForSeq2SeqLM)

    def runner(self, model: nn.Module, ctx: RunContext) -> ForwardFn:
        """Return a function that translates a padded batch by the task's beam search; see :func:`writer`."""
        return writer(model, self.task.search)

    def split(self, folder: Path) -> PairSplit:
        return PairSplit.load(folder)

    def collate(self, split: PairSplit, rows: Array, pad_id: int) -> Batch:
        return collate_pairs(split, rows, pad_id=pad_id)

    def loss_count(self, split: PairSplit, rows: Array) -> int:
        """Return the number of target tokens of these rows."""
        return int(split.target_lengths[rows].sum())

    def loss_counts_per_row(self, batch: Batch) -> Tensor:
        """Return the number of target tokens of each row, [B]."""
        return (batch["labels"] != IGNORED).sum(1)

    def distance(self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the mean divergence over the target tokens."""
        counts = batch["labels"] != IGNORED
        return divergence(student[counts], teacher[counts], temperature).mean()

    def predict(
        self,
        run: ForwardFn,
        tokens: Tokens,
        name: str,
        *,
        rows: int | None,
        advance: Callable[..., None],
        batch_size: int = EVALUATION_BATCH,
    ) -> Predictions:
        """Return translations, with their scores of :func:`scores` in place of logits."""
        split = PairSplit.load(tokens.split(name))
        tokenizer = AutoTokenizer.from_pretrained(tokens.tokenizer, trust_remote_code=False)
        texts, scores = np.empty(len(split), object), np.empty((len(split), 1), np.float32)
        batches = evaluation_batches(split.source_lengths[:rows], batch_size=batch_size)
        for batch in batches:
            ids, score = run(self.collate(split, batch, tokens.pad_id))
            texts[batch] = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
            scores[batch, 0] = score
            advance(len(batch))
        references = np.array(split.references(rows), object)
        return Predictions(
            np.asarray(split.row_ids[:rows]),
            texts[:rows],
            references,
            scores[:rows],
            broken=int((~np.isfinite(scores[:rows])).sum()),
            notes=self._signatures(),
        )

    def score(self, found: Predictions) -> dict[str, float | None]:
        """Return the metrics of the corpus."""
        texts, tokenize = (list(found.predictions), list(found.labels)), self.task.bleu_tokenize
        return {name: bleu(*texts, name, tokenize) for name in self.task.metrics}

    def _signatures(self) -> dict[str, str]:
        """Return sacreBLEU's signature of each metric; that of ``bleu`` by the name of the program."""
        names = {name: "sacrebleu" if name == "bleu" else name for name in self.task.metrics}
        return {shown: signature(name, self.task.bleu_tokenize) for name, shown in names.items()}

    def same(self, candidate: Predictions, reference: Predictions) -> Array:
        """Return which rows have the same text, bool [rows]."""
        return np.asarray(candidate.predictions == reference.predictions)


@dataclass(frozen=True)
class Vocabulary:
    """Size of a translator's vocabulary, and the ids of its special tokens."""

    size: int
    padding: int
    start: int
    """Token that the decoder starts with."""
    end: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Return that of a tokenizer, whose first token of a text starts the decoder."""
        return cls(len(tokenizer), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)


def from_scratch(scratch: FromScratch, vocabulary: Vocabulary, seed: int) -> MarianMTModel:
    """Build a Transformer as described by Vaswani et al. (2017), with weights drawn from ``seed``.

    The architecture is Marian's in transformers: post-norm, ReLU, sinusoidal positions, embeddings scaled by
    ``sqrt(width)`` and tied to the output. Weights are drawn as in fairseq: embeddings from a normal
    distribution of standard deviation ``width ** -0.5``, projections as ``draw_projections`` does.
    """
    torch.manual_seed(seed)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=vocabulary.size,
            max_position_embeddings=POSITIONS,
            encoder_layers=scratch.layers,
            decoder_layers=scratch.layers,
            d_model=scratch.width,
            encoder_attention_heads=scratch.heads,
            decoder_attention_heads=scratch.heads,
            encoder_ffn_dim=scratch.inner,
            decoder_ffn_dim=scratch.inner,
            dropout=scratch.dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            activation_function="relu",
            init_std=scratch.width**-0.5,
            scale_embedding=True,
            pad_token_id=vocabulary.padding,
            bos_token_id=vocabulary.start,
            eos_token_id=vocabulary.end,
            forced_eos_token_id=None,
            decoder_start_token_id=vocabulary.start,
        )
    )
    draw_projections(model)
    return model


@torch.no_grad()
def draw_projections(model: nn.Module) -> None:
    """Draw the weights of all linear layers but the output's from Glorot's uniform distribution, in place.

    Those to queries, keys and values have a gain of ``2 ** -0.5``, as if they were one matrix of three times
    the outputs (fairseq's MultiheadAttention; ``torch.nn.Transformer`` has one such matrix). Normal weights
    of standard deviation ``width ** -0.5``, which Marian's configuration gives, train slower.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            projects = name.rpartition(".")[2] in ("q_proj", "k_proj", "v_proj")
            nn.init.xavier_uniform_(module.weight, gain=2**-0.5 if projects else 1.0)


def writer(model: Any, search: BeamSearch) -> Callable[[Batch], tuple[Tensor, Tensor]]:
    """Return a function from a padded batch to token ids, int64 [B, longest], and scores, float32 [B].

    Raises:
        ConfigError: If translations may grow longer than the model has positions.
    """
    translate = searcher(model, search)

    def write(batch: Batch) -> tuple[Tensor, Tensor]:
        source = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        ids = translate(source)
        with torch.inference_mode():
            return ids.cpu(), scores(model, source, ids, search.length_penalty).cpu()

    return write


def searcher(model: Any, search: BeamSearch) -> Callable[[Batch], Tensor]:
    """Return a function from ``input_ids`` and ``attention_mask`` [B, S] to token ids, int64 [B, longest].

    Raises:
        ConfigError: If translations may grow longer than the model has positions.
    """
    plan = _plan(model, search)

    def translate(source: Batch) -> Tensor:
        with torch.inference_mode():
            ids: Tensor = model.generate(**source, generation_config=plan)[:, 1:]
        return ids

    return translate


def scores(model: Any, source: Batch, words: Tensor, length_penalty: float) -> Tensor:
    """Return the log-probability of translations, divided by ``length ** length_penalty``, float32 [B].

    It is recomputed from the token ids: to return it, the beam search would have to keep the scores of the
    whole vocabulary at each step.

    Args:
        model: Model that generated the translations.
        source: ``input_ids`` and ``attention_mask`` [B, S].
        words: Token ids, int64 [B, T]; tokens behind the end of a text are ignored.
        length_penalty: Exponent of the length.
    """
    inside = before_end(words, model.generation_config.eos_token_id)
    labels = words.masked_fill(~inside, IGNORED)
    logits = logits_of(model(**arguments(model, model_inputs(model), {**source, "labels": labels})))
    losses = functional.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    )
    return torch.as_tensor(-losses.sum(1) / inside.sum(1) ** length_penalty)


def before_end(words: Tensor, end: int) -> Tensor:
    """Return which tokens [B, T] belong to their text, its end included, bool [B, T]."""
    ends = words == end
    return ends.cumsum(1) - ends.long() == 0


def _plan(model: Any, search: BeamSearch) -> GenerationConfig:
    positions = getattr(model.config, "max_position_embeddings", None)  # T5 has none
    if positions is not None and search.max_new_tokens >= positions:
        raise ConfigError(
            f"task.search.max_new_tokens={search.max_new_tokens}: the model has {positions} positions, "
            f"one of them for the start; set task.search.max_new_tokens={positions - 1} or less"
        )
    special_tokens = {name: getattr(model.generation_config, name) for name in KEPT}
    beams = {"length_penalty": search.length_penalty, "early_stopping": True} if search.beams > 1 else {}
    return GenerationConfig(
        **special_tokens,
        **beams,
        num_beams=search.beams,
        do_sample=False,
        max_new_tokens=search.max_new_tokens,
        use_cache=model.config.use_cache,
    )
