"""Silver rows of a multi-label task: English captions of Multi30k, labelled by their German translations.

A label is given where the German caption has a word of a list, compounds included. The model reads the
English caption alone, so a label cannot be read off its input by the rule that made it: the translator's
choice of words stands between the two.

The labels are silver: made by these rules, not by annotators.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

STEMS: Mapping[str, str] = {
    "adult": r"\b(mann|männer\w*|frau|frauen|herr|herren|dame|damen|\w*arbeiter\w*)\b",
    "child": r"\b(kind|kinder\w*|\w*kleinkind\w*|junge|jungen|mädchen|baby|babys)\b",
    "animal": r"\w*(hund|hunde|hunden|katze|pferd|pferde|vogel|vögel|kuh|kühe|tier|tiere|affe|elefant)\b",
    "vehicle": r"\w*(auto|autos|wagen|fahrrad|fahrrädern?|motorrad|zug|boot|boote|lkw|roller)\b|\bbus\b",
    "water": r"\w*(wasser|see|meer|ozean|fluss|strand|pool|becken|welle|wellen|brunnen)\b",
    "sport": r"\w*(spieler\w*|ball|bälle|mannschaft\w*|läufer\w*|skateboard\w*|surf\w+|ski\w*|turnier)\b",
    "clothing": r"\w*(hemd|hose|hosen|jacke|mantel|kleid|kleider|hut|mütze|helm|schuhe|uniform\w*|brille)\b",
    "building": r"\w*(gebäude|haus|häuser\w*|kirche|laden|geschäft|restaurant|küche|zimmer|mauer|dach)\b",
    "music": r"\w*(gitarre|gitarren|musik\w*|sänger\w*|mikrofon|trommel\w*|klavier|instrument\w*)\b|\bband\b",
    "food": r"\w*(essen|speise\w*|obst|gemüse|fleisch|kuchen|brot|bier|getränk\w*|mahlzeit)\b",
}
"""Regular expression over the German caption, in lower case, by label."""
_PATTERNS = {label: re.compile(stems) for label, stems in STEMS.items()}


def labels_of(caption: str) -> list[str]:
    """Return the labels of a German caption, sorted; empty where no list has a word of it."""
    return sorted(label for label, pattern in _PATTERNS.items() if pattern.search(caption.lower()))


def rows_of(file: Path, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield ``count`` rows with ``text`` (English) and ``labels``, drawn from those of Multi30k.

    Args:
        file: Multi30k's rows, parquet with ``en`` and ``de``.
        count: Number of rows; all if there are fewer.
        seed: Seed of the draw.
    """
    rows = pq.read_table(file).to_pylist()
    drawn = np.random.default_rng(seed).permutation(len(rows))[:count]
    for place in sorted(drawn.tolist()):
        yield {"text": rows[place]["en"], "labels": labels_of(rows[place]["de"])}
