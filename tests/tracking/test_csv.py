"""CSV files of a run, read back with pandas and PyYAML."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from qexp.progress.console import RunConsole
from tests.tracking.conftest import CURVES, INTERRUPTED, KEY, asked, mirror, news, predicted, track

FOLDER = Path("csv") / "runs" / f"mrpc-w8a8-qat-s1-{KEY[:8]}"


def test_settings_scores_losses_tables_and_pictures_are_there(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=csv", "tags=[mine]", "note='a, b'")
    record = predicted(outputs, experiment)
    track(mirror(experiment, console, outputs), record)
    folder = outputs / FOLDER
    settings = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert settings["quant"]["weight_bits"] == 8
    assert (settings["key"], settings["note"], "mine" in settings["tags"]) == (KEY, "a, b", True)
    summary = pd.read_csv(folder / "summary.csv", index_col="name")["value"]
    for stage, scores in record.scores.items():
        for metric, score in scores.items():
            assert float(summary[f"{stage}/{metric}"]) == score
    losses = pd.read_csv(folder / "metrics.csv")
    for name, curve in CURVES.items():
        part = losses[losses["training"] == name]
        assert part["step"].tolist() == curve["step"]
        assert part["loss"].tolist() == curve["loss"]
    table = pd.read_csv(folder / "tables" / "confusion" / "validation.csv")
    assert table["rows"].sum() == 6
    assert sorted(file.name for file in folder.rglob("*.png")) == [
        "layers.png",
        "loss.png",
        "ptq.png",
        "ptq.png",
        "qat.png",
        "qat.png",
        "validation.png",
    ]
    assert "warning" not in news(console)


def test_scores_are_there_while_the_run_goes_on(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=csv")
    pages = mirror(experiment, console, outputs)
    pages.found(KEY, "local")
    pages.scored("fp32", {"f1": 50.5})
    pages.scored("ptq", {"f1": None})
    assert (outputs / FOLDER / "summary.csv").read_text() == "name,value\nfp32/f1,50.5\nptq/f1,\n"


def test_a_run_that_failed_is_written_anew_and_one_that_is_shown_stays(
    outputs: Path, console: RunConsole
) -> None:
    experiment = asked("tracker=csv")
    error = {"type": "TrainingError", "message": "the loss is nan", "traceback": "…"}
    track(mirror(experiment, console, outputs), predicted(outputs, experiment, status="failed", error=error))
    assert "the loss is nan" in (outputs / FOLDER / "summary.csv").read_text()
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    text = (outputs / FOLDER / "summary.csv").read_text()
    assert "the loss is nan" not in text
    times = {file: file.stat().st_mtime_ns for file in (outputs / FOLDER).rglob("*")}
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    assert times == {file: file.stat().st_mtime_ns for file in (outputs / FOLDER).rglob("*")}
    assert "shows this already" in news(console)


def test_an_interrupted_run_is_not_called_failed(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=csv")
    track(mirror(experiment, console, outputs), predicted(outputs, experiment, **INTERRUPTED))
    text = (outputs / FOLDER / "summary.csv").read_text()
    assert "status,interrupted\n" in text and "failed" not in text and "KeyboardInterrupt" not in text


def test_a_page_of_a_sweep_is_in_its_folder(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=csv")
    track(mirror(experiment, console, outputs, group="smoke-1"), predicted(outputs, experiment))
    assert (outputs / "csv" / "smoke-1" / FOLDER.name / "metrics.csv").is_file()


def test_a_folder_that_cannot_be_written_is_one_warning(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=csv")
    record = predicted(outputs, experiment)
    (outputs / "csv").write_text("in the way")
    track(mirror(experiment, console, outputs), record)
    (warning,) = console.warnings
    assert warning.startswith("tracker=csv: ")


@pytest.mark.parametrize("trackers", ["[csv,tensorboard]", "[tensorboard,csv]"])
def test_several_trackers_show_a_run(trackers: str, outputs: Path, console: RunConsole) -> None:
    experiment = asked(f"tracker={trackers}")
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    assert (outputs / FOLDER / "metrics.csv").is_file()
    assert list((outputs / "tensorboard" / "runs").glob("*/events*"))
    assert sorted(file.parent.name for file in (outputs / "tracked").rglob("*.json")) == [
        "csv",
        "tensorboard",
    ]
