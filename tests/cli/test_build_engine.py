"""``qexp build`` on a finished run: files, layers, rejections. Skips without ``make rtx``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qexp.cli import build_engine
from qexp.errors import FAILED, INVALID, OK
from qexp.records.record import Record, read_all, records_folder
from tests.support.tiny_runs import lively_bert, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of a symmetric W8A8 run by calibration alone, without graphs."""
    made = tmp_path_factory.mktemp("outputs")
    bert = lively_bert(tmp_path_factory.mktemp("bert"))
    words = ("quant=w8a8", "scheme=symmetric", "method=ptq", "deploy=none", "placement=gemm")
    run(made, "task=mrpc", *words, f"model.name={bert}")
    return made


def record_of(outputs: Path) -> Record:
    return read_all(records_folder(outputs))[0][0]


def built(outputs: Path, folder: Path, *words: str) -> int:
    return build_engine.main([record_of(outputs).key[:8], str(folder), "--outputs", str(outputs), *words])


def test_every_precision_is_built_and_tells_its_layers(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="not installed; make rtx")
    assert built(outputs, tmp_path, "--capabilities", "8.9", "--shapes", "1x16,4x24") == OK
    told = {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("*.json")}
    assert set(told) == {"fp32", "fp16", "bf16", "int8"}
    for precision, each in told.items():
        assert (tmp_path / f"{precision}.engine").stat().st_size == each["bytes"] > 10_000
        assert each["capabilities"] == ["8.9"] and each["shapes"] == [[1, 16], [4, 24]]
        assert sum(each["kinds"].values()) == len(each["layers"]) > 20
    assert told["int8"]["kinds"]["QUANTIZE"] > 0
    assert "QUANTIZE" not in told["fp32"]["kinds"]
    assert (
        told["int8"]["graph"]["sha256"] != told["fp32"]["graph"]["sha256"] == told["fp16"]["graph"]["sha256"]
    )
    assert "layers: " in "".join(capsys.readouterr())


def test_what_cannot_be_built_is_told_and_the_rest_goes_on(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="not installed; make rtx")
    words = ("--stage", "fp32", "--precisions", "int8,fp16", "--capabilities", "8.9", "--shapes", "1x16")
    assert built(outputs, tmp_path, *words) == FAILED
    assert "int8: a float model has no int8; name a run that was quantized" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"fp16.engine", "fp16.json"}


def test_wrong_words_are_refused_before_anything_is_done(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert built(outputs, tmp_path, "--precisions", "int4") == INVALID
    assert "--precisions: int4; allowed are fp32, fp16, bf16, int8" in capsys.readouterr().err
    for word in ("128", "0x4", "4x"):
        with pytest.raises(SystemExit):
            built(outputs, tmp_path, "--shapes", word)
        assert f"{word}: give rows and tokens, such as 32x128" in capsys.readouterr().err


def test_without_the_package_the_install_line_is_told(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_rtx", None)
    assert built(outputs, tmp_path, "--precisions", "fp32") == FAILED
    assert "pip install 'qexp[tensorrt_rtx]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
