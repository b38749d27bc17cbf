"""Silver rows of a token classification: sentences of SQuAD v1.1, tagged by the questions about them.

An answer is a span of a paragraph, and its question says of what kind it is: "who" asks for a person or a
group, "where" and "which city" for a place, "when" and "in what year" for a date, "how many" and "how much"
for a number. Each text that answers such a question is tagged wherever the same article has it. So a tag
comes from what somebody asked, not from the look of the words, and the sentences are Wikipedia's.

The tags are silver: made by these rules, not by annotators. What nobody asked for is ``O``, and the kinds are
those of the questions. Sentences without any answer are left out.
"""

from __future__ import annotations

import calendar
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("NUM", re.compile(r"\bhow (many|much|old|long|tall|far|large|big|high)\b|\bwhat percent", re.I)),
    ("DATE", re.compile(r"\bwhen\b|\b(what|which) (year|month|date|day|decade|century)\b", re.I)),
    ("LOC", re.compile(r"^where\b|\b(what|which) (city|country|state|town|region|continent|island)\b", re.I)),
    ("PER", re.compile(r"^(who|whom|to whom|by whom|with whom)\b", re.I)),
)
"""Kind of an answer, by the first pattern that its question has."""
LOOKS: Mapping[str, re.Pattern[str]] = {
    "NUM": re.compile(r"\d|\b(two|three|four|five|six|seven|eight|nine|ten|half|hundred|thousand)\b", re.I),
    "DATE": re.compile(rf"\d{{2}}|{'|'.join(calendar.month_name[1:])}"),
    "LOC": re.compile(r"^(the )?[A-Z]"),
    "PER": re.compile(r"^(the )?[A-Z]"),
}  # fmt: skip
"""What an answer of each kind must have: "who" may also be answered by "a neighbour", which is no name."""
LONGEST = 6
"""Most words of an answer that is tagged; longer ones are clauses."""
WORD = re.compile(r"\w+(?:[-.,']\w+)*|[^\w\s]")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")
Words = tuple[str, ...]


def kind_of(question: str) -> str | None:
    """Return the kind of answer that a question asks for; None where no rule says one."""
    return next((kind for kind, pattern in RULES if pattern.search(question)), None)


def rows_of(file: Path, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield ``count`` rows with ``tokens`` and ``ner_tags`` (IOB2), drawn from all sentences with an answer.

    Args:
        file: SQuAD's rows, parquet with ``title``, ``context``, ``question`` and ``answers``.
        count: Number of rows; all if there are fewer.
        seed: Seed of the draw.
    """
    contexts: dict[str, dict[str, None]] = defaultdict(dict)
    answers: dict[str, dict[Words, str]] = defaultdict(dict)
    for row in pq.read_table(file).to_pylist():
        contexts[row["title"]][row["context"]] = None
        if kind := kind_of(row["question"]):
            for text in row["answers"]["text"]:
                words = tuple(WORD.findall(text))
                if LOOKS[kind].search(text) and 0 < len(words) <= LONGEST:
                    answers[row["title"]].setdefault(words, kind)
    sentences = [
        (tuple(WORD.findall(sentence)), answers[title])
        for title, texts in contexts.items()
        for context in texts
        for sentence in SENTENCE.split(context)
    ]
    tags = [tagged(*each) for each in sentences]
    found = [
        {"tokens": list(words), "ner_tags": row}
        for (words, _), row in zip(sentences, tags, strict=True)
        if any(tag != "O" for tag in row)
    ]
    drawn = np.random.default_rng(seed).permutation(len(found))[:count]
    yield from (found[place] for place in sorted(drawn.tolist()))


def tagged(words: Words, answers: Mapping[Words, str]) -> list[str]:
    """Return the tag of each word; of answers that overlap, the one that begins first, then the longest."""
    tags, place = ["O"] * len(words), 0
    while place < len(words):
        sizes = range(min(LONGEST, len(words) - place), 0, -1)
        size = next((each for each in sizes if words[place : place + each] in answers), 0)
        if size:
            kind = answers[words[place : place + size]]
            tags[place : place + size] = [f"B-{kind}", *[f"I-{kind}"] * (size - 1)]
        place += max(1, size)
    return tags
