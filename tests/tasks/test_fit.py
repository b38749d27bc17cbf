"""Rows that a model has no embeddings or positions for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qexp.artifacts.types import Tokens
from qexp.errors import ModelError
from qexp.tasks.fit import check_fit, positions
from tests.conftest import experiment
from tests.support import tiny_models

TASK = experiment("task=mrpc").task


def tokens(folder: Path, *, length: int, largest: int) -> Tokens:
    """Two rows of the train split."""
    split = folder / "splits" / "train"
    split.mkdir(parents=True)
    np.save(split / "ids.npy", np.full(length + 3, largest, np.int32))
    np.save(split / "offsets.npy", np.array([0, 3, length + 3]))
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


def test_a_token_of_the_tokenizer_only_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"id 50 in 'train'.*0 to 49.*resize_token_embeddings"):
        check_fit(tiny_models.build("bert"), tokens(tmp_path, length=9, largest=50), TASK)
