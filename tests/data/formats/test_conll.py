"""CoNLL files: sentences, documents, columns, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.data.formats.conll import is_conll, read_conll
from qexp.data.formats.finder import only_rows, reader_of
from qexp.data.formats.request import Request
from qexp.data.skipped import RowErrors
from qexp.errors import DataError

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O


-DOCSTART- -X- -X- O

Peter NNP B-NP B-PER
"""


def request(**wanted: str) -> Request:
    return Request("ner", "train", wanted, texts=("tokens",), optional=(), faults=RowErrors(strict=True))


def both() -> Request:
    return request(tokens="words", ner_tags="tags")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_first_and_last_columns_of_each_sentence(tmp_path: Path) -> None:
    table = read_conll(write(tmp_path / "a.conll", CONLL_2003), both())
    assert table.to_pydict() == {
        "words": [["EU", "rejects"], ["Peter"]],
        "tags": [["B-ORG", "O"], ["B-PER"]],
    }


def test_tabs_keep_blanks_in_words(tmp_path: Path) -> None:
    table = read_conll(write(tmp_path / "a.txt", "New York\tB-LOC\n1 000\tO\n"), both())
    assert table.to_pydict() == {"words": [["New York", "1 000"]], "tags": [["B-LOC", "O"]]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CONLL_2003, True),
        ("the O\n", True),
        ("\ufeff\nEU\tB-ORG\n", True),
        ("A sentence of a note\n", False),
        ("word\n", False),
        ("", False),
    ],
)
def test_a_text_file_is_known_by_its_first_words(text: str, expected: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "train.txt", text)
    assert is_conll(path) == expected
    assert only_rows(tmp_path) == ((path,) if expected else ())


def test_other_bytes_are_no_conll_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 O\n")
    assert reader_of(tmp_path / "a.txt") is None
    with pytest.raises(DataError, match="UTF-8"):
        read_conll(tmp_path / "a.txt", both())


def test_a_word_alone_has_its_line_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: 'b'"):
        read_conll(write(tmp_path / "a.conll", "a O\nb\n"), both())


def test_other_columns_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "a O\n")
    with pytest.raises(DataError, match="idx"):
        read_conll(path, request(tokens="tokens", ner_tags="tags", id="idx"))
