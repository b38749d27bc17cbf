"""Every benchmark runs from its command line on the smallest shape, without peers, and files its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import calibration, cost_curve, deploy, fake_quant, gpu, inference, qat_step, rewrites
from benchmarks.cost_curve import Point, fit

TINY = ["--model", "tiny", "--threads", "1", "--rounds", "1", "--length", "8", "--no-peers", "--json"]


def run(module: Any, path: Path, *arguments: str) -> Any:
    module.main([*arguments, str(path)])
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["settings"]["threads"] == 1
    assert found["surroundings"]["versions"]["torch"]
    return found


def test_qat_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(qat_step, tmp_path / "x.json", "--batch", "2", "--steps", "2", *TINY)
    for sites in ("linear", "qdqbert"):
        for title in ("train step", "forward, gradients on", "forward"):
            assert list(found[sites]["tables"][title]) == [
                "fp32",
                "fp32 eager",
                "qexp frozen",
                "qexp learned",
            ]
        assert found[sites]["drift"]["qexp frozen"] > 0
        assert found[sites]["floor"]["step"] > found[sites]["floor"]["forward"] > 0
    assert list(found["framework"]) == ["plain loop", "bare lightning", "qexp training"]
    assert "what the framework costs: 2 FP32 steps" in capsys.readouterr().out


def test_calibration(tmp_path: Path) -> None:
    found = run(calibration, tmp_path / "x.json", "--batch", "2", "--batches", "2", "--padded", *TINY)
    assert list(found["passes"]) == ["inference", "inference eager", "qexp, all calibrators"]
    kinds = {name.partition(",")[0] for name in found["searches"]}
    assert {"max", "ema", "percentile", "mse"} <= kinds
    assert all(seconds > 0 for seconds in found["searches"].values())


def test_fake_quant(tmp_path: Path) -> None:
    arguments = ["--smallest", "8192", "--largest", "16384", "--rounds", "1", "--threads", "1"]
    found = run(fake_quant, tmp_path / "x.json", *arguments, "--no-peers", "--json")
    forms = [(table["granularity"], table["bytes"], table["mode"]) for table in found["tables"]]
    assert len(forms) == len(set(forms)) == 2 * 2 * 3
    for table in found["tables"]:
        assert list(table["readings"]) == ["copy", "clone", "qexp"]
        assert table["floors"]["copy"] > 0


@pytest.mark.slow
def test_inference(tmp_path: Path) -> None:
    found = run(inference, tmp_path / "x.json", "--rows", "1,2", *TINY)
    forms = ["torch fp32", "torch fake-quantized", "onnxruntime fp32", "onnxruntime int8, qexp"]
    assert list(found["rows"]["1"]["readings"]) == list(found["rows"]["2"]["readings"]) == forms
    drift = found["drift"]
    assert drift["onnxruntime fp32"] < 1e-4 < drift["onnxruntime int8, qexp"]
    assert drift["onnxruntime int8, qexp"] == pytest.approx(drift["torch fake-quantized"], rel=0.2)


def test_cost_curve(tmp_path: Path) -> None:
    arguments = ["--points", "2", "--batch", "1", "--length", "8", "--width", "32", "--rounds", "1"]
    found = run(cost_curve, tmp_path / "x.json", *arguments, "--threads", "1", "--json")
    assert list(found["axes"]) == ["width", "length", "quantized layers", "bytes of one tensor"]
    for axis in found["axes"].values():
        elements = [point["elements"] for point in axis["points"]]
        assert elements == sorted(set(elements))


def test_a_line_is_found_and_its_misfit_is_told() -> None:
    exact = fit([Point(x, x, 3.0 + 0.5 * x) for x in (1, 4, 9, 16)])
    assert (exact.slope, exact.intercept, exact.explained) == pytest.approx((0.5, 3.0, 1.0))
    assert exact.farthest == pytest.approx(0.0, abs=1e-12)
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 9.0, 16.0])
    bent = fit([Point(int(a), int(a), float(b)) for a, b in zip(x, y, strict=True)])
    assert bent.explained == pytest.approx(float(np.corrcoef(x, y)[0, 1]) ** 2)
    assert bent.farthest == pytest.approx(1.0 / 16)


def test_sizes_grow_eightfold_up_to_the_largest() -> None:
    assert fake_quant.sizes(64, 64) == [64]
    assert fake_quant.sizes(64, 5000) == [64, 512, 4096, 5000]


def test_the_floor_of_a_small_tensor_has_one_thread() -> None:
    small = fake_quant.floor_seconds(1.0, fake_quant.GRAIN, 1e-3, threads=2, backward=False)
    large = fake_quant.floor_seconds(1.0, 2 * fake_quant.GRAIN, 1e-3, threads=2, backward=False)
    assert small == large
    assert fake_quant.floor_seconds(1.0, 0, 1e-3, threads=1, backward=True) == 2.5


@pytest.mark.slow
def test_deploy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install qexp[openvino]")
    found = run(deploy, tmp_path / "x.json", "--rows", "2", *TINY)
    table = found["rows"]["2"]
    names = ["onnxruntime fp32", "onnxruntime int8, qexp", "openvino fp32", "openvino int8, qexp"]
    names += [
        f"{runtime} int8, qexp {each}"
        for each in ("dynamic", "dynamic_token")
        for runtime in ("onnxruntime", "openvino")
    ]
    assert list(table["readings"]) == list(found["same"]) == names
    integer = {
        name: {each["integer"] for each in audit["products"]} for name, audit in table["audits"].items()
    }
    assert integer["onnxruntime fp32"] == integer["openvino fp32"] == {False}
    assert True in integer["onnxruntime int8, qexp"] and True in integer["openvino int8, qexp"]
    assert all(rate > 0 for _, rates in table["rates"] for rate in rates.values())
    assert not found["left_out"]
    assert "Best INT8 over best FP32, qexp: " in capsys.readouterr().out


@pytest.mark.slow
def test_deploy_on_both_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install qexp[openvino]")
    found = run(deploy, tmp_path / "x.json", "--rows", "2", "--both", *TINY)
    table = found["rows"]["2"]
    assert list(table["readings"])[-2:] == ["onnxruntime int8, exact path", "openvino int8, exact path"]
    moved = found["same"]
    # All of one graph: on a CPU without VNNI the first one is on the exact path, too.
    for name in ("onnxruntime int8, qexp", "openvino int8, exact path"):
        assert moved["onnxruntime int8, exact path"] == pytest.approx(moved[name], rel=0.1)
    integer = {
        name: [each["integer"] for each in audit["products"]] for name, audit in table["audits"].items()
    }
    assert integer["onnxruntime int8, exact path"] == integer["onnxruntime int8, qexp"]
    assert sum(integer["openvino int8, exact path"]) < sum(integer["openvino int8, qexp"])
    assert [list(rates) for _, rates in table["rates"]] == 3 * [["fp32", "int8", "exact"]]
    assert "Best INT8 over best FP32, qexp, exact path: " in capsys.readouterr().out


@pytest.mark.slow
def test_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--model",
        "tiny",
        "--rows",
        "1,2",
        "--lengths",
        "8",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--json",
    ]
    found = run(gpu, tmp_path / "x.json", *arguments)
    assert list(found["shapes"]) == ["1x8", "2x8"]
    on_gpu = torch.cuda.is_available()
    expected = ["int8", "fp16", "bf16", "fp32"] if on_gpu else ["int8", "bf16", "fp32"]
    for table in found["shapes"].values():
        assert list(table["readings"]) == list(table["audits"]) == expected
        integer = {each["integer"] for each in table["audits"]["int8"]["products"]}
        assert integer == {True, False}
    assert max(found["parity"]["fp32"]) < 1e-5
    assert found["parity"]["int8"][0] < (0.1 if on_gpu else 1e-4)
    assert list(found["refused"]) == ([] if on_gpu else ["fp16"])
    assert "| 2x8 | int8 | " in capsys.readouterr().out


@pytest.mark.slow
def test_rewrites(tmp_path: Path) -> None:
    arguments = ["--model", "tiny", "--threads", "1", "--rounds", "1", "--length", "8", "--rows", "4"]
    found = run(rewrites, tmp_path / "x.json", *arguments, "--json")["cases"]
    assert list(found["aimet w8a8"]) == ["rewritten", "kept"]
    assert list(found["gemm w8a16"]) == ["rewritten", "kept", "rewritten, level 1"]
    for variants in found.values():
        (_, old), (_, new) = variants["rewritten"], variants["kept"]
        assert new < old / 5
