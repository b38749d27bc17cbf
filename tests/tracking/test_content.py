"""Contents of tracker pages, and the removal of secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qexp.pipeline.stages import export
from qexp.tracking import content
from qexp.tracking.content import content_of, page_of
from qexp.tracking.figures import draw
from qexp.tracking.tracker import digest_of, without_secrets
from tests.support.record_factory import parity
from tests.tracking.conftest import (
    CURVES,
    FP32,
    INTERRUPTED,
    KEY,
    LABELS,
    QAT,
    RANGES,
    asked,
    predicted,
    result,
)


def nothing_left_out(message: str) -> None:
    raise AssertionError(message)


def test_every_part_of_a_record_is_shown(outputs: Path) -> None:
    record = predicted(outputs, asked("quant=w8a8"))
    shown = content_of(record, outputs, nothing_left_out)
    assert shown.curves == CURVES
    assert shown.summary["qat/f1"] == record.scores["qat"]["f1"]
    assert shown.summary["bytes/int8"] == 23_000_000
    assert shown.summary["latency/int8/1/p50_ms"] == 5.0
    assert shown.summary["parity/agreement"] == 100.0
    assert shown.tables["scores"].columns == ("stage", "accuracy", "f1")
    assert [row[0] for row in shown.tables["scores"].rows] == ["fp32", "ptq", "qat"]
    assert len(shown.tables["ranges"].rows) == sum(map(len, RANGES.values()))
    assert shown.tables["latency"].rows[0] == ("fp32", 1, 12.0, 13.2, 24.0, 80.0)
    assert shown.graph == outputs / "artifacts" / export.STAGE.name / "int8" / "model.onnx"
    assert export.STAGE.name == content.ONNX


def test_engines_are_shown_with_what_could_not_be_had(outputs: Path) -> None:
    timing = {"p50_ms": 5.0, "p90_ms": 6.0, "p99_ms": 7.0, "samples_per_second": 200.0}
    engines = {
        "openvino/int8": {
            "info": {"bytes": 9, "command": None},
            "gate": parity(False),
            "scores": {"f1": 80.0},
            "audit": {"integer_share": 97.5},
            "latency": {"1x128": timing},
            "session": {"memory_bytes": 4096, "load_seconds": 0.25},
        },
        "onnxruntime/int8": {"session": {"memory_bytes": 8192, "load_seconds": 0.5}},
        "tensorrt/int8": {"problems": {"engine": "not installed"}},
    }
    shown = content_of(predicted(outputs, asked(), engines=engines), outputs, nothing_left_out)
    table = shown.tables["engines"]
    whole = dict(zip(table.columns, table.rows[0], strict=True))
    assert (whole["engine"], whole["f1"], whole["passed"]) == ("openvino/int8", 80.0, False)
    assert (whole["agreement"], whole["integer_share"], whole["bytes"]) == (97.25, 97.5, 9)
    assert (whole["memory"], whole["load_time"]) == (4096, 0.25)
    assert (shown.summary["memory/int8"], shown.summary["load_time/int8"]) == (8192, 0.5)
    absent = dict(zip(table.columns, table.rows[2], strict=True))
    assert absent["problems"] == "engine: not installed"
    assert absent["f1"] is absent["passed"] is absent["bytes"] is absent["memory"] is None
    assert shown.tables["engines/latency"].rows == (("openvino/int8", "1x128", 5.0, 6.0, 7.0, 200.0),)


def test_fp32_is_held_against_the_last_quantized_stage_row_by_row(outputs: Path) -> None:
    table = content_of(predicted(outputs, asked()), outputs, nothing_left_out).tables["confusion/validation"]
    assert table.columns == ("fp32", "qat", "label", "rows")
    no, yes = asked().task.labels  # type: ignore[union-attr]
    counts: dict[tuple[str, str, str], int] = {}
    for triple in zip(FP32, QAT, LABELS, strict=True):
        words = tuple((no, yes)[each] for each in triple)
        counts[words] = counts.get(words, 0) + 1  # type: ignore[index,arg-type]
    assert {row[:3]: row[3] for row in table.rows} == counts


def test_predictions_that_are_gone_cost_their_table_only(outputs: Path) -> None:
    record = predicted(outputs, asked())
    (outputs / "artifacts" / "6-scores" / "qat" / "predictions-validation.parquet").unlink()
    warnings: list[str] = []
    shown = content_of(record, outputs, warnings.append)
    assert [name for name in shown.tables if "confusion" in name] == []
    assert "scores" in shown.tables
    assert len(warnings) == 1
    assert "are gone" in warnings[0]


@pytest.mark.parametrize("words", [("quant=fp32",), ("task=stsb", "method=ptq")], ids=" ".join)
def test_without_two_classifiers_there_is_no_confusion(words: tuple[str, ...], outputs: Path) -> None:
    shown = content_of(predicted(outputs, asked(*words)), outputs, nothing_left_out)
    assert not [name for name in shown.tables if "confusion" in name]


def test_pictures_are_drawn_of_what_is_there(outputs: Path) -> None:
    gate = {"logit_differences": {"p50": 0.0, "max": 0.02}, "floor": {"logit_differences": {"max": 0.03}}}
    record = predicted(outputs, asked(), engines={"onnxruntime/int8": {"gate": gate}})
    shown = content_of(record, outputs, nothing_left_out)
    engine = "onnxruntime/int8"
    assert shown.tables["gate"].rows == ((engine, "p50", 0.0, None), (engine, "max", 0.02, 0.03))
    pictures = draw(shown)
    names = {"loss", "ranges/ptq", "ranges/qat", "noise/ptq", "noise/qat", "gate", "confusion/validation"}
    assert set(pictures) == {f"pictures/{name}" for name in names}
    for picture in pictures.values():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3 and picture.shape[2] == 3
        assert picture.min() < 100 < 250 < picture.max(), "an empty picture"
    assert draw(content_of(result(asked(), curves={}, ranges={}, scores={}), outputs, nothing_left_out)) == {}


def test_outliers_and_the_gate_s_distribution_are_tables(outputs: Path) -> None:
    outliers = {
        "dense:linear.input": {
            "size": 384, "count": 9, "dimensions": [99, 7], "low": [-1.0, -9.0], "high": [28.0, 2.0],
            "others_low": -4.0, "others_high": 4.5,
        }
    }  # fmt: skip
    gate = {
        "distribution": {"below": 1, "first": -8, "counts": [3]},
        "floor": {"distribution": {"below": 0, "first": -4, "counts": [4]}},
    }
    record = predicted(outputs, asked(), outliers=outliers, engines={"onnxruntime/int8": {"gate": gate}})
    shown = content_of(record, outputs, nothing_left_out).tables
    assert shown["outliers"].columns == (
        "quantizer", "dimension", "low", "high", "count", "size", "others_low", "others_high"
    )  # fmt: skip
    assert shown["outliers"].rows == (
        ("dense:linear.input", 99, -1.0, 28.0, 9, 384, -4.0, 4.5),
        ("dense:linear.input", 7, -9.0, 2.0, 9, 384, -4.0, 4.5),
    )
    shares = {row[1:3]: row[3] for row in shown["gate/distribution"].rows if row[3]}
    assert shares == {("engine", 0.01): 75.0, ("floor", 0.1): 100.0}


def test_what_quantization_costs_is_told_in_points(outputs: Path) -> None:
    fp32, qat = {"f1": 90.0, "accuracy": None}, {"f1": 88.5, "accuracy": 1.0}

    def told(**scores: Any) -> dict[str, Any]:
        summary = content_of(result(asked(), scores=scores), outputs, lambda _: None).summary
        return {name: value for name, value in summary.items() if name.startswith("score_loss")}

    assert told(fp32=fp32, ptq={"f1": 80.0}, qat=qat) == {"score_loss/f1": 1.5}
    assert told(fp32=fp32, qat=qat, onnx={"f1": 91.0}) == {"score_loss/f1": -1.0}
    assert told(fp32=fp32) == {}


def test_a_failed_run_shows_one_line_of_its_error(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2hunter2")
    error = {
        "type": "DataError",
        "message": "no hunter2hunter2 here\nmore",
        "traceback": "Traceback hunter2hunter2",
    }
    record = result(asked(), status="failed", error=error, scores={}, parity=None, latency=None, bytes=None)
    shown = content_of(record, outputs, nothing_left_out)
    assert dict(shown.summary) == {"status": "failed", "error": "DataError: no $SOME_API_KEY here"}


def test_an_interrupted_run_has_no_error_but_how_it_goes_on(outputs: Path) -> None:
    left: dict[str, Any] = {"scores": {}, "parity": None, "latency": None, "bytes": None}
    shown = content_of(result(asked(), **INTERRUPTED, **left), outputs, nothing_left_out)
    assert shown.status == "interrupted"
    assert dict(shown.summary) == {"status": "interrupted", "interruption": INTERRUPTED["error"]["message"]}


def test_first_line_only_and_not_for_ever() -> None:
    assert without_secrets("") == ""
    assert without_secrets("a\nb") == "a"
    assert len(without_secrets("x" * 1000)) == 300


def test_a_page_is_grouped_by_sweep_task_and_quant() -> None:
    page = page_of(asked("quant=w4a8", "method=ptq", "budget=smoke"), KEY, "sample", "sweep-7")
    assert (page.group, page.job_type) == ("sweep-7", "mrpc")
    assert {"mrpc", "w4a8", "ptq", "mse", "gemm", "smoke", "sample"} <= set(page.tags)
    assert page.name == "mrpc-w4a8-ptq-s1"
    assert "tracker" not in page.config
    assert page.config["quant"]["weight_bits"] == 4
    assert not {"ptq", "mse"} & set(page_of(asked("quant=fp32"), KEY, "local", None).tags)
    assert "control" in page_of(asked("quant=fp32", "method=control"), KEY, "local", None).tags


def test_the_digest_is_of_what_is_shown_not_of_when(outputs: Path) -> None:
    page = page_of(asked(), KEY, "local", None)

    def digest(**fields: Any) -> str:
        record = predicted(outputs, asked(), **fields)
        return digest_of(page, content_of(record, outputs, nothing_left_out))

    assert digest() == digest(finished="2027-01-01T00:00:00+00:00", warnings=["slow"])
    assert digest() != digest(curves={})
    assert json.dumps(digest())


def test_a_tracker_is_in_no_key_and_no_setting() -> None:
    from qexp.reporting.command import command_of
    from qexp.reporting.run_view import RunView

    plain, tracked = asked(), asked("tracker=wandb", "tracker.wandb.project=secret-plan")
    assert plain.identity == tracked.identity
    ours, theirs = (RunView(result(each)) for each in (plain, tracked))
    assert (ours.settings, ours.identity) == (theirs.settings, theirs.identity)
    assert command_of(ours) == command_of(theirs)
    assert "track" not in command_of(theirs)


def test_tags_of_the_user_come_last_and_no_tag_is_empty_or_too_long() -> None:
    page = page_of(asked("tags=[baseline,mrpc]", "note=why", "model.name=/folder/"), KEY, "local", None)
    assert "folder" in page.tags
    assert page.tags[-1] == "baseline" and page.tags.count("mrpc") == 1
    assert all(1 <= len(tag) <= 64 for tag in page.tags)
    assert page.note == "why"
    assert not {"tags", "note"} & {*page.config}
