"""Tables and tokenizers that the tests of question answering share."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import BertTokenizerFast, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.support.tokenizers import bert, byte_level, make_tokenizer, minilm, split_special

ANSWERS = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])

Row = tuple[str, str, dict[str, list[Any]]]
"""A question, its context, its answers."""

NONE: dict[str, list[Any]] = {"text": [], "answer_start": []}


def said(text: str, start: int) -> dict[str, list[Any]]:
    """One gold answer."""
    return {"text": [text], "answer_start": [start]}


def table_of(rows: list[Row]) -> pa.Table:
    """Rows as the hub's ``squad`` has them."""
    return pa.table(
        {
            "id": pa.array([f"q{number}" for number in range(len(rows))], pa.string()),
            "question": pa.array([row[0] for row in rows], pa.string()),
            "context": pa.array([row[1] for row in rows], pa.string()),
            "answers": pa.array([row[2] for row in rows], ANSWERS),
        }
    )


def real_table(rows: int, split: str = "validation") -> pa.Table:
    """The first rows of SQuAD v1.1, where it is at hand."""
    root = os.environ.get("QEXP_DATA")
    if not root or not (Path(root) / "squad" / f"{split}.parquet").is_file():
        pytest.skip(f"QEXP_DATA names no folder with squad/{split}.parquet")
    return pq.read_table(Path(root) / "squad" / f"{split}.parquet").slice(0, rows)


def unigram() -> PreTrainedTokenizerBase:
    """As ALBERT's: pieces begin with the space before them, NFKC changes how many characters there are."""
    words = ["the", "a", "cat", "b", "é", "ffi", "1"]
    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("<cls>", 0.0), ("<sep>", 0.0), ("▁", -3.0)]
    pieces += [(mark + word, -2.0 - len(word)) for mark in ("▁", "") for word in words]
    backend = Tokenizer(Unigram(pieces, unk_id=1))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = Metaspace()
    backend.post_processor = TemplateProcessing(
        single="<cls> $A <sep>",
        pair="<cls>:0 $A:0 <sep>:0 <sep>:1 $B:1 <sep>:1",
        special_tokens=[("<cls>", 2), ("<sep>", 3)],
    )
    names = ["input_ids", "token_type_ids"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=512, pad_token="<pad>", model_input_names=names
    )


def cased() -> PreTrainedTokenizerBase:
    """As BERT's for cased text: accents and marks stay in the tokens."""
    with TemporaryDirectory() as folder:
        vocabulary = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *"abcdetsuw",
            "##a",
            "##t",
            "##e",
            "##\u0301",
        ]
        (Path(folder) / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
        return BertTokenizerFast(vocab=str(Path(folder) / "vocab.txt"), do_lower_case=False)


KINDS = [make_tokenizer, bert, cased, byte_level, unigram, split_special, minilm]
"""Makers of tokenizers of every family."""

WORDS = [
    "the", "cat", "cats", "sat", "é", "e\u0301", "cafe\u0301s", "nai\u0308ve", "\u0928\u093f", "😀",
    "👩\u200d🚀", "❤\ufe0f", "日本語", "[SEP]", "</s>", "ﬃ", "İx", "a\u00adb", "\u05e9\u05c1\u05dc", "1,000",
    "don't",
]  # fmt: skip
SPACES = [" ", "  ", "\r\n", "\n\n", "\t", "\u00a0", "\u2003"]
"""Words and white space as they stand in real texts."""

MESSY = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SPACES)), min_size=1, max_size=40)


@st.composite
def rows_of_words(draw: st.DrawFn) -> Row:
    """A question on a context of messy words, whose answer is a run of whole words."""
    pieces = draw(MESSY)
    context = draw(st.sampled_from(["", "\r\n", " "])) + "".join(word + space for word, space in pieces)
    question = draw(MESSY.map(lambda each: "".join(word + space for word, space in each[:12])))
    first = draw(st.integers(0, len(pieces) - 1))
    last = draw(st.integers(first, min(first + 5, len(pieces) - 1)))
    lead = len(context) - sum(len(word + space) for word, space in pieces)
    start = lead + sum(len(word + space) for word, space in pieces[:first])
    text = "".join(word + space for word, space in pieces[first : last + 1])[: -len(pieces[last][1])]
    return question, context, said(text, start)


@st.composite
def rows_of_anything(draw: st.DrawFn) -> Row:
    """A question on any context, whose answer is any piece of it."""
    some = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(str.strip)
    context, question = draw(some), draw(some)
    first = draw(st.integers(0, len(context) - 1))
    text = context[first : draw(st.integers(first + 1, len(context)))]
    return question, context, said(text, first) if text.strip() else NONE
