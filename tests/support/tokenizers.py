"""Tokenizers and tables that tests of tokenization share."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.pre_tokenizers import ByteLevel, Metaspace, Whitespace
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from qexp.config import TextTask
from qexp.data import wheel_weights
from tests.conftest import save_tokenizer

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


def task_of(columns: int, *, max_length: int = 16, kind: str = "classification") -> TextTask:
    return TextTask.model_validate(
        {
            "name": "any",
            "kind": kind,
            "text": ("one", "two")[:columns],
            "labels": ("no", "yes") if kind == "classification" else (),
            "metrics": ("accuracy",) if kind == "classification" else ("pearson",),
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


def _wrapped(backend: Tokenizer, **options: object) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **options)


def byte_level() -> PreTrainedTokenizerBase:
    """As RoBERTa's: every text is bytes, and a pair has no types."""
    symbols = ["<s>", "</s>", "<pad>", *sorted(ByteLevel.alphabet()), "th", "the"]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    backend = Tokenizer(BPE(vocabulary, [("t", "h"), ("th", "e")]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.post_processor = RobertaProcessing(("</s>", 1), ("<s>", 0))
    backend.enable_padding(length=64, pad_id=2, pad_token="<pad>")
    return _wrapped(backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def unigram_from_the_left() -> PreTrainedTokenizerBase:
    """As ALBERT's, and it cuts what comes first."""
    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("▁the", -2.0), ("▁", -3.0), ("a", -4.0), ("cat", -4.5)]
    backend = Tokenizer(Unigram(pieces, unk_id=1))
    backend.pre_tokenizer = Metaspace()
    names = ["input_ids", "token_type_ids"]
    return _wrapped(backend, pad_token="<pad>", truncation_side="left", model_input_names=names)


def bert() -> PreTrainedTokenizerBase:
    """The one of the small models on disk."""
    with TemporaryDirectory() as folder:
        save_tokenizer(Path(folder))
        return AutoTokenizer.from_pretrained(folder)


def split_special() -> PreTrainedTokenizerBase:
    """Reads the names of special tokens in a text as text."""
    return make_tokenizer(split_special_tokens=True)


def minilm() -> PreTrainedTokenizerBase:
    """The real one, where its weights are at hand."""
    folder = wheel_weights._cache() / "sentence-transformers" / "all-MiniLM-L6-v2"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
