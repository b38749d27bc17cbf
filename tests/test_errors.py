"""Hints at what a misspelled path means, alone and in the errors of commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qexp.cli.overrides import CommandLine
from qexp.config import Data, Model
from qexp.data.checkpoints import locate
from qexp.data.detection.tables import RowFiles
from qexp.data.sources.local import Local
from qexp.data.sources.resolve import resolve
from qexp.errors import QexpError, nearest_path, path_hint
from qexp.prediction.readers import InputRows
from qexp.reporting.run_names import choose_run
from tests.conftest import experiment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "tickets/train.csv",
        "tickets-model/config.json",
        "own-conf/task/mine.yaml",
        "report",
        "sst2-x/a",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tickts", "tickets"), ("./tickets/trian.csv", "tickets/train.csv"),
        ("tikets/train.csv", "tickets/train.csv"), ("~/tickts", "~/tickets"),
        ("tikets/test.csv", None), ("tickets", None), ("colours", None), ("nobody/at/all", None),
        ("a\0b", None), ("~nobody-has-this-name/x", None),
    ],
)  # fmt: skip
def test_the_nearest_path_is_spelled_as_it_was_typed(here: Path, typed: str, meant: str | None) -> None:
    assert nearest_path(typed) == meant
    assert path_hint(typed) == (f"did you mean {meant}? " if meant else "")
    assert nearest_path(here / "tickts") == str(here / "tickets")


def test_a_folder_is_never_taken_for_a_file(here: Path) -> None:
    assert nearest_path("reports") == "report"
    assert nearest_path("reports", folder=True) is None


def test_a_folder_that_cannot_be_listed_gives_no_hint(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert nearest_path("tickts") is None


CLASSES = ("task=classification", "data.text=text", "data.label=label")
FAILING: dict[str, tuple[Callable[[], object], str]] = {
    "rows of check": (lambda: RowFiles(Path("tickts")), "tickets"),
    "data.path": (
        lambda: Local(
            Data(path="tickts"), experiment(*CLASSES, "data.path=tickts", "task.labels=[a,b]").task
        ).tables(),
        "tickets",
    ),
    "data.root": (lambda: resolve(Data(root="tickts"), experiment("task=sst2").task), "tickets"),
    "folder in data.root": (
        lambda: resolve(Data(source="local", root="."), experiment("task=sst2").task), "sst2-x"
    ),
    "local data.root": (
        lambda: resolve(Data(source="local", root="tickts"), experiment("task=sst2").task), "tickets"
    ),
    "model folder": (lambda: locate(Model(name="./ticket-model")), "tickets-model"),
    "--config-dir": (lambda: CommandLine(["--config-dir", "own-cnf"]).check(), "own-conf"),
    "rows of predict": (
        lambda: InputRows("tickets/trian.csv", ["text"], whole=False).check_first(), "tickets/train.csv"
    ),
    "no ending of rows": (
        lambda: InputRows("tickets/train.cvs", ["text"], whole=False).check_first(), "tickets/train.csv"
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", FAILING)
def test_errors_name_the_nearest_path(here: Path, which: str) -> None:
    action, meant = FAILING[which]
    with pytest.raises(QexpError) as error:
        action()
    assert f"{meant}? " in str(error.value) and "\n" not in str(error.value)


def test_a_published_folder_in_place_of_a_run_is_hinted_at(here: Path) -> None:
    (here / "records").mkdir()
    from qexp.records.record import write
    from tests.support.record_factory import record

    write(record(), here / "records")
    with pytest.raises(QexpError, match=r"did you mean tickets-model\? "):
        choose_run("ticket-model", here)
