"""Spans and their scores, held against numbers of seqeval 1.2.2 (numpy 2.4.6, scikit-learn 1.9.1).

seqeval is not installed here: it has no wheel. The numbers in ``SCORES`` are what this printed::

    from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
    from seqeval.scheme import IOB1, IOB2, IOBES

    for scheme, letters in ((IOB2, "BI"), (IOB1, "BI"), (IOBES, "BIES")):
        gold, found = rows(letters)
        for score in (f1_score, precision_score, recall_score):
            print(scheme.__name__, 100 * score(gold, found, mode="strict", scheme=scheme))
        print(100 * accuracy_score(gold, found))
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from qexp.data.metrics.bootstrap import paired_bootstrap
from qexp.data.metrics.spans import RULES, Span, spans
from qexp.data.metrics.vectorized import RIGHT, measures_for, observed

KIND = "token_classification"
SCORES = {
    "IOB2": (68.06187443130118, 68.37294332723948, 67.7536231884058, 76.0924158714214),
    "IOB1": (63.90243902439025, 64.42622950819671, 63.38709677419355, 76.0924158714214),
    "IOBES": (69.41323345817729, 68.8118811881188, 70.02518891687657, 73.22953289804119),
}
LETTERS = {"IOB2": "BI", "IOB1": "BI", "IOBES": "BIES"}


def rows(letters: str) -> tuple[list[list[str]], list[list[str]]]:
    """Tags in any order, valid or not, and the same with three in ten drawn anew."""
    draw = random.Random(0)
    tags = ["O"] * 3 + [f"{letter}-{kind}" for letter in letters for kind in "XY"]
    gold = [draw.choices(tags, k=draw.randint(1, 9)) for _ in range(400)]
    found = [[draw.choice(tags) if draw.random() < 0.3 else tag for tag in row] for row in gold]
    return gold, found


def column(values: list[list[str]]) -> np.ndarray:
    made = np.empty(len(values), object)
    made[:] = [tuple(row) for row in values]
    return made


@pytest.mark.parametrize("scheme", RULES)
def test_scores_are_those_of_seqeval(scheme: str) -> None:
    gold, found = map(column, rows(LETTERS[scheme]))
    measures = measures_for(KIND, scheme)
    names = ("f1_span", "precision_span", "recall_span", "token_accuracy")
    assert tuple(observed(measures[name], found, gold) for name in names) == pytest.approx(SCORES[scheme])


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("IOB2", "B-X I-X O", [(0, 2, "X")]),
        ("IOB2", "I-X O", []),
        ("IOB2", "B-X I-Y I-X", [(0, 1, "X")]),
        ("IOB2", "B-X B-X I-X", [(0, 1, "X"), (1, 3, "X")]),
        ("IOB1", "I-X I-X O I-Y", [(0, 2, "X"), (3, 4, "Y")]),
        ("IOB1", "I-X B-X I-X", [(0, 1, "X"), (1, 3, "X")]),
        ("IOB1", "B-X O", []),
        ("IOBES", "S-X B-X I-X E-X", [(0, 1, "X"), (1, 4, "X")]),
        ("IOBES", "B-X I-X O", []),
        ("IOBES", "B-X E-Y", []),
    ],
)
def test_spans_of_a_row(scheme: str, tags: str, expected: list[Span]) -> None:
    assert spans(tags.split(), scheme) == expected


def test_seqeval_without_a_scheme_has_another_f1_here() -> None:
    gold, found = column([["B-X", "I-X", "O"], ["I-X", "O"]]), column([["B-X", "I-X", "O"], ["O", "O"]])
    assert observed(measures_for(KIND, "IOB2")["f1_span"], found, gold) == 100.0  # seqeval's plain F1: 66.7


def test_nothing_found_is_zero_and_equal_rows_are_right() -> None:
    gold, found = column([["B-X"], ["O"]]), column([["O"], ["O"]])
    scores = {name: observed(of, found, gold) for name, of in measures_for(KIND, "IOB2").items()}
    assert scores == {"f1_span": 0.0, "precision_span": 0.0, "recall_span": 0.0, "token_accuracy": 50.0}
    assert RIGHT[KIND].statistics(found, gold).tolist() == [[0.0], [1.0]]


def test_resamples_are_of_sentences() -> None:
    gold, found = map(column, rows("BI"))
    measures = measures_for(KIND, "IOB2")
    draws = paired_bootstrap(measures, (found, gold), gold, resamples=50, seed=0)
    ours, perfect = draws["f1_span"]
    assert (perfect == 100).all() and ours.std() > 0
    assert ours.mean() == pytest.approx(SCORES["IOB2"][0], abs=2)
