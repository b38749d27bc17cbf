"""Captions in English and German, as in Multi30k: who does what, with what, and where.

German inflects what English does not: articles and adjectives follow gender and case, the verb comes second
wherever the place stands. Training and evaluation share all words, and no combination of them: a word
that was never seen cannot be translated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import from_texts
from qexp.data.synthetic.facts import capital
from qexp.data.synthetic.splits import Row, SplitVocabulary, rows
from qexp.data.synthetic.vocabulary import article, listed


class _Noun(NamedTuple):
    """A German noun: its gender, or "p" for two of a kind."""

    german: str
    gender: str


class _Verb(NamedTuple):
    """German forms of the third person."""

    one: str
    two: str


def _nouns(text: str) -> dict[str, _Noun]:
    parts = (part.split("=") for part in listed(text))
    return {english: _Noun(*german.split("/")) for english, german in parts}


def _words(text: str) -> dict[str, str]:
    return dict(part.split("=") for part in listed(text))


_PEOPLE = _nouns(
    "man=Mann/m, woman=Frau/f, girl=Mädchen/n, boy=Junge/m, child=Kind/n, farmer=Bauer/m, teacher=Lehrerin/f,"
    "painter=Maler/m, worker=Arbeiter/m, dancer=Tänzerin/f, cook=Koch/m, singer=Sängerin/f, men=Männer/p,"
    "women=Frauen/p, children=Kinder/p, girls=Mädchen/p, boys=Jungen/p, workers=Arbeiter/p,"
    "students=Studenten/p"
)
_LOOKS = _words(
    "old=alt, young=jung, tall=groß, small=klein, happy=fröhlich, quiet=ruhig, busy=fleißig,"
    "friendly=freundlich, blond=blond, curious=neugierig, funny=lustig, strong=stark"
)
_THINGS = _nouns(
    "ladder=Leiter/f, box=Kiste/f, ball=Ball/m, book=Buch/n, bicycle=Fahrrad/n, chair=Stuhl/m, table=Tisch/m,"
    "lamp=Lampe/f, bag=Tasche/f, hat=Hut/m, umbrella=Regenschirm/m, guitar=Gitarre/f, boat=Boot/n,"
    "kite=Drachen/m, bucket=Eimer/m, picture=Bild/n, basket=Korb/m, clock=Uhr/f, car=Auto/n, flag=Fahne/f"
)
_COLOURS = _words(
    "red=rot, blue=blau, green=grün, yellow=gelb, black=schwarz, white=weiß, brown=braun, new=neu,"
    "heavy=schwer, light=leicht, broken=kaputt, beautiful=schön"
)
_VERBS = {
    "carrying": _Verb("trägt", "tragen"),
    "holding": _Verb("hält", "halten"),
    "painting": _Verb("malt", "malen"),
    "cleaning": _Verb("putzt", "putzen"),
    "repairing": _Verb("repariert", "reparieren"),
    "buying": _Verb("kauft", "kaufen"),
    "selling": _Verb("verkauft", "verkaufen"),
    "looking for": _Verb("sucht", "suchen"),
    "watching": _Verb("beobachtet", "beobachten"),
    "showing": _Verb("zeigt", "zeigen"),
    "pulling": _Verb("zieht", "ziehen"),
    "pushing": _Verb("schiebt", "schieben"),
}
_PLACES = _words(
    "in the park=im Park, on the beach=am Strand, on the street=auf der Straße, in the kitchen=in der Küche,"
    "at the market=auf dem Markt, in front of a house=vor einem Haus, next to a tree=neben einem Baum,"
    "in the garden=im Garten, on a bridge=auf einer Brücke, at the station=am Bahnhof, in the snow=im Schnee,"
    "behind a fence=hinter einem Zaun, by the river=am Fluss, in the rain=im Regen"
)
_SUBJECT = {"m": ("ein", "er"), "f": ("eine", "e"), "n": ("ein", "es"), "p": ("zwei", "e")}
_OBJECT = {"m": ("einen", "en"), "f": ("eine", "e"), "n": ("ein", "es")}
"""Article and ending of an adjective, by gender, in the nominative and in the accusative."""
_SHARE_PLACE_FIRST = 0.3
_SHARE_BARE = 0.3


def caption(split: SplitVocabulary, _: int) -> Row:
    """A sentence and its translation."""
    who, verb, thing, place = split.combine(list(_PEOPLE), list(_VERBS), list(_THINGS), list(_PLACES))
    bare, first = split.dice.chance(_SHARE_BARE), split.dice.chance(_SHARE_PLACE_FIRST)
    look = "" if bare else split.dice.pick(list(_LOOKS))
    colour = split.dice.pick(list(_COLOURS))
    person, item, verbs = _PEOPLE[who], _THINGS[thing], _VERBS[verb]
    two = person.gender == "p"
    agent, target = _english(look, who, two=two), _english(colour, thing)
    agent_de = _german(_SUBJECT[person.gender], _LOOKS.get(look, ""), person.german)
    target_de = _german(_OBJECT[item.gender], _COLOURS[colour], item.german)
    place_de, verb_de = _PLACES[place], verbs.two if two else verbs.one
    english = f"{agent} {'are' if two else 'is'} {verb} {target}"
    german = (place_de, verb_de, agent_de, target_de) if first else (agent_de, verb_de, target_de, place_de)
    texts = f"{place} {english}" if first else f"{english} {place}", " ".join(german)
    return tuple(capital(text) + "." for text in texts), 0


def _english(adjective: str, noun: str, *, two: bool = False) -> str:
    words = f"{adjective} {noun}".strip()
    return f"two {words}" if two else article(words)


def _german(form: tuple[str, str], adjective: str, noun: str) -> str:
    word, ending = form
    return f"{word} {adjective}{ending} {noun}" if adjective else f"{word} {noun}"


@dataclass(frozen=True)
class PairSet:
    """Columns of the two languages, and how many rows a split has."""

    sizes: Mapping[str, int]

    def tables(self, splits: Mapping[str, SplitVocabulary]) -> dict[str, pa.Table]:
        """Columns ``en`` and ``de`` of every split."""
        made = rows(splits, self.sizes, (1,), caption)
        return {
            name: pa.table(
                {side: from_texts([texts[i] for texts, _ in content]) for i, side in enumerate(("en", "de"))}
            )
            for name, content in made.items()
        }
