"""Rows of kinds of task whose rows are otherwise the user's: documents of queries, sets of labels, tags.

A row is drawn from facts, towns and people that its split owns, so no sentence is in two splits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from qexp.data.synthetic.facts import active, capital, draw, sentence
from qexp.data.synthetic.paraphrase import changed, some_changes
from qexp.data.synthetic.splits import SplitVocabulary
from qexp.data.synthetic.towns import month, person, town, year
from qexp.data.synthetic.vocabulary import Thing, Words

OwnRow = dict[str, Any]
"""Values of one row by column."""
TEXTS = pa.list_(pa.string())


@dataclass(frozen=True)
class OwnSet:
    """Columns, number of rows by split, and the maker of one row."""

    columns: Mapping[str, pa.DataType]
    sizes: Mapping[str, int]
    maker: Callable[[SplitVocabulary], OwnRow]

    def tables(self, splits: Mapping[str, SplitVocabulary]) -> dict[str, pa.Table]:
        """Rows of every split; a row with the first column of an earlier one is drawn again."""
        schema = pa.schema(list(self.columns.items()))
        return {
            name: pa.Table.from_pylist([*self._distinct(split, self.sizes[name])], schema)
            for name, split in splits.items()
        }

    def _distinct(self, split: SplitVocabulary, count: int) -> Iterator[OwnRow]:
        key, seen = next(iter(self.columns)), set[str]()
        while len(seen) < count:
            row = self.maker(split)
            if (name := str(row[key])) not in seen:
                seen.add(name)
                yield row


# Reranking

NEGATIVES = 7
"""Documents of a query that are not relevant: changed statements, and :data:`UNRELATED` ones."""
UNRELATED = 2


def reranking(split: SplitVocabulary) -> OwnRow:
    """A statement as the query, the same event in other words, and events that differ in meaning."""
    dice = split.dice
    fact = draw(split, counted=dice.chance(0.2))
    fact = replace(fact, number="") if fact.on_person else fact
    query = sentence(fact, dice, voice="active")
    positive = query
    while positive == query:
        positive = sentence(fact, dice, source=dice.chance(0.25))
    negative: list[str] = []
    while len(negative) < NEGATIVES:
        other = draw(split)
        if len(negative) >= UNRELATED:
            other = fact
            for change in some_changes(fact, split, 1 + int(dice.random() * 3)):
                other = changed(other, change, split)
        text = sentence(other, dice)
        if text not in (query, positive, *negative):
            negative.append(text)
    return {"query": query, "positive": [positive], "negative": negative}


# Multi-label

DENIED = "denied"
"""Label of a text that says of an event that it did not happen."""


def multi_label(split: SplitVocabulary) -> OwnRow:
    """One or two events; labels are the kinds of things in them, and whether one is denied."""
    dice = split.dice
    facts = [draw(split) for _ in range(1 + dice.chance(0.6))]
    facts = [replace(fact, negated=dice.chance(0.2)) for fact in facts]
    labels = {fact.target.kind for fact in facts if isinstance(fact.target, Thing)}
    labels |= {DENIED for fact in facts if fact.negated}
    text = dice.pick((" and ", ", while ")).join(active(fact, dice) for fact in facts)
    return {"text": capital(text) + ".", "labels": sorted(labels)}


# Tags

_TEMPLATES: Words = (
    "{PER} moved from {LOC} to {LOC} in {DATE} .",
    "In {DATE} , {PER} opened a small shop near {LOC} .",
    "{LOC} chose {PER} as mayor in {DATE} .",
    "The letter that {PER} wrote to {PER} never reached {LOC} .",
    "Nobody in {LOC} remembers the flood of {DATE} .",
    "The old bridge of {LOC} was closed for two years , said {PER} .",
    "The road to {LOC} stays closed .",
    "After the storm , people in {LOC} painted the houses again .",
)
_PLACE_AS_NAME = 0.2
"""Share of people with a town as their family name: there, only the sentence tells them apart."""


def _named(split: SplitVocabulary) -> str:
    if not split.dice.chance(_PLACE_AS_NAME):
        return person(split)
    return f"{person(split).split()[0]} {town(split)}"


def _date(split: SplitVocabulary) -> str:
    return year(split) if split.dice.chance(0.4) else f"{month(split)} {year(split)}"


_SLOTS: Mapping[str, Callable[[SplitVocabulary], str]] = {"PER": _named, "LOC": town, "DATE": _date}


def token_classification(split: SplitVocabulary) -> OwnRow:
    """A sentence of invented people, towns and dates, with a tag (IOB2) for each word."""
    words: list[str] = []
    tags: list[str] = []
    opening = split.dice.pick(("", "Later", "It is said that", "Then"))
    for piece in [*opening.split(), *split.dice.pick(_TEMPLATES).split()]:
        kind = piece.strip("{}")
        slot = _SLOTS[kind](split).split() if piece.startswith("{") else None
        words += slot or [piece]
        tags += [f"B-{kind}", *[f"I-{kind}"] * (len(slot) - 1)] if slot else ["O"]
    return {"tokens": words, "ner_tags": tags}


OWN_KINDS: Mapping[str, OwnSet] = {
    "reranking": OwnSet(
        {"query": pa.string(), "positive": TEXTS, "negative": TEXTS},
        {"train": 200, "validation": 60},
        reranking,
    ),
    "multi_label": OwnSet(
        {"text": pa.string(), "labels": TEXTS}, {"train": 1600, "validation": 400}, multi_label
    ),
    "token_classification": OwnSet(
        {"tokens": TEXTS, "ner_tags": TEXTS}, {"train": 1200, "validation": 300}, token_classification
    ),
}
"""Sets by kind of task, which is also their name."""
