"""Tokenizers of artifacts without transformers, against those of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import transformers
from transformers import AutoTokenizer

from qexp.data.tokenization.saved import TOKEN_TYPES, SavedTokenizer, saved_tokenizer
from qexp.data.tokenization.texts import TokenSplit, tokenize
from tests.conftest import experiment, save_tokenizer


def test_token_types_are_those_of_the_classes_of_transformers() -> None:
    for name, typed in TOKEN_TYPES.items():
        if (known := getattr(transformers, name, None)) is not None:
            assert ("token_type_ids" in known.model_input_names) is typed, name


@pytest.mark.parametrize("length", [8, 11, 64])
def test_the_tokens_are_those_of_transformers(length: int, tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    texts = ["The cat sees a dog.", "", "a" * 90, "[SEP] \u00e9\u4e2d \U0001f600 not"]
    labels = {"label": np.zeros(4, np.int64), "id": np.arange(4)}
    table = pa.table({"sentence1": texts, "sentence2": texts[::-1], **labels})
    task = experiment("task=mrpc", f"task.max_length={length}").task
    light = saved_tokenizer(tmp_path / "tokenizer")
    assert isinstance(light, SavedTokenizer)
    splits = []
    for name, tokenizer in (
        ("own", light),
        ("theirs", AutoTokenizer.from_pretrained(tmp_path / "tokenizer")),
    ):
        (tmp_path / name).mkdir()
        tokenize(table, task, tokenizer=tokenizer, folder=tmp_path / name)  # type: ignore[arg-type]
        splits.append(TokenSplit.load(tmp_path / name))
    own, expected = splits
    for array in ("ids", "types", "offsets"):
        assert np.array_equal(getattr(own, array), getattr(expected, array))
    assert own.truncated == expected.truncated


def test_a_class_that_is_not_known_is_loaded_by_transformers(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    assert isinstance(saved_tokenizer(tmp_path), transformers.PreTrainedTokenizerBase)
