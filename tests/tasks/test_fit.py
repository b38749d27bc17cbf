"""Rows that a model has no embeddings or positions for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from qexp.artifacts.types import FACTS, Tokens
from qexp.errors import ModelError
from qexp.tasks.fit import check_fit, positions
from tests.conftest import experiment, save_tokenizer
from tests.support import sequence_models, tiny_models

TASK = experiment("task=mrpc").task


def tokens(folder: Path, *, length: int, largest: int, pad_id: int = 0) -> Tokens:
    """Two rows of the train split."""
    split = folder / "splits" / "train"
    split.mkdir(parents=True)
    np.save(split / "ids.npy", np.full(length + 3, largest, np.int32))
    np.save(split / "offsets.npy", np.array([0, 3, length + 3]))
    (folder / FACTS).write_text(json.dumps({"pad_id": pad_id}))
    return Tokens(folder, "")


@pytest.mark.parametrize(
    ("architecture", "places"),
    [
        ("bert", 32),
        ("roberta", 30),
        ("distilbert", 32),
        ("mpnet", 30),
        ("modernbert", None),
        ("deberta-v3", 32),
    ],
)
def test_the_longest_row_fits_and_one_token_more_does_not(
    architecture: str, places: int | None, tmp_path: Path
) -> None:
    model = tiny_models.build(architecture)
    assert positions(model) == places
    check_fit(model, tokens(tmp_path / "fits", length=places or 99, largest=49), TASK)
    if places is not None:
        with pytest.raises(ModelError, match=rf"train.*{places + 1} tokens.*task\.max_length={places}"):
            check_fit(model, tokens(tmp_path / "long", length=places + 1, largest=49), TASK)


@pytest.fixture
def with_added_token(tmp_path: Path) -> Path:
    """Folder of tokens of a tokenizer with a word more than a model of as many embeddings knows."""
    size = save_tokenizer(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer.add_tokens(["zebrafish"]) == 1 and tokenizer.convert_tokens_to_ids("zebrafish") == size
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def test_a_token_of_the_tokenizer_only_is_named(with_added_token: Path) -> None:
    model = tiny_models.build("bert")
    rows = len(AutoTokenizer.from_pretrained(with_added_token / "tokenizer")) - 1
    model.resize_token_embeddings(rows)
    check_fit(model, tokens(with_added_token, length=9, largest=rows - 1), TASK)
    shutil.rmtree(with_added_token / "splits")
    wanted = rf"'zebrafish' of split 'train' has id {rows}.*0 to {rows - 1}.*resize_token_embeddings"
    with pytest.raises(ModelError, match=wanted):
        check_fit(model, tokens(with_added_token, length=9, largest=rows), TASK)


def test_a_padding_that_was_added_has_to_have_a_row(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    padded = tokens(tmp_path, length=9, largest=3, pad_id=50)
    with pytest.raises(ModelError, match="of the padding has id 50"):
        check_fit(tiny_models.build("bert"), padded, TASK)


def pairs(folder: Path, *, source: tuple[int, int], target: tuple[int, int]) -> Tokens:
    """A pair with so many tokens, and their largest id, on each side."""
    split = folder / "splits" / "train"
    split.mkdir(parents=True)
    for name, (length, largest) in (("source", source), ("target", target)):
        np.save(split / f"{name}.npy", np.full(length, largest, np.int32))
        np.save(split / f"{name}_offsets.npy", np.array([0, length]))
    (folder / FACTS).write_text(json.dumps({"pad_id": 0}))
    return Tokens(folder, "")


@pytest.mark.parametrize("architecture", list(sequence_models.MODELS))
def test_both_sides_of_a_pair_fit(architecture: str, tmp_path: Path) -> None:
    task, model = experiment("task=translation").task, sequence_models.build(architecture)
    check_fit(model, pairs(tmp_path / "fits", source=(32, 49), target=(32, 49)), task)
    for side in ("source", "target"):
        sides = {"source": (5, 49), "target": (5, 49), side: (5, 50)}
        with pytest.raises(
            ModelError, match=rf"of split 'train' of the {side}s has id 50.*resize_token_embeddings"
        ):
            check_fit(model, pairs(tmp_path / f"{side} id", **sides), task)
        sides[side] = (33, 49)
        long = pairs(tmp_path / f"{side} length", **sides)
        if architecture == "t5":  # positions are relative
            check_fit(model, long, task)
            continue
        with pytest.raises(ModelError, match=rf"'train' of the {side}s has 33 tokens.*max_length=32"):
            check_fit(model, long, task)
