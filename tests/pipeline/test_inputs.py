"""What rows and checkpoint tell before the first stage: lengths of engines, and files above 2 GB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qexp.config import DeployEngines
from qexp.deploy.onnx import io
from qexp.errors import OK, ConfigError
from qexp.pipeline import inputs
from qexp.pipeline.inputs import completed, resolve_inputs
from tests.conftest import experiment
from tests.support.jobs import QUICK, record_problem, refused, run

SHORT = ("task=mrpc", "data=sample", "task.max_length=32")


def lengths(*words: str) -> tuple[tuple[int, ...], list[str]]:
    """Lengths of engines, and notes on them."""
    asked = experiment(*SHORT, *words)
    rows, checkpoint = resolve_inputs(asked)
    found = completed(asked, rows, checkpoint)
    assert completed(found, rows, checkpoint) == found
    assert isinstance(found.deploy, DeployEngines)
    return found.deploy.lengths, [note for note in rows.notes if "deploy.lengths" in note]


def test_lengths_of_engines_are_cut_to_the_positions_and_that_is_said(tiny_bert: Path) -> None:
    model = f"model.name={tiny_bert}"
    assert lengths(model, "deploy=cpu", "deploy.lengths=[64,128]") == ((64, 128), [])
    cut, (note,) = lengths(model, "deploy=cpu", "deploy.lengths=[64,256,512]")
    assert cut == (64, 160)
    assert "512" in note and "160" in note


def bleu_notes(folder: Path, target: str, *words: str) -> list[str]:
    """Notes on how BLEU counts words, for rows whose targets are all the same."""
    file = folder / "rows.csv"
    lines = "".join(f"line {row} of a text,{target}\n" for row in range(40))
    file.write_text(f"source,target\n{lines}", encoding="utf-8")
    tiny = ("task=translation", "model=transformer_tiny", f"data.path={file}")
    rows, _ = resolve_inputs(experiment(*tiny, *words))
    return [note for note in rows.notes if "bleu_tokenize" in note]


@pytest.mark.parametrize(
    ("target", "better"),
    [
        ("Eine Zeile mit 猫", None),
        ("고양이가 매트 위에 앉아 있다", None),
        ("猫坐在垫子上。", "zh"),
        ("猫がマットの上に座っている。", "ja-mecab"),
        ("แมวนั่งอยู่บนเสื่อ", "flores200"),
    ],
)
def test_a_language_without_spaces_has_its_own_words(target: str, better: str | None, tmp_path: Path) -> None:
    notes = bleu_notes(tmp_path, target)
    assert [f"set task.bleu_tokenize={better}, or char" in note for note in notes] == [True] * bool(better)
    assert bleu_notes(tmp_path, target, "task.bleu_tokenize=char") == []


def test_words_that_cannot_be_counted_are_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, **_: object) -> None:
        raise RuntimeError("no dictionary")

    monkeypatch.setattr("sacrebleu.metrics.bleu.BLEU.__init__", refuse)
    with pytest.raises(ConfigError, match=r"task.bleu_tokenize=ja-mecab.*no dictionary"):
        bleu_notes(tmp_path, "猫", "task.bleu_tokenize=ja-mecab")


def limit(patch: pytest.MonkeyPatch, size: int) -> None:
    """Have a smaller file be the largest that ONNX can hold."""
    patch.setattr(inputs, "LARGEST_FILE", size)
    patch.setattr(io, "MAX_BYTES", size)


@pytest.mark.slow
def test_a_model_above_the_limit_is_exported_as_integers_alone(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit(monkeypatch, 100_000)  # between the integers and the floats of the small model
    words = (
        *QUICK,
        "task=mrpc",
        f"model.name={tiny_bert}",
        "quant=w8a8",
        "quant.embedding_bits=8",
        "method=ptq",
    )
    code, record = run(*words, "placement=qdqbert", "deploy=onnxruntime")
    assert code == OK, record_problem()
    shown: Any = capsys.readouterr().err
    assert shown.index("the quantized graph is exported alone") < shown.index("1-tokens")
    assert list(record["bytes"]) == ["int8"]
    assert record["engines"]["onnxruntime/int8"]["gate"]["passed"]
    assert "one ONNX file holds" in record["engines"]["onnxruntime/fp32"]["problems"]["engine"]


def test_a_model_above_the_limit_without_integers_is_refused_before_training(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit(monkeypatch, 1000)
    said = refused(capsys, *QUICK, "task=mrpc", f"model.name={tiny_bert}", "quant=fp32", "deploy=onnxruntime")
    assert "one ONNX file holds 1,000" in said
