"""Tests of rankings and their metrics, against trec_eval's own code and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexp.data.metrics.corpus_ranking import Rankings, overlaps, rank
from qexp.data.metrics.ranking import RANKING, of_queries

TREC = {
    "ndcg_at_10": "ndcg_cut_10", "recall_at_10": "recall_10", "recall_at_100": "recall_100", "map": "map",
}  # fmt: skip
"""trec_eval's names of the metrics."""
NAMES = [f"d{number}" for number in range(30)]


def objects(rows: list[Any]) -> Any:
    made = np.empty(len(rows), object)
    made[:] = rows
    return made


def one(name: str, ranking: list[str], **grades: int) -> float:
    labels = [{"document": document, "relevance": grade} for document, grade in grades.items()]
    return float(of_queries(name, objects([tuple(ranking)]), objects([labels]))[0, 0])


def ranked(scores: list[float], names: list[str], top_k: int = 100, without: str | None = None) -> Rankings:
    """Rank documents whose cosines with the query are the given ones."""
    values = np.array(scores)
    documents = np.stack([values, np.sqrt(1 - values**2)], axis=1).astype(np.float32)
    return rank(np.array([[1, 0]], np.float32), documents, names, top_k, without=[without])


def test_by_hand() -> None:
    """Grades 3, 0, 2 at the ranks 1 to 3; a document with grade 1 is not found."""
    ranking = ["a", "b", "c"]
    grades = {"a": 3, "b": 0, "c": 2, "d": 1}
    ideal = 3 + 2 / np.log2(3) + 1 / 2
    assert one("ndcg_at_10", ranking, **grades) == pytest.approx((3 + 2 / 2) / ideal)
    assert one("recall_at_10", ranking, **grades) == pytest.approx(2 / 3)
    assert one("map", ranking, **grades) == pytest.approx((1 + 2 / 3) / 3)
    assert one("mrr_at_10", ["b", "c", "a"], **grades) == pytest.approx(1 / 2)


def test_a_cutoff_is_a_rank() -> None:
    ranking = [f"x{number}" for number in range(10)] + ["a"]
    assert one("mrr_at_10", ranking, a=1) == one("ndcg_at_10", ranking, a=1) == 0
    assert one("recall_at_100", ranking, a=1) == 1
    assert one("map", ranking, a=1) == pytest.approx(1 / 11)


@pytest.mark.parametrize("name", RANKING)
def test_a_query_without_a_relevant_document_counts_as_0(name: str) -> None:
    assert one(name, ["a"], a=0, b=-1) == 0


@given(st.data())
def test_metrics_are_those_of_trec_eval(data: st.DataObject) -> None:
    """Of rankings with ties, in its own order of them, and of grades below 0."""
    trec = pytest.importorskip("pytrec_eval")
    scores = data.draw(st.lists(st.sampled_from([-0.5, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30))
    judged = data.draw(st.dictionaries(st.sampled_from([*NAMES, "none"]), st.integers(-1, 3), min_size=1))
    found = ranked(scores, NAMES[: len(scores)], data.draw(st.integers(1, 30)))
    run = dict(zip(found.documents[0], map(float, found.scores[0]), strict=True))
    measures = {"ndcg_cut.10", "recall.10,100", "map", "recip_rank"}
    expected = trec.RelevanceEvaluator({"q": judged}, measures).evaluate({"q": run})["q"]
    for ours, theirs in TREC.items():
        assert one(ours, list(found.documents[0]), **judged) == pytest.approx(expected[theirs], abs=1e-9)
    first = {"q": dict(list(run.items())[:10])}
    cut = trec.RelevanceEvaluator({"q": judged}, measures).evaluate(first)["q"]["recip_rank"]
    assert one("mrr_at_10", list(found.documents[0]), **judged) == pytest.approx(cut, abs=1e-9)


def test_ties_are_in_the_order_of_larger_ids() -> None:
    found = ranked([0.5, 0.9, 0.5, 0.5], ["b", "a", "é", "c"])
    assert found.documents == [("a", "é", "c", "b")]
    assert ranked([0.5, 0.9, 0.5, 0.5], ["b", "a", "é", "c"], top_k=2).documents == [("a", "é")]


def test_a_ranking_is_that_of_all_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qexp.data.metrics.corpus_ranking.SCORES_AT_ONCE", 40)
    queries, documents = np.random.default_rng(0).normal(size=(2, 20, 8)).astype(np.float32)
    names = [f"d{number:02}" for number in range(20)]
    found = rank(queries, documents, names, 5, without=[None] * 20)
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, documents)]
    cosines = units[0] @ units[1].T
    for row, order in enumerate(np.argsort(-cosines, axis=1)[:, :5]):
        assert found.documents[row] == tuple(names[place] for place in order)
        np.testing.assert_allclose(found.scores[row], cosines[row, order], atol=1e-6)


def test_a_document_may_be_left_out() -> None:
    assert ranked([0.9, 0.5], ["q", "a"], without="q").documents == [("a",)]
    assert ranked([0.9, 0.5], ["q", "a"], without="z").documents == [("q", "a")]


def test_overlap_is_the_share_of_the_first_documents() -> None:
    ours, theirs = objects([("a", "b", "c"), ("a",)]), objects([("b", "d", "a"), ("a",)])
    assert overlaps(ours, theirs, 2).tolist() == [0.5, 1.0]
