"""Pool of the tokens that windows are assembled from: special tokens, questions and contexts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from qexp.data.sources.questions import Question
from qexp.data.tokenization.texts import flat
from qexp.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Array = np.ndarray[Any, Any]

PROBE = "the"
"""Text that every tokenizer maps to tokens; used to find the special tokens around a pair of texts."""

MARKS = frozenset({"Mn", "Me"})
"""Categories of characters that combine with the one before: accents, vowel signs, emoji variants."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Special tokens that a tokenizer puts around a question and a context.

    Attributes:
        ids: Ids of the special tokens, int32 [special].
        types: Types of the special tokens, uint8 [special].
        before: Number of special tokens before the question, at least one.
        between: Number of special tokens between question and context; the rest come last.
        question_type: Type of question tokens.
        context_type: Type of context tokens.
    """

    ids: Array
    types: Array
    before: int
    between: int
    question_type: int
    context_type: int


def frame_of(backend: Tokenizer, *, typed: bool) -> Frame:
    """Determine the special tokens that ``backend`` puts around a pair of texts.

    Args:
        backend: Tokenizer with truncation and padding disabled.
        typed: Whether the model reads token types; they are 0 if it does not.

    Raises:
        ModelError: A pair is not encoded as special tokens, first text, optional special tokens, second text.
    """
    text, pair = backend.encode(PROBE, add_special_tokens=False), backend.encode(PROBE, PROBE)
    ids, types = np.array(pair.ids, np.int32), np.array(pair.type_ids, np.uint8) * typed
    sequences = np.array([-1 if side is None else side for side in pair.sequence_ids])
    question, context = np.flatnonzero(sequences == 0), np.flatnonzero(sequences == 1)
    alike = [ids[places].tolist() for places in (question, context)] == [text.ids, text.ids]
    if not alike or not text.ids or not 0 < question[0] <= question[-1] < context[0]:
        raise ModelError(
            f"the tokenizer makes {pair.tokens} of the pair {PROBE!r}, {PROBE!r}; question answering needs a "
            "special token before the question, which can mean no answer, and the context behind it, as BERT "
            "has them; choose another model"
        )
    between = int(context[0] - question[-1] - 1)
    kinds = int(types[question[0]]), int(types[context[0]])
    return Frame(ids[sequences < 0], types[sequences < 0], int(question[0]), between, *kinds)


@dataclass(frozen=True, eq=False)
class TokenPool:
    """All tokens of the windows of some questions, in order: special tokens, questions, contexts.

    Attributes:
        ids: Token ids, int32 [tokens].
        types: Token types, uint8 [tokens].
        spans: Character range in the context, end exclusive, int32 [tokens, 2]; -1 for other tokens.
        question_begins: Index in the pool of each question's first token, int64 [questions].
        question_lengths: Number of tokens of each question, int64 [questions].
        context_begins: Index in the pool of the first token of each question's context, int64 [questions];
            questions may share a context.
        context_lengths: Number of tokens of each question's context, int64 [questions].
    """

    ids: Array
    types: Array
    spans: Array
    question_begins: Array
    question_lengths: Array
    context_begins: Array
    context_lengths: Array

    def answer_tokens(self, part: Sequence[Question]) -> Array:
        """Return the first and the last token of each context whose characters overlap with the answer.

        Returns:
            Token indices in the context, int64 [questions, 2]; -1 and -1 where there is no answer, and a last
            index below the first where no token overlaps.
        """
        starts, ends = (np.array([getattr(each, name) for each in part]) for name in ("start", "end"))
        unique = np.unique(self.context_begins)  # a key combines a context's begin with a character in it
        lengths = np.diff(np.append(unique, len(self.ids)))
        keys = np.repeat(unique, lengths)[:, None] * 2**32 + self.spans[unique[0] :]
        first_end = np.maximum.accumulate(keys[:, 1])
        last_start = np.minimum.accumulate(keys[::-1, 0])[::-1]
        base = self.context_begins * 2**32
        first = np.searchsorted(first_end, base + starts, side="right")
        last = np.searchsorted(last_start, base + ends, side="left") - 1
        tokens = np.stack([first, last], axis=1) + unique[0] - self.context_begins[:, None]
        return np.where(starts[:, None] < 0, -1, tokens)


def pool_of(part: Sequence[Question], backend: Tokenizer, frame: Frame) -> TokenPool:
    """Tokenize questions and contexts, each distinct context once."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(each.context for each in part))}
    contexts = backend.encode_batch(list(numbers), add_special_tokens=False)
    questions = backend.encode_batch_fast([each.question for each in part], add_special_tokens=False)
    question_lengths, context_lengths = _lengths(questions), _lengths(contexts)
    counts = np.array([len(frame.ids), question_lengths.sum(), context_lengths.sum()])
    before = int(counts[:2].sum())
    context_numbers = np.array([numbers[each.context] for each in part])
    spans = np.full((counts.sum(), 2), -1, np.int32)
    spans[before:] = _spans(contexts, list(numbers), context_lengths)
    ids = flat((each.ids for each in chain(questions, contexts)), np.int32, int(counts[1:].sum()))
    kinds = np.repeat(np.array([frame.question_type, frame.context_type], np.uint8), counts[1:])
    return TokenPool(
        ids=np.concatenate([frame.ids, ids]),
        types=np.concatenate([frame.types, kinds]),
        spans=spans,
        question_begins=counts[0] + _begins(question_lengths),
        question_lengths=question_lengths,
        context_begins=(before + _begins(context_lengths))[context_numbers],
        context_lengths=context_lengths[context_numbers],
    )


def _lengths(encodings: Sequence[Encoding]) -> Array:
    return np.fromiter(map(len, encodings), np.int64, len(encodings))


def _begins(lengths: Array) -> Array:
    return np.asarray(np.cumsum(lengths) - lengths)


def ranges(begins: Array, lengths: Array) -> Array:
    """Return the indices of several ranges of the pool, concatenated, int64 [indices]."""
    return np.asarray(np.arange(lengths.sum()) + np.repeat(begins - _begins(lengths), lengths))


def _spans(encodings: Sequence[Encoding], texts: Sequence[str], lengths: Array) -> Array:
    """Return the character ranges of all tokens, [tokens, 2]; dropped marks belong to the token before."""
    pairs = chain.from_iterable(each.offsets for each in encodings)
    spans = flat(pairs, np.int32, 2 * int(lengths.sum())).reshape(-1, 2)
    for text, begin, length in zip(texts, _begins(lengths).tolist(), lengths.tolist(), strict=True):
        if not text.isascii():
            _reach_over_marks(spans[begin : begin + length], text)
    return spans


def _reach_over_marks(spans: Array, text: str) -> None:
    """Extend each token over the marks that follow it, unless the next token covers them; in place."""
    marks = [ord(character) for character in set(text) if unicodedata.category(character) in MARKS]
    if not marks or not len(spans):
        return
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    places = np.where(np.isin(codes, marks), len(codes), np.arange(len(codes)))
    behind = np.minimum.accumulate(np.append(places, len(codes))[::-1])[::-1]
    following = np.append(spans[1:, 0], len(codes))
    reach = np.minimum(behind[spans[:, 1]], following)
    wide = spans[:, 1] > spans[:, 0]
    spans[wide, 1] = np.maximum(spans[:, 1], reach)[wide]
