"""Contents of charts: runs, numbers, and notes on what is missing."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any

import pytest

from qexp.cli.again import changed
from qexp.records.record import Record
from qexp.reporting.charts import comparison, run
from qexp.reporting.charts import galleries as place
from qexp.reporting.charts.galleries import galleries
from qexp.reporting.charts.run import lowest_chart, natural, without_shared_beginning
from qexp.reporting.charts.spec import Chart, Dot, HeatMap, RangeChart, XYChart, scale_of
from qexp.reporting.comparison import compare
from qexp.reporting.verdict.verdict import verdicts
from tests.support.charts import chart, gallery
from tests.support.page_records import forty, full, ranges, timing
from tests.support.record_factory import ENGINES, deployed, experiment, failed, parity, record

TITLES = (
    *("Loss against latency", "Loss against size", "Loss by task and width", "Seed spread"),
    *("Training curves", "Sensitivity", "Sensitivity by layer", "Activation ranges"),
    *("Outlier dimensions", "Gate", "Gate distribution"),
)


def dots(chart: Chart, form: str | None = None) -> list[Dot]:
    assert isinstance(chart, XYChart)
    wanted = (form,) if form else ("dots", "hollow")
    return [dot for each in chart.series if each.form in wanted for dot in each.dots]


def priced(quant: str, score: float, size: float, ms: float, **words: Any) -> Record:
    """A run whose exported graph has a score, a size in MiB and a latency."""
    tree = experiment("cola", quant=quant, deploy=ENGINES, method={"kind": "auto"}, **words)
    graphs = ("fp32",) if quant == "fp32" else ("fp32", "int8")
    return record(
        tree,
        scores={"fp32": {"matthews": 60.0}, **({"qat": {"matthews": score}} if quant != "fp32" else {})},
        bytes={graph: int((100 if graph == "fp32" else size) * 2**20) for graph in graphs},
        latency={graph: {"1": timing(20 if graph == "fp32" else ms)} for graph in graphs},
    )


RIVALS = [
    priced("fp32", 0, 0, 0),
    priced("w8a8", 58.0, 25, 8),
    priced("w4a32", 59.0, 30, 12),
    priced("w4a4", 59.5, 25, 7),
]


def test_size_holds_files_in_mebibytes_and_their_loss_against_the_best_fp32() -> None:
    drawn = chart(RIVALS, "Loss against size")
    assert sorted((dot.x, dot.y) for dot in dots(drawn)) == [(25, 0.5), (25, 2), (30, 1), (100, 0)]
    assert [(dot.x, dot.y) for dot in dots(drawn, "front")] == [(25, 0.5), (100, 0)]


def test_simulated_graphs_are_hollow_named_and_win_nothing_by_latency() -> None:
    drawn = chart(RIVALS, "Loss against latency")
    assert isinstance(drawn, XYChart)
    (hollow,) = [each for each in drawn.series if each.form == "hollow"]
    assert hollow.name == "w4a4, simulated"
    assert "simulated" in hollow.dots[0].words
    assert [(dot.x, dot.y) for dot in dots(drawn, "front")] == [(8, 2), (12, 1), (20, 0)]
    assert "Hollow: simulated" in drawn.notes[0]


def test_labels_leave_out_the_only_model_whatever_its_name() -> None:
    runs = [
        replace(run, experiment={**run.experiment, "model": {"name": "my own model"}}) for run in RIVALS[:2]
    ]
    found = dots(chart(runs, "Loss against size"))
    assert {dot.label for dot in found} == {"fp32", "w8a8 qat learned"}
    assert all(dot.words.startswith("my own model ") for dot in found)


def test_dots_and_tiles_are_of_the_score_in_torch_as_the_verdict() -> None:
    run = RIVALS[1]
    exported = replace(run, scores={**run.scores, "onnx": {"matthews": 57.5}})
    (verdict,) = verdicts([exported])
    assert verdict.best is not None and verdict.best.change is not None
    assert verdict.best.change.points == pytest.approx(-2.0)
    assert (25, 2) in {(dot.x, dot.y) for dot in dots(chart([RIVALS[0], exported], "Loss against size"))}
    tiles = chart([exported], "Loss by task and width")
    assert isinstance(tiles, HeatMap)
    assert [tile.value for tile in tiles.tiles] == [2.0]
    assert "Scores are those in torch" in gallery([exported], "Loss by task and width").lead


def test_a_file_that_does_not_reproduce_the_score_wins_nothing() -> None:
    broken = replace(RIVALS[1], parity=parity(False))
    for title in ("Loss against size", "Loss against latency"):
        drawn = chart([RIVALS[0], broken], title)
        assert [dot.y for dot in dots(drawn, "front")] == [0]
        (dot,) = [dot for dot in dots(drawn) if "w8a8" in dot.words]
        assert "the file does not reproduce it (gate failed)" in dot.words


def test_a_float_graph_that_rows_share_is_one_dot() -> None:
    runs = [deployed(experiment("cola", quant=quant), scores=RIVALS[1].scores) for quant in ("w8a8", "w4a8")]
    assert len([dot for dot in dots(chart(runs, "Loss against size")) if "fp32" in dot.words]) == 1


def test_the_graph_of_a_control_is_shown_with_its_own_score() -> None:
    control = experiment("cola", quant="fp32", method={"kind": "control"}, deploy=ENGINES)
    scores = {"fp32": {"matthews": 60.0}, "control": {"matthews": 63.0}}
    run = record(control, scores=scores, bytes={"fp32": 100 * 2**20})
    found = dots(chart([*RIVALS, run], "Loss against size"))
    assert {(dot.y, "control" in dot.words) for dot in found if dot.x == 100} == {(0.0, False), (-3.0, True)}


def test_seeds_have_a_dot_each_and_failures_none() -> None:
    values = {1: 50.0, 2: 53.0, 3: 51.0}
    runs = [
        record(experiment("cola", seed=seed), scores={"qat": {"matthews": value}})
        for seed, value in values.items()
    ]
    drawn = chart([*runs, failed(experiment("cola", seed=4))], "Seed spread")
    assert isinstance(drawn, RangeChart)
    (lane,) = drawn.lanes
    assert [mark.low for mark in lane.marks if mark.kind == "dot"] == [50, 53, 51]
    assert [mark.low for mark in lane.marks if mark.kind == "median"] == [51]


def test_one_seed_has_no_spread() -> None:
    found = gallery([record(experiment("cola"))], "Seed spread")
    assert found.charts == ()
    assert "seed=1,2,3" in found.command


def test_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_LANES", 3)
    monkeypatch.setattr(comparison, "MOST_GRAPHS", 4)
    monkeypatch.setattr(run, "MOST_RANGES", 10)
    runs = forty()
    seeds = chart(runs, "Seed spread")
    assert isinstance(seeds, RangeChart)
    assert len(seeds.lanes) == 3
    assert seeds.notes == ("Left out: 7 rows of a lower median; they are in the table.",)
    size = chart(runs, "Loss against size")
    assert len(dots(size)) == 4
    assert "Left out: 6 graphs" in size.notes[-1]
    assert {(dot.x, dot.y) for dot in dots(size, "front")} <= {(dot.x, dot.y) for dot in dots(size)}
    assert chart(runs, "Activation ranges").notes[0].startswith("Left out: 20 activations")
    assert chart(runs, "Sensitivity").notes[0].startswith("Left out: 10 with a higher value")


def test_few_runs_stand_for_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MOST_RUNS", 6)
    found = gallery(forty(), "Training curves")
    assert len(found.charts) == 6
    assert {each.group.split()[0] for each in found.charts} == {"cola", "mrpc"}
    assert found.notes == ("Left out: 34 other runs; shown is the best run of the best rows of each task.",)


def test_the_best_run_of_the_best_row_comes_first() -> None:
    chance = random.Random(1)
    runs = [
        replace(full(experiment("cola", model=model, seed=seed), chance), scores={"qat": {"matthews": score}})
        for model, seed, score in (("a", 1, 40.0), ("a", 2, 42.0), ("b", 1, 48.0), ("b", 2, 41.0))
    ]
    groups = [each.group for each in gallery(runs, "Sensitivity").charts]
    assert groups == ["cola b w8a8 seed 1", "cola a w8a8 seed 2"]


def test_curves_are_those_of_the_record() -> None:
    curves = {"fp32": {"step": [10, 20], "loss": [0.7, 0.5]}, "qat": {"step": [5], "loss": [0.4]}}
    drawn = chart([record(experiment("cola"), curves=curves)], "Training curves")
    assert isinstance(drawn, XYChart)
    found = {each.name: [(dot.x, dot.y) for dot in each.dots] for each in drawn.series}
    assert found == {"fp32": [(10, 0.7), (20, 0.5)], "qat": [(5, 0.4)]}


def test_activations_are_the_last_stage_s_and_stand_by_layer() -> None:
    stages = {"ptq": ranges(random.Random(1), 2), "qat": ranges(random.Random(2), 12)}
    runs = [record(experiment("cola"), ranges=stages)]
    drawn = chart(runs, "Activation ranges")
    assert isinstance(drawn, RangeChart)
    assert drawn.title.endswith("qat")
    layers = [int(lane.name.split(".")[0]) for lane in drawn.lanes]
    assert layers == sorted(layers)
    assert layers[-1] == 11
    seen, held = drawn.lanes[0].marks
    of_name = next(each for name, each in stages["qat"].items() if name.endswith(drawn.lanes[0].name))
    assert (seen.low, seen.high) == (of_name["seen_low"], of_name["seen_high"])
    assert (held.low, held.high) == (of_name["low"], of_name["high"])


def test_ranges_that_older_records_left_open_are_passed_over() -> None:
    part = {"a:x": {"low": -1.0, "high": 1.0, "sqnr": None}, "b:x": {"low": None, "high": 1.0}}
    runs = [record(experiment("cola"), ranges={"ptq": part})]
    assert gallery(runs, "Sensitivity").charts == ()
    assert gallery(runs, "Activation ranges").charts == ()


def test_the_noisiest_come_first() -> None:
    drawn = lowest_chart({f"m.{n}": float(-n) for n in range(30)}, "n", "g", "t", "dB")
    assert drawn is not None
    assert [lane.name for lane in drawn.lanes] == [str(n) for n in range(29, 9, -1)]
    assert (drawn.lanes[0].marks[0].low, drawn.lanes[0].marks[0].high) == (-29, 0)
    assert lowest_chart({}, "n", "g", "t", "dB") is None


def test_loss_by_task_and_width_is_the_smallest_of_all_rows() -> None:
    def run(task: str, quant: str, **scores: float) -> Record:
        metric = "matthews" if task == "cola" else "f1"
        tree = experiment(task, quant=quant, method={"kind": "qat" if "qat" in scores else "ptq"})
        return record(tree, scores={stage: {metric: value} for stage, value in scores.items()})

    runs = [
        run("cola", "w8a8", fp32=60.0, ptq=58.0),
        run("cola", "w8a8", fp32=60.0, ptq=50.0, qat=59.5),
        run("cola", "w4a8", fp32=60.0, ptq=40.0),
        run("mrpc", "w8a8", fp32=80.0, ptq=81.0),
        record(experiment("mrpc", quant="w4a8"), scores={"fp32": {"f1": 80.0}, "ptq": {"f1": None}}),
    ]
    drawn = chart(runs, "Loss by task and width")
    assert isinstance(drawn, HeatMap)
    found = {(tile.row, tile.column): tile.value for tile in drawn.tiles}
    assert found == {("cola", "w8a8"): 0.5, ("cola", "w4a8"): 20.0, ("mrpc", "w8a8"): -1.0}
    assert [tile.column for tile in drawn.tiles] == ["w8a8", "w8a8", "w4a8"]


def test_noise_by_layer_has_a_tile_for_each_activation_in_a_layer() -> None:
    of_layers = ranges(random.Random(1), 12)
    runs = [
        record(
            experiment("cola"),
            ranges={"ptq": {**of_layers, "bert.pooler:x": {**of_layers[next(iter(of_layers))]}}},
        )
    ]
    drawn = chart(runs, "Sensitivity by layer")
    assert isinstance(drawn, HeatMap)
    assert len(drawn.tiles) == len(of_layers)
    assert list(dict.fromkeys(tile.column for tile in drawn.tiles)) == [str(layer) for layer in range(12)]
    tile = next(tile for tile in drawn.tiles if tile.column == "10" and "query:linear.input" in tile.row)
    assert tile.value == of_layers[f"bert.encoder.layer.10.{tile.row}"]["sqnr"]
    assert drawn.notes == ("Left out: 1 activations outside the layers.",)


def test_the_gate_has_each_quantile_beside_its_floor() -> None:
    found = {"p50": 0.0, "p99": 0.02, "max": None}
    gate = {
        "logit_differences": found,
        "floor": {"logit_differences": {"p50": 1e-7, "p99": 0.01}},
        "passed": True,
    }
    run = record(
        experiment("cola", deploy=ENGINES),
        engines={"onnxruntime/int8": {"gate": gate}, "onnxruntime/fp32": {}},
        ranges={"ptq": ranges(random.Random(1), 1)},
    )
    drawn = chart([run], "Gate")
    assert isinstance(drawn, RangeChart)
    assert drawn.x.scale == "log"
    places = {lane.name: {mark.kind: mark.low for mark in lane.marks} for lane in drawn.lanes}
    assert places == {
        "onnxruntime/int8 p50": {"median": 1e-7, "dot": 1e-9},
        "onnxruntime/int8 p99": {"median": 0.01, "dot": 0.02},
    }


def test_a_scale_shows_what_it_has_to() -> None:
    assert scale_of([22, 90]) == "linear"
    assert scale_of([1, 2, 3, 900]) == "log"
    assert scale_of([-1, 2, 3, 900]) == "symlog"
    assert scale_of([0, 0]) == "linear"


def test_every_gallery_says_why_it_is_empty_and_what_fills_it() -> None:
    unscored = record(experiment("cola"), scores={})
    for records in ([], [unscored]):
        found = galleries(compare(records))
        assert [each.title for each in found] == list(TITLES)
        for each in found:
            assert each.charts == ()
            assert each.empty.endswith(".")
            again = f"qexp again {unscored.key[:8]} (-m )?quant="
            first = "python -m qexp (-m )?task=mrpc quant="
            assert re.match(again if records else first, each.command)


def test_commands_repeat_a_run_whatever_the_name_of_its_task() -> None:
    tree = experiment("cola")
    named = record({**tree, "task": {**tree["task"], "name": "goodbad"}})
    words = gallery([failed(tree), named], "Seed spread").command.split()
    assert words == ["qexp", "again", named.key[:8], "-m", "quant=w8a8", "seed=1,2,3"]
    typed = ["task=classification", "task.name=goodbad", "quant=w4a8"]
    assert changed(typed, words[3:]) == [*typed[:2], "-m", "quant=w8a8", "seed=1,2,3"]


def test_tasks_without_a_chart_are_named() -> None:
    found = gallery([*RIVALS, record(experiment("mrpc"))], "Loss against size")
    assert [each.group for each in found.charts] == ["cola"]
    assert found.notes == ("Without a chart: mrpc. Fewer than two exported files with a score.",)


def test_many_tasks_are_shown_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "MOST_TASKS", 1)
    assert gallery(forty(), "Seed spread").one_by_one


def test_names_are_ordered_and_shortened() -> None:
    assert sorted(["layer.10.a", "layer.9.a", "emb"], key=natural) == ["emb", "layer.9.a", "layer.10.a"]
    assert without_shared_beginning(["m.e.1.a", "m.e.2.a"]) == ["1.a", "2.a"]
    assert without_shared_beginning(["m.e"]) == ["e"]
    assert without_shared_beginning(["m", "m.e"]) == ["m", "m.e"]
    assert without_shared_beginning([]) == []
