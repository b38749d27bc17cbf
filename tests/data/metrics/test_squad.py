"""Tests of SQuAD scores against torchmetrics, of thresholds against brute force, and of official quirks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text.squad import _compute_f1_score, _normalize_text, squad

from qexp.data.metrics.squad import normalize, score_v1, score_v2

PIECES = ["the", "The", "a", "an", "An", "cat", "CAT", "cats", "sat", "1,000", "U.S.", "'s", "--", " ", "\t"]
ODD = [
    "\u00a0",
    "naïve",
    "nai\u0308ve",
    "İstanbul",
    "ß",
    "😀",
    "—",
    "\r\n",
    "a-b",
    "the_end",
    "日本 語",
    "",
    "…",
]
TEXT = st.one_of(
    st.lists(st.sampled_from(PIECES + ODD), max_size=6).map(" ".join),
    st.lists(st.sampled_from(PIECES + ODD), max_size=6).map("".join),
    st.text(max_size=12),
)


def questions(least: int) -> st.SearchStrategy[list[tuple[str, list[str]]]]:
    """Predictions with gold answers; every other prediction is near a gold answer."""
    golds = st.lists(TEXT, min_size=least, max_size=3)
    near = golds.flatmap(lambda each: st.tuples(st.sampled_from([*each, ""]).map(str.title), st.just(each)))
    return st.lists(st.one_of(st.tuples(TEXT, golds), near), min_size=1, max_size=8)


def columns(rows: list[tuple[str, list[str]]]) -> tuple[list[str], list[list[str]]]:
    return [row[0] for row in rows], [row[1] for row in rows]


def by_torchmetrics(predictions: list[str], golds: list[list[str]]) -> dict[str, float]:
    answers = [
        {"id": str(number), "answers": {"text": texts, "answer_start": [0] * len(texts)}}
        for number, texts in enumerate(golds)
    ]
    rows = [{"id": str(number), "prediction_text": text} for number, text in enumerate(predictions)]
    return {name: float(value) for name, value in squad(rows, answers).items()}


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_normal_form(text: str) -> None:
    assert normalize(text) == _normalize_text(text)


@settings(max_examples=150, deadline=None)
@given(questions(1))
def test_v1_is_what_torchmetrics_says(rows: list[tuple[str, list[str]]]) -> None:
    """Of gold answers that have words: of others, torchmetrics takes the F1 of v2.0."""
    nonempty_rows = [
        (prediction, [text for text in texts if _normalize_text(text)] or ["cat"])
        for prediction, texts in rows
    ]
    predictions, golds = columns(nonempty_rows)
    assert score_v1(predictions, golds) == pytest.approx(by_torchmetrics(predictions, golds), rel=1e-5)


def test_v1_without_words_matches_and_has_no_f1() -> None:
    assert score_v1(["the"], [["A"]]) == {"exact_match": 100.0, "f1": 0.0}
    assert score_v1(["the"], [["A", "the cat"]]) == {"exact_match": 100.0, "f1": 0.0}


def test_v1_by_hand() -> None:
    predictions = ["The Cat sat!", "on the mat", ""]
    golds = [["cat sat"], ["mat", "on a red mat"], ["dog"]]
    scores = score_v1(predictions, golds)
    assert scores["exact_match"] == pytest.approx(100 / 3)
    assert scores["f1"] == pytest.approx(100 * (1 + 2 * 2 / (2 + 3)) / 3)


@settings(max_examples=150, deadline=None)
@given(questions(0))
def test_v2_is_what_torchmetrics_says(rows: list[tuple[str, list[str]]]) -> None:
    predictions, golds = columns(rows)
    filled = [[text for text in texts if _normalize_text(text)] or [""] for texts in golds]
    scores = score_v2(predictions, golds)
    every = by_torchmetrics(predictions, filled)
    assert (scores["exact"], scores["f1"]) == pytest.approx((every["exact_match"], every["f1"]), rel=1e-5)
    assert scores["total"] == len(rows)
    for prefix, kind in (("HasAns", True), ("NoAns", False)):
        part = [row for row in range(len(rows)) if bool(golds[row]) is kind]
        assert (f"{prefix}_total" in scores) == bool(part)
        if part:
            each = by_torchmetrics([predictions[row] for row in part], [filled[row] for row in part])
            found = scores[f"{prefix}_exact"], scores[f"{prefix}_f1"]
            assert found == pytest.approx((each["exact_match"], each["f1"]), rel=1e-5)
            assert scores[f"{prefix}_total"] == len(part)
    assert not any(name.startswith("best") for name in scores)


@st.composite
def with_probabilities(draw: st.DrawFn) -> tuple[list[str], list[list[str]], list[float]]:
    """Questions, each with a no-answer probability of its own."""
    predictions, golds = columns(draw(questions(0)))
    order = draw(st.permutations(range(len(golds))))
    return predictions, golds, [(1 + place) / (1 + len(golds)) for place in order]


def raw(prediction: str, texts: list[str]) -> tuple[float, float]:
    """Exact match and F1 of one question by torchmetrics, 0 to 1."""
    golds = [text for text in texts if _normalize_text(text)] or [""]
    exact = max(float(_normalize_text(prediction) == _normalize_text(text)) for text in golds)
    return exact, max(float(_compute_f1_score(prediction, text)) for text in golds)


@settings(max_examples=150, deadline=None)
@given(with_probabilities())
def test_best_thresholds_are_the_best_of_all(rows: tuple[list[str], list[list[str]], list[float]]) -> None:
    predictions, golds, probabilities = rows
    scores = score_v2(predictions, golds, probabilities)

    def at(threshold: float, measure: int) -> float:
        total = 0.0
        for prediction, texts, probability in zip(*rows, strict=True):
            if probability > threshold:
                total += not texts
            else:
                total += raw(prediction, texts)[measure] if texts else not prediction
        return 100 * total / len(golds)

    for measure, name in enumerate(("exact", "f1")):
        points = {threshold: at(threshold, measure) for threshold in [0.0, *probabilities]}
        assert scores[f"best_{name}"] == pytest.approx(max(points.values()), rel=1e-5)
        assert points[scores[f"best_{name}_thresh"]] == pytest.approx(max(points.values()), rel=1e-5)


@settings(max_examples=80, deadline=None)
@given(with_probabilities(), st.floats(0, 1))
def test_a_threshold_empties_answers(
    rows: tuple[list[str], list[list[str]], list[float]], cut: float
) -> None:
    predictions, golds, probabilities = rows
    pairs = zip(predictions, probabilities, strict=True)
    emptied = ["" if probability > cut else prediction for prediction, probability in pairs]
    scores = score_v2(predictions, golds, probabilities, cut)
    # A question whose gold answers have no words counts as one with an answer: emptying it earns nothing.
    lost = sum(
        bool(texts) and probability > cut and not any(map(_normalize_text, texts))
        for texts, probability in zip(golds, probabilities, strict=True)
    )
    for name in ("exact", "f1"):
        expected = score_v2(emptied, golds)[name] - 100 * lost / len(golds)
        assert scores[name] == pytest.approx(expected, abs=1e-9)


def test_quirks_of_the_official_walk() -> None:
    equal = score_v2(["cat", "dog"], [["cat"], []], [0.5, 0.5])
    assert (equal["best_exact"], equal["best_exact_thresh"]) == (100.0, 0.5)  # between two equal questions
    article = score_v2(["the"], [[]], [0.5])
    assert article["exact"] == 100 and (article["best_exact"], article["best_exact_thresh"]) == (100.0, 0.0)
    without_words = score_v2(["cat", "of"], [["cat"], ["the"]])
    assert without_words["HasAns_total"] == 2 and without_words["HasAns_exact"] == 50


def test_only_an_empty_prediction_is_no_answer() -> None:
    scores = score_v2(["", "cat", ""], [[], [], ["cat"]])
    assert (scores["NoAns_exact"], scores["NoAns_f1"], scores["HasAns_exact"]) == (50.0, 50.0, 0.0)


@pytest.mark.parametrize("score", [score_v1, score_v2])
@pytest.mark.parametrize(("predictions", "golds"), [([], []), (["a"], [["a"], ["b"]])])
def test_lengths_must_fit(score, predictions: list[str], golds: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="predictions"):
        score(predictions, golds)


def test_v1_has_no_unanswerable_question() -> None:
    with pytest.raises(ValueError, match=r"golds\[1\] is empty.*score_v2"):
        score_v1(["a", "b"], [["a"], []])


@pytest.mark.parametrize(("probabilities", "word"), [([0.5], "1 no_answer"), ([0.1, math.nan], r"\[1\]=nan")])
def test_probabilities_are_numbers_one_for_each(probabilities: list[float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        score_v2(["a", "b"], [["a"], []], probabilities)
