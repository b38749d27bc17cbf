"""Verdicts on hand-made Records: every answer, what is chosen, and the words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qexp.config import Accept
from qexp.records.record import Record
from qexp.reporting.verdict.candidates import DEFAULT_LOSS, State
from qexp.reporting.verdict.next_steps import next_steps
from qexp.reporting.verdict.sentences import file_of, headline, objection, sentences
from qexp.reporting.verdict.verdict import Answer, Verdict, verdicts
from tests.support.record_factory import experiment, failed, interrupted, parity, record
from tests.support.verdict_records import MIB, engine, judged

CONSTANT = "predicts 'yes' for all 408 rows"


def verdict(*records: Record, accepted: float | None = None) -> Verdict:
    (found,) = verdicts(records, accepted)
    return found


def words(*records: Record, accepted: float | None = None) -> str:
    return " ".join(sentences(verdict(*records, accepted=accepted)))


def commands(*records: Record) -> list[str]:
    return [step.command for step in next_steps(verdict(*records))]


def test_a_loss_within_the_accepted_one_is_deployable() -> None:
    run = judged(-0.25)
    found = verdict(run)
    assert (found.answer, found.marks) == ("deployable", ())
    assert found.best is not None and found.best.sure
    text = words(run)
    assert headline(found) == "mrpc: W8A8 PTQ is deployable in ONNX Runtime"
    for fact in (
        "0.5 points accepted (accept.loss)", "88.00 -> 87.75, -0.25 points",
        "95 % interval -0.40 to +0.60 (1000 resamples of 408 rows)",
        "2.40x as fast as FP32 on Fast CPU (batch 1, 128 tokens, 12.00 -> 5.00 ms, p90/p50 up to 1.05)",
        "4.00x smaller (88.0 -> 22.0 MiB)", "Gate: passed.",
    ):  # fmt: skip
        assert fact in text
    assert commands(run) == [
        f"qexp publish {run.key[:8]} FOLDER",
        f"qexp predict {run.key[:8]} ROWS --runtime onnxruntime",
        f"qexp again {run.key[:8]} quant=w4a8",
    ]
    assert file_of(found.best, Path("/o")) == "/o/artifacts/7-onnx/int8graphw8a8/model.onnx"


def test_a_path_can_be_pasted_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = verdicts([judged(-0.25)])
    assert found.best is not None
    file = "artifacts/7-onnx/int8graphw8a8/model.onnx"
    monkeypatch.chdir(tmp_path)
    for outputs in (Path("outputs"), tmp_path / "outputs"):
        assert file_of(found.best, outputs) == f"outputs/{file}"
    assert file_of(found.best, tmp_path.parent) == f"{tmp_path.parent}/{file}"


@pytest.mark.parametrize(("memory", "said"), [(40, True), (24, False), (None, False)])
def test_the_memory_of_an_engine_is_said_where_the_file_misleads_about_it(
    memory: int | None, said: bool
) -> None:
    sessions = {"fp32": 98, "int8": memory}
    engines = {
        f"onnxruntime/{graph}": engine(9.0, session={"memory_bytes": of and of * MIB, "load_seconds": 1.0})
        for graph, of in sessions.items()
    }
    text = words(judged(engines=engines))
    assert ("Loaded, it takes 40.0 MiB of memory, FP32 98.0." in text) == said
    assert ("Loaded" in text) == said


def test_the_score_of_the_exported_file_is_said_where_it_is_another_one() -> None:
    scores = {"fp32": {"f1": 88.0}, "ptq": {"f1": 88.0}}
    run = judged(scores={**scores, "onnx": {"f1": 87.74}})
    assert "The exported file scores 87.74 in ONNX Runtime." in words(run)
    assert "exported file scores" not in words(judged(scores={**scores, "onnx": {"f1": 88.001}}))
    assert "exported file scores" not in words(judged(scores=scores))


def test_each_engine_has_the_exported_score_of_its_own() -> None:
    found = {
        "onnxruntime/fp32": engine(12.0), "onnxruntime/int8": engine(6.0, scores={"f1": 87.74}),
        "openvino/fp32": engine(12.0), "openvino/int8": engine(4.0, scores={"f1": 87.5}),
    }  # fmt: skip
    scores = {"fp32": {"f1": 88.0}, "ptq": {"f1": 88.0}, "onnx": {"f1": 87.74}}
    assert "The exported file scores 87.50 in OpenVINO." in words(judged(engines=found, scores=scores))


def test_the_default_loss_is_that_of_the_configuration() -> None:
    assert Accept().loss == DEFAULT_LOSS
    old = judged(-0.4)
    old = replace(old, experiment={name: of for name, of in old.experiment.items() if name != "accept"})
    assert verdict(old).candidates[0].accepted == DEFAULT_LOSS


@pytest.mark.parametrize(("points", "answer"), [(-0.5, "deployable"), (-0.51, "none")])
def test_the_accepted_loss_itself_is_within(points: float, answer: Answer) -> None:
    assert verdict(judged(points)).answer == answer


def test_each_run_may_accept_another_loss_and_a_report_any() -> None:
    run = judged(-1.5, sections={"accept": {"loss": 2.0}})
    assert verdict(run).answer == "deployable"
    assert verdict(run, accepted=1.0).answer == "none"
    assert "1 points accepted" in words(run, accepted=1.0)


def test_an_interval_beyond_the_accepted_loss_is_said() -> None:
    run = judged(-0.25, interval=(-1.1, 0.6))
    found = verdict(run)
    assert found.answer == "deployable" and found.best is not None and not found.best.sure
    assert "408 rows cannot rule out a larger loss than accepted" in words(run)
    assert "by its measured score" in headline(found)
    assert "cannot rule out" not in words(judged(-0.25))
    assert "cannot rule out that it is within" in words(judged(-0.75, interval=(-1.1, 0.6)))
    assert "no interval" in words(judged(interval=None))


def test_seeds_have_a_range_instead_of_an_interval_and_the_median_run_is_taken() -> None:
    runs = [judged(points, sections={"seed": seed}) for seed, points in ((1, -0.4), (2, 0.1), (3, -0.2))]
    found = verdict(*runs)
    assert found.best is not None and found.best.change is not None
    assert (found.best.change.points, found.best.run.seed) == (pytest.approx(-0.2), 3)
    assert "the median of 3 seeds from -0.40 to +0.10" in words(*runs)


def test_ptq_beyond_the_loss_says_what_to_try() -> None:
    run = judged(-3.0, interval=(-4.0, -2.0))
    assert verdict(run).answer == "none"
    text = words(run)
    assert "nothing to deploy" in text and "loses 3.00 points of f1, more than the 0.5 points" in text
    assert commands(run) == [
        f"qexp again {run.key[:8]} method=qat",
        f"qexp again {run.key[:8]} placement=linear",
        f"qexp sensitivity {run.key[:8]}",
        f"qexp again {run.key[:8]} quant=w8a16",
    ]


def test_a_loss_with_the_default_calibrator_offers_another_one_before_a_training() -> None:
    mse, percentile = (
        judged(-3.0, sections={"calibrator": {"kind": kind}}) for kind in ("mse", "percentile")
    )
    ranges = f"qexp again {mse.key[:8]} calibrator=percentile calibrator.weights=mse"
    assert commands(mse)[:2] == [ranges, f"qexp again {mse.key[:8]} method=qat"]
    assert not any("calibrator" in each for each in (*commands(percentile), *commands(mse, percentile)))
    few = judged(-3.0, quant="w4a4", sections={"calibrator": {"kind": "mse"}})
    assert not any("calibrator" in each for each in commands(few))


def test_after_qat_the_next_steps_do_not_name_it_and_few_bits_get_more() -> None:
    run = judged(-3.0, method="qat", quant="w4a8")
    key = run.key[:8]
    linear = f"qexp again {key} placement=linear"
    assert commands(run) == [f"qexp again {key} quant=w8a8", linear, f"qexp sensitivity {key}"]
    other = judged(-2.0, method="qat", quant="w8a8")
    tried = [each.partition(" quant=")[2] for each in commands(run, other)]
    assert "w8a8" not in tried and "w8a16" in tried


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, "W4A4 is simulated"),
        ({"engines": {}, "sections": {"deploy": {"kind": "none"}}}, "W4A4 is simulated"),
    ],
    ids=["loss", "not exported"],
)
def test_simulated_widths_are_named_whatever_else_is_wrong(changes: dict[str, Any], holds: str) -> None:
    points = -0.1 if changes else -3.0
    assert holds in words(judged(points, quant="w4a4", **changes))
    assert "simulated" not in words(judged(points, **changes))


def test_ptq_of_a_qat_run_is_a_candidate_without_a_file() -> None:
    run = judged(-3.0, ptq_points=-0.1, method="qat")
    found = verdict(run)
    assert found.answer == "not exported" and found.best is not None and found.best.stage == "ptq"
    assert file_of(found.best, None) is None
    assert commands(run) == [f"qexp again {run.key[:8]} method=ptq deploy=auto"]
    assert "W8A8 QAT (-3.00)" in words(run)


def test_the_fastest_deployable_engine_is_chosen_and_the_others_are_named() -> None:
    run = judged(engines={
        "onnxruntime/fp32": engine(12.0), "onnxruntime/int8": engine(6.0),
        "openvino/fp32": engine(10.0), "openvino/int8": engine(4.0),
    })  # fmt: skip
    found = verdict(run)
    assert [each.runtime for each in found.candidates] == ["openvino", "onnxruntime"]
    assert found.best is not None and found.best.speed.ratio == pytest.approx(2.5), (
        "of the faster FP32 engine"
    )
    assert "It is deployable in ONNX Runtime, too." in words(run)
    assert commands(run)[1].endswith("--runtime openvino")


@pytest.mark.parametrize(
    ("sizes", "latencies", "chosen"),
    [
        ((22.0, 22.0), (5.0, 4.99), "w8a8"), ((22.2, 22.0), (5.0, 5.0), "w8a8"),
        ((23.0, 22.0), (4.99, 5.0), "w4a8"), ((22.0, 22.0), (5.0, 4.0), "w4a8"),
        ((23.0, 22.0), (4.0, 5.0), "w8a8"),
    ],
    ids=["equal", "within 1 %", "smaller", "faster", "fast before small"],
)  # fmt: skip
def test_more_bits_are_chosen_where_neither_time_nor_size_differs(
    sizes: tuple[float, float], latencies: tuple[float, float], chosen: str
) -> None:
    runs = [
        judged(
            points, quant=quant, bytes={"fp32": 88 * MIB, "int8": int(size * MIB)},
            engines={"onnxruntime/fp32": engine(12.0), "onnxruntime/int8": engine(ms)},
        )
        for points, quant, size, ms in zip((-0.3, 0.14), ("w8a8", "w4a8"), sizes, latencies, strict=True)
    ]  # fmt: skip
    best = verdict(*runs).best
    assert best is not None and best.row.quant == chosen


def test_more_bits_are_chosen_among_latencies_that_nobody_can_trust() -> None:
    noisy = {"onnxruntime/fp32": engine(12.0, spread=3.0), "onnxruntime/int8": engine(5.0)}
    runs = [judged(points, quant=quant, engines=noisy) for points, quant in ((-0.3, "w8a8"), (0.1, "w4a8"))]
    best = verdict(*runs).best
    assert best is not None and best.row.quant == "w8a8"


def with_tables(tables: float, placement: str = "gemm", /, **counts: int) -> Record:
    """A run of 88 MiB with so many MiB in tables, which only "embedding.weight" would quantize."""
    kinds = {"linear.weight": 6, "linear.input": 6, **counts}
    rest = 88 - tables
    cost = {"tokens": 128, "macs": 1, "bops": 1, "bytes": int((tables + rest / 4) * MIB)}
    return judged(
        sections={"placement": {"name": placement, "sites": [*kinds]}},
        sites={"quantizers": 12, "sites": kinds, "cost": cost},
        bytes={"fp32": 88 * MIB, "int8": int((tables + rest / 4) * MIB)},
    )


def test_large_tables_in_fp32_are_said_and_a_placement_is_offered() -> None:
    run = with_tables(44.0)
    assert "About 44.0 of its 55.0 MiB are in FP32, almost all of them tables of embeddings." in words(run)
    assert f"qexp again {run.key[:8]} placement=gemm_tables" in commands(run)
    for other in (with_tables(8.0), replace(run, sites=None), with_tables(44.0, **{"embedding.weight": 3})):
        assert "tables" not in words(other) and not any("gemm_tables" in each for each in commands(other))
    linear = with_tables(44.0, "linear")
    assert "44.0 of its 55.0 MiB" in words(linear)
    assert not any("gemm_tables" in each for each in commands(linear))


def test_narrower_weights_are_offered_while_the_narrowest_hold() -> None:
    eight, four = judged(-0.1), judged(-0.2, quant="w4a8")
    assert commands(eight, four)[-1] == f"qexp again {four.key[:8]} quant=w2a8"
    lost = judged(-3.0, quant="w4a8")
    assert not any("quant=w" in command for command in commands(eight, lost))


def test_tables_of_few_bits_are_offered_more_where_the_score_is_lost() -> None:
    lost = judged(-3.0, quant="w4a8")
    step = f"qexp again {lost.key[:8]} quant.embedding_bits=8"
    assert step not in commands(lost)
    tables = replace(lost, sites={"sites": {"linear.weight": 9, "embedding.weight": 3}})
    assert commands(tables)[0] == step


def test_a_loss_speaks_against_deploying() -> None:
    (lost,) = verdicts([judged(-3.0, quant="w4a8")])
    assert "3.00 points" in str(objection(lost)) and str(objection(lost)).startswith(
        "mrpc: nothing to deploy"
    )
    assert objection(verdicts([judged(-0.1)])[0]) is None
    collapsed = replace(judged(-0.1), caveats={"ptq": {"accuracy": CONSTANT}})
    assert CONSTANT in str(objection(verdicts([collapsed])[0]))


def test_settings_that_differ_are_part_of_the_name() -> None:
    runs = [
        judged(points, sections={"calibrator": {"kind": kind}})
        for kind, points in (("max", -0.3), ("mse", -0.1))
    ]
    assert "W8A8 PTQ (calibrator mse) is deployable" in words(*runs)
    assert "Also within the accepted loss: W8A8 PTQ (calibrator max)." in words(*runs)
    models = [judged(sections={"model": model}) for model in ("x/small", "x/large")]
    assert "W8A8 PTQ (small)" in words(*models) and "W8A8 PTQ (large)" in words(*models)


def test_a_failed_gate_is_never_deployable() -> None:
    run = judged(engines={"onnxruntime/fp32": engine(12.0), "onnxruntime/int8": engine(5.0, passed=False)})
    found = verdict(run)
    assert found.answer == "none" and [each.state for each in found.candidates] == ["gate failed"]
    assert "The gate failed in ONNX Runtime" in words(run)
    assert commands(run) == [f"qexp bench {run.key[:8]} --bisect"]


def test_a_gate_within_noise_is_said() -> None:
    gate = {**parity(True), "verdict": "within noise"}
    run = judged(engines={"onnxruntime/fp32": engine(12.0), "onnxruntime/int8": engine(5.0, gate=gate)})
    assert verdict(run).answer == "deployable"
    assert "Gate: within noise." in words(run)


def test_an_engine_that_is_not_there_names_its_reason() -> None:
    run = judged(
        engines={"onnxruntime/fp32": engine(12.0), "onnxruntime/int8": {"problems": {"engine": "install it"}}}
    )
    assert [each.state for each in verdict(run).candidates] == ["no engine"]
    assert "No engine in ONNX Runtime: install it." in words(run)


def test_a_noisy_latency_gives_no_speedup() -> None:
    run = judged(engines={"onnxruntime/fp32": engine(12.0, spread=3.5), "onnxruntime/int8": engine(5.0)})
    text = words(run)
    assert verdict(run).answer == "deployable"
    assert "latency is noisy: p90/p50 3.50" in text and "as fast as" not in text


def test_a_slower_engine_is_said_to_be_slower() -> None:
    run = judged(engines={"onnxruntime/fp32": engine(5.0), "onnxruntime/int8": engine(10.0)})
    assert "slower than FP32 on Fast CPU, 0.50x" in words(run)


def test_narrow_weights_are_deployable_at_the_speed_of_8_bits() -> None:
    run = judged(quant="w4a8")
    assert verdict(run).answer == "deployable"
    text = words(run)
    assert "as fast as" in text and "multiply the weights of W4A8 as 8-bit integers" in text


def test_simulated_widths_say_what_engines_compute() -> None:
    run = judged(quant="w4a4")
    found = verdict(run)
    assert found.answer == "simulated"
    text = words(run)
    for fact in (
        "W4A4 is simulated",
        "accuracy is real",
        "compute with 8-bit numbers in place of its activations",
        "11.00 MiB",
        "no CPU engine here",
    ):
        assert fact in text
    assert "as fast as" not in text
    assert commands(run) == [f"qexp again {run.key[:8]} quant=w8a8", f"qexp search {run.key[:8]}"]
    both = verdict(run, judged(-0.3))
    assert both.answer == "deployable" and both.best is not None and both.best.row.quant == "w8a8"
    assert "W4A4 PTQ (simulated)" in " ".join(sentences(both))


def test_a_collapsed_model_is_never_best_even_without_any_loss() -> None:
    collapsed = judged(0.0, caveats={"ptq": {"f1": CONSTANT}})
    found = verdict(collapsed)
    assert (found.answer, found.best) == ("none", None)
    assert CONSTANT in words(collapsed)
    assert commands(collapsed)[0] == f"qexp again {collapsed.key[:8]} method=qat"
    with_other = verdict(collapsed, judged(-3.0, quant="w4a8"))
    assert with_other.best is not None and with_other.best.row.quant == "w4a8"


def test_a_checkpoint_at_chance_is_no_reason_to_train_but_to_look_at_its_labels() -> None:
    caveats = {"fp32": {"f1": CONSTANT}}
    trained = judged(0.0, caveats=caveats)
    assert commands(trained) == [f"qexp again {trained.key[:8]} finetune.epochs=6"]
    finished = judged(0.0, caveats=caveats, sections={"finetune": {"kind": "none"}})
    (command,) = commands(finished)
    assert command == f"qexp again {finished.key[:8]} 'task.labels=[yes,no]'"


def test_one_collapsed_seed_rules_a_candidate_out() -> None:
    runs = [
        judged(-0.1, sections={"seed": 1}),
        judged(0.0, sections={"seed": 2}, caveats={"ptq": {"f1": CONSTANT}}),
    ]
    assert [each.state for each in verdict(*runs).candidates] == ["collapsed"]


def test_a_collapsed_fp32_model_leaves_nothing_to_say() -> None:
    run = judged(0.0, caveats={"fp32": {"f1": CONSTANT}, "ptq": {"f1": CONSTANT}})
    assert verdict(run).answer == "cannot tell"
    assert "so a loss against it says nothing" in words(run)
    assert commands(run) == [f"qexp again {run.key[:8]} finetune.epochs=6"]


def test_an_undefined_score_is_no_answer() -> None:
    run = judged(scores={"fp32": {"f1": 88.0}, "ptq": {"f1": None}})
    assert [each.state for each in verdict(run).candidates] == ["undefined"]
    assert verdict(run).answer == "none"


@pytest.mark.parametrize(
    ("source", "sections", "first"),
    [
        ("sample", {}, "On generated rows: this says nothing about your data."),
        ("local", {"budget": {"name": "smoke", "train_steps": 5}}, "Smoke budget"),
        ("local", {"budget": {"train_steps": 5}}, "Limited budget"),
    ],
)
def test_what_the_numbers_cannot_show_comes_first(source: str, sections: dict[str, Any], first: str) -> None:
    found = verdict(judged(source=source, sections=sections))
    assert found.answer == "deployable"
    assert sentences(found)[0].startswith(first)
    assert headline(found) not in sentences(found)[0]


def test_without_engines_the_score_alone_is_judged() -> None:
    run = judged(engines={}, sections={"deploy": {"kind": "none"}})
    assert verdict(run).answer == "not exported"
    assert "nothing was exported (deploy=none)" in words(run)
    assert commands(run) == [f"qexp again {run.key[:8]} deploy=auto"]


@pytest.mark.parametrize(
    ("kind", "metric"), [("translation", "bleu"), ("regression", "pearson"), ("retrieval", "ndcg_at_10")]
)
def test_other_kinds_of_task_have_their_own_score(kind: str, metric: str) -> None:
    run = judged(-0.2, metric=metric, engines={}, sections={"deploy": {"kind": "none"}})
    task = {"name": kind, "kind": kind, "metrics": [metric], "evaluation": {"validation": "validation"}}
    run = replace(run, experiment={**run.experiment, "task": task})
    found = verdict(run)
    assert found.answer == "not exported"
    assert f"keeps {metric} within" in words(run)
    assert commands(run) == [f"qexp again {run.key[:8]} deploy=auto"]


def test_a_translator_that_was_exported_is_deployable_without_a_latency() -> None:
    gate = {"gate": parity(True)}
    run = judged(engines={"onnxruntime/fp32": gate, "onnxruntime/int8": gate}, metric="bleu")
    task = {"name": "multi30k", "kind": "translation", "metrics": ["bleu"], "evaluation": {"test": "test"}}
    run = replace(
        run,
        experiment={**run.experiment, "task": task, "deploy": {"kind": "onnx", "runtimes": ["onnxruntime"]}},
    )
    found = verdict(run)
    assert found.answer == "deployable" and found.best is not None
    assert "4.00x smaller" in words(run) and "latency is missing: not timed (deploy=onnx)" in words(run)
    assert file_of(found.best, None) == "artifacts/7-onnx/int8graphw8a8", "a folder with two files"


def test_other_scores_that_lose_more_are_named() -> None:
    run = judged(scores={"fp32": {"f1": 88.0, "accuracy": 85.0}, "ptq": {"f1": 87.9, "accuracy": 82.0}})
    assert "Other scores lose more: accuracy -3.00." in words(run)


def test_failed_and_float_runs_have_answers_of_their_own() -> None:
    assert verdict(failed(experiment())).answer == "failed"
    assert "the loss is nan" in words(failed(experiment()))
    assert verdict(record(experiment(quant="fp32"))).answer == "not quantized"
    floats = record(experiment(quant="fp32"))
    assert commands(floats) == [f"qexp again {floats.key[:8]} quant=w8a8"]


def test_an_interrupted_run_is_not_called_failed() -> None:
    run = interrupted(experiment(), scores={})
    assert verdict(run).answer == "interrupted"
    assert "mrpc: interrupted." in words(run) and "the same command goes on from here" in words(run)
    assert "failed" not in words(run) and "KeyboardInterrupt" not in words(run)
    assert commands(run) == [f"qexp again {run.key[:8]}"]
    assert verdict(run, failed(experiment(seed=2), scores={})).answer == "failed"


def test_states_come_in_their_order() -> None:
    found = verdict(
        judged(-0.1, quant="w4a4"), judged(-0.3), judged(-2.0, quant="w8a16"),
        judged(0.0, quant="w4a32", caveats={"ptq": {"f1": CONSTANT}}),
    )  # fmt: skip
    expected: list[State] = ["deployable", "simulated", "loss", "collapsed"]
    assert [each.state for each in found.candidates] == expected


def test_tasks_and_kinds_of_data_have_verdicts_of_their_own() -> None:
    found = verdicts([judged(), judged(task="cola"), judged(source="sample")])
    assert [(each.task, each.marks) for each in found] == [("cola", ()), ("mrpc", ()), ("mrpc", ("sample",))]
