"""Acceptable and unacceptable sentences (CoLA): every construction comes with the ways to break it."""

from __future__ import annotations

from collections.abc import Callable

from qexp.data.synthetic.facts import capital
from qexp.data.synthetic.splits import SplitVocabulary, StableRandom, Text
from qexp.data.synthetic.vocabulary import article, listed, plural

_NOUNS = listed(
    "teacher,farmer,lawyer,nurse,painter,student,singer,pilot,baker,judge,doctor,neighbor,driver,"
    "waiter,banker,soldier,guest,"
    "dentist,mechanic,gardener,poet,tailor,director,sailor,clerk,hunter"
)
_THINGS = listed(
    "letter,picture,bottle,ticket,book,basket,hammer,lamp,coat,parcel,mirror,apple,report,key,"
    "flower,bicycle,carpet,cup,map,"
    "violin,hat,stone,chair,egg,orange,umbrella"
)
_SEEN = (
    "seen saw see",
    "found found find",
    "taken took take",
    "hidden hid hide",
    "bought bought buy",
    "lost lost lose",
    "broken broke break",
    "sold sold sell",
)
_PLACES = (
    "in the garden",
    "near the river",
    "at the station",
    "behind the house",
    "in the kitchen",
    "after the meeting",
    "before dinner",
    "on Sunday",
)
_SLEEP = ("slept", "arrived", "laughed", "vanished", "fainted", "smiled", "sneezed", "yawned")
_DEVOUR = ("cleaned", "locked", "destroyed", "polished", "examined", "repaired", "described", "purchased")
_ADJECTIVES = ("old", "red", "heavy", "small", "expensive", "wooden", "broken", "strange", "empty", "useful")
_NAMES = (
    "Mary/herself/himself",
    "John/himself/herself",
    "Susan/herself/themselves",
    "Peter/himself/themselves",
    "Linda/herself/itself",
    "Robert/himself/itself",
)
_LIKED = ("hurt", "blamed", "saw", "admired", "described", "introduced", "praised", "defended")
_SAID = ("said", "claimed", "thought", "believed", "knew", "hoped")

Words = tuple[str, str, str]
"""A person noun, a thing and a place phrase."""


def cola(split: SplitVocabulary, label: int) -> Text:
    """One sentence; label 1 acceptable, 0 not."""
    noun, thing, place = split.draw(_NOUNS, _THINGS, _PLACES)
    text = split.dice.pick(_CONSTRUCTIONS)((noun, thing, place), bool(label), split.dice)
    return (capital(text) + ("?" if text.startswith(_QUESTIONS) else "."),)


_QUESTIONS = ("what ", "who ", "which ", "where ", "did ", "has ")


def _agreement(words: Words, good: bool, dice: StableRandom) -> str:
    """The verb agrees with the head noun, not with the nearer one."""
    noun, thing, place = words
    many, other = dice.chance(0.5), dice.chance(0.5)
    subject = plural(noun) if many else noun
    near = plural(thing) if other else thing
    verb = dice.pick(("are/is", "were/was", "have been/has been")).split("/")[many != good]
    return f"the {subject} with the {near} {verb} {dice.pick(('waiting', 'standing', 'sitting'))} {place}"


def _auxiliary(words: Words, good: bool, dice: StableRandom) -> str:
    """The form of the verb after its auxiliary."""
    noun, thing, place = words
    participle, _, base = dice.pick(
        ("seen saw see", "taken took take", "hidden hid hide", "broken broke break", "stolen stole steal")
    ).split()
    perfect = dice.chance(0.5)
    auxiliary = dice.pick(("has", "had") if perfect else ("will", "could", "should", "did not"))
    verb = participle if perfect == good else base
    return f"the {noun} {auxiliary} {verb} the {dice.pick(_ADJECTIVES)} {thing} {place}"


def _order(words: Words, good: bool, dice: StableRandom) -> str:
    """Adjectives before the noun, adverbs not between verb and object."""
    noun, thing, place = words
    _, past, _ = dice.pick(_SEEN).split()
    adjective, adverb = (
        dice.pick(_ADJECTIVES),
        dice.pick(("quickly", "secretly", "often", "finally", "carefully")),
    )
    if good:
        return f"the {noun} {adverb} {past} the {adjective} {thing} {place}"
    return dice.pick(
        (
            f"the {noun} {adverb} {past} the {thing} {adjective} {place}",
            f"the {noun} {past} {adverb} the {adjective} {thing} {place}",
            f"{noun} the {adverb} {past} the {adjective} {thing} {place}",
            f"the {noun} {adverb} the {adjective} {thing} {past} {place}",
        )
    )


def _argument(words: Words, good: bool, dice: StableRandom) -> str:
    """Verbs without an object, and verbs that need one."""
    noun, thing, place = words
    adjective = dice.pick(_ADJECTIVES)
    if dice.chance(0.5):
        verb = dice.pick(_DEVOUR if good else _SLEEP)
        return f"the {noun} {verb} the {adjective} {thing} {place}"
    verb = dice.pick(_SLEEP if good else _DEVOUR)
    age = adjective if adjective in ("old", "small", "strange") else "young"
    return f"the {age} {noun} {verb} {place} with the {thing}"


def _placement(words: Words, good: bool, dice: StableRandom) -> str:
    """``give`` takes a receiver as an object of its own, ``donate`` only with ``to``."""
    noun, thing, _ = words
    other = dice.other(_NOUNS, noun)
    verb = dice.pick(
        ("gave", "sent", "showed", "offered") if good else ("donated", "explained", "returned", "described")
    )
    gift = f"{article(dice.pick(_ADJECTIVES))} {thing}"
    return f"the {noun} {verb} the {other} {gift} {dice.pick(('yesterday', 'last week', 'this morning'))}"


def _reflexive(words: Words, good: bool, dice: StableRandom) -> str:
    """A reflexive agrees with the subject of its own clause."""
    noun, _, place = words
    name, right, wrong = dice.pick(_NAMES).split("/")
    verb = dice.pick(_LIKED)
    if dice.chance(0.5):
        return f"{name} {verb} {right if good else wrong} in front of the {noun} {place}"
    local = f"{name} {dice.pick(_SAID)} that the {plural(noun)} {verb}"
    return f"{local} {'themselves' if good else right} {place}"


def _determiner(words: Words, good: bool, dice: StableRandom) -> str:
    """Number of the noun after its determiner."""
    noun, thing, place = words
    one = ("a single", "every", "another", "this", "each")
    more = ("two", "several", "these", "many", "a few")
    single = dice.chance(0.5)
    item = thing if single == good else plural(thing)
    _, past, _ = dice.pick(_SEEN).split()
    return f"the {noun} {past} {dice.pick(one if single else more)} {item} {place}"


def _question(words: Words, good: bool, dice: StableRandom) -> str:
    """A fronted question word leaves a gap and calls for inversion."""
    noun, thing, place = words
    _, past, base = dice.pick(_SEEN).split()
    if good:
        return dice.pick(
            (
                f"what did the {noun} {base} {place}",
                f"which {thing} did the {noun} {base} {place}",
                f"who {past} the {thing} {place}",
            )
        )
    return dice.pick(
        (
            f"what the {noun} {past} {place}",
            f"which {thing} did the {noun} {base} it {place}",
            f"what did the {noun} {past} {place}",
            f"who did {past} the {thing} {place}",
            f"which did the {noun} {base} {thing} {place}",
        )
    )


def _island(words: Words, good: bool, dice: StableRandom) -> str:
    """A question may reach into a complement clause, not into a relative clause or a coordination."""
    noun, thing, place = words
    _, past, _ = dice.pick(_SEEN).split()
    other, said = dice.other(_NOUNS, noun), dice.pick(("say", "think", "believe", "claim"))
    if good:
        return dice.pick(
            (
                f"what did the {noun} {said} that the {other} {past} {place}",
                f"who did the {noun} {said} {past} the {thing} {place}",
            )
        )
    return dice.pick(
        (
            f"what did the {noun} meet the {other} who {past} {place}",
            f"who did the {noun} {said} that {past} the {thing} {place}",
            f"what did the {noun} {said} that the {other} {past} the {thing} and {place}",
        )
    )


def _polarity(words: Words, good: bool, dice: StableRandom) -> str:
    """``any`` and ``ever`` need a negation that commands them."""
    noun, thing, place = words
    participle, past, base = dice.pick(_SEEN).split()
    if dice.chance(0.5):
        return f"{'no' if good else 'some'} {noun} has ever {participle} any {plural(thing)} {place}"
    if good:
        return f"the {noun} who knows us did not {base} any {plural(thing)} {place}"
    return f"the {noun} who does not know us {past} any {plural(thing)} {place}"


def _comparative(words: Words, good: bool, dice: StableRandom) -> str:
    """One comparative marker, ``than`` after a comparative and ``as`` after ``as``."""
    noun, thing, place = words
    short, long = (
        dice.pick(("cheaper", "larger", "older", "heavier")),
        dice.pick(("expensive", "useful", "beautiful", "important")),
    )
    degree = dice.pick(
        (f"{short} than", f"more {long} than", f"as {long} as")
        if good
        else (f"more {short} than", f"{long} than", f"as {short} than", f"more {long} as")
    )
    return f"the {thing} of the {noun} was {degree} the one that we found {place}"


def _case(words: Words, good: bool, dice: StableRandom) -> str:
    """Subject and object form of pronouns."""
    noun, thing, place = words
    subject, object_ = dice.pick(("he/him", "she/her", "they/them", "we/us", "I/me")).split("/")
    _, past, _ = dice.pick(_SEEN).split()
    if dice.chance(0.5):
        return f"the {noun} {dice.pick(_SAID)} that {subject if good else object_} {past} the {thing} {place}"
    return f"the {noun} showed {object_ if good else subject} the {dice.pick(_ADJECTIVES)} {thing} {place}"


def _complement(words: Words, good: bool, dice: StableRandom) -> str:
    """Infinitive, gerund or clause: the verb decides."""
    noun, thing, place = words
    base, gerund = dice.pick(
        ("buy/buying", "sell/selling", "hide/hiding", "find/finding", "repair/repairing")
    ).split("/")
    wants = dice.chance(0.5)
    verb = dice.pick(
        ("wanted", "decided", "hoped", "promised", "refused")
        if wants
        else ("enjoyed", "avoided", "finished", "suggested", "considered")
    )
    return f"the {noun} {verb} {'to ' + base if wants == good else gerund} the {thing} {place}"


_CONSTRUCTIONS: tuple[Callable[[Words, bool, StableRandom], str], ...] = (
    _agreement,
    _auxiliary,
    _order,
    _argument,
    _placement,
    _reflexive,
    _determiner,
    _question,
    _island,
    _polarity,
    _comparative,
    _case,
    _complement,
)
