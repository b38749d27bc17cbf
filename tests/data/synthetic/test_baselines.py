"""What the label must not be guessable from: one side alone, lengths, shared words, bags of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.sparse import hstack
from scipy.stats import pearsonr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from qexp.data.synthetic import sample
from tests.support.synthetic_rows import COLUMNS, TASKS, plain

# percent: one side as a bag of words; lengths and overlap; the bags of both sides
MOST = {
    "cola": (75, 72, 75),
    "sst2": (65, 60, 65),
    "mrpc": (69, 81, 70),
    "qqp": (57, 67, 57),
    "mnli": (68, 45, 70),
    "qnli": (60, 60, 60),
    "rte": (63, 66, 63),
    "wnli": (57, 80, 58),
}

Texts = list[list[str]]


def _texts(task: str, split: str) -> tuple[Texts, np.ndarray]:
    table = sample(task)[split]
    return [table[column].to_pylist() for column in COLUMNS[task]], table["label"].to_numpy()


def _bags(train: Texts, test: Texts) -> tuple[np.ndarray, np.ndarray]:
    parts = [CountVectorizer().fit(texts) for texts in train]
    return tuple(
        hstack([part.transform(texts) for part, texts in zip(parts, side, strict=True)])
        for side in (train, test)
    )


def _surface(columns: Texts) -> np.ndarray:
    rows: list[Sequence[float]] = []
    for texts in zip(*columns, strict=True):
        bags = [plain(text).split() for text in texts]
        lengths = [len(bag) for bag in bags]
        shared = set(bags[0]) & set(bags[-1])
        rows.append(
            [
                *lengths,
                *(n * n for n in lengths),
                len(shared) / len(set(bags[0]) | set(bags[-1])),
                len(shared),
            ]
        )
    return np.array(rows, dtype=float)


def _validation(task: str) -> str:
    return "validation_matched" if task == "mnli" else "validation"


def _accuracy(x, y: np.ndarray, x_test, y_test: np.ndarray) -> float:
    return 100 * LogisticRegression(max_iter=500).fit(x, y).score(x_test, y_test)


@pytest.mark.parametrize("task", MOST)
def test_bags_of_words_do_not_solve_it(task: str) -> None:
    (train, y), (test, y_test) = _texts(task, "train"), _texts(task, _validation(task))
    for side in range(len(train)):
        x, x_test = _bags([train[side]], [test[side]])
        assert _accuracy(x, y, x_test, y_test) <= MOST[task][0]
    x, x_test = _bags(train, test)
    assert _accuracy(x, y, x_test, y_test) <= MOST[task][2]


@pytest.mark.parametrize("task", MOST)
def test_lengths_and_overlap_do_not_solve_it(task: str) -> None:
    (train, y), (test, y_test) = _texts(task, "train"), _texts(task, _validation(task))
    scaler = StandardScaler().fit(_surface(train))
    assert (
        _accuracy(scaler.transform(_surface(train)), y, scaler.transform(_surface(test)), y_test)
        <= MOST[task][1]
    )


def test_hypothesis_alone_is_chance_for_both_genres() -> None:
    train, y = _texts("mnli", "train")
    for split in ("validation_matched", "validation_mismatched"):
        test, y_test = _texts("mnli", split)
        x, x_test = _bags(train[1:], test[1:])
        assert _accuracy(x, y, x_test, y_test) <= 42


def test_similarity_needs_more_than_surface() -> None:
    (train, y), (test, y_test) = _texts("stsb", "train"), _texts("stsb", "validation")
    surface = make_pipeline(StandardScaler(), Ridge()).fit(_surface(train), y).predict(_surface(test))
    assert pearsonr(surface, y_test)[0] <= 0.72
    x, x_test = _bags(train, test)
    assert abs(pearsonr(Ridge().fit(x, y).predict(x_test), y_test)[0]) <= 0.3


def test_every_task_has_a_bound() -> None:
    assert set(MOST) | {"stsb"} == set(TASKS)
