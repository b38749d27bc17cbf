"""What follows from a premise (MNLI, RTE): the hypothesis is drawn first, so that alone it tells nothing."""

from __future__ import annotations

from dataclasses import replace

from qexp.data.synthetic.facts import (
    Fact,
    capital,
    contrary,
    detail,
    draw,
    finish,
    form,
    head,
    sentence,
    target_phrase,
)
from qexp.data.synthetic.paraphrase import changed
from qexp.data.synthetic.splits import SplitVocabulary, StableRandom, Text
from qexp.data.synthetic.vocabulary import NUMBERS, VALUES, Thing

_KINDS = ("place", "time", "intention", "intention", "number", "role", "quantifier", "opposite")
_INTENDED = ("planned to", "wanted to", "hoped to", "promised to", "was asked to", "offered to")
_DONE = ("managed to", "was quick to", "went on to")
_NOT_DONE = ("refused to", "was unable to", "failed to", "forgot to")


def mnli(split: SplitVocabulary, label: int) -> Text:
    """Premise and hypothesis; label 0 entailment, 1 neutral, 2 contradiction."""
    kind = split.dice.pick(_KINDS)
    return _PREMISES[kind](split, label)


def _short(fact: Fact, dice: StableRandom, keep: str = "") -> str:
    """The fact with at most one detail."""
    fact = replace(
        fact, place=fact.place if keep == "place" else "", time=fact.time if keep == "time" else ""
    )
    return sentence(fact, dice, voice=dice.pick(("active", "passive")))


def _place(split: SplitVocabulary, label: int) -> Text:
    return _detail(split, label, "place")


def _time(split: SplitVocabulary, label: int) -> Text:
    return _detail(split, label, "time")


def _detail(split: SplitVocabulary, label: int, asked: str) -> Text:
    """The premise has the same detail, none, or another one."""
    fact, dice = draw(split), split.dice
    without = replace(fact, place="") if asked == "place" else replace(fact, time="")
    premise = (fact, without, changed(fact, asked, split))[label]
    return sentence(premise, dice, source=dice.chance(0.6 if label == 1 else 0.4)), _short(fact, dice, asked)


def _intention(split: SplitVocabulary, label: int) -> Text:
    """The premise says that it was done, meant, or not done; the hypothesis affirms or denies."""
    fact, dice = draw(split), split.dice
    denies = dice.chance(0.5)
    hypothesis = _short(replace(fact, negated=denies), dice, dice.pick(("", "place")))
    verbs = _INTENDED if label == 1 else _DONE if (label == 0) != denies else _NOT_DONE
    verb = form(fact.action, dice)
    body = f"{dice.pick(fact.agent)} {dice.pick(verbs)} {verb.base} {target_phrase(fact, dice)}"
    return finish(body, fact, dice), hypothesis


def _number(split: SplitVocabulary, label: int) -> Text:
    """``more than seven`` and ``fewer than seven`` against twelve, four, or a vague number."""
    fact, dice = draw(split, person=False, counted=True), split.dice
    bound = int(dice.random() * (len(VALUES) - 6)) + 3
    more = dice.chance(0.5)
    true = range(bound + 1, len(VALUES)) if more else range(bound)
    false = range(bound + 1) if more else range(bound, len(VALUES))
    vague = dice.pick(("several", "a number of", "some"))
    number = vague if label == 1 else NUMBERS[dice.pick(true if label == 0 else false)]
    claim = f"{'more' if more else 'fewer'} than {NUMBERS[bound]}"
    return sentence(replace(fact, number=number), dice), _short(replace(fact, number=claim), dice)


def _role(split: SplitVocabulary, label: int) -> Text:
    """The same roles in other words, roles exchanged (which leaves it open), or the contrary said."""
    fact, dice = draw(split, person=True), split.dice
    hypothesis = replace(fact, negated=dice.chance(0.4))
    premise = hypothesis if label == 0 else replace(fact, negated=not hypothesis.negated)
    if label == 1:
        premise = replace(fact.swapped, negated=dice.chance(0.5))
    return sentence(premise, dice), _short(hypothesis, dice)


def _quantifier(split: SplitVocabulary, label: int) -> Text:
    """``all``, ``none`` and ``at least one`` of a crowd against what the premise knows about the crowd."""
    fact, dice = draw(split), split.dice
    crowd = dice.pick(
        ("visitors", "workers", "students", "tourists", "villagers", "guests", "children", "engineers")
    )
    claims = {
        "all of the": ("every one of the", "at least a few of the", "only half of the"),
        "none of the": ("not a single one of the", "perhaps a few of the", "most of the"),
        "at least one of the": ("many of the", "perhaps one or two of the", "not one of the"),
    }
    claim = dice.pick(list(claims))
    verb = form(fact.action, dice)
    end = f"{crowd} {verb.past} {target_phrase(fact, dice)}"
    near = f"together with {dice.pick(fact.agent)}"
    premise = f"{near}, {claims[claim][label]} {end}"
    return finish(premise, replace(fact, time=""), dice), capital(f"{claim} {end}") + "."


def _opposite(split: SplitVocabulary, label: int) -> Text:
    """The same action, an unrelated one, or the opposite one."""
    fact, dice = draw(split, opposite=True), split.dice
    kind = fact.target.kind if isinstance(fact.target, Thing) else "person"
    reverse = contrary(split, fact.action, kind)
    assert reverse is not None
    others = [action for action in split.genre.actions_on(kind) if action not in (fact.action, reverse)]
    action = fact.action if label == 0 else dice.pick(others) if label == 1 else reverse
    keep = dice.pick(("place", "time"))
    return sentence(replace(fact, action=action), dice), _short(fact, dice, keep)


_PREMISES = {
    "place": _place,
    "time": _time,
    "intention": _intention,
    "number": _number,
    "role": _role,
    "quantifier": _quantifier,
    "opposite": _opposite,
}


def rte(split: SplitVocabulary, label: int) -> Text:
    """Label 0: sentence2 follows from sentence1; label 1: it does not."""
    kind = split.dice.random()
    if kind < 0.55:
        return _two_events(split, label) if kind < 0.25 else _other_event(split, label)
    three = 0 if label == 0 else split.dice.pick((1, 2))
    return mnli(split, three)


def _two_events(split: SplitVocabulary, label: int) -> Text:
    """Two events in one sentence; the hypothesis takes one of them, or mixes both."""
    dice = split.dice
    while True:
        one, two = draw(split), draw(split)
        mixed = split.owns(one.agent[0], head(two.target)) and split.owns(two.agent[0], head(one.target))
        names = {one.agent[0], two.agent[0], head(one.target), head(two.target)}
        if mixed and len(names) == 4 and one.on_person == two.on_person:
            break
    link = dice.pick((", while {0}", ", and {0}", " before {0}", ", but {0}"))
    premise = _clause(one, dice) + link.format(_clause(replace(two, time=""), dice))
    first = dice.chance(0.5)
    taken, other = (one, two) if first else (two, one)
    hypothesis = taken if label == 0 else replace(taken, agent=other.agent)
    return capital(premise) + ".", _short(hypothesis, dice)


def _other_event(split: SplitVocabulary, label: int) -> Text:
    """The premise tells of the same event, or of one with another action and another agent, place or time."""
    fact, dice = draw(split), split.dice
    premise = (
        fact
        if label == 0
        else changed(changed(fact, dice.pick(("agent", "place", "time")), split), "action", split)
    )
    return sentence(premise, dice, source=dice.chance(0.3)), _short(fact, dice, dice.pick(("place", "time")))


def _clause(fact: Fact, dice: StableRandom) -> str:
    verb = form(fact.action, dice)
    return f"{dice.pick(fact.agent)} {verb.past} {target_phrase(fact, dice)} {detail(fact.place, dice)}"
