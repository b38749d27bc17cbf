"""Tests of answers against loops over starts and ends per question, as in the protocol's description."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.data.metrics import answer_spans
from qexp.data.metrics.answer_spans import BestAnswers, Collector, SpanLimits
from qexp.data.tokenization.windows import Windowing, WindowSplit, tokenize_questions
from qexp.errors import ConfigError
from tests.support.question_rows import (
    NONE,
    bert,
    byte_level,
    minilm,
    real_table,
    rows_of_anything,
    rows_of_words,
    table_of,
)

cached = cache(lambda maker: maker())
ROWS = st.lists(st.one_of(rows_of_words(), rows_of_anything()), min_size=1, max_size=4)


class Case(NamedTuple):
    """Windows, the context of each row, and the logits of each window, without padding."""

    windows: WindowSplit
    contexts: pa.ChunkedArray
    starts: list[np.ndarray]
    ends: list[np.ndarray]


def make_case(table: pa.Table, form: Windowing, maker: Any, seed: int, *, coarse: bool) -> Case:
    """Random logits; coarse ones have many ties."""
    with TemporaryDirectory() as folder:
        split = tokenize_questions(table, form, cached(maker), Path(folder), answers=False)
        names = ("ids", "types", "spans", "offsets", "rows", "starts", "ends")
        windows = WindowSplit(**{name: np.array(getattr(split, name)) for name in names})
    rng = np.random.default_rng(seed)

    def logits(length: int) -> np.ndarray:
        drawn = rng.integers(-3, 4, length) if coarse else 4 * rng.standard_normal(length)
        return drawn.astype(np.float32)

    starts, ends = ([logits(length) for length in windows.lengths] for _ in range(2))
    return Case(windows, table["context"], starts, ends)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rows = [("the", "the cat", NONE), *draw(ROWS)]
    form = Windowing(8 + draw(st.integers(4, 40)), draw(st.integers(0, 3)), 4)
    maker = draw(st.sampled_from([bert, byte_level]))
    return make_case(table_of(rows), form, maker, draw(st.integers(0, 2**32)), coarse=draw(st.booleans()))


SEARCHES = st.builds(
    SpanLimits,
    n_best=st.sampled_from([1, 2, 5, 20]),
    max_answer_length=st.sampled_from([1, 3, 30]),
    null_threshold=st.sampled_from([None, 0.0, -2.0, 1.5]),
)


def collect(case: Case, search: SpanLimits, batches: list[list[int]]) -> BestAnswers:
    """What a Collector says; padding, which it must not read, is NaN."""
    collector = Collector(case.windows, case.contexts, search)
    for batch in batches:
        width = max((len(case.starts[window]) for window in batch), default=1)
        padded = np.full((2, len(batch), width), np.nan, np.float32)
        for place, window in enumerate(batch):
            padded[0, place, : len(case.starts[window])] = case.starts[window]
            padded[1, place, : len(case.ends[window])] = case.ends[window]
        collector.add(np.array(batch, np.int64), *padded)
    return collector.answers()


def by_loops(case: Case, search: SpanLimits, *, every_token: bool = False) -> list[dict[str, Any]]:
    """Each question on its own; with ``every_token``, all tokens of a window compete to be tried."""
    found = []
    for row, context in enumerate(case.contexts.to_pylist()):
        spans, null = [], math.inf
        for window in np.flatnonzero(case.windows.rows == row).tolist():
            begin, end = case.windows.offsets[window], case.windows.offsets[window + 1]
            characters = case.windows.spans[begin:end].tolist()
            of_context = [place for place, (low, high) in enumerate(characters) if high > low]
            start, stop = case.starts[window].tolist(), case.ends[window].tolist()
            null = min(null, start[0] + stop[0])
            tried = range(len(characters)) if every_token else of_context
            firsts, lasts = (
                sorted(tried, key=lambda place, logits=logits: (-logits[place], place))[: search.n_best]
                for logits in (start, stop)
            )
            for first in firsts:
                for last in lasts:
                    allowed = first in of_context and last in of_context
                    if allowed and first <= last and last - first + 1 <= search.max_answer_length:
                        place = (characters[first][0], characters[last][1])
                        spans.append((-(start[first] + stop[last]), window, first, last, place))
        best = sorted(spans)[: search.n_best]
        scores = [-score for score, *_ in best]
        text = context[slice(*best[0][-1])] if best else ""
        if search.null_threshold is not None and best and null - scores[0] > search.null_threshold:
            text = ""
        beside = [null] if search.null_threshold is not None and null < math.inf else []
        highest = max([*scores, *beside], default=0.0)
        total = sum(math.exp(each - highest) for each in [*scores, *beside])
        found.append(
            {
                "text": text,
                "spans": [place for *_, place in best],
                "scores": scores,
                "probabilities": [math.exp(score - highest) / total for score in scores],
                "null": null,
                "no_answer": math.exp(null - highest) / total if beside else float(not best),
            }
        )
    return found


def assert_same(answers: BestAnswers, expected: list[dict[str, Any]]) -> None:
    assert answers.texts == [each["text"] for each in expected]
    for row, each in enumerate(expected):
        count = len(each["scores"])
        assert [tuple(span) for span in answers.spans[row].tolist()[:count]] == each["spans"]
        assert (answers.spans[row, count:] == -1).all()
        assert answers.scores[row, :count].tolist() == each["scores"]
        assert (answers.scores[row, count:] == -np.inf).all()
        assert answers.probabilities[row, :count].tolist() == pytest.approx(each["probabilities"])
        assert (answers.probabilities[row, count:] == 0).all()
        assert answers.null_scores[row] == each["null"]
        assert answers.no_answer_probabilities[row] == pytest.approx(each["no_answer"])


@settings(max_examples=150, deadline=None)
@given(case=cases(), search=SEARCHES, data=st.data())
def test_answers_are_those_of_the_loops(case: Case, search: SpanLimits, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(case.windows))))
    size = data.draw(st.integers(1, 7))
    batches = [list(order[start : start + size]) for start in range(0, len(order), size)]
    found = collect(case, search, batches)
    assert_same(found, by_loops(case, search))
    assert found.broken == 0


@settings(max_examples=60, deadline=None)
@given(case=cases(), search=SEARCHES)
def test_where_the_context_scores_highest_all_tokens_may_compete(case: Case, search: SpanLimits) -> None:
    """As the examples of transformers do it; the same unless a token outside the context takes a place."""
    for window, (start, end) in enumerate(zip(case.starts, case.ends, strict=True)):
        spans = case.windows.spans[case.windows.offsets[window] : case.windows.offsets[window + 1]]
        outside = spans[:, 1] <= spans[:, 0]
        start[outside] -= 100
        end[outside] -= 100
    every = [list(range(len(case.windows)))]
    assert_same(collect(case, search, every), by_loops(case, search, every_token=True))


@settings(max_examples=40, deadline=None)
@given(case=cases(), search=SEARCHES)
def test_how_much_is_weighed_at_once_changes_nothing(case: Case, search: SpanLimits) -> None:
    every = [list(range(len(case.windows)))]
    at_once = collect(case, search, every)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_spans, "PAIRS_AT_ONCE", 1)
        patch.setattr(answer_spans, "_ROWS_READ", 2)
        in_parts = collect(case, search, every)
    for name in ("spans", "scores", "probabilities", "null_scores", "no_answer_probabilities"):
        np.testing.assert_array_equal(getattr(in_parts, name), getattr(at_once, name))
    assert in_parts.texts == at_once.texts


def two_windows() -> Case:
    """One question whose context fills two windows of 7 tokens at most, three of the context."""
    case = make_case(
        table_of([("the", "a cat in the house", NONE)]), Windowing(7, 0, 1), bert, 0, coarse=True
    )
    assert len(case.windows) == 2 and case.windows.lengths.tolist() == [7, 6]
    for logits in (*case.starts, *case.ends):
        logits[:] = 0
    return case


def test_equal_spans_come_in_the_order_of_their_places() -> None:
    found = collect(two_windows(), SpanLimits(n_best=5, max_answer_length=2), [[1], [0]])
    texts = ["a cat in the house"[low:high] for low, high in found.spans[0].tolist()]
    assert texts == ["a", "a cat", "cat", "cat in", "in"]
    assert found.texts == ["a"]


def test_no_answer_is_the_least_of_all_windows() -> None:
    case = two_windows()
    case.starts[0][0], case.starts[1][0] = 9, 3
    case.starts[1][3] = case.ends[1][4] = 1
    for threshold, text in ((None, "the house"), (0.0, ""), (0.5, ""), (1.0, "the house"), (-5.0, "")):
        found = collect(case, SpanLimits(null_threshold=threshold), [[0, 1]])
        assert found.texts == [text] and found.null_scores.tolist() == [3.0]
    assert collect(case, SpanLimits(), [[0, 1]]).no_answer_probabilities.tolist() == [0.0]


def test_a_question_without_any_span_has_no_answer() -> None:
    case = two_windows()
    for window in (0, 1):
        case.starts[window][-2] = case.ends[window][3] = 5  # the only start tried is behind the only end
    for threshold in (None, 9.0):
        found = collect(case, SpanLimits(n_best=1, null_threshold=threshold), [[0, 1]])
        assert found.texts == [""] and found.no_answer_probabilities.tolist() == [1.0]
        assert found.spans.tolist() == [[[-1, -1]]]


def test_rows_that_were_skipped_have_no_answer() -> None:
    rows: list[Any] = [("the", None, NONE), ("the", "the cat", NONE), ("", "the cat", NONE)]
    case = make_case(table_of(rows), Windowing(16, 0, 4), bert, 1, coarse=False)
    for threshold in (None, 100.0):
        found = collect(case, SpanLimits(null_threshold=threshold), [[0]])
        assert found.texts[0] == found.texts[2] == "" and found.texts[1]
        assert found.null_scores[[0, 2]].tolist() == [np.inf, np.inf]
        assert found.no_answer_probabilities[[0, 2]].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3])
def test_a_window_with_a_broken_logit_is_left_out(value: float, place: int) -> None:
    case = two_windows()
    case.ends[0][place] = value
    found = collect(case, SpanLimits(), [[0, 1]])
    assert found.broken == 1 and found.texts == ["the"]
    assert np.isfinite(found.probabilities).all()
    case.ends[1][place] = value
    found = collect(case, SpanLimits(), [[0, 1]])
    assert found.broken == 2 and found.texts == [""] and found.null_scores.tolist() == [np.inf]


def test_a_broken_logit_of_the_question_is_not_read() -> None:
    case = two_windows()
    case.ends[0][1] = np.nan
    assert collect(case, SpanLimits(), [[0, 1]]).broken == 0


def test_windows_come_once_and_all() -> None:
    case = two_windows()
    with pytest.raises(ValueError, match="twice"):
        collect(case, SpanLimits(), [[0, 0]])
    with pytest.raises(ValueError, match="twice"):
        collect(case, SpanLimits(), [[0], [1, 0]])
    with pytest.raises(ValueError, match="1 windows were not added, the first is 1"):
        collect(case, SpanLimits(), [[0]])
    collector = Collector(case.windows, case.contexts, SpanLimits())
    with pytest.raises(ValueError, match="there are 2"):
        collector.add(np.array([2]), np.zeros((1, 9)), np.zeros((1, 9)))
    with pytest.raises(ValueError, match="5 tokens for a window of 7"):
        collector.add(np.array([0]), np.zeros((1, 5)), np.zeros((1, 5)))
    with pytest.raises(ValueError, match="must be"):
        collector.add(np.array([0]), np.zeros((1, 9)), np.zeros((1, 8)))
    with pytest.raises(ValueError, match="must be"):
        collector.add(np.array([0, 1]), np.zeros((1, 9)), np.zeros((1, 9)))


@pytest.mark.parametrize("field", ["n_best", "max_answer_length"])
def test_a_search_finds_something(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}=0"):
        SpanLimits(**{field: 0})


def test_real_contexts() -> None:
    table = real_table(150)
    case = make_case(table, Windowing(128, 32, 64), minilm, 3, coarse=False)
    order = np.random.default_rng(4).permutation(len(case.windows))
    batches = [part.tolist() for part in np.array_split(order, len(order) // 32)]
    for search in (SpanLimits(), SpanLimits(null_threshold=0.0)):
        assert_same(collect(case, search, batches), by_loops(case, search))


def test_the_gold_tokens_score_as_they_should(tmp_path: Path) -> None:
    """Logits that point at the gold answer come back as it, from real rows to the official score."""
    from qexp.data.metrics.squad import score_v1

    table = real_table(300)
    windows = tokenize_questions(table, Windowing(128, 32, 64), cached(minilm), tmp_path, answers=True)
    collector = Collector(windows, table["context"], SpanLimits())
    for window, length in enumerate(windows.lengths.tolist()):
        logits = np.zeros((2, 1, length))
        if windows.starts[window]:
            logits[0, 0, windows.starts[window]] = logits[1, 0, windows.ends[window]] = 9
        collector.add(np.array([window]), *logits)
    golds = [each["text"] for each in table["answers"].to_pylist()]
    scores = score_v1(collector.answers().texts, golds)
    assert scores["exact_match"] > 96  # the other answers end inside a token, as "gold" in "golden"
