"""Pronouns and what they stand for (WNLI): the reason tells which of two people or things is meant."""

from __future__ import annotations

from collections.abc import Sequence

from qexp.data.synthetic.facts import capital
from qexp.data.synthetic.splits import SplitVocabulary, Text
from qexp.data.synthetic.vocabulary import listed

_WOMEN = listed(
    "Anna,Maria,Laura,Helen,Julia,Emma,Clara,Nora,Ruth,Alice,Diane,Irene,Sonia,Martha,Lucy,Eva,"
    "Paula,Rosa,Vera,Joan"
)
_MEN = listed(
    "Peter,David,James,Omar,Victor,Paul,Carl,Simon,Henry,Frank,Louis,Martin,Oscar,Brian,Tom,Adam,"
    "Felix,Ivan,Leo,Mark"
)
_SMALL = listed(
    "trophy,violin,lamp,vase,printer,helmet,kettle,telescope,doll,guitar,clock,mirror,toaster,radio,"
    "basket,globe"
)
_LARGE = listed(
    "suitcase,cupboard,drawer,backpack,crate,locker,trunk,shelf,cabinet,handbag,chest,cardboard "
    "box,wagon,closet"
)
_WHEN = listed(
    "yesterday,last night,on Monday,this morning,after lunch,in March,last week,on Friday,two days ago,in May"
)

_PEOPLE = (
    (
        "{a} lent {b} some money",
        "was generous,was rich,had plenty of savings",
        "was broke,was out of work,had lost a wallet",
    ),
    (
        "{a} thanked {b}",
        "had received a present,had been rescued,felt grateful",
        "had sent a present,had been helpful,had given good advice",
    ),
    (
        "{a} asked {b} a question",
        "was confused,needed advice,was curious",
        "was an expert,knew the answer,had studied the subject",
    ),
    (
        "{a} could not carry {b}",
        "was too weak,had no strength left,had a sore back",
        "was too heavy,weighed too much,kept moving",
    ),
    (
        "{a} defeated {b} in the race",
        "was faster,had trained hard,had more energy",
        "was slower,had hurt a knee,stumbled at the end",
    ),
    (
        "{a} followed {b}",
        "was lost,was suspicious,did not know the way",
        "knew the way,was the guide,had the only map",
    ),
    (
        "{a} visited {b}",
        "was worried,wanted to bring flowers,had the day off",
        "was ill,had broken a leg,needed surgery",
    ),
    (
        "{a} hired {b}",
        "needed an assistant,owned a growing company,was short of staff",
        "had excellent references,was looking for a job,was well qualified",
    ),
    (
        "{a} shouted at {b}",
        "was in a bad mood,was furious,had lost all patience",
        "had broken the window,would not listen,had been careless",
    ),
    (
        "{a} envied {b}",
        "was poor,had failed the exam,never won anything",
        "was successful,had won the prize,was famous",
    ),
    (
        "{a} apologized to {b}",
        "had been rude,felt guilty,had arrived late",
        "was offended,was hurt,had been waiting for hours",
    ),
    (
        "{a} taught {b} to swim",
        "was a coach,loved teaching,was a patient teacher",
        "was afraid of water,had never learned it,wanted to learn it",
    ),
    (
        "{a} paid {b}",
        "had lost a bet,had ordered the work,was the customer",
        "had won the bet,had finished the work,had sent the bill",
    ),
    (
        "{a} hid from {b}",
        "was frightened,was in danger,did not want to be found",
        "was threatening,was angry and armed,looked dangerous",
    ),
)
_THINGS = (
    (
        "the {a} did not fit into the {b}",
        "was too large,was too wide,was too tall",
        "was too small,was too narrow,was already full",
    ),
    (
        "the {a} fell out of the {b}",
        "was loose,was slippery,had not been tied down",
        "had no lid,was open,had a hole in it",
    ),
)


_GROUPS = listed(
    "the boys,the twins,the tourists,the guards,two farmers,the neighbors,three sailors,the "
    "students,the players,both sisters"
)


def wnli(split: SplitVocabulary, label: int) -> Text:
    """A sentence with a pronoun, and a claim on who is meant; label 1 if the claim is right.

    A wrong claim names the other candidate, or one that the sentence does not know.

    In most rows the pronoun's number or gender settles it, in the others only the reason does.
    """
    dice = split.dice
    kind = dice.random()
    if kind < 0.1:
        return _claim(split, label, first=_SMALL, second=_LARGE, schema=dice.pick(_THINGS))
    pools = [dice.pick((_WOMEN, _MEN))] * 2
    if kind < 0.9:
        pools = [_WOMEN, _MEN] if kind < 0.5 else [_GROUPS, pools[0]]
    dice.shuffle(pools)
    return _claim(split, label, first=pools[0], second=pools[1], schema=dice.pick(_PEOPLE))


def _claim(
    split: SplitVocabulary,
    label: int,
    first: Sequence[str],
    second: Sequence[str],
    schema: tuple[str, str, str],
) -> Text:
    dice = split.dice
    a, b, when = split.draw(first, second, _WHEN)
    event, of_a, of_b = schema
    meant = dice.chance(0.5)
    reason = dice.pick((of_a if meant else of_b).split(","))
    right, wrong = (a, b) if meant else (b, a)
    named = right if label else wrong if dice.chance(0.5) else split.pick((*first, *second), a, b)
    said = f"{event.format(a=a, b=b)} {when} because {_pronoun(right)} {_agreeing(reason, right)}."
    the = "the " if named in _SMALL + _LARGE else ""
    return capital(said), capital(f"{the}{named} {_agreeing(reason, named)}.")


def _pronoun(name: str) -> str:
    return "they" if name in _GROUPS else "she" if name in _WOMEN else "he" if name in _MEN else "it"


def _agreeing(reason: str, name: str) -> str:
    """``was`` becomes ``were`` after a plural; a predicate noun turns into its plural."""
    if name not in _GROUPS:
        return reason
    for one, more in _PLURALS.items():
        reason = reason.replace(one, more)
    return reason


_PLURALS = {
    "was ": "were ",
    "an expert": "experts",
    "the guide": "the guides",
    "a coach": "coaches",
    "a patient teacher": "patient teachers",
    "the customer": "the customers",
}
