"""What ``qexp predict`` refuses before it looks for a model: the run of these tests has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.cli import predict
from qexp.errors import INVALID
from qexp.records.record import write
from tests.support.record_factory import experiment, record


@pytest.fixture
def run(outputs: Path) -> str:
    """Name of a run of MRPC whose file had another name for its first text, and of which no model is left."""
    tree = experiment(quant="w8a8", method={"kind": "ptq"}, data={"columns": {"sentence1": "first"}})
    write(record(tree), outputs / "records")
    return "mrpc/w8a8"


@pytest.mark.parametrize(
    ("rows", "options", "parts"),
    [
        ("a,b\n1,2\n", [], ["no column 'first'", "a, b"]),
        ("first,b\n1,2\n", [], ["no column 'sentence2'"]),
        (None, [], ["rows.csv", "cannot be read"]),
        ("first,sentence2\n1,2\n", ["--runtime", "tensorrt"], ["--runtime tensorrt", "GPU"]),
        ("first,sentence2\n1,2\n", ["--runtime", "openvino"], ["openvino", "not installed"]),
        ("first,sentence2\n1,2\n", ["--accelerator", "gpu"], ["--accelerator cpu"]),
        ("first,sentence2\n1,2\n", [], ["has no float model"]),
    ],
)
def test_what_is_known_at_once_is_refused_at_once(
    rows: str | None, options: list[str], parts: list[str], run: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("qexp.execution.requirements.may_have_gpu", lambda: False)
    monkeypatch.setattr("qexp.deploy.hardware.may_have_gpu", lambda: False)
    monkeypatch.setattr("qexp.execution.requirements._is_installed", lambda package: False)
    if rows is not None:
        (tmp_path / "rows.csv").write_text(rows)
    assert predict.main([run, str(tmp_path / "rows.csv"), *options]) == INVALID
    shown = capsys.readouterr()
    assert shown.out == ""
    for part in parts:
        assert part in shown.err
