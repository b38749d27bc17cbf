"""Section for translations, their search and their scores."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from qexp.config.base import Section
from qexp.config.task import Task


class BeamSearch(Section):
    """Beam search for translations."""

    beams: int = Field(default=4, ge=1)
    """Hypotheses that are kept; 1 is greedy."""
    length_penalty: float = 0.6
    """Exponent of the length by which a hypothesis's log-probability is divided; 0 does not divide."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Most tokens of a translation."""


BleuTokenizer = Literal[
    "13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab", "flores101", "flores200", "spBLEU-1K"
]
"""Tokenizers of sacreBLEU."""


class TranslationTask(Task):
    """Translation of a text."""

    kind: Literal["translation"]
    """Tag of the section."""
    source: str = "source"
    """Column with the text to translate."""
    target: str = "target"
    """Column with its translation."""
    prefix: str = ""
    """Words before every source, if the model was pretrained with some (T5: ``translate English to
    German: ``)."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the probability that the loss spreads over the whole vocabulary."""
    bleu_tokenize: BleuTokenizer = Field(default="13a", exclude_if=lambda name: name == "13a")
    """What sacreBLEU counts as words: ``13a`` is its default; ``zh``, ``ja-mecab``, ``ko-mecab``, ``char``
    and ``flores200`` are for languages without spaces between words, ``none`` is for tokens."""
    search: BeamSearch = BeamSearch()
    """How translations are written."""

    @property
    def without_decoding(self) -> Self:
        """The task with default settings for decoding and scores."""
        scoring = {"bleu_tokenize": "13a", "metrics": ("bleu",)}
        return self.model_copy(update={"search": BeamSearch(), **scoring})
