"""Metrics of rankings against a case by hand, scikit-learn and pytrec_eval; ties; places and gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from qexp.data.metrics.candidate_places import gaps, places, reordered
from qexp.data.metrics.ranking import CANDIDATES, ndcg_of_any_order, of_candidates, ranked_relevance
from qexp.data.metrics.vectorized import measures_for, observed

GRADES = st.lists(st.integers(0, 3), min_size=2, max_size=30).filter(any)
SEEDS = st.integers(0, 2**32 - 1)


def objects(rows: list[tuple[float, ...]]) -> np.ndarray:
    found = np.empty(len(rows), object)
    found[:] = rows
    return found


def value(name: str, scores: list[float], relevance: list[float]) -> float:
    return float(of_candidates(name, objects([tuple(scores)]), objects([tuple(relevance)]))[0, 0])


def distinct(count: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).permutation(count).astype(float).tolist()


def test_a_case_by_hand() -> None:
    """Relevant documents with grades 1 and 3 at ranks 2 and 4."""
    scores, relevance = [0.9, 0.8, 0.7, 0.6], [0, 1, 0, 3]
    gain = 1 / math.log2(3) + 3 / math.log2(5)
    assert value("ndcg_at_10", scores, relevance) == pytest.approx(gain / (3 + 1 / math.log2(3)))
    assert value("mrr_at_10", scores, relevance) == 1 / 2
    assert value("map", scores, relevance) == (1 / 2 + 2 / 4) / 2


def test_what_lies_behind_the_tenth_document_counts_for_map_alone() -> None:
    scores, relevance = [float(-place) for place in range(12)], [0.0] * 11 + [1.0]
    found = {name: value(name, scores, relevance) for name in CANDIDATES}
    assert found == {"ndcg_at_10": 0, "mrr_at_10": 0, "map": pytest.approx(1 / 12)}


@given(GRADES, SEEDS)
def test_against_scikit_learn(grades: list[int], seed: int) -> None:
    scores = distinct(len(grades), seed)
    expected = ndcg_score([grades], [scores], k=10)
    assert value("ndcg_at_10", scores, grades) == pytest.approx(expected)
    binary = [grade > 0 for grade in grades]
    assert value("map", scores, grades) == pytest.approx(average_precision_score(binary, scores))


@given(st.lists(st.tuples(GRADES, SEEDS), min_size=1, max_size=4))
def test_against_pytrec_eval(queries: list[tuple[list[int], int]]) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    judged, run, sides = {}, {}, ([], [])
    for number, (grades, seed) in enumerate(queries):
        scores = distinct(len(grades), seed)
        judged[str(number)] = {str(place): grade for place, grade in enumerate(grades)}
        run[str(number)] = {str(place): score for place, score in enumerate(scores)}
        sides[0].append(tuple(scores))
        sides[1].append(tuple(map(float, grades)))
    names = {"ndcg_at_10": "ndcg_cut_10", "map": "map"}
    found = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "map"}).evaluate(run)
    for ours, theirs in names.items():
        mean = 100 * np.mean([each[theirs] for each in found.values()])
        measure = measures_for("reranking")[ours]
        assert observed(measure, objects(sides[0]), objects(sides[1])) == pytest.approx(mean)


@given(GRADES, SEEDS)
def test_ties_are_ranked_against_the_model(grades: list[int], seed: int) -> None:
    draws = np.random.default_rng(seed)
    scores = draws.integers(0, 3, len(grades)).astype(float)
    order = draws.permutation(len(grades))
    for name in CANDIDATES:
        tied = value(name, scores.tolist(), grades)
        assert tied == value(name, scores[order].tolist(), np.array(grades)[order].tolist())
        broken = scores - 1e-3 * np.array(grades)
        assert tied == pytest.approx(value(name, broken.tolist(), grades))
    assert ranked_relevance([1.0] * len(grades), grades).tolist() == sorted(grades)


def test_a_random_order_has_the_expected_value() -> None:
    draws = np.random.default_rng(0)
    grades = objects([(2.0, 0.0, 0.0, 1.0, 0.0), (1.0, 0.0)])
    drawn = [
        np.mean(
            of_candidates("ndcg_at_10", objects([tuple(draws.random(5)), tuple(draws.random(2))]), grades)
        )
        for _ in range(4000)
    ]
    assert ndcg_of_any_order(10, grades) == pytest.approx(np.mean(drawn), abs=0.01)


def test_places_and_gaps_of_documents() -> None:
    scores, counts = np.array([0.5, 0.9, 0.5, 0.1, 7.0, 1.0, 3.0]), np.array([4, 1, 2])
    assert places(scores, counts).tolist() == [1, 0, 1, 3, 0, 1, 0]
    np.testing.assert_allclose(gaps(scores, counts), [0, 0.4, 0, 0.4, np.inf, 2, 2])


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=5), SEEDS)
def test_only_another_order_is_one(rows: list[list[int]], seed: int) -> None:
    first = objects([tuple(map(float, row)) for row in rows])
    assert not reordered(objects([tuple(3 * each + 1 for each in row) for row in first]), first).any()
    back = objects([tuple(-each for each in row) for row in first])
    assert reordered(back, first).tolist() == [len({*row}) > 1 for row in rows]
