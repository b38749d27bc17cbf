"""``qexp search`` on a finished run of a tiny model, and a run of the configuration that it writes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from qexp.analysis.mixed_precision import trials as trying
from qexp.analysis.mixed_precision.path import BitWidthPair, Costs, pairs_of
from qexp.analysis.mixed_precision.trials import FLOAT, CandidateEvaluator, candidates_of
from qexp.cli.search import main
from qexp.config import Experiment
from qexp.errors import INTERRUPTED
from qexp.execution.job import OK, Job
from qexp.records.record import Record, read, read_all, records_folder
from tests.support.tiny_runs import TinyRuns

PAIRS = pairs_of("w4a4,w4a8,w8a8,w8a16")
BITS = ["--bits", "w4a4,w4a8,w8a8,w8a16"]


@pytest.fixture(scope="module")
def finished(tiny_models: Callable[[str], Path], tiny_runs: TinyRuns) -> Path:
    """Outputs of a run of PTQ."""
    model = f"model.name={tiny_models('bert')}"
    words = (
        "task=stsb",
        "deploy=none",
        "quant=w8a8",
        "placement=neurst_prenorm",
        "method=ptq",
        "calibrator=mse",
        "seed=3",
    )
    return tiny_runs((*words, model))


def record_of(outputs: Path, quant: str = "w8a8") -> Record:
    return next(
        record
        for record in read_all(records_folder(outputs))[0]
        if Experiment.model_validate(record.experiment).quant.name == quant
    )


def look(outputs: Path, *words: str) -> int:
    return main([record_of(outputs).key, "--outputs", str(outputs), *BITS, *words])


@pytest.fixture(scope="module")
def trials(finished: Path) -> CandidateEvaluator:
    found = candidates_of(record_of(finished), finished, None)
    found.prepare(PAIRS)
    return found


def nothing(*args: Any, **more: Any) -> None:
    """No progress."""


def test_uniform_bits_score_as_a_run_does(finished: Path, trials: CandidateEvaluator) -> None:
    scores = record_of(finished).scores
    uniform = {pair: (pair,) * len(trials.groups) for pair in (FLOAT, BitWidthPair(8, 8))}
    assert trials.measure(uniform[FLOAT], nothing).score == scores["fp32"]["pearson"]
    assert trials.measure(uniform[BitWidthPair(8, 8)], nothing).score == scores["ptq"]["pearson"]


def test_a_record_tells_what_the_run_costs(finished: Path, trials: CandidateEvaluator) -> None:
    bits = costs(trials, ["--bops"]).bits((BitWidthPair(8, 8),) * len(trials.groups))
    sites = record_of(finished).sites
    assert sites is not None
    assert sites["cost"] == trials.work.describe(bits)
    assert sites["cost"]["tokens"] == 128
    assert sites["cost"]["bops"] <= sites["cost"]["macs"] * 64


@pytest.mark.slow
@pytest.mark.parametrize("budget", [["--bops", "0.02"], ["--size", "0.045"], ["--loss", "1.5"]])
def test_what_is_found_keeps_its_budget_and_runs_as_it_is(
    finished: Path, trials: CandidateEvaluator, budget: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    floor, top = (
        costs(trials, budget).total((pair,) * len(trials.groups))
        for pair in (BitWidthPair(4, 4), BitWidthPair(8, 16))
    )
    if budget[0] != "--loss":
        unit = 1e9 if budget[0] == "--bops" else 2**20
        budget = [budget[0], repr((floor + 0.4 * (top - floor)) / unit)]
    assert look(finished, *budget, "--rows", "12", "--out", str(tmp_path), "--name", "found") == 0
    shown = capsys.readouterr()
    file = tmp_path / "found.yaml"
    assert str(file) in shown.err
    text, tree = file.read_text(), yaml.safe_load(file.read_text())
    assert tree["quant"]["overrides"]
    first = shlex.split(text.splitlines()[0].removeprefix("# "))
    assert first == ["python", "-m", "qexp", "--config-dir", str(tmp_path), "--config-name", "found"]
    table = next(line.split("|") for line in shown.out.splitlines() if line.startswith("| found"))
    printed, lost, size, bops = (table[index].strip() for index in (2, 3, 5, 6))
    limit = float(budget[1])
    # Of 12 rows the loss may be undefined, where a tiny model gives all of them one number.
    column, rounding = {"--loss": (lost, 0), "--size": (size, 0.005), "--bops": (bops, 0.005)}[budget[0]]
    assert float(column) - rounding <= limit
    made = (_as_written if budget[0] == "--loss" else _as_told)(finished, first[1:], tree["quant"])
    again, before = Experiment.model_validate(made.experiment), record_of(finished).experiment
    whole = Experiment.model_validate({**before, "quant": again.quant.model_dump()})
    assert again.identity == whole.identity
    score = made.scores["ptq"]["pearson"]
    assert printed == ("undefined" if score is None else f"{score:.2f}")
    assert {visit["state"] for visit in made.stages if visit["stage"] == "3-statistics"} == {"cached"}


def _as_written(outputs: Path, words: list[str], quant: dict[str, Any]) -> Record:
    """By the command that the file names."""
    env = {**os.environ, "QEXP_OUTPUTS": str(outputs)}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return read(Path(re.findall(r"^record: (.*)$", done.stderr, re.MULTILINE)[-1]))


def _as_told(outputs: Path, words: list[str], quant: dict[str, Any]) -> Record:
    """The run as it was, with the bits of the file."""
    tree = {**record_of(outputs).experiment, "quant": quant}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEXP_OUTPUTS", str(outputs))
        job = Job(tree, sweep=False)
        assert job.run() == OK
    assert job.experiment is not None
    return read(records_folder(outputs) / f"{job.results.key(job.experiment)}.json")


def costs(trials: CandidateEvaluator, budget: list[str]) -> Costs:
    return Costs(trials.work, trials.groups, trials.weights, "bytes" if budget[0] == "--size" else "bops")


def test_no_assignment_is_so_cheap(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert look(finished, "--size", "0.001", "--rows", "4") == 2
    told = capsys.readouterr().err
    assert re.search(
        r"the cheapest assignment of w4a4, w4a8, w8a8, w8a16 has \d+ bytes, the budget is 1049", told
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--bits", "w4a8", "--loss", "1"], "at least two pairs"),
        (["--bits", "w4a8,w17a8", "--loss", "1"], "'w17a8': no pair of bit-widths"),
        (["--bits", "w4a8,4a8", "--loss", "1"], "'4a8': no pair of bit-widths"),
    ],
)
def test_wrong_bits(finished: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([record_of(finished).key, "--outputs", str(finished), *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--bits", "w4a8,w8a8"], "one of the arguments --loss --size --bops is required"),
        (["--bits", "w4a8,w8a8", "--loss", "1", "--size", "1"], "not allowed with"),
        (["--loss", "1"], "--bits"),
        (["--bits", "w4a8,w8a8", "--loss", "-1"], "a number from 0 on"),
        (["--bits", "w4a8,w8a8", "--loss", "nan"], "a number from 0 on"),
        (["--bits", "w4a8,w8a8", "--loss", "1", "--name", "../x"], "letters, digits"),
    ],
)
def test_wrong_words(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["key", *words])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_an_interrupt_ends_at_once_and_leaves_nothing(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trying.CandidateEvaluator, "measure", interrupted)
    assert look(finished, "--loss", "1", "--out", str(tmp_path)) == INTERRUPTED
    assert "interrupted" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_refined_run_is_refused(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    tree = json.loads(record_of(finished).to_json())
    tree["experiment"]["refinement"] = {"name": "bias_correction", "bias_correction": True}
    file = tmp_path / "refined.json"
    file.write_text(json.dumps(tree))
    assert main([str(file), "--outputs", str(finished), *BITS, "--loss", "1"]) == 2
    assert "search a run with refinement=none" in capsys.readouterr().err
