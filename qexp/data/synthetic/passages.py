"""Paragraphs about a town: events and traits of the town and of its neighbour, several about each town."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from qexp.data.synthetic.facts import Fact, capital, detail, draw, head, sentence
from qexp.data.synthetic.paraphrase import changed
from qexp.data.synthetic.splits import SplitVocabulary, StableRandom
from qexp.data.synthetic.towns import ASIDES, RELATIONS, town
from qexp.data.synthetic.vocabulary import TOWN, Thing

_LOCAL = replace(TOWN, places=tuple(place for place in TOWN.places if place.islower()))
_WORDS = (40, 95)
_MANY_WORDS = (205, 280)
_OPENING = ("aside", "trait", "event", "event")
_KINDS = ("event", "event", "event", "trait", "trait", "aside")
_PER_TOWN = 4


@dataclass(frozen=True)
class Trait:
    """The value of a relation (a key of ``RELATIONS``) for a town."""

    town: str
    relation: str
    value: str


@dataclass(frozen=True)
class Statement:
    """A sentence, what it means, and the same in the very words of the sentence, without synonyms."""

    meant: Fact | Trait
    said: Fact | Trait
    sentence: str


@dataclass(frozen=True)
class Passage:
    """A paragraph about the first of two towns; its statements are some of its sentences."""

    towns: tuple[str, str]
    context: str
    statements: tuple[Statement, ...]


def roles(meant: Fact | Trait) -> dict[str, str]:
    """Concepts by role; an empty one is left open."""
    if isinstance(meant, Trait):
        return {"town": meant.town, "relation": meant.relation, "value": meant.value}
    return {
        "agent": meant.agent[0],
        "action": meant.action.name,
        "target": head(meant.target),
        "number": meant.number,
        "place": meant.place,
        "time": meant.time,
    }


def settled(fact: Fact, dice: StableRandom) -> Fact:
    """The fact with one synonym left for each concept."""
    target = fact.target
    one = dice.pick(target.names if isinstance(target, Thing) else target)
    return replace(
        fact,
        agent=(dice.pick(fact.agent),),
        action=replace(fact.action, forms=(dice.pick(fact.action.forms),)),
        target=replace(target, names=(one,)) if isinstance(target, Thing) else (one,),
        adjective=(dice.pick(fact.adjective),) if fact.adjective else (),
        place=detail(fact.place, dice),
        time=detail(fact.time, dice),
    )


def passages(split: SplitVocabulary) -> Iterator[Passage]:
    """Paragraphs without end, four about each town, of 40 to 120 words; one in eight has more than 200."""
    split = replace(split, genre=_LOCAL)
    known: set[str] = set()
    towns, traits = ("", ""), [Trait("", "", "")]
    for number in count():
        if number % _PER_TOWN == 0:
            towns = (_new_town(split, known), _new_town(split, known))
            traits = [
                Trait(name, key, relation.value(split))
                for name in towns
                for key, relation in RELATIONS.items()
            ]
        least, most = _MANY_WORDS if number % 8 == 3 else _WORDS
        words = least + int(split.dice.random() * (most - least))
        yield _passage(split, towns, traits, words)


def _new_town(split: SplitVocabulary, known: set[str]) -> str:
    while (name := town(split)) in known:
        pass
    known.add(name)
    return name


def _passage(split: SplitVocabulary, towns: tuple[str, str], profile: Sequence[Trait], words: int) -> Passage:
    """Sentences, in any order, until there are as many words; a trait or an aside at most once."""
    dice = split.dice
    traits, asides = list(profile), [text.format(t=towns[0], u=towns[1]) for text in ASIDES]
    dice.shuffle(traits)
    dice.shuffle(asides)
    statements: list[Statement] = []
    sentences: list[str] = []
    while len(sentences) < len(_OPENING) or len(" ".join(sentences).split()) < words:
        kind = _OPENING[len(sentences)] if len(sentences) < len(_OPENING) else dice.pick(_KINDS)
        if kind == "aside" and asides:
            sentences.append(asides.pop())
            continue
        told = _trait(traits.pop(), dice) if kind == "trait" and traits else _event(split, statements)
        statements.append(told)
        sentences.append(told.sentence)
    dice.shuffle(sentences)
    return Passage(towns, " ".join(sentences), tuple(statements))


def _trait(trait: Trait, dice: StableRandom) -> Statement:
    text = dice.pick(RELATIONS[trait.relation].told).format(t=trait.town, v=trait.value)
    return Statement(trait, trait, capital(text) + ".")


def _event(split: SplitVocabulary, statements: Sequence[Statement]) -> Statement:
    """An event that often shares something with an earlier one, but not agent, action and target alike."""
    dice = split.dice
    earlier = [told.meant for told in statements if isinstance(told.meant, Fact)]
    while True:
        fact = draw(split, counted=dice.chance(0.25))
        fact = replace(fact, number="" if fact.on_person else fact.number)
        if earlier and dice.chance(0.6):
            fact = _related(fact, dice.pick(earlier), split)
        if owned(fact, split) and all(_core(fact) != _core(other) for other in earlier):
            break
    kept = dice.random()
    fact = replace(fact, place="" if kept < 0.15 else fact.place, time="" if kept > 0.85 else fact.time)
    said = settled(fact, dice)
    return Statement(fact, said, sentence(said, dice, source=dice.chance(0.15)))


def _related(fact: Fact, earlier: Fact, split: SplitVocabulary) -> Fact:
    """Another event with the agent of the earlier one, or with other words of it."""
    changes = ["own", "agent", "action", *(["role"] if earlier.on_person else [])]
    change = split.dice.pick(changes)
    if change == "own":
        return replace(fact, agent=earlier.agent)
    return replace(changed(earlier, change, split), place=fact.place, time=fact.time)


def owned(fact: Fact, split: SplitVocabulary) -> bool:
    """Whether the split may tell or ask about this agent and target."""
    return fact.agent[0] != head(fact.target) and split.owns(fact.agent[0], head(fact.target))


def _core(fact: Fact) -> tuple[str, str, str]:
    return fact.agent[0], fact.action.name, head(fact.target)
