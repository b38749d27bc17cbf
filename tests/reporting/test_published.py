"""Published numbers: every file is well-formed, and averages agree with the sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qexp.environment import conf_folder
from qexp.errors import DataError
from qexp.reporting import published as module
from qexp.reporting.glue import BY_NAME
from qexp.reporting.published import (
    FOLDER,
    MARKS,
    Published,
    baseline_of,
    chosen,
    family_of,
    published,
    read_file,
    shown_average,
    shown_score,
    source_notes,
)

FILES = sorted(FOLDER.glob("*.yaml"))


def rows_of(source: str, **words: str) -> list[Published]:
    return [
        row
        for row in published()
        if row.source == source and all(getattr(row, name) == value for name, value in words.items())
    ]


def only(source: str, **words: str) -> Published:
    (row,) = rows_of(source, **words)
    return row


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_has_a_source_a_mark_and_sites(path: Path) -> None:
    rows = read_file(path)
    assert rows
    for row in rows:
        assert row.source and row.reference and row.convention
        assert row.mark in MARKS
        assert row.sites
        assert row.scores or row.average


def test_sections_of_the_survey_are_there() -> None:
    assert len(FILES) >= 30
    families = {row.model for row in published()}
    assert {
        "bert-base",
        "bert-large",
        "mobilebert",
        "minilm-l12",
        "roberta-base",
        "transformer-big",
    } <= families
    tasks = {task for row in published() for task in row.scores}
    assert {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "squad", "wmt14_en_de"} <= tasks


def test_labels_tell_rows_of_a_source_apart() -> None:
    keys = [(row.label, row.quant, row.method, tuple(sorted(row.scores))) for row in published()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("convention", ["aimet", "bondarenko"])
def test_published_averages_are_those_of_our_convention(convention: str) -> None:
    """All that have both, to the last digit printed, but one: AIMET's own FP32 average of MobileBERT."""
    both = [
        (row, row.recomputed(BY_NAME[convention]), row.average[convention])
        for row in published()
        if convention in row.average
    ]
    found = [(row, ours, theirs) for row, ours, theirs in both if ours is not None]
    apart = [(row.label, row.quant) for row, ours, theirs in found if abs(ours - theirs) > 0.0051]
    assert len(found) >= 4
    assert apart == ([("AIMET 1.27, mobilebert [P]", "fp32")] if convention == "aimet" else [])


def test_aimets_mobilebert() -> None:
    row = only("AIMET 1.27", quant="w8a8")
    numbers = (52.51, 91.63, 90.81, 88.19, 90.80, 83.46, 91.12, 68.95)
    assert sum(numbers) / 8 == pytest.approx(82.18, abs=0.005)
    assert row.recomputed(BY_NAME["aimet"]) == pytest.approx(sum(numbers) / 8)
    assert row.scores["squad"] == {"exact_match": 81.96, "f1": 89.41}


def test_a_number_of_another_metric_or_convention_says_so() -> None:
    mqbench, q8bert = only("MQBench", quant="w8a8"), only("Q8BERT", quant="w8a8", method="qat")
    assert shown_score(mqbench, "mrpc", ("accuracy", "f1")) == "89.47"  # the mean of 87.75 and 91.2
    assert shown_score(mqbench, "mrpc", ("f1",)) == "91.20"
    assert shown_score(q8bert, "qqp", ("accuracy",)) == "87.96 (f1)"
    assert shown_score(q8bert, "mnli", ("accuracy@matched",)) == "-"
    assert shown_average(mqbench, BY_NAME["bondarenko"]) == "83.49 (computed)"
    bondarenko = only("Bondarenko 2021", quant="w8a8", method="qat")
    assert shown_average(bondarenko, BY_NAME["aimet"]) == "83.26 (bondarenko)"
    assert shown_average(q8bert, BY_NAME["aimet"]) == "-"


def test_each_quantized_row_is_held_against_its_own_fp32() -> None:
    rows = list(published())
    large = only("NNCF", model="bert-large", method="qat", detail="whole-word masking")
    baseline = baseline_of(large, rows)
    assert baseline is not None
    assert baseline.scores["squad"]["f1"] == 93.21
    assert baseline_of(only("TernaryBERT"), rows) is None


@pytest.mark.parametrize(
    ("option", "family"),
    [
        ("bert_base", "bert-base"), ("bert_large", "bert-large"), ("bert_mini", "bert-mini"),
        ("bert_small", "bert-small"), ("bert_tiny", "bert-tiny"), ("distilbert", "distilbert-base"),
        ("minilm_l6", "minilm-l6"), ("minilm_l12", "minilm-l12"), ("mobilebert", "mobilebert"),
        ("roberta_base", "roberta-base"), ("electra_small", None), ("transformer_big", "transformer-big"),
    ],
)  # fmt: skip
def test_families_of_our_models(option: str, family: str | None) -> None:
    name = yaml.safe_load((conf_folder() / "model" / f"{option}.yaml").read_text())["name"]
    assert family_of(name) == family


def test_what_is_shown() -> None:
    assert chosen("none", ["google-bert/bert-base-uncased"]) == []
    assert chosen("family", ["somebody/else"]) == []
    assert {row.model for row in chosen("family", ["google/mobilebert-uncased"])} == {"mobilebert"}
    assert chosen("all", []) == list(published())


def test_notes_tell_the_source_once() -> None:
    rows = rows_of("Q8BERT")
    (note,) = source_notes(rows)
    assert "P: read in the primary source" in note and "S: quoted" in note
    assert "embedding.weight" in note


GOOD: dict[str, Any] = {
    "source": "x", "reference": "y", "mark": "P", "sites": ["not stated"], "convention": "z",
    "rows": [{"model": "bert-base", "quant": "w8a8", "method": "ptq", "scores": {"cola": {"matthews": 1.0}}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mark": "Q"}, "mark must be one of P, S, M, C, found 'Q'"),
        ({"sites": []}, "sites must be a list of sites"),
        ({"source": 3}, "source must be a text"),
        ({"rows": [{"model": "b"}]}, "expected model, quant"),
        (
            {"rows": [{**GOOD["rows"][0], "quant": "int8"}]},
            "quant must be fp32, or such as w4a8",
        ),
        ({"rows": [{**GOOD["rows"][0], "method": "none"}]}, "method must be ptq, qat"),
        ({"rows": [{**GOOD["rows"][0], "scores": {"cola": {"mcc": 1.0}}}]}, "scores must be percent"),
        ({"rows": [{**GOOD["rows"][0], "scores": {"cola": {"matthews": 101}}}]}, "scores must be percent"),
        ({"rows": [{**GOOD["rows"][0], "scores": {}}]}, "neither scores nor an average"),
        ({"more": 1}, "expected exactly the fields"),
    ],
)
def test_a_file_that_is_not_of_the_form_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(DataError, match=message.replace("(", r"\(")) as error:
        read_file(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("rows: [")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    published.cache_clear()
    try:
        with pytest.raises(DataError, match="cannot be read"):
            published()
    finally:
        published.cache_clear()
