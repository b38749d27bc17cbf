"""``qexp runs``, ``show``, ``diff``, ``open`` and ``clean`` on Records, and ``report RUN``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qexp.cli import clean, diff, report, runs, show
from qexp.cli import open as open_page
from qexp.errors import INVALID, OK
from qexp.records.record import read_all, write
from tests.conftest import experiment as composed
from tests.support.record_factory import deployed, experiment, failed, record

KEYS = ("aaaaaaaa" * 4, "bbbbbbbb" * 4)


@pytest.fixture
def filled(outputs: Path) -> Path:
    """Two runs that finished, and one that failed."""
    folder = outputs / "records"
    ptq, qat = (experiment(quant="w8a8", method={"kind": kind}, tags=[kind]) for kind in ("ptq", "qat"))
    write(deployed(ptq, key=KEYS[0]), folder)
    write(record(qat, key=KEYS[1], finished="2026-03-02T10:00:00+00:00", warnings=["mind the gap"]), folder)
    write(failed(experiment(quant="w4a8", method={"kind": "qat"}), key="c" * 32), folder)
    return outputs


def printed(code: int, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert code == OK
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_runs_lists_filters_and_marks_failures(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(runs.main([]), capsys)
    assert [line[2:10] for line in out.splitlines()[1:]] == ["bbbbbbbb", "aaaaaaaa", "cccccccc"]
    assert [line[0] for line in out.splitlines()[1:]] == [" ", " ", "x"]
    assert "qexp show KEY" in err
    out, err = printed(runs.main(["quant=w8a8", "--sort=-ptq", "--limit", "1", "--json"]), capsys)
    (found,) = json.loads(out)
    assert found["key"] in KEYS and found["quant"] == "w8a8"
    assert err == ""
    assert printed(runs.main(["task=cola"]), capsys) == ("", "0 of 3 runs\n")


@pytest.mark.parametrize("words", [["mrpc"], ["foo=1"], ["--sort=foo"]])
def test_runs_refuses_what_is_no_filter(
    words: list[str], filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs.main(words) == INVALID
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1


@pytest.mark.parametrize("command", [runs, show, diff, open_page])
def test_no_runs_at_all(command: Any, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {show: ["last"], diff: ["last", "mrpc"]}.get(command, [])
    assert command.main([*words, "--outputs", str(outputs)]) == INVALID
    assert "no" in capsys.readouterr().err.lower()


def test_show_has_settings_scores_stages_and_warnings(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = printed(show.main(["mrpc/qat"]), capsys)
    for part in (KEYS[1], "again: python -m qexp ", "mind the gap", "tokens", "built"):
        assert part in out
    lines = [line.split() for line in out.splitlines()]
    assert ["placement.name", "gemm", "qdqbert"] in lines
    assert ["calibrator.kind", "mse", "max"] in lines
    assert not any(line[:1] == ["seed"] for line in lines)
    assert f"{filled / 'records' / KEYS[1]}.json" in out
    out, _ = printed(show.main(["mrpc/ptq"]), capsys)
    assert "gate: passed" in out and "p50 ms, batch 32" in out


def test_show_has_no_setting_that_is_a_default(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = composed("task=mrpc", "quant=w4a8", "method.epochs=7").model_dump(mode="json")
    words = ["task=mrpc", "quant=w4a8", "method.epochs=7"]
    write(record(tree, overrides=words), outputs / "records")
    out, _ = printed(show.main(["last"]), capsys)
    section = out.partition("settings that differ")[2].partition("\n\n")[0].splitlines()[2:]
    assert [line.split() for line in section] == [
        ["quant.weight_bits", "8", "4"],
        ["method.epochs", "2.0", "7.0"],
    ]


def test_show_of_a_failed_run_says_why(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(show.main(["cccccccc"]), capsys)
    assert "FAILED: TrainingError: the loss is nan" in out


def test_diff_has_what_differs_and_nothing_else(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(diff.main(["mrpc/ptq", "bbbbbbbb"]), capsys)
    lines = [line.split() for line in out.splitlines()]
    assert ["method.kind", "ptq", "qat"] in lines
    assert ["tags", "[ptq]", "[qat]"] in lines
    assert not any(line[:1] in (["quant.weight_bits"], ["task.name"], ["seed"]) for line in lines)
    scores = {line[0] + " " + line[1]: line[2:] for line in lines if len(line) == 5}
    first, second = (each for each in read_all(filled / "records")[0] if each.key in KEYS)
    one, other = first.scores["ptq"]["f1"], second.scores["ptq"]["f1"]
    assert one is not None and other is not None
    assert scores["ptq f1"] == [f"{one:.2f}", f"{other:.2f}", f"{other - one:+.2f}"]
    assert scores["qat f1"][0] == "-"
    assert max(map(len, out.splitlines())) <= 80
    out, _ = printed(diff.main(["bbbbbbbb", "bbbbbbbb"]), capsys)
    assert "none" in out


def test_report_of_one_run_has_its_row_alone(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(report.main(["last", "--format", "json"]), capsys)
    (table,) = json.loads(out)["tables"]
    assert [row["records"] for row in table["rows"]] == [{"1": KEYS[1]}]
    assert table["rows"][0]["tags"] == {"1": ["qat"]}
    assert err.startswith("last: bbbbbbbb")
    out, _ = printed(report.main(["mrpc/ptq", "bbbbbbbb", "--format", "json"]), capsys)
    assert len(json.loads(out)["tables"][0]["rows"]) == 2


def test_a_page_of_one_run_does_not_take_the_place_of_that_of_all(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        report.main(["last", "--html"])
    assert end.value.code == INVALID
    assert not (filled / "report.html").exists()


def test_open_makes_the_page_when_a_record_is_newer(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setenv("BROWSER", "a-browser")
    monkeypatch.setattr(open_page.webbrowser, "open", lambda address: opened.append(address) or True)
    page = filled / "report.html"
    assert printed(open_page.main([]), capsys) == (f"{page}\n", "")
    assert opened == [page.as_uri()]
    old = page.stat().st_mtime_ns
    assert printed(open_page.main([]), capsys) == (f"{page}\n", "")
    assert page.stat().st_mtime_ns == old
    os.utime(page, (0, 0))
    printed(open_page.main([]), capsys)
    assert page.stat().st_mtime > 0 and len(opened) == 3


def test_open_prints_the_path_where_there_is_no_browser(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(open_page.sys, "platform", "linux")
    out, err = printed(open_page.main([]), capsys)
    assert out == f"{filled / 'report.html'}\n" and "no browser" in err


def test_clean_removes_what_never_began_and_no_result(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = experiment(method={"kind": "ptq"})
    error = {"type": "ConfigError", "message": "no", "traceback": ""}
    fields: dict[str, Any] = {"status": "failed", "error": error, "stages": [], "scores": {}, "data": None}
    write(record(tree, key="d" * 32, **fields), filled / "records")
    work = filled / "artifacts" / "2-fp32" / f"{'0' * 32}.work-1"
    work.mkdir(parents=True)
    before = {file.name for file in (filled / "records").iterdir()}
    out, _ = printed(clean.main(["--dry-run"]), capsys)
    assert f"records/{'d' * 32}.json" in out and work.is_dir()
    assert {file.name for file in (filled / "records").iterdir()} == before
    out, _ = printed(clean.main(["--older-than", "1"]), capsys)
    assert "removed 0 Records" in out and work.is_dir()
    out, _ = printed(clean.main([]), capsys)
    assert "removed 1 Records" in out and "1 work" in out and not work.exists()
    assert {file.name for file in (filled / "records").iterdir()} == before - {f"{'d' * 32}.json"}


def test_clean_without_outputs_is_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert clean.main([]) == INVALID
    assert "no such folder" in capsys.readouterr().err
