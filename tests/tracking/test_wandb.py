"""Pages on W&B: offline files that are read back, and behaviour without keys, servers and networks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qexp.progress.console import RunConsole
from tests.support.wandb_processes import end_service
from tests.support.wandb_server import FAKE_KEY, Server
from tests.tracking.conftest import CURVES, INTERRUPTED, KEY, asked, mirror, news, predicted, track

OFFLINE = ("tracker=wandb", "tracker.wandb.mode=offline")


def pages(outputs: Path, kind: str = "offline-run") -> list[Path]:
    return sorted((outputs / "wandb").glob(f"{kind}-*"))


def logged(folder: Path) -> list[dict[str, Any]]:
    """Every entry of a page's log, as wandb's own reader prints it."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_kind(entries: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [entry[kind] for entry in entries if entry["type"] == kind]


def curve(entries: list[dict[str, Any]], name: str) -> dict[str, list[float]]:
    """A loss curve as it was logged."""
    items = [each["item"] for each in of_kind(entries, "history") if f"loss/{name}" in each["item"]]
    return {
        "step": [item[f"step/{name}"] for item in items],
        "loss": [item[f"loss/{name}"] for item in items],
    }


def summary(entries: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in of_kind(entries, "summary"):
        found |= each.get("update", {})
    return found


def test_the_offline_files_hold_the_whole_page(outputs: Path, console: RunConsole) -> None:
    experiment = asked(
        *OFFLINE, "tracker.wandb.upload_onnx=true", "tags=[baseline]", "note='as in the paper'"
    )
    record = predicted(outputs, experiment)
    graph = outputs / "artifacts" / "7-onnx" / "int8" / "model.onnx"
    graph.parent.mkdir(parents=True)
    graph.write_bytes(b"graph")
    track(mirror(experiment, console, outputs, "sweep-7"), record)
    (folder,) = pages(outputs)
    entries = logged(folder)

    run = of_kind(entries, "run")[0]
    assert (run["run_id"], run["project"], run["run_group"], run["job_type"]) == (
        KEY,
        "qexp",
        "sweep-7",
        "mrpc",
    )
    assert {"mrpc", "w8a8", "qat", "mse", "baseline"} <= set(run["tags"])
    assert run["notes"] == "as in the paper"
    assert run["resume"] is True
    config = {name: value for name, value in run["config"]["update"].items() if name != "_wandb"}
    assert config == experiment.model_dump(mode="json", exclude={"tracker", "tags", "note"})

    for name in CURVES:
        assert curve(entries, name) == CURVES[name]
    axes = {each["name"]: each.get("step_metric") for each in of_kind(entries, "metric")}
    assert axes == {"loss/fp32": "step/fp32", "loss/qat": "step/qat"}

    final = summary(entries)
    assert final["status"] == "ok"
    for stage, scores in record.scores.items():
        for metric, score in scores.items():
            assert final[f"{stage}/{metric}"] == pytest.approx(score)
    tables = {
        path.name.split("_")[0] for path in (folder / "files" / "media" / "table" / "tables").glob("*.json")
    }
    assert {"scores", "ranges", "latency", "sizes"} == tables
    (confusion,) = (folder / "files/media/table/tables/confusion").glob("validation*.json")
    assert json.loads(confusion.read_text())["columns"] == ["fp32", "qat", "label", "rows"]
    assert len(list((folder / "files/media/images/pictures").rglob("*.png"))) == 7
    graphs = [each for each in of_kind(entries, "artifact") if each["type"] == "model"]
    (stored,) = graphs[0]["manifest"]["contents"]
    assert Path(stored["local_path"]) == graph, "the graph was copied"
    assert [each.get("exit_code", 0) for each in of_kind(entries, "exit")] == [0]
    assert "warning" not in news(console)


def test_an_interrupted_run_has_wandb_s_own_exit_code_of_ctrl_c_and_a_tag(
    outputs: Path, console: RunConsole
) -> None:
    experiment = asked(*OFFLINE)
    track(mirror(experiment, console, outputs), predicted(outputs, experiment, **INTERRUPTED))
    (first,) = pages(outputs)
    entries = logged(first)
    assert [each.get("exit_code", 0) for each in of_kind(entries, "exit")] == [255]
    assert "interrupted" in of_kind(entries, "run")[-1]["tags"]
    assert summary(entries)["status"] == "interrupted" and "error" not in summary(entries)

    time.sleep(1.1)  # folders are named by the second
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    (second,) = pages(outputs)
    assert second != first
    entries = logged(second)
    assert "interrupted" not in of_kind(entries, "run")[-1]["tags"]
    assert [each.get("exit_code", 0) for each in of_kind(entries, "exit")] == [0]


def test_a_rerun_adds_nothing_and_a_page_that_failed_is_replaced(outputs: Path, console: RunConsole) -> None:
    experiment = asked(*OFFLINE)
    error = {"type": "TrainingError", "message": "the loss is nan\nsecond line", "traceback": "…"}
    track(mirror(experiment, console, outputs), predicted(outputs, experiment, status="failed", error=error))
    (first,) = pages(outputs)
    entries = logged(first)
    assert summary(entries)["error"] == "TrainingError: the loss is nan"
    assert of_kind(entries, "exit")[0]["exit_code"] == 1

    time.sleep(1.1)  # folders are named by the second
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    (second,) = pages(outputs)
    assert second != first
    entries = logged(second)
    assert curve(entries, "fp32") == CURVES["fp32"]
    assert "error" not in summary(entries)

    log = (second / f"run-{KEY}.wandb").read_bytes()
    track(
        mirror(experiment, console, outputs), predicted(outputs, experiment, finished="2027-01-01T00:00:00")
    )
    track(mirror(experiment, console, outputs), predicted(outputs, experiment, status="failed", error=error))
    assert pages(outputs) == [second]
    assert (second / f"run-{KEY}.wandb").read_bytes() == log
    assert "shows this already" in news(console)
    assert "keeps its earlier result" in news(console)


def test_a_page_that_was_sent_gets_no_curve_twice(outputs: Path, console: RunConsole) -> None:
    experiment = asked(*OFFLINE)
    track(
        mirror(experiment, console, outputs), predicted(outputs, experiment, curves={"fp32": CURVES["fp32"]})
    )
    (sent,) = pages(outputs)
    (sent / f"run-{KEY}.wandb.synced").touch()
    time.sleep(1.1)
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    first, second = pages(outputs)
    assert first == sent
    entries = logged(second)
    assert curve(entries, "fp32")["step"] == []
    assert curve(entries, "qat") == CURVES["qat"]


def test_without_a_key_it_is_offline_at_once_and_says_so(outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=wandb")
    started = time.monotonic()
    page = mirror(experiment, console, outputs)
    page.found(KEY, "local")
    assert time.monotonic() - started < 10  # most of it is the import
    page.ends(predicted(outputs, experiment))
    (folder,) = pages(outputs)
    (line,) = [line for line in news(console).splitlines() if "offline" in line and "wandb:" in line]
    assert "no API key" in line
    assert f"wandb sync {folder}" in line
    assert "warning" not in news(console)


@pytest.fixture
def server(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """As much of W&B as it takes, on this machine, and a key for it, which must not get into any file."""
    with Server() as made:
        monkeypatch.setenv("WANDB_BASE_URL", made.url)
        monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)
        yield made
        end_service()
    for file in outputs.rglob("*"):
        assert not file.is_file() or FAKE_KEY.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("broken", "mode"),
    [
        ("silent", "online"), ("closed", "auto"),
        pytest.param("silent", "auto", marks=pytest.mark.slow),
        pytest.param("closed", "online", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_server_that_does_not_answer_costs_no_more_than_the_timeout(
    mode: str, broken: str, server: Server, outputs: Path, console: RunConsole
) -> None:
    server.silent.set() if broken == "silent" else server.close()
    experiment = asked("tracker=wandb", f"tracker.wandb.mode={mode}", "tracker.wandb.timeout=3")
    page = mirror(experiment, console, outputs)
    import wandb  # noqa: F401  # what it costs to import is not what is measured

    started = time.monotonic()
    page.found(KEY, "local")
    assert time.monotonic() - started < 20  # wandb alone waits for 90 seconds and more
    page.ends(predicted(outputs, experiment))
    assert curve(logged(pages(outputs)[0]), "qat") == CURVES["qat"]
    assert "offline (" in news(console)
    assert "warning" not in news(console)
    assert pages(outputs, "run") == []


def streamed(server: Server, name: str) -> list[float]:
    """Losses of a training that the server was sent as history."""
    files = [each["files"].get("wandb-history.jsonl", {}) for each in server.requests if "files" in each]
    lines = [json.loads(line) for file in files for line in file.get("content", ())]
    return [line[f"loss/{name}"] for line in lines if f"loss/{name}" in line]


def test_online_a_run_has_one_page_under_its_key(server: Server, outputs: Path, console: RunConsole) -> None:
    experiment = asked("tracker=wandb", "tracker.wandb.timeout=20")
    error = {"type": "TrainingError", "message": "the loss is nan", "traceback": "…"}
    failed = {"status": "failed", "error": error, "curves": {"fp32": CURVES["fp32"]}}
    track(mirror(experiment, console, outputs, "sweep-7"), predicted(outputs, experiment, **failed))
    for _ in range(2):
        track(mirror(experiment, console, outputs, "sweep-7"), predicted(outputs, experiment))
    assert console.warnings == []
    opened = [
        each["variables"]
        for each in server.sent("mutation UpsertBucket")
        if each["variables"].get("groupName")
    ]
    assert {(each["name"], each["groupName"], each["jobType"]) for each in opened} == {
        (KEY, "sweep-7", "mrpc")
    }
    assert "w8a8" in opened[0]["tags"]
    for name in CURVES:
        assert streamed(server, name) == CURVES[name]["loss"]
    artifacts = [each["variables"]["input"] for each in server.sent("mutation CreateArtifact")]
    assert {each["artifactTypeName"] for each in artifacts} == {"run_table"}
    assert "shows this already" in news(console)
    assert "offline" not in news(console)


@pytest.mark.slow  # wandb repeats a refusal until its timeout, which a busy machine needs for the other page
def test_a_page_that_was_deleted_gets_another_id_and_keeps_it(
    server: Server, outputs: Path, console: RunConsole
) -> None:
    server.deleted = {KEY}
    experiment = asked("tracker=wandb", "tracker.wandb.timeout=20")
    error = {"type": "TrainingError", "message": "the loss is nan", "traceback": "…"}
    track(mirror(experiment, console, outputs), predicted(outputs, experiment, status="failed", error=error))
    assert "offline" not in news(console)
    server.requests.clear()
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    opened = {each["variables"]["name"] for each in server.sent("mutation UpsertBucket")}
    assert opened == {f"{KEY}-2"}, "the deleted id was tried again"
    assert console.warnings == []
    assert pages(outputs) == []


@pytest.mark.slow  # a timeout that a busy machine keeps is waited for twice
@pytest.mark.filterwarnings(
    "ignore:Exception in thread NetStatThr:pytest.PytestUnhandledThreadExceptionWarning"
)
def test_a_network_that_dies_in_the_middle_does_not_block(
    server: Server, outputs: Path, console: RunConsole
) -> None:
    experiment = asked("tracker=wandb", "tracker.wandb.timeout=10")
    record = predicted(outputs, experiment)
    page = mirror(experiment, console, outputs)
    page.found(record.key, "local")
    server.silent.set()
    page.scored("fp32", record.scores["fp32"])
    started = time.monotonic()
    page.ends(record)
    assert time.monotonic() - started < 40  # wandb alone waits for minutes
    (folder,) = pages(outputs, "run")
    (warning,) = console.warnings
    assert "TimeoutError" in warning
    assert f"wandb sync {folder}" in warning
    end_service()  # as at the end of a process; what was logged is on the disk by then
    assert curve(logged(folder), "qat") == CURVES["qat"]


KILLED = """
import sys
from pathlib import Path
from qexp.progress.console import RunConsole
from tests.tracking.conftest import asked, mirror, predicted
from tests.support.wandb_processes import kill_service
outputs = Path(sys.argv[1])
experiment = asked(*sys.argv[2:])
record = predicted(outputs, experiment)
page = mirror(experiment, RunConsole(progress=False), outputs)
page.found(record.key, "local")
kill_service()
page.scored("fp32", record.scores["fp32"])
page.ends(record)
print("well")
"""


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_service_that_is_killed_costs_a_warning_and_no_exit_code(
    mode: str, server: Server, outputs: Path
) -> None:
    words = [str(outputs), "tracker=wandb", f"tracker.wandb.mode={mode}", "tracker.wandb.timeout=15"]
    command = [sys.executable, "-c", KILLED, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "well\n"
    assert done.stderr.count("warning: tracker=wandb") == 1, done.stderr
    assert FAKE_KEY not in done.stderr


def test_nothing_is_written_at_home(outputs: Path, tmp_path: Path, console: RunConsole) -> None:
    experiment = asked(*OFFLINE)
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    there = [file for file in (tmp_path / "home").rglob("*") if "wandb" in str(file)]
    assert there == []
    assert not list(outputs.rglob("wandb-metadata.json")) + list(outputs.rglob("requirements.txt"))
