"""Paired comparison of two runs on the same rows: lookup, refusals and numbers."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sacrebleu

from qexp.cli.compare import main
from qexp.config import Experiment
from qexp.execution.job import Job
from qexp.pipeline.stages import evaluate, parity
from qexp.records.record import read, write
from qexp.reporting.predictions import PARITY, SCORES
from tests.conftest import compose
from tests.support.paired_runs import LABELS, file_of, leave
from tests.support.record_factory import experiment


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


RIGHT = list(LABELS)
WRONG_AT_THREE = [0, 0, 0, 1, *LABELS[4:]]
STSB = {
    "name": "stsb", "kind": "regression", "labels": (), "label_range": (0.0, 5.0),
    "metrics": ("pearson", "spearman"),
}  # fmt: skip


def of_kind(kind: str, *metrics: str) -> dict[str, Any]:
    """An experiment on texts."""
    tree = experiment()
    return {**tree, "task": {**tree["task"], "name": kind, "kind": kind, "metrics": list(metrics)}}


def lines(
    outputs: Path, capsys: pytest.CaptureFixture[str], *words: str, expected: int = 0
) -> list[dict[str, str]]:
    assert main(["--outputs", str(outputs), "--format", "csv", *words]) == expected
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def refusal(outputs: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["--outputs", str(outputs), *words]) == 2
    text, problem = capsys.readouterr()
    assert text == ""
    assert problem.count("\n") == 1
    return problem


def test_folders_are_those_of_the_stages() -> None:
    assert (evaluate.STAGE.name, parity.STAGE.name) == (SCORES, PARITY)


# numbers


def test_scores_differences_and_intervals(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(outputs, "aaaaaaaa1", {"fp32": WRONG_AT_THREE})
    leave(outputs, "bbbbbbbb2", {"fp32": RIGHT})
    accuracy, f1 = sorted(lines(outputs, capsys, "aaaaaa", "bbbbbb"), key=lambda line: line["metric"])
    assert (float(accuracy["a_score"]), float(accuracy["b_score"])) == (75.0, 100.0)
    assert float(accuracy["difference"]) == 25.0
    assert (accuracy["rows"], accuracy["differing_rows"], accuracy["undefined_resamples"]) == ("12", "3", "0")
    # 3 of 12 rows: the share in a resample is binomial(12, 1/4) / 12, with 2.5 and 97.5 percentiles 0 and 6
    assert (float(accuracy["low"]), float(accuracy["high"])) == (0.0, 50.0)
    assert float(f1["b_score"]) == 100.0
    assert float(f1["a_score"]) == pytest.approx(100 * 2 * 5 / (2 * 5 + 1 + 2))
    assert (accuracy["a"], accuracy["b"], accuracy["split"]) == ("aaaaaaaa1", "bbbbbbbb2", "validation")


def test_who_is_right_and_mcnemars_test(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = [1 - label for label in LABELS[:7]] + LABELS[7:]
    theirs = [*LABELS[:10], *(1 - label for label in LABELS[10:11]), LABELS[11]]
    leave(outputs, "aaaaaaaa", {"fp32": ours})
    leave(outputs, "bbbbbbbb", {"fp32": theirs})
    line, _ = lines(outputs, capsys, "aaaaaaaa", "bbbbbbbb")
    counts = [line[name] for name in ("both_right", "only_a_right", "only_b_right", "both_wrong")]
    assert counts == ["4", "1", "7", "0"]
    assert float(line["mcnemar_p"]) == pytest.approx(2 * (math.comb(8, 0) + math.comb(8, 1)) / 2**8)
    line, _ = lines(outputs, capsys, "aaaaaaaa", "aaaaaaaa")
    assert float(line["mcnemar_p"]) == 1.0
    assert (line["difference"], line["low"], line["high"]) == ("0.0", "0.0", "0.0")


def test_rows_are_joined_by_id(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = [7, 3, 11, 0, 5, 9, 1, 10, 2, 8, 4, 6]
    leave(outputs, "aaaaaaaa", {"fp32": WRONG_AT_THREE})
    leave(
        outputs, "bbbbbbbb", {"fp32": [WRONG_AT_THREE[index] for index in order]},
        [LABELS[index] for index in order], ids=order,
    )  # fmt: skip
    assert {line["differing_rows"] for line in lines(outputs, capsys, "aaaaaaaa", "bbbbbbbb")} == {"0"}


def test_a_regression_has_correlations_and_no_right_or_wrong(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(1)
    labels = draw.uniform(0, 5, 80).round(1)
    first, second = labels + draw.normal(size=80), labels + draw.normal(size=80) / 2
    tree = experiment(task=STSB)
    leave(outputs, "aaaaaaaa", {"fp32": first.tolist()}, labels.tolist(), tree=tree)
    leave(outputs, "bbbbbbbb", {"fp32": second.tolist()}, labels.tolist(), tree=tree)
    for line in lines(outputs, capsys, "aaaaaaaa", "bbbbbbbb"):
        assert 0 < float(line["low"]) < float(line["difference"]) < float(line["high"])
        assert line["mcnemar_p"] == line["both_right"] == ""
    assert main(["--outputs", str(outputs), "aaaaaaaa", "bbbbbbbb"]) == 0
    text = capsys.readouterr().out
    assert "McNemar" not in text
    assert f"mean absolute difference is {np.abs(first - second).mean():.4g}" in text


GOLDS = [("the red cat", "red cat"), ("1066",), (), ("Paris, France", "Paris"), ("in May",), ()]


def test_answers_are_right_or_wrong_and_have_words_in_common(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, ids = of_kind("question_answering", "exact_match", "f1"), list("fedcba")
    said = ["cat", "1066", "", "paris", "May 1st", "yes"]
    leave(outputs, "aaaaaaaa", {"fp32": said}, GOLDS, ids=ids, tree=tree)
    leave(
        outputs, "bbbbbbbb", {"fp32": ["", "in May", "Paris", "", "1067", "The Red Cat!"]}, GOLDS[::-1],
        ids=ids[::-1], tree=tree,
    )  # fmt: skip
    exact, f1 = lines(outputs, capsys, "aaaaaaaa", "bbbbbbbb")
    assert (exact["metric"], exact["a_score"]) == ("exact_match", "50.0")
    assert float(exact["b_score"]) == pytest.approx(100 * 5 / 6)
    counts = [exact[name] for name in ("both_right", "only_a_right", "only_b_right", "both_wrong")]
    assert counts == ["2", "1", "3", "0"]
    assert exact["differing_rows"] == "5"  # case and punctuation differ, so the texts do
    assert float(f1["a_score"]) == pytest.approx(100 * (2 / 3 + 1 + 1 + 1 + 1 / 2 + 0) / 6)
    assert float(f1["low"]) < float(f1["difference"]) < float(f1["high"])


def test_translations_are_scored_as_a_corpus(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = of_kind("translation", "bleu")
    adverbs = ("schnell", "langsam", "jetzt") * 5
    golds = [f"Ein Hund läuft {adverb} über die große Wiese ." for adverb in adverbs]
    said = [gold.replace("große", "grüne") if row % 3 else gold for row, gold in enumerate(golds)]
    leave(outputs, "aaaaaaaa", {"fp32": said}, golds, tree=tree)
    leave(outputs, "bbbbbbbb", {"fp32": golds}, golds, tree=tree)
    (line,) = lines(outputs, capsys, "aaaaaaaa", "bbbbbbbb")
    assert float(line["a_score"]) == pytest.approx(sacrebleu.corpus_bleu(said, [golds], force=True).score)
    assert float(line["b_score"]) == pytest.approx(100.0)
    assert float(line["low"]) < float(line["difference"]) < float(line["high"])
    assert line["mcnemar_p"] == line["both_right"] == ""
    assert main(["--outputs", str(outputs), "aaaaaaaa", "bbbbbbbb"]) == 0
    text = capsys.readouterr().out
    assert "10 of 15 rows have another prediction." in text
    assert "McNemar" not in text


def test_a_metric_of_a_later_version_is_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = experiment()
    leave(outputs, "aaaaaaaa", {"fp32": RIGHT}, tree=tree)
    known = read(outputs / "records" / "aaaaaaaa.json")
    task = {**tree["task"], "metrics": ["f1", "kappa"]}
    write(replace(known, key="bbbbbbbb", experiment={**tree, "task": task}), outputs / "records")
    problem = refusal(outputs, capsys, "bbbbbbbb", "bbbbbbbb")
    assert "task.kind=classification with task.metrics=kappa: this version pairs accuracy, f1," in problem


def test_undefined_scores_and_resamples_are_told(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree, labels = experiment(task=STSB), [0.0, 1.0, 2.0]
    leave(outputs, "aaaaaaaa", {"fp32": [0.0, 0.0, 1.0]}, labels, tree=tree)
    leave(outputs, "bbbbbbbb", {"fp32": [0.0, 1.0, 2.0]}, labels, tree=tree)
    leave(outputs, "cccccccc", {"fp32": [1.0, 1.0, 1.0]}, labels, tree=tree)
    first, _ = lines(outputs, capsys, "aaaaaaaa", "bbbbbbbb", "--resamples", "1000")
    assert 250 < int(first["undefined_resamples"]) < 420  # 9 of 27 draws of three rows
    first, _ = lines(outputs, capsys, "aaaaaaaa", "cccccccc")
    assert [first[name] for name in ("b_score", "difference", "low", "high")] == [""] * 4
    assert first["undefined_resamples"] == first["resamples"] == "10000"
    assert main(["--outputs", str(outputs), "aaaaaaaa", "cccccccc"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"\| pearson .*\| undefined \| undefined \| undefined", text)
    assert "pearson: undefined in 10000 of 10000 resamples" in text


def test_markdown(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(outputs, "aaaaaaaa11", {"fp32": WRONG_AT_THREE})
    leave(outputs, "bbbbbbbb22", {"fp32": RIGHT}, source="local")
    assert main(["aaaaaaaa11", "bbbbbbbb22", "--outputs", str(outputs), "--seed", "5"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("## mrpc validation: aaaaaaaa:fp32 (A) and bbbbbbbb:fp32 (B)\n")
    assert "- A: fp32 of minilm w8a8 qat seed 1 (aaaaaaaa11)" in text
    assert "3 of 12 rows have another prediction." in text
    assert re.search(r"\| accuracy +\| 75.00 +\| 100.00 +\| \+25.00 +\| \+0.00 to \+50.00 +\|", text)
    assert re.search(r"\| A right +\| 9 +\| 0 +\|\n\| A wrong +\| 3 +\| 0 +\|", text)
    assert "10000 paired resamples of the rows, seed 5" in text
    assert "p = 0.25" in text


def test_a_seed_gives_the_same_numbers_again(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(outputs, "aaaaaaaa", {"fp32": WRONG_AT_THREE})
    leave(outputs, "bbbbbbbb", {"fp32": RIGHT[::-1]})
    runs = [
        lines(outputs, capsys, "aaaaaaaa", "bbbbbbbb", "--seed", seed, "--resamples", "137")
        for seed in ("1", "1", "2")
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


# stages, splits and keys


def test_stages_of_one_run(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = {"fp32": RIGHT, "ptq": [0] * 12, "qat": WRONG_AT_THREE, "onnx": [1] * 12}
    leave(outputs, "abcdef1234", stages)
    for words, expected in (
        (("abcdef:fp32", "abcdef"), ("fp32", 100.0, "qat", 75.0)),
        (("abcdef:ptq", "abcdef:onnx"), ("ptq", 500 / 12, "onnx", 700 / 12)),
        (("abcdef", "abcdef:qat", "--stage", "fp32"), ("fp32", 100.0, "qat", 75.0)),
    ):
        line = next(each for each in lines(outputs, capsys, *words) if each["metric"] == "accuracy")
        found = line["a_stage"], float(line["a_score"]), line["b_stage"], float(line["b_score"])
        assert (found[0], found[2]) == (expected[0], expected[2])
        assert (found[1], found[3]) == pytest.approx((expected[1], expected[3]))
    problem = refusal(outputs, capsys, "abcdef:best", "abcdef")
    assert "no scores of stage best; it has fp32, ptq, qat, onnx" in problem


def test_a_stage_that_was_never_reached(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(outputs, "abcdef1234", {"fp32": RIGHT, "ptq": RIGHT}, status="failed", error=None)
    assert "it has fp32, ptq" in refusal(outputs, capsys, "abcdef", "abcdef:qat")
    (line, _) = lines(outputs, capsys, "abcdef:fp32", "abcdef")
    assert line["b_stage"] == "ptq"
    leave(outputs, "fedcba1234", {}, status="failed", error=None)
    assert "ended before it had scores" in refusal(outputs, capsys, "fedcba", "abcdef")


def test_every_split_or_one(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = experiment("mnli")
    leave(outputs, "aaaaaaaa", {"fp32": [2, *RIGHT[1:]]}, tree=tree)
    leave(outputs, "bbbbbbbb", {"fp32": RIGHT}, tree=tree)
    found = [
        (line["split"], line["metric"], line["differing_rows"])
        for line in lines(outputs, capsys, "aaaaaaaa", "bbbbbbbb")
    ]
    assert found == [("m", "accuracy@m", "1"), ("mm", "accuracy@mm", "1")]
    (line,) = lines(outputs, capsys, "aaaaaaaa", "bbbbbbbb", "--split", "mm")
    assert line["split"] == "mm"
    problem = refusal(outputs, capsys, "aaaaaaaa", "bbbbbbbb", "--split", "test")
    assert "--split test: task mnli has m, mm" in problem


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("abcd", "abcd: the beginning of 2 keys"),
        ("abcdef9", "abcdef9: no such file, and no Record's key begins so"),
        ("abcdef", "abcdef: the beginning of 2 keys"),
        ("../../etc", "no Record's key begins so"),
    ],
)
def test_keys_that_name_no_run(
    key: str, words: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(outputs, "abcdef11", {"fp32": RIGHT})
    leave(outputs, "abcdef22", {"fp32": RIGHT})
    assert main(["--outputs", str(outputs), "abcdef11", key]) == 2
    first, *listed = capsys.readouterr().err.splitlines()
    assert words in first
    assert [line.split()[0] for line in listed] == ["abcdef11", "abcdef22"]


def test_a_failed_rerun_does_not_make_a_prefix_ambiguous(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(outputs, "abcdef11", {"fp32": RIGHT})
    leave(outputs, "abcdef11-failed", {}, status="failed", error=None)
    assert lines(outputs, capsys, "abcdef", "abcdef11")[0]["a"] == "abcdef11"


def test_no_outputs_at_all(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "other outputs with --outputs" in refusal(outputs, capsys, "abcdef", "abcdef")


@pytest.mark.parametrize(
    "words", [("--resamples", "99"), ("--seed", "-1"), ("--stage", "best"), ("--resamples", "many")]
)
def test_bad_options(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["abcdef", "abcdef", *words])
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_options_of_the_tables_are_not_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--write", "abcdef", "abcdef"])
    assert "--write" in capsys.readouterr().err


# what cannot be paired


def test_other_rows_are_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(outputs, "aaaaaaaa", {"fp32": RIGHT})
    leave(outputs, "bbbbbbbb", {"fp32": RIGHT[:10]}, LABELS[:10], ids=range(4, 14))
    problem = refusal(outputs, capsys, "aaaaaaaa", "bbbbbbbb")
    assert "4 of 12 ids (such as 0) only in the first, 2 of 10 ids (such as 12) only in the second" in problem
    leave(outputs, "cccccccc", {"fp32": RIGHT}, [1, *LABELS[1:]])
    problem = refusal(outputs, capsys, "aaaaaaaa", "cccccccc")
    assert "1 of 12 rows have the same id and another label, the first of them 0;" in problem
    leave(outputs, "dddddddd", {"fp32": RIGHT}, ids=[0, 0, *range(2, 12)])
    assert "ids repeat" in refusal(outputs, capsys, "aaaaaaaa", "dddddddd")
    leave(outputs, "eeeeeeee", {"fp32": RIGHT}, ids=list("abcdefghijkl"))
    problem = refusal(outputs, capsys, "aaaaaaaa", "eeeeeeee")
    assert "not the same rows: ids such as 0 in the first and such as a in the second" in problem


def test_other_tasks_and_made_up_rows_are_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(outputs, "aaaaaaaa", {"fp32": RIGHT})
    leave(outputs, "bbbbbbbb", {"fp32": RIGHT}, tree=experiment("cola"))
    assert "different tasks: mrpc and cola" in refusal(outputs, capsys, "aaaaaaaa", "bbbbbbbb")
    leave(outputs, "cccccccc", {"fp32": RIGHT}, source="sample")
    problem = refusal(outputs, capsys, "aaaaaaaa", "cccccccc")
    assert "different sources of rows: real data and made-up sample" in problem
    tree = experiment(task={"metrics": ("accuracy",)})
    leave(outputs, "dddddddd", {"fp32": RIGHT}, tree=tree)
    assert "different metrics: f1, accuracy and accuracy" in refusal(outputs, capsys, "aaaaaaaa", "dddddddd")


def test_logits_that_are_no_numbers_are_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(outputs, "aaaaaaaa", {"fp32": RIGHT})
    leave(outputs, "bbbbbbbb", {"fp32": RIGHT})
    file = file_of(outputs / "artifacts" / SCORES / "bbbbbbbb-fp32")
    table = pq.read_table(file)
    pq.write_table(table.set_column(3, "logit_0", pa.array([math.nan, math.inf, *[0.0] * 10])), file)
    problem = refusal(outputs, capsys, "aaaaaaaa", "bbbbbbbb")
    assert "bbbbbbbb:fp32 validation: 2 of 12 rows have logits that are no numbers" in problem


def test_predictions_of_another_run_are_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"fp32": {"f1": 100.0, "accuracy": 99.0}}
    leave(outputs, "aaaaaaaa", {"fp32": RIGHT}, scores=scores)
    problem = refusal(outputs, capsys, "aaaaaaaa", "aaaaaaaa")
    assert "its predictions have accuracy 100.0, its Record 99.0" in problem
    assert "python -m qexp task=mrpc" in problem


def test_a_record_that_does_not_tell_its_artifacts(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(outputs, "aaaaaaaa", {"fp32": RIGHT, "ptq": RIGHT}, stages=[])
    assert "scores of fp32, ptq and 0 artifacts 6-scores" in refusal(outputs, capsys, "aaaaaaaa", "aaaaaaaa")


@pytest.mark.parametrize("content", [None, b"PAR1 cut off", "column"])
def test_lost_and_damaged_predictions(
    content: bytes | str | None, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(outputs, "aaaaaaaa", {"fp32": RIGHT})
    file = file_of(outputs / "artifacts" / SCORES / "aaaaaaaa-fp32")
    file.unlink()
    if content == "column":
        pq.write_table(pa.table({"id": LABELS}), file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    problem = refusal(outputs, capsys, "aaaaaaaa", "aaaaaaaa")
    assert ("are gone" if content is None else "cannot be read") in problem
    assert "make them again with: python -m qexp task=mrpc" in problem


# a real run


@pytest.mark.slow
def test_a_run_and_the_command_after_its_artifacts_were_pruned(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "task=mrpc", "method=ptq", "quant=w4a8", "deploy=onnx", f"model.name={tiny_bert}", "data=sample",
        "budget=smoke", "machine.progress=false", "machine.threads=1",
    )  # fmt: skip
    assert Job(compose(*words)).run() in (0, 1)  # 1 where the parity of an untrained model is off
    (path,) = (tmp_path / "outputs" / "records").iterdir()
    known, key = json.loads(path.read_text()), path.stem
    capsys.readouterr()
    for stage in ("fp32", "ptq", "onnx"):
        found = lines(tmp_path / "outputs", capsys, f"{key[:9]}:{stage}", key)
        scores = {line["metric"]: float(line["a_score"]) for line in found}
        assert scores == pytest.approx(known["scores"][stage])
        assert {line["rows"] for line in found} == {"200"}
    for file in (tmp_path / "outputs" / "artifacts" / SCORES).glob("*/*.parquet"):
        file.unlink()
    problem = refusal(tmp_path / "outputs", capsys, f"{key[:9]}:fp32", key)
    again = shlex.split(problem.split("make them again with: ")[1])
    assert Experiment.model_validate(compose(*again[3:])).identity == (
        Experiment.model_validate(known["experiment"]).identity
    )
