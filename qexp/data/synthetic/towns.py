"""Invented towns: their names, what can be told and asked about them, and sentences that tell none of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qexp.data.synthetic.splits import SplitVocabulary
from qexp.data.synthetic.vocabulary import Words, listed

_HEADS = listed(
    "Vår,Łom,Brück,Ké,Høy,Žel,Ñan,Åst,Öster,Čer,Dún,Gür,Saint-Él,São Mar,Mar,Hol,Wen,Tor,Kal,Ros,Lin,Bar,"
    "Nor,Sel,Tam,Vel,Gar,Ester,Pol,Fen"
)
_TAILS = listed("by,berg,ville,ova,mont,stad,dale,mere,ínez,ów,köping,haven,ford,ette,ica,burg,ano,wick")
_FIRST = listed(
    "Zoë,José,Søren,Anaïs,Łukasz,Björn,Chloé,Mária,Ruth,Victor,Ingrid,Samuel,Nadia,Carlos,Helga,Tomás,Irène,Oskar"
)
_LAST = listed(
    "Müller,Nuñez,Dvořák,Åkesson,O'Brien,Novák,Strand,Castellano,Gößmann,Baptiste,Whitfield,Đorđević,Marsh,Lindqvist"
)
_RIVERS = listed("Ørla,Tamira,Vesk,Lünne,Sorba,Neré,Ulva,Kelda,Rivenna,Moška,Aldra,Pinz,Esk Water,Greta")
_GOODS = listed(
    "blue pottery,smoked fish,wool blankets,honey cakes,silver bells,cherry jam,carved chairs,goat cheese,"
    "paper kites,lace curtains,glass beads,plum brandy,leather boots,rye bread"
)
_SIGHTS = listed(
    "windmill,salt store,grain store,corn exchange,stone bridge,customs house,lighthouse,monastery,tannery,"
    "water mill,dyers' hall,granary,bell tower,bishop's palace"
)
_MONTHS = listed("January,February,April,May,June,July,August,September,November,December")


def town(split: SplitVocabulary) -> str:
    """A town that belongs to the split."""
    return "".join(split.draw(_HEADS, _TAILS))


def _of(pool: Words) -> Callable[[SplitVocabulary], str]:
    return lambda split: split.pick(pool)


def person(split: SplitVocabulary) -> str:
    return f"{split.pick(_FIRST)} {split.pick(_LAST)}"


def _years(first: int, last: int) -> Callable[[SplitVocabulary], str]:
    return lambda split: str(first + int(split.dice.random() * (last - first + 1)))


month, year = _of(_MONTHS), _years(1100, 1985)


def _crowd(split: SplitVocabulary) -> str:
    return f"{2 + int(split.dice.random() * 90)},{int(split.dice.random() * 10)}00"


@dataclass(frozen=True)
class Relation:
    """One thing to know about a town ``{t}``: how its value ``{v}`` is told and asked for, and its values."""

    told: Words
    asked: Words
    value: Callable[[SplitVocabulary], str]


RELATIONS = {
    "founder": Relation(
        ("{t} was founded by {v}", "{v} founded {t}", "it was {v} who founded {t}"),
        ("who founded {t}", "by whom was {t} founded", "which person founded {t}"),
        person,
    ),
    "mayor": Relation(
        ("the mayor of {t} is {v}", "{v} is the mayor of {t}", "{v} was elected mayor of {t}"),
        ("who is the mayor of {t}", "what is the name of the mayor of {t}"),
        person,
    ),
    "architect": Relation(
        ("the town hall of {t} was designed by {v}", "{v} designed the town hall of {t}"),
        ("who designed the town hall of {t}", "who was the architect of the town hall of {t}"),
        person,
    ),
    "age": Relation(
        ("the first houses of {t} were built in {v}", "in {v}, the first houses of {t} were built"),
        ("when were the first houses of {t} built", "in which year were the first houses of {t} built"),
        _years(1100, 1840),
    ),
    "railway": Relation(
        ("the railway to {t} was opened in {v}", "in {v}, the first train arrived in {t}"),
        ("when was the railway to {t} opened", "in which year did the first train arrive in {t}"),
        _years(1841, 1985),
    ),
    "river": Relation(
        ("{t} lies on the river {v}", "the river {v} runs through {t}"),
        ("which river runs through {t}", "on which river does {t} lie"),
        _of(_RIVERS),
    ),
    "goods": Relation(
        ("{t} is known for its {v}", "the markets of {t} are known for their {v}"),
        ("what is {t} known for", "what are the markets of {t} known for"),
        _of(_GOODS),
    ),
    "crowd": Relation(
        ("{v} people live in {t}", "{t} has {v} inhabitants"),
        ("how many people live in {t}", "how many inhabitants does {t} have"),
        _crowd,
    ),
    "fair": Relation(
        ("the fair of {t} takes place in {v}", "every {v}, {t} holds its fair"),
        ("when does the fair of {t} take place", "in which month does {t} hold its fair"),
        _of(_MONTHS),
    ),
    "sight": Relation(
        ("the oldest building of {t} is {v}", "{v} is the oldest building of {t}"),
        ("what is the oldest building of {t}", "which building of {t} is the oldest"),
        lambda split: f"the {split.pick(_SIGHTS)}",
    ),
}

ASIDES = (
    "The cafés of {t} close early — and so do its naïve little galleries.",
    "Travellers from {u} often pass through {t} without stopping.",
    "A ticket from {t} to {u} costs 12 €.",
    "“Nobody leaves {t} hungry”, says a proverb.",
    "The flag of {t} shows a fish (🐟) and two stars.",
    "The people of {t} and of {u} have never agreed on anything.",
    "At the gate of {t} a sign greets visitors: “Добро пожаловать!”",
    "Much of what follows was told in {t} over coffee in the Cafe\u0301 Royal.",
    "Winters in {t} are long, and the snow may lie at -20 °C for weeks.",
    "There is little else to report from {t}.",
    "A delegation from 京都 once spent a rainy afternoon in {t}.",
    "The streets of {t} are narrow, steep and seldom straight.",
)
"""Sentences about the towns ``{t}`` and ``{u}`` that answer no question, with signs from many scripts."""
