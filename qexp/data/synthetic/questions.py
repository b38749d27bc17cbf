"""Questions: the same thing asked twice (QQP), and a question with a sentence that may answer it (QNLI)."""

from __future__ import annotations

from dataclasses import replace

from qexp.data.synthetic.facts import (
    Fact,
    capital,
    detail,
    draw,
    finish,
    form,
    passive,
    sentence,
    target_phrase,
)
from qexp.data.synthetic.paraphrase import changed
from qexp.data.synthetic.splits import SplitVocabulary, StableRandom, Text
from qexp.data.synthetic.vocabulary import listed

_ACTIVITIES = {
    "learn=study=master": ""
    "Spanish,French,chess,calculus,Japanese,algebra,grammar,programming,Arabic,photography,first aid",
    "cook=prepare=make": "rice,salmon,lentil soup,pasta,fresh bread,roast chicken,apple pie,pumpkin "
    "soup,cheese,pancakes",
    "repair=fix=mend": "a bicycle,a watch,a radio,a laptop,a washing machine,a sofa,a guitar,a "
    "roof,a fence,a broken chair",
    "clean=wash": "a carpet,leather shoes,a silk dress,an oven,a fish tank,a wool coat,windows,a "
    "mattress,a grill,a tent",
    "grow=raise": "tomatoes,roses,basil,strawberries,mushrooms,sunflowers,garlic,lemons,orchids,potatoes",
    "sell=get rid of": "old books,used furniture,a piano,stamps,a motorcycle,paintings,gold "
    "coins,toys,a farm,tickets",
}
_OBJECTS = tuple(f"{verbs}|{name}" for verbs, names in _ACTIVITIES.items() for name in names.split(","))
_QUALIFIERS = (
    "in winter=during the winter",
    "at home=in my own house",
    "without any tools=with no tools",
    "with simple tools",
    "as a beginner=with no experience",
    "on a small budget=with little money",
    "in a big city",
    "in the summer=during the summer",
    "with small children",
    "without help=alone",
    "with some help=with help from others",
    "before a long journey",
    "in one day",
    "without instructions=with no instructions",
    "with good instructions",
    "after a flood",
)
_INTENTS = {
    "how": (
        "How do I {v} {o} {q}?",
        "What is the best way to {v} {o} {q}?",
        "How can I {v} {o} {q}?",
        "Can you explain how to {v} {o} {q}?",
    ),
    "why": (
        "Why do people {v} {o} {q}?",
        "What is the reason to {v} {o} {q}?",
        "Why would anyone {v} {o} {q}?",
    ),
    "cost": (
        "How much does it cost to {v} {o} {q}?",
        "What is the price if I {v} {o} {q}?",
        "How expensive is it to {v} {o} {q}?",
    ),
    "time": (
        "How long does it take to {v} {o} {q}?",
        "How many hours do I need to {v} {o} {q}?",
        "How much time does one need to {v} {o} {q}?",
    ),
    "worry": (
        "What can go wrong when I {v} {o} {q}?",
        "Which mistakes should I avoid when I {v} {o} {q}?",
        "Is it risky to {v} {o} {q}?",
    ),
    "not": (
        "Why should I not {v} {o} {q}?",
        "Is there a reason not to {v} {o} {q}?",
        "Why is it a bad idea to {v} {o} {q}?",
    ),
}
_SCALES = (
    "harder/easier",
    "cheaper/more expensive",
    "faster/slower",
    "safer/more dangerous",
    "better/worse",
    "cleaner/dirtier",
)
_CITIES = listed(
    "Boston,Paris,Lisbon,Vienna,Chicago,Dublin,Geneva,Madrid,Oslo,Prague,Athens,Toronto,Denver,Milan"
)
_MEANS = ("by train", "by bus", "by car", "on foot", "by ferry", "by bicycle")
_JOURNEYS = (
    "How do I get from {a} to {b} {m}?",
    "What is the best way to reach {b} from {a} {m}?",
    "How can I travel to {b} {m} if I start in {a}?",
    "Which route should I take from {a} to {b} {m}?",
    "I am in {a}, so how do I go to {b} {m}?",
)


def qqp(split: SplitVocabulary, label: int) -> Text:
    """Label 1: the same wish in other words; label 0: another intent, object, qualifier or direction."""
    kind = split.dice.random()
    texts = list(
        _journey(split, label)
        if kind < 0.1
        else _comparison(split, label)
        if kind < 0.2
        else _activity(split, label)
    )
    split.dice.shuffle(texts)
    return tuple(texts)


def _journey(split: SplitVocabulary, label: int) -> Text:
    dice = split.dice
    a, b, m = split.draw(_CITIES, _CITIES, _MEANS)
    first = dice.pick(_JOURNEYS)
    second = dice.other(_JOURNEYS, first)
    there = (a, b) if label else (b, a)
    return first.format(a=a, b=b, m=m), second.format(a=there[0], b=there[1], m=m)


def _comparison(split: SplitVocabulary, label: int) -> Text:
    """``Is A harder than B?`` is ``Is B easier than A?`` in other words, not ``Is A easier than B?``."""
    dice = split.dice
    verbs, names = dice.pick(list(_ACTIVITIES.items()))
    a, b = split.draw(names.split(","), names.split(","))
    more, less = dice.pick(_SCALES).split("/")
    if dice.chance(0.5):
        more, less = less, more
    turn = dice.chance(0.5)
    second = (b, a) if turn else (a, b)
    scale = less if turn == bool(label) else more
    openings = (
        "Is it {s} to {v} {a} than {b}",
        "Would it be {s} to {v} {a} than {b}",
        "Do people find it {s} to {v} {a} than {b}",
    )
    one = dice.pick(openings).format(s=more, v=dice.pick(verbs.split("=")), a=a, b=b)
    two = dice.pick(openings).format(s=scale, v=dice.pick(verbs.split("=")), a=second[0], b=second[1])
    return one + "?", two + "?"


def _activity(split: SplitVocabulary, label: int) -> Text:
    dice = split.dice
    thing, qualifier = split.draw(_OBJECTS, _QUALIFIERS)
    intent = dice.pick(list(_INTENTS))
    first = _asked(dice, intent, thing, qualifier)
    if not label:
        changes = dice.pick(
            (("intent",), ("object",), ("qualifier",), ("intent", "object"), ("object", "qualifier"))
        )
        if "intent" in changes:
            intent = dice.other(list(_INTENTS), intent)
        if "object" in changes:
            same = [
                o
                for o in _OBJECTS
                if o != thing and (len(changes) > 1 or o.split("|")[0] == thing.split("|")[0])
            ]
            thing = _owned(split, same, qualifier)
        if "qualifier" in changes:
            qualifier = _owned(split, [q for q in _QUALIFIERS if q != qualifier], thing)
    return first, _asked(dice, intent, thing, qualifier)


def _owned(split: SplitVocabulary, pool: list[str], partner: str) -> str:
    """One word of the pool whose combination with the partner the split owns; any word if there is none."""
    fitting = [word for word in pool if split.owns(word, partner)]
    return split.dice.pick(fitting or pool)


def _asked(dice: StableRandom, intent: str, thing: str, qualifier: str) -> str:
    verbs, name = thing.split("|")
    return dice.pick(_INTENTS[intent]).format(
        v=dice.pick(verbs.split("=")), o=name, q=dice.pick(qualifier.split("="))
    )


_ASKED = ("where", "when", "who", "whom", "number", "what")


def qnli(split: SplitVocabulary, label: int) -> Text:
    """Label 0: the sentence answers the question; label 1: similar words, but no answer."""
    dice = split.dice
    asked = dice.pick(_ASKED)
    person = True if asked == "whom" else False if asked in ("number", "what") else None
    fact = draw(split, person=person, counted=asked == "number" or dice.chance(0.2))
    fact = replace(fact, number="" if fact.on_person else fact.number)
    question = _question(fact, asked, dice)
    return question, _answer(fact, asked, dice) if label == 0 else _beside(fact, asked, split)


def _question(fact: Fact, asked: str, dice: StableRandom) -> str:
    verb, agent, target = form(fact.action, dice), dice.pick(fact.agent), target_phrase(fact, dice)
    place, time = detail(fact.place, dice), detail(fact.time, dice)
    options = {
        "where": (
            f"where did {agent} {verb.base} {target} {time}",
            f"where was it that {agent} {verb.past} {target} {time}",
        ),
        "when": (
            f"when did {agent} {verb.base} {target} {place}",
            f"at what time did {agent} {verb.base} {target} {place}",
        ),
        "who": (f"who {verb.past} {target} {place}", f"who was it that {verb.past} {target} {time}"),
        "whom": (f"whom did {agent} {verb.base} {place}", f"which person did {agent} {verb.base} {time}"),
        "what": (f"what did {agent} {verb.base} {place}", f"which thing did {agent} {verb.base} {time}"),
        "number": (f"how many {_counted(fact, dice)} did {agent} {verb.base} {place}",),
    }
    return capital(dice.pick(options[asked])) + "?"


def _counted(fact: Fact, dice: StableRandom) -> str:
    return target_phrase(fact, dice).removeprefix(fact.number + " ")


def _answer(fact: Fact, asked: str, dice: StableRandom) -> str:
    """States what was asked, sometimes without the other detail, so that length does not tell."""
    if asked == "where":
        fact = replace(fact, time=dice.pick((fact.time, "")))
    if asked == "when":
        fact = replace(fact, place=dice.pick((fact.place, "")))
    if asked != "number" and fact.number:
        fact = replace(fact, number=dice.pick((fact.number, *_VAGUE)))
    return sentence(fact, dice, source=dice.chance(0.4))


_VAGUE = ("several", "some", "a few", "many")


def _beside(fact: Fact, asked: str, split: SplitVocabulary) -> str:
    """No answer: the detail is missing, the roles are exchanged, or it is another event."""
    dice = split.dice
    source = dice.chance(0.4)
    if asked in ("who", "whom") and fact.on_person and dice.chance(0.5):
        return sentence(fact.swapped, dice, source=source)
    if dice.chance(0.5):
        other = changed(fact, "agent", split) if asked != "who" and dice.chance(0.7) else fact
        return sentence(changed(other, "action", split), dice, source=source)
    if asked == "where":
        return sentence(replace(fact, place=""), dice, source=source)
    if asked == "when":
        return sentence(replace(fact, time=""), dice, source=source)
    if asked == "number":
        return sentence(replace(fact, number=dice.pick(_VAGUE)), dice, source=source)
    if asked == "who" and dice.chance(0.5):
        return finish(passive(fact, dice, by=False), fact, dice, source=source)
    change = "action" if asked == "who" else "agent"
    return sentence(changed(fact, change, split), dice, source=source)
