"""Tests that flat token arrays equal the tokenizer's output row by row."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from qexp.data.tokenization import texts
from qexp.data.tokenization.texts import TokenSplit, tokenize
from qexp.errors import ConfigError, ModelError
from tests.support.tokenizers import (
    WORDS,
    bert,
    byte_level,
    make_tokenizer,
    minilm,
    split_special,
    table_of,
    task_of,
    unigram_from_the_left,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


@pytest.fixture
def few_rows_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "ROWS_PER_CALL", 3)


TEXT = st.lists(st.sampled_from([*WORDS, "unknown", "cats", "[SEP]", "é"]), max_size=12).map(" ".join)
ROWS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=9)


FAST = make_tokenizer()
ORACLE = make_tokenizer().backend_tokenizer


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, columns=st.sampled_from([1, 2]), max_length=st.integers(8, 20))
def test_rows_are_what_the_tokenizer_says(rows: list[tuple[str, str]], columns: int, max_length: int) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(texts, "ROWS_PER_CALL", 4)
        split = tokenize(table_of(rows), task_of(columns, max_length=max_length), FAST, Path(folder))
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


# The same ids as a call of transformers' tokenizer, whatever its kind.


KINDS = [make_tokenizer, byte_level, unigram_from_the_left, bert, split_special, minilm]
cached = cache(lambda maker: maker())
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
HARD = st.one_of(
    TEXT, UNICODE, st.sampled_from(["", " ", "\u200b", "the " * 60, "日本語", "[MASK]</s>", "\x00"])
)


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(HARD, HARD), min_size=1, max_size=5),
    columns=st.sampled_from([1, 2]),
    max_length=st.integers(8, 40),
)
def test_ids_are_those_of_transformers(
    maker: Callable[[], PreTrainedTokenizerBase],
    rows: list[tuple[str, str]],
    columns: int,
    max_length: int,
) -> None:
    tokenizer = cached(maker)
    with TemporaryDirectory() as folder:
        split = tokenize(table_of(rows), task_of(columns, max_length=max_length), tokenizer, Path(folder))
    texts = [list(each) for each in zip(*rows, strict=True)][:columns]
    called = tokenizer(*texts, truncation="longest_first", max_length=max_length)
    whole = tokenizer(*texts, verbose=False)["input_ids"]
    zeros = [[0] * len(row) for row in called["input_ids"]]
    assert [row.tolist() for row in np.split(split.ids, split.offsets[1:-1])] == called["input_ids"]
    assert [row.tolist() for row in np.split(split.types, split.offsets[1:-1])] == called.get(
        "token_type_ids", zeros
    )
    assert split.truncated == sum(len(row) > max_length for row in whole)


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
def test_the_tokenizer_is_left_as_it_was(
    maker: Callable[[], PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    tokenizer = maker()
    before = tokenizer.backend_tokenizer.to_str()
    tokenize(table_of([("the cat " * 30, "a")]), task_of(2), tokenizer, tmp_path / "split")
    assert tokenizer.backend_tokenizer.to_str() == before
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["truncation"] == json.loads(before)["truncation"]
    assert saved["padding"] == json.loads(before)["padding"]


def test_the_tokenizer_is_left_as_it_was_after_an_error(tmp_path: Path) -> None:
    tokenizer = byte_level()
    before = tokenizer.backend_tokenizer.to_str()

    def fail(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize(table_of([("the", "a")]), task_of(2), tokenizer, tmp_path, fail)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert len(np.load(tmp_path / "ids.npy")) == 0


@pytest.mark.usefixtures("few_rows_per_call")
def test_arrays_have_the_promised_types(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    done: list[int] = []
    split = tokenize(table_of([("the cat", "sat")] * 7), task_of(2), tokenizer, tmp_path, done.append)
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
    assert done == [3, 3, 1]


def test_labels_of_a_regression_are_float32(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    table = table_of([("a", "b")] * 2).set_column(3, "label", [[0.5, 0.25]])
    split = tokenize(table, task_of(1, kind="regression"), tokenizer, tmp_path)
    assert split.labels.dtype == np.float32 and split.labels.tolist() == [0.5, 0.25]


def test_types_are_zeros_where_the_tokenizer_makes_none(tmp_path: Path) -> None:
    plain = make_tokenizer(model_input_names=["input_ids", "attention_mask"])
    split = tokenize(table_of([("a", "b")]), task_of(2), plain, tmp_path)
    assert split.types.tolist() == [0] * 5


def test_empty_text_is_two_special_tokens(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    assert tokenize(table_of([("", "")]), task_of(1), tokenizer, tmp_path).ids.tolist() == [2, 3]


def test_tokens_are_memory_mapped(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = [("the " * 30, "cat"), ("a", "b")]
    for split in (
        tokenize(table_of(rows), task_of(2), tokenizer, tmp_path),
        TokenSplit.load(tmp_path),
    ):
        for name in ("ids", "types", "offsets", "labels", "row_ids"):
            assert isinstance(getattr(split, name), np.memmap)
        assert split.truncated == 1
        assert split.lengths.tolist() == [16, 5]


MEMORY = """
import resource, sys
from pathlib import Path
from tests.support.tokenizers import make_tokenizer, table_of, task_of
from qexp.data.tokenization.texts import tokenize
tokenizer, rows = make_tokenizer(), [("the cat sat on a mat " * 4, "a cat " * 4)]
tokenize(table_of(rows * 2000), task_of(2, max_length=64), tokenizer, Path(sys.argv[1]))
table = table_of(rows * int(sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
split = tokenize(table, task_of(2, max_length=64), tokenizer, Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, split.ids.nbytes // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tokens(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), "100000"], capture_output=True, text=True, check=True
    )
    grown, size = map(int, done.stdout.split())
    assert size > 13_000
    assert grown < size  # in KiB; as lists of numbers, all tokens take four times their size on disk


def test_length_beyond_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.max_length=64.*32"):
        tokenize(
            table_of([("a", "b")]), task_of(1, max_length=64), make_tokenizer(model_max_length=32), tmp_path
        )


def test_slow_tokenizer_is_refused(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        tokenize(table_of([("a", "b")]), task_of(1), tokenizer, tmp_path)
