"""Token ids without a row in a model's table of embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qexp.data.tokenization.known_ids import check_ids, embedding_rows
from qexp.errors import ModelError
from tests.conftest import save_tokenizer


def test_both_sides_of_a_pair_are_checked(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    save_tokenizer(tokenizer)
    np.save(tmp_path / "source.npy", np.array([3, 9], np.int32))
    np.save(tmp_path / "target.npy", np.array([3, 12], np.int32))
    check_ids(tmp_path, rows=13, where="these rows", tokenizer=tokenizer)
    with pytest.raises(ModelError, match=r"token 'h' of these rows has id 12.*0 to 11"):
        check_ids(tmp_path, rows=12, where="these rows", tokenizer=tokenizer)
    with pytest.raises(ModelError, match=r"token 'e' of these rows has id 9.*0 to 8"):
        check_ids(tmp_path, rows=9, where="these rows", tokenizer=tokenizer)


@pytest.mark.parametrize(("config", "rows"), [('{"vocab_size": 7}', 7), ("{}", None)])
def test_rows_of_a_configuration(config: str, rows: int | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    assert embedding_rows(tmp_path / "config.json") == rows
