"""``qexp check MODEL ROWS``: the overrides that it finds, a whole run of a tiny model, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from qexp.cli import check, runs
from qexp.errors import INTERRUPTED, INVALID, OK
from qexp.records.record import Record, read
from tests.conftest import save_tokenizer, tiny_config
from tests.support.row_files import Rows, write_csv, write_json_lines

LABELS = ("shipping", "billing", "technical")
"""Not in the order of the alphabet, which is that of rows without names."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier with random weights and the names of its classes."""
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    config = tiny_config("bert", save_tokenizer(folder), initializer_range=0.3, id2label=names)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    texts = [f"the old {('cat', 'dog', 'bird')[number % 3]} sees house {number}" for number in range(60)]
    queues = [sorted(LABELS)[number % 3] for number in range(60)]
    return write_csv(tmp_path / "tickets.csv", {"subject": texts, "queue": queues})


def records(outputs: Path) -> list[Record]:
    return [read(path) for path in sorted((outputs / "records").glob("*.json"))]


def test_what_is_found_becomes_overrides_and_the_users_own_come_before(model: Path, rows: Path) -> None:
    found = check.overrides(str(model), str(rows), ["quant=w6a8", "seed=3"])
    assert found[0] == "-m" and found[-2:] == ["quant=w6a8", "seed=3"]
    assert {"task=classification", "finetune=none", "method=ptq", f"data.path={rows}"} <= {*found}
    assert {"data.text=subject", "data.label=queue", f"task.labels=[{','.join(LABELS)}]"} <= {*found}
    assert "quant=w8a8,w4a8" not in found
    single = check.overrides(str(model), str(rows), ["--cfg", "job"])
    assert "-m" not in single and "quant=w8a8" in single


def test_a_trainers_folder_stands_for_its_checkpoint(model: Path, rows: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "out" / "checkpoint-12")
    found = check.overrides(str(tmp_path / "out"), str(rows), [])
    assert f"model.name={tmp_path / 'out' / 'checkpoint-12'}" in found


def test_two_bit_widths_share_their_work_and_end_in_one_table_and_a_verdict(
    model: Path,
    rows: Path,
    outputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = [str(model), str(rows), "deploy=none", "machine.threads=1", "machine.progress=false"]
    assert check.main(words) == OK
    shown = capsys.readouterr()
    assert max(map(len, shown.out.splitlines()[:12])) <= 80
    for part in ("W8A8 PTQ", "W4A8 PTQ", "FP32 ", "Verdict. tickets", "(0.0 %) have the texts of train rows"):
        assert part in shown.out
    assert shown.out.count("Verdict.") == 1
    first, second = records(outputs)
    assert {first.experiment["quant"]["weight_bits"], second.experiment["quant"]["weight_bits"]} == {8, 4}
    assert first.scores["fp32"] == second.scores["fp32"]
    assert first.experiment["task"]["labels"] == list(LABELS)
    assert first.data is not None and len(first.data["checks"]) == 4
    visits = [visit for record in (first, second) for visit in record.stages]
    cached = {visit["stage"] for visit in visits if visit["state"] == "cached"}
    assert {"1-tokens", "2-fp32", "3-statistics", "6-scores"} <= cached
    # The same again is found in the store, also by the words that were printed.
    assert check.main([*words, "--dry-run"]) == OK


def test_an_interrupt_is_no_failure_and_says_how_to_go_on(
    model: Path,
    rows: Path,
    outputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qexp.execution.job.run_pipeline", interrupted)
    assert check.main([str(model), str(rows), "deploy=none", "machine.threads=1"]) == INTERRUPTED
    shown = capsys.readouterr()
    text = " ".join((shown.out + shown.err).split())
    assert "Verdict. tickets: interrupted." in text
    assert "seed 1: interrupted; the same command goes on from here" in text
    assert "failed" not in text and "KeyboardInterrupt" not in text
    assert runs.main([]) == OK
    shown = capsys.readouterr()
    assert "i: interrupted; the same command" in shown.err and "x: failed" not in shown.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["data.label=NAME"]),
        (["data.label=nobody"], ["nobody", "present are"]),
        (["data.path=other.csv"], ["data.path=other.csv", "ROWS"]),
        (["task=translation"], ["task=translation", "classification"]),
        (["quantt=w8a8", "data.label=queue"], ["quantt", "did you mean quant=w8a8?"]),
    ],
    ids=str,
)
def test_what_cannot_be_told_or_used_is_refused_in_one_line(
    words: list[str],
    parts: list[str],
    model: Path,
    tmp_path: Path,
    outputs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    queues = [LABELS[number % 3] for number in range(30)]
    texts = [f"the old cat sees house {number}" for number in range(30)]
    rows = write_csv(tmp_path / "tickets.csv", {"subject": texts, "queue": queues, "former": queues})
    assert check.main([str(model), str(rows), *words]) == INVALID
    error = next(
        line for line in capsys.readouterr().err.splitlines() if "error: " in line or "check: " in line
    )
    for part in parts:
        assert part in error
    assert not list(outputs.glob("records/*"))


def test_a_misspelled_column_is_one_line(
    model: Path, rows: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([str(model), str(rows), "data.text=subjct"]) == INVALID
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("qexp check: data.text=subjct: ") and "did you mean 'subject'?" in line
    assert "present are subject, queue" in line and "data.columns" not in line
    assert not outputs.exists() or not [*outputs.iterdir()]


def test_a_model_without_a_head_is_refused_before_any_work(
    tiny_models: object, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([str(tiny_models("bert")), str(rows)]) == INVALID  # type: ignore[operator]
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no fine-tuned head" in line and "qexp task=classification" in line


TEXTS = [f"the old {('cat', 'dog', 'bird')[number % 3]} sees house {number}" for number in range(40)]
NUMBERS = [number % 7 / 7 for number in range(40)]
KINDS: dict[str, tuple[str, dict[str, Any], Rows]] = {
    "regression": ("SequenceClassification", {"num_labels": 1}, {"text": TEXTS, "score": NUMBERS}),
    "multi_label": (
        "SequenceClassification",
        {"id2label": {0: "late", 1: "lost"}, "problem_type": "multi_label_classification"},
        {"text": TEXTS, "labels": [["late"], ["late", "lost"], []] * 13 + [["lost"]]},
    ),
    "reranking": (
        "SequenceClassification",
        {"num_labels": 1},
        {"query": TEXTS, "positive": TEXTS[::-1], "negative": TEXTS},
    ),
    "token_classification": (
        "TokenClassification",
        {"id2label": {0: "O", 1: "B-PER"}},
        {"tokens": [text.split() for text in TEXTS], "ner_tags": [["O", "O", "B-PER", "O", "O", "O"]] * 40},
    ),
    "question_answering": (
        "QuestionAnswering",
        {},
        {
            "question": TEXTS,
            "passage": [f"{text} and a tree" for text in TEXTS],
            "answer": ["a tree", ""] * 20,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("head", "settings", "rows"), KINDS.values(), ids=KINDS)
def test_every_kind_of_head_is_evaluated(
    head: str,
    settings: dict[str, Any],
    rows: Rows,
    tmp_path: Path,
    outputs: Path,
    request: pytest.FixtureRequest,
) -> None:
    import transformers

    folder = tmp_path / "model"
    config = tiny_config("bert", save_tokenizer(folder), initializer_range=0.3, **settings)
    getattr(transformers, f"AutoModelFor{head}").from_config(config).save_pretrained(folder)
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    words = [str(folder), str(path), "quant=w8a8", "deploy=none", "machine.threads=1"]
    assert check.main(words) == OK
    (record,) = records(outputs)
    assert record.experiment["task"]["kind"] == request.node.callspec.id
    assert {"fp32", "ptq"} <= {*record.scores}
