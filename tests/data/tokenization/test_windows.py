"""Tests of windows against transformers' own call, and of the answer characters in them."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from qexp.data.skipped import Skipped
from qexp.data.sources import questions
from qexp.data.tokenization import windows
from qexp.data.tokenization.windows import Windowing, WindowSplit, tokenize_questions
from qexp.errors import ConfigError, DataError, ModelError
from tests.support.question_rows import (
    KINDS,
    NONE,
    Row,
    bert,
    byte_level,
    make_tokenizer,
    minilm,
    real_table,
    rows_of_anything,
    rows_of_words,
    said,
    table_of,
    unigram,
)
from tests.support.tokenizers import unigram_from_the_left

Maker = Callable[[], PreTrainedTokenizerBase]
cached = cache(lambda maker: maker())
ROWS = st.lists(st.one_of(rows_of_words(), rows_of_anything()), min_size=1, max_size=4)


@st.composite
def forms(draw: st.DrawFn) -> Windowing:
    """Lengths that leave room for 1 to 20 new tokens."""
    stride, question = draw(st.integers(0, 9)), draw(st.integers(1, 40))
    return Windowing(4 + question + stride + draw(st.integers(1, 20)), stride, question)


def cut(rows: list[Row], form: Windowing, tokenizer: PreTrainedTokenizerBase, **options: Any) -> WindowSplit:
    """The windows of a small table, in memory."""
    with TemporaryDirectory() as folder:
        split = tokenize_questions(
            table_of(rows), form, tokenizer, Path(folder), **{"answers": True, **options}
        )
        names = ("ids", "types", "spans", "offsets", "rows", "starts", "ends")
        arrays = {name: np.array(getattr(split, name)) for name in names}
        return WindowSplit(**arrays, cut_questions=split.cut_questions, skipped=split.skipped)


def whole(text: str, tokenizer: PreTrainedTokenizerBase) -> Encoding:
    backend = tokenizer.backend_tokenizer
    with windows.untruncated_backend(tokenizer):
        return backend.encode(text, add_special_tokens=False)


def changed(encoding: Encoding, **fields: list[Any]) -> Encoding:
    state = json.loads(encoding.__getstate__())
    other = Encoding()
    other.__setstate__(json.dumps({**state, **fields}).encode())
    return other


def expected(row: Row, form: Windowing, tokenizer: PreTrainedTokenizerBase) -> list[Encoding]:
    """The windows of one row as the Rust tokenizer makes them, the question cut before."""
    backend = tokenizer.backend_tokenizer
    question, context = whole(row[0].lstrip(), tokenizer), whole(row[1], tokenizer)
    question.truncate(form.max_question)
    question = changed(question, overflowing=[])  # else it is combined with every window of the context
    context = changed(context, type_ids=[1] * len(context))  # as of any second text
    with windows.untruncated_backend(tokenizer):
        backend.enable_truncation(form.max_length, stride=form.doc_stride, strategy="only_second")
        first = backend.post_process(question, context)
    return [first, *first.overflowing]


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
@settings(max_examples=25, deadline=None)
@given(rows=ROWS, form=forms())
def test_windows_are_those_of_the_tokenizer(maker: Maker, rows: list[Row], form: Windowing) -> None:
    tokenizer = cached(maker)
    rows = [("the", "the cat", NONE), *rows]
    split = cut(rows, form, tokenizer, answers=False)
    typed = "token_type_ids" in tokenizer.model_input_names
    made = [(number, each) for number, row in enumerate(rows) for each in expected(row, form, tokenizer)]
    skipped = {int(name[1:]) for each in split.skipped for name in each.first_ids}
    made = [(number, each) for number, each in made if number not in skipped]
    assert split.rows.tolist() == [number for number, _ in made]
    for (_, each), first, end in zip(made, split.offsets[:-1], split.offsets[1:], strict=True):
        assert split.ids[first:end].tolist() == each.ids
        assert split.types[first:end].tolist() == (each.type_ids if typed else [0] * len(each))
        assert (split.spans[first:end, 0] >= 0).tolist() == [side == 1 for side in each.sequence_ids]
    assert split.cut_questions == sum(
        len(whole(row[0].lstrip(), tokenizer)) > form.max_question
        for number, row in enumerate(rows)
        if number not in skipped
    )
    assert all(not len(whole(rows[number][1], tokenizer)) for number in skipped)


@pytest.mark.parametrize("maker", [bert, byte_level, minilm], ids=lambda maker: maker.__name__)
@settings(max_examples=25, deadline=None)
@given(row=rows_of_words(), form=forms())
def test_ids_are_those_of_a_call_of_transformers(maker: Maker, row: Row, form: Windowing) -> None:
    tokenizer = cached(maker)
    form = Windowing(form.max_length + 60, form.doc_stride, 60)
    row = (row[0][:15], *row[1:])
    split = cut([row], form, tokenizer)
    called = tokenizer(
        row[0].lstrip(),
        row[1],
        truncation="only_second",
        max_length=form.max_length,
        stride=form.doc_stride,
        return_overflowing_tokens=True,
    )
    ids, types = (np.split(each, split.offsets[1:-1]) for each in (split.ids, split.types))
    assert [part.tolist() for part in ids] == called["input_ids"]
    if "token_type_ids" in tokenizer.model_input_names:
        assert [part.tolist() for part in types] == called["token_type_ids"]


def is_marks(text: str) -> bool:
    return all(unicodedata.category(character) in {"Mn", "Me"} for character in text)


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
@settings(max_examples=25, deadline=None)
@given(rows=ROWS, form=forms())
def test_characters_and_answers(maker: Maker, rows: list[Row], form: Windowing) -> None:
    """A token has the characters that the tokenizer says, and marks it drops; places by trying each token."""
    tokenizer = cached(maker)
    rows = [("the", "the cat", NONE), *rows]
    split = cut(rows, form, tokenizer)
    for number, (_, context, answers) in enumerate(rows):
        plain, seen = whole(context, tokenizer).offsets, 0
        of_row = np.flatnonzero(split.rows == number)
        spans = np.full((len(plain), 2), -1)
        for window in of_row:
            inside = split.spans[split.offsets[window] : split.offsets[window + 1]]
            inside = inside[inside[:, 0] >= 0]
            first = 0 if window == of_row[0] else seen - form.doc_stride
            spans[first : first + len(inside)] = inside
            seen = first + len(inside)
        if not len(of_row):
            assert number in {int(name[1:]) for each in split.skipped for name in each.first_ids}
            continue
        assert seen == len(plain)
        for token, ((start, end), (low, high)) in enumerate(zip(spans.tolist(), plain, strict=True)):
            assert start == low and end >= high and is_marks(context[high:end])
            assert end == high or token + 1 == len(plain) or end <= plain[token + 1][0]
        _check_places(split, of_row, spans, answers, form)


def _check_places(
    split: WindowSplit, of_row: np.ndarray, spans: np.ndarray, answers: dict[str, list[Any]], form: Windowing
) -> None:
    first_token = 0
    for window in of_row:
        inside = np.flatnonzero(split.spans[split.offsets[window] : split.offsets[window + 1], 0] >= 0)
        places = [0, 0]
        if answers["text"]:
            start, text = answers["answer_start"][0], answers["text"][0]
            over = [
                token
                for token, (low, high) in enumerate(spans.tolist())
                if high > start and low < start + len(text)
            ]
            if over[0] >= first_token and over[-1] < first_token + len(inside):
                places = [int(inside[0]) + over[place] - first_token for place in (0, -1)]
        assert [int(split.starts[window]), int(split.ends[window])] == places
        first_token += len(inside) - form.doc_stride


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
@settings(max_examples=40, deadline=None)
@given(row=rows_of_words(), form=forms())
def test_the_answer_comes_back_from_its_tokens(maker: Maker, row: Row, form: Windowing) -> None:
    split = cut([row], form, cached(maker), strict=True)
    (text,), (start,) = row[2]["text"], row[2]["answer_start"]
    for window in np.flatnonzero(split.starts):
        spans = split.spans[split.offsets[window] : split.offsets[window + 1]]
        low, high = int(spans[split.starts[window], 0]), int(spans[split.ends[window], 1])
        if maker in (unigram, byte_level):  # whose tokens have the white space before a word in them
            assert low <= start and start + len(text) <= high
        else:
            assert (low, row[1][low:high]) == (start, text)


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
def test_an_answer_that_fits_is_whole_in_a_window(maker: Maker) -> None:
    context = "the cat sat " * 30 + "é 😀\r\ncafe\u0301s " + "the cat " * 30
    answer = "😀\r\ncafe\u0301s"
    row = ("the", context, said(answer, context.index(answer)))
    split = cut([row], Windowing(64, 32, 8), cached(maker), strict=True)
    assert len(split) > 3 and 1 <= np.count_nonzero(split.starts) < len(split)
    assert ((split.starts > 0) == (split.ends > 0)).all()


# Rows that cannot be used.

BAD: list[tuple[Row, str]] = [
    (("", "the cat", NONE), "the question is empty"),
    ((" \n", "the cat", NONE), "the question is empty"),
    (("the", "", NONE), "the context is empty"),
    (("the", "\t", said("the", 0)), "the context is empty"),
    (("the", "the cat", said("cat", 3)), "the answer is not at answer_start"),
    (("the", "the cat", said("cat", -3)), "the answer is not at answer_start"),
    (("the", "the cat", said("cat", 99)), "the answer is not at answer_start"),
    (("the", "the cat", said("cats", 4)), "the answer is not at answer_start"),
    (("the", "the cat", said("the cat sat", 0)), "the answer is longer than its context"),
    (("the", "the cat", said(" ", 3)), "the answer is empty"),
    (("the", "the cat", {"text": ["a"], "answer_start": []}), "two lists of one length"),
]
GOOD: Row = ("the", "the cat sat", said("cat", 4))


@pytest.mark.parametrize(("row", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_row_is_skipped_or_refused(row: Row, reason: str) -> None:
    split = cut([GOOD, row, GOOD], Windowing(32, 8, 8), cached(bert))
    assert split.rows.tolist() == [0, 2]
    (skipped,) = split.skipped
    assert reason in skipped.reason and (skipped.rows, skipped.first_ids) == (1, ("q1",))
    with pytest.raises(DataError, match=rf"row 1 .*id q1\).*{reason}.*correct"):
        cut([GOOD, row, GOOD], Windowing(32, 8, 8), cached(bert), strict=True)


def test_the_message_shows_what_stands_there() -> None:
    with pytest.raises(DataError, match=r"answer_start=3: there is ' ca', not 'cat'"):
        cut([("the", "the cat", said("cat", 3))], Windowing(32, 8, 8), cached(bert), strict=True)


def test_nulls_are_empty_texts() -> None:
    rows: list[Any] = [GOOD, (None, "the", NONE), ("the", None, NONE), ("the", "the", None)]
    split = cut(rows, Windowing(32, 8, 8), cached(bert))
    assert split.rows.tolist() == [0] and sum(each.rows for each in split.skipped) == 3


def test_a_text_of_control_characters_has_no_token() -> None:
    rows = [GOOD, ("the", "\u0001\u0002", NONE), ("the", "the \u0001 cat", said("\u0001", 4))]
    split = cut(rows, Windowing(32, 8, 8), cached(bert))
    assert split.skipped == (
        Skipped("the context has no token", 1, ("q1",)),
        Skipped("the answer has no token", 1, ("q2",)),
    )
    assert split.rows.tolist() == [0]


def test_only_the_first_ids_are_named() -> None:
    split = cut([("", "the", NONE)] * 7 + [GOOD], Windowing(32, 8, 8), cached(bert))
    expected = "7 rows skipped, the question is empty: q0, q1, q2, q3, q4, ..."
    assert [str(each) for each in split.skipped] == [expected]
    once = cut([("", "the", NONE), GOOD], Windowing(32, 8, 8), cached(bert))
    assert str(once.skipped[0]) == "1 rows skipped, the question is empty: q0"


@pytest.mark.parametrize("rows", [[], [("", "the", NONE)]])
def test_no_row_at_all_is_an_error(rows: list[Row]) -> None:
    with pytest.raises(DataError, match=r"no row of . can be used \(.*empty"):
        cut(rows, Windowing(32, 8, 8), cached(bert))


def test_answers_are_not_read_where_none_are_asked_for() -> None:
    split = cut([("the", "the cat", said("dog", 99))], Windowing(32, 8, 8), cached(bert), answers=False)
    assert not split.skipped and split.starts.tolist() == [0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            table_of([GOOD]).drop_columns(["context"]),
            r"one column 'context'; present are id, question, answers",
        ),
        (table_of([GOOD]).drop_columns(["answers"]), r"one column 'answers'"),
        (table_of([GOOD]).set_column(1, "question", pa.array([3])), r"'question': its type is int64"),
        (
            table_of([GOOD]).set_column(3, "answers", pa.array(["a"])),
            r"'answers': its type is string.*struct",
        ),
        (table_of([GOOD]).set_column(3, "answers", pa.array([{"text": "a"}])), r"'answers': its type"),
    ],
)
def test_columns_must_be_there(table: pa.Table, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        tokenize_questions(table, Windowing(32, 8, 8), cached(bert), tmp_path, answers=True)


def test_bytes_that_are_not_utf_8() -> None:
    """As a parquet file has them that was written from Latin-1: Arrow reads it without a word."""
    table = table_of([GOOD] * 5)
    for row, name in ((1, "question"), (2, "context"), (4, "id")):
        texts = [text.encode() for text in table[name].to_pylist()]
        texts[row] += b" caf\xe9"
        strings = pa.Array.from_buffers(pa.string(), 5, pa.array(texts, pa.binary()).buffers())
        table = table.set_column(table.column_names.index(name), name, strings)
    with TemporaryDirectory() as folder:
        split = tokenize_questions(table, Windowing(32, 8, 8), cached(bert), Path(folder), answers=True)
        assert split.rows.tolist() == [0, 3, 4] and split.skipped == (
            Skipped("column 'question' is not UTF-8", 1, ("q1",)),
            Skipped("column 'context' is not UTF-8", 1, ("q2",)),
        )
        with pytest.raises(DataError, match=r"row 1 .*'question' is not UTF-8: byte 0xe9 at 7; correct"):
            tokenize_questions(
                table, Windowing(32, 8, 8), cached(bert), Path(folder), answers=True, strict=True
            )
    faults = questions.RowErrors(strict=False)
    (part,) = questions.parts(table, faults, answers=True)
    assert [each.id for each in part] == ["q0", "q3", "4"]  # of an id that is no text, the row


def test_answers_that_are_not_utf_8() -> None:
    texts = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"], pa.binary()).buffers())
    lists = pa.ListArray.from_arrays([0, 1], texts), pa.array([[4]], pa.list_(pa.int32()))
    broken = pa.StructArray.from_arrays(lists, names=["text", "answer_start"])
    table = table_of([GOOD]).set_column(3, "answers", broken)
    for rows in (pa.concat_tables([table_of([GOOD]), table]), table):
        faults = questions.RowErrors(strict=False)
        assert sum(map(len, questions.parts(rows, faults, answers=True))) == len(rows) - 1
        assert [each.reason for each in faults.skipped] == ["column 'answers' is not UTF-8"]


@pytest.mark.parametrize(
    ("context", "answer", "message"),
    [
        ("naïve cat", said("cat", 7), r"it begins at 6, counted in characters"),  # bytes of UTF-8
        ("😀 cat", said("cat", 3), r"it begins at 2, counted in characters"),  # units of UTF-16
        ("a cafe\u0301", said("café", 2), r"it is nowhere in the context"),  # another normal form
        ("a cafÃ©", said("café", 2), r"it is nowhere in the context"),  # UTF-8 read as Latin-1
    ],
)
def test_mixed_encodings_are_told(context: str, answer: dict[str, list[Any]], message: str) -> None:
    rows = [GOOD, ("the", context, answer)]
    with pytest.raises(DataError, match=rf"row 1 .*id q1\).*answer_start=.*{message}"):
        cut(rows, Windowing(32, 8, 8), cached(bert), strict=True)
    assert cut(rows, Windowing(32, 8, 8), cached(bert)).skipped[0].rows == 1


def test_a_context_of_100_000_characters() -> None:
    context = "the cat sat é " * 7200 + "mat"
    row = ("the", context, said("mat", len(context) - 3))
    split = cut([GOOD, row, GOOD], Windowing(384, 128, 64), cached(bert), strict=True)
    assert len(context) > 100_000 and len(split) > 50
    of_row = np.flatnonzero(split.rows == 1)
    assert np.flatnonzero(split.starts[of_row]).tolist() == [len(of_row) - 1]
    first, last = (split.offsets[of_row[-1]] + each[of_row[-1]] for each in (split.starts, split.ends))
    assert [split.spans[first, 0], split.spans[last, 1]] == [len(context) - 3, len(context)]


# Lengths and tokenizers that cannot be used.


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Windowing(20, 8, 9), r"max_length=20: 3 special tokens, max_question=9.*max_length=21 or more"),
        (Windowing(20, -1, 9), r"doc_stride=-1"),
        (Windowing(20, 0, 0), r"max_question=0"),
        (Windowing(513, 0, 9), r"task\.max_length=513.*512"),
    ],
)
def test_lengths_must_leave_room(form: Windowing, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cut([GOOD], form, cached(make_tokenizer))


def test_the_least_length_makes_one_new_token_a_window() -> None:
    split = cut([("the " * 20, "the cat " * 10, NONE)], Windowing(21, 8, 9), cached(make_tokenizer))
    assert len(split) == 20 - 8 and split.cut_questions == 1
    assert set(split.lengths.tolist()) == {21}


def test_a_tokenizer_without_special_tokens_is_refused() -> None:
    with pytest.raises(ModelError, match="special token before the question"):
        cut([GOOD], Windowing(32, 8, 8), unigram_from_the_left())


# Files, parts and memory.


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(rows_of_words(), min_size=1, max_size=6), twice=st.booleans())
def test_parts_and_writes_change_nothing(rows: list[Row], twice: bool) -> None:
    rows = rows * (1 + twice)
    form, tokenizer = Windowing(24, 4, 6), cached(bert)
    at_once = cut(rows, form, tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "ROWS_PER_CALL", 3)
        patch.setattr(questions, "CHARACTERS_PER_CALL", 60)
        patch.setattr(questions, "_ROWS_READ", 2)
        patch.setattr(windows, "WINDOWS_PER_WRITE", 2)
        in_parts = cut(rows, form, tokenizer)
    for name in ("ids", "types", "spans", "offsets", "rows", "starts", "ends"):
        np.testing.assert_array_equal(getattr(in_parts, name), getattr(at_once, name))
    assert in_parts.cut_questions == at_once.cut_questions


def test_arrays_are_mapped_and_of_the_promised_types(tmp_path: Path) -> None:
    done: list[int] = []
    table = table_of([GOOD, ("", "the", NONE), GOOD, ("", "the", NONE)])
    made = tokenize_questions(
        table, Windowing(32, 8, 8), cached(bert), tmp_path, answers=True, advance=done.append
    )
    for split in (made, WindowSplit.load(tmp_path)):
        kinds = {"ids": "int32", "types": "uint8", "spans": "int32", "offsets": "int64"}
        for name, kind in {**kinds, "rows": "int64", "starts": "int32", "ends": "int32"}.items():
            assert isinstance(getattr(split, name), np.memmap)
            assert getattr(split, name).dtype == kind
        assert split.skipped == (Skipped("the question is empty", 2, ("q1", "q3")),)
        assert split.spans.shape == (len(split.ids), 2) and len(split) == 2
        assert split.lengths.tolist() == [9, 9]
    assert sum(done) == 4


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
def test_the_tokenizer_is_left_as_it_was(maker: Maker) -> None:
    tokenizer = maker()
    before = tokenizer.backend_tokenizer.to_str()
    cut([GOOD], Windowing(32, 8, 8), tokenizer)
    with pytest.raises(DataError):
        cut([BAD[0][0]], Windowing(32, 8, 8), tokenizer, strict=True)
    assert tokenizer.backend_tokenizer.to_str() == before


MEMORY = """
import resource, sys
from pathlib import Path
from tests.support.question_rows import bert, said, table_of
from qexp.data.sources import questions
from qexp.data.tokenization.windows import Windowing, tokenize_questions
questions.CHARACTERS_PER_CALL = 2**17  # one context: so that what is asked of the allocator is little
def table(rows):
    contexts = [f"{number} " + "the old cat sees a red bird, " * 3500 for number in range(rows)]
    return table_of([("the cat", context, said("bird", context.rindex("bird"))) for context in contexts])
tokenizer, form, few, many = bert(), Windowing(384, 128, 64), table(12), table(60)
tokenize_questions(few, form, tokenizer, Path(sys.argv[1]), answers=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
split = tokenize_questions(many, form, tokenizer, Path(sys.argv[1]), answers=True, strict=True)
size = split.ids.nbytes + split.spans.nbytes
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, size // 1024, (split.starts > 0).sum())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_long_contexts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    grown, size, found = map(int, done.stdout.split())
    assert size > 25_000 and found >= 60  # sixty contexts of 100 000 characters
    assert grown < size / 2  # in KiB


# Real rows.


def test_real_rows() -> None:
    table, tokenizer = real_table(400), cached(minilm)
    form = Windowing(128, 32, 64)
    with TemporaryDirectory() as folder:
        split = tokenize_questions(table, form, tokenizer, Path(folder), answers=True, strict=True)
        called = tokenizer(
            [text.lstrip() for text in table["question"].to_pylist()],
            table["context"].to_pylist(),
            truncation="only_second",
            max_length=128,
            stride=32,
            return_overflowing_tokens=True,
        )
        assert [part.tolist() for part in np.split(split.ids, split.offsets[1:-1])] == called["input_ids"]
        assert split.rows.tolist() == called["overflow_to_sample_mapping"]
        for window, row in enumerate(split.rows.tolist()):
            text, start = (table["answers"][row].as_py()[name][0] for name in ("text", "answer_start"))
            ends = (start, start + len(text) - 1)
            places = [called.char_to_token(window, place, sequence_index=1) for place in ends]
            found = [int(split.starts[window]), int(split.ends[window])]
            assert found == ([0, 0] if None in places else places)
        assert np.count_nonzero(split.starts) > 400
