"""Generated rows of kinds of task: the same every time, valid for the kind, and no row in two splits."""

from __future__ import annotations

import json
import zlib

import pytest

from qexp.config.embedding import BI_ENCODERS
from qexp.config.own_rows import SAMPLES
from qexp.data.sources.resolve import resolve
from qexp.data.synthetic import sample
from qexp.data.synthetic.own_kinds import OWN_KINDS
from tests.conftest import experiment

PINNED = 2373989101


def test_the_kinds_are_those_of_the_configuration() -> None:
    """Bi-encoders have rows of other tasks under other names of columns."""
    assert {*OWN_KINDS, *BI_ENCODERS} == {*SAMPLES}


def test_rows_are_pinned() -> None:
    """The same text on every platform and Python."""
    content = json.dumps(
        [[table.to_pylist() for table in sample(kind).values()] for kind in sorted(OWN_KINDS)]
    )
    assert zlib.crc32(content.encode()) == PINNED


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_rows_are_those_of_the_kind(kind: str) -> None:
    made = experiment(f"task={kind}", "data=sample")
    rows = resolve(made.data, made.task)
    assert {name: table.num_rows for name, table in rows.splits.items()} == OWN_KINDS[kind].sizes
    assert rows.source == "sample" and not rows.notes


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_no_row_in_two_splits(kind: str) -> None:
    first = next(iter(OWN_KINDS[kind].columns))
    sets = [{str(row) for row in table[first].to_pylist()} for table in sample(kind).values()]
    assert not set.intersection(*sets)


def test_documents_of_a_query_differ() -> None:
    for row in sample("reranking")["validation"].to_pylist():
        texts = [row["query"], *row["positive"], *row["negative"]]
        assert len({*texts}) == len(texts) == 9


def test_a_town_may_be_a_family_name() -> None:
    tags: dict[str, set[str]] = {}
    for row in sample("token_classification")["train"].to_pylist():
        for word, tag in zip(row["tokens"], row["ner_tags"], strict=True):
            tags.setdefault(word, set()).add(tag)
    assert any({"B-LOC", "I-PER"} <= each for each in tags.values())
