"""Chart of the gate's differences over rows, beside those of the noise floor."""

from __future__ import annotations

import random
from typing import Any

import pytest

from qexp.reporting.charts.gate_distribution import shares_of
from qexp.reporting.charts.spec import XYChart
from tests.support.charts import chart, gallery
from tests.support.page_records import ranges
from tests.support.record_factory import ENGINES, experiment, record

ENGINE = {"below": 10, "first": -12, "counts": [20, 0, 70]}
FLOOR = {"below": 0, "first": -13, "counts": [50, 50]}
FLOAT = {"below": 0, "first": -28, "counts": [100]}


def gates(**engines: Any) -> XYChart:
    found = {name.replace("_", "/"): {"gate": gate} for name, gate in engines.items()}
    run = record(
        experiment("cola", deploy=ENGINES), engines=found, ranges={"ptq": ranges(random.Random(1), 1)}
    )
    drawn = chart([run], "Gate distribution")
    assert isinstance(drawn, XYChart)
    return drawn


def test_steps_hold_the_share_of_all_rows_between_empty_ones() -> None:
    steps = list(shares_of(ENGINE))
    assert [share for _, share in steps] == [0, 20, 0, 70, 0]
    assert [x for x, _ in steps] == pytest.approx([10**-3.25, 1e-3, 10**-2.75, 10**-2.5, 10**-2.25])
    assert [share for _, share in shares_of({"below": 0, "first": 0, "counts": []})] == [0, 0]


def test_each_engine_is_drawn_and_each_floor_once() -> None:
    floor = {"distribution": FLOOR}
    drawn = gates(
        onnxruntime_int8={"distribution": ENGINE, "floor": floor},
        openvino_int8={"distribution": ENGINE, "floor": floor},
        openvino_fp32={"distribution": FLOAT, "floor": {"distribution": FLOAT}},
        tensorrt_int8={"passed": True, "logit_differences": {"p50": 0.1}},
    )
    assert [(each.name, each.form) for each in drawn.series] == [
        ("onnxruntime/int8", "steps"), ("floor of int8", "dashed"), ("openvino/int8", "steps"),
        ("openvino/fp32", "steps"), ("floor of fp32", "dashed"),
    ]  # fmt: skip
    assert drawn.series[0].colour == drawn.series[1].colour != drawn.series[2].colour
    assert drawn.x.scale == "log"
    assert drawn.series[0].dots[3].words == "onnxruntime/int8: 70.0 % of the rows"
    assert sum("10 rows differ by less than 1e-9" in note for note in drawn.notes) == 2


def test_a_gate_from_before_has_its_quantiles_only() -> None:
    engines = {"onnxruntime/int8": {"gate": {"logit_differences": {"p50": 0.1}, "passed": True}}}
    run = record(
        experiment("cola", deploy=ENGINES), engines=engines, ranges={"ptq": ranges(random.Random(1), 1)}
    )
    assert gallery([run], "Gate").charts
    assert gallery([run], "Gate distribution").charts == ()
