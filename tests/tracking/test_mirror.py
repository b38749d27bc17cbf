"""Mirrors: a tracker cannot stop, delay or change a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from qexp.config import Wandb
from qexp.errors import INTERRUPTED, INVALID, OK
from qexp.execution.job import Job
from qexp.progress.console import RunConsole
from qexp.tracking import mirror as module
from qexp.tracking.tracker import CloseResult, Page, PageContent, PageState
from tests.conftest import compose
from tests.support.wandb_server import FAKE_KEY
from tests.tracking.conftest import KEY, asked, mirror, news, predicted, track

QUICK = (
    "task=mrpc", "method=ptq", "deploy=none", "data=sample", "budget=smoke", "machine.progress=false",
    "machine.threads=1",
)  # fmt: skip


class Broken:
    """A tracker that fails at one of its methods."""

    target = "nowhere"
    takes_graphs = False
    where = ""
    error: BaseException = RuntimeError()
    calls: list[str]

    def __init__(self, config: Wandb, outputs: Path) -> None:
        self._at("init")

    def _at(self, where: str) -> None:
        type(self).calls.append(where)
        if where == type(self).where:
            raise type(self).error

    def holds(self, filed: PageState) -> bool:
        return True

    def open(self, page: Page, filed: PageState | None) -> str:
        self._at("open")
        return "opened"

    def scored(self, stage: str, scores: Mapping[str, float | None]) -> None:
        self._at("scored")

    def close(self, content: PageContent, pictures: object) -> CloseResult:
        self._at("close")
        return CloseResult(Path("folder"), {})


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> type[Broken]:
    monkeypatch.setitem(module.PAGES, Wandb, Broken)
    monkeypatch.setattr(Broken, "calls", [], raising=False)
    monkeypatch.setattr(Broken, "error", RuntimeError(f"bad key {FAKE_KEY}\nmore"))
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)
    return Broken


@pytest.mark.parametrize("where", ["init", "open", "scored", "close"])
def test_an_error_of_a_tracker_is_one_warning_and_its_end(
    where: str, broken: type[Broken], outputs: Path, console: RunConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broken, "where", where)
    experiment = asked("tracker=wandb")
    track(mirror(experiment, console, outputs), predicted(outputs, experiment))
    (warning,) = console.warnings
    assert warning == "tracker=wandb: RuntimeError: bad key $WANDB_API_KEY; the run goes on without it"
    assert broken.calls[-1] == where
    assert broken.calls.count(where) == 1
    assert not (outputs / "tracked").exists()


@pytest.mark.parametrize("where", ["open", "scored", "close"])
def test_an_interrupt_passes(
    where: str, broken: type[Broken], outputs: Path, console: RunConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broken, "where", where)
    monkeypatch.setattr(broken, "error", KeyboardInterrupt())
    experiment = asked("tracker=wandb")
    with pytest.raises(KeyboardInterrupt):
        track(mirror(experiment, console, outputs), predicted(outputs, experiment))


def test_what_a_page_shows_is_filed_under_the_runs_key(
    broken: type[Broken], outputs: Path, console: RunConsole
) -> None:
    experiment = asked("tracker=wandb")
    record = predicted(outputs, experiment)
    track(mirror(experiment, console, outputs), record)
    assert broken.calls == ["init", "open", "scored", "scored", "scored", "close"]
    file = outputs / "tracked" / "wandb" / f"{KEY}.json"
    assert json.loads(file.read_text())["status"] == "ok"
    broken.calls.clear()
    track(mirror(experiment, console, outputs), record)
    assert "open" not in broken.calls
    file.write_text("{")  # cut off: the page is filled once more
    track(mirror(experiment, console, outputs), record)
    assert broken.calls[-1] == "close"
    assert console.warnings == []
    assert "opened" in news(console)


def test_another_sweep_takes_the_page_into_its_group(
    broken: type[Broken], outputs: Path, console: RunConsole
) -> None:
    experiment = asked("tracker=wandb")
    for group in ("first", "second"):
        track(mirror(experiment, console, outputs, group), predicted(outputs, experiment))
    assert broken.calls.count("close") == 2


def test_without_the_package_a_run_ends_before_it_begins(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", absent)
    assert Job(compose(*QUICK, "tracker=tensorboard")).run() == INVALID
    assert "pip install 'qexp[tensorboard]'" in capsys.readouterr().err
    assert not (outputs / "artifacts").exists()


def newest(outputs: Path) -> dict[str, Any]:
    """The Record that was written last."""
    file = max((outputs / "records").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_whole_run_is_mirrored_and_keeps_its_secrets(
    tiny_bert: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("MY_PASSWORD", "correct horse battery")
    words = (*QUICK, f"model.name={tiny_bert}", "tracker=wandb", "tracker.wandb.timeout=3")
    assert Job(compose(*words)).run() == OK
    first, shown = newest(outputs), capsys.readouterr()
    (page,) = (outputs / "wandb").glob(f"offline-run-*-{first['key']}")
    assert "no answer from http://127.0.0.1:9" in shown.err
    assert all(": predicts " in each or ": not above " in each for each in first["warnings"])
    assert Job(compose(*words)).run() == OK
    assert list((outputs / "wandb").glob("offline-run-*")) == [page]
    assert Job(compose(*words[:-2])).run() == OK
    assert newest(outputs)["key"] == first["key"], "a tracker is in a key"
    texts = [file.read_bytes() for file in outputs.rglob("*") if file.is_file()]
    for secret in (FAKE_KEY, "correct horse battery"):
        assert not any(secret.encode() in text for text in texts)
        assert secret not in shown.err + shown.out


def test_an_interrupt_while_a_page_is_filled_leaves_the_record(
    broken: type[Broken], tiny_bert: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(broken, "where", "close")
    monkeypatch.setattr(broken, "error", KeyboardInterrupt())
    monkeypatch.setattr("qexp.execution.job.run_pipeline", fails)
    words = (*QUICK, f"model.name={tiny_bert}", "tracker=wandb")
    assert Job(compose(*words)).run() == INTERRUPTED
    assert newest(outputs)["status"] == "failed"
