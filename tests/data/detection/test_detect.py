"""Kinds, columns and labels that are found in rows, and what is refused because it cannot be told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from qexp.data.detection.detect import Detected, detect
from qexp.data.detection.heads import Head
from qexp.errors import ConfigError, DataError
from tests.support.row_files import WRITERS, Rows, write_csv, write_json_lines

THREE = Head(None, 3, ("billing", "shipping", "technical"), positions=512)
SUBJECTS = [f"question {number} about an order" for number in range(30)]
QUEUES = ["technical", "billing", "shipping"] * 10


def found(head: Head, rows: Rows, tmp_path: Path, **stated: Any) -> Detected:
    return detect(head, write_json_lines(tmp_path / "rows.jsonl", rows), stated)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_columns_and_the_labels_of_the_checkpoint(
    name: str, tmp_path: Path
) -> None:
    rows = {"id": [*range(30)], "subject": SUBJECTS, "lang": ["en", "fr"] * 15, "queue": QUEUES}
    path = WRITERS[name](tmp_path / name, rows)
    detected = detect(THREE, path, {})
    assert detected.kind == "classification"
    assert detected.settings == {
        "data.validation_share": 0.5,
        "task.max_length": 128,
        "data.label": "queue",
        "data.text": "subject",
        "task.labels": ["billing", "shipping", "technical"],
    }


WORDS = [["Ann", "lives", "in", "Ghent"]] * 10
CASES: dict[str, tuple[Head, Rows, str, dict[str, Any]]] = {
    "pair": (
        Head(None, 2),
        {"premise": SUBJECTS, "hypothesis": SUBJECTS, "label": [0, 1] * 15},
        "classification",
        {
            "data.text": ["premise", "hypothesis"],
            "data.label": "label",
            "task.labels": ["LABEL_0", "LABEL_1"],
        },
    ),
    "ratings are names": (
        Head(None, 3),
        {"review": SUBJECTS, "stars": [1, 2, 3] * 10},
        "classification",
        {"data.text": "review", "data.label": "stars"},
    ),
    "regression": (
        Head("regression", 1),
        {"id": [*range(30)], "review": SUBJECTS, "stars": [number / 7 for number in range(30)]},
        "regression",
        {"data.text": "review", "data.label": "stars"},
    ),
    "one output": (
        Head(None, 1),
        {"text": SUBJECTS, "score": [number / 7 for number in range(30)]},
        "regression",
        {"data.text": "text", "data.label": "score"},
    ),
    "lists of labels": (
        Head(None, 2, ("late", "lost")),
        {"text": SUBJECTS, "labels": [["late"], []] * 15},
        "multi_label",
        {"data.text": "text", "data.label": "labels", "task.labels": ["late", "lost"]},
    ),
    "words and tags": (
        Head("token_classification", 3, ("O", "B-PER", "B-LOC")),
        {"words": WORDS, "ner": [["B-PER", "O", "O", "B-LOC"]] * 10},
        "token_classification",
        {"data.text": "words", "data.label": "ner", "task.labels": ["O", "B-PER", "B-LOC"]},
    ),
    "questions": (
        Head("question_answering", 2, positions=512),
        {"question": SUBJECTS, "passage": SUBJECTS, "answer": ["order", "an", ""] * 10},
        "question_answering",
        {
            "data.text": ["question", "passage"],
            "data.label": "answer",
            "task.unanswerable": True,
            "task.max_length": 384,
        },
    ),
    "triplets": (
        Head(None, 1),
        {"query": SUBJECTS, "positive": SUBJECTS, "negative": SUBJECTS},
        "reranking",
        {},
    ),
    "pairs with a relevance": (
        Head("reranking", 1),
        {"query": SUBJECTS, "passage": SUBJECTS, "relevance": [0, 1, 2] * 10},
        "reranking",
        {"data.text": ["query", "passage"], "data.label": "relevance"},
    ),
    "embedding": (
        Head("embedding", pooling="cls"),
        {"sentence1": SUBJECTS, "sentence2": SUBJECTS, "score": [number / 7 for number in range(30)]},
        "embedding",
        {"data.text": ["sentence1", "sentence2"], "data.label": "score", "task.pooling": "cls"},
    ),
}


@pytest.mark.parametrize(("head", "rows", "kind", "settings"), CASES.values(), ids=CASES)
def test_each_kind_is_told_by_the_head_and_the_rows(
    head: Head, rows: Rows, kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    detected = found(head, rows, tmp_path)
    assert detected.kind == kind
    expected = {"data.validation_share": 0.5, "task.max_length": 128, **settings}
    assert detected.settings == expected


def test_what_the_user_states_is_neither_looked_for_nor_repeated(tmp_path: Path) -> None:
    rows = {"subject": SUBJECTS, "body": SUBJECTS, "queue": QUEUES, "old_queue": QUEUES}
    stated = {"data.text": "body", "data.label": "queue", "task.max_length": "32"}
    settings = detect(THREE, write_csv(tmp_path / "rows.csv", rows), stated).settings
    assert settings == {"data.validation_share": 0.5, "task.labels": [*THREE.names]}


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (
            {"summary": SUBJECTS, "detail": SUBJECTS, "queue": QUEUES},
            ["texts", "summary, detail", "data.text=NAME"],
        ),
        (
            {"text": SUBJECTS, "queue": QUEUES, "former": QUEUES},
            ["labels", "queue, former", "data.label=NAME"],
        ),
        ({"text": SUBJECTS, "price": [1.5] * 30}, ["labels", "no column of text, price"]),
        (
            {"text": SUBJECTS, "queue": ["billing", "returns", "shipping"] * 10},
            ["does not know returns", "billing, shipping, technical", "column 'queue'"],
        ),
        (
            {"text": SUBJECTS, "queue": ["billing", "", "shipping"] * 10},
            ["does not know an empty label (row 1, counted from 0); its labels are billing"],
        ),
    ],
    ids=["texts", "labels", "none", "unknown label", "empty label"],
)
def test_what_cannot_be_told_is_one_line_with_the_field(
    rows: Rows, parts: Sequence[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        found(THREE, rows, tmp_path)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("stated", "parts"),
    [
        ({"data.text": "boddy"}, ["data.text=boddy: ", "present are body, subject, queue", "'body'?"]),
        ({"data.text": "body", "data.label": "queu"}, ["data.label=queu: ", "did you mean 'queue'?"]),
        ({"data.text": ["subject", "boddy"]}, ["data.text=[subject,boddy]: ", "no column 'boddy'"]),
        ({"data.text": "body,subjct"}, ["data.text=body,subjct: ", "no column 'subjct'"]),
        ({"data.columns.text": "boddy"}, ["data.columns.text=boddy: ", "no column 'boddy'"]),
    ],
    ids=str,
)
def test_a_column_that_is_not_there_is_refused_in_the_words_that_were_typed(
    stated: dict[str, Any], parts: Sequence[str], tmp_path: Path
) -> None:
    rows = {"subject": SUBJECTS, "body": SUBJECTS, "queue": QUEUES}
    with pytest.raises(DataError) as error:
        found(THREE, rows, tmp_path, **stated)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_model_with_few_positions_is_cut_and_timed_at_these(tmp_path: Path) -> None:
    rows = {"text": SUBJECTS, "queue": QUEUES}
    short = Head(None, 3, THREE.names, positions=64)
    settings = found(short, rows, tmp_path).settings
    assert (settings["task.max_length"], settings["deploy.lengths"]) == (64, [64])
    assert "deploy.lengths" not in found(short, rows, tmp_path, deploy="none").settings


def test_more_labels_than_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 labels.*has 2 outputs"):
        found(Head(None, 2), {"text": SUBJECTS, "queue": QUEUES}, tmp_path)


def test_names_in_the_schema_of_the_rows_are_held_against_the_checkpoint(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    rows = datasets.Dataset.from_dict({"text": SUBJECTS, "label": [0, 1, 2] * 10}, features=features)
    rows.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"schema names a, b, c, and the checkpoint billing"):
        detect(THREE, tmp_path / "rows.parquet", {})
    other_order = Head(None, 3, ("C", "a", "B"))
    assert detect(other_order, tmp_path / "rows.parquet", {}).settings["task.labels"] == ["C", "a", "B"]


def test_an_unknown_label_of_the_train_split_is_found_too(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", {"text": SUBJECTS, "queue": ["returns", *QUEUES[1:]]})
    write_csv(tmp_path / "test.csv", {"text": SUBJECTS, "queue": QUEUES})
    with pytest.raises(DataError, match=r"train\.csv.*does not know returns"):
        detect(THREE, tmp_path, {})


def test_a_folder_with_train_and_test_is_evaluated_on_test(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_csv(tmp_path / f"{split}.csv", {"text": SUBJECTS, "queue": QUEUES})
    settings = detect(THREE, tmp_path, {}).settings
    assert settings["task.evaluation.validation"] == "test" and "data.validation_share" not in settings


def test_a_conll_file_and_the_file_of_squad_name_their_own_columns(tmp_path: Path) -> None:
    lines = "Ann B-PER\nlives O\n\nGhent B-LOC\n"
    (tmp_path / "notes.conll").write_text(lines * 5)
    head = Head("token_classification", 3, ("O", "B-PER", "B-LOC"))
    settings = detect(head, tmp_path / "notes.conll", {}).settings
    assert (settings["data.text"], settings["data.label"]) == ("tokens", "ner_tags")
    answers = [{"text": "Ghent", "answer_start": 0}]
    paragraph = {"context": "Ghent.", "qas": [{"id": "1", "question": "Where?", "answers": answers}]}
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    settings = detect(Head("question_answering", 2), tmp_path / "squad.json", {}).settings
    short = {"task.max_length": 128, "task.max_question": 32, "task.doc_stride": 32}
    assert settings == {"data.validation_share": 0.5, **short}


def _empty(folder: Path) -> Path:
    return write_csv(folder / "rows.csv", {"text": [], "label": []})


def _only_train(folder: Path) -> Path:
    write_csv(folder / "train.csv", {"text": SUBJECTS})
    write_csv(folder / "other.csv", {"text": SUBJECTS})
    return folder


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "none.csv", "no such file or folder"),
        (_empty, "zero rows"),
        (_only_train, "no file of split validation or test"),
    ],
    ids=["nothing", "no rows", "no split"],
)
def test_files_without_rows_are_refused(write: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        detect(THREE, write(tmp_path), {})


def test_a_kind_that_nothing_checks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task=translation: qexp check knows classification"):
        found(THREE, {"text": SUBJECTS, "queue": QUEUES}, tmp_path, task="translation")
