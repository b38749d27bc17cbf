"""Pairs of statements: the same event in other words (MRPC), and how much of an event is shared (STS-B)."""

from __future__ import annotations

from dataclasses import replace

from qexp.data.synthetic.facts import Fact, contrary, draw, head, sentence
from qexp.data.synthetic.splits import SplitVocabulary, StableRandom, Text
from qexp.data.synthetic.vocabulary import NUMBERS, Thing

_KINDS = ("role", "number", "opposite", "polarity", "action", "agent", "adjective", "", "", "")
_FURTHER = ("agent", "action", "place", "time")


def changed(fact: Fact, change: str, split: SplitVocabulary) -> Fact:
    """The fact with one meaning changed; what it draws comes from the same distribution as the original."""
    dice, genre = split.dice, split.genre
    kind = fact.target.kind if isinstance(fact.target, Thing) else "person"
    if change == "role":
        return fact.swapped
    if change == "polarity":
        return replace(fact, negated=not fact.negated)
    if change == "number":
        return replace(fact, number=dice.other(NUMBERS, fact.number))
    if change == "place":
        return replace(fact, place=dice.other(genre.places, fact.place))
    if change == "time":
        return replace(fact, time=dice.other(genre.times, fact.time))
    if change == "adjective":
        return replace(fact, adjective=dice.other(genre.adjectives[kind], fact.adjective))
    if change == "opposite":
        opposite = contrary(split, fact.action, kind)
        assert opposite is not None
        return replace(fact, action=opposite)
    if change == "action":
        return replace(fact, action=dice.other(genre.actions_on(kind), fact.action))
    while True:
        agent = dice.other(genre.people, fact.agent)
        if agent[0] != head(fact.target) and split.owns(agent[0], head(fact.target)):
            return replace(fact, agent=agent)


def _base(split: SplitVocabulary, change: str) -> Fact:
    """A fact that the change can be applied to, negated half of the time if the change is to polarity."""
    thing = change in ("number", "adjective")
    fact = draw(
        split,
        person=True if change == "role" else False if thing else None,
        counted=change == "number" or (not thing and split.dice.chance(0.2)),
        opposite=change == "opposite",
    )
    negated = split.dice.chance(0.5) if change == "polarity" else split.dice.chance(0.1)
    return replace(fact, negated=negated, number="" if fact.on_person else fact.number)


def mrpc(split: SplitVocabulary, label: int) -> Text:
    """Label 1: other voice, synonyms, order; label 0: the same, and one to three meanings changed."""
    dice = split.dice
    kind = dice.pick(_KINDS)
    first = _base(split, kind)
    if label:
        return _two(first, first, dice)
    changes = [kind] if kind else []
    further = list(_FURTHER)
    dice.shuffle(further)
    count = 1 if kind and dice.chance(0.3) else dice.pick((2, 3))
    changes += [change for change in further if change not in changes][: count - len(changes)]
    second = first
    for change in changes:
        second = changed(second, change, split)
    return _two(first, second, dice)


def _two(first: Fact, second: Fact, dice: StableRandom) -> Text:
    texts = [sentence(fact, dice, source=dice.chance(0.25)) for fact in (first, second)]
    dice.shuffle(texts)
    return tuple(texts)


_COST = {
    "place": 0.5,
    "time": 0.5,
    "adjective": 0.5,
    "number": 0.8,
    "role": 1.0,
    "agent": 1.2,
    "opposite": 1.6,
    "polarity": 1.8,
    "action": 1.4,
}


def stsb(split: SplitVocabulary, level: int) -> tuple[Text, float]:
    """Two sentences and a score, 0 to 5: 5 minus the cost of what differs, with the spread of annotators.

    ``level`` 0 are two unrelated events, 1 to 4 one event with up to three meanings changed.
    """
    dice = split.dice
    if level == 0:
        first, second = _base(split, ""), _base(split, "")
        score = 0.2 + 0.6 * sum(
            a == b for a, b in ((first.action, second.action), (first.place, second.place))
        )
        return _two(first, second, dice), _score(score, dice)
    first = _base(split, dice.pick(("role", "number", "opposite", "polarity", "")))
    second, score = first, 5.0
    for change in some_changes(first, split, level - 1):
        second = changed(second, change, split)
        score -= _COST[change]
    return _two(first, second, dice), _score(score, dice)


def some_changes(fact: Fact, split: SplitVocabulary, count: int) -> list[str]:
    """Up to ``count`` changes that fit the fact, at most one of them to the action."""
    kind = fact.target.kind if isinstance(fact.target, Thing) else "person"
    actions = ["opposite", "polarity"] if contrary(split, fact.action, kind) else ["action", "polarity"]
    fitting = ["place", "time", split.dice.pick(actions)]
    fitting += ["role"] if fact.on_person else ["agent", "adjective"]
    fitting += ["number"] if fact.number else []
    split.dice.shuffle(fitting)
    return fitting[:count]


def _score(score: float, dice: StableRandom) -> float:
    spread = dice.random() + dice.random() - 1
    return round(min(5.0, max(0.0, score + 0.5 * spread)) * 5) / 5
