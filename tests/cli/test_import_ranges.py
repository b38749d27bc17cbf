"""``qexp import`` and ``calibrator=imported``: from a foreign file to a run, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qexp.cli import export_encodings, import_ranges, inspect
from tests.support.tiny_runs import artifacts, lively_bert, run


@pytest.mark.parametrize("name", ["m.pt", "m.bin", "m.encodings", "m.safetensors"])
def test_a_pickle_is_never_loaded(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    file = tmp_path / name
    if name == "m.safetensors":
        torch.save({"a": torch.ones(1)}, file)
    else:
        file.write_bytes(pickle.dumps(Trap()))
    assert import_ranges.main([str(file), "--output", str(tmp_path / "ranges.json")]) == 2
    assert "weights_only=True" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_ranges_of_no_site_are_refused_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = tmp_path / "m.safetensors", tmp_path / "ranges.json"
    known, stranger = "bert.pooler.dense._input_quantizer._amax", "bert.some_quantizer._amax"
    save_file({known: torch.tensor(2.0), stranger: torch.tensor(1.0)}, file)
    assert import_ranges.main([str(file), "--output", str(output)]) == 2
    assert stranger in capsys.readouterr().err
    assert not output.exists()
    assert import_ranges.main([str(file), "--output", str(output), "--without-site", "ignore"]) == 0
    told = capsys.readouterr().out
    assert f"of no site, left out: {stranger}" in told
    assert "bert.pooler.dense:linear.input" in told
    assert [each["name"] for each in json.loads(output.read_text())["ranges"]] == [known]
    assert import_ranges.main([str(file), "--output", str(output)]) == 2
    assert "is there" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_with_imported_ranges_is_the_run_that_they_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs, ranges = tmp_path / "outputs", tmp_path / "ranges.json"
    common = (
        "task=mrpc", "quant=w4a8", "method=ptq", "deploy=onnx", "placement=qdqbert",
        f"model.name={lively_bert(tmp_path / 'bert')}",
    )  # fmt: skip
    first = run(outputs, *common, "calibrator=percentile")
    folder = tmp_path / "m.aimet"
    at = ["--outputs", str(outputs)]
    assert export_encodings.main([first.key, *at, "--output", str(folder)]) == 0
    assert import_ranges.main([str(folder / "m.encodings"), "--output", str(ranges)]) == 0
    second = run(outputs, *common, "calibrator=imported", f"calibrator.path={ranges}")
    assert second.scores["ptq"] == first.scores["ptq"]
    assert second.parity is not None and second.parity["passed"]
    left, right = (
        load_file(artifacts(record, outputs, "4-ranges")[0] / "ranges.safetensors")
        for record in (first, second)
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    capsys.readouterr()
    assert inspect.main([second.key, *at, "--against", first.key]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if " to " in line and ":" in line and "range there" not in line]
    assert len(rows) == len({name.rpartition("/")[0] for name in left})
    assert {line.split()[-2] for line in rows} == {"1"}
    third = run(outputs, *common, "calibrator=max")
    assert inspect.main([second.key, *at, "--against", third.key]) == 0
    assert {line.split()[-2] for line in capsys.readouterr().out.splitlines() if ":linear.input" in line} != {
        "1"
    }
