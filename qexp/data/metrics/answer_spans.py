"""Token scores to answers: collects the best spans of each question while its windows arrive.

The protocol follows the SQuAD examples of transformers, which NVIDIA's QDQBERT example uses. In each window,
the ``n_best`` highest-scoring start tokens are combined with the ``n_best`` highest-scoring end tokens. A
span scores the sum of both, and the ``n_best`` best spans of a question over all its windows are kept. Two
things differ: tokens outside the context are masked before the highest are selected, so padding never takes
a slot, and a question without any span is answered with the empty text, not with the word "empty".

Ties between spans go to the earlier window, then to the earlier start, then to the earlier end; ties between
tokens go to the earlier token. The result therefore does not depend on the order in which windows arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import from_numpy
from qexp.data.tokenization.windows import WindowSplit
from qexp.errors import ConfigError

Array = np.ndarray[Any, Any]

PAIRS_AT_ONCE = 2**20
"""Spans that are scored at once; bounds memory whatever ``n_best`` and the batch size."""

_SPAN = np.dtype([("score", np.float64), ("window", np.int64), ("start", np.int32), ("end", np.int32)])
_ROWS_READ = 1024


@dataclass(frozen=True)
class SpanLimits:
    """Limits on the spans that may be an answer.

    Attributes:
        n_best: Start and end tokens that are tried in each window, and spans that are kept per question.
        max_answer_length: Maximum number of tokens in an answer.
        null_threshold: Margin by which the no-answer score must exceed the best span's score for the answer
            to be empty (SQuAD v2.0); None where every question has an answer (v1.1).
    """

    n_best: int = 20
    max_answer_length: int = 30
    null_threshold: float | None = None

    def __post_init__(self) -> None:
        """Reject limits that allow no span."""
        for name in ("n_best", "max_answer_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: allowed is 1 or more; set {name} to that")


@dataclass(frozen=True, eq=False)
class BestAnswers:
    """Answers to all questions of a table, and the spans behind them, best first.

    Attributes:
        texts: Answer to each question; empty where it has none or was never asked (its row was skipped).
        spans: Character range of each span in its context, end exclusive, int32 [rows, n_best, 2]; -1 for
            spans that do not exist. Windows overlap, so a range may appear twice, with two scores.
        scores: Start plus end logit of each span, float64 [rows, n_best]; minus infinity for spans that do
            not exist.
        probabilities: Softmax over the scores, and with ``null_threshold`` over the no-answer score as well,
            float64 [rows, n_best]; 0 for spans that do not exist.
        null_scores: No-answer score: the minimum over the question's windows of the start plus end logit of
            the first special token, float64 [rows]; plus infinity for a question without windows.
        no_answer_probabilities: Softmax share of the no-answer score, float64 [rows]; without
            ``null_threshold`` it is 0, and 1 for a question without spans.
        broken: Number of windows that were left out because a logit was not finite.
    """

    texts: list[str]
    spans: Array
    scores: Array
    probabilities: Array
    null_scores: Array
    no_answer_probabilities: Array
    broken: int = 0

    def margins(self, null_threshold: float | None) -> Array:
        """Return by how much scores must change for the answer to change, float64 [rows].

        The margin is the gap between the best span and the best span over other characters. With
        ``null_threshold``, the distance to the score at which the answer becomes empty counts if it is
        smaller. The margin is infinite where there is no alternative.
        """
        with np.errstate(invalid="ignore"):  # -inf minus -inf where there are no spans
            gaps = self.scores[:, :1] - self.scores
        other = (self.spans != self.spans[:, :1]).any(axis=2) & (self.scores > -np.inf)
        margins: Array = np.where(other, gaps, np.inf).min(axis=1)
        if null_threshold is None:
            return margins
        exists = np.isfinite(self.scores[:, 0]) & np.isfinite(self.null_scores)
        to_null = np.where(exists, self.null_scores - self.scores[:, 0] - null_threshold, np.inf)
        # While the answer is empty, only the threshold matters: another best span changes nothing.
        return np.where(to_null > 0, to_null, np.minimum(margins, -to_null))


class Collector:
    """Accumulator of window logits, in any order, that keeps only the best spans of each question.

    Args:
        windows: Windows as cut by :func:`qexp.data.tokenization.windows.tokenize_questions`.
        contexts: Context of each row of the table that the windows were cut from, strings.
        search: Limits on the spans.
    """

    def __init__(self, windows: WindowSplit, contexts: pa.ChunkedArray, search: SpanLimits) -> None:
        self._windows, self._contexts, self._search = windows, contexts, search
        self._best = np.zeros((len(contexts), search.n_best), _SPAN)
        self._best["score"] = -np.inf
        self._null = np.full(len(contexts), np.inf)
        self._seen = np.zeros(len(windows), bool)
        self._broken = 0

    def add(self, windows: Array, start_logits: Array, end_logits: Array) -> None:
        """Add the logits of some windows.

        Args:
            windows: Window numbers, [batch].
            start_logits: Logit of each token as the first of the answer, [batch, tokens]; positions past the
                end of a window are ignored.
            end_logits: Logit of each token as the last of the answer, [batch, tokens].

        Raises:
            ValueError: Shapes do not match, or a window was added before or does not exist.
        """
        windows, start_logits, end_logits = map(np.asarray, (windows, start_logits, end_logits))
        self._check(windows, start_logits.shape, end_logits.shape)
        self._seen[windows] = True
        at_once = max(1, PAIRS_AT_ONCE // min(self._search.n_best, start_logits.shape[1]) ** 2)
        for begin in range(0, len(windows), at_once):
            chunk = slice(begin, begin + at_once)
            logits = (each[chunk].astype(np.float64) for each in (start_logits, end_logits))
            self._add(windows[chunk], *logits)

    def answers(self) -> BestAnswers:
        """Return the answers once all windows were added.

        Raises:
            ValueError: Some windows were not added.
        """
        missing = np.flatnonzero(~self._seen)
        if len(missing):
            raise ValueError(f"{len(missing)} windows were not added, the first is {missing[0]}")
        scores, exists = self._best["score"], self._best["score"] > -np.inf
        begins = np.asarray(self._windows.offsets)[self._best["window"]]
        first, last = (self._windows.spans[(begins + self._best[name])[exists]] for name in ("start", "end"))
        spans = np.full((*scores.shape, 2), -1, np.int32)
        spans[exists] = np.stack([first[:, 0], last[:, 1]], axis=1)
        answered = exists[:, 0].copy()
        threshold = self._search.null_threshold
        if threshold is not None:
            answered[answered] = self._null[answered] - scores[answered, 0] <= threshold
        texts = self._texts(np.where(answered[:, None], spans[:, 0], 0))
        probabilities, no_answer = _softmax(scores, None if threshold is None else self._null)
        return BestAnswers(
            texts,
            spans,
            scores=scores.copy(),
            probabilities=probabilities,
            null_scores=self._null.copy(),
            no_answer_probabilities=no_answer,
            broken=self._broken,
        )

    def _check(self, windows: Array, starts: tuple[int, ...], ends: tuple[int, ...]) -> None:
        if windows.ndim != 1 or len(starts) != 2 or starts != ends or starts[0] != len(windows):
            shapes = f"windows {windows.shape}, logits {starts} and {ends}"
            raise ValueError(f"{shapes}: must be [batch] and twice [batch, tokens]")
        if len(windows) and not 0 <= windows.min() <= windows.max() < len(self._windows):
            raise ValueError(f"windows {windows.min()} to {windows.max()}: there are {len(self._windows)}")
        if len(np.unique(windows)) < len(windows) or self._seen[windows].any():
            raise ValueError("a window was added twice")
        longest = int((self._windows.offsets[windows + 1] - self._windows.offsets[windows]).max(initial=1))
        if starts[1] < longest:
            raise ValueError(f"logits of {starts[1]} tokens for a window of {longest}")

    def _add(self, windows: Array, starts: Array, ends: Array) -> None:
        context = self._context(windows, starts.shape[1])
        read = context.copy()
        read[:, 0] = True
        fine = (np.isfinite(starts) & np.isfinite(ends) | ~read).all(axis=1)
        self._broken += int((~fine).sum())
        windows, starts, ends, context = windows[fine], starts[fine], ends[fine], context[fine]
        rows = np.asarray(self._windows.rows[windows])
        np.minimum.at(self._null, rows, starts[:, 0] + ends[:, 0])
        starts, ends = (np.where(context, each, -np.inf) for each in (starts, ends))
        spans = _best_spans(starts, ends, self._search)
        spans["window"] = windows[:, None]
        exists = spans["score"] > -np.inf
        self._merge(np.repeat(rows, exists.sum(axis=1)), spans[exists])

    def _context(self, windows: Array, width: int) -> Array:
        """Return which tokens stand for characters of the context, bool [batch, width]."""
        begins = np.asarray(self._windows.offsets[windows])
        places = np.arange(width)
        inside = places < (self._windows.offsets[windows + 1] - begins)[:, None]
        spans = self._windows.spans[(begins[:, None] + places)[inside]]
        context = np.zeros(inside.shape, bool)
        context[inside] = spans[:, 1] > spans[:, 0]
        return context

    def _merge(self, rows: Array, spans: Array) -> None:
        """Merge spans, [spans], of the questions in ``rows``, [spans], into the best spans kept so far."""
        touched = np.unique(rows)
        previous = self._best[touched]
        exists = previous["score"] > -np.inf
        rows = np.concatenate([rows, np.repeat(touched, exists.sum(axis=1))])
        spans = np.concatenate([spans, previous[exists]])
        order = np.lexsort((spans["end"], spans["start"], spans["window"], -spans["score"], rows))
        rows, spans = rows[order], spans[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = rank < self._search.n_best
        self._best[rows[best], rank[best]] = spans[best]

    def _texts(self, spans: Array) -> list[str]:
        """Return one character range of each row's context; contexts of ranges that end at 0 are not read."""
        texts = [""] * len(spans)
        for start in range(0, len(spans), _ROWS_READ):
            rows = start + np.flatnonzero(spans[start : start + _ROWS_READ, 1])
            part = self._contexts.slice(start, _ROWS_READ)
            contexts = part.take(from_numpy(rows - start)).to_pylist()
            for row, context, (first, end) in zip(rows.tolist(), contexts, spans[rows].tolist(), strict=True):
                texts[row] = context[first:end]
        return texts


def _best_spans(starts: Array, ends: Array, search: SpanLimits) -> Array:
    """Return the best spans of each window, best first, [batch, spans]; the field ``window`` is not set.

    The score of a span that does not exist is minus infinity.

    Args:
        starts: Start logits, minus infinity where no answer may start, [batch, tokens].
        ends: End logits, minus infinity where no answer may end, [batch, tokens].
        search: Limits on the spans.
    """
    first, last = _highest(starts, search.n_best), _highest(ends, search.n_best)
    scores = np.take_along_axis(starts, first, 1)[:, :, None] + np.take_along_axis(ends, last, 1)[:, None]
    distance = last[:, None] - first[:, :, None]
    scores[(distance < 0) | (distance >= search.max_answer_length)] = -np.inf
    flat = scores.reshape(len(scores), first.shape[1] * last.shape[1])
    order = np.argsort(-flat, axis=1, kind="stable")[:, : search.n_best]  # ties: earlier start, then end
    spans = np.zeros(order.shape, _SPAN)
    spans["score"] = np.take_along_axis(flat, order, 1)
    spans["start"] = np.take_along_axis(first, order // last.shape[1], 1)
    spans["end"] = np.take_along_axis(last, order % last.shape[1], 1)
    return spans


def _highest(logits: Array, count: int) -> Array:
    """Return the positions of the highest logits, in ascending order of position, [batch, count or all]."""
    return np.sort(np.argsort(-logits, axis=1, kind="stable")[:, :count], axis=1)


def _softmax(scores: Array, null: Array | None) -> tuple[Array, Array]:
    """Return the probabilities of the spans, [rows, n_best], and of no answer, [rows].

    Without null scores, the probability of no answer is 1 for a row without spans and 0 for all others.
    """
    if null is None:
        null = np.where(scores[:, 0] > -np.inf, -np.inf, 0.0)
    null_logits = np.where(null == np.inf, 0.0, null)
    logits = np.concatenate([scores, null_logits[:, None]], axis=1)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares[:, :-1], shares[:, -1]
