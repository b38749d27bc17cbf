"""Whole runs on small models: results, reused artifacts, and Records of failures."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qexp.config import Experiment
from qexp.deploy.hardware import may_have_gpu
from qexp.errors import FAILED, INTERRUPTED, INVALID, OK
from qexp.execution.job import Job, SweepPosition
from qexp.execution.requirements import check_available
from qexp.execution.sweep_log import SweepLog
from qexp.pipeline.stages import qat
from tests.conftest import compose
from tests.support.jobs import QUICK, TAUGHT, record_problem, run


def _states(record: dict[str, Any]) -> set[str]:
    return {stage["state"] for stage in record["stages"]}


def test_one_run_reports_fp32_ptq_qat_and_the_second_is_all_cache_hits(
    tiny_bert: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("task=mrpc", "quant=w8a8", f"model.name={tiny_bert}", *QUICK, "budget.benchmark_rows=null")
    code, first = run(*words)
    shown = capsys.readouterr()
    assert code == OK, record_problem()
    assert first["status"] == "ok"
    assert set(first["scores"]) == {"fp32", "ptq", "qat", "onnx"}
    assert all(set(scores) == {"accuracy", "f1"} for scores in first["scores"].values())
    assert first["parity"]["passed"]
    assert set(first["latency"]) == {"fp32", "int8"}
    assert set(first["latency"]["int8"]) == {"1", "32"}
    assert first["bytes"]["int8"] < first["bytes"]["fp32"]
    assert first["sites"]["sites"]["linear.weight"] == 14
    assert first["versions"]["torch"]
    assert first["data"]["source"] == "sample"
    assert "sample" in shown.err.splitlines()[0]
    assert "sample" in shown.out
    assert "smoke" in shown.out
    assert set(first["intervals"]) == {"ptq", "qat"}
    assert all(interval["rows"] == 200 for interval in first["intervals"]["qat"].values())
    assert "Verdict. On generated rows" in shown.out

    code, second = run(*words)
    assert code == OK, record_problem()
    assert _states(first) == {"built"}
    assert _states(second) == {"cached"}
    assert second["key"] == first["key"]
    assert (second["scores"], second["intervals"]) == (first["scores"], first["intervals"])
    assert len(list((outputs / "records").iterdir())) == 1


@pytest.mark.slow
def test_predictions_are_left_for_every_evaluation(tiny_bert: Path, outputs: Path) -> None:
    run("task=mrpc", "method=ptq", "deploy=none", f"model.name={tiny_bert}", *QUICK[:-1])
    files = sorted((outputs / "artifacts" / "6-scores").glob("*/predictions-validation.parquet"))
    assert len(files) == 2
    for file in files:
        table = pq.read_table(file)
        assert table.column_names == ["id", "prediction", "label", "logit_0", "logit_1", "margin"]
        assert table.num_rows == 200


def test_bit_widths_share_everything_up_to_their_statistics(tiny_bert: Path) -> None:
    words = ("task=mrpc", "method=ptq", "deploy=none", f"model.name={tiny_bert}", *QUICK[:-1])
    run(*words, "quant=w8a8")
    _, record = run(*words, "quant=w4a8", "calibrator=percentile")
    built = [stage["stage"] for stage in record["stages"] if stage["state"] == "built"]
    assert built == ["4-ranges", "6-scores"]


def test_a_new_learning_rate_does_not_tokenize_again(tiny_bert: Path) -> None:
    words = ("task=mrpc", "quant=fp32", "deploy=none", f"model.name={tiny_bert}", *QUICK[:-1])
    run(*words)
    _, record = run(*words, "finetune.learning_rate=1e-6")
    assert [stage["state"] for stage in record["stages"]] == ["cached", "built", "built"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "ranges", "deploy"),
    [
        ("bert", "frozen", "onnx"),
        ("roberta", "learned", "none"),
        ("electra", "frozen", "none"),
        ("distilbert", "learned", "onnx"),
    ],
)
def test_architectures_walk_the_whole_line(
    architecture: str, ranges: str, deploy: str, tiny_models: Callable[[str], Path]
) -> None:
    code, record = run(
        "task=rte", "quant=w4a8", f"method.ranges={ranges}", "method=qat", f"deploy={deploy}",
        f"model.name={tiny_models(architecture)}", *QUICK[:-1],
    )  # fmt: skip
    assert code == OK, record_problem()
    assert set(record["scores"]) >= {"fp32", "ptq", "qat"}
    assert deploy == "none" or record["parity"]["agreement"] >= 99.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("method.ranges=ema", "method.range_decay=0.9", "method.recalibrate_weights=true"),
        ("calibrator=sqnr", "method.ranges=learned", "method.zero_points=learned"),
    ],
    ids=["ema", "lsq+"],
)
def test_ranges_that_move_walk_the_whole_line(words: tuple[str, ...], tiny_bert: Path) -> None:
    code, record = run(
        "task=rte", "method=qat", "deploy=onnx", *words, f"model.name={tiny_bert}", *QUICK[:-1]
    )
    assert code == OK, record_problem()
    assert set(record["scores"]) == {"fp32", "ptq", "qat", "onnx"}
    assert record["parity"]["agreement"] >= 99.5
    assert record["parity"]["max_logit_difference"] < 0.01
    assert record["ranges"]["ptq"] != record["ranges"]["qat"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "kernel"), [("dynamic", "DynamicQuantizeMatMul"), ("dynamic_token", "MatMulIntegerToFloat")]
)
def test_ranges_at_run_time_walk_the_whole_line_without_calibration(
    scheme: str, kernel: str, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, record = run(
        "task=rte", "method=qat", f"scheme={scheme}", "deploy=onnxruntime", f"model.name={tiny_bert}", *QUICK
    )
    assert code == OK, record_problem()
    assert set(record["scores"]) == {"fp32", "ptq", "qat", "onnx"}
    assert "3-statistics" not in [stage["stage"] for stage in record["stages"]]
    assert not record["ranges"]
    assert record["parity"]["passed"]
    audit = record["engines"]["onnxruntime/int8"]["audit"]
    assert audit["nodes"][kernel] > 0
    assert audit["integer_share"] > 60
    assert ("range of a batch" in capsys.readouterr().err) == (scheme == "dynamic")


@pytest.mark.slow
def test_a_control_goes_on_from_fp32_and_is_what_is_exported(tiny_bert: Path) -> None:
    words = ("task=mrpc", "quant=fp32", f"model.name={tiny_bert}", *QUICK)
    code, record = run(*words, "method=control", "method.distillation.logits=1")
    assert code == OK, record_problem()
    assert set(record["scores"]) == {"fp32", "control", "onnx"}
    assert set(record["curves"]) == {"fp32", "control"}
    assert set(record["bytes"]) == set(record["latency"]) == {"fp32"}
    stages = [stage["stage"] for stage in record["stages"]]
    assert stages[:5] == ["1-tokens", "2-fp32", "6-scores", "5-control", "6-scores"]
    assert record["parity"]["passed"]
    _, other = run(*words, "method=control", "method.distillation.hidden=1")
    assert [stage["state"] for stage in other["stages"]][:5] == [*["cached"] * 3, *["built"] * 2]
    assert other["key"] != record["key"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("task=stsb", "quant=fp32", "method=control"), marks=pytest.mark.slow),
        pytest.param(("task=mrpc", "quant=w8a8", "placement=linear"), marks=pytest.mark.slow),
        ("task=mrpc", "quant=w4a8", "method.ranges=frozen"),
    ],
    ids=" ".join,
)
def test_every_kind_of_text_task_learns_from_a_teacher(words: tuple[str, ...], tiny_bert: Path) -> None:
    code, record = run(*words, *TAUGHT, "deploy=none", f"model.name={tiny_bert}", *QUICK[:-1])
    assert code == OK, record_problem()
    assert record["scores"].keys() & {"qat", "control"}


@pytest.mark.slow
def test_groups_of_dimensions_walk_the_whole_line(tiny_bert: Path) -> None:
    """And share no statistics with runs that need none of dimensions, but all that comes before."""
    words = ("task=rte", "calibrator=sqnr", f"model.name={tiny_bert}", *QUICK)
    run(*words[:-1], "method=ptq", "deploy=none")
    code, record = run(*words, "scheme=embedding_groups", "scheme.activation.groups=3")
    assert code == OK, record_problem()
    built = [stage["stage"] for stage in record["stages"] if stage["state"] == "built"]
    assert built[:2] == ["3-statistics", "4-ranges"]
    assert record["parity"]["agreement"] >= 99.5
    noise = {name: seen["sqnr"] for name, seen in record["ranges"]["qat"].items()}
    assert noise and all(each is None or each > 15 for each in noise.values())


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cola", "sst2", "stsb", "qqp", "mnli", "ax", "qnli", "wnli"])
def test_every_task_is_served_by_the_sample(task: str, tiny_bert: Path) -> None:
    code, record = run(f"task={task}", "method=ptq", "deploy=none", f"model.name={tiny_bert}", *QUICK[:-1])
    assert code == OK, record_problem()
    expected = {
        "cola": {"matthews", "accuracy"},
        "stsb": {"pearson", "spearman"},
        "qqp": {"accuracy", "f1"},
        "mnli": {"accuracy@matched", "accuracy@mismatched"},
        "ax": {"matthews"},
    }.get(task, {"accuracy"})
    assert set(record["scores"]["ptq"]) == expected


@pytest.mark.slow
def test_finetuned_checkpoint_is_taken_as_it_is(tiny_bert: Path, outputs: Path, tmp_path: Path) -> None:
    words = ("task=mrpc", "deploy=none", *QUICK[:-1])
    run(*words, "quant=fp32", f"model.name={tiny_bert}")
    encoder = tmp_path / "mine"
    for part in ("2-fp32/*/model", "1-tokens/*/tokenizer"):
        shutil.copytree(next((outputs / "artifacts").glob(part)), encoder, dirs_exist_ok=True)
    _, trained = run(*words, "quant=fp32", f"model.name={tiny_bert}")
    code, taken = run(
        *words, "finetune=none", "method=ptq", f"model.name={encoder}", f"hydra.run.dir={outputs}"
    )
    assert code == OK, record_problem()
    assert taken["scores"]["fp32"] == trained["scores"]["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["frozen", "learned"])
def test_two_processes_score_what_one_does(ranges: str, tiny_bert: Path) -> None:
    """Within a point: dropout differs, and of 400 rows four may fall on the other side."""
    words = (
        "task=mrpc", "method=qat", f"method.ranges={ranges}", "deploy=none", f"model.name={tiny_bert}",
        *QUICK[:-1],
    )  # fmt: skip
    _, alone = run(*words)
    code, both = run(*words, "machine.devices=2")
    assert code == OK, record_problem()
    assert both["key"] != alone["key"]
    assert [stage["stage"] for stage in both["stages"] if stage["state"] == "cached"] == ["1-tokens"]
    for name in ("fp32", "ptq", "qat"):
        for metric, value in alone["scores"][name].items():
            assert both["scores"][name][metric] == pytest.approx(value, abs=1.0)


@pytest.mark.slow
def test_precision_of_training_does_not_touch_a_finetuned_checkpoint(tiny_bert: Path, outputs: Path) -> None:
    """Nothing is trained, so calibration, ranges and scores are found again."""
    run("task=mrpc", "deploy=none", *QUICK[:-1], "quant=fp32", f"model.name={tiny_bert}")
    (encoder,) = (outputs / "artifacts" / "2-fp32").glob("*/model")
    for file in next((outputs / "artifacts" / "1-tokens").glob("*/tokenizer")).iterdir():
        (encoder / file.name).write_bytes(file.read_bytes())
    words = ("task=mrpc", "deploy=none", *QUICK[:-1], "finetune=none", "method=ptq", f"model.name={encoder}")
    run(*words)
    code, narrow = run(*words, "machine.precision=bf16", "machine.accumulate=2")
    assert code == OK, record_problem()
    assert _states(narrow) == {"cached"}


@pytest.mark.slow
def test_reference_kernels_train_the_same_model_to_rounding(tiny_bert: Path) -> None:
    """And share all that has no quantizers in training with the fast ones."""
    words = ("task=stsb", "deploy=none", *QUICK[:-1], f"model.name={tiny_bert}", "method.ranges=learned")
    _, fast = run(*words)
    code, plain = run(*words, "machine.kernels=plain")
    assert code == OK, record_problem()
    built = [stage["stage"] for stage in plain["stages"] if stage["state"] == "built"]
    assert built == ["5-qat", "6-scores"]
    for name, score in fast["scores"]["qat"].items():
        assert plain["scores"]["qat"][name] == pytest.approx(score, abs=0.5)


def _failed(
    words: tuple[str, ...], kind: str, *parts: str, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    code, record = run(*words)
    shown = capsys.readouterr().err
    assert code == FAILED
    assert record["status"] == "failed"
    assert record["error"]["type"] == kind
    assert record["error"]["traceback"]
    for part in parts:
        assert part in record["error"]["message"]
        assert part in shown
    return record


def _refused(
    *words: str, parts: Sequence[str], capsys: pytest.CaptureFixture[str], sweep: bool = False
) -> None:
    """Run what cannot begin: the exit code is that of a wrong command, and no Record is left."""
    assert Job(compose(*words), sweep=sweep).run() == INVALID
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and "Traceback" not in shown and "record:" not in shown
    for part in parts:
        assert part in shown
    outputs = Path(os.environ["QEXP_OUTPUTS"])
    assert not list(outputs.glob("records/*")) and not list(outputs.glob("running/*.json"))


def test_contradiction_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    _refused("task=mrpc", "quant=fp32", "method=qat", parts=["method=qat", "drop method"], capsys=capsys)


def test_missing_local_data_names_the_ways_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("task=mrpc", "data=local", f"data.root={tmp_path}")
    _refused(*words, parts=["data=sample", "mrpc"], capsys=capsys)


def test_a_checkpoint_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused("task=mrpc", "data=sample", f"model.name={tmp_path}/none", parts=["none"], capsys=capsys)


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt_rtx"])
def test_a_runtime_without_its_gpu_is_refused_before_the_work(
    runtime: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qexp.execution.requirements.may_have_gpu", lambda: False)
    _refused(
        "task=mrpc", "data=sample", f"deploy={runtime}", parts=[runtime, "GPU", "deploy=none"], capsys=capsys
    )


def test_a_runtime_that_is_not_installed_is_refused_unless_another_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qexp.execution.requirements._is_installed", lambda package: package == "onnxruntime")
    _refused(
        "task=mrpc", "deploy=openvino", parts=["openvino is not installed", "pip install"], capsys=capsys
    )
    check_available(Experiment.model_validate(compose("task=mrpc", "deploy.runtimes=[onnxruntime,openvino]")))


def test_a_refused_job_of_a_sweep_stands_in_its_log_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep_log = SweepLog(tmp_path / "sweep")
    sweep_log.begin("table", "01234567")
    sweep_log.expect([["quant=fp32", "method=qat"]], 0)
    place = SweepPosition(sweep_log, 0, ["quant=fp32", "method=qat"])
    assert Job(compose("task=mrpc", *place.words), sweep=True, place=place).run() == INVALID
    entry = sweep_log.entries[0]
    assert (entry.status, entry.key, entry.code) == ("refused", None, INVALID)
    assert entry.error is not None and entry.error.startswith("method=qat")
    assert "method=qat" not in capsys.readouterr().err, "the summary of the sweep says it"
    assert sweep_log.exit_code == INVALID
    assert not list(Path(os.environ["QEXP_OUTPUTS"]).glob("records/*"))


def test_a_sweep_never_falls_back_on_the_sample(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("QEXP_DATA", raising=False)
    _refused("task=mrpc", parts=["sweep"], capsys=capsys, sweep=True)


def _write_rows(root: Path, **columns: list[Any]) -> None:
    folder = root / "mrpc"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({"sentence1": ["a"], "label": [1]}, ["sentence2"]),
        ({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 7]}, ["7", "label"]),
        ({"sentence1": [1, 2], "sentence2": ["c", "d"], "label": [0, 1]}, ["sentence1"]),
        ({"sentence1": [], "sentence2": [], "label": []}, ["train"]),
    ],
)
def test_bad_rows_are_named(
    columns: dict[str, list[Any]], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_rows(tmp_path, **columns)
    _refused("task=mrpc", "data=local", f"data.root={tmp_path}", parts=parts, capsys=capsys)


def test_diverging_training_fails_and_the_fp32_scores_are_kept(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("task=mrpc", f"model.name={tiny_bert}", "method=qat", "method.learning_rate=1e30", *QUICK)
    record = _failed(words, "TrainingError", "lower the learning rate", capsys=capsys)
    assert set(record["scores"]) == {"fp32", "ptq"}


def test_a_gpu_that_is_not_there_is_named(tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if may_have_gpu():
        pytest.skip("this machine has a GPU")
    words = ("task=mrpc", "machine=gpu", f"model.name={tiny_bert}", *QUICK)
    _refused(*words, parts=["machine.accelerator=gpu", "machine=cpu"], capsys=capsys)


def test_interrupted_run_says_so_and_goes_on_from_there(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("task=mrpc", f"model.name={tiny_bert}", "deploy=none", *QUICK[:-1])

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("qexp.training.worker.fit", interrupt)
        patch.setattr("qexp.pipeline.stages.qat.STAGE", qat.STAGE)
        code, record = run(*words)
    assert code == INTERRUPTED
    assert record["error"]["type"] == "KeyboardInterrupt"
    assert "goes on from here" in capsys.readouterr().err
    code, record = run(*words)
    assert code == OK, record_problem()
    assert record["stages"][0]["state"] == "cached"


def test_a_failed_rerun_does_not_replace_a_result_and_goes_when_it_is_made_good(
    tiny_bert: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("task=mrpc", "quant=fp32", "deploy=none", f"model.name={tiny_bert}", *QUICK[:-1])
    _, first = run(*words)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr("qexp.context.RunContext.run_stage", broken)
        code, second = run(*words)
    assert code == FAILED
    assert second["key"] == f"{first['key']}-failed"
    assert json.loads((outputs / "records" / f"{first['key']}.json").read_text())["status"] == "ok"
    run(*words)
    assert [file.stem for file in (outputs / "records").glob("*.json")] == [first["key"]]


def test_full_disk_is_one_clear_error(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("qexp.data.tokenization.npy.GrowingArray.append", full)
    words = ("task=mrpc", f"model.name={tiny_bert}", *QUICK)
    _failed(words, "StoreError", "no space left", "QEXP_OUTPUTS", capsys=capsys)


def test_last_words_of_another_run_that_cannot_be_read_stop_nothing(
    tiny_bert: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outputs / "running").mkdir(parents=True)
    (outputs / "running" / "torn.json").write_text("{")
    code, _ = run("task=mrpc", "quant=fp32", "deploy=none", *QUICK[:-1], f"model.name={tiny_bert}")
    assert code == OK, record_problem()
    assert "torn.json" in capsys.readouterr().err


def test_time_that_is_up_is_told_whatever_a_library_makes_of_it(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from submitit.core.utils import UncompletedJobError

    def interrupted(*_: object, **__: object) -> None:
        try:
            raise UncompletedJobError("Job not requeued because: timed-out too many times.")
        except UncompletedJobError as error:
            raise ModuleNotFoundError("could not import module 'Model'") from error

    monkeypatch.setattr("qexp.execution.job.run_pipeline", interrupted)
    code, found = run("task=mrpc", "quant=fp32", "deploy=none", *QUICK[:-1], f"model.name={tiny_bert}")
    assert code == FAILED
    assert "timed-out" in found["error"]["message"]
    assert "could not import" in found["error"]["traceback"]


def test_a_model_that_says_one_class_for_all_rows_is_told_of_wherever_its_score_stands(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("task=mrpc", "method=ptq", "deploy=none", f"model.name={tiny_bert}", *QUICK[:-1])
    for _ in range(2):  # the second time from the store
        code, record = run(*words)
        shown = capsys.readouterr()
        assert code == OK, record_problem()
        assert set(record["caveats"]) == {"fp32", "ptq"}
        for stage, scores in record["scores"].items():
            (why,) = {*record["caveats"][stage].values()}
            assert re.fullmatch(r"predicts '(not_)?equivalent' for all 200 rows", why)
            told = f"{stage} accuracy {scores['accuracy']:.2f}, f1 {scores['f1']:.2f}: {why}"
            assert told in record["warnings"]
            assert f"warning: {told}" in shown.err
        assert "‡ PTQ accuracy, f1: predicts" in shown.out


def test_the_recipe_is_named_in_the_first_line_and_in_the_record(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str], outputs: Path
) -> None:
    words = (
        "task=mrpc",
        "recipe=q8bert",
        "quant=fp32",
        "method=auto",
        "deploy=none",
        f"model.name={tiny_bert}",
    )
    assert Job(compose(*words, *QUICK[:-1]), recipe="q8bert").run() == OK
    assert "fp32, recipe q8bert, none, seed 1" in capsys.readouterr().err.splitlines()[0]
    (file,) = (outputs / "records").glob("*.json")
    assert json.loads(file.read_text())["recipe"] == "q8bert"


def test_a_fine_tuned_head_in_another_order_is_told_and_scores_as_in_the_tasks(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """The same head with its outputs and their names swapped is the same classifier."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    names = ["not_equivalent", "equivalent"]
    found = []
    for order in ([0, 1], [1, 0]):
        torch.manual_seed(3)
        folder = tmp_path / f"head{order[0]}"
        shutil.copytree(tiny_bert, folder)
        id2label = {place: names[index] for place, index in enumerate(order)}
        model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2, id2label=id2label)
        with torch.no_grad():
            model.classifier.weight.mul_(50)
            model.classifier.weight.copy_(model.classifier.weight[order].clone())
        model.save_pretrained(folder)
        words = ("task=mrpc", "finetune=none", "quant=fp32", "deploy=none", f"model.name={folder}")
        code, record = run(*words, *QUICK[:-1])
        assert code == OK, record_problem()
        found.append(record)
    assert found[0]["scores"] == found[1]["scores"]
    told = [any("head were put from its order" in each for each in record["warnings"]) for record in found]
    assert told == [False, True]
