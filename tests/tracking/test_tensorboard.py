"""TensorBoard event files, read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qexp.progress.console import RunConsole
from tests.tracking.conftest import CURVES, INTERRUPTED, KEY, asked, mirror, news, predicted, track

FOLDER = Path("tensorboard") / "runs" / f"mrpc-w8a8-qat-s1-{KEY[:8]}"


def read_back(folder: Path) -> EventAccumulator:
    """Every event of a folder."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


def test_scores_curves_tables_and_pictures_are_there(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=tensorboard")
    record = predicted(outputs, experiment)
    track(mirror(experiment, console, outputs), record)
    events = read_back(outputs / FOLDER)
    for stage, scores in record.scores.items():
        for metric, score in scores.items():
            (point,) = events.Scalars(f"{stage}/{metric}")
            assert point.value == pytest.approx(score)
    for name, curve in CURVES.items():
        points = events.Scalars(f"loss/{name}")
        assert [point.step for point in points] == curve["step"]
        assert [point.value for point in points] == pytest.approx(curve["loss"])
    tags = events.Tags()
    assert {
        "pictures/loss",
        "pictures/layers",
        "pictures/ranges/ptq",
        "pictures/ranges/qat",
        "pictures/noise/ptq",
        "pictures/noise/qat",
        "pictures/confusion/validation",
    } == set(tags["images"])
    texts = {tag.split("/text_summary")[0] for tag in tags["tensors"]}
    assert {"config", "tags", "status", "tables/scores", "tables/ranges", "tables/latency"} <= texts
    assert "_hparams_/experiment" in events.summary_metadata
    assert "warning" not in news(console)


def test_another_run_of_the_same_leaves_the_folder_as_it_is(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=tensorboard")
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    before = sorted((outputs / FOLDER).iterdir())
    track(
        mirror(experiment, console, outputs),
        predicted(outputs, experiment, finished="2027-01-01T00:00:00+00:00"),
    )
    assert sorted((outputs / FOLDER).iterdir()) == before
    assert "shows this already" in news(console)


def test_a_run_that_failed_is_written_anew_and_whole(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=tensorboard")
    error = {"type": "TrainingError", "message": "the loss is nan", "traceback": "…"}
    track(mirror(experiment, console, outputs), predicted(outputs, experiment, status="failed", error=error))
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    events = read_back(outputs / FOLDER)
    assert [point.step for point in events.Scalars("loss/fp32")] == CURVES["fp32"]["step"]
    assert len(events.Scalars("fp32/f1")) == 1


def test_an_interrupted_run_says_how_it_goes_on(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=tensorboard")
    track(mirror(experiment, console, outputs), predicted(outputs, experiment, **INTERRUPTED))
    (status,) = read_back(outputs / FOLDER).Tensors("status/text_summary")
    assert status.tensor_proto.string_val[0].decode() == INTERRUPTED["error"]["message"]


def test_a_folder_that_was_deleted_comes_back(outputs: Path, console: RunConsole) -> None:
    import shutil

    experiment = asked("tracker=tensorboard")
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    shutil.rmtree(outputs / "tensorboard")
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    assert read_back(outputs / FOLDER).Scalars("loss/qat")
