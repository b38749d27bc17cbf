"""The benchmark of packed weights: every form in every runtime, smaller and equal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import packed


@pytest.mark.slow
def test_packed_weights_are_smaller_and_compute_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install qexp[openvino]")
    words = ["--model", "tiny", "--length", "8", "--rows", "2", "--rounds", "1", "--json"]
    packed.main([*words, str(tmp_path / "x.json")])
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    lines = {each["form"]: each for each in found["forms"]}
    for runtime in packed.RUNTIMES:
        whole, half = lines[f"{runtime} whole bytes"], lines[f"{runtime} packed"]
        assert half["bytes"] < whole["bytes"] < lines[f"{runtime} fp32"]["bytes"]
        assert half["difference"] == 0
    assert all(each["loaded_kib"] > 0 and each["seconds"] > 0 for each in lines.values())
    assert "INT4" in found["stored"]["packed"] and "INT4" not in found["stored"]["whole bytes"]
    assert "onnxruntime packed" in capsys.readouterr().out
