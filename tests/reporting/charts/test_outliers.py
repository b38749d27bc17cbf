"""Chart of outlier dimensions: marks, shares and notes of what the Record has."""

from __future__ import annotations

import random

import pytest

from qexp.records.record import Record
from qexp.records.schema import OutlierDimensions
from qexp.reporting.charts import outliers as place
from qexp.reporting.charts.outliers import share_of_others
from qexp.reporting.charts.spec import Chart, RangeChart
from tests.support.charts import chart, gallery
from tests.support.page_records import ranges
from tests.support.record_factory import experiment, record

FEED_FORWARD: OutlierDimensions = {
    "size": 384, "count": 2, "dimensions": [99, 223], "low": [-1.0, -14.0], "high": [28.0, 0.5],
    "others_low": -4.0, "others_high": 4.4,
}  # fmt: skip
QUERY: OutlierDimensions = {
    **FEED_FORWARD, "count": 1, "dimensions": [99], "low": [-0.5], "high": [6.0],
}  # fmt: skip
FOUND = {
    "encoder.layer.10.intermediate.dense:linear.input": FEED_FORWARD,
    "encoder.layer.9.attention.self.query:linear.input": QUERY,
}


def run(outliers: dict[str, OutlierDimensions] | None) -> Record:
    of_stage = {"ptq": ranges(random.Random(1), 1)}
    return record(experiment("cola", method={"kind": "ptq"}), ranges=of_stage, outliers=outliers)


def drawn(outliers: dict[str, OutlierDimensions]) -> RangeChart:
    found: Chart = chart([run(outliers)], "Outlier dimensions")
    assert isinstance(found, RangeChart)
    return found


def test_each_activation_has_its_range_that_of_the_others_and_its_outliers() -> None:
    first, second = drawn(FOUND).lanes
    assert [first.name, second.name] == [
        "9.attention.self.query:linear.input",
        "10.intermediate.dense:linear.input",
    ]
    assert [(mark.kind, mark.low, mark.high) for mark in second.marks] == [
        ("seen", -14.0, 28.0), ("bar", -4.0, 4.4), ("outlier", 28.0, 28.0), ("outlier", -14.0, -14.0)
    ]  # fmt: skip
    assert "382 dimensions" in second.marks[1].words and "20% of the range" in second.marks[1].words
    assert second.marks[3].words == "dimension 223: -14 to 0.5"


def test_the_share_of_the_others_counts_every_dimension() -> None:
    assert share_of_others(FEED_FORWARD) == pytest.approx(8.4 / 42)
    assert share_of_others(QUERY) == pytest.approx(8.4 / 10)


def test_the_dimensions_of_most_activations_are_named_below() -> None:
    (note,) = drawn(FOUND).notes
    assert "2 activations of 384 dimensions: 99 (2), 223 (1)" in note
    wide: OutlierDimensions = {**FEED_FORWARD, "size": 1536, "dimensions": [99, 1400]}
    assert drawn({**FOUND, "encoder.layer.9.output.dense:linear.input": wide}).notes == (note,)


def test_the_widest_are_kept_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "MOST_RANGES", 1)
    found = drawn(FOUND)
    assert len(found.lanes) == 1 and found.lanes[0].marks[0].high == 28.0
    assert "Left out: 1 " in found.notes[-1]


@pytest.mark.parametrize("outliers", [None, {}])
def test_without_any_there_is_no_chart(outliers: dict[str, OutlierDimensions] | None) -> None:
    found = gallery([run(outliers)], "Outlier dimensions")
    assert found.charts == ()
    assert "older version" in found.empty
