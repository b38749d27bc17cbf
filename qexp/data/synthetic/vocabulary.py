"""The words of the built-in sample: two genres with people, things, actions, places and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Words = tuple[str, ...]
"""Synonyms of one concept; the first names the concept."""


@dataclass(frozen=True)
class VerbForms:
    """One verb in the three forms that the past tense needs."""

    base: str
    past: str
    participle: str


@dataclass(frozen=True)
class Action:
    """A concept of doing: its synonyms, the name of its opposite ("" for none) and the kinds it acts on."""

    name: str
    forms: tuple[VerbForms, ...]
    opposite: str
    kinds: Words


@dataclass(frozen=True)
class Thing:
    """A concept of an object: its synonyms and its kind."""

    names: Words
    kind: str


@dataclass(frozen=True)
class Genre:
    """All words of one genre; the synonyms within a place or a time are joined by "="."""

    people: tuple[Words, ...]
    things: tuple[Thing, ...]
    actions: tuple[Action, ...]
    places: Words
    times: Words
    adjectives: Mapping[str, tuple[Words, ...]]

    def actions_on(self, kind: str) -> tuple[Action, ...]:
        """Actions that fit a kind of target ("person" for people)."""
        return tuple(action for action in self.actions if kind in action.kinds)


def _concepts(text: str) -> tuple[Words, ...]:
    return tuple(tuple(word.strip() for word in part.split("=")) for part in text.split(","))


def listed(text: str) -> Words:
    """The items of a list written with commas."""
    return tuple(part.strip() for part in text.split(","))


def _roles(text: str, names: str) -> tuple[Words, ...]:
    roles = tuple(tuple("the " + word for word in words) for words in _concepts(text))
    return roles + _concepts(names)


def _things(**kinds: str) -> tuple[Thing, ...]:
    return tuple(Thing(words, kind) for kind, text in kinds.items() for words in _concepts(text))


def _form(text: str) -> VerbForms:
    """``"buy bought"`` or ``"take took taken"``; a third form equal to the second may be left out."""
    parts = text.split()
    return VerbForms(parts[0], parts[1], parts[-1])


def _actions(table: str) -> tuple[Action, ...]:
    """Lines ``verb = synonym > opposite : kinds``."""
    rows = []
    for line in table.strip().splitlines():
        verbs, kinds = line.split(":")
        verb, _, opposite = verbs.partition(">")
        forms = tuple(_form(part) for part in verb.split("="))
        rows.append(Action(forms[0].base, forms, opposite.strip(), tuple(kinds.split())))
    return tuple(rows)


_ON_PEOPLE = """
help helped=assist assisted > hinder : person
hinder hindered=impede impeded > help : person
praise praised=commend commended > criticize : person
criticize criticized=rebuke rebuked > praise : person
hire hired=employ employed > dismiss : person
dismiss dismissed=fire fired > hire : person
call called=phone phoned=telephone telephoned : person
warn warned=alert alerted : person
rescue rescued=save saved > abandon : person
abandon abandoned=desert deserted > rescue : person
mock mocked=ridicule ridiculed : person
welcome welcomed=greet greeted : person
question questioned=interview interviewed : person
trust trusted=believe believed > doubt : person
doubt doubted=distrust distrusted > trust : person
invite invited : person
photograph photographed : person
"""

TOWN = Genre(
    people=_roles(
        "nurse, doctor=physician, teacher, lawyer=attorney, farmer, baker, painter, mayor, "
        "journalist=reporter, "
        "student, carpenter, waiter, singer, librarian, mechanic, gardener, banker, plumber, tailor, "
        "priest, chef=cook, "
        "judge, soldier, dentist, captain, secretary, landlord, butcher, actor, violinist, "
        "detective, neighbor, clerk",
        "Anna Keller, Peter Novak, Maria Lopez, David Chen, Laura Rossi, James Okafor, Helen Brandt, "
        "Omar Haddad, "
        "Julia Stone, Victor Lund",
    ),
    things=_things(
        building="house=home, hotel=inn, factory=plant, school, chapel, barn, shop=store, theater, "
        "tower, cottage, garage",
        vehicle="car=automobile, truck=lorry, boat, bicycle=bike, tractor, bus, "
        "motorcycle=motorbike, wagon, sailboat",
        document="report, letter, contract=agreement, map, novel, poem, article, petition, speech, "
        "diary, recipe",
        piece="painting=picture, statue=sculpture, vase, ring, necklace, carpet=rug, clock, piano, "
        "lamp, mirror, coin",
    ),
    actions=_actions(
        _ON_PEOPLE
        + """
buy bought=purchase purchased=acquire acquired > sell : building vehicle piece
sell sold > buy : building vehicle piece
repair repaired=fix fixed=mend mended > damage : vehicle piece
damage damaged=ruin ruined > repair : building vehicle piece
renovate renovated=restore restored > damage : building
build built=construct constructed > demolish : building
demolish demolished=tear_down tore_down torn_down > build : building
find found=discover discovered=locate located > lose : piece document vehicle
lose lost=misplace misplaced > find : piece document
hide hid hidden=conceal concealed > show : piece document
show showed shown=display displayed > hide : piece document
write wrote written=compose composed > destroy : document
destroy destroyed=shred shredded > write : document
accept accepted=approve approved > reject : document
reject rejected=refuse refused > accept : document
inspect inspected=examine examined : building vehicle piece document
steal stole stolen > return : piece vehicle document
return returned=give_back gave_back given_back > steal : piece vehicle document
""".lstrip()
    ),
    places=listed(
        "in Boston, in Lisbon, at the harbor=at the port, near the station=close to the railway "
        "station, at the airport, "
        "in the old market=at the old marketplace, in Vienna=in the Austrian capital, behind the "
        "church=at the back of the church, "
        "near the river=by the river, in Chicago, at the museum=inside the museum, outside the town "
        "hall=in front of the city hall, "
        "in Dublin=in the Irish capital, on the island, near the school=next to the school"
    ),
    times=listed(
        "on Monday, on Friday, last week=the week before, in March=early in the spring, in "
        "October=in the autumn, "
        "yesterday morning=early yesterday, two years ago=a couple of years ago, in 1987=in the "
        "eighties, in 2004, last summer, "
        "on Sunday evening=late on Sunday, three days ago, after the storm=when the storm was over, "
        "before the election=ahead of the vote, at Christmas=during the Christmas holidays"
    ),
    adjectives={
        "building": _concepts(
            "white, wooden, brick, old, new, small=little, large=big, empty=vacant, famous=well-known"
        ),
        "vehicle": _concepts(
            "red, blue, green, old, new=brand-new, small=little, large=big, rusty, expensive=costly"
        ),
        "document": _concepts(
            "short=brief, long=lengthy, secret, famous=well-known, old, printed, unfinished=incomplete"
        ),
        "piece": _concepts(
            "small=little, large=big, cheap=inexpensive, expensive=costly, silver, wooden, antique, blue"
        ),
    },
)

SCIENCE = Genre(
    people=_roles(
        "astronomer, geologist, chemist, engineer, biologist=life scientist, diver, physicist, "
        "botanist, programmer, "
        "explorer, pilot=aviator, astronaut=spaceman, historian, surgeon, zoologist, inventor, "
        "technician, professor, "
        "volunteer, archaeologist",
        "Ingrid Dahl, Samuel Adeyemi, Mei Tanaka, Carlos Vega, Nadia Petrova, Robert Hale",
    ),
    things=_things(
        building="laboratory=lab, observatory, shelter, greenhouse, hangar, research station",
        vehicle="rocket, submarine, satellite, helicopter, balloon, sled",
        document="theory, manuscript, thesis=dissertation, proposal, logbook, equation",
        piece="telescope, microscope, fossil, meteorite, antenna, battery, crystal, sensor=detector, "
        "skull, robot",
    ),
    actions=TOWN.actions,
    places=listed(
        "in Antarctica, near the crater=close to the crater, in Geneva, below the glacier=under the "
        "glacier, in the desert, "
        "at the summit=at the peak, on the research ship=aboard the research vessel, at the polar base, "
        "in the rainforest=in the jungle, beside the volcano=next to the volcano, in Nairobi=in the "
        "Kenyan capital, at the institute"
    ),
    times=listed(
        "in 1969=in the sixties, during the eclipse, last winter, in July=in the middle of the "
        "summer, on Thursday, in 2011, "
        "after the launch=when the launch was over, before the expedition=ahead of the expedition, "
        "on Tuesday night=late on Tuesday, four months ago, last season=the season before, a decade "
        "ago=ten years ago"
    ),
    adjectives={
        "building": _concepts(
            "frozen, huge=enormous, underground, modern, abandoned, temporary, experimental, coastal"
        ),
        "vehicle": _concepts("experimental, huge=enormous, silver, unmanned, modern, heavy, yellow, damaged"),
        "document": _concepts(
            "unpublished, early, controversial=disputed, brilliant, faded, anonymous, modern"
        ),
        "piece": _concepts(
            "rare=unusual, tiny=minuscule, huge=enormous, heavy, black, fragile, valuable=precious"
        ),
    },
)

NUMBERS = listed(
    "two, three, four, five, six, seven, eight, nine, eleven, twelve, fifteen, twenty, thirty, forty, sixty"
)
VALUES = (2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15, 20, 30, 40, 60)
SOURCES = listed(
    "the police, local radio, a witness, the newspaper, a friend, the family, two visitors, the "
    "spokeswoman, officials, "
    "several guests, the broadcaster, an old colleague"
)


def plural(noun: str) -> str:
    """Regular English plural of the nouns above."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def article(phrase: str) -> str:
    """The phrase with its indefinite article."""
    vowel = (phrase[0] in "aeiou" and not phrase.startswith("use")) or phrase.startswith("honest")
    return ("an " if vowel else "a ") + phrase
