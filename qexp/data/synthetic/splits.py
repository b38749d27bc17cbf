"""Rows into splits without leaks: a base fact belongs to one split before anything is rendered."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import TypeVar

from qexp.data.synthetic.vocabulary import TOWN, Genre

T = TypeVar("T")
Text = tuple[str, ...]
_PUNCTUATION = re.compile(r"[^a-z0-9 ]+")


class StableRandom:
    """Choices built on ``random.Random.random`` alone, whose numbers Python promises to keep."""

    def __init__(self, seed: str) -> None:
        """Start from a string seed (``random.Random`` hashes it by SHA-512, the same everywhere)."""
        self.random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One item, all equally likely."""
        return items[int(self.random() * len(items))]

    def other(self, items: Sequence[T], than: T) -> T:
        """One item that differs from ``than``."""
        while (item := self.pick(items)) == than:
            pass
        return item

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Fisher-Yates, in place."""
        for i in range(len(items) - 1, 0, -1):
            j = int(self.random() * (i + 1))
            items[i], items[j] = items[j], items[i]


@dataclass(frozen=True)
class SplitVocabulary:
    """What one split may talk about.

    Every combination of base words belongs to either the training or the validation side, by a
    checksum of the words and the seed; about one word in twelve is kept for validation altogether.
    """

    dice: StableRandom
    seed: int
    validation: bool
    genre: Genre = TOWN

    def owns(self, *words: str) -> bool:
        """Whether the combination of words (in any order) belongs to this side."""
        held = self._kept(words) or any(self._held_out(word) for word in words)
        return held == self.validation

    def _kept(self, words: Sequence[str]) -> bool:
        return _checksum(self.seed, "/".join(sorted(words))) % 5 == 0

    def _held_out(self, word: str) -> bool:
        return _checksum(self.seed, word) % 12 == 0

    def pick(self, pool: Sequence[str], *but: str) -> str:
        """One word of the pool, none of ``but``, and in training none that validation keeps to itself."""
        while (word := self.dice.pick(pool)) in but or (self._held_out(word) and not self.validation):
            pass
        return word

    def combine(self, *pools: Sequence[str]) -> tuple[str, ...]:
        """One word from each pool, as a combination of this side; no word is kept from training."""
        while True:
            words = tuple(self.dice.pick(pool) for pool in pools)
            if self._kept(words) == self.validation:
                return words

    def draw(self, *pools: Sequence[str]) -> tuple[str, ...]:
        """One word from each pool, distinct, as a combination that this side owns."""
        while True:
            words = tuple(self.dice.pick(pool) for pool in pools)
            if len(set(words)) == len(words) and self.owns(*words):
                return words


Row = tuple[Text, float]
"""The text columns of one row, and its label."""
Maker = Callable[[SplitVocabulary, int], Row]
"""Renders one row of the split for the given class (the class is the label unless the label is a score)."""


def _checksum(seed: int, text: str) -> int:
    return zlib.crc32(f"{seed}:{text}".encode())


def normalized(text: str) -> str:
    """Lower case, without punctuation, with single blanks."""
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split())


def labels(dice: StableRandom, shares: Sequence[int], rows: int) -> list[int]:
    """Shuffled classes with the given shares, exact up to rounding."""
    total = sum(shares)
    bounds = [round(rows * sum(shares[: i + 1]) / total) for i in range(len(shares))]
    classes = [next(i for i, bound in enumerate(bounds) if row < bound) for row in range(rows)]
    dice.shuffle(classes)
    return classes


def rows(
    splits: Mapping[str, SplitVocabulary], sizes: Mapping[str, int], shares: Sequence[int], maker: Maker
) -> dict[str, list[Row]]:
    """Rows of every split; a text of another split and a pair already there are drawn again."""
    taken: dict[str, str] = {}
    pairs: set[Text] = set()
    return {
        name: [
            _fresh(split, name, label=label, maker=maker, taken=taken, pairs=pairs)
            for label in labels(split.dice, shares, sizes[name])
        ]
        for name, split in splits.items()
    }


def _fresh(
    split: SplitVocabulary, name: str, label: int, *, maker: Maker, taken: dict[str, str], pairs: set[Text]
) -> Row:
    while True:
        texts, value = maker(split, label)
        plain = tuple(normalized(text) for text in texts)
        pair = tuple(sorted(plain))
        if (
            pair in pairs
            or len(set(plain)) < len(plain)
            or any(taken.get(text, name) != name for text in plain)
        ):
            continue
        pairs.add(pair)
        taken.update(dict.fromkeys(plain, name))
        return texts, value
