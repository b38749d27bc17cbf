"""Tokens of words: where labels stand, what is cut, and byte-level vocabularies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qexp.config import TokenTask
from qexp.data.batches import collate_words
from qexp.data.checkpoints import Checkpoint
from qexp.data.tokenization.tokenizers import tokenizer_for
from qexp.data.tokenization.words import IGNORED, WordSplit, tokenize_words

ROWS = [["the", "xyz", "cat"], ["a"], ["", "dog"]]
TAGS = [["O", "B-X", "I-X"], ["B-X"], ["O", "I-X"]]


def task_of(max_length: int = 16) -> TokenTask:
    return TokenTask(
        kind="token_classification",
        name="ner",
        metrics=("f1_span",),
        evaluation={"validation": "validation"},
        labels=("O", "B-X", "I-X"),
        max_length=max_length,
    )


def table(rows: list[list[str]], tags: list[list[str]] | None) -> pa.Table:
    columns: dict[str, Any] = {"id": np.arange(len(rows)), "tokens": pa.array(rows, pa.list_(pa.string()))}
    return pa.table(columns if tags is None else {**columns, "label": tags})


@pytest.fixture
def made(tiny_bert: Path, tmp_path: Path) -> Callable[..., tuple[WordSplit, int]]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)

    def make(rows: list[list[str]], tags: list[list[str]] | None, length: int = 16) -> tuple[WordSplit, int]:
        return tokenize_words(table(rows, tags), task_of(length), tokenizer, tmp_path / "words")

    return make


def test_labels_stand_at_the_first_token_of_each_word(
    made: Callable[..., tuple[WordSplit, int]], tiny_bert: Path
) -> None:
    split, cut = made(ROWS, TAGS)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    batch = collate_words(split, np.arange(3), pad_id=0)
    expected = tokenizer(ROWS, is_split_into_words=True, padding=True, return_tensors="pt")
    assert (batch["input_ids"] == expected["input_ids"]).all()
    # [CLS] the x ##y ##z cat [SEP]: a word of three tokens has one label
    assert batch["labels"][0].tolist() == [IGNORED, 0, 1, IGNORED, IGNORED, 2, IGNORED]
    assert batch["labels"][1].tolist() == [IGNORED, 1, *[IGNORED] * 5]
    assert (cut, split.lost, split.kept.tolist()) == (0, 1, [3, 1, 1])  # the empty word has no token
    assert (batch["labels"] != IGNORED).sum(1).tolist() == [3, 1, 1]


def test_words_behind_the_longest_row_are_lost(made: Callable[..., tuple[WordSplit, int]]) -> None:
    split, cut = made([["cat"] * 20, ["dog"]], [["O"] * 20, ["B-X"]], 8)
    assert (cut, split.lost, split.kept.tolist()) == (1, 14, [6, 1])
    assert split.tags.tolist() == [0] * 20 + [1]


def test_rows_without_tags_have_their_words(made: Callable[..., tuple[WordSplit, int]]) -> None:
    split, _ = made([*ROWS, []], None)
    assert split.kept.tolist() == [3, 1, 1, 0] and split.tags.tolist() == [0] * 6


@pytest.mark.parametrize("name", ["RobertaTokenizer", "TokenizersBackend"])
def test_byte_level_words_have_a_blank_before_them(name: str, tmp_path: Path) -> None:
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    rust.train_from_iterator(["the cat sat on the mat"] * 20, trainer)
    PreTrainedTokenizerFast(tokenizer_object=rust, pad_token="<pad>").save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": name}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "type_vocab_size": 1}))
    tokenizer = tokenizer_for(Checkpoint(tmp_path, "", "mine"), {}, task_of())
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for each in (tokenizer, again):
        encoded = each.backend_tokenizer.encode(
            ["the", "cat"], is_pretokenized=True, add_special_tokens=False
        )
        assert encoded.tokens == ["Ġthe", "Ġcat"]
