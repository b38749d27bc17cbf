"""Scores of tokens to answers: the best spans of each question, found while its windows come in.

The protocol is that of the SQuAD examples of transformers, which NVIDIA's QDQBERT example uses: in each
window the ``n_best`` tokens that score highest as a start meet the ``n_best`` that score highest as an end; a
span scores the sum; of a question's spans in all its windows the ``n_best`` stay. Unlike there, tokens that
are not of the context are put aside before the highest are taken, so that padding never takes a place, and a
question without any span is answered with the empty text, not with the word "empty".

Of equal spans the one in the earlier window comes first, then the one that starts, then the one that ends
earlier; of equal tokens the earlier is taken. So the order in which windows come in changes nothing.
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
"""Spans that are weighed at once: bounds the memory whatever ``n_best`` and the batch."""

_SPAN = np.dtype([("score", np.float64), ("window", np.int64), ("start", np.int32), ("end", np.int32)])
_ROWS_READ = 1024


@dataclass(frozen=True)
class Search:
    """What is an answer.

    Attributes:
        n_best: Starts and ends that are tried in each window, and spans that are kept of each question.
        max_answer_length: Most tokens of an answer.
        null_threshold: By how much the score of no answer must be above the best span's for the answer to be
            empty (SQuAD v2.0); None where every question has an answer (v1.1).
    """

    n_best: int = 20
    max_answer_length: int = 30
    null_threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that allow no span."""
        for name in ("n_best", "max_answer_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: allowed is 1 or more; set {name} to that")


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to all questions of a table, and the spans behind them, best first.

    Attributes:
        texts: The answer to each question; empty where it has none or was never asked (its row was skipped).
        spans: Characters of the context, first and one behind the last, int32 [rows, n_best, 2]; -1 for spans
            that do not exist. Windows overlap, so a place may appear twice, with two scores.
        scores: Start plus end logit of each span, float64 [rows, n_best]; minus infinity likewise.
        probabilities: Softmax of the scores, with ``null_threshold`` together with that of no answer,
            float64 [rows, n_best]; 0 likewise.
        null_scores: Score of no answer: the smallest sum of both logits of the first special token over the
            question's windows, float64 [rows]; plus infinity for a question without windows.
        no_answer_probabilities: Its share of the softmax, float64 [rows]; without ``null_threshold`` it is 0,
            and 1 for a question without spans.
        broken: Windows that were left out because a logit was not a finite number.
    """

    texts: list[str]
    spans: Array
    scores: Array
    probabilities: Array
    null_scores: Array
    no_answer_probabilities: Array
    broken: int = 0

    def margins(self, null_threshold: float | None) -> Array:
        """By how much scores would have to change for another answer, float64 [rows].

        The gap between the best span and the best one at other characters, or with ``null_threshold`` to the
        score at which there is no answer, whichever is smaller; infinite where nothing else was found.
        """
        with np.errstate(invalid="ignore"):  # minus infinity from itself, where there are no spans
            gaps = self.scores[:, :1] - self.scores
        other = (self.spans != self.spans[:, :1]).any(axis=2) & (self.scores > -np.inf)
        margins: Array = np.where(other, gaps, np.inf).min(axis=1)
        if null_threshold is None:
            return margins
        there = np.isfinite(self.scores[:, 0]) & np.isfinite(self.null_scores)
        to_null = np.where(there, self.null_scores - self.scores[:, 0] - null_threshold, np.inf)
        # Without an answer only the threshold counts: which span is best changes nothing.
        return np.where(to_null > 0, to_null, np.minimum(margins, -to_null))


class Collector:
    """Takes the logits of windows in any order, and keeps no more than the best spans of each question.

    Args:
        windows: The windows, as :func:`qexp.data.tokenization.windows.tokenize_questions` cut them.
        contexts: The context of each row of the table they were cut from, strings.
        search: What is an answer.
    """

    def __init__(self, windows: WindowSplit, contexts: pa.ChunkedArray, search: Search) -> None:
        self._windows, self._contexts, self._search = windows, contexts, search
        self._best = np.zeros((len(contexts), search.n_best), _SPAN)
        self._best["score"] = -np.inf
        self._null = np.full(len(contexts), np.inf)
        self._seen = np.zeros(len(windows), bool)
        self._broken = 0

    def add(self, windows: Array, start_logits: Array, end_logits: Array) -> None:
        """Take the logits of some windows.

        Args:
            windows: Their numbers, [batch].
            start_logits: Logit of each token as the first of the answer, [batch, tokens]; what lies behind
                the end of a window is not read.
            end_logits: The same as the last of the answer.

        Raises:
            ValueError: Shapes do not fit, or a window was added before or does not exist.
        """
        windows, start_logits, end_logits = map(np.asarray, (windows, start_logits, end_logits))
        self._check(windows, start_logits.shape, end_logits.shape)
        self._seen[windows] = True
        at_once = max(1, PAIRS_AT_ONCE // min(self._search.n_best, start_logits.shape[1]) ** 2)
        for begin in range(0, len(windows), at_once):
            now = slice(begin, begin + at_once)
            logits = (each[now].astype(np.float64) for each in (start_logits, end_logits))
            self._add(windows[now], *logits)

    def answers(self) -> Answers:
        """The answers, once all windows were added.

        Raises:
            ValueError: Some were not.
        """
        missing = np.flatnonzero(~self._seen)
        if len(missing):
            raise ValueError(f"{len(missing)} windows were not added, the first is {missing[0]}")
        scores, there = self._best["score"], self._best["score"] > -np.inf
        begins = np.asarray(self._windows.offsets)[self._best["window"]]
        first, last = (self._windows.spans[(begins + self._best[name])[there]] for name in ("start", "end"))
        spans = np.full((*scores.shape, 2), -1, np.int32)
        spans[there] = np.stack([first[:, 0], last[:, 1]], axis=1)
        given = there[:, 0].copy()
        threshold = self._search.null_threshold
        if threshold is not None:
            given[given] = self._null[given] - scores[given, 0] <= threshold
        texts = self._texts(np.where(given[:, None], spans[:, 0], 0))
        probabilities, none = _softmax(scores, None if threshold is None else self._null)
        return Answers(texts, spans, scores.copy(), probabilities, self._null.copy(), none, self._broken)

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
        there = spans["score"] > -np.inf
        self._merge(np.repeat(rows, there.sum(axis=1)), spans[there])

    def _context(self, windows: Array, width: int) -> Array:
        """Which tokens stand for characters of the context, bool [batch, width]."""
        begins = np.asarray(self._windows.offsets[windows])
        places = np.arange(width)
        inside = places < (self._windows.offsets[windows + 1] - begins)[:, None]
        spans = self._windows.spans[(begins[:, None] + places)[inside]]
        context = np.zeros(inside.shape, bool)
        context[inside] = spans[:, 1] > spans[:, 0]
        return context

    def _merge(self, rows: Array, spans: Array) -> None:
        """Keep the best of these spans, [spans], of the questions in ``rows``, and of those kept so far."""
        touched = np.unique(rows)
        kept = self._best[touched]
        there = kept["score"] > -np.inf
        rows = np.concatenate([rows, np.repeat(touched, there.sum(axis=1))])
        spans = np.concatenate([spans, kept[there]])
        order = np.lexsort((spans["end"], spans["start"], spans["window"], -spans["score"], rows))
        rows, spans = rows[order], spans[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = rank < self._search.n_best
        self._best[rows[best], rank[best]] = spans[best]

    def _texts(self, spans: Array) -> list[str]:
        """The characters of one span of each row's context; of those that end at 0, nothing is read."""
        texts = [""] * len(spans)
        for start in range(0, len(spans), _ROWS_READ):
            rows = start + np.flatnonzero(spans[start : start + _ROWS_READ, 1])
            part = self._contexts.slice(start, _ROWS_READ)
            contexts = part.take(from_numpy(rows - start)).to_pylist()
            for row, context, (first, end) in zip(rows.tolist(), contexts, spans[rows].tolist(), strict=True):
                texts[row] = context[first:end]
        return texts


def _best_spans(starts: Array, ends: Array, search: Search) -> Array:
    """The best spans of each window, best first, without their window; score minus infinity for no span.

    Args:
        starts: Logits, minus infinity where no answer may start, [batch, tokens].
        ends: The same for its end.
        search: What is an answer.
    """
    first, last = _highest(starts, search.n_best), _highest(ends, search.n_best)
    scores = np.take_along_axis(starts, first, 1)[:, :, None] + np.take_along_axis(ends, last, 1)[:, None]
    further = last[:, None] - first[:, :, None]
    scores[(further < 0) | (further >= search.max_answer_length)] = -np.inf
    flat = scores.reshape(len(scores), first.shape[1] * last.shape[1])
    order = np.argsort(-flat, axis=1, kind="stable")[:, : search.n_best]  # equal ones by start, then end
    spans = np.zeros(order.shape, _SPAN)
    spans["score"] = np.take_along_axis(flat, order, 1)
    spans["start"] = np.take_along_axis(first, order // last.shape[1], 1)
    spans["end"] = np.take_along_axis(last, order % last.shape[1], 1)
    return spans


def _highest(logits: Array, count: int) -> Array:
    """Places of the highest logits, in ascending order of place, [batch, count or all]."""
    return np.sort(np.argsort(-logits, axis=1, kind="stable")[:, :count], axis=1)


def _softmax(scores: Array, null: Array | None) -> tuple[Array, Array]:
    """Probabilities of the spans and of no answer; without a null score, no answer is what has no span."""
    if null is None:
        null = np.where(scores[:, 0] > -np.inf, -np.inf, 0.0)
    beside = np.where(null == np.inf, 0.0, null)
    every = np.concatenate([scores, beside[:, None]], axis=1)
    shares = np.exp(every - every.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares[:, :-1], shares[:, -1]
