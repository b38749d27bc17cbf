"""``qexp report``: output, files and exit codes."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from qexp.cli.report import main
from qexp.records import record as records
from qexp.records.record import Record, write
from tests.support.record_factory import deployed, experiment, failed, record
from tests.support.verdict_records import judged


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


def fill(outputs: Path, runs: Sequence[Record]) -> None:
    for number, run in enumerate(runs):
        write(Record(**{**vars(run), "key": f"{number:03}"}), outputs / "records")


def mix() -> list[Record]:
    """Two tasks, three bit-widths, two seeds, one failure."""
    runs = [
        record(experiment(task, quant=quant, seed=seed))
        for task in ("mrpc", "cola")
        for quant in ("fp32", "w8a8", "w4a4")
        for seed in (1, 2)
    ]
    return [*runs[:-1], failed(experiment("cola", quant="w4a4", seed=2))]


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_markdown_of_a_mix(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(outputs, mix())
    assert main(["--outputs", str(outputs)]) == 0
    text, problems = capsys.readouterr()
    assert problems == ""
    assert [line for line in text.splitlines() if line.startswith("##")] == [
        "## verdict",
        "## cola",
        "## mrpc",
        "## overview: GLUE",
        "## relative loss: cola",
        "## relative loss: mrpc",
    ], "no average has all of its tasks"
    assert "1 of 2: seed 2 failed [1]" in text
    assert "[1] TrainingError: the loss is nan" in text
    assert text.count("| simulated ") == 2
    assert "[1] TrainingError" in text[text.index("## relative loss: cola") :]


def test_one_task_only(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(outputs, mix())
    assert main(["--outputs", str(outputs), "--task", "cola"]) == 0
    text = capsys.readouterr().out
    assert "mrpc" not in text
    assert "GLUE (aimet)" not in text
    assert main(["--outputs", str(outputs), "--task", "rte"]) == 2
    assert (
        capsys.readouterr().err == "qexp report: no Records of task rte; there are Records of: cola, mrpc\n"
    )


def test_conventions_forms_and_published_rows_are_chosen(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(outputs, mix())
    words = ["--outputs", str(outputs)]
    assert main([*words, "--convention", "q8bert", "--published", "all"]) == 0
    text = capsys.readouterr().out
    assert "GLUE (q8bert)" in text
    assert "published: Q8BERT, bert-base [S]" in text
    assert main(words) == 0
    assert "published: " not in capsys.readouterr().out  # no architecture that anybody published
    assert main([*words, "--format", "latex"]) == 0
    assert capsys.readouterr().out.startswith("\\begin{table}")
    assert main([*words, "--format", "json"]) == 0
    assert {table["task"] for table in json.loads(capsys.readouterr().out)["tables"]} == {"cola", "mrpc"}


def test_compare_has_two_forms_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "abcdef", "abcdeg", "--format", "latex"])
    err = capsys.readouterr().err
    assert "--format" in err
    assert "'markdown', 'csv'" in err


def test_csv_has_raw_numbers(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [deployed(experiment(seed=seed)) for seed in (1, 2, 3)]
    values = [run.scores["qat"]["f1"] or 0.0 for run in runs]
    gains = [value - (run.scores["fp32"]["f1"] or 0.0) for value, run in zip(values, runs, strict=True)]
    fill(outputs, runs)
    assert main(["--outputs", str(outputs), "--format", "csv"]) == 0
    found = {
        (line["quantity"], line["stage"], line["metric"], line["batch"]): line
        for line in lines_of(capsys.readouterr().out)
    }
    qat = found["score", "qat", "f1", ""]
    assert float(qat["median"]) == statistics.median(values)
    assert (float(qat["min"]), float(qat["max"]), qat["n"]) == (min(values), max(values), "3")
    assert (qat["unit"], qat["status"], qat["seeds"], qat["parity"]) == ("percent", "ok", "1 2 3", "passed")
    assert float(found["difference", "qat-fp32", "f1", ""]["median"]) == statistics.median(gains)
    assert found["size", "int8", "", ""]["median"] == "23000000.0"
    assert found["latency", "int8", "p50_ms", "32"]["median"] == "150.0"
    assert found["score", "onnx", "f1", ""]["status"] == "missing"  # the factory's scores have none


def test_csv_says_what_is_failed_missing_and_undefined(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undefined = {"fp32": {"f1": 1.0}, "ptq": {"f1": None}, "qat": {"f1": 2.0}}
    fill(
        outputs,
        [
            record(experiment(seed=1), scores=undefined),
            record(experiment(model="b", seed=1)),
            failed(experiment(quant="w4a4", seed=1)),
        ],
    )
    assert main(["--outputs", str(outputs), "--format", "csv"]) == 0
    lines = lines_of(capsys.readouterr().out)
    found = {
        (line["model"], line["quant"], line["stage"]): line
        for line in lines
        if line["metric"] == "f1" and line["quantity"] == "score"
    }
    assert found["minilm", "w8a8", "ptq"]["status"] == "undefined"
    assert found["minilm", "w8a8", "ptq"]["median"] == ""
    assert found["minilm", "w8a8", "ptq"]["undefined_seeds"] == "1"
    assert found["minilm", "w4a4", "qat"]["status"] == "failed"
    assert found["minilm", "w4a4", "qat"]["error"] == "TrainingError: the loss is nan"
    assert found["minilm", "w4a4", "qat"]["simulated"] == "true"
    assert found["b", "w4a4", "qat"]["status"] == "missing"
    assert found["b", "w4a4", "qat"]["missing_seeds"] == "1"


def test_unreadable_records_are_named_and_the_rest_is_reported(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(outputs, [record()])
    (outputs / "records" / "cut.json").write_text('{"key": ')
    assert main(["--outputs", str(outputs)]) == 1
    text, problems = capsys.readouterr()
    assert "## mrpc" in text
    assert f"left out {outputs / 'records' / 'cut.json'}: not complete JSON" in problems


def test_nothing_to_report_on(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--outputs", str(outputs)]) == 2
    (outputs / "records").mkdir(parents=True)
    assert main(["--outputs", str(outputs)]) == 2
    text, problems = capsys.readouterr()
    assert text == ""
    first, second = problems.splitlines()
    assert "no folder" in first
    assert "no Records" in second
    assert all("python -m qexp task=mrpc" in line for line in (first, second))


def test_only_unreadable_records_are_nothing_to_report_on(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outputs / "records").mkdir(parents=True)
    (outputs / "records" / "cut.json").write_text("")
    assert main(["--outputs", str(outputs)]) == 2
    assert "cut.json" in capsys.readouterr().err


def test_write_puts_each_task_into_files(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(outputs, [*mix(), record({**experiment(), "task": {**experiment()["task"], "name": "my/task"}})])
    assert main(["--outputs", str(outputs), "--write"]) == 0
    names = ["verdict", "cola", "mrpc", "my%2Ftask", "overview", "relative-loss"]
    assert {path.name for path in (outputs / "tables").iterdir()} == {
        f"{name}.{ending}" for name in names for ending in ("md", "csv", "tex", "json")
    }
    parts = [(outputs / "tables" / f"{name}.md").read_text() for name in names]
    assert capsys.readouterr().out == "\n".join(parts)
    assert {line["task"] for line in lines_of((outputs / "tables" / "cola.csv").read_text())} == {"cola"}


def test_a_full_disk_keeps_the_old_tables(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(outputs, [record()])
    assert main(["--outputs", str(outputs), "--write"]) == 0
    before = (outputs / "tables" / "mrpc.md").read_text()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records.os, "replace", refuse)
    assert main(["--outputs", str(outputs), "--write"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not [path.name for path in (outputs / "tables").iterdir() if path.name.startswith(".")]
    assert (outputs / "tables" / "mrpc.md").read_text() == before


def test_html_is_written_into_the_outputs_or_where_asked(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(outputs, mix())
    assert main(["--outputs", str(outputs), "--html"]) == 0
    assert capsys.readouterr().out == f"{outputs / 'report.html'}\n"
    text = (outputs / "report.html").read_text(encoding="utf-8")
    assert all(f"<h3>{name}</h3>" in text for name in ("overview: GLUE", "cola", "mrpc"))
    elsewhere = outputs / "new" / "page.html"
    assert main(["--outputs", str(outputs), "--task", "cola", "--html", str(elsewhere)]) == 0
    assert capsys.readouterr().out == f"{elsewhere}\n"
    text = elsewhere.read_text(encoding="utf-8")
    assert "<h3>cola</h3>" in text
    assert "<h3>mrpc</h3>" not in text
    assert "relative loss: mrpc" not in text


@pytest.mark.parametrize("below", [True, False])
def test_every_format_names_a_file_as_it_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    outputs = tmp_path / "outputs"
    fill(outputs, [judged(-0.1)])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path if below else tmp_path / "elsewhere")
    monkeypatch.setenv("QEXP_OUTPUTS", str(outputs))
    where = "outputs" if below else str(outputs)
    file = f"{where}/artifacts/7-onnx/int8graphw8a8/model.onnx"
    assert main([]) == 0
    assert f"- file: `{file}`" in capsys.readouterr().out
    assert main(["--html", "--write"]) == 0
    assert capsys.readouterr().out == f"{where}/report.html\n"
    assert f"<code>{file}</code>" in (outputs / "report.html").read_text(encoding="utf-8")
    assert f"- file: `{file}`" in (outputs / "tables" / "verdict.md").read_text(encoding="utf-8")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main([]) == 0
    assert f"file: {file}\n" in capsys.readouterr().out


def test_html_tells_what_could_not_be_read(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(outputs, mix())
    (outputs / "records" / "cut.json").write_text("{")
    assert main(["--outputs", str(outputs), "--html"]) == 1
    assert "cut.json" in capsys.readouterr().err
    assert "1 unreadable, left out" in (outputs / "report.html").read_text(encoding="utf-8")


def test_plots_are_written_and_their_paths_printed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(outputs, mix())
    assert main(["--outputs", str(outputs), "--plots"]) == 0
    paths = capsys.readouterr().out.splitlines()
    charts = ("loss-by-task-and-width", "cola-seeds", "mrpc-seeds")
    names = [f"{chart}.{ending}" for chart in charts for ending in ("png", "svg")]
    assert paths == [str(outputs / "plots" / name) for name in names]
    assert all(Path(path).stat().st_size > 1000 for path in paths)
    assert main(["--outputs", str(outputs), "--html", "--plots", str(outputs / "p"), "--write"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert (outputs / "tables" / "cola.md").exists()


def test_a_page_that_cannot_be_written_is_an_error(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(outputs, mix())
    blocked = outputs / "records" / "000.json" / "page.html"
    assert main(["--outputs", str(outputs), "--html", str(blocked)]) == 1
    assert f"cannot write page.html in {blocked.parent}" in capsys.readouterr().err
    assert main(["--outputs", str(outputs), "--plots", str(blocked.parent)]) == 1
    assert "name another folder" in capsys.readouterr().err


def test_outputs_default_to_the_variable(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(outputs, [record()])
    monkeypatch.setenv("QEXP_OUTPUTS", str(outputs))
    assert main([]) == 0
    assert "## mrpc" in capsys.readouterr().out


def test_the_module_runs_at_once_and_a_closed_pipe_is_no_error(outputs: Path) -> None:
    fill(outputs, [record(experiment(model=f"m{number}" * 20)) for number in range(200)])
    command = [sys.executable, "-m", "qexp", "report", "--outputs", str(outputs)]
    start = time.perf_counter()
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 5  # 0.15 s measured; a busy machine is no failure
    assert "Failed runs and missing combinations are marked" in " ".join(done.stdout.split())
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
