"""``benchmarks.deploy --no-vnni``: what it times, and the CPU that it hides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import without_vnni
from benchmarks.ragged import ORDERS


@pytest.mark.slow
def test_the_command_times_kernels_of_a_cpu_without_vnni(tmp_path: Path) -> None:
    """On one with VNNI, in a program that cannot see it; where that cannot be hidden, it says so."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install qexp[openvino]")
    command = [sys.executable, "-m", "benchmarks.deploy", "--no-vnni", "--model", "tiny", "--length", "16"]
    command += ["--rows", "2", "--rounds", "2", "--ragged", "8", "--threads", "1", "--no-peers"]
    file = tmp_path / "x.json"
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, check=True, timeout=280
    )
    found = json.loads(file.read_text())
    assert set(found["rows"]) == {"2", *ORDERS}
    assert "onnxruntime int8, avx2, qexp" in found["rows"]["2"]["readings"]
    assert [list(rates) for _, rates in found["rows"]["2"]["rates"]] == 3 * [["fp32", "7 bits", "exact"]]
    integer = {
        name: [each["integer"] for each in audit["products"]]
        for name, audit in found["rows"]["2"]["audits"].items()
    }
    assert all(integer["onnxruntime int8, avx2, qexp"])
    if "Measured: this CPU multiplies" in done.stdout:
        pytest.skip("the VNNI of this CPU cannot be hidden")
    assert "Measured: " in done.stdout
    attention = integer["openvino int8, avx2, qexp"]
    assert 0 < sum(attention) < len(attention)  # products of attention stay in floating point


def test_a_cpu_without_vnni_is_measured_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(without_vnni, "this_cpu", lambda: "avx2")
    for saturates, words in ((True, "a CPU without VNNI"), (False, "exactly: NOT what")):
        monkeypatch.setattr(without_vnni, "products_saturate", lambda saturates=saturates: saturates)
        assert words in without_vnni.kind_of_cpu()
    started: list[dict[str, str]] = []

    def run(command: list[str], *, env: dict[str, str], check: bool) -> subprocess.CompletedProcess[str]:
        started.append(env)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert without_vnni.rerun(["--no-vnni"]) == 0
    assert [without_vnni.HIDDEN in env for env in started] == [True]
    assert "LD_PRELOAD" not in started[0] or "avx2_only" not in started[0]["LD_PRELOAD"]
