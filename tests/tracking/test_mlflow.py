"""Runs of MLflow, read back with MLflow's own client: in a database, a folder and a server."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qexp.progress.console import RunConsole
from tests.tracking.conftest import CURVES, INTERRUPTED, KEY, asked, mirror, news, predicted, track

pytest.importorskip("mlflow", reason="mlflow is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.slow,
]


def runs_of(uri: str, view: int = 1) -> list[Any]:
    """Active (1) or all (3) runs of the project's experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("qexp")
    return list(client.search_runs([experiment.experiment_id], run_view_type=view))


def files_of(uri: str, run: Any, folder: str = "") -> set[str]:
    """Paths of all artifacts of a run."""
    from mlflow import MlflowClient

    found: set[str] = set()
    for each in MlflowClient(uri).list_artifacts(run.info.run_id, folder or None):
        found |= files_of(uri, run, each.path) if each.is_dir else {each.path}
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server of MLflow on a free port."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer from {address}")


@pytest.fixture(params=["database", "folder", "server"])
def uri(request: pytest.FixtureRequest, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of each kind of store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    if request.param == "server":
        return str(request.getfixturevalue("server"))
    if request.param == "folder":
        return (outputs / "mlruns").as_uri()
    return f"sqlite:///{outputs.absolute()}/mlflow/mlflow.db"


def words_for(uri: str) -> tuple[str, ...]:
    return (
        ("tracker=mlflow",) if uri.startswith("sqlite") else ("tracker=mlflow", f"tracker.mlflow.uri='{uri}'")
    )


def test_settings_scores_losses_tables_and_pictures_are_there(
    uri: str, outputs: Path, console: RunConsole
) -> None:
    experiment = asked(*words_for(uri), "tags=[mine]", "note=first", "seed=7")
    record = predicted(outputs, experiment, key=f"{KEY[:-1]}7")
    track(mirror(experiment, console, outputs, group="smoke-1"), record)
    assert not console.warnings
    (run,) = [each for each in runs_of(uri) if each.data.tags["key"] == record.key]
    assert (run.info.run_name, run.info.status) == ("mrpc-w8a8-qat-s7", "FINISHED")
    assert (run.data.tags["sweep"], run.data.tags["mlflow.note.content"]) == ("smoke-1", "first")
    assert "mine" in run.data.tags
    assert run.data.params["quant.weight_bits"] == "8"
    for stage, scores in record.scores.items():
        for metric, score in scores.items():
            assert run.data.metrics[f"{stage}/{metric}"] == pytest.approx(score)
    from mlflow import MlflowClient

    for name, curve in CURVES.items():
        points = MlflowClient(uri).get_metric_history(run.info.run_id, f"loss/{name}")
        assert [point.step for point in points] == curve["step"]
        assert [point.value for point in points] == curve["loss"]
    files = files_of(uri, run)
    assert {"tables/scores.json", "tables/confusion/validation.json", "pictures/loss.png"} <= files


def test_a_repeated_run_adds_nothing_and_one_that_failed_is_replaced(
    uri: str, outputs: Path, console: RunConsole
) -> None:
    experiment, key = asked(*words_for(uri), "seed=8"), f"{KEY[:-1]}8"
    error = {"type": "TrainingError", "message": "the loss is nan", "traceback": "…"}

    def statuses() -> list[str]:
        return [run.info.status for run in runs_of(uri) if run.data.tags["key"] == key]

    track(mirror(experiment, console, outputs), predicted(outputs, experiment, key=key, **INTERRUPTED))
    assert statuses() == ["KILLED"]
    (run,) = [each for each in runs_of(uri) if each.data.tags["key"] == key]
    assert run.data.tags["interruption"] == INTERRUPTED["error"]["message"]
    assert "error" not in run.data.tags
    failed = predicted(outputs, experiment, status="failed", error=error, key=key)
    track(mirror(experiment, console, outputs), failed)
    assert statuses() == ["FAILED"]
    for _ in range(2):
        track(mirror(experiment, console, outputs), predicted(outputs, experiment, key=key))
        assert statuses() == ["FINISHED"]
    assert "shows this already" in news(console)
    assert not console.warnings


def test_a_server_that_does_not_answer_is_one_warning_without_the_password(
    outputs: Path, console: RunConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://me:secret@127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    experiment = asked("tracker=mlflow", "tracker.mlflow.timeout=2")
    started = time.monotonic()
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    (warning,) = console.warnings
    assert warning.startswith("tracker=mlflow: ")
    assert "secret" not in warning + news(console)
    assert time.monotonic() - started < 60
