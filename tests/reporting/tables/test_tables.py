"""Tables of Records: runs that share a cell, marks, and numbers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.config import FLOAT_BITS, Experiment, Quant
from qexp.records.record import Record
from qexp.reporting import run_view
from qexp.reporting.comparison import Cell, Comparison, Row, compare
from qexp.reporting.formats.terminal import print_run
from qexp.reporting.run_view import Quantity, RunView
from qexp.reporting.settings import split_settings
from qexp.reporting.table import Table, latency, markdown, points, size
from qexp.reporting.tables.comparison import table_of
from qexp.reporting.tables.run import cost_table, final_table, run_tables
from qexp.reporting.tables.runs import failures_table
from qexp.reporting.verdict.verdict import verdicts
from tests.support.record_factory import deployed, experiment, failed, interrupted, parity, record, timing

F1 = {stage: Quantity("score", stage, "f1") for stage in ("fp32", "ptq", "qat", "onnx")}
GAIN = Quantity("difference", "qat-fp32", "f1")
EARLY, LATE = "2026-03-01T09:00:00+00:00", "2026-03-02T09:00:00+00:00"


def only(records: Iterable[Record]) -> Comparison:
    (comparison,) = compare(records)
    return comparison


def printed(records: Iterable[Record]) -> Table:
    return table_of(only(records))


def cells(table: Table, **where: str) -> dict[str, str]:
    """The one row with these values, by column."""
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    (found,) = (row for row in rows if where.items() <= row.items())
    return found


def qat_scores(
    fp32: float | None, ptq: float | None, qat: float | None
) -> dict[str, dict[str, float | None]]:
    return {"fp32": {"f1": fp32}, "ptq": {"f1": ptq}, "qat": {"f1": qat}}


# facts: what Records say must be what the configuration says


@pytest.mark.parametrize("task", ["mrpc", "cola", "mnli"])
def test_metrics_are_named_as_in_the_configuration(task: str) -> None:
    tree = experiment(task)
    run = RunView(record(tree, scores={}))
    assert run.metrics[0] == Experiment.model_validate(tree).task.primary
    assert RunView(record(tree)).metrics == run.metrics
    assert len(run.metrics) == 2 - (task == "cola")


@pytest.mark.parametrize("bits", [(32, 32), (8, 8), (4, 8), (8, 32), (32, 8), (16, 16)])
def test_bit_widths_are_named_as_in_the_configuration(bits: tuple[int, int]) -> None:
    tree = {"quant": {"weight_bits": bits[0], "activation_bits": bits[1]}}
    assert RunView(replace(record(), experiment=tree)).quant == Quant(**tree["quant"]).name
    assert run_view.FLOAT_BITS == FLOAT_BITS


@pytest.mark.parametrize(
    ("tree", "budget"),
    [
        ({"budget": {"name": "full", "train_steps": None}}, "full"),
        ({"budget": {"name": "full", "train_steps": 5}}, "limited"),
        ({"budget": {"name": "smoke", "train_steps": 5}}, "smoke"),
        ({}, "full"),
    ],
)
def test_a_full_budget_with_a_limit_is_not_called_full(tree: dict[str, Any], budget: str) -> None:
    assert RunView(replace(record(), experiment=tree)).budget == budget


def test_identity_leaves_out_how_and_where_from() -> None:
    base = experiment()
    same = {
        **base,
        "machine": {**base.get("machine", {}), "threads": 7, "progress": False},
        "tracker": {"kind": "wandb"},
        "data": {**base["data"], "source": "hub", "root": "/data"},
    }
    assert RunView(record(base)).identity == RunView(record(same)).identity


@pytest.mark.parametrize(
    "change", [{"data": {"train_rows": 100}}, {"machine": {"precision": "bf16"}}, {"machine": {"devices": 2}}]
)
def test_identity_holds_what_changes_a_result(change: dict[str, dict[str, Any]]) -> None:
    base = experiment()
    other = base | {name: {**base.get(name, {}), **fields} for name, fields in change.items()}
    assert RunView(record(base)).identity != RunView(record(other)).identity
    (path,) = (f"{name}.{field}" for name, fields in change.items() for field in fields)
    assert path in RunView(record(other)).settings


# numbers


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=7))
@settings(deadline=None, max_examples=50)
def test_medians_and_spread_are_those_of_the_seeds(values: list[float]) -> None:
    runs = [
        record(experiment(seed=seed), scores=qat_scores(value, 1.0, -value))
        for seed, value in enumerate(values)
    ]
    (row,) = only(runs).rows
    cell = row.cells[F1["fp32"]]
    assert cell.median == statistics.median(values)
    assert (cell.numbers[0], cell.numbers[-1], len(cell.numbers)) == (min(values), max(values), len(values))
    assert cell.status == "ok"


def test_the_difference_is_paired_by_seed_before_the_median() -> None:
    fp32, qat = [90.0, 80.0, 70.0], [88.0, 81.0, 60.0]
    runs = [
        record(experiment(seed=seed), scores=qat_scores(a, 1.0, b))
        for seed, (a, b) in enumerate(zip(fp32, qat, strict=True))
    ]
    paired = statistics.median(b - a for a, b in zip(fp32, qat, strict=True))
    (row,) = only(runs).rows
    assert row.cells[GAIN].median == paired == -2.0
    assert paired != statistics.median(qat) - statistics.median(fp32)
    assert cells(printed(runs))["QAT-FP32"] == "-2.00 (-10.00..+1.00)"


def test_an_undefined_metric_is_said_to_be_undefined() -> None:
    runs = [record(experiment(seed=1), scores=qat_scores(50.0, None, None))]
    row = cells(printed(runs))
    assert (row["f1 FP32"], row["f1 PTQ"], row["QAT-FP32"]) == ("50.00", "undefined", "undefined")
    runs.append(record(experiment(seed=2), scores=qat_scores(50.0, 40.0, None)))
    assert cells(printed(runs))["f1 PTQ"] == "40.00 n=1, else undefined"


def test_numbers_are_printed_with_their_signs_and_ratios() -> None:
    assert [points(value) for value in (1.005, -0.001, 0.0, -3.21, None)] == [
        *("+1.00", "+0.00", "+0.00", "-3.21", "undefined")
    ]
    assert size(4 * 2**20, 2**20) == "4.00 -> 1.00 (4.00x)"
    assert size(500 * 2**20, None) == "500.0"
    assert latency(None, None) == "-"
    assert latency(2.0, 4.0) == "2.00 -> 4.00 (0.50x)"


# what shares a table, and what does not


def test_sample_and_smoke_have_tables_of_their_own() -> None:
    smoke = experiment(budget={"name": "smoke", "train_steps": 5})
    runs = [
        record(experiment()),
        record(experiment(), source="sample"),
        record(smoke),
        record(smoke, source="sample"),
    ]
    tables = [table_of(each) for each in compare(runs)]
    assert [table.title for table in tables] == ["mrpc", "mrpc, smoke", "mrpc, sample", "mrpc, sample, smoke"]
    assert [len(table.rows) for table in tables] == [1, 1, 1, 1]
    assert "made-up rows" in tables[2].caption[0]
    assert "smoke" in tables[3].caption[1]
    assert "made-up" not in " ".join(tables[0].caption)


def test_real_rows_share_a_table_whatever_they_came_from() -> None:
    runs = [record(experiment(seed=1), source="hub"), record(experiment(seed=2), source="local")]
    table = printed(runs)
    assert cells(table)["seeds"] == "2"
    assert "Data: hub, local." in " ".join(table.caption)


def test_different_rows_of_data_in_one_table_are_told() -> None:
    other = {"source": "local", "fingerprint": "0" * 64, "rows": {}}
    notes = printed([record(experiment(seed=1)), record(experiment(seed=2), data=other)]).notes
    assert any("different rows of data" in note and "000000000000 (1)" in note for note in notes)


def test_tables_stand_in_a_steady_order() -> None:
    runs = [
        record(experiment(task, quant=quant))
        for task in ("mrpc", "cola")
        for quant in ("w4a8", "fp32", "w8a8")
    ]
    once, again = compare(runs), compare(reversed(runs))
    assert [table_of(each) for each in once] == [table_of(each) for each in again]
    assert [each.task for each in once] == ["cola", "mrpc"]
    assert [row.quant for row in once[0].rows] == ["fp32", "w8a8", "w4a8"]


# several Records for one cell


@pytest.mark.parametrize("order", list(permutations(range(2))))
def test_a_failure_is_superseded_by_a_later_success(order: tuple[int, ...]) -> None:
    runs = [failed(experiment(), finished=EARLY), record(experiment(), finished=LATE)]
    table = printed(runs[index] for index in order)
    assert cells(table)["seeds"] == "1"
    assert not any("failed" in cell for row in table.rows for cell in row)
    assert not any("Error" in note for note in table.notes)


def test_a_failure_before_any_data_is_superseded_wherever_the_success_found_its_rows() -> None:
    early = failed(experiment(), finished=EARLY, data=None, scores={})
    for source in ("hub", "sample"):
        assert "failed" not in str(printed([early, record(experiment(), source=source, finished=LATE)]).rows)


def test_a_success_on_sample_rows_does_not_hide_a_failure_on_real_ones() -> None:
    tables = compare(
        [failed(experiment(), finished=EARLY), record(experiment(), source="sample", finished=LATE)]
    )
    assert [each.is_synthetic for each in tables] == [False, True]
    assert "failed [1]" in cells(table_of(tables[0]))["f1 QAT"]


def test_a_later_failure_leaves_the_success_and_a_note() -> None:
    ok = record(experiment(), finished=EARLY)
    table = printed([ok, failed(experiment(), finished=LATE)])
    assert cells(table)["seeds"] == "1"
    assert any("a later run of the same experiment failed" in note for note in table.notes)


def test_the_newest_of_several_successes_is_shown_with_a_note() -> None:
    changed = {"source": "local", "fingerprint": "0" * 64, "rows": {}}
    old = record(experiment(), key="old", finished=EARLY, scores=qat_scores(1, 1, 1))
    new = record(experiment(), key="new", finished=LATE, scores=qat_scores(2, 2, 2), data=changed)
    for runs in ([old, new], [new, old]):
        table = printed(runs)
        assert cells(table)["f1 FP32"] == "2.00"
        (note,) = (note for note in table.notes if "2 Records" in note)
        assert "different rows of data" in note
        assert "the newest, new," in note
        assert "old left out" in note


def test_a_run_with_a_benchmark_and_one_without_are_one_row() -> None:
    plain, timed = record(experiment(), finished=LATE), deployed(experiment(), finished=EARLY)
    table = printed([plain, timed])
    row = cells(table)
    assert (row["seeds"], row["latency (ms)"]) == ("1", "12.00 -> 5.00 (2.40x, p90/p50 1.10)")
    assert row["size (MiB)"] == "85.83 -> 21.93 (3.91x)"
    assert not any("Records of the same experiment" in note for note in table.notes)


def test_benchmarks_of_different_lengths_are_different_rows() -> None:
    long = deployed(experiment())
    long = replace(
        long,
        key="long",
        experiment={**long.experiment, "deploy": {**long.experiment["deploy"], "lengths": [384]}},
    )
    table = printed([deployed(experiment()), long])
    assert sorted(row[table.columns.index("deploy.lengths")] for row in table.rows) == ["128", "384"]


def test_another_clock_makes_no_other_row_and_the_newest_measurement_is_shown() -> None:
    run = deployed(experiment(), finished=EARLY)
    deploy = {**run.experiment["deploy"], "batch_sizes": [1], "runs": 9, "warmup": 1, "seconds": 2.0}
    again = replace(
        run,
        key="again",
        finished=LATE,
        experiment={**run.experiment, "deploy": deploy},
        latency={graph: {"1": timing(ms)} for graph, ms in (("fp32", 12.0), ("int8", 4.0))},
    )
    for runs in ([run, again], [again, run]):
        table = printed(runs)
        assert len(table.rows) == 1 and not any("deploy" in column for column in table.columns)
        assert "12.00 -> 4.00 (3.00x" in cells(table)["latency (ms)"]
    (verdict,) = verdicts([run, again])
    assert [each.name for each in verdict.candidates if each.stage == "qat"] == ["W8A8 QAT"]


# failed, missing


def test_failed_cells_are_marked_and_explained_once() -> None:
    runs = [failed(experiment(seed=seed), key=f"k{seed}") for seed in range(5)]
    runs.append(failed(experiment(quant="w4a8", seed=0), message="out of memory", key="k9"))
    table = printed(runs)
    assert cells(table, quant="w8a8")["f1 QAT"] == "failed [1]"
    assert cells(table, quant="w8a8")["f1 PTQ"].startswith("80.50")  # what it had before it failed
    assert cells(table, quant="w4a8")["QAT-FP32"] == "failed [2]"
    assert table.notes[0].startswith("[1] TrainingError: the loss is nan (minilm w8a8 qat seed 0; ")
    assert "and 2 more" in table.notes[0]
    assert "second line" not in table.notes[0]
    assert table.notes[1] == "[2] TrainingError: out of memory (minilm w4a8 qat seed 0)"


def test_interrupted_cells_say_how_to_go_on() -> None:
    table = printed([interrupted(experiment(), scores={})])
    assert cells(table)["f1 QAT"] == "interrupted [1]"
    assert table.notes[0].startswith("[1] interrupted; the same command goes on from here (")
    assert only([interrupted(experiment(), scores={})]).rows[0].cells[F1["qat"]].status == "interrupted"
    comparisons = compare([interrupted(experiment()), failed(experiment(seed=2))])
    assert [row[1] for row in failures_table(comparisons).rows] == ["minilm w8a8 qat seed 2"]
    left = failures_table(comparisons, "interrupted")
    assert (left.title, left.rows[0][1]) == ("Interrupted runs", "minilm w8a8 qat seed 1")
    final = final_table(interrupted(experiment()))
    assert cells(final, metric="f1")["QAT"] == "interrupted"
    assert final.notes == ("interrupted; the same command goes on from here",)


def test_one_failed_seed_leaves_the_others_and_their_number() -> None:
    runs = [record(experiment(seed=seed), scores=qat_scores(90, 80, 80 + seed)) for seed in (1, 2)]
    row = cells(printed([*runs, failed(experiment(seed=3))]))
    assert row["f1 QAT"] == "81.50 (81.00..82.00)"
    assert row["seeds"] == "2 of 3: seed 3 failed [1]"
    assert row["f1 FP32"].endswith("n=3")
    assert only([*runs, failed(experiment(seed=3))]).rows[0].cells[F1["qat"]].status == "partial"


def test_a_seed_that_other_rows_have_is_missing() -> None:
    runs = [record(experiment(quant=quant, seed=seed)) for quant in ("w8a8", "w4a8") for seed in (1, 2, 3)]
    table = printed(runs[:-2])
    assert cells(table, quant="w4a8")["seeds"] == "1 of 3: seeds 2, 3 missing"
    assert cells(table, quant="w8a8")["seeds"] == "3"


def test_a_combination_that_the_others_call_for_is_missing() -> None:
    pairs = [(model, quant) for model in ("a", "b") for quant in ("fp32", "w8a8", "w4a8")]
    table = printed(
        record(experiment(model=model, quant=quant)) for model, quant in pairs if model + quant != "bw4a8"
    )
    row = cells(table, model="b", quant="w4a8")
    assert [row[name] for name in ("f1 FP32", "f1 PTQ", "f1 QAT", "QAT-FP32")] == ["missing"] * 4
    assert row["seeds"] == "0 of 1"
    assert len(table.rows) == 6  # and no fp32 row is asked for QAT, nor a quantized one for none


def test_a_model_with_nothing_but_fp32_misses_what_the_others_have() -> None:
    runs = [record(experiment(model="a", quant=quant)) for quant in ("fp32", "w8a8", "w4a8")]
    table = printed([*runs, record(experiment(model="b", quant="fp32"))])
    assert [row[:2] for row in table.rows if row[-1] == "0 of 1"] == [("b", "w8a8"), ("b", "w4a8")]


def test_an_ablation_on_one_model_asks_nothing_of_the_others() -> None:
    main = [
        record(experiment(model=model, quant=quant)) for model in ("a", "b") for quant in ("w8a8", "w4a8")
    ]
    ablation = [record(experiment(model="a", calibrator={"kind": kind})) for kind in ("ema", "mse")]
    assert len(printed([*main, *ablation]).rows) == 6


def test_more_missing_than_present_is_one_note() -> None:
    runs = [record(experiment(model=f"m{n}", placement={"name": f"p{n}"})) for n in range(6)]
    table = printed(runs)
    assert len(table.rows) == 6
    assert any(note.startswith("missing: 30 of the combinations") for note in table.notes)


def test_words_that_never_became_an_experiment_are_told_below_the_table() -> None:
    error = {"type": "ConfigError", "message": "quant.weight_bits: eight", "traceback": ""}
    tree = {
        "task": {"name": "mrpc"},
        "model": {"name": "x"},
        "quant": {"weight_bits": "eight"},
        "seed": "one",
    }
    broken = replace(record(), status="failed", error=error, experiment=tree, data=None, scores={}, key="b")
    for runs in ([broken], [broken, record(experiment())]):
        table = printed(runs)
        assert len(table.rows) == len(runs) - 1
        assert any("ConfigError: quant.weight_bits: eight" in note for note in table.notes)
        assert "ConfigError" in markdown(table)


def test_a_stage_that_a_success_lacks_is_missing() -> None:
    assert cells(printed([record(scores={"fp32": {"f1": 1.0}})]))["f1 QAT"] == "missing"


# columns


def test_only_what_differs_is_a_column() -> None:
    base = printed([record(experiment())])
    assert base.columns[:3] == ("model", "quant", "key")
    assert base.columns[3] == "f1 FP32"
    runs = [
        record(experiment(calibrator=calibrator, method=method))
        for calibrator in ({"kind": "max"}, {"kind": "percentile", "percentile": 99.9})
        for method in ({"kind": "qat", "ranges": "frozen"}, {"kind": "qat"})
    ]
    table = printed(runs)
    assert table.columns[3:5] == ("method.ranges", "calibrator")
    (note,) = [note for note in table.notes if note.startswith("With calibrator")]
    assert "percentile has calibrator.percentile 99.9" in note
    assert "All rows: method qat," in " ".join(table.caption)


def test_settings_that_follow_a_column_are_sentences() -> None:
    rows = [
        {"model": "a", "quant": "w8a8", "finetune.learning_rate": "1e-05", "method.epochs": "1.0"},
        {"model": "a", "quant": "w4a8", "finetune.learning_rate": "1e-05", "method.epochs": "3.0"},
        {"model": "b", "quant": "w8a8", "finetune.learning_rate": "2e-05", "method.epochs": "1.0"},
    ]
    split = split_settings(rows)
    assert split.columns == ()
    assert split.follows == (
        "With model: a has finetune.learning_rate 1e-05; b has finetune.learning_rate 2e-05",
        "With quant: w8a8 has method.epochs 1.0; w4a8 has method.epochs 3.0",
    )


SETTING = st.dictionaries(
    st.sampled_from(["method.kind", "method.epochs", "calibrator.kind", "calibrator.decay", "x.y"]),
    st.sampled_from(["1", "2", "3"]),
)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("cd"), SETTING), min_size=1, max_size=6))
@settings(deadline=None, max_examples=150)
def test_the_columns_tell_all_different_rows_apart(rows: list[tuple[str, str, dict[str, str]]]) -> None:
    flat = [{"model": model, "quant": quant, **rest} for model, quant, rest in rows]
    columns = ("model", "quant", *split_settings(flat).columns)
    different = {tuple(sorted(row.items())) for row in flat}
    assert len({tuple(row.get(path) for path in columns) for row in flat}) == len(different)


def test_models_of_the_same_last_name_keep_their_whole_names() -> None:
    names = ["x/bert", "y/bert", "y/tiny"]
    table = printed(record(experiment(model=name)) for name in names)
    assert [row[0] for row in table.rows] == ["x/bert", "y/bert", "tiny"]
    assert "tiny is y/tiny." in " ".join(table.caption)


@pytest.mark.parametrize(
    ("quant", "simulated"),
    [("w8a8", False), ("w4a8", False), ("w4a4", True), ("w8a16", True), ("w4a32", False)],
)
def test_what_has_no_integer_kernel_is_simulated(quant: str, simulated: bool) -> None:
    row = cells(printed([deployed(experiment(quant=quant))]))
    assert row["latency (ms)"].endswith("simulated") == simulated
    assert ("x" in row["latency (ms)"]) != simulated, "a ratio of simulated widths would mean nothing"
    costs = cost_table(deployed(experiment(quant=quant)))
    assert costs is not None
    speedup = cells(costs, engine="onnxruntime/int8")["speedup"]
    assert speedup == ("simulated" if costs.notes else "2.40x")
    assert cost_table(record(experiment(quant=quant))) is None


def test_a_broken_parity_is_marked_on_the_exported_score_and_explained() -> None:
    table = printed([deployed(experiment(), parity=parity(False)), deployed(experiment(quant="w4a8"))])
    row = cells(table, quant="w8a8")
    assert row["f1 QAT"].endswith("†")
    assert "†" not in row["f1 PTQ"]
    assert "†" not in str(cells(table, quant="w4a8"))
    (note,) = (note for note in table.notes if note.startswith("†"))
    assert "97.25 %" in note
    assert "0.8 points" in note
    assert "minilm w8a8 qat seed 1" in note


# the table of one run


def test_the_final_table_has_a_line_for_each_metric_the_primary_first() -> None:
    run = deployed(experiment("mnli"), source="hub")
    table, costs = run_tables(run)
    assert table.columns == ("metric", "FP32", "PTQ", "QAT", "QAT-FP32")
    assert [row[0] for row in table.rows] == ["accuracy@m", "accuracy@mm"]
    assert cells(table, metric="accuracy@m")["QAT-FP32"] == "-2.00"
    assert any("reproduces the score" in note for note in table.notes)
    for fact in ("mnli", "minilm", "w8a8", "data hub", f"run {run.key[:8]}"):
        assert fact in table.title
    assert costs.columns == ("engine", "size (MiB)", "p50 (ms)", "speedup", "p90/p50", "gate")
    assert costs.rows == (
        ("onnxruntime/fp32", "85.83", "12.00", "-", "1.10", "-"),
        ("onnxruntime/int8", "21.93", "5.00", "2.40x", "1.10", "passed"),
    )
    assert "batch 1, 128 tokens" in costs.caption[0]


def test_a_latency_that_is_missing_names_its_reason_in_the_table() -> None:
    why = "the model has 64 positions, and the batch 128 tokens"
    engines = {
        "onnxruntime/fp32": {"gate": parity(True), "problems": {"1x128": why}},
        "onnxruntime/int8": {"problems": {"engine": "install it"}},
    }
    costs = cost_table(deployed(experiment(), engines=engines, latency=None))
    assert costs is not None
    assert cells(costs, engine="onnxruntime/fp32")["why"] == why
    missing = cells(costs, engine="onnxruntime/int8")
    assert (missing["p50 (ms)"], missing["why"]) == ("missing", "install it")
    row = cells(printed([deployed(experiment(), engines=engines, latency=None)]))
    assert row["latency (ms)"] == "missing [1]"


def test_a_noisy_latency_has_no_ratio() -> None:
    latency = {"fp32": {"1": timing(12.0, 1.6)}, "int8": {"1": timing(5.0)}}
    costs = cost_table(deployed(experiment(), latency=latency))
    assert costs is not None
    row = cells(costs, engine="onnxruntime/int8")
    assert (row["speedup"], row["p90/p50"], row["why"]) == ("noisy", "1.10", "p90/p50 1.60")
    table = printed([deployed(experiment(), latency=latency)])
    assert cells(table)["latency (ms)"] == "12.00 -> 5.00 noisy [1]"
    seeds = [
        deployed(
            experiment(seed=seed), latency={"fp32": {"1": timing(12.0, spread)}, "int8": latency["int8"]}
        )
        for seed, spread in ((1, 1.6), (2, 1.73))
    ]
    for runs, own in ((seeds[:1], ("seed 1: 1.60",)), (seeds, ("seed 1: 1.60", "seed 2: 1.73"))):
        (note,) = (each for each in printed(runs).notes if "p90/p50" in each)
        assert note.startswith("[1] p90/p50 of 1.5 or more (") and all(each in note for each in own)


def test_the_final_table_marks_sample_and_smoke_in_its_title() -> None:
    smoke = record(experiment(budget={"name": "smoke", "train_steps": 5}), source="sample")
    assert "data sample, smoke budget" in final_table(smoke).title
    assert any("made-up" in note for note in final_table(smoke).notes)


def test_the_final_table_of_each_method_shows_what_it_has() -> None:
    fp32, ptq = experiment(quant="fp32"), experiment(method={"kind": "ptq"})
    assert final_table(record(fp32)).rows[0][2:] == ("-", "-", "-")
    assert final_table(record(ptq)).rows[0][3:] == ("-", "-")


def test_the_final_table_of_a_control_has_its_score_beside_fp32() -> None:
    control = experiment(quant="fp32", method={"kind": "control"})
    row = cells(final_table(record(control)), metric="f1")
    assert float(row["control"]) - float(row["FP32"]) == pytest.approx(1)
    assert row["control-FP32"] == "+1.00"
    assert "PTQ" not in row
    lost = failed(control)
    assert cells(final_table(lost), metric="f1")["control"] == "failed"


def test_a_control_is_a_row_of_the_task_and_distillation_tells_rows_apart() -> None:
    taught: dict[str, Any] = {"distillation": {"logits": 1.0, "temperature": 4.0}}
    runs = [
        record(experiment(quant="fp32")),
        record(experiment(quant="fp32", method={"kind": "control", **taught})),
        record(experiment(method={"kind": "qat", **taught})),
        record(experiment(method={"kind": "qat"})),
    ]
    (comparison,) = compare(runs)
    table = table_of(comparison)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    told = "labels 1.0, logits 1.0, temperature 4.0"
    assert [(row["quant"], row["method"], row["method.distillation"]) for row in rows] == [
        ("fp32", "control", told), ("fp32", "none", "-"), ("w8a8", "qat", "-"), ("w8a8", "qat", told),
    ]  # fmt: skip
    assert rows[0]["control-FP32"] == "+1.00" and rows[0]["QAT-FP32"] == "-"
    assert "control: the FP32 model, trained on without quantizers." in table.caption[-1]


def test_the_final_table_of_a_failure_says_what_failed() -> None:
    table = final_table(failed(experiment()))
    row = cells(table, metric="f1")
    assert (row["PTQ"], row["QAT"], row["QAT-FP32"]) == ("80.50", "failed", "failed")
    assert table.notes == ("failed: TrainingError: the loss is nan",)
    broken = final_table(deployed(experiment(), parity=parity(False)))
    assert broken.rows[0][3].endswith("†")
    assert broken.notes[0].startswith("†")


def test_print_run_writes_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_run(failed(experiment(), message="[1] not markup [/red]"))
    assert "failed: TrainingError: [1] not markup [/red]" in capsys.readouterr().out


# Markdown


def test_markdown_is_one_table_of_equal_lines() -> None:
    runs = [
        record(experiment(model=model, quant=quant)) for model in ("a|b", "c") for quant in ("fp32", "w8a8")
    ]
    text = markdown(printed(runs))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert all(len(one) == len(other) for one, other in pairwise(lines))
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "a\\|b" in text


def test_status_of_a_cell() -> None:
    run = RunView(failed(experiment()))
    assert Cell({}, {}, (1,)).status == "missing"
    assert Cell({}, {2: run}, (1,)).status == "failed"
    assert Cell({1: None}, {}, ()).status == "undefined"
    assert Cell({1: None, 2: 3.0}, {}, ()).status == "partial"
    assert Cell({1: 3.0}, {}, (2,)).status == "partial"
    assert Cell({1: 3.0}, {}, ()).status == "ok"
    assert Cell({1: None}, {}, ()).median is None


def test_old_experiments_are_tabled_with_what_they_have() -> None:
    old = Record.from_json(replace(record(), experiment={"task": {"name": "mrpc"}}).to_json())
    table = printed([old, record(experiment())])
    assert {row[0] for row in table.rows} == {"unknown", "minilm"}
    assert isinstance(only([old]).rows[0], Row)


CONSTANT = {"ptq": {"f1": "predicts 'yes' for all 5 rows", "accuracy": "predicts 'yes' for all 5 rows"}}


def test_a_score_that_says_nothing_is_marked_and_the_reason_told_once() -> None:
    runs = [record(experiment(seed=seed), caveats=CONSTANT) for seed in (1, 2)]
    table = printed(runs)
    (row,) = table.rows
    marked = {name for name, cell in zip(table.columns, row, strict=True) if cell.endswith("‡")}
    assert marked == {"f1 PTQ", "accuracy PTQ"}
    (note,) = (note for note in table.notes if note.startswith("‡"))
    assert note.startswith("‡ PTQ f1, accuracy: predicts 'yes' for all 5 rows (")
    assert "seed 1" in note and "seed 2" in note


def test_the_table_of_a_run_marks_it_too() -> None:
    table = final_table(record(caveats=CONSTANT))
    marked = {row[table.columns.index("PTQ")] for row in table.rows}
    assert all(cell.endswith(" ‡") for cell in marked)
    assert "‡ PTQ f1, accuracy: predicts 'yes' for all 5 rows" in table.notes
    assert not any("‡" in row[table.columns.index("FP32")] for row in table.rows)


def test_the_verdict_of_a_gate_on_such_a_score_says_as_little() -> None:
    sound, constant = (
        final_table(deployed(experiment(), caveats=caveats)) for caveats in ({}, {"qat": CONSTANT["ptq"]})
    )
    assert not any("‡" in note for note in sound.notes)
    (note,) = (note for note in constant.notes if "reproduces the score" in note)
    assert "‡" in note and "predicts 'yes' for all 5 rows" in note


def test_recipes_have_a_column_where_they_differ_and_are_named_where_they_do_not() -> None:
    first = record(experiment(calibrator={"kind": "max"}), recipe="q8bert")
    second = record(experiment(calibrator={"kind": "ema"}))
    both = printed([first, second])
    assert sorted(row[both.columns.index("recipe")] for row in both.rows) == ["-", "q8bert"]
    alone = printed([first])
    assert "recipe" not in alone.columns
    assert any("Recipe: q8bert." in line for line in alone.caption)
    assert not any("Recipe" in line for line in printed([second]).caption)
