"""Float64 against what a tiny run left."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.arithmetic import main
from qexp.records.record import OUTPUTS_VARIABLE
from tests.support.tiny_runs import lively_bert, run


@pytest.mark.slow
def test_torch_and_the_engine_stand_against_float64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bert, outputs = lively_bert(tmp_path / "bert"), tmp_path / "outputs"
    words = ("task=mrpc", "quant=w8a8", "method=ptq", "deploy=onnx", "placement=gemm", f"model.name={bert}")
    record = run(outputs, *words)
    monkeypatch.setenv(OUTPUTS_VARIABLE, str(outputs))
    capsys.readouterr()
    main([record.key[:8], "--rows", "20", "--threads", "1"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows[1:]] == ["torch float64", "torch float32", "onnxruntime"]
    for row in rows[2:]:
        assert float(row[3]) >= 90
        assert float(row[4]) < 0.5
        assert float(row[5].rstrip(" |")) < 1e-2
