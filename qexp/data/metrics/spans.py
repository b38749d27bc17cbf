"""Spans of tagged words, by the rules of each scheme, and counts of right ones.

The rules are those of seqeval 1.2.2 with ``mode="strict"`` and a scheme: a span counts where its first and
last word and its type are right, and what does not follow the scheme, such as ``I-PER`` behind ``O`` in IOB2,
is no span. (Without a scheme, seqeval ignores ``mode``.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.config.token_classification import OUTSIDE

Array = NDArray[Any]
Span = tuple[int, int, str]
"""First word, the word behind the last one, and type."""


@dataclass(frozen=True)
class SpanRules:
    """Letters of a tag and of the one before it, and ``=`` or ``!`` for equal or different types.

    Attributes:
        starts: Where a span begins with the second tag.
        continues: Where the second tag belongs to the span of the first one.
        ends: Where a span that the first tag belongs to may end; elsewhere the words are no span.
    """

    starts: Collection[str]
    continues: Collection[str]
    ends: Collection[str]


def _any(firsts: str, seconds: str) -> set[str]:
    return {first + second + equal for first in firsts for second in seconds for equal in "=!"}


RULES: Mapping[str, SpanRules] = {
    "IOB2": SpanRules(
        starts=_any("BIO", "B"), continues={"BI=", "II="}, ends=_any("BI", "OB") | {"BI!", "II!"}
    ),
    "IOB1": SpanRules(
        starts=_any("OB", "I") | {"II!", "IB=", "BB="},
        continues={"BI=", "II="},
        ends=_any("BI", "O") | _any("I", "B") | {"II!", "BI!", "BB="},
    ),
    "IOBES": SpanRules(
        starts=_any("BIOES", "BS"), continues={"BI=", "BE=", "II=", "IE="}, ends=_any("ES", "BIOES")
    ),
}
"""Rules by scheme."""


def spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """Return the spans of a row, in order.

    Args:
        tags: Tag of each word, such as ``B-PER`` or ``O``.
        scheme: Name in :data:`RULES`.
    """
    rules, row = RULES[scheme], [*tags, OUTSIDE]
    found, place, before = [], 0, OUTSIDE
    while place < len(row):
        end = place + 1
        if _pair(before, row[place]) in rules.starts:
            while end < len(row) and _pair(row[end - 1], row[end]) in rules.continues:
                end += 1
            if _pair(row[end - 1], row[end]) in rules.ends:
                found.append((place, end, row[place][2:]))
        before, place = row[end - 1], end
    return found


def _pair(first: str, second: str) -> str:
    return first[0] + second[0] + ("=" if first[2:] == second[2:] else "!")


def span_counts(scheme: str, predictions: Array, labels: Array) -> NDArray[np.float64]:
    """Return the right, the predicted and the gold spans of each row, [rows, 3].

    Args:
        scheme: Name in :data:`RULES`.
        predictions: Predicted tags of each row's words, [rows] tuples.
        labels: Gold tags likewise.
    """
    counts = []
    for predicted_tags, gold_tags in zip(predictions, labels, strict=True):
        predicted, gold = set(spans(predicted_tags, scheme)), set(spans(gold_tags, scheme))
        counts.append((len(predicted & gold), len(predicted), len(gold)))
    return np.array(counts, np.float64).reshape(-1, 3)


def tag_counts(predictions: Array, labels: Array) -> NDArray[np.float64]:
    """Return the words with the right tag, and all words, of each row, [rows, 2]."""
    rows = zip(predictions, labels, strict=True)
    counts = [(sum(map(str.__eq__, predicted, gold)), len(gold)) for predicted, gold in rows]
    return np.array(counts, np.float64).reshape(-1, 2)
