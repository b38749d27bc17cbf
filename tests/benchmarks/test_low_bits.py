"""The benchmark of few bits: forms of a tiny classifier, scored, timed and weighed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import low_bits


@pytest.mark.slow
def test_every_form_has_a_score_and_what_has_a_file_its_size(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install qexp[openvino]")
    words = ["--task", "mrpc", "--checkpoint", str(tiny_bert), "--batch", "2", "--length", "8"]
    words += ["--rounds", "1", "--only", "W8A8", "W4A8", "NVFP4", "--json", str(tmp_path / "x.json")]
    low_bits.main([*words, "--", "data=sample", "budget=smoke", "task.max_length=32"])
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    forms = {each["form"]: each for each in found["forms"]}
    assert all(0 <= each["score"] <= 100 for each in forms.values())
    for runtime in low_bits.RUNTIMES.values():
        few, many, whole = (forms[f"{name}, {runtime}"] for name in ("W4A8", "W8A8", "FP32"))
        assert few["bytes"] < many["bytes"] < whole["bytes"]
        assert few["loaded_kib"] > 0 and few["reading"]["seconds"] > 0
    assert forms["NVFP4, simulated"]["bytes"] is None and forms["NVFP4, simulated"]["reading"] is None
    assert {"MatMulNBits, ONNX Runtime"} <= forms.keys() | found["skipped"].keys()
    assert "| W4A8, OpenVINO |" in capsys.readouterr().out
