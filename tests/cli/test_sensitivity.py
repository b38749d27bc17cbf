"""``qexp sensitivity`` on a finished run of a tiny model."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from qexp.analysis import sensitivity as measuring
from qexp.analysis.evaluator import evaluator_of
from qexp.analysis.mixed_precision.groups import QuantizerGroup
from qexp.artifacts.manifest import MANIFEST, read_manifest
from qexp.cli.sensitivity import main
from qexp.errors import INTERRUPTED
from qexp.records.record import Record, read, read_all, records_folder
from qexp.reporting.charts.sensitivity import Level, Sensitivity, chart_of, measured, table_of
from tests.support.tiny_runs import TinyRuns


@pytest.fixture(scope="module")
def finished(tiny_models: Callable[[str], Path], tiny_runs: TinyRuns) -> Path:
    """Outputs of a run with QAT."""
    model = f"model.name={tiny_models('bert')}"
    return tiny_runs(("task=stsb", "deploy=none", "quant=w4a8", "placement=qdqbert", "method=qat", model))


def record_of(outputs: Path) -> Record:
    (record,) = read_all(records_folder(outputs))[0]
    return record


def look(outputs: Path, *words: str) -> int:
    return main([record_of(outputs).key, "--outputs", str(outputs), *words])


def result(outputs: Path, by: str = "") -> Sensitivity:
    return Sensitivity.read(outputs / "sensitivity" / record_of(outputs).key / f"sensitivity{by}.json")


def artifact(outputs: Path, stage: str) -> Path:
    keys = {visit["stage"]: visit["key"] for visit in record_of(outputs).stages}
    return outputs / "artifacts" / stage / keys[stage]


@pytest.mark.parametrize("stage", ["ptq", pytest.param("qat", marks=pytest.mark.slow)])
def test_nothing_and_everything_are_what_the_run_scored(
    finished: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert look(finished, "--stage", stage) == 0
    found, record = result(finished), record_of(finished)
    assert found.complete
    assert found.on is not None and found.off is not None
    assert found.on.score == record.scores[stage][found.metric]
    if stage == "ptq":
        # the run's float model attends by torch's fused attention, which sums in another order
        assert found.off.score == pytest.approx(record.scores["fp32"][found.metric], abs=0.1)
    assert (found.off.noise, found.off.sqnr) == (0, None)
    assert found.stage == stage
    text = capsys.readouterr().out
    assert text.startswith("## Sensitivity of stsb")
    assert f"everything quantized {found.on.score:.2f}" in text


def test_the_files_say_the_same(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert look(finished, "--stage", "ptq", "--by", "layer", "--rows", "8") == 0
    folder = finished / "sensitivity" / record_of(finished).key
    found = result(finished, "-layer")
    assert found.rows == 8
    assert (folder / "sensitivity-layer.md").read_text() == capsys.readouterr().out
    assert {file.suffix for file in folder.glob("sensitivity-layer.*")} == {
        ".json", ".md", ".csv", ".png", ".svg",
    }  # fmt: skip
    rows = list(csv.DictReader((folder / "sensitivity-layer.csv").read_text().splitlines()))
    assert len(rows) == 2 + 2 * len(found.groups)
    only = {row["sites"]: row for row in rows if row["quantized"] == "only they"}
    for group in found.groups:
        assert group.only is not None
        assert float(only[group.name]["noise"]) == group.only.noise
    noise = [group.only.noise for group in found.sorted if group.only]
    assert noise == sorted(noise, reverse=True)  # type: ignore[type-var]


def test_only_everything_equals_all_and_all_but_everything_nothing(finished: Path) -> None:
    bench = evaluator_of(record_of(finished), finished, "ptq", None, None)
    everything = QuantizerGroup("all", tuple(bench.quantization.quantizers))
    sweep = measuring.SensitivityMeasurement(bench, _begin((everything,)))
    sweep.run(lambda *args, **more: None)
    (group,) = sweep.found.groups
    assert group.only == sweep.found.on
    assert group.but == sweep.found.off
    assert sweep.evaluations == 4


def test_noise_is_that_of_the_predictions_that_the_run_left(finished: Path) -> None:
    """The oracle reads the parquet files of both evaluations."""
    assert look(finished, "--stage", "ptq") == 0
    tables = {}
    for folder in (finished / "artifacts" / "6-scores").glob("*/"):
        if (folder / MANIFEST).is_file():
            form = read_manifest(folder).inputs["form"]
            encoder = read_manifest(folder).inputs["encoder"]
            fp32 = artifact(finished, "2-fp32").name
            if encoder == fp32:
                column = pq.read_table(next(folder.glob("predictions-*.parquet")))["logit_0"]
                tables["off" if form is None else "on"] = column.to_numpy().astype(np.float64)
    noise = np.square(tables["on"] - tables["off"]).sum() / np.square(tables["off"]).sum()
    on = result(finished).on
    assert on is not None
    assert on.noise == pytest.approx(
        noise, rel=1e-5
    )  # the run's float model attends in another order of sums
    assert on.sqnr == pytest.approx(-10 * np.log10(on.noise), rel=1e-12)


def test_a_group_that_was_made_terrible_is_on_top(finished: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "copy"
    shutil.copytree(finished, outputs)
    broken = "bert.encoder.layer.0.intermediate.dense:linear.input"
    file = artifact(outputs, "4-ranges") / "ranges.safetensors"
    ranges = load_file(file)
    ranges[f"{broken}/scale"] *= 1000
    save_file(ranges, file)
    assert look(outputs, "--stage", "ptq") == 2  # what changed after it was written is not trusted
    _sign(artifact(outputs, "4-ranges"))
    assert look(outputs, "--stage", "ptq") == 0
    first, second = result(outputs).sorted[:2]
    assert broken in first.quantizers
    assert first.only is not None and second.only is not None
    assert first.only.noise > 2 * second.only.noise  # type: ignore[operator]
    chart = chart_of(result(outputs), "n", "g")
    assert chart is not None
    assert "intermediate.dense" in chart.lanes[0].name


def test_an_interrupt_leaves_what_was_found(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, calls = measuring.SensitivityMeasurement._level, []

    def interrupted(self: Any, *args: Any) -> Level:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(measuring.SensitivityMeasurement, "_level", interrupted)
    assert look(finished, "--by", "kind", "--stage", "ptq") == INTERRUPTED
    found, shown = result(finished, "-kind"), capsys.readouterr()
    assert "interrupted" in shown.err
    assert "Interrupted: a dash" in shown.out
    assert not found.complete
    assert sum(group.only is not None for group in found.groups) == 2
    assert all(group.but is None for group in found.groups)


def test_the_page_shows_what_was_measured_in_place_of_what_is_expected(finished: Path) -> None:
    from qexp.cli.report import main as report

    assert look(finished, "--stage", "ptq") == 0
    assert set(measured(finished)) == {record_of(finished).key}
    assert report(["--outputs", str(finished), "--html"]) == 0
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "measured, with only these sites quantized, ptq" in page
    assert "seed 1: signal to quantization noise of each activation" not in page
    shutil.rmtree(finished / "sensitivity")
    assert report(["--outputs", str(finished), "--html"]) == 0
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "seed 1: signal to quantization noise of each activation" in page


def test_a_damaged_measurement_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qexp.errors import StoreError

    folder = tmp_path / "sensitivity" / "k"
    folder.mkdir(parents=True)
    for text in ("{", "{}", '{"groups": [{"name": 1}]}'):
        (folder / "sensitivity.json").write_text(text)
        with pytest.raises(StoreError, match=r"sensitivity\.json: no measured .*; remove the file, or"):
            measured(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--by", "site"], "invalid choice: 'site'"), (["--rows", "0"], "0: at least 1"), ([], "RUN")],
)
def test_wrong_words(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*(["key"] if words else []), *words])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_a_run_that_is_not_there(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zz", "--outputs", str(finished)]) == 2
    assert "no Record's key begins so" in capsys.readouterr().err


def test_rows_that_are_gone(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = tmp_path / "copy"
    shutil.copytree(finished, outputs)
    shutil.rmtree(artifact(outputs, "1-tokens"))
    assert look(outputs) == 2
    told = capsys.readouterr().err
    assert "is gone; this makes it again" in told
    assert "python -m qexp task=stsb" in told


def test_exact_undefined_and_missing_are_told_apart() -> None:
    groups = (
        _group("exact", Level(50.0, 0.0, None)),
        _group("broken", Level(None, None, None)),
        _group("absent", None),
        _group("some", Level(40.0, 0.1, 10.0)),
    )
    found = _begin(()).__class__(**{**vars(_begin(())), "groups": groups, "off": Level(50.0, 0.0, None)})
    rows = {row[0]: row[2:5] for row in table_of(found).rows}
    assert [row[0] for row in table_of(found).rows] == ["broken", "some", "exact", "absent"]
    assert rows["exact"] == ("50.00", "+0.00", "exact")
    assert rows["some"] == ("40.00", "+10.00", "10.0")
    assert rows["broken"] == ("undefined", "undefined", "undefined")
    assert rows["absent"] == ("-", "-", "-")


def _group(name: str, only: Level | None) -> Any:
    from qexp.reporting.charts.sensitivity import GroupLevels

    return GroupLevels(name, ("q",), only, None)


def _begin(groups: tuple[QuantizerGroup, ...]) -> Sensitivity:
    return Sensitivity(
        "k", "t", "ptq", "pearson", "validation", 1, "group", groups=measuring.to_measure(groups)
    )


def _sign(folder: Path) -> None:
    """Make a folder that was changed by hand look as if its stage had written it."""
    import hashlib

    manifest = json.loads((folder / MANIFEST).read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_the_record_is_read_from_a_file_too(finished: Path) -> None:
    (file,) = records_folder(finished).glob("*.json")
    assert read(file).key == record_of(finished).key
    assert main([str(file), "--outputs", str(finished), "--rows", "4", "--by", "layer"]) == 0
