"""Opinions on films (SST-2): negation, contrast, comparison and missed chances turn the words around."""

from __future__ import annotations

from qexp.data.synthetic.facts import capital
from qexp.data.synthetic.splits import SplitVocabulary, Text
from qexp.data.synthetic.vocabulary import article, listed

_GOOD = listed(
    "charming,moving,clever,gripping,witty,warm,brilliant,fresh,touching,elegant,thrilling,"
    "inventive,delightful,convincing,"
    "memorable,graceful,absorbing,honest,superb,funny,original,imaginative"
)
_BAD = listed(
    "dull,clumsy,tedious,predictable,shallow,boring,lifeless,messy,awkward,tiresome,forgettable,"
    "bland,ridiculous,hollow,"
    "annoying,lazy,dreadful,stale,pretentious,confusing,mediocre,painful"
)
_PARTS = listed(
    "story,plot,cast,script,ending,soundtrack,opening shot,central joke,premise,romance,final "
    "scene,first half,second half,"
    "leading actress,narrator,car chase,mystery,prologue,stage set,villain,fight scene,main character"
)
_WORKS = listed(
    "film,movie,comedy,thriller,drama,western,documentary,sequel,remake,musical,horror film,war "
    "film,family film,debut,"
    "love story,crime story,cartoon,television play,biography,satire"
)
_PLAIN = (
    "the {part} of this {work} is {a} and {b}",
    "what {ar_a} {work}, with {ar_b} {part} from start to finish",
    "{ar_a} {work} whose {part} stays {b} to the very end",
    "I found the {part} of this {work} {a} and rather {b}",
)
_NEGATED = (
    "the {part} of this {work} is never {x}, not even for a moment",
    "there is nothing {x} about the {part} of this {work}",
    "nobody could call the {part} of this {work} {x}",
    "the {part} of this {work} is anything but {x}",
    "the {part} of this {work} is far from {x}",
    "this {work} and its {part} are hardly {x}",
    "I would not say that the {part} of this {work} is {x}",
)
_CONTRAST = (
    "although the {other} is {y}, the {work} as a whole is {x}",
    "the {work} is {x} in spite of {ar_y} {other}",
    "the {other} may be {y}, but what remains is {ar_x} {work}",
    "even {ar_y} {other} cannot change that this is {ar_x} {work}",
    "{ar_y} {other} aside, this {work} turns out to be {x}",
    "this is {ar_x} {work}, even though its {other} is {y}",
)
_COMPARED = (
    "unlike the {y} {other_work} before it, this {work} has {ar_x} {part}",
    "this {work} is {x} where the earlier {other_work} was only {y}",
    "after so many {y} films, here at last is {ar_x} {work}",
    "the {other_work} on the same disc is {y}, while this {work} is {x}",
)
_MISSED = {
    0: (
        "with a better {part}, this {work} could have been {y}",
        "this {work} should have been {y}, given its {part}",
        "the {work} wants so badly to be {y} that its {part} suffers",
        "the trailer promised {ar_y} {work}, and the {part} keeps none of it",
    ),
    1: (
        "with a worse {part}, this {work} could have been {y}",
        "this {work} might have been {y}, but its {part} saves it",
        "the {work} takes such care not to be {y} that its {part} shines",
        "the trailer suggested {ar_y} {work}, and the {part} proves it wrong",
    ),
}

_MIXED = (
    "the {part} is {first}, but the {more} is {second}",
    "{ar_first} {part} meets {ar_second} {more} in this {work}",
    "one half of this {work} is {first}, the other half is {second}",
    "you get {ar_first} {part} and {ar_second} {more} in this {work}",
)
_REPORTED = (
    "whoever calls the {part} of this {work} {y} must have seen another film",
    "critics found the {part} {y}, and they could not be more wrong",
    "it is simply not true that the {part} of this {work} is {y}",
    "I had expected {ar_y} {part} from this {work}, and got the opposite",
)


def sst2(split: SplitVocabulary, label: int) -> Text:
    """One opinion; label 1 positive, 0 negative."""
    dice = split.dice
    mine, theirs = (_GOOD, _BAD) if label else (_BAD, _GOOD)
    (work, part), x = split.draw(_WORKS, _PARTS), dice.pick(mine)
    words = {"x": x, "y": dice.pick(theirs), "a": x, "b": dice.other(mine, x)}
    kind = dice.random()
    if kind < _SHARE_MIXED:
        return (_mixed(split, work, part, words),)
    templates = dice.pick((_PLAIN, _MISSED[label], _NEGATED, _COMPARED, _CONTRAST, _CONTRAST, _REPORTED))
    if templates is _NEGATED:
        words["x"] = words["y"]
    return (_filled(split, dice.pick(templates), work=work, part=part, words=words),)


_SHARE_MIXED = 0.3


def _mixed(split: SplitVocabulary, work: str, part: str, words: dict[str, str]) -> str:
    """Praise and blame in one sentence, on which viewers disagree: three in four go by what comes last."""
    last = split.dice.chance(0.75)
    first, second = (words["y"], words["x"]) if last else (words["x"], words["y"])
    return _filled(
        split, split.dice.pick(_MIXED), work=work, part=part, words=words | {"first": first, "second": second}
    )


def _filled(split: SplitVocabulary, template: str, work: str, part: str, words: dict[str, str]) -> str:
    with_article = {f"ar_{name}": article(word) for name, word in words.items()}
    text = template.format(
        work=work,
        part=part,
        other=part,
        other_work=split.pick(_WORKS, work),
        more=split.pick(_PARTS, part),
        **words,
        **with_article,
    )
    return capital(text) + split.dice.pick((".", ".", ".", "!"))
