"""Questions on paragraphs (SQuAD): each is answered by one sentence of its paragraph, or by none.

An unanswerable question differs in one word from one that a sentence answers, or asks for what its sentence
leaves open. Whether a question has an answer is found by comparing what it says with every statement of the
paragraph, so that never two sentences answer it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import NamedTuple

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import from_numpy, from_texts
from qexp.data.synthetic.facts import Fact, capital, contrary, form, target_phrase
from qexp.data.synthetic.paraphrase import changed
from qexp.data.synthetic.passages import Passage, Statement, Trait, owned, passages, roles, settled
from qexp.data.synthetic.splits import SplitVocabulary, StableRandom, labels
from qexp.data.synthetic.towns import RELATIONS
from qexp.data.synthetic.vocabulary import Thing, Words

_EVENTS: dict[str, Words] = {
    "agent": (
        "who {past} {target}",
        "who {past} {target} {place}",
        "who {past} {target} {time}",
        "by whom {was} {target} {participle}",
        "which person {past} {target}",
    ),
    "place": (
        "where did {agent} {base} {target}",
        "where did {agent} {base} {target} {time}",
        "where {was} {target} {participle}",
        "where {was} {target} {participle} by {agent}",
    ),
    "time": (
        "when did {agent} {base} {target}",
        "when did {agent} {base} {target} {place}",
        "when {was} {target} {participle}",
        "when {was} {target} {participle} by {agent}",
    ),
    "thing": (
        "what did {agent} {base}",
        "what did {agent} {base} {place}",
        "what did {agent} {base} {time}",
        "which thing did {agent} {base}",
    ),
    "person": (
        "whom did {agent} {base}",
        "whom did {agent} {base} {place}",
        "whom did {agent} {base} {time}",
        "which person did {agent} {base}",
    ),
    "number": (
        "how many {counted} did {agent} {base}",
        "how many {counted} were {participle} by {agent}",
        "how many {counted} were {participle} {place}",
    ),
}
_ROLES = {"thing": "target", "person": "target"}
_CUES = {"base": "action", "past": "action", "participle": "action", "counted": "target"}
_TWISTS = ("agent", "target", "action", "place", "time", "role", "")
_SHORTER = re.compile(r"(?i:at|in|on|near|behind|by|outside|inside) (?=the |[A-Z0-9])|(?i:the) ")


class _Question(NamedTuple):
    """The text, the role that it asks for, and what it says of the others."""

    text: str
    role: str
    cues: Mapping[str, str]


class _Row(NamedTuple):
    id: str
    title: str
    context: str
    question: str
    texts: Sequence[str]
    starts: Sequence[int]


@dataclass(frozen=True)
class AnswerSet:
    """Sizes of the splits, and the shares of questions with and without an answer."""

    shares: tuple[int, int]
    sizes: Mapping[str, int]

    def tables(self, splits: Mapping[str, SplitVocabulary]) -> dict[str, pa.Table]:
        """Rows of every split; no question is asked twice."""
        taken: set[str] = set()
        return {
            name: _table(_rows(name, split, labels(split.dice, self.shares, self.sizes[name]), taken))
            for name, split in splits.items()
        }


def _rows(name: str, split: SplitVocabulary, classes: Sequence[int], taken: set[str]) -> list[_Row]:
    """One row for each class, 3 to 5 for a passage; class 1 has no answer."""
    rows: list[_Row] = []
    for number, passage in enumerate(passages(split)):
        for turn, label in enumerate(classes[len(rows) :][: 3 + number % 3]):
            question, texts, starts = _asked(passage, split, label == 0, taken)
            rows.append(
                _Row(
                    f"{name}-{number:04}-{turn}",
                    passage.towns[0],
                    context=passage.context,
                    question=question,
                    texts=texts,
                    starts=starts,
                )
            )
        if len(rows) == len(classes):
            break
    return rows


def _asked(
    passage: Passage, split: SplitVocabulary, answered: bool, taken: set[str]
) -> tuple[str, list[str], list[int]]:
    """A new question on the passage, its answers and where they begin."""
    dice = split.dice
    while True:
        told = dice.pick(passage.statements)
        meant = told.meant if answered else _twisted(told.meant, passage, split)
        asked = _on_town(meant, dice) if isinstance(meant, Trait) else _on_event(meant, dice)
        fitting = [other for other in passage.statements if _fits(other, asked.cues)]
        open_ = [not roles(other.meant)[asked.role] for other in fitting]
        new = asked.text not in taken and all(asked.cues.values())
        if new and (open_ == [False] if answered else all(open_)):
            taken.add(asked.text)
            return asked.text, *(_golds(told, asked.role, passage, split) if answered else ([], []))


def _fits(told: Statement, cues: Mapping[str, str]) -> bool:
    """Whether the statement is, or may be, on what the question is about."""
    has = roles(told.meant)
    return all(has.get(role) in ("", value) for role, value in cues.items())


def _twisted(meant: Fact | Trait, passage: Passage, split: SplitVocabulary) -> Fact | Trait:
    """What the passage might tell, but with luck does not: one role is taken from elsewhere in it."""
    dice = split.dice
    if isinstance(meant, Trait):
        return replace(meant, town=dice.pick(passage.towns))
    other = dice.pick([told.meant for told in passage.statements if isinstance(told.meant, Fact)])
    twist = dice.pick(_TWISTS)
    twisted = meant
    if twist == "agent":
        twisted = replace(meant, agent=other.agent)
    elif twist == "target" and _kind(other) == _kind(meant):
        twisted = replace(meant, target=other.target, adjective=other.adjective, number=other.number)
    elif twist == "action":
        action = contrary(split, meant.action, _kind(meant))
        twisted = replace(meant, action=action) if action else changed(meant, twist, split)
    elif twist == "place":
        twisted = replace(meant, place=other.place)
    elif twist == "time":
        twisted = replace(meant, time=other.time)
    elif twist == "role" and meant.on_person:
        twisted = meant.swapped
    return twisted if owned(twisted, split) else meant


def _kind(fact: Fact) -> str:
    return fact.target.kind if isinstance(fact.target, Thing) else "person"


def _on_town(trait: Trait, dice: StableRandom) -> _Question:
    text = dice.pick(RELATIONS[trait.relation].asked).format(t=trait.town)
    return _Question(capital(text) + "?", "value", {"town": trait.town, "relation": trait.relation})


def _on_event(fact: Fact, dice: StableRandom) -> _Question:
    kind = "person" if fact.on_person else "thing"
    asked = dice.pick(("agent", "place", "time", kind, *(("number", "number") if fact.number else ())))
    template = dice.pick(_EVENTS[asked])
    said = settled(fact, dice)
    verb, target = form(said.action, dice), target_phrase(said, dice)
    text = template.format(
        agent=said.agent[0],
        base=verb.base,
        past=verb.past,
        participle=verb.participle,
        was="were" if said.number else "was",
        target=target,
        counted=target.removeprefix(said.number + " "),
        place=said.place,
        time=said.time,
    )
    has = roles(fact)
    fields = [_CUES.get(field, field) for _, field, _, _ in Formatter().parse(template) if field]
    cues = {field: has[field] for field in fields if field != "was"}
    return _Question(capital(text) + "?", _ROLES.get(asked, asked), cues)


def _golds(
    told: Statement, role: str, passage: Passage, split: SplitVocabulary
) -> tuple[list[str], list[int]]:
    """The answer; in validation up to two more, repeated or without its preposition or article."""
    words, length = _words(told.said, role, split.dice)
    found = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", told.sentence, re.IGNORECASE)
    assert found is not None
    ways = [found[0][:length]]
    while shorter := _SHORTER.match(ways[-1]):
        ways.append(ways[-1][shorter.end() :])
    texts = ways[:1]
    if split.validation:
        texts += [split.dice.pick(ways) for _ in range(int(split.dice.random() * 3))]
    end = passage.context.index(told.sentence) + found.start() + length
    return texts, [end - len(text) for text in texts]


def _words(said: Fact | Trait, role: str, dice: StableRandom) -> tuple[str, int]:
    """Words of the sentence that begin with the answer, and its length: "two" may stand in a time as well."""
    if isinstance(said, Trait):
        return said.value, len(said.value)
    words = target_phrase(said, dice) if role in ("target", "number") else roles(said)[role]
    return words, len(said.number if role == "number" else words)


def _table(rows: Sequence[_Row]) -> pa.Table:
    """Columns as on the hub; built without ``pa.array``, which imports pandas."""
    texts = from_texts([text for row in rows for text in row.texts]).chunk(0)
    starts = from_numpy(np.array([start for row in rows for start in row.starts], np.int32)).chunk(0)
    ends = from_numpy(np.cumsum([0, *(len(row.texts) for row in rows)], dtype=np.int32)).chunk(0)
    lists = [pa.ListArray.from_arrays(ends, values) for values in (texts, starts)]
    names = ("id", "title", "context", "question")
    columns = {name: from_texts([getattr(row, name) for row in rows]) for name in names}
    return pa.table({**columns, "answers": pa.StructArray.from_arrays(lists, ["text", "answer_start"])})
