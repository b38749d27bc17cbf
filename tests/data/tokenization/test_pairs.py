"""Tests of pairs of texts: rejected rows, stored tokens, and batches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from qexp.config import TranslationTask
from qexp.data.arrow import from_texts
from qexp.data.sources import translation_rows
from qexp.data.tokenization import pairs
from qexp.data.tokenization.pairs import IGNORED, PairSplit, collate_pairs, tokenize_pairs
from qexp.data.tokenization.tokenizers import make_tokenizer
from qexp.errors import ConfigError, DataError

ENGLISH = ["A man rides.", "Two dogs are running on the green grass.", "Snow.", "A small child sleeps."]
GERMAN = [
    "Ein Mann reitet.",
    "Zwei Hunde laufen über das grüne Gras.",
    "Schnee.",
    "Ein kleines Kind schläft.",
]


def task_of(**fields: object) -> TranslationTask:
    return TranslationTask.model_validate(
        {
            "name": "pairs", "kind": "translation", "source": "en", "target": "de", "metrics": ["bleu"],
            "evaluation": {"test": "test"}, "max_length": 64, **fields,
        }
    )  # fmt: skip


TASK = task_of()


def table_of(english: list[str], german: list[str], **more: pa.Array) -> pa.Table:
    return pa.table({"en": from_texts(english), "de": from_texts(german), **more})


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer([from_texts(ENGLISH), from_texts(GERMAN)], 400)


@pytest.fixture
def few_rows_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "ROWS_PER_CALL", 3)


def stored(
    folder: Path, tokenizer: PreTrainedTokenizerBase, task: TranslationTask = TASK, **texts: list[str]
) -> tuple[PairSplit, dict[str, int]]:
    table = translation_rows.checked(
        table_of(texts.get("en", ENGLISH), texts.get("de", GERMAN)), task, "rows"
    )
    cut = tokenize_pairs(table, task, tokenizer, folder)
    return PairSplit.load(folder), cut


def row(split: PairSplit, side: str, number: int) -> list[int]:
    offsets = getattr(split, f"{side}_offsets")
    return list(getattr(split, side)[offsets[number] : offsets[number + 1]])


# Rows


def test_rows_come_out_in_one_form() -> None:
    table = table_of(ENGLISH, GERMAN, idx=pa.array([4, 3, 2, 1]), url=pa.array(["x"] * 4))
    form = translation_rows.checked(table, TASK, "rows")
    assert form.schema == pa.schema({"id": pa.int64(), "en": pa.string(), "de": pa.string()})
    assert form["id"].to_pylist() == [4, 3, 2, 1]
    assert form["de"].to_pylist() == GERMAN


@pytest.mark.parametrize(("side", "column"), [("en", 0), ("de", 1)])
@pytest.mark.parametrize("blank", ["", " \t\n", "\u00a0\u3000"])
def test_a_pair_with_an_empty_side_is_named(side: str, column: int, blank: str) -> None:
    sides = [list(ENGLISH), list(GERMAN)]
    sides[column][2] = sides[column][3] = blank
    with pytest.raises(DataError, match=rf"rows: column '{side}', row 2 .*2 such rows of 4.*drop the row"):
        translation_rows.checked(table_of(*sides), TASK, "rows")


def test_a_missing_text_and_a_missing_column_are_named() -> None:
    with pytest.raises(DataError, match=r"column 'de', row 1 .*None"):
        translation_rows.checked(pa.table({"en": ["a", "b"], "de": ["c", None]}), TASK, "rows")
    with pytest.raises(DataError, match=r"no column 'de'.*task\.source and task\.target"):
        translation_rows.checked(pa.table({"en": ["a"]}), TASK, "rows")
    with pytest.raises(DataError, match="zero rows"):
        translation_rows.checked(table_of([], []), TASK, "rows")


def test_bytes_of_another_encoding_are_refused() -> None:
    latin = pa.Array.from_buffers(pa.string(), 1, [*pa.array(["Mu"]).buffers()[:2], pa.py_buffer(b"M\xfc")])
    with pytest.raises(DataError, match=r"column 'de'.*UTF-?8"):
        translation_rows.checked(pa.table({"en": ["Mill"], "de": latin}), TASK, "rows")


# Tokens


@pytest.mark.usefixtures("few_rows_per_call")
def test_both_sides_are_what_the_tokenizer_says(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    split, cut = stored(tmp_path, tokenizer)
    assert cut == {"source": 0, "target": 0}
    assert len(split) == 4
    for number, (english, german) in enumerate(zip(ENGLISH, GERMAN, strict=True)):
        assert row(split, "source", number) == tokenizer(english)["input_ids"]
        assert row(split, "target", number) == tokenizer(text_target=german)["input_ids"]
        assert row(split, "target", number)[-1] == tokenizer.eos_token_id
    assert split.references() == GERMAN
    assert split.references(2) == GERMAN[:2]


@pytest.mark.usefixtures("few_rows_per_call")
def test_what_is_too_long_is_cut_and_counted_and_still_ends(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    short = task_of(max_length=8)
    split, cut = stored(tmp_path, tokenizer, short)
    full = (
        [len(tokenizer(text)["input_ids"]) for text in ENGLISH],
        [len(tokenizer(text)["input_ids"]) for text in GERMAN],
    )
    assert cut == {
        "source": sum(length > 8 for length in full[0]),
        "target": sum(length > 8 for length in full[1]),
    }
    assert 0 < cut["source"] < 4
    assert list(split.source_lengths) == [min(length, 8) for length in full[0]]
    assert all(row(split, "target", number)[-1] == tokenizer.eos_token_id for number in range(4))
    assert split.references() == GERMAN, "a reference is never cut"


def test_a_text_of_100_000_characters_is_cut(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    split, cut = stored(tmp_path, tokenizer, en=[ENGLISH[0], "x y " * 25_000], de=GERMAN[:2])
    assert cut == {"source": 1, "target": 0}
    assert split.source_lengths.max() == 64


def test_a_prefix_stands_before_every_source(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    split, _ = stored(tmp_path, tokenizer, task_of(prefix="translate: "))
    assert row(split, "source", 1) == tokenizer("translate: " + ENGLISH[1])["input_ids"]
    assert row(split, "target", 1) == tokenizer(GERMAN[1])["input_ids"]


def test_max_length_beyond_the_model_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.max_length=2000.*1024"):
        stored(tmp_path, tokenizer, task_of(max_length=2000))


# Batches


def test_a_batch_is_padded_on_both_sides(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    split, _ = stored(tmp_path, tokenizer)
    rows = np.array([2, 1])
    batch = collate_pairs(split, rows, pad_id=0)
    assert set(batch) == {"input_ids", "attention_mask", "labels", "target_mask"}
    for index, number in enumerate(rows):
        for side, ids, mask, fill in (
            ("source", "input_ids", "attention_mask", 0),
            ("target", "labels", "target_mask", IGNORED),
        ):
            tokens = row(split, side, int(number))
            assert batch[ids][index, : len(tokens)].tolist() == tokens
            assert set(batch[ids][index, len(tokens) :].tolist()) <= {fill}
            assert batch[mask][index].tolist() == [1] * len(tokens) + [0] * (
                batch[ids].shape[1] - len(tokens)
            )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=20))
def test_rows_are_sorted_by_source_and_among_equals_by_target(lengths: list[tuple[int, int]]) -> None:
    source, target = (np.cumsum([0, *side]) for side in zip(*lengths, strict=True))
    none = np.zeros(0, np.int32)
    split = PairSplit(none, source, none, target, np.arange(len(lengths)), Path())
    order = np.argsort(split.lengths, kind="stable")
    assert [lengths[row] for row in order] == sorted(lengths)


def test_text_that_looks_like_a_special_token_is_text(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("a </s> b <pad>")["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.pad_token_id not in ids
    assert re.sub(r"\s", "", tokenizer.decode(ids, skip_special_tokens=True)) == "a</s>b<pad>"
