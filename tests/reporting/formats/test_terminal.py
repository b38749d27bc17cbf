"""Screens at 80, 100 and 140 columns: of a run, of a sweep and of a report."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qexp.cli.report import main
from qexp.records.record import Record, write
from qexp.reporting.formats.terminal import print_run, print_sweep
from tests.support.record_factory import experiment, failed, parity
from tests.support.verdict_records import engine, judged

MODEL = "organisation-of-a-long-name/bert_uncased_L-2_H-128_A-2-fine-tuned-on-everything-that-there-is-v2"
WHY = "the model has 64 positions and the batch 128 tokens, so that deploy.lengths has to be at most 64"
NOISE = {
    **parity(True), "verdict": "within noise",
    "floor": {"agreement": 99.9, "logit_differences": {"max": 0.1}},
}  # fmt: skip
WIDTHS = [80, 100, 140]


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    columns: int = request.param
    return columns


def runs(task: str = "mrpc") -> Iterator[Record]:
    """Long names, all states of engines, settings that differ, a failure."""
    engines = {
        f"{runtime}/{precision}": engine(ms, spread=spread)
        for runtime, ms, spread in (("onnxruntime", 112.0, 1.05), ("tensorrt_rtx", 10.0, 1.7))
        for precision in ("fp32", "int8")
    }
    engines["openvino/int8"] = {"gate": NOISE, "problems": {"1x128": WHY}}
    for quant in ("w8a8", "w4a8"):
        for method in ("ptq", "qat"):
            for calibrator in ({"kind": "max"}, {"kind": "percentile", "percentile": 99.999}):
                yield judged(
                    -0.25, task, quant=quant, method=method, engines=engines, recipe="fast_cpu",
                    sections={"model": MODEL, "calibrator": calibrator},
                    warnings=[], source="sample",
                )  # fmt: skip
    yield failed(experiment(task, MODEL, quant="w4a4"), source="sample")


def table_lines(text: str) -> list[str]:
    """Rows of the tables: a rule, the line before it, and the lines up to the next that is no row."""
    lines = text.splitlines()
    rules = [number for number, line in enumerate(lines) if re.fullmatch(r"─{5,}", line.strip())]
    return [lines[number + offset] for number in rules for offset in (-1, 0, 1)]


def check(text: str, width: int) -> None:
    commands = ("file: ", "next: ", "      ")
    for line in text.splitlines():
        words_alone = " " not in line.strip()
        assert len(line) <= width or line.startswith(commands) or words_alone, line
    assert all(len(line) <= width for line in table_lines(text))


def test_the_screen_of_a_run(width: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = next(runs())
    print_run(run, tmp_path)
    text = capsys.readouterr().out
    check(text, width)
    for whole in ("size (MiB)", "p50 (ms)", "noisy", "missing", run.key[:8], "-0.25", "within noise"):
        assert whole in text
    rows = [
        line for line in text.splitlines() if line.startswith(("onnxruntime/", "openvino/", "tensorrt_rtx/"))
    ]
    assert [line.split()[0] for line in rows] == [*run.engines], "each engine is one line"
    assert "".join(WHY.split()) in "".join(text.split()), "no reason is cut"
    assert text.index("Verdict.") > text.index("size (MiB)")
    assert text.rstrip().splitlines()[-2].strip().startswith("qexp predict")
    assert str(tmp_path / "artifacts/7-onnx/int8graphw8a8/model.onnx") in text


def test_the_screen_of_a_sweep(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep([*runs("mrpc"), *runs("cola"), *runs("mnli")])
    text = capsys.readouterr().out
    check(text, width)
    assert text.count("Verdict.") == 3
    for column in ("mrpc F1", "cola matthews", "mnli accuracy"):
        assert column in text
    assert re.search(r"w8a8 +PTQ", text) and re.search(r"w4a8 +QAT", text)
    assert text.index("w8a8") < text.index("Verdict.")


def test_the_report_on_a_terminal_fits_it_and_into_a_pipe_it_is_markdown(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in runs():
        write(run, tmp_path / "records")
    assert main(["--outputs", str(tmp_path)]) == 0
    piped = capsys.readouterr().out
    assert piped.startswith("## verdict\n") and "| model " in piped

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["--outputs", str(tmp_path)]) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    check(text, width)
    assert text.startswith("Verdict. On generated rows")
    assert "| model " not in text
    for run in runs():
        assert run.key[:8] in text
    screen.truncate(0)
    assert main(["--outputs", str(tmp_path), "--format", "markdown"]) == 0
    assert "| model " in screen.getvalue()
