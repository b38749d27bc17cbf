"""Charts of the page in trackers: pictures of a run, and tables and pictures over all runs."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean, stdev

import numpy as np

from qexp.reporting.charts.galleries import galleries
from qexp.reporting.charts.spec import Chart
from qexp.reporting.comparison import compare
from qexp.tracking.page_charts import OF_RUN, SEED_COLUMNS, charts_of_run, content_of_all, pictures_of
from tests.support.page_records import forty
from tests.support.record_factory import experiment, record

OVER_RUNS = ("loss_against_latency", "loss_against_size", "seeds")


def is_drawn(picture: np.ndarray) -> bool:  # type: ignore[type-arg]
    shape = picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    return bool(shape and picture.min() < 100 < 250 < picture.max())


def test_a_run_has_the_charts_of_the_page() -> None:
    run = forty()[4]
    assert run.outliers
    charts, titles = charts_of_run(run), ("Sensitivity by layer", "Outlier dimensions", "Gate distribution")
    assert list(charts) == list(OF_RUN)
    on_page = {each.title: each.charts for each in galleries(compare([run])) if each.title in titles}
    for drawn, title in zip(charts.values(), titles, strict=True):
        (same,) = on_page[title]
        assert without_names(drawn) == without_names(same)
    pictures = pictures_of(charts)
    assert set(pictures) == {f"pictures/{name}" for name in OF_RUN}
    assert all(map(is_drawn, pictures.values()))


def without_names(drawn: Chart) -> Chart:
    return replace(drawn, name="", group="", title="")


def test_a_run_without_numbers_has_no_charts() -> None:
    assert charts_of_run(record()) == {}
    assert pictures_of({}) == {}


def test_all_runs_have_the_charts_over_runs_and_their_numbers() -> None:
    runs = forty()
    content, pictures = content_of_all(runs)
    of_task = {f"{kind}/{task}" for kind in OVER_RUNS for task in ("cola", "mrpc")}
    assert set(content.tables) == {*of_task, "loss_by_task_and_width", "seeds"}
    assert set(pictures) == {f"pictures/{name}" for name in content.tables if name != "seeds"}
    assert all(map(is_drawn, pictures.values()))
    assert content.summary == {"runs": len(runs)}
    for name, (x, y) in content.scatters.items():
        table = content.tables[name]
        assert {x, y} <= {*table.columns}
        assert "Pareto front" not in {row[0] for row in table.rows}
    assert {name.partition("/")[0] for name in content.scatters} == {*OVER_RUNS[:2]}


def test_seeds_have_mean_and_spread() -> None:
    scores = {1: 80.0, 2: 84.0, 3: 85.0}
    runs = [
        record(
            experiment("cola", seed=seed, method={"kind": "ptq"}),
            scores={"fp32": {"matthews": 90.0}, "ptq": {"matthews": score}},
        )
        for seed, score in scores.items()
    ]
    table = content_of_all(runs)[0].tables["seeds"]
    assert table.columns == SEED_COLUMNS
    (row,) = (dict(zip(table.columns, each, strict=True)) for each in table.rows)
    assert (row["task"], row["stage"], row["metric"], row["seeds"]) == ("cola", "ptq", "matthews", 3)
    assert (row["mean"], row["standard deviation"]) == (mean(scores.values()), stdev(scores.values()))
    assert (row["lowest"], row["highest"]) == (80.0, 85.0)


def test_one_seed_has_no_spread_and_no_run_no_chart() -> None:
    assert "seeds" not in content_of_all([record()])[0].tables
    content, pictures = content_of_all([])
    assert (content.tables, content.scatters, pictures) == ({}, {}, {})
