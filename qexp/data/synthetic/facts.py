"""Base facts (who did what to what, where, when, how many) and the English sentences that state them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qexp.data.synthetic.splits import SplitVocabulary, StableRandom
from qexp.data.synthetic.vocabulary import NUMBERS, SOURCES, Action, Thing, VerbForms, Words, plural


@dataclass(frozen=True)
class Fact:
    """One event; ``target`` is a person (with "the") or a thing, empty strings are details left open."""

    agent: Words
    action: Action
    target: Words | Thing
    adjective: Words = ()
    number: str = ""
    place: str = ""
    time: str = ""
    negated: bool = False

    @property
    def on_person(self) -> bool:
        """Whether agent and target could change roles."""
        return not isinstance(self.target, Thing)

    @property
    def swapped(self) -> Fact:
        """Agent and target in each other's role."""
        assert not isinstance(self.target, Thing)
        return replace(self, agent=self.target, target=self.agent)


def head(target: Words | Thing) -> str:
    """The concept's name."""
    return target.names[0] if isinstance(target, Thing) else target[0]


def draw(
    split: SplitVocabulary, *, person: bool | None = None, counted: bool = False, opposite: bool = False
) -> Fact:
    """A fact that the split owns: (agent, target) decides, so its variants stay in the split.

    Args:
        split: side and genre to draw for.
        person: whether the target is a person; None leaves it open.
        counted: give the thing a number.
        opposite: only actions that have an opposite for this target.
    """
    dice, genre = split.dice, split.genre
    on_person = dice.chance(0.3) if person is None else person
    while True:
        agent = dice.pick(genre.people)
        target: Words | Thing = dice.pick(genre.people) if on_person else dice.pick(genre.things)
        if head(target) != agent[0] and split.owns(agent[0], head(target)):
            break
    kind = target.kind if isinstance(target, Thing) else "person"
    actions = genre.actions_on(kind)
    action = dice.pick([action for action in actions if not opposite or contrary(split, action, kind)])
    return Fact(
        agent=agent,
        action=action,
        target=target,
        adjective=dice.pick(genre.adjectives[kind]) if isinstance(target, Thing) else (),
        number=dice.pick(NUMBERS) if counted else "",
        place=dice.pick(genre.places),
        time=dice.pick(genre.times),
    )


def contrary(split: SplitVocabulary, action: Action, kind: str) -> Action | None:
    """The opposite action if it fits the kind."""
    return next((other for other in split.genre.actions_on(kind) if other.name == action.opposite), None)


def target_phrase(fact: Fact, dice: StableRandom) -> str:
    """``the red car``, ``twelve red cars`` or ``the doctor``."""
    if not isinstance(fact.target, Thing):
        return dice.pick(fact.target)
    noun = dice.pick(fact.target.names)
    adjective = dice.pick(fact.adjective) + " " if fact.adjective else ""
    return f"{fact.number} {adjective}{plural(noun)}" if fact.number else f"the {adjective}{noun}"


def _clear(form: VerbForms) -> VerbForms:
    return VerbForms(*(part.replace("_", " ") for part in (form.base, form.past, form.participle)))


def form(action: Action, dice: StableRandom) -> VerbForms:
    """One of the action's synonyms."""
    return _clear(dice.pick(action.forms))


def active(fact: Fact, dice: StableRandom) -> str:
    """Agent first."""
    verb, agent, target = form(fact.action, dice), dice.pick(fact.agent), target_phrase(fact, dice)
    if not fact.negated:
        return f"{agent} {verb.past} {target}"
    return dice.pick((f"{agent} did not {verb.base} {target}", f"{agent} never {verb.past} {target}"))


def passive(fact: Fact, dice: StableRandom, *, by: bool = True) -> str:
    """Target first."""
    verb, target = form(fact.action, dice), target_phrase(fact, dice)
    be = "were" if fact.number else "was"
    no = dice.pick((" not", " never")) if fact.negated else ""
    return f"{target} {be}{no} {verb.participle}" + (f" by {dice.pick(fact.agent)}" if by else "")


def cleft(fact: Fact, dice: StableRandom) -> str:
    """``It was the nurse who ...``; negated facts stay plain."""
    if fact.negated:
        return active(fact, dice)
    verb = form(fact.action, dice)
    return f"it was {dice.pick(fact.agent)} who {verb.past} {target_phrase(fact, dice)}"


def sentence(fact: Fact, dice: StableRandom, *, voice: str = "", source: bool = False) -> str:
    """The fact as one sentence; ``voice`` is active, passive, cleft or "" for any."""
    voice = voice or dice.pick(("active", "active", "passive", "passive", "cleft"))
    body = {"active": active, "passive": passive, "cleft": cleft}[voice](fact, dice)
    return finish(body, fact, dice, source=source)


def detail(synonyms: str, dice: StableRandom) -> str:
    """One way to say a place or a time ("" stays "")."""
    return dice.pick(synonyms.split("="))


def finish(body: str, fact: Fact, dice: StableRandom, *, source: bool = False) -> str:
    """A clause with the fact's place and time, capital letter and full stop."""
    place, time = detail(fact.place, dice), detail(fact.time, dice)
    front = dice.chance(0.35) and bool(time)
    tail = " ".join(part for part in (place, "" if front else time) if part)
    text = f"{body} {tail}".strip()
    text = f"{time}, {text}" if front else text
    if source:
        who = dice.pick(SOURCES)
        text = dice.pick((f"according to {who}, {text}", f"{who} said that {text}"))
    return capital(text) + "."


def capital(text: str) -> str:
    """First letter upper case, the rest as it is."""
    return text[0].upper() + text[1:]
