"""Tokens: what the tokenizer says row by row, stored flat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from qexp.config import Task
from qexp.data import tokens
from qexp.data.tokens import TokenSplit, tokenize
from qexp.errors import ConfigError, ModelError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["the", "cat", "sat", "on", "mat", "a", "b", "##s", "##at"]


def make_tokenizer(**options: object) -> PreTrainedTokenizerBase:
    vocabulary = {token: number for number, token in enumerate(SPECIAL + WORDS)}
    backend = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    inputs = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"], "model_max_length": 512}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**inputs, **names, **options})


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


@pytest.fixture
def few_rows_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "ROWS_PER_CALL", 3)


def task_of(columns: int, *, max_length: int = 16, kind: str = "classification") -> Task:
    return Task.model_validate(
        {
            "name": "any",
            "kind": kind,
            "text": ("one", "two")[:columns],
            "labels": ("no", "yes") if kind == "classification" else (),
            "metrics": ("accuracy",),
            "max_length": max_length,
            "evaluation": {"validation": "validation"},
        }
    )


def table_of(rows: list[tuple[str, str]]) -> pa.Table:
    number = np.arange(len(rows))
    return pa.table(
        {
            "id": number * 7,
            "one": pa.array([row[0] for row in rows], pa.string()),
            "two": pa.array([row[1] for row in rows], pa.string()),
            "label": number % 2,
        }
    )


TEXT = st.lists(st.sampled_from([*WORDS, "unknown", "cats", "[SEP]", "é"]), max_size=12).map(" ".join)
ROWS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=9)


FAST = make_tokenizer()
ORACLE = make_tokenizer().backend_tokenizer


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, columns=st.sampled_from([1, 2]), max_length=st.integers(8, 20))
def test_rows_are_what_the_tokenizer_says(rows: list[tuple[str, str]], columns: int, max_length: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "ROWS_PER_CALL", 4)
        split = tokenize(table_of(rows), task_of(columns, max_length=max_length), FAST)
    cut = 0
    for number, row in enumerate(rows):
        ORACLE.no_truncation()
        cut += len(ORACLE.encode(*row[:columns])) > max_length
        ORACLE.enable_truncation(max_length, strategy="longest_first")
        expected = ORACLE.encode(*row[:columns])
        span = slice(split.offsets[number], split.offsets[number + 1])
        assert split.ids[span].tolist() == expected.ids
        assert split.types[span].tolist() == expected.type_ids
    assert split.truncated == cut
    assert len(split) == len(rows) and split.lengths.sum() == len(split.ids)


@pytest.mark.usefixtures("few_rows_per_call")
def test_arrays_have_the_promised_types(tokenizer: PreTrainedTokenizerBase) -> None:
    split = tokenize(table_of([("the cat", "sat")] * 7), task_of(2), tokenizer)
    kinds = {
        name: getattr(split, name).dtype.name for name in ("ids", "types", "offsets", "labels", "row_ids")
    }
    assert kinds == {
        "ids": "int32",
        "types": "uint8",
        "offsets": "int64",
        "labels": "int64",
        "row_ids": "int64",
    }
    assert split.row_ids.tolist() == [0, 7, 14, 21, 28, 35, 42]
    assert split.ids[: split.offsets[1]].tolist() == [2, 4, 5, 3, 6, 3]
    assert split.types[: split.offsets[1]].tolist() == [0, 0, 0, 0, 1, 1]


def test_labels_of_a_regression_are_float32(tokenizer: PreTrainedTokenizerBase) -> None:
    table = table_of([("a", "b")] * 2).set_column(3, "label", [[0.5, 0.25]])
    split = tokenize(table, task_of(1, kind="regression"), tokenizer)
    assert split.labels.dtype == np.float32 and split.labels.tolist() == [0.5, 0.25]


def test_types_are_zeros_where_the_tokenizer_makes_none() -> None:
    plain = make_tokenizer(model_input_names=["input_ids", "attention_mask"])
    split = tokenize(table_of([("a", "b")]), task_of(2), plain)
    assert split.types.tolist() == [0] * 5


def test_empty_text_is_two_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenize(table_of([("", "")]), task_of(1), tokenizer).ids.tolist() == [2, 3]


def test_saved_tokens_come_back_memory_mapped(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    split = tokenize(table_of([("the " * 30, "cat"), ("a", "b")]), task_of(2), tokenizer)
    split.save(tmp_path / "train")
    loaded = TokenSplit.load(tmp_path / "train")
    for name in ("ids", "types", "offsets", "labels", "row_ids"):
        assert isinstance(getattr(loaded, name), np.memmap)
        np.testing.assert_array_equal(getattr(loaded, name), getattr(split, name), strict=True)
    assert loaded.truncated == split.truncated == 1
    assert loaded.lengths.tolist() == split.lengths.tolist()


def test_length_beyond_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.max_length=64.*32"):
        tokenize(table_of([("a", "b")]), task_of(1, max_length=64), make_tokenizer(model_max_length=32))


def test_slow_tokenizer_is_refused(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        tokenize(table_of([("a", "b")]), task_of(1), tokenizer)
