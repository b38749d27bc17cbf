"""Rules that make silver labels, on sentences by hand."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import silver_labels, silver_tags


def test_questions_say_the_kind_of_an_answer() -> None:
    kinds = {
        "Who wrote it?": "PER",
        "In what year was it built?": "DATE",
        "Where did she die?": "LOC",
        "Which city is the capital?": "LOC",
        "How many people live there?": "NUM",
        "What is it?": None,
    }
    assert {question: silver_tags.kind_of(question) for question in kinds} == kinds


def test_answers_are_tagged_wherever_the_article_has_them(tmp_path: Path) -> None:
    context = "Ada Lovelace was born in London. Nobody knew Ada Lovelace there! It rained in 1815."
    questions = {"Who was born in London?": "Ada Lovelace", "When did it rain?": "1815", "Why?": "It rained"}
    rows = [
        {"title": "t", "context": context, "question": question, "answers": {"text": [text]}}
        for question, text in questions.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = [*silver_tags.rows_of(tmp_path / "a.parquet", 9)]
    assert [row["tokens"][0] for row in found] == ["Ada", "Nobody", "It"]
    assert found[0]["ner_tags"] == ["B-PER", "I-PER", "O", "O", "O", "O", "O"]
    assert found[1]["ner_tags"] == ["O", "O", "B-PER", "I-PER", "O", "O"]
    assert found[2]["ner_tags"] == ["O", "O", "O", "B-DATE", "O"]
    assert len([*silver_tags.rows_of(tmp_path / "a.parquet", 2)]) == 2


def test_of_answers_that_overlap_the_longest_counts() -> None:
    answers = {("New", "York"): "LOC", ("New", "York", "City"): "LOC", ("York",): "PER"}
    assert silver_tags.tagged(("New", "York", "City", "York"), answers) == [
        "B-LOC",
        "I-LOC",
        "I-LOC",
        "B-PER",
    ]


def test_german_words_label_english_captions(tmp_path: Path) -> None:
    captions = {
        "Ein Mann mit Schutzhelm fährt Motorrad.": ["adult", "clothing", "vehicle"],
        "Zwei Hunde im Wasser.": ["animal", "water"],
        "Ein Bambusstab liegt da.": [],
    }
    assert {caption: silver_labels.labels_of(caption) for caption in captions} == captions
    pq.write_table(pa.table({"en": ["one", "two", "three"], "de": [*captions]}), tmp_path / "a.parquet")
    rows = [*silver_labels.rows_of(tmp_path / "a.parquet", 2, seed=1)]
    assert len(rows) == 2 and all(row["labels"] in captions.values() for row in rows)
